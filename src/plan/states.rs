//! Exact statistics of a group and of the whole batch, as a buffer of partials keeps them.
use crate::numerics::exact::{Extremes, Sums};

/// What is known of one group: of a call alone, or of all that a buffer has seen.
#[derive(Clone, Copy, Debug)]
pub struct GroupState {
    pub extremes: [Extremes; 16],
    /// 0: no rollout seen; 1: all violate the format; 2: some rollout does not.
    pub format: i32,
    pub sums: [Sums; 16],
    /// Rollouts that count (kl).
    pub members: i64,
    /// Key of the largest value below the maximum (`runner_up`).
    pub second: [i32; 16],
}

/// Sets of the whole batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchState {
    pub extremes: [Extremes; 16],
    pub sums: [Sums; 16],
    pub nonzero: [i64; 16],
}

impl BatchState {
    pub const EMPTY: BatchState =
        BatchState { extremes: GroupState::EMPTY.extremes, sums: GroupState::EMPTY.sums, nonzero: [0; 16] };
}

impl GroupState {
    pub const EMPTY: GroupState = GroupState {
        extremes: [Extremes::EMPTY; 16],
        format: 0,
        sums: [Sums { n: 0, q: 0, hi: 0, lo: 0, at_max: 0, at_min: 0 }; 16],
        members: 0,
        second: [i32::MIN; 16],
    };
}
