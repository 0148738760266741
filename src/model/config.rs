//! The typed configuration: what a plan is made from. Plain data; the numbers are the ABI's.

/// A closed set of values with an ABI number and a name in text.
pub trait Choice: Copy + Eq + 'static {
    const ALL: &'static [(Self, i32, &'static str)];
    fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == number).map(|row| row.0)
    }
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|row| row.0 == self).map_or("?", |row| row.2)
    }
    fn number(self) -> i32 {
        Self::ALL.iter().find(|row| row.0 == self).map_or(-1, |row| row.1)
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $Name:ident { $($Variant:ident = $number:literal $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $Name { $($Variant),* }
        impl Choice for $Name {
            const ALL: &'static [(Self, i32, &'static str)] = &[$(($Name::$Variant, $number, $text)),*];
        }
    };
}

choice!(Kind { Prm = 0 "prm", Kl = 1 "kl", None = 2 "none" });
choice!(Pool { Steps = 0 "steps", Tokens = 1 "tokens", Rollouts = 2 "rollouts" });
choice!(Fusion { Advantage = 0 "advantage", RewardShaping = 1 "reward_shaping", Pooled = 2 "pooled", RewardSum = 3 "reward_sum" });
choice!(Chunk { ByValue = 0 "by_value", Step = 1 "step", Token = 2 "token", None = 3 "none", Given = 4 "given", Segment = 5 "segment" });
choice!(BoundaryRule { Adjacent = 0 "adjacent", Anchored = 1 "anchored" });
choice!(AverageOver { Live = 0 "live", Group = 1 "group" });
choice!(ChunkValue { Last = 0 "last", Mean = 1 "mean" });
choice!(Credit { ReturnToGo = 0 "return_to_go", Broadcast = 1 "broadcast", Gae = 2 "gae", Vtrace = 3 "vtrace" });
choice!(DivideScope { All = 0 "all", Process = 1 "process" });
choice!(Whiten { None = 0 "none", Tokens = 1 "tokens", Rollouts = 2 "rollouts" });
choice!(Center { None = 0 "none", Group = 1 "group", LeaveOneOut = 2 "leave_one_out", Batch = 3 "batch", LengthWeighted = 4 "length_weighted", Given = 5 "given", RunnerUp = 6 "runner_up" });
choice!(Scale { None = 0 "none", Group = 1 "group", LeaveOneOut = 2 "leave_one_out", Batch = 3 "batch", Given = 4 "given", AbsMax = 5 "abs_max", NonzeroShare = 6 "nonzero_share", Mean = 7 "mean" });
choice!(EpsilonMode { AddStd = 0 "add_std", AddVar = 1 "add_var", FloorStd = 2 "floor_std", FloorVar = 3 "floor_var" });
choice!(LooUnit { Element = 0 "element", Rollout = 1 "rollout" });
choice!(Singleton { Zero = 0 "zero", Passthrough = 1 "passthrough", Refuse = 2 "refuse" });
choice!(Place { Every = 0 "every", Last = 1 "last", End = 2 "end" });
choice!(ZeroVariance { Zero = 0 "zero", Center = 1 "center" });
choice!(CountBy { Rollout = 0 "rollout", Step = 1 "step" });
choice!(KlInReward { None = 0 "none", K1 = 1 "k1", K2 = 2 "k2", K3 = 3 "k3", Abs = 4 "abs" });
choice!(KlPlace { Outcome = 0 "outcome", Reward = 1 "reward", Advantage = 2 "advantage" });
choice!(ScanMask { Carry = 0 "carry", Decay = 1 "decay", None = 2 "none" });
choice!(GaeOver { Tokens = 0 "tokens", Chunks = 1 "chunks" });
choice!(DivideBy { Count = 0 "count", DiscountedCount = 1 "discounted_count" });
choice!(StepSets { Group = 0 "group", StepGroup = 1 "step_group" });
choice!(StepValue { Score = 0 "score", ReturnToGo = 1 "return_to_go" });
choice!(TokenBaseline { None = 0 "none", Position = 1 "position", Token = 2 "token" });
choice!(Missing { Error = 0 "error", Zero = 1 "zero", Exclude = 2 "exclude" });

pub const MAX_STREAMS: usize = 16;
pub const MAX_PROCESS: usize = 4;
pub const MAX_EXTRA: usize = 10;
pub const OUTCOME: usize = 4;
pub const FORMAT: usize = 5;
pub const EXTRA: usize = 6;

/// How one stream is standardised and weighted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stream {
    pub weight: f64,
    pub epsilon: f64,
    pub center: Center,
    pub scale: Scale,
    pub ddof: i32,
    pub epsilon_mode: EpsilonMode,
    pub loo_unit: LooUnit,
    pub singleton: Singleton,
    pub missing: Missing,
    pub place: Place,
    pub zero_variance: ZeroVariance,
    pub count_by: CountBy,
    pub clip_value: f64,
    pub clip_standardized: f64,
}

