//! Settings of the estimators: what goes together, and what this version does not serve yet.
use super::batch::Tokens;
use super::view::{self, Want};
use crate::abi::status::*;
use crate::abi::types::passrl_batch;
use crate::error::Result;
use crate::model::array::Array;
use crate::model::batch::BaselineInputs;
use crate::model::context::Where;
use crate::model::config::*;
use crate::model::presets::stream_name;
use crate::refuse;

/// One row of the stream table.
pub(super) fn stream(index: usize, s: &Stream) -> Result<()> {
    let name = stream_name(index);
    if index < MAX_PROCESS {
        for (clip, field) in [(s.clip_value, "clip_value"), (s.clip_standardized, "clip_standardized")] {
            if clip < f64::INFINITY {
                return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.{field} is {clip:?}; it is for per-rollout streams: leave it +inf, or clip the signal before");
            }
        }
        if s.place != Place::Every {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.place is {}; it is for per-rollout streams: set every", s.place.name());
        }
        if matches!(s.center, Center::LengthWeighted | Center::RunnerUp) {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.center is {}; it is for per-rollout streams", s.center.name());
        }
        if matches!(s.scale, Scale::NonzeroShare | Scale::Mean) {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.scale is {}; it is for per-rollout streams", s.scale.name());
        }
    }
    if s.center == Center::RunnerUp && s.scale == Scale::LeaveOneOut {
        return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.center is runner_up and scale leave_one_out; nothing is left out of a runner-up: set another scale");
    }
    if s.center == Center::LengthWeighted && s.scale != Scale::None {
        return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.center is length_weighted and scale {}; set scale = none", s.scale.name());
    }
    Ok(())
}

/// Settings that exclude each other.
pub(super) fn together(c: &Config) -> Result<()> {
    let joint = matches!(c.fusion, Fusion::RewardShaping | Fusion::Pooled);
    for (index, s) in c.streams.iter().enumerate() {
        let name = stream_name(index);
        let by_step = s.count_by == CountBy::Step;
        if by_step && (index < MAX_PROCESS || joint || c.kind != Kind::Prm) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.{name}.count_by is step with kind = {} and fusion = {}; it counts a rollout's value of a per-rollout stream once a step: set rollout, or kind = prm and fusion = advantage",
                c.kind.name(), c.fusion.name()
            );
        }
        if by_step && (s.leaves_out() || s.asks_batch() || s.center == Center::LengthWeighted) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.{name}.count_by is step with center {} and scale {}; it is for sets of the group of which nothing is left out: set count_by = rollout",
                s.center.name(), s.scale.name()
            );
        }
        if joint && (s.place != Place::Every || s.clip_standardized < f64::INFINITY) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.fusion is {} and config.{name} has place {} and clip_standardized {:?}; no stream has a term of its own there: set every and inf",
                c.fusion.name(), s.place.name(), s.clip_standardized
            );
        }
        if joint && (s.asks_batch() || s.center == Center::Given || s.scale == Scale::Given) {
            return refuse!(PASSRL_ERR_CONFLICT, "config.fusion is {} and config.{name} asks for the batch's or given statistics; its one set is the group's", c.fusion.name());
        }
        if c.divide_scope == DivideScope::Process && s.place != Place::Every {
            return refuse!(PASSRL_ERR_CONFLICT, "config.divide_scope is process and config.{name}.place is {}; set place = every", s.place.name());
        }
        let averages = index == 0 && c.kind == Kind::Kl && c.chunk == Chunk::ByValue && c.average_over == AverageOver::Group;
        if averages && matches!(s.center, Center::Batch | Center::Given) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.kind is kl with chunk = by_value, average_over = group and {name}.center = {}; the shift of such an average is the group's own: use average_over = live",
                s.center.name()
            );
        }
    }
    Ok(())
}

