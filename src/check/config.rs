//! Configuration and limits: values in range, settings that go together.
use crate::abi::config::refuse_compat;
use crate::abi::constants::{PASSRL_MAX_EXTRA, PASSRL_MAX_PROCESS};
use crate::abi::status::*;
use crate::abi::types::{passrl_config, passrl_limits, passrl_stream};
use crate::error::Result;
use crate::model::config::*;
use crate::model::names::StreamNames;
use crate::model::presets::stream_name;
use crate::refuse;

fn choice<T: Choice>(field: &str, number: i32) -> Result<T> {
    match T::from_number(number) {
        Some(value) => Ok(value),
        None => {
            struct List<T>(std::marker::PhantomData<T>);
            impl<T: Choice> std::fmt::Display for List<T> {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    for (i, (_, number, name)) in T::ALL.iter().enumerate() {
                        write!(f, "{}{number} ({name})", if i == 0 { "" } else { ", " })?;
                    }
                    Ok(())
                }
            }
            refuse!(PASSRL_ERR_VALUE, "{field} is {number}; it is one of {}", List::<T>(std::marker::PhantomData))
        }
    }
}

fn flag(field: &str, number: i32) -> Result<bool> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        other => refuse!(PASSRL_ERR_VALUE, "{field} is {other}; it is 0 or 1"),
    }
}

pub(super) fn within(field: &str, value: f64, low: f64, high: f64) -> Result<f64> {
    if value >= low && value <= high {
        return Ok(value);
    }
    refuse!(PASSRL_ERR_VALUE, "{field} is {value:?}; it must be from {low:?} to {high:?}")
}

fn zero_or_one(field: &str, value: i32) -> Result<i32> {
    flag(field, value).map(i32::from)
}

/// One row of the stream table; `at` names it.
pub(super) fn stream(at: std::fmt::Arguments<'_>, row: &passrl_stream) -> Result<Stream> {
    // A field's full name, formatted only when a sentence needs it.
    macro_rules! at {
        ($check:ident($field:literal, $($value:expr),+)) => {
            match $check($field, $($value),+) {
                Ok(value) => value,
                Err(refused) => {
                    let said = crate::error::last_text();
                    let tail = said.split_once(": ").map_or(said.as_str(), |(_, tail)| tail);
                    crate::error::set(format_args!("{at}.{tail}"));
                    return Err(refused);
                }
            }
        };
    }
    if row.reserved != [0; 3] {
        return refuse!(PASSRL_ERR_VALUE, "{at} has a reserved field that is not 0");
    }
    let center: Center = at!(choice("center", row.center));
    let scale: Scale = at!(choice("scale", row.scale));
    Ok(Stream {
        // 2^64 times the largest f32, summed over 2^31 chunks, is far from the end of f64: no advantage can overflow on the way.
        weight: at!(within("weight", row.weight, -1.8446744073709552e19, 1.8446744073709552e19)),
        epsilon: at!(within("epsilon", row.epsilon, 0.0, 1e30)),
        center,
        scale,
        ddof: at!(zero_or_one("ddof", row.ddof)),
        epsilon_mode: at!(choice("epsilon_mode", row.epsilon_mode)),
        loo_unit: at!(choice("loo_unit", row.loo_unit)),
        singleton: at!(choice("singleton", row.singleton)),
        missing: at!(choice("missing", row.missing)),
        place: at!(choice("place", row.place)),
        zero_variance: at!(choice("zero_variance", row.zero_variance)),
        count_by: at!(choice("count_by", row.count_by)),
        clip_value: at!(within("clip_value", row.clip_value, f64::MIN_POSITIVE, f64::INFINITY)),
        clip_standardized: at!(within("clip_standardized", row.clip_standardized, f64::MIN_POSITIVE, f64::INFINITY)),
    })
}