impl Stream {
    /// Is a standard deviation divided by (so that equal values give 0)?
    pub fn has_std(&self) -> bool {
        matches!(self.scale, Scale::Group | Scale::LeaveOneOut | Scale::Batch | Scale::Given)
    }
    /// Is a set of the whole batch asked for?
    pub fn asks_batch(&self) -> bool {
        self.center == Center::Batch || matches!(self.scale, Scale::Batch | Scale::NonzeroShare)
    }
    /// Is a set of the group asked for? (`none` as well: an empty one gives 0.)
    pub fn asks_group(&self) -> bool {
        matches!(self.center, Center::Group | Center::LeaveOneOut | Center::LengthWeighted | Center::RunnerUp)
            || matches!(self.scale, Scale::Group | Scale::LeaveOneOut | Scale::AbsMax | Scale::Mean)
            || (self.center == Center::None && self.scale == Scale::None)
    }
    /// Is no sum of a set asked for: does its maximum say all?
    pub fn asks_maxima_alone(&self) -> bool {
        matches!(self.center, Center::None | Center::Given) && matches!(self.scale, Scale::None | Scale::AbsMax | Scale::Given)
    }
    /// Is the element itself left out of a statistic?
    pub fn leaves_out(&self) -> bool {
        self.center == Center::LeaveOneOut || self.scale == Scale::LeaveOneOut
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Config {
    pub num_process: usize,
    pub num_extra: usize,
    pub kind: Kind,
    pub pool: Pool,
    pub fusion: Fusion,
    pub chunk: Chunk,
    pub boundary_rule: BoundaryRule,
    pub merge_equal_steps: bool,
    pub average_over: AverageOver,
    pub bridge_scope_gaps: bool,
    pub chunk_value: ChunkValue,
    pub credit: Credit,
    pub divide_scope: DivideScope,
    pub whiten: Whiten,
    pub whiten_ddof: i32,
    pub whiten_epsilon_mode: EpsilonMode,
    pub whiten_shift: bool,
    pub fill_padding: bool,
    pub strict: bool,
    pub opd_lambda: f64,
    pub eta: f64,
    pub gamma: f64,
    pub lam: f64,
    pub k: f64,
    pub temperature: f64,
    pub whiten_epsilon: f64,
    pub clip: f64,
    pub streams: [Stream; MAX_STREAMS],
    pub kl_in_reward: KlInReward,
    pub kl_place: KlPlace,
    pub scan_mask: ScanMask,
    pub gae_over: GaeOver,
    pub divide_by: DivideBy,
    pub step_sets: StepSets,
    pub step_value: StepValue,
    pub token_baseline: TokenBaseline,
    pub kl_coef: f64,
    pub kl_log_ratio_clamp: f64,
    pub kl_clamp: f64,
    pub lam_returns: f64,
    pub lam_length_alpha: f64,
    pub step_gamma: f64,
    pub rho_clip: f64,
    pub c_clip: f64,
}

impl Config {
    /// Is a divergence taken from the reward? Presets name its kind, the run its coefficient.
    pub fn asks_kl(&self) -> bool {
        self.kl_in_reward != KlInReward::None && self.kl_coef != 0.0
    }
    /// Do rollouts of a group know more of one another than sums, so that a group must be whole in one call?
    pub fn of_whole_groups(&self) -> bool {
        self.step_sets == StepSets::StepGroup || self.token_baseline != TokenBaseline::None
    }
    /// Does credit give a value a token in scope, whatever the chunks are?
    pub fn credits_tokens(&self) -> bool {
        self.credit == Credit::Vtrace || (self.credit == Credit::Gae && self.gae_over == GaeOver::Tokens)
    }
    /// Do tokens out of scope take part in the scan?
    pub fn spreads(&self) -> bool {
        self.scan_mask != ScanMask::Carry && matches!(self.credit, Credit::ReturnToGo | Credit::Gae)
    }
    /// Is the KL taken from each token's reward or advantage?
    pub fn kl_by_token(&self) -> bool {
        self.asks_kl() && self.kl_place != KlPlace::Outcome
    }
}

/// The most that a plan will be given; no zeros left (defaults resolved).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub rollouts: usize,
    pub groups: usize,
    pub tokens: usize,
    pub rollout_tokens: usize,
    pub steps: usize,
    pub group_rollouts: usize,
    pub group_elements: usize,
    /// Pieces of rollouts of one call; 0: rollouts come whole.
    pub pieces: usize,
    pub rollout_pieces: usize,
    pub batch_rollouts: usize,
}

impl Limits {
    /// Extents of one call.
    pub fn units(&self) -> usize {
        self.rollouts.max(self.pieces)
    }
}
