//! What the pieces of rollouts exchange (context parallelism): a table of what stands at their edges, how many chunks each has, and the tiles of the scan.
//! Sections of the partials: every piece writes its own slots, so that a SUM of int64 brings all to every rank.
use super::partials::{I64, SUM, Section};
use crate::model::config::{Config, Credit, GaeOver, Kind, Limits, Pool};
use crate::model::pieces::{Rows, WORDS};
use crate::model::context::Memory;

/// Positions of a tile of the scan.
pub const TILE: usize = 32;

#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    rollouts: usize,
    /// Rows of a rollout: its pieces at most.
    each: usize,
    /// Tiles of a rollout at most.
    tiles: usize,
    /// Scans: the returns may have one of their own.
    scans: usize,
    /// Words of a rollout's own sums: of its KL (0 or 1), then a sum and a count a process list.
    own_words: usize,
    own_lists: usize,
    /// Words of a piece in `chunks`: how many end in it; for gae over chunks also V at the begin of the last.
    chunk_words: usize,
    pub edges: Section,
    /// Sums over the tokens of a rollout, which its values in the sets are made of.
    pub own: Section,
    pub chunks: Section,
    pub scan: Section,
}

/// Sizes of the sections, of one rollout: the table's rows and the tiles of a scan at most, the scans, words of its own sums and process lists in them, words of a piece in
/// `chunks`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub rollouts: usize,
    pub each: usize,
    pub tiles: usize,
    pub scans: usize,
    pub own_words: usize,
    pub own_lists: usize,
    pub chunk_words: usize,
}

const NONE: Section = Section { offset: 0, count: 0, dtype: I64, op: SUM };

impl Exchange {
    /// `None`: rollouts come whole.
    pub fn new(config: &Config, limits: &Limits, take: &mut impl FnMut(usize) -> Section) -> Option<Exchange> {
        if limits.pieces == 0 {
            return None;
        }
        let (rollouts, each, tiles) = (limits.batch_rollouts, limits.rollout_pieces, limits.rollout_tokens.div_ceil(TILE));
        let scans = if config.credit == Credit::Gae && config.lam_returns >= 0.0 { 2 } else { 1 };
        let own_lists = if config.pool == Pool::Rollouts && config.kind != Kind::None { config.num_process } else { 0 };
        let own_words = usize::from(config.asks_kl() && !config.kl_by_token()) + 2 * own_lists;
        let chunk_words = if config.credit == Credit::Gae && config.gae_over == GaeOver::Chunks { 2 } else { 1 };
        let mut exchange = Exchange { rollouts, each, tiles, scans, own_words, own_lists, chunk_words, edges: NONE, own: NONE, chunks: NONE, scan: NONE };
        // First what goes with the sums that were taken before.
        exchange.chunks = take(rollouts * each * chunk_words);
        exchange.edges = take(rollouts * each * WORDS);
        exchange.own = take(rollouts * own_words);
        exchange.scan = take(rollouts * exchange.scan_words());
        Some(exchange)
    }

    pub fn sizes(&self) -> Sizes {
        let Exchange { rollouts, each, tiles, scans, own_words, own_lists, chunk_words, .. } = *self;
        Sizes { rollouts, each, tiles, scans, own_words, own_lists, chunk_words }
    }

    /// Words of a rollout in `scan`: the tops of its tiles, of each scan; of each piece a tile that it shares and the value of its first chunk.
    fn scan_words(&self) -> usize {
        self.scans * self.tiles + self.each * (TILE + 1)
    }

    /// The whole table, or that of one rollout.
    ///
    /// # Safety
    /// No thread writes it; likewise below.
    pub unsafe fn table<'a>(&self, buffer: Memory) -> &'a [i64] {
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.edges.offset, self.edges.count) }
    }

    /// # Safety
    /// As `table`.
    pub unsafe fn rows<'a>(&self, buffer: Memory, rollout: usize) -> Rows<'a> {
        assert!(rollout < self.rollouts);
        // SAFETY: by the caller's word.
        Rows(unsafe { buffer.part(self.edges.offset + rollout * self.each * WORDS * 8, self.each * WORDS) })
    }

    /// # Safety
    /// The piece is this thread's.
    pub unsafe fn row<'a>(&self, buffer: Memory, rollout: usize, piece: usize) -> &'a mut [i64] {
        assert!(rollout < self.rollouts && piece < self.each);
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.edges.offset + (rollout * self.each + piece) * WORDS * 8, WORDS) }
    }

    /// Sum of the rollout's KL.
    ///
    /// # Safety
    /// The rollout is this thread's, or the section is read only; likewise below.
    pub unsafe fn own_kl<'a>(&self, buffer: Memory, rollout: usize) -> &'a mut i64 {
        assert!(rollout < self.rollouts && self.own_words > 2 * self.own_lists);
        // SAFETY: by the caller's word.
        unsafe { &mut buffer.part(self.own.offset + rollout * self.own_words * 8, 1)[0] }
    }

    /// Sum and count of the rollout's values of a process list.
    ///
    /// # Safety
    /// As `own_kl`.
    pub unsafe fn own_list<'a>(&self, buffer: Memory, rollout: usize, list: usize) -> &'a mut [i64] {
        assert!(rollout < self.rollouts && list < self.own_lists);
        let word = (rollout + 1) * self.own_words - 2 * (self.own_lists - list);
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.own.offset + word * 8, 2) }
    }

    /// Chunks that end in each piece of a rollout.
    ///
    /// # Safety
    /// The rollout is this thread's, or the section is read only.
    pub unsafe fn counts<'a>(&self, buffer: Memory, rollout: usize) -> &'a mut [i64] {
        assert!(rollout < self.rollouts);
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.chunks.offset + rollout * self.each * self.chunk_words * 8, self.each) }
    }

    /// gae over chunks: of each piece V (bits of an f32) at the first token of its last chunk, plus 2^32 where that chunk goes on in a later piece.
    ///
    /// # Safety
    /// As `counts`.
    pub unsafe fn begins<'a>(&self, buffer: Memory, rollout: usize) -> Option<&'a mut [i64]> {
        assert!(rollout < self.rollouts);
        // SAFETY: by the caller's word.
        (self.chunk_words == 2).then(|| unsafe { buffer.part(self.chunks.offset + (2 * rollout + 1) * self.each * 8, self.each) })
    }

    /// Bits of f64: y at the highest position of each tile that lies in one piece.
    ///
    /// # Safety
    /// As `counts`.
    pub unsafe fn tops<'a>(&self, buffer: Memory, rollout: usize, scan: usize) -> &'a mut [i64] {
        assert!(rollout < self.rollouts && scan < self.scans);
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.scan.offset + (rollout * self.scan_words() + scan * self.tiles) * 8, self.tiles) }
    }

    /// Bits of f64: values of the tile whose highest position a piece has and whose lowest another, by position; then the value of the piece's first chunk.
    ///
    /// # Safety
    /// As `counts`.
    pub unsafe fn shared<'a>(&self, buffer: Memory, rollout: usize, piece: usize) -> &'a mut [i64] {
        assert!(rollout < self.rollouts && piece < self.each);
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.scan.offset + (rollout * self.scan_words() + self.scans * self.tiles + piece * (TILE + 1)) * 8, TILE + 1) }
    }
}
