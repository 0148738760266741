//! Partials: a batch's statistics as sections of integers that add or take the maximum, in any order.
use super::Slots;
use super::pieces::Exchange;
use crate::model::config::{Chunk, Config, Kind, Limits, Whiten};
use crate::model::context::Memory;
use crate::model::ranks::hash;
use crate::numerics::exact::{Extremes, Sums};

pub use super::states::{BatchState, GroupState};

/// The numbers of the ABI for a section's type and operator; `check` holds them to its own.
pub const I64: i32 = 5;
pub const I32: i32 = 6;
pub const SUM: i32 = 1;
pub const MAX: i32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub offset: usize,
    pub count: usize,
    pub dtype: i32,
    pub op: i32,
}

impl Section {
    /// Words of 4 bytes.
    fn words(&self) -> usize {
        self.count * if self.dtype == I64 { 2 } else { 1 }
    }
}

const EMPTY: Section = Section { offset: 0, count: 0, dtype: I64, op: SUM };

/// First word of every buffer.
const MAGIC: u64 = u64::from_le_bytes(*b"passrl-p");

/// What a phase takes in. Those of pieces are there where rollouts come in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What stands at the edges of the pieces.
    Edges,
    /// Sums over the tokens of each rollout, where its value in a set is made of one.
    Own,
    Maxima,
    Sums,
    /// Chunks that end in each piece, where they are not known by `Sums`.
    Chunks,
    /// Tiles of the scan.
    Scan,
    WhitenMaxima,
    WhitenSums,
}

/// All of them, in the order of their words in `Partials::given`.
const STAGES: [Stage; 8] =
    [Stage::Edges, Stage::Own, Stage::Chunks, Stage::Scan, Stage::WhitenMaxima, Stage::WhitenSums, Stage::Maxima, Stage::Sums];
pub const MOST_STAGES: usize = STAGES.len();

/// Layout of a plan's partials buffer: header, then the sections of each phase.
#[derive(Clone, Copy, Debug)]
pub struct Partials {
    pub bytes: usize,
    pub phases: usize,
    pub fingerprint: u64,
    slots: usize,
    groups: usize,
    /// Words of a group's sums: 6 a slot; of kl also the rollouts that count, for its edges.
    words: usize,
    /// Positions of the KL table a group (0: none).
    pub positions: usize,
    pub extremes: Section,
    pub sums: Section,
    pub table: Section,
    pub batch_extremes: Section,
    pub batch_sums: Section,
    /// Where a group must be whole in one call: the calls that have rollouts of it (times 2^32) and their rollouts.
    pub claims: Section,
    pub second: Section,
    pub whiten_extremes: Section,
    pub whiten_sums: Section,
    /// Of each stage a word: the rollouts (of a plan with pieces: the pieces) that its phase has been given. That of the sums stands beside them.
    pub given: Section,
    pub pieces: Option<Exchange>,
    stages: [Stage; MOST_STAGES],
}

/// What the keys of a section begin at: max|x| and the format state at 0, the other keys below every value.
#[derive(Clone, Copy, Debug)]
pub enum FirstKeys {
    /// So many keys a group: (max|x|, max, min) a slot, then the format state.
    Group(usize),
    /// (max|x|, max, min) a set.
    Set,
    Lowest,
}

impl FirstKeys {
    pub fn first(self, i: usize) -> i32 {
        let zero = match self {
            FirstKeys::Group(keys) => i % keys == keys - 1 || i % keys % 3 == 0,
            FirstKeys::Set => i % 3 == 0,
            FirstKeys::Lowest => false,
        };
        if zero { 0 } else { i32::MIN }
    }
}

