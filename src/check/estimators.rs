//! Settings of the estimators: what goes together, and what this version does not serve yet.
use crate::abi::status::*;
use crate::error::Result;
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
        if matches!(s.center, Center::LengthWeighted | Center::Given | Center::RunnerUp) {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.center is {}; it is for per-rollout streams", s.center.name());
        }
        if matches!(s.scale, Scale::NonzeroShare | Scale::Mean) {
            return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.scale is {}; it is for per-rollout streams", s.scale.name());
        }
    }
    if s.center == Center::Given && index != OUTCOME {
        return refuse!(PASSRL_ERR_CONFLICT, "config.{name}.center is given; baselines are of the outcome alone");
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
        if joint && (s.place != Place::Every || s.clip_standardized < f64::INFINITY) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.fusion is {} and config.{name} has place {} and clip_standardized {:?}; no stream has a term of its own there: set every and inf",
                c.fusion.name(), s.place.name(), s.clip_standardized
            );
        }
        if joint && s.asks_batch() {
            return refuse!(PASSRL_ERR_CONFLICT, "config.fusion is {} and config.{name} asks for the batch's statistics; its one set is the group's", c.fusion.name());
        }
        if c.divide_scope == DivideScope::Process && s.place != Place::Every {
            return refuse!(PASSRL_ERR_CONFLICT, "config.divide_scope is process and config.{name}.place is {}; set place = every", s.place.name());
        }
        let averages = index == 0 && c.kind == Kind::Kl && c.chunk == Chunk::ByValue && c.average_over == AverageOver::Group;
        if averages && s.center == Center::Batch {
            return refuse!(PASSRL_ERR_CONFLICT, "config.kind is kl with chunk = by_value, average_over = group and {name}.center = batch; use average_over = live");
        }
    }
    Ok(())
}

/// A configuration for `passrl_group_flags`, which sees the per-rollout streams alone.
pub(super) fn early_flags(c: &Config) -> Result<()> {
    for (index, s) in c.streams.iter().enumerate().skip(OUTCOME) {
        if s.center == Center::LengthWeighted || s.clip_value < f64::INFINITY {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.{} has center {} and clip_value {:?}; flags alone are of the values as they are: set another center and inf",
                stream_name(index), s.center.name(), s.clip_value
            );
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
    if s.zero_variance != ZeroVariance::Zero || s.clip_value < f64::INFINITY || s.clip_standardized < f64::INFINITY {
        return refuse!(PASSRL_ERR_NOT_YET, "stream_row asks for zero_variance {}, clip_value {:?}, clip_standardized {:?}; the primitive serves zero, inf, inf: use a plan",
            s.zero_variance.name(), s.clip_value, s.clip_standardized);
    }
    Ok(())
}

/// Is the setting other than the default, and not served yet?
pub(super) fn not_yet(c: &Config) -> Result<()> {
    for (index, s) in c.streams.iter().enumerate() {
        if s.scale == Scale::Given {
            return refuse!(PASSRL_ERR_NOT_YET, "config.{}.scale is given; statistics of the caller's are not served yet", stream_name(index));
        }
    }
    let sets = [(c.pool == Pool::Rollouts, "pool = rollouts")];
    let steps = [
        (c.step_sets != StepSets::Group, "step_sets = step_group"),
        (c.step_value != StepValue::Score, "step_value = return_to_go"),
    ];
    for (asked, what) in sets.into_iter().chain(steps) {
        if asked {
            return refuse!(PASSRL_ERR_NOT_YET, "config asks for {what}, which this version does not serve yet");
        }
    }
    Ok(())
}