/// A configuration for `passrl_group_flags`, which sees the per-rollout streams alone.
pub(super) fn early_flags(c: &Config) -> Result<()> {
    if c.asks_kl() && c.kl_place == KlPlace::Outcome {
        return refuse!(PASSRL_ERR_CONFLICT, "config.kl_in_reward is {} with kl_place = outcome; flags alone are of the outcomes as they are: set kl_coef = 0", c.kl_in_reward.name());
    }
    for (index, s) in c.streams.iter().enumerate().skip(OUTCOME).take(2 + c.num_extra) {
        let name = stream_name(index);
        if s.center == Center::LengthWeighted {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.center is {}; flags alone know no lengths: set another center", s.center.name());
        }
        if s.count_by == CountBy::Step {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.count_by is {}; flags alone know no steps: set count_by = rollout", s.count_by.name());
        }
        if s.clip_value < f64::INFINITY {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.clip_value is {:?}; flags alone are of the values as they are: set clip_value = inf", s.clip_value);
        }
    }
    Ok(())
}

/// Credit: what its settings need of one another.
pub(super) fn credit(c: &Config) -> Result<()> {
    let critic = matches!(c.credit, Credit::Gae | Credit::Vtrace);
    let scans = critic || c.credit == Credit::ReturnToGo;
    let name = c.credit.name();
    if critic && c.divide_by != DivideBy::Count {
        return refuse!(PASSRL_ERR_CONFLICT, "config.credit is {name} and config.divide_by is {}; its advantages are not divided, set divide_by = count", c.divide_by.name());
    }
    if critic && c.k != 0.0 {
        return refuse!(PASSRL_ERR_CONFLICT, "config.credit is {name} and config.k is {:?}; its advantages are not divided, set k = 0", c.k);
    }
    if critic && c.divide_scope == DivideScope::Process {
        return refuse!(PASSRL_ERR_CONFLICT, "config.credit is {name} and config.divide_scope is process; its advantages are not divided, set divide_scope = all");
    }
    if c.divide_by == DivideBy::DiscountedCount && c.k != 1.0 {
        return refuse!(PASSRL_ERR_CONFLICT, "config.divide_by is discounted_count and config.k is {:?}; the count has no exponent, set k = 1", c.k);
    }
    let over_chunks = c.credit == Credit::Gae && c.gae_over == GaeOver::Chunks;
    if scans && c.scan_mask != ScanMask::Carry {
        let mask = c.scan_mask.name();
        if c.credit == Credit::Vtrace || over_chunks {
            let what = if over_chunks { "gae_over is chunks" } else { "credit is vtrace" };
            return refuse!(PASSRL_ERR_CONFLICT, "config.scan_mask is {mask} and config.{what}; only gae over tokens and return_to_go pass tokens out of scope, set scan_mask = carry");
        }
        if c.credit == Credit::ReturnToGo && (c.chunk != Chunk::Token || c.k != 0.0) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.scan_mask is {mask} with chunk = {} and k = {:?}; positions are tokens then and returns are not divided: set chunk = token and k = 0",
                c.chunk.name(), c.k
            );
        }
    }
    if c.kl_by_token() && (over_chunks || (c.chunk != Chunk::Token && !critic)) {
        let over = if over_chunks { "gae over chunks" } else { name };
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "config.kl_place is {} with credit = {over} and chunk = {}; the KL has a value a token: set chunk = token, gae over tokens, or kl_place = outcome",
            c.kl_place.name(), c.chunk.name()
        );
    }
    Ok(())
}

/// A row for the primitive, which knows a group's own values and nothing else.
pub(super) fn own_set(s: &Stream) -> Result<()> {
    let served = matches!(s.center, Center::None | Center::Group | Center::LeaveOneOut)
        && matches!(s.scale, Scale::None | Scale::Group | Scale::LeaveOneOut | Scale::AbsMax);
    if !served {
        return refuse!(
            PASSRL_ERR_NOT_YET,
            "stream_row.center is {} and scale {}; the primitive serves none, group, leave_one_out and abs_max: use a plan",
            s.center.name(), s.scale.name()
        );
    }
    if s.count_by != CountBy::Rollout || s.zero_variance != ZeroVariance::Zero || s.clip_value < f64::INFINITY || s.clip_standardized < f64::INFINITY {
        return refuse!(PASSRL_ERR_NOT_YET, "stream_row asks for zero_variance {}, clip_value {:?}, clip_standardized {:?}; the primitive serves zero, inf, inf: use a plan",
            s.zero_variance.name(), s.clip_value, s.clip_standardized);
    }
    Ok(())
}

