//! The configuration at the boundary: defaults, presets, fields by name.
use super::status::*;
use super::types::*;
use super::{guard, structs, util};
use crate::error::Result;
use crate::model::config::{Choice, Config, Stream};
use crate::model::presets;
use crate::{check, refuse};
use std::ffi::c_char;

/// The C form of a typed configuration.
pub fn from_model(config: &Config) -> passrl_config {
    let stream = |index: usize, row: &Stream| {
        let mut name = [0 as c_char; 32];
        for (to, from) in name.iter_mut().zip(presets::stream_name(index).bytes()) {
            *to = from as c_char;
        }
        passrl_stream {
            weight: row.weight,
            epsilon: row.epsilon,
            center: row.center.number(),
            scale: row.scale.number(),
            ddof: row.ddof,
            epsilon_mode: row.epsilon_mode.number(),
            loo_unit: row.loo_unit.number(),
            singleton: row.singleton.number(),
            missing: row.missing.number(),
            place: row.place.number(),
            zero_variance: row.zero_variance.number(),
            count_by: row.count_by.number(),
            clip_value: row.clip_value,
            clip_standardized: row.clip_standardized,
            reserved: [0; 3],
            name,
        }
    };
    passrl_config {
        struct_size: size_of::<passrl_config>() as u32,
        num_process: config.num_process as i32,
        num_extra: config.num_extra as i32,
        kind: config.kind.number(),
        pool: config.pool.number(),
        fusion: config.fusion.number(),
        chunk: config.chunk.number(),
        boundary_rule: config.boundary_rule.number(),
        merge_equal_steps: config.merge_equal_steps as i32,
        average_over: config.average_over.number(),
        bridge_scope_gaps: config.bridge_scope_gaps as i32,
        chunk_value: config.chunk_value.number(),
        credit: config.credit.number(),
        divide_scope: config.divide_scope.number(),
        whiten: config.whiten.number(),
        whiten_ddof: config.whiten_ddof,
        whiten_epsilon_mode: config.whiten_epsilon_mode.number(),
        whiten_shift: config.whiten_shift as i32,
        fill_padding: config.fill_padding as i32,
        strict: config.strict as i32,
        compat: 0,
        reserved0: 0,
        opd_lambda: config.opd_lambda,
        eta: config.eta,
        gamma: config.gamma,
        lam: config.lam,
        k: config.k,
        temperature: config.temperature,
        whiten_epsilon: config.whiten_epsilon,
        clip: config.clip,
        streams: std::array::from_fn(|index| stream(index, &config.streams[index])),
        kl_in_reward: config.kl_in_reward.number(),
        kl_place: config.kl_place.number(),
        scan_mask: config.scan_mask.number(),
        gae_over: config.gae_over.number(),
        divide_by: config.divide_by.number(),
        step_sets: config.step_sets.number(),
        step_value: config.step_value.number(),
        token_baseline: config.token_baseline.number(),
        kl_coef: config.kl_coef,
        kl_log_ratio_clamp: config.kl_log_ratio_clamp,
        kl_clamp: config.kl_clamp,
        lam_returns: config.lam_returns,
        lam_length_alpha: config.lam_length_alpha,
        step_gamma: config.step_gamma,
        rho_clip: config.rho_clip,
        c_clip: config.c_clip,
    }
}

/// Fills a configuration with the defaults of the field table (those of the preset `pass`), writing at most `struct_size` bytes.
/// Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_config_init(target: *mut passrl_config, struct_size: u32) -> passrl_status {
    // SAFETY: the caller's pointer and size are passed on.
    guard("passrl_config_init", || unsafe { structs::init(target, struct_size) })
}

/// Fills a configuration from a preset ("pass", "grpo_process", "grpo_pooled"; see `passrl_preset_name`), writing at most `struct_size` bytes.
/// A preset only fills fields: change any of them afterwards. An unknown name is refused with the nearest ones
/// (`PASSRL_ERR_UNKNOWN_NAME`), and one that sets a field beyond `struct_size` (of a caller with an older header) is refused with the field
/// (`PASSRL_ERR_STRUCT_SIZE`). `preset`: zero-terminated, read during the call. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_config_init_preset(
    target: *mut passrl_config,
    struct_size: u32,
    preset: *const c_char,
) -> passrl_status {
    guard("passrl_config_init_preset", || {
        // SAFETY: a zero-terminated string or NULL by the contract.
        let name = unsafe { util::text(preset, "preset")? };
        let preset = check::names::preset(name)?;
        structs::writable(target, struct_size, "target")?;
        let filled = from_model(&preset.config());
        check::names::preset_fits(name, &filled, struct_size as usize)?;
        // SAFETY: the caller's pointer and size are passed on.
        unsafe { structs::write(target, struct_size, filled, "target") }
    })
}

/// Sets one field by its name, from text: `passrl_config_set(&c, "k", "0.5")`, `("chunk", "step")`, `("outcome.ddof", "0")`,
/// `("standardize", "abs_max")`. Keys: the fields of `passrl_config`; a row of the stream table as `process_0.weight`, `outcome.center`,
/// `extra_3.missing` ...; the shorthands standardize, standardize_process, standardize_outcome, standardize_format, w_process, w_outcome,
/// w_format, ddof, epsilon, epsilon_mode, loo_unit, singleton, missing (all streams), name.standardize (one stream).
/// Unknown keys and values are refused with the nearest ones, a field beyond the configuration's `struct_size` (of a caller with an older header) with
/// `PASSRL_ERR_STRUCT_SIZE`, the configuration untouched. Not thread-safe on one configuration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_config_set(config: *mut passrl_config, key: *const c_char, value: *const c_char) -> passrl_status {
    guard("passrl_config_set", || {
        // SAFETY: the caller's struct and zero-terminated strings, by the contract.
        let (mut fields, key, value) =
            unsafe { (structs::read(config, "config")?, util::text(key, "key")?, util::text(value, "value")?) };
        let size = fields.struct_size;
        check::names::set(&mut fields, key, value)?;
        // SAFETY: `read` has seen a struct of `struct_size` bytes there.
        unsafe { structs::write(config, size, fields, "config") }
    })
}

/// Number of presets. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_preset_count() -> i32 {
    presets::PRESETS.len() as i32
}

/// Name of preset `index`, 0 to `passrl_preset_count()` - 1; NULL outside. Static memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_preset_name(index: i32) -> *const c_char {
    usize::try_from(index).ok().and_then(|i| presets::PRESETS.get(i)).map_or(std::ptr::null(), |p| p.name.as_ptr())
}

/// Where preset `index` comes from: paper and equations, or framework, file, function and commit; NULL outside. Static memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_preset_source(index: i32) -> *const c_char {
    usize::try_from(index).ok().and_then(|i| presets::PRESETS.get(i)).map_or(std::ptr::null(), |p| p.source.as_ptr())
}

/// Refuses a group of settings that this version declares but does not serve.
pub fn refuse_compat(config: &passrl_config) -> Result<()> {
    if config.compat != 0 {
        return refuse!(PASSRL_ERR_NOT_YET, "config.compat is {}; the frameworks' own degenerate behaviour comes with their presets; set 0", config.compat);
    }
    Ok(())
}
