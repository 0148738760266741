//! The configuration, field by field as the library has it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prm,
    Kl,
    None,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    Steps,
    Tokens,
    Rollouts,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fusion {
    Advantage,
    RewardShaping,
    Pooled,
    RewardSum,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    ByValue,
    Step,
    Token,
    None,
    Given,
    Segment,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundaryRule {
    Adjacent,
    Anchored,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AverageOver {
    Live,
    Group,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkValue {
    Last,
    Mean,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    ReturnToGo,
    Broadcast,
    Gae,
    Vtrace,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivideScope {
    All,
    Process,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiten {
    None,
    Tokens,
    Rollouts,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Center {
    None,
    Group,
    LeaveOneOut,
    Batch,
    LengthWeighted,
    Given,
    RunnerUp,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    None = 0,
    Group = 1,
    LeaveOneOut = 2,
    Batch = 3,
    Given = 4,
    AbsMax = 5,
    NonzeroShare = 6,
    Mean = 7,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpsilonMode {
    AddStd,
    AddVar,
    FloorStd,
    FloorVar,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LooUnit {
    Element,
    Rollout,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Singleton {
    Zero,
    Passthrough,
    Refuse,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Error,
    Zero,
    Exclude,
}
/// The chunks that a per-rollout stream's term goes to (rule 54).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Every,
    Last,
    End,
}
/// What a set of equal values gives under a standard deviation (rule 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroVariance {
    Zero,
    Center,
}
/// How often a rollout's value of a per-rollout stream is in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountBy {
    Rollout,
    Step,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlInReward {
    None,
    K1,
    K2,
    K3,
    Abs,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlPlace {
    Outcome,
    Reward,
    Advantage,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanMask {
    Carry,
    Decay,
    None,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaeOver {
    Tokens,
    Chunks,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivideBy {
    Count,
    DiscountedCount,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepSets {
    Group,
    StepGroup,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepValue {
    Score,
    ReturnToGo,
}

/// Tokens of a group that share a baseline (rule 66).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenBaseline {
    None,
    Position,
    Token,
}

/// The shorthand `standardize`: two fields by one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standardize {
    MeanStd,
    AbsMax,
    Mean,
    LeaveOneOut,
    None,
}

/// One row of the table of streams.
#[derive(Clone, Debug)]
pub struct StreamCfg {
    pub name: String,
    pub weight: f64,
    pub center: Center,
    pub scale: Scale,
    pub ddof: u32,
    pub epsilon: f64,
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

impl StreamCfg {
    pub fn new(name: &str) -> StreamCfg {
        StreamCfg {
            name: name.to_string(),
            weight: 1.0,
            center: Center::Group,
            scale: Scale::Group,
            ddof: 1,
            epsilon: 1e-6,
            epsilon_mode: EpsilonMode::AddStd,
            loo_unit: LooUnit::Element,
            singleton: Singleton::Zero,
            missing: Missing::Error,
            place: Place::Every,
            zero_variance: ZeroVariance::Zero,
            count_by: CountBy::Rollout,
            clip_value: f64::INFINITY,
            clip_standardized: f64::INFINITY,
        }
    }

    pub fn standardize(&mut self, op: Standardize) {
        (self.center, self.scale) = match op {
            Standardize::MeanStd => (Center::Group, Scale::Group),
            Standardize::AbsMax => (Center::None, Scale::AbsMax),
            Standardize::Mean => (Center::Group, Scale::None),
            Standardize::LeaveOneOut => (Center::LeaveOneOut, Scale::None),
            Standardize::None => (Center::None, Scale::None),
        };
    }
}

/// Every field of the configuration (README, Fields). `process` has 1 to 4 rows; a row whose input the batch does not hold counts as not given.
#[derive(Clone, Debug)]
pub struct Config {
    pub process: Vec<StreamCfg>,
    pub outcome: StreamCfg,
    pub format: StreamCfg,
    pub others: Vec<StreamCfg>,
    pub kind: Kind,
    pub opd_lambda: f64,
    pub pool: Pool,
    pub fusion: Fusion,
    pub chunk: Chunk,
    pub eta: f64,
    pub boundary_rule: BoundaryRule,
    pub merge_equal_steps: bool,
    pub average_over: AverageOver,
    pub bridge_scope_gaps: bool,
    pub chunk_value: ChunkValue,
    pub credit: Credit,
    pub gamma: f64,
    pub lam: f64,
    pub k: f64,
    pub divide_scope: DivideScope,
    pub temperature: f64,
    pub whiten: Whiten,
    pub whiten_ddof: u32,
    pub whiten_epsilon: f64,
    pub whiten_epsilon_mode: EpsilonMode,
    pub whiten_shift: bool,
    pub clip: f64,
    pub fill_padding: bool,
    pub strict: bool,
    pub compat: bool,
    pub kl_in_reward: KlInReward,
    pub kl_place: KlPlace,
    pub kl_coef: f64,
    pub kl_log_ratio_clamp: f64,
    pub kl_clamp: f64,
    pub scan_mask: ScanMask,
    pub gae_over: GaeOver,
    /// -1: as `lam`.
    pub lam_returns: f64,
    /// 0: off.
    pub lam_length_alpha: f64,
    pub divide_by: DivideBy,
    pub step_sets: StepSets,
    pub step_value: StepValue,
    pub step_gamma: f64,
    pub token_baseline: TokenBaseline,
    pub rho_clip: f64,
    pub c_clip: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            process: vec![StreamCfg::new("process_0")],
            outcome: StreamCfg::new("outcome"),
            format: StreamCfg::new("format"),
            others: Vec::new(),
            kind: Kind::Prm,
            opd_lambda: 1.25,
            pool: Pool::Steps,
            fusion: Fusion::Advantage,
            chunk: Chunk::ByValue,
            eta: 1e-8,
            boundary_rule: BoundaryRule::Adjacent,
            merge_equal_steps: false,
            average_over: AverageOver::Live,
            bridge_scope_gaps: false,
            chunk_value: ChunkValue::Last,
            credit: Credit::ReturnToGo,
            gamma: 1.0,
            lam: 1.0,
            k: 0.7,
            divide_scope: DivideScope::All,
            temperature: 1.0,
            whiten: Whiten::None,
            whiten_ddof: 1,
            whiten_epsilon: 1e-8,
            whiten_epsilon_mode: EpsilonMode::AddVar,
            whiten_shift: true,
            clip: f64::INFINITY,
            fill_padding: true,
            strict: false,
            compat: false,
            kl_in_reward: KlInReward::None,
            kl_place: KlPlace::Outcome,
            kl_coef: 0.0,
            kl_log_ratio_clamp: f64::INFINITY,
            kl_clamp: f64::INFINITY,
            scan_mask: ScanMask::Carry,
            gae_over: GaeOver::Tokens,
            lam_returns: -1.0,
            lam_length_alpha: 0.0,
            divide_by: DivideBy::Count,
            step_sets: StepSets::Group,
            step_value: StepValue::Score,
            step_gamma: 1.0,
            token_baseline: TokenBaseline::None,
            rho_clip: 1.0,
            c_clip: 1.0,
        }
    }
}

impl Config {
    /// A coefficient of 0 asks for nothing (rule 58).
    pub fn takes_kl(&self) -> bool {
        self.kl_in_reward != KlInReward::None && self.kl_coef != 0.0
    }

    /// Does a rollout's advantage depend on other groups?
    pub fn is_of_the_batch(&self) -> bool {
        let of_batch = |s: &StreamCfg| s.center == Center::Batch || matches!(s.scale, Scale::Batch | Scale::NonzeroShare);
        self.whiten != Whiten::None || self.streams().into_iter().any(of_batch)
    }

    /// GAE or V-trace: a scan that needs values.
    pub fn has_values(&self) -> bool {
        matches!(self.credit, Credit::Gae | Credit::Vtrace)
    }

    /// Are rewards a token taken? With values in place of the chunks' own, else added to them.
    pub fn takes_token_rewards(&self) -> bool {
        (self.has_values() && self.gae_over == GaeOver::Tokens) || (!self.has_values() && self.chunk == Chunk::Token)
    }

    /// All rows in the order of the table: process, outcome, format, others.
    pub fn streams(&self) -> Vec<&StreamCfg> {
        let mut rows: Vec<&StreamCfg> = self.process.iter().collect();
        rows.push(&self.outcome);
        rows.push(&self.format);
        rows.extend(self.others.iter());
        rows
    }

    pub fn streams_mut(&mut self) -> Vec<&mut StreamCfg> {
        let mut rows: Vec<&mut StreamCfg> = self.process.iter_mut().collect();
        rows.push(&mut self.outcome);
        rows.push(&mut self.format);
        rows.extend(self.others.iter_mut());
        rows
    }

    pub fn set_standardize_all(&mut self, op: Standardize) {
        self.streams_mut().into_iter().for_each(|row| row.standardize(op));
    }

    pub fn set_standardize_process(&mut self, op: Standardize) {
        self.process.iter_mut().for_each(|row| row.standardize(op));
    }

    pub fn set_missing_all(&mut self, missing: Missing) {
        self.streams_mut().into_iter().for_each(|row| row.missing = missing);
    }

    pub fn set_singleton_all(&mut self, singleton: Singleton) {
        self.streams_mut().into_iter().for_each(|row| row.singleton = singleton);
    }

    pub fn set_num_process(&mut self, count: usize) {
        self.process = (0..count).map(|p| StreamCfg::new(&format!("process_{p}"))).collect();
    }

    pub fn set_num_others(&mut self, count: usize) {
        self.others = (0..count).map(|x| StreamCfg::new(&format!("other_{x}"))).collect();
    }
}
