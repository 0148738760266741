//! The scan of a rollout in pieces (context parallelism): tiles of 32 positions are numbered from the rollout's end, so that a piece needs how many positions lie
//! after it, the tops of the tiles after it, and the values of a tile that it shares. Each piece then replays the carries, in the order of the whole rollout.
use super::pieces::{Joint, Place};
use super::returns;
use super::terms::Terms;
use super::worker::Worker;
use crate::model::config::*;
use crate::model::pieces::{self as words, Rows};
use crate::plan::pieces::TILE;

/// Positions of a rollout's scan: chunks, tokens in scope, or all tokens from the first in scope on.
struct Positions<'a> {
    rows: Rows<'a>,
    counts: Option<&'a [i64]>,
    /// Every token from this one on.
    from: Option<i64>,
    pieces: usize,
    total: usize,
    after: usize,
}

impl Positions<'_> {
    fn own(&self, piece: usize) -> usize {
        if let Some(from) = self.from {
            let row = self.rows.row(piece);
            return row[words::BEGIN].saturating_add(row[words::SLOTS]).min(row[words::WHOLE]).saturating_sub(row[words::BEGIN].max(from)).max(0) as usize;
        }
        self.counts.map_or_else(|| self.rows.in_scope(piece), |c| c[piece].max(0) as usize)
    }

    /// The piece that has position p, which one has.
    fn owner(&self, p: usize) -> usize {
        let mut end = 0;
        let has = |j: &usize| {
            end += self.own(*j);
            p < end
        };
        (0..self.pieces).rev().find(has).unwrap_or(0)
    }

    /// Tile m: its first position and the one past its last.
    fn tile(&self, m: usize) -> (usize, usize) {
        (m * TILE, ((m + 1) * TILE).min(self.total))
    }
}

fn number(word: i64) -> f64 {
    f64::from_bits(word as u64)
}