impl Partials {
    pub fn new(config: &Config, limits: &Limits, slots: &Slots) -> Partials {
        let mut at = 32usize;
        let mut take = |count: usize, dtype: i32, op: i32| {
            let section = Section { offset: at, count, dtype, op };
            at = (at + count * if dtype == I64 { 8 } else { 4 }).next_multiple_of(8);
            section
        };
        let by_value = config.kind == Kind::Kl && config.chunk == Chunk::ByValue;
        let positions = if by_value { limits.rollout_tokens } else { 0 };
        let whitens = config.whiten != Whiten::None;
        let batch = if slots.batch != 0 { slots.count } else { 0 };
        // Sections of one phase, type and operator stand side by side: one all-reduce serves them (`joined`).
        let extremes = take(limits.groups * (3 * slots.count + 1), I32, MAX);
        let batch_extremes = take(3 * batch, I32, MAX);
        let given = take(STAGES.len(), I64, SUM);
        let words = 6 * slots.count + usize::from(config.kind == Kind::Kl);
        let sums = take(limits.groups * words, I64, SUM);
        let table = take(limits.groups * positions * 2, I64, SUM);
        let batch_sums = take(7 * batch, I64, SUM);
        let claims = take(if config.of_whole_groups() { limits.groups } else { 0 }, I64, SUM);
        let pieces = Exchange::new(config, limits, &mut |count| take(count, I64, SUM));
        let second = take(if slots.runner_up != 0 { limits.groups * slots.count } else { 0 }, I32, MAX);
        let whiten_extremes = if whitens { take(3, I32, MAX) } else { EMPTY };
        let whiten_sums = if whitens { take(6, I64, SUM) } else { EMPTY };
        let bytes = at;
        let mut stages = [Stage::Maxima; MOST_STAGES];
        let mut phases = 0;
        for (there, stage) in [
            (pieces.is_some(), Stage::Edges),
            (pieces.is_some_and(|p| p.own.count > 0), Stage::Own),
            (true, Stage::Maxima),
            (true, Stage::Sums),
            (pieces.is_some() && by_value, Stage::Chunks),
            (pieces.is_some(), Stage::Scan),
            (whitens, Stage::WhitenMaxima),
            (whitens, Stage::WhitenSums),
        ] {
            if there {
                stages[phases] = stage;
                phases += 1;
            }
        }
        // Over what the bits and the layout depend on.
        let mut layout = format!("layout 4 {config:?} groups {} rollout_tokens {}", limits.groups, limits.rollout_tokens);
        if pieces.is_some() {
            layout += &format!(" pieces 2 rollout_pieces {} batch_rollouts {}", limits.rollout_pieces, limits.batch_rollouts);
        }
        Partials {
            bytes,
            phases,
            fingerprint: hash(&layout),
            slots: slots.count,
            groups: limits.groups,
            words,
            positions,
            extremes,
            sums,
            table,
            batch_extremes,
            batch_sums,
            claims,
            second,
            whiten_extremes,
            whiten_sums,
            given,
            pieces,
            stages,
        }
    }

    pub fn stage(&self, phase: usize) -> Stage {
        self.stages[..self.phases][phase]
    }

    /// (max|x|, max, min) a slot, then the format state.
    pub fn keys_of_group(&self) -> usize {
        3 * self.slots + 1
    }

    pub fn header(&self) -> [u64; 4] {
        [MAGIC, self.fingerprint, crate::NUMERICS_VERSION as u64, self.bytes as u64]
    }

    /// Sections of a phase that an all-reduce combines.
    pub fn sections(&self, phase: usize) -> Vec<Section> {
        let mut all = self.statistics(phase);
        // (Beside those of its operator, where there are any.)
        let at = if all.first().is_some_and(|first| first.op == SUM) { 0 } else { all.len() };
        all.insert(at, Section { offset: self.given.offset + 8 * self.given_word(phase), count: 1, ..self.given });
        all
    }

    /// The word of a phase in `given`.
    pub fn given_word(&self, phase: usize) -> usize {
        let stage = self.stage(phase);
        STAGES.iter().position(|s| *s == stage).unwrap_or_else(|| unreachable!("{stage:?}"))
    }

    /// Those without the count of what the phase has been given: of ranks within a run, whose phases are in order by themselves.
    fn statistics(&self, phase: usize) -> Vec<Section> {
        let (edges, own, chunks, scan) = self.pieces.map_or((EMPTY, EMPTY, EMPTY, EMPTY), |p| (p.edges, p.own, p.chunks, p.scan));
        let all = match self.stage(phase) {
            Stage::Edges => vec![edges],
            Stage::Own => vec![own],
            Stage::Maxima => vec![self.extremes, self.batch_extremes],
            Stage::Sums => vec![self.sums, self.table, self.batch_sums, self.claims, if self.counts_apart() { EMPTY } else { chunks }, self.second],
            Stage::Chunks => vec![chunks],
            Stage::Scan => vec![scan],
            Stage::WhitenMaxima => vec![self.whiten_extremes],
            Stage::WhitenSums => vec![self.whiten_sums],
        };
        all.into_iter().filter(|s| s.count > 0).collect()
    }