pub fn config(c: &passrl_config) -> Result<Config> {
    refuse_compat(c)?;
    if c.reserved0 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "config.reserved0 is {}; it must be 0", c.reserved0);
    }
    if !(1..=PASSRL_MAX_PROCESS as i32).contains(&c.num_process) {
        return refuse!(PASSRL_ERR_VALUE, "config.num_process is {}; it must be from 1 to {PASSRL_MAX_PROCESS}", c.num_process);
    }
    if !(0..=PASSRL_MAX_EXTRA as i32).contains(&c.num_extra) {
        return refuse!(PASSRL_ERR_VALUE, "config.num_extra is {}; it must be from 0 to {PASSRL_MAX_EXTRA}", c.num_extra);
    }
    let mut streams = crate::model::presets::DEFAULT.config().streams;
    for (index, row) in streams.iter_mut().enumerate() {
        *row = stream(format_args!("config.streams[{index}] ({})", stream_name(index)), &c.streams[index])?;
    }
    let config = Config {
        num_process: c.num_process as usize,
        num_extra: c.num_extra as usize,
        kind: choice("config.kind", c.kind)?,
        pool: choice("config.pool", c.pool)?,
        fusion: choice("config.fusion", c.fusion)?,
        chunk: choice("config.chunk", c.chunk)?,
        boundary_rule: choice("config.boundary_rule", c.boundary_rule)?,
        merge_equal_steps: flag("config.merge_equal_steps", c.merge_equal_steps)?,
        average_over: choice("config.average_over", c.average_over)?,
        bridge_scope_gaps: flag("config.bridge_scope_gaps", c.bridge_scope_gaps)?,
        chunk_value: choice("config.chunk_value", c.chunk_value)?,
        credit: choice("config.credit", c.credit)?,
        divide_scope: choice("config.divide_scope", c.divide_scope)?,
        whiten: choice("config.whiten", c.whiten)?,
        whiten_ddof: zero_or_one("config.whiten_ddof", c.whiten_ddof)?,
        whiten_epsilon_mode: choice("config.whiten_epsilon_mode", c.whiten_epsilon_mode)?,
        whiten_shift: flag("config.whiten_shift", c.whiten_shift)?,
        fill_padding: flag("config.fill_padding", c.fill_padding)?,
        strict: flag("config.strict", c.strict)?,
        opd_lambda: within("config.opd_lambda", c.opd_lambda, -1e6, 1e6)?,
        eta: within("config.eta", c.eta, 0.0, f64::MAX)?,
        gamma: within("config.gamma", c.gamma, 0.0, 1.0)?,
        lam: within("config.lam", c.lam, 0.0, 1.0)?,
        k: within("config.k", c.k, 0.0, 8.0)?,
        temperature: within("config.temperature", c.temperature, 1e-30, 1e30)?,
        whiten_epsilon: within("config.whiten_epsilon", c.whiten_epsilon, 0.0, 1e30)?,
        clip: within("config.clip", c.clip, 0.0, f64::INFINITY)?,
        streams,
        kl_in_reward: choice("config.kl_in_reward", c.kl_in_reward)?,
        kl_place: choice("config.kl_place", c.kl_place)?,
        scan_mask: choice("config.scan_mask", c.scan_mask)?,
        gae_over: choice("config.gae_over", c.gae_over)?,
        divide_by: choice("config.divide_by", c.divide_by)?,
        step_sets: choice("config.step_sets", c.step_sets)?,
        step_value: choice("config.step_value", c.step_value)?,
        token_baseline: choice("config.token_baseline", c.token_baseline)?,
        kl_coef: within("config.kl_coef", c.kl_coef, -1e6, 1e6)?,
        kl_log_ratio_clamp: within("config.kl_log_ratio_clamp", c.kl_log_ratio_clamp, 0.0, f64::INFINITY)?,
        kl_clamp: within("config.kl_clamp", c.kl_clamp, 0.0, f64::INFINITY)?,
        lam_returns: match c.lam_returns {
            lam if lam == -1.0 || (0.0..=1.0).contains(&lam) => lam,
            lam => return refuse!(PASSRL_ERR_VALUE, "config.lam_returns is {lam}; it must be from 0.0 to 1.0, or -1 (as lam)"),
        },
        lam_length_alpha: within("config.lam_length_alpha", c.lam_length_alpha, 0.0, 1e30)?,
        step_gamma: within("config.step_gamma", c.step_gamma, 0.0, 1.0)?,
        rho_clip: within("config.rho_clip", c.rho_clip, 0.0, f64::INFINITY)?,
        c_clip: within("config.c_clip", c.c_clip, 0.0, f64::INFINITY)?,
    };
    together(&config)?;
    config.streams.iter().enumerate().try_for_each(|(index, row)| super::estimators::stream(index, row))?;
    super::estimators::together(&config)?;
    super::estimators::credit(&config)?;
    super::estimators::steps(&config)?;
    super::estimators::token_baseline(&config)?;
    Ok(config)
}

/// What the caller calls the rows of the stream table.
pub fn names(c: &passrl_config) -> Result<StreamNames> {
    let mut names = StreamNames::TABLE;
    for (index, row) in c.streams.iter().enumerate() {
        let bytes = row.name.map(|byte| byte as u8);
        let table = stream_name(index);
        let Some(end) = bytes.iter().position(|byte| *byte == 0) else {
            return refuse!(
                PASSRL_ERR_VALUE,
                "config.streams[{index}].name ({table}) has {} bytes and no terminating zero among them; a name has at most {}",
                bytes.len(), bytes.len() - 1
            );
        };
        match std::str::from_utf8(&bytes[..end]) {
            Ok(name) => names.set(index, name),
            Err(fault) => {
                let at = fault.valid_up_to();
                return refuse!(PASSRL_ERR_VALUE, "config.streams[{index}].name ({table}) is not UTF-8 text: byte {at} is 0x{:02x}", bytes[at]);
            }
        }
    }
    Ok(names)
}

