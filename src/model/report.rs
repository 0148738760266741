//! Counts of a run, one a thread, added at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    pub findings: i64,
    /// (rollout or -1, group, stream, finding bit) of the first finding: the smallest (group, rollout).
    pub first: Option<First>,
    pub rollouts: i64,
    pub tokens: i64,
    pub chunks: i64,
    pub degenerate_groups: i64,
    pub bad_groups: i64,
    pub violating_groups: i64,
    pub missing_values: i64,
    pub nonfinite_values: i64,
    pub low_logps: i64,
    pub clipped_tokens: i64,
    pub overflowed_tokens: i64,
    pub bad_steps: i64,
    pub lost_deviations: i64,
    /// Groups that took the CPU backend's short way; told to nobody.
    pub usual_groups: i64,
    /// Likewise of them those of short rollouts.
    pub short_groups: i64,
    pub sum_advantages: f64,
    pub sum_squares: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct First {
    pub group: i64,
    pub rollout: i64,
    pub stream: i64,
    pub finding: i64,
}

pub const NONFINITE: i64 = 1;
pub const MISSING: i64 = 2;
pub const BAD_STEPS: i64 = 4;
pub const SINGLETON: i64 = 8;
pub const TOO_LARGE: i64 = 16;
/// Found by the CUDA backend alone: on the host offsets are refused before anything is done.
pub const BAD_OFFSETS: i64 = 32;
/// Likewise, of ranks: on the host the call itself says it.
pub const COLLECTIVE: i64 = 64;

impl Report {
    pub fn find(&mut self, finding: i64, group: usize, rollout: Option<usize>, stream: usize) {
        self.findings |= finding;
        let new = First { group: group as i64, rollout: rollout.map_or(-1, |i| i as i64), stream: stream as i64, finding };
        self.first = Some(self.first.map_or(new, |old| old.min(new)));
    }

    pub fn add(&mut self, other: &Report) {
        self.findings |= other.findings;
        self.first = match (self.first, other.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.rollouts += other.rollouts;
        self.tokens += other.tokens;
        self.chunks += other.chunks;
        self.degenerate_groups += other.degenerate_groups;
        self.bad_groups += other.bad_groups;
        self.violating_groups += other.violating_groups;
        self.missing_values += other.missing_values;
        self.nonfinite_values += other.nonfinite_values;
        self.low_logps += other.low_logps;
        self.clipped_tokens += other.clipped_tokens;
        self.overflowed_tokens += other.overflowed_tokens;
        self.bad_steps += other.bad_steps;
        self.lost_deviations += other.lost_deviations;
        self.usual_groups += other.usual_groups;
        self.short_groups += other.short_groups;
        self.sum_advantages += other.sum_advantages;
        self.sum_squares += other.sum_squares;
    }
}