    /// Are chunks counted in a phase of their own (their edges follow from sums of the group)?
    fn counts_apart(&self) -> bool {
        self.stages[..self.phases].contains(&Stage::Chunks)
    }

    /// The sections of a phase of one type and operator as one; what lies between them is padding, which both operators leave as it is.
    pub fn joined(&self, phase: usize, dtype: i32, op: i32) -> Section {
        let each = if dtype == I64 { 8 } else { 4 };
        let of: Vec<Section> = self.statistics(phase).into_iter().filter(|s| (s.dtype, s.op) == (dtype, op)).collect();
        match (of.first(), of.last()) {
            (Some(first), Some(last)) => Section { count: (last.offset - first.offset) / each + last.count, ..*first },
            _ => Section { count: 0, dtype, op, ..EMPTY },
        }
    }

    /// # Safety
    /// The buffer is used by this call alone; likewise below.
    pub unsafe fn init(&self, buffer: Memory) {
        // SAFETY: exclusive by the caller's word; sections lie within the buffer.
        unsafe {
            buffer.part::<u8>(0, self.bytes).fill(0);
            buffer.part::<u64>(0, 4).copy_from_slice(&self.header());
            for (section, zeros) in self.keys_of_all() {
                for (i, key) in buffer.part::<i32>(section.offset, section.count).iter_mut().enumerate() {
                    *key = zeros.first(i);
                }
            }
        }
    }

    /// The sections of keys, with what each begins at; every other section begins at 0.
    pub fn keys_of_all(&self) -> [(Section, FirstKeys); 4] {
        [
            (self.extremes, FirstKeys::Group(self.keys_of_group())),
            (self.batch_extremes, FirstKeys::Set),
            (self.whiten_extremes, FirstKeys::Set),
            (self.second, FirstKeys::Lowest),
        ]
    }

    /// Adds the share of the latest phase in `from`. What both have of the phases before must be the same (they were begun as copies of one buffer), or `from` has
    /// nothing of it; else the first phase that differs is given, and nothing is added. An empty `into` becomes what `from` is.
    ///
    /// # Safety
    /// As `init` for `into`; `from` is another buffer.
    pub unsafe fn merge(&self, into: Memory, from: Memory) -> Option<usize> {
        // SAFETY: two buffers of this layout; exclusive by the caller's word.
        let (held, more) = unsafe { (self.given(into), self.given(from)) };
        let latest = (0..self.phases).rfind(|phase| held[*phase] != 0 || more[*phase] != 0)?;
        // SAFETY: as above; sections are multiples of words.
        let alike = |s: &Section| unsafe { into.part::<i32>(s.offset, s.words()) == from.part::<i32>(s.offset, s.words()) };
        let first = if held == [0; MOST_STAGES] { 0 } else { latest };
        let differ = (0..first).find(|phase| more[*phase] != 0 && !self.sections(*phase).iter().all(alike));
        if differ.is_some() {
            return differ;
        }
        for section in (first..=latest).flat_map(|phase| self.sections(phase)) {
            // SAFETY: as above.
            unsafe {
                if section.dtype == I64 {
                    let source = from.part::<i64>(section.offset, section.count);
                    for (a, b) in into.part::<i64>(section.offset, section.count).iter_mut().zip(source) {
                        // Wrapping: a damaged buffer must not stop the process.
                        *a = a.wrapping_add(*b);
                    }
                } else {
                    let source = from.part::<i32>(section.offset, section.count);
                    for (a, b) in into.part::<i32>(section.offset, section.count).iter_mut().zip(source) {
                        *a = (*a).max(*b);
                    }
                }
            }
        }
        None
    }

    /// What each phase has been given.
    ///
    /// # Safety
    /// No other thread writes it.
    pub unsafe fn given(&self, buffer: Memory) -> [i64; MOST_STAGES] {
        // SAFETY: by the caller's word.
        let words = unsafe { buffer.part::<i64>(self.given.offset, self.given.count) };
        std::array::from_fn(|phase| if phase < self.phases { words[self.given_word(phase)] } else { 0 })
    }

