//! The CUDA backend: in this version the probe alone, which says in words why there is no CUDA context.
pub mod nccl;
mod nccl_sys;

use crate::error::{self, Refused};
use cudarc::driver::sys;

/// Why a CUDA context cannot be had, its sentence set.
pub fn refuse(device: i32) -> Refused {
    // SAFETY: looks for the library by name; resolves no symbol.
    if !unsafe { sys::is_culib_present() } {
        error::set(format_args!(
            "no CUDA driver (libcuda.so.1) on this machine, so there is no device {device}; use backend = PASSRL_CPU, which serves every configuration"
        ));
        return Refused(error::NO_DEVICE);
    }
    error::set(format_args!(
        "a CUDA driver is here, but this version has no CUDA kernels yet; use backend = PASSRL_CPU on host memory (device {device} asked for)"
    ));
    Refused(error::NOT_YET)
}