/// Steps: their values, their sets, the elements of the process sets.
pub(super) fn steps(c: &Config) -> Result<()> {
    if c.step_value == StepValue::ReturnToGo && c.kind != Kind::Prm {
        return refuse!(PASSRL_ERR_CONFLICT, "config.step_value is return_to_go and config.kind is {}; returns are of the caller's steps: set kind = prm", c.kind.name());
    }
    let process = c.streams[..c.num_process].iter().enumerate().map(|(p, s)| (stream_name(p), s));
    if c.pool == Pool::Rollouts {
        if c.fusion != Fusion::Advantage {
            return refuse!(PASSRL_ERR_CONFLICT, "config.pool is rollouts and config.fusion is {}; a joint set has an element a step: set fusion = advantage", c.fusion.name());
        }
        if c.kind == Kind::Kl && c.chunk == Chunk::ByValue {
            return refuse!(PASSRL_ERR_CONFLICT, "config.pool is rollouts with kind = kl and chunk = by_value, whose detector asks for a set of tokens: set pool = steps, or another chunk");
        }
        for (name, s) in process.clone() {
            if s.scale == Scale::LeaveOneOut && s.loo_unit == LooUnit::Element {
                return refuse!(
                    PASSRL_ERR_CONFLICT,
                    "config.pool is rollouts and {name}.scale is leave_one_out with loo_unit = element; a step's value is no element of a set of means: set loo_unit = rollout"
                );
            }
        }
    }
    if c.step_sets == StepSets::StepGroup {
        let needs = [
            (c.kind == Kind::Prm, "kind", c.kind.name(), "prm"),
            (c.fusion == Fusion::Advantage, "fusion", c.fusion.name(), "advantage"),
            (c.pool == Pool::Steps, "pool", c.pool.name(), "steps"),
            (c.chunk_value == ChunkValue::Last, "chunk_value", c.chunk_value.name(), "last"),
        ];
        if let Some((_, field, value, wanted)) = needs.into_iter().find(|need| !need.0) {
            return refuse!(PASSRL_ERR_CONFLICT, "config.step_sets is step_group and config.{field} is {value}; sets of steps of equal state need {field} = {wanted}");
        }
        for (name, s) in process {
            if !matches!(s.center, Center::None | Center::Group | Center::LeaveOneOut)
                || !matches!(s.scale, Scale::None | Scale::Group | Scale::LeaveOneOut | Scale::AbsMax)
            {
                return refuse!(
                    PASSRL_ERR_CONFLICT,
                    "config.step_sets is step_group and {name} has center {}, scale {}; steps of equal state know their own set alone: none, group, leave_one_out, abs_max",
                    s.center.name(), s.scale.name()
                );
            }
            if s.leaves_out() && s.loo_unit != LooUnit::Element {
                return refuse!(PASSRL_ERR_CONFLICT, "config.step_sets is step_group and {name}.loo_unit is rollout; set loo_unit = element");
            }
            if s.singleton == Singleton::Refuse {
                return refuse!(PASSRL_ERR_CONFLICT, "config.step_sets is step_group and {name}.singleton is refuse; a state seen once is no error: set zero or passthrough");
            }
        }
    }
    Ok(())
}

/// A baseline a token: of returns that have a value a token.
pub(super) fn token_baseline(c: &Config) -> Result<()> {
    if c.token_baseline == TokenBaseline::None {
        return Ok(());
    }
    let by = c.token_baseline.name();
    if c.k != 0.0 {
        return refuse!(PASSRL_ERR_CONFLICT, "config.token_baseline is {by} and config.k is {:?}; the baseline is of returns as they are, set k = 0", c.k);
    }
    if !c.credits_tokens() && (c.chunk != Chunk::Token || c.credit == Credit::Gae) {
        let over = if c.credit == Credit::Gae { "gae over chunks" } else { c.credit.name() };
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "config.token_baseline is {by} with credit = {over} and chunk = {}; it is of returns that have a value a token: set chunk = token, gae over tokens, or vtrace",
            c.chunk.name()
        );
    }
    Ok(())
}

