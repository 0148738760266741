//! Raw structs to typed ones: every refusal lives here. Imports the ABI's structs and numbers, the model and the error, nothing of plan or backend.
pub mod batch;
pub mod config;
pub mod estimators;
pub mod groups;
pub mod names;
pub mod offsets;
pub mod outputs;
pub mod phases;
pub mod pieces;
pub mod primitives;
pub mod ranks;
pub mod report;
pub mod view;

use crate::abi::constants::*;
use crate::abi::status::*;
use crate::abi::types::passrl_context_options;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::context::{Cache, ContextOptions, CudaOptions, Kernels, Memory, Where, Simd};
use crate::refuse;
use std::ffi::c_void;

/// `cache_dir` and `nvrtc`: the texts that the options point to.
pub fn context(options: &passrl_context_options, cache_dir: Option<&str>, nvrtc: Option<&str>) -> Result<ContextOptions> {
    let kernels = match options.kernels {
        PASSRL_KERNELS_ANY => Kernels::Any,
        PASSRL_KERNELS_BUILT_IN => Kernels::BuiltIn,
        PASSRL_KERNELS_NVRTC => Kernels::Nvrtc,
        other => return refuse!(PASSRL_ERR_VALUE, "options.kernels is {other}; it is one of PASSRL_KERNELS_* (0 to 2)"),
    };
    let cache = match cache_dir {
        None => Cache::Home,
        Some("") => Cache::Off,
        Some(folder) => Cache::At(folder.to_string()),
    };
    if options.backend == PASSRL_CUDA && options.device < -1 {
        return refuse!(PASSRL_ERR_VALUE, "options.device is {}; it is a device's ordinal, or -1 for the calling thread's current context", options.device);
    }
    let cuda = match options.backend {
        PASSRL_CPU => None,
        PASSRL_CUDA => Some(CudaOptions { device: options.device, kernels, cache, nvrtc: nvrtc.map(str::to_string) }),
        other => return refuse!(PASSRL_ERR_VALUE, "options.backend is {other}; it is PASSRL_CPU (1) or PASSRL_CUDA (2)"),
    };
    if !(0..=1024).contains(&options.threads) {
        return refuse!(PASSRL_ERR_VALUE, "options.threads is {}; it is 0 (as the calling thread may use) to 1024", options.threads);
    }
    let simd = match options.simd {
        PASSRL_SIMD_BEST => Simd::best(),
        PASSRL_SIMD_BASELINE => Simd::Baseline,
        PASSRL_SIMD_AVX2 if Simd::best() >= Simd::Avx2 => Simd::Avx2,
        PASSRL_SIMD_AVX2 => return refuse!(PASSRL_ERR_NO_DEVICE, "options.simd is PASSRL_SIMD_AVX2 (2); this processor has no AVX2, pass 0"),
        PASSRL_SIMD_AVX512 if Simd::best() >= Simd::Avx512 => Simd::Avx512,
        PASSRL_SIMD_AVX512 => return refuse!(PASSRL_ERR_NO_DEVICE, "options.simd is PASSRL_SIMD_AVX512 (3); this processor has no AVX-512 (F, BW, DQ, VL), pass 0"),
        other => return refuse!(PASSRL_ERR_VALUE, "options.simd is {other}; it is one of PASSRL_SIMD_* (0 to 3)"),
    };
    if options.small_call_bytes < -1 {
        return refuse!(PASSRL_ERR_VALUE, "options.small_call_bytes is {}; it is -1 (default) or more", options.small_call_bytes);
    }
    for (value, name) in [(options.reserved0, "reserved0"), (options.reserved1, "reserved1")] {
        if value != 0 {
            return refuse!(PASSRL_ERR_VALUE, "options.{name} is {value}; it must be 0");
        }
    }
    let small_call_bytes = usize::try_from(options.small_call_bytes).ok();
    Ok(ContextOptions { cuda, threads: options.threads as usize, simd, small_call_bytes })
}

/// On the CPU there is no stream.
pub fn stream(place: Where, stream: *mut c_void) -> Result<()> {
    if place == Where::Host && !stream.is_null() {
        return refuse!(PASSRL_ERR_DEVICE, "stream is {stream:p} on a CPU context; it must be NULL");
    }
    Ok(())
}

pub fn phase(phase: i32, phases: usize) -> Result<usize> {
    match usize::try_from(phase) {
        Ok(p) if p < phases => Ok(p),
        _ => refuse!(PASSRL_ERR_VALUE, "phase is {phase}; this plan has {phases} (0 to {})", phases - 1),
    }
}

/// The caller's workspace or buffer: large enough and aligned.
pub fn memory(pointer: *mut c_void, bytes: usize, needed: usize, alignment: usize, argument: &str) -> Result<Memory> {
    if bytes < needed {
        return refuse!(PASSRL_ERR_WORKSPACE, "{argument} has {bytes} bytes, this plan needs {needed}");
    }
    if needed > 0 && pointer.is_null() {
        return refuse!(PASSRL_ERR_NULL, "{argument} is NULL, this plan needs {needed} bytes");
    }
    if pointer.addr().checked_add(needed).is_none() {
        return refuse!(PASSRL_ERR_WORKSPACE, "{argument} at {pointer:p} with {needed} bytes reaches further than memory does");
    }
    if needed > 0 && pointer.addr() % alignment != 0 {
        return refuse!(PASSRL_ERR_WORKSPACE, "{argument} is at {pointer:p}; it must be aligned to {alignment} bytes");
    }
    Ok(Memory { data: pointer.cast::<u8>(), bytes: needed })
}

/// Two memories of a call share nothing.
pub fn apart(a: &Memory, name: &str, b: &Memory, other: &str) -> Result<()> {
    match (a.span(), b.span()) {
        (Some((a0, a1)), Some((b0, b1))) if a0 <= b1 && b0 <= a1 => {
            refuse!(PASSRL_ERR_OVERLAP, "{name} and {other} share memory; give each its own")
        }
        _ => Ok(()),
    }
}

/// What a configuration may not ask of a place.
pub fn served(place: Where, config: &Config) -> Result<()> {
    if place != Where::Host && config.strict {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "config.strict is 1 on a CUDA context, whose runs do not wait to look at the data first: set strict = 0 and give a copy of the report to passrl_report_status"
        );
    }
    Ok(())
}

/// A partials buffer: as memory, and made by a plan of this configuration, these limits and this library's numerics (which is not seen where it lies on a device).
pub fn partials(place: Where, pointer: *mut c_void, bytes: usize, needed: usize, header: &[u64; 4], argument: &str) -> Result<Memory> {
    let memory = memory(pointer, bytes, needed, 8, argument)?;
    if place == Where::Host {
        partials_header(&memory.header(), header, argument)?;
    }
    Ok(memory)
}

/// The first words of a partials buffer.
pub fn partials_header(found: &[u64; 4], header: &[u64; 4], argument: &str) -> Result<()> {
    if found[0] != header[0] {
        return refuse!(PASSRL_ERR_FINGERPRINT, "{argument} is not a partials buffer (or is damaged); make it one with passrl_partials_init");
    }
    if found != header {
        return refuse!(
            PASSRL_ERR_FINGERPRINT,
            "{argument} has fingerprint {:016x} and numerics version {}, this plan has {:016x} and {}; configuration, limits and version must be the same",
            found[1], found[2], header[1], header[2]
        );
    }
    Ok(())
}
