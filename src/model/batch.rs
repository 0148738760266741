//! A checked batch: what a run reads. Borrowed views; every offset has been seen to fit.
use super::array::{Array, Row};
use super::config::MAX_PROCESS;

#[derive(Clone, Copy, Debug)]
pub enum Extents {
    /// Rollout i: tokens `cu_seqlens[i] .. cu_seqlens[i+1]` of `[N]` arrays.
    Packed { cu_seqlens: Array },
    /// Rollout i: `lengths[i]` tokens (T without lengths) at the left or right of row i of `[R, T]` arrays.
    Padded { lengths: Option<Array>, pad_left: bool },
}

#[derive(Clone, Copy, Debug)]
pub enum Groups {
    Index(Array),
    Offsets(Array),
    Constant(usize),
}

/// Where the process values come from.
#[derive(Clone, Copy, Debug)]
pub enum Process {
    None,
    /// A value a token.
    Signal([Option<Array>; MAX_PROCESS]),
    /// log-probabilities: OPD, with a base G-OPD.
    LogProbs { policy: Array, teacher: Array, base: Option<Array> },
    /// CSR scores, `[S]` or `[P, S]`.
    Scores(Array),
    /// CSR steps without scores: the outcome on the last (`step_value = return_to_go`).
    Returns,
}

/// CSR steps.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    pub offsets: Array,
    pub ends: Array,
    pub begins: Option<Array>,
}

/// Token-shaped: log-probabilities of the policy, sums of its squared probabilities, importance ratios.
#[derive(Clone, Copy, Debug)]
pub struct BaselineInputs {
    pub policy: Array,
    pub sum_pi_squared: Array,
    pub ratio: Option<Array>,
}

/// Rollouts in pieces (context parallelism): what a piece is of.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    pub count: usize,
    /// `[P]`: row of the per-rollout arrays, index of its first token in the rollout, number among the rollout's pieces.
    pub rollout: Array,
    pub begin: Array,
    pub index: Array,
    /// `[R]`: tokens of the whole rollouts; their numbers in the whole batch (`None`: the row).
    pub lengths: Array,
    pub numbers: Option<Array>,
}

#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// Rows of the per-rollout arrays.
    pub rollouts: usize,
    pub groups: usize,
    /// Token slots of token-shaped arrays: `[slots]` packed (N), `[R, slots]` padded (T).
    pub slots: usize,
    pub extents: Extents,
    pub grouping: Groups,
    pub mask: Option<Array>,
    /// outcome, format, further streams: row `OUTCOME + index` of the stream table.
    pub rollout_streams: [Option<Array>; 12],
    pub format_ok: Option<Array>,
    pub in_stats: Option<Array>,
    pub absent: Option<Array>,
    pub bootstrap: Option<Array>,
    pub process: Process,
    /// Process streams given.
    pub num_process: usize,
    /// `Process::Scores` is `[S]`, not `[P, S]`.
    pub scores_flat: bool,
    pub steps: Option<Steps>,
    pub step_marks: Option<Array>,
    pub chunk_marks: Option<Array>,
    pub values: Option<Array>,
    pub token_rewards: Option<Array>,
    /// `center = given`.
    pub baselines: Option<Array>,
    /// `center = given`, `scale = given`: `[G, MAX_STREAMS]`.
    pub stats_mean: Option<Array>,
    pub stats_std: Option<Array>,
    /// gae: lambda of each rollout.
    pub rollout_lam: Option<Array>,
    /// Log-probabilities of KL in the reward: policy and reference.
    pub reference: Option<(Array, Array)>,
    /// Log-probabilities of V-trace: policy and the policy that sampled.
    pub behavior: Option<(Array, Array)>,
    /// `step_sets = step_group`: a number a step.
    pub step_group: Option<Array>,
    /// `token_baseline`: what its weights are made of.
    pub baseline_inputs: Option<BaselineInputs>,
    pub pieces: Option<Pieces>,
}

/// A rollout's place in token-shaped arrays.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub row: usize,
    pub column: usize,
    pub len: usize,
    pub flat: bool,
    /// First slot of workspace arrays.
    pub slot: usize,
    /// Slots after it that hold no token (of a piece that reaches beyond its rollout's end).
    pub tail: usize,
    /// Index of its first token in the rollout, whose tokens are `whole`.
    pub begin: usize,
    pub whole: usize,
}