    /// A phase has been given so many more.
    ///
    /// # Safety
    /// As `table`, of all groups.
    pub unsafe fn count_given(&self, buffer: Memory, phase: usize, units: usize) {
        // SAFETY: by the caller's word.
        let word = unsafe { &mut buffer.part::<i64>(self.given.offset, self.given.count)[self.given_word(phase)] };
        *word = word.wrapping_add(units as i64);
    }

    /// Keys of a group: 3 a slot, then the format state.
    unsafe fn keys<'a>(&self, buffer: Memory, group: usize) -> &'a mut [i32] {
        let each = self.keys_of_group();
        assert!(group < self.groups);
        // SAFETY: groups are disjoint; one thread works on a group.
        unsafe { buffer.part(self.extremes.offset + group * each * 4, each) }
    }

    unsafe fn words<'a>(&self, buffer: Memory, group: usize) -> &'a mut [i64] {
        assert!(group < self.groups);
        // SAFETY: as `keys`.
        unsafe { buffer.part(self.sums.offset + group * self.words * 8, self.words) }
    }

    /// The KL table of a group: `[C; positions]` then `[n; positions]`.
    ///
    /// # Safety
    /// No other thread works on this group.
    pub unsafe fn table<'a>(&self, buffer: Memory, group: usize) -> &'a mut [i64] {
        assert!(group < self.groups);
        // SAFETY: as `keys`.
        unsafe { buffer.part(self.table.offset + group * self.positions * 16, self.positions * 2) }
    }

    /// # Safety
    /// As `table`.
    pub unsafe fn load(&self, buffer: Memory, group: usize) -> GroupState {
        let mut state = GroupState::EMPTY;
        // SAFETY: passed on.
        let (keys, words) = unsafe { (self.keys(buffer, group), self.words(buffer, group)) };
        for s in 0..self.slots {
            state.extremes[s] = Extremes { absmax: keys[3 * s], max: keys[3 * s + 1], min: keys[3 * s + 2] };
            let w = &words[6 * s..];
            state.sums[s] = Sums { n: w[0], q: w[1], hi: w[2], lo: w[3], at_max: w[4], at_min: w[5] };
        }
        state.format = keys[3 * self.slots];
        state.members = words.get(6 * self.slots).copied().unwrap_or(0);
        if self.second.count > 0 {
            // SAFETY: passed on.
            let keys = unsafe { self.seconds(buffer, group) };
            state.second[..self.slots].copy_from_slice(keys);
        }
        state
    }

    /// Keys of the second largest values of a group, one a slot.
    unsafe fn seconds<'a>(&self, buffer: Memory, group: usize) -> &'a mut [i32] {
        // SAFETY: as `keys`.
        unsafe { buffer.part(self.second.offset + group * self.slots * 4, self.slots) }
    }

    /// Takes the maxima of a call's share into the buffer.
    ///
    /// # Safety
    /// As `table`.
    pub unsafe fn add_extremes(&self, buffer: Memory, group: usize, share: &GroupState) {
        // SAFETY: passed on.
        let keys = unsafe { self.keys(buffer, group) };
        for (s, e) in share.extremes[..self.slots].iter().enumerate() {
            for (key, new) in keys[3 * s..3 * s + 3].iter_mut().zip([e.absmax, e.max, e.min]) {
                *key = (*key).max(new);
            }
        }
        keys[3 * self.slots] = keys[3 * self.slots].max(share.format);
    }

    /// Adds the sums of a call's share to the buffer.
    ///
    /// # Safety
    /// As `table`.
    pub unsafe fn add_sums(&self, buffer: Memory, group: usize, share: &GroupState) {
        // SAFETY: passed on.
        let words = unsafe { self.words(buffer, group) };
        for (s, sums) in share.sums[..self.slots].iter().enumerate() {
            for (word, new) in words[6 * s..6 * s + 6].iter_mut().zip([sums.n, sums.q, sums.hi, sums.lo, sums.at_max, sums.at_min]) {
                *word = word.wrapping_add(new);
            }
        }
        if let Some(members) = words.get_mut(6 * self.slots) {
            *members = members.wrapping_add(share.members);
        }
        if self.second.count > 0 {
            // SAFETY: passed on.
            let keys = unsafe { self.seconds(buffer, group) };
            keys.iter_mut().zip(&share.second).for_each(|(a, b)| *a = (*a).max(*b));
        }
    }

