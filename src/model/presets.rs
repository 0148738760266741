//! The table of presets: the one place where an algorithm has a name. A preset only fills fields; a released preset's fields never change.
mod table;

use super::config::*;
use std::ffi::CStr;

pub struct Preset {
    pub name: &'static CStr,
    pub source: &'static CStr,
    /// Says what differs from the defaults of the field table.
    fill: fn(&mut Config),
}

impl Preset {
    pub fn config(&self) -> Config {
        let mut config = fields();
        (self.fill)(&mut config);
        config
    }
}

pub const DEFAULT: &Preset = &table::PRESETS[0];

/// Every preset, in the order of `passrl_preset_name`.
pub static PRESETS: &[Preset] = table::PRESETS;

/// Name of a row of the stream table.
pub fn stream_name(index: usize) -> &'static str {
    const NAMES: [&str; MAX_STREAMS] = [
        "process_0", "process_1", "process_2", "process_3", "outcome", "format", "extra_0", "extra_1", "extra_2", "extra_3", "extra_4",
        "extra_5", "extra_6", "extra_7", "extra_8", "extra_9",
    ];
    NAMES[index]
}

/// The defaults of the field table (docs: README, "Fields").
fn fields() -> Config {
    let stream = Stream {
        weight: 1.0,
        epsilon: 1e-6,
        center: Center::Group,
        scale: Scale::Group,
        ddof: 1,
        epsilon_mode: EpsilonMode::AddStd,
        loo_unit: LooUnit::Element,
        singleton: Singleton::Zero,
        missing: Missing::Error,
        place: Place::Every,
        zero_variance: ZeroVariance::Zero,
        count_by: CountBy::Rollout,
        clip_value: f64::INFINITY,
        clip_standardized: f64::INFINITY,
    };
    Config {
        num_process: 1,
        num_extra: 0,
        kind: Kind::Prm,
        pool: Pool::Steps,
        fusion: Fusion::Advantage,
        chunk: Chunk::ByValue,
        boundary_rule: BoundaryRule::Adjacent,
        merge_equal_steps: false,
        average_over: AverageOver::Live,
        bridge_scope_gaps: false,
        chunk_value: ChunkValue::Last,
        credit: Credit::ReturnToGo,
        divide_scope: DivideScope::All,
        whiten: Whiten::None,
        whiten_ddof: 1,
        whiten_epsilon_mode: EpsilonMode::AddVar,
        whiten_shift: true,
        fill_padding: true,
        strict: false,
        opd_lambda: 1.25,
        eta: 1e-8,
        gamma: 1.0,
        lam: 1.0,
        k: 0.7,
        temperature: 1.0,
        whiten_epsilon: 1e-8,
        clip: f64::INFINITY,
        streams: [stream; MAX_STREAMS],
        kl_in_reward: KlInReward::None,
        kl_place: KlPlace::Outcome,
        scan_mask: ScanMask::Carry,
        gae_over: GaeOver::Tokens,
        divide_by: DivideBy::Count,
        step_sets: StepSets::Group,
        step_value: StepValue::Score,
        token_baseline: TokenBaseline::None,
        kl_coef: 0.0,
        kl_log_ratio_clamp: f64::INFINITY,
        kl_clamp: f64::INFINITY,
        lam_returns: -1.0,
        lam_length_alpha: 0.0,
        step_gamma: 1.0,
        rho_clip: 1.0,
        c_clip: 1.0,
    }
}
