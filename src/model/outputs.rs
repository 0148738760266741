//! Where a run writes. Checked: types, shapes, no overlap.
use super::array::Array;

#[derive(Clone, Copy, Debug)]
pub struct Outputs {
    pub advantages: Array,
    pub returns: Option<Array>,
    pub path_scores: Option<Array>,
    pub num_chunks: Option<Array>,
    pub chunk_ends: Option<Array>,
    pub chunk_values: Option<Array>,
    pub stats_count: Option<Array>,
    pub stats_mean: Option<Array>,
    pub stats_std: Option<Array>,
    pub stats_absmax: Option<Array>,
    pub group_flags: Option<Array>,
    pub rollout_flags: Option<Array>,
    /// Is a report wanted? Its sums over tokens are not formed for nothing.
    pub report: bool,
    /// Where it goes (0: nowhere), read by a backend whose reports lie in device memory.
    pub report_at: u64,
}

impl Outputs {
    /// Advantages alone.
    #[inline(always)]
    pub fn of(advantages: Array) -> Outputs {
        Outputs {
            advantages,
            returns: None,
            path_scores: None,
            num_chunks: None,
            chunk_ends: None,
            chunk_values: None,
            stats_count: None,
            stats_mean: None,
            stats_std: None,
            stats_absmax: None,
            group_flags: None,
            rollout_flags: None,
            report: false,
            report_at: 0,
        }
    }

    /// Is an output wanted that says something of a group?
    pub fn ask_statistics(&self) -> bool {
        self.stats_absmax.is_some() || self.ask_sums()
    }

    /// Is an output wanted that says how many elements a set has, or their mean or deviation?
    pub fn ask_sums(&self) -> bool {
        [self.stats_count, self.stats_mean, self.stats_std, self.group_flags].iter().any(Option::is_some)
    }
}