    /// Counts where the sums are not asked for (`Ranks::maxima_alone`): a set is empty as its maxima are, and of any other the number is not looked at.
    ///
    /// # Safety
    /// The buffer is used by this call alone.
    pub unsafe fn count_by_maxima(&self, buffer: Memory) {
        for group in 0..self.groups {
            // SAFETY: passed on.
            let (keys, words) = unsafe { (self.keys(buffer, group), self.words(buffer, group)) };
            for s in 0..self.slots {
                words[6 * s] = if keys[3 * s + 1] == Extremes::EMPTY.max { 0 } else { 2 };
            }
        }
    }

    /// Calls that have rollouts of each group, and the rollouts (`of_whole_groups`).
    ///
    /// # Safety
    /// No other thread writes them.
    pub unsafe fn claims<'a>(&self, buffer: Memory) -> &'a [i64] {
        // SAFETY: by the caller's word.
        unsafe { buffer.part(self.claims.offset, self.claims.count) }
    }

    /// Counts a call and its rollouts of a group.
    ///
    /// # Safety
    /// As `table`.
    pub unsafe fn claim(&self, buffer: Memory, group: usize, rollouts: usize) {
        if self.claims.count > 0 {
            assert!(group < self.groups);
            // SAFETY: groups are disjoint; one thread works on a group.
            let claim = unsafe { &mut buffer.part::<i64>(self.claims.offset + group * 8, 1)[0] };
            *claim = claim.wrapping_add((1 << 32) + rollouts as i64);
        }
    }

    /// Sets of the whole batch.
    ///
    /// # Safety
    /// No other thread uses them.
    pub unsafe fn batch(&self, buffer: Memory) -> BatchState {
        let mut state = BatchState::EMPTY;
        // SAFETY: passed on.
        let (k, w) = unsafe {
            (
                buffer.part::<i32>(self.batch_extremes.offset, self.batch_extremes.count),
                buffer.part::<i64>(self.batch_sums.offset, self.batch_sums.count),
            )
        };
        for (s, (k, w)) in k.chunks_exact(3).zip(w.chunks_exact(7)).enumerate() {
            state.extremes[s] = Extremes { absmax: k[0], max: k[1], min: k[2] };
            state.sums[s] = Sums { n: w[0], q: w[1], hi: w[2], lo: w[3], at_max: w[4], at_min: w[5] };
            state.nonzero[s] = w[6];
        }
        state
    }

    /// # Safety
    /// As `batch`.
    pub unsafe fn set_batch(&self, buffer: Memory, state: &BatchState) {
        // SAFETY: passed on.
        unsafe {
            let k = buffer.part::<i32>(self.batch_extremes.offset, self.batch_extremes.count);
            let w = buffer.part::<i64>(self.batch_sums.offset, self.batch_sums.count);
            for (s, (k, w)) in k.chunks_exact_mut(3).zip(w.chunks_exact_mut(7)).enumerate() {
                let (e, t) = (&state.extremes[s], &state.sums[s]);
                k.copy_from_slice(&[e.absmax, e.max, e.min]);
                w.copy_from_slice(&[t.n, t.q, t.hi, t.lo, t.at_max, t.at_min, state.nonzero[s]]);
            }
        }
    }

    /// Batch-wide whitening statistics.
    ///
    /// # Safety
    /// No other thread uses them.
    pub unsafe fn whitening(&self, buffer: Memory) -> (Extremes, Sums) {
        // SAFETY: passed on.
        let (k, w) = unsafe { (buffer.part::<i32>(self.whiten_extremes.offset, 3), buffer.part::<i64>(self.whiten_sums.offset, 6)) };
        (Extremes { absmax: k[0], max: k[1], min: k[2] }, Sums { n: w[0], q: w[1], hi: w[2], lo: w[3], at_max: w[4], at_min: w[5] })
    }

    /// # Safety
    /// As `whitening`.
    pub unsafe fn set_whitening(&self, buffer: Memory, extremes: &Extremes, sums: &Sums) {
        // SAFETY: passed on.
        unsafe {
            buffer.part::<i32>(self.whiten_extremes.offset, 3).copy_from_slice(&[extremes.absmax, extremes.max, extremes.min]);
            let s = sums;
            buffer.part::<i64>(self.whiten_sums.offset, 6).copy_from_slice(&[s.n, s.q, s.hi, s.lo, s.at_max, s.at_min]);
        }
    }
}