impl Extent {
    #[inline]
    pub fn of(&self, array: &Array) -> Row {
        array.line(self.row, self.column, self.len, self.flat)
    }

    /// The place of its tokens a .. b in the arrays.
    pub fn part(&self, a: usize, b: usize) -> Extent {
        debug_assert!(a <= b && b <= self.len);
        Extent { column: self.column + a, len: b - a, ..*self }
    }
}

impl Problem {
    /// Of no rollouts.
    #[inline(always)]
    pub fn nothing() -> Problem {
        Problem {
            rollouts: 0,
            groups: 0,
            slots: 0,
            extents: Extents::Padded { lengths: None, pad_left: false },
            grouping: Groups::Constant(1),
            mask: None,
            rollout_streams: [None; 12],
            format_ok: None,
            in_stats: None,
            absent: None,
            bootstrap: None,
            process: Process::None,
            num_process: 0,
            scores_flat: true,
            steps: None,
            step_marks: None,
            chunk_marks: None,
            values: None,
            token_rewards: None,
            baselines: None,
            stats_mean: None,
            stats_std: None,
            rollout_lam: None,
            reference: None,
            behavior: None,
            step_group: None,
            baseline_inputs: None,
            pieces: None,
        }
    }

    #[inline]
    pub fn packed(&self) -> bool {
        matches!(self.extents, Extents::Packed { .. })
    }

    /// Extents of a call: a rollout each, or a piece.
    pub fn units(&self) -> usize {
        self.pieces.as_ref().map_or(self.rollouts, |p| p.count)
    }

    /// Row of unit i in the per-rollout arrays.
    #[inline]
    pub fn row(&self, i: usize) -> usize {
        // Rows have been seen to be in range; a caller who changes them under way gets a wrong one, nothing worse.
        self.pieces.as_ref().map_or(i, |p| (p.rollout.int(i).max(0) as usize).min(self.rollouts.saturating_sub(1)))
    }

    /// Group of a row.
    pub fn group(&self, row: usize) -> usize {
        match &self.grouping {
            Groups::Index(index) => (index.int(row).max(0) as usize).min(self.groups.saturating_sub(1)),
            Groups::Constant(n) => row / n,
            Groups::Offsets(offsets) => {
                let (mut low, mut high) = (0, self.groups);
                while low + 1 < high {
                    let middle = (low + high) / 2;
                    (low, high) = if offsets.int(middle) as usize <= row { (middle, high) } else { (low, middle) };
                }
                low
            }
        }
    }

    /// Of rollouts side by side, which most are, it is inlined: what is not asked for of it is not worked out.
    #[inline(always)]
    pub fn extent(&self, i: usize) -> Extent {
        match (&self.extents, &self.pieces) {
            (Extents::Packed { cu_seqlens }, None) => {
                let [first, from, to] = cu_seqlens.offsets(i).map(|x| x as usize);
                Extent { row: i, column: from, len: to - from, flat: true, slot: from - first, tail: 0, begin: 0, whole: to - from }
            }
            _ => self.any_extent(i),
        }
    }

    #[inline(never)]
    fn any_extent(&self, i: usize) -> Extent {
        match &self.extents {
            Extents::Packed { cu_seqlens } => {
                let (from, to) = (cu_seqlens.int(i) as usize, cu_seqlens.int(i + 1) as usize);
                let (begin, whole) = match &self.pieces {
                    None => (0, to - from),
                    Some(p) => (p.begin.int(i).max(0) as usize, p.lengths.int(self.row(i)).max(0) as usize),
                };
                let len = whole.saturating_sub(begin).min(to - from);
                Extent { row: i, column: from, len, flat: true, slot: from - cu_seqlens.int(0) as usize, tail: to - from - len, begin, whole }
            }
            Extents::Padded { lengths, pad_left } => {
                let len = lengths.as_ref().map_or(self.slots, |l| l.int(i) as usize);
                let column = if *pad_left { self.slots - len } else { 0 };
                Extent { row: i, column, len, flat: false, slot: i * self.slots + column, tail: 0, begin: 0, whole: len }
            }
        }
    }

    /// Is any process value given?
    pub fn has_process(&self) -> bool {
        !matches!(self.process, Process::None)
    }

    /// Bytes of token-shaped input, to judge whether threads pay.
    pub fn bytes(&self) -> usize {
        let tokens = if self.packed() { self.slots } else { self.slots * self.rollouts };
        tokens * 8 + self.rollouts * 16
    }
}