impl Worker<'_> {
    fn positions_of(&self, by_token: bool) -> Option<(Joint, Positions<'_>)> {
        let place = self.place;
        let (joint, rows) = (self.job.joint?, self.job.rows(place.rollout)?);
        if self.job.config().spreads() {
            let first = rows.first();
            let total = first.map_or(0, |first| rows.row(0)[words::WHOLE].max(0) as usize - first);
            let positions = Positions { rows, counts: None, from: Some(first.map_or(i64::MAX, |first| first as i64)), pieces: rows.count(), total, after: place.lines_after };
            return Some((joint, positions));
        }
        // SAFETY: the chunks have been counted, and are read only from then on.
        let counts = (!by_token).then(|| unsafe { &*joint.layout.counts(joint.buffer, place.rollout) });
        let (total, after) = if by_token { (place.total, place.tokens_after) } else { (place.chunks, place.after) };
        Some((joint, Positions { rows, counts, from: None, pieces: rows.count(), total, after }))
    }

    /// Credit of a piece, in place: `own` values, first chunk (or token) first, become what the scan of the whole rollout gives them, or stay (broadcast); value
    /// `own`, where there are `all` > own, becomes that of the chunk that goes on. While the tiles are brought together it tells its own instead.
    pub fn joint_credit(&self, by_token: bool, own: usize, all: usize, powers: &[f64; 33], y: &mut [f64]) {
        self.joint_scan(0, by_token, own, all, powers, y);
    }

    /// The same of one of the scans: 0, or 1 for returns that have their own.
    pub fn joint_scan(&self, scan: usize, by_token: bool, own: usize, all: usize, powers: &[f64; 33], y: &mut [f64]) {
        let Some((joint, of)) = self.positions_of(by_token) else { return };
        if self.tells {
            return self.tell_scan(scan, &joint, &of, &y[..own], powers);
        }
        if self.job.config().credit == Credit::Broadcast {
            if all > own && of.after > 0 {
                y[own] = self.first_value(&joint, of.owner(of.after - 1));
            }
            return;
        }
        if own == 0 && of.after == of.total {
            // No chunk ends here and none before: the one that goes on is the rollout's first.
            if all > 0 {
                y[0] = self.carry(scan, &joint, &of, powers, of.total.div_ceil(TILE));
            }
            return;
        }
        let (m, low) = (of.after / TILE, of.after % TILE);
        let carry = self.carry(scan, &joint, &of, powers, m);
        if low > 0 {
            let (first, end) = of.tile(m);
            // SAFETY: the tiles have been brought together, and are read only from then on.
            let shared: &[i64] = unsafe { joint.layout.shared(joint.buffer, self.place.rollout, of.owner(end - 1)) };
            for p in first..of.after {
                y[own + of.after - 1 - p] = number(shared[p - first]);
            }
        }
        returns::plain(&mut y[..own + low], powers, carry);
        if all > own && low == 0 {
            y[own] = carry;
        }
    }

    /// The value of a piece's first chunk, before any scan.
    fn first_value(&self, joint: &Joint, piece: usize) -> f64 {
        // SAFETY: as above.
        number(unsafe { joint.layout.shared(joint.buffer, self.place.rollout, piece) }[TILE])
    }

    /// G at the highest position of the tile before tile `m` (0: there is none).
    fn carry(&self, scan: usize, joint: &Joint, of: &Positions, powers: &[f64; 33], m: usize) -> f64 {
        let rollout = self.place.rollout;
        // SAFETY: as above.
        let tops: &[i64] = unsafe { joint.layout.tops(joint.buffer, rollout, scan) };
        let mut carry = 0.0;
        for (t, top) in tops.iter().enumerate().take(m) {
            let (first, end) = of.tile(t);
            let owner = of.owner(end - 1);
            let top = if owner == of.owner(first) {
                number(*top)
            } else {
                // SAFETY: as above.
                let shared: &[i64] = unsafe { joint.layout.shared(joint.buffer, rollout, owner) };
                let mut y = [0.0; TILE];
                let y = &mut y[..end - first];
                y.iter_mut().rev().zip(shared).for_each(|(y, word)| *y = number(*word));
                returns::tile(y, powers);
                y[0]
            };
            carry = top + powers[end - first] * carry;
        }
        carry
    }

    /// Tells the tops of the tiles that lie in this piece, the values of those that it shares, and the first value.
    fn tell_scan(&self, scan: usize, joint: &Joint, of: &Positions, values: &[f64], powers: &[f64; 33]) {
        let Place { rollout, piece, .. } = self.place;
        let (low, high) = (of.after, of.after + values.len());
        let at = |p: usize| values[high - 1 - p];
        let add = |word: &mut i64, x: f64| *word = word.wrapping_add(x.to_bits() as i64);
        if values.is_empty() {
            return;
        }
        for m in low / TILE..high.div_ceil(TILE) {
            let (first, end) = of.tile(m);
            if low <= first && end <= high {
                let mut y = [0.0; TILE];
                let y = &mut y[..end - first];
                y.iter_mut().rev().zip(first..end).for_each(|(y, p)| *y = at(p));
                returns::tile(y, powers);
                // SAFETY: the piece's group is this thread's; likewise below.
                add(unsafe { &mut joint.layout.tops(joint.buffer, rollout, scan)[m] }, y[0]);
            } else if scan == 0 {
                // SAFETY: as above.
                let shared = unsafe { joint.layout.shared(joint.buffer, rollout, of.owner(end - 1)) };
                (first.max(low)..end.min(high)).for_each(|p| add(&mut shared[p - first], at(p)));
            }
        }
        if scan == 0 {
            // SAFETY: as above.
            add(unsafe { &mut joint.layout.shared(joint.buffer, rollout, piece)[TILE] }, values[0]);
        }
    }

    /// D of the rollout's first chunk (or token), whichever piece has it.
    pub fn joint_path(&self, by_token: bool, terms: &Terms, powers: &[f64; 33]) -> f64 {
        let (c, plan) = (self.job.config(), self.job.plan);
        let Some((joint, of)) = self.positions_of(by_token).filter(|(_, of)| of.total > 0) else { return 0.0 };
        let g = match c.credit {
            Credit::Broadcast => self.first_value(&joint, of.owner(of.total - 1)),
            _ => self.carry(0, &joint, &of, powers, of.total.div_ceil(TILE)),
        };
        let d = if c.k == 0.0 || by_token { g } else { g * plan.divisors[plan.limits.rollout_tokens - of.total] };
        let apart = c.divide_scope == DivideScope::Process && c.fusion == Fusion::Advantage && !by_token;
        if apart { d + terms.gated.map_or_else(|| terms.sum(), |gated| gated.every) } else { d }
    }
}