/// Settings that exclude each other.
fn together(c: &Config) -> Result<()> {
    if c.fusion != Fusion::Advantage {
        let name = c.fusion.name();
        if c.fusion != Fusion::RewardSum && (c.num_process != 1 || c.num_extra != 0) {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.fusion is {name} with num_process = {} and num_extra = {}; it knows one process stream, outcome and format: set 1 and 0",
                c.num_process, c.num_extra
            );
        }
        if c.divide_scope == DivideScope::Process {
            return refuse!(PASSRL_ERR_CONFLICT, "config.fusion is {name} and config.divide_scope is process, which needs streams apart: fusion = advantage");
        }
        if c.fusion == Fusion::RewardShaping && c.kind == Kind::None {
            return refuse!(PASSRL_ERR_CONFLICT, "config.fusion is reward_shaping and config.kind is none; rewards are shaped per step, give a process signal");
        }
    }
    for p in 0..c.num_process {
        let s = &c.streams[p];
        if c.chunk_value == ChunkValue::Mean && s.scale == Scale::LeaveOneOut {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.chunk_value is mean and {}.scale is leave_one_out; a chunk's mean has no deviation of the others, use chunk_value = last",
                stream_name(p)
            );
        }
        let differs = s.leaves_out() && (s.loo_unit == LooUnit::Rollout || s.scale == Scale::LeaveOneOut);
        if p == 0 && c.kind == Kind::Kl && c.chunk == Chunk::ByValue && differs {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.kind is kl with chunk = by_value and process_0.scale = {}, loo_unit = {}; the group average needs one shift and scale for all: \
                 use loo_unit = element with another scale, or another chunk",
                s.scale.name(), s.loo_unit.name()
            );
        }
    }
    Ok(())
}

pub fn limits(l: &passrl_limits, config: &Config) -> Result<Limits> {
    if l.reserved0 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "limits.reserved0 is {}; it must be 0", l.reserved0);
    }
    let below = |bits: u32, field: &str, value: i64| match usize::try_from(value) {
        Ok(value) if value < 1 << bits => Ok(value),
        _ => refuse!(PASSRL_ERR_LIMIT, "limits.{field} is {value}; it must be from 0 to 2^{bits} - 1"),
    };
    let or = |value: usize, default: usize| if value == 0 { default } else { value };
    let (rollouts, tokens) = (below(31, "rollouts", l.rollouts)?, below(40, "tokens", l.tokens)?);
    let pieces = below(31, "pieces", l.pieces)?;
    let limits = Limits {
        rollouts,
        groups: or(below(31, "groups", l.groups)?, rollouts),
        tokens,
        rollout_tokens: or(below(31, "rollout_tokens", l.rollout_tokens)?, tokens),
        steps: or(below(40, "steps", l.steps)?, tokens),
        group_rollouts: or(below(17, "group_rollouts", l.group_rollouts)?, rollouts),
        group_elements: or(below(33, "group_elements", l.group_elements)?, tokens),
        pieces,
        rollout_pieces: or(below(16, "rollout_pieces", l.rollout_pieces)?, pieces),
        batch_rollouts: or(below(31, "batch_rollouts", l.batch_rollouts)?, rollouts),
    };
    super::pieces::limits(&limits, config)?;
    // Sums are exact in 64-bit integers up to here (numerics contract): 46 bits a value for a group's rollouts, 30 for tokens and steps.
    const ROLLOUTS: usize = 1 << 17;
    const TOKENS: usize = 1 << 33;
    if limits.group_rollouts >= ROLLOUTS {
        return refuse!(
            PASSRL_ERR_LIMIT,
            "limits.group_rollouts is {} (0: as limits.rollouts); exact sums allow fewer than {ROLLOUTS} rollouts a group: state the true size of a group",
            limits.group_rollouts
        );
    }
    if limits.group_elements >= TOKENS || ((config.whiten != Whiten::None || config.streams.iter().any(Stream::asks_batch)) && limits.tokens >= TOKENS) {
        return refuse!(
            PASSRL_ERR_LIMIT,
            "limits.group_elements is {} (0: as limits.tokens) and limits.tokens {}; exact sums allow fewer than {TOKENS} elements in a set: state the true sizes",
            limits.group_elements, limits.tokens
        );
    }
    if limits.rollout_tokens >= 1 << 31 {
        return refuse!(PASSRL_ERR_LIMIT, "limits.rollout_tokens is 0, as limits.tokens, which is {}; it must be below 2^31: state the longest rollout", limits.tokens);
    }
    // A table of two integers for each position of each group: it must be countable, and no machine has this much memory.
    let table = limits.groups as u128 * limits.rollout_tokens as u128 * 16;
    if config.kind == Kind::Kl && config.chunk == Chunk::ByValue && table >= 1 << 46 {
        return refuse!(
            PASSRL_ERR_LIMIT,
            "limits.groups is {} and limits.rollout_tokens {}: partials of the group average of kl would take {table} bytes; state the true sizes",
            limits.groups, limits.rollout_tokens
        );
    }
    let deviates = |s: &Stream| s.scale == Scale::LeaveOneOut;
    if config.kind != Kind::None && config.streams[..config.num_process].iter().any(deviates) && limits.group_elements >= ROLLOUTS {
        return refuse!(
            PASSRL_ERR_LIMIT,
            "limits.group_elements is {} (0: as limits.tokens) with a leave-one-out standard deviation, whose exact sums allow fewer than {ROLLOUTS} \
             elements a group: state the true number of steps (kl: tokens) of a group",
            limits.group_elements
        );
    }
    Ok(limits)
}