/// What the weights of `token_baseline` are made of.
///
/// # Safety
/// The batch's views are NULL or `passrl_view`s.
pub(super) unsafe fn baseline_inputs(b: &passrl_batch, config: &Config, tokens: &Tokens, policy: Option<Array>) -> Result<Option<BaselineInputs>> {
    // SAFETY: by the contract.
    let (squared, ratio) = unsafe {
        (tokens.optional(b.sum_pi_squared, "batch.sum_pi_squared", view::FLOATS)?, tokens.optional(b.token_ratio, "batch.token_ratio", view::FLOATS)?)
    };
    if config.token_baseline == TokenBaseline::None || tokens.rollouts == 0 {
        return Ok(None);
    }
    match (policy, squared) {
        (Some(policy), Some(sum_pi_squared)) => Ok(Some(BaselineInputs { policy, sum_pi_squared, ratio })),
        (policy, _) => {
            let name = if policy.is_none() { "logp_policy" } else { "sum_pi_squared" };
            refuse!(PASSRL_ERR_NULL, "batch.{name} is NULL; config.token_baseline = {} is made of logp_policy and sum_pi_squared", config.token_baseline.name())
        }
    }
}

/// Where a group's rollouts are not in one call (pieces of rollouts): sums of a group do not say which steps are of equal state, and nothing of a token.
pub fn in_pieces(c: &Config) -> Result<()> {
    if c.token_baseline != TokenBaseline::None {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "config.token_baseline is {}, which needs all rollouts of a group in one call, and partials hold sums of whole groups: use passrl_plan_run on whole groups, or token_baseline = none",
            c.token_baseline.name()
        );
    }
    if c.step_sets == StepSets::StepGroup {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "config.step_sets is step_group, whose sets need all steps of a group in one call, and partials hold sums of whole groups: use passrl_plan_run on whole groups, or step_sets = group"
        );
    }
    Ok(())
}

/// The caller's statistics, `[G, 16]`, where a row that is there asks for them.
///
/// # Safety
/// The batch's views are NULL or `passrl_view`s.
pub(super) unsafe fn given(place: Where, b: &passrl_batch, config: &Config, groups: usize, baselines: bool, there: impl Fn(usize) -> bool) -> Result<(Option<Array>, Option<Array>)> {
    let want = Want::Grid(groups, MAX_STREAMS);
    // SAFETY: by the contract.
    let (means, stds) = unsafe {
        (view::optional(place, b.stats_mean, "batch.stats_mean", view::WIDE, want)?, view::optional(place, b.stats_std, "batch.stats_std", view::WIDE, want)?)
    };
    let (mut centers, mut scales) = (false, false);
    let asks = |s: &Stream| (s.center == Center::Given) | (s.scale == Scale::Given);
    // Few configurations have such a stream.
    if !config.streams.iter().fold(false, |any, s| any | asks(s)) {
        return Ok((None, None));
    }
    for (index, s) in config.streams.iter().enumerate().filter(|(index, s)| asks(s) && there(*index)) {
        let name = stream_name(index);
        let by_baselines = index == OUTCOME && baselines;
        centers |= s.center == Center::Given && !by_baselines;
        scales |= s.scale == Scale::Given;
        if s.center == Center::Given && !by_baselines && means.is_none() && groups > 0 {
            let wanted = if index == OUTCOME { "baselines, one a rollout, or stats_mean, one a group" } else { "stats_mean, one a group" };
            return refuse!(PASSRL_ERR_NULL, "batch.stats_mean is NULL; config.{name}.center = given needs {wanted}");
        }
        if s.scale == Scale::Given && stds.is_none() && groups > 0 {
            return refuse!(PASSRL_ERR_NULL, "batch.stats_std is NULL; config.{name}.scale = given needs a standard deviation a group");
        }
    }
    Ok((means.filter(|_| centers), stds.filter(|_| scales)))
}
