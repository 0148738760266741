//! The driver: whether it is there, which of its functions are, and its errors in words. Every function named in `NEEDED` has been looked up before one is
//! called, since cudarc panics on one that is missing.
use crate::error::{self, Refused, Result};
use crate::refuse;
use cudarc::driver::sys::{self, CUresult};
use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr::null;

/// Every function of the driver that this backend calls.
const NEEDED: [&CStr; 25] = [
    c"cuInit", c"cuDriverGetVersion", c"cuDeviceGetCount", c"cuDeviceGet", c"cuDeviceGetName", c"cuDeviceGetAttribute", c"cuDevicePrimaryCtxRetain",
    c"cuDevicePrimaryCtxRelease_v2", c"cuCtxGetCurrent", c"cuCtxGetDevice", c"cuCtxPushCurrent_v2", c"cuCtxPopCurrent_v2", c"cuModuleLoadDataEx",
    c"cuModuleUnload", c"cuModuleGetFunction", c"cuLaunchKernel", c"cuMemAlloc_v2", c"cuMemFree_v2", c"cuMemcpyHtoD_v2", c"cuMemcpyDtoH_v2",
    c"cuMemsetD8_v2", c"cuMemsetD8Async", c"cuMemsetD32Async", c"cuGetErrorName", c"cuGetErrorString",
];

/// What a driver of the first CUDA 12 says of itself.
const OLDEST: &str = "CUDA 12.0 (driver 525)";

/// Asks for the library, then for each of its functions, then for the devices, whose number it returns.
pub fn ready() -> Result<i32> {
    // SAFETY: looks for the library by name; resolves no function.
    if !unsafe { sys::is_culib_present() } {
        return refuse!(error::NO_DEVICE, "no CUDA driver (libcuda.so.1) on this machine; use backend = PASSRL_CPU, which serves every configuration");
    }
    // SAFETY: the library has just been found (and would be loaded by the same names).
    let library = unsafe { sys::culib() };
    let mut missing = NEEDED.iter().filter(|name| {
        // SAFETY: looked up, not called.
        unsafe { library.get::<unsafe extern "C" fn()>(name.to_bytes_with_nul()) }.is_err()
    });
    if let Some(first) = missing.next() {
        let (name, more) = (first.to_string_lossy(), missing.count());
        if more + 1 == NEEDED.len() {
            return refuse!(error::NO_DEVICE, "the libcuda.so that is found first is no CUDA driver: it has not even {name}; put the driver's before it, or use backend = PASSRL_CPU");
        }
        return refuse!(error::NO_DEVICE, "the CUDA driver on this machine has no {name} ({more} more are missing); it is older than {OLDEST}: update it, or use backend = PASSRL_CPU");
    }
    // SAFETY: found above; likewise below.
    let begun = unsafe { sys::cuInit(0) };
    if begun != CUresult::CUDA_SUCCESS {
        let words = Words(begun);
        return match begun {
            CUresult::CUDA_ERROR_STUB_LIBRARY => refuse!(
                error::NO_DEVICE,
                "cuInit failed: {words}; a toolkit's stub libcuda.so is found before the driver's: take its folder (lib64/stubs) off LD_LIBRARY_PATH"
            ),
            CUresult::CUDA_ERROR_NOT_INITIALIZED => refuse!(
                error::FORK,
                "cuInit failed: {words}; this process was forked from one that had used CUDA: start it anew (multiprocessing's spawn), or use backend = PASSRL_CPU in it"
            ),
            _ => refuse!(error::NO_DEVICE, "cuInit failed: {words}; use backend = PASSRL_CPU, which serves every configuration"),
        };
    }
    let mut count = 0;
    // SAFETY: as above.
    let found = unsafe { sys::cuDeviceGetCount(&mut count) };
    if found != CUresult::CUDA_SUCCESS || count < 1 {
        return match found {
            CUresult::CUDA_SUCCESS => refuse!(error::NO_DEVICE, "the CUDA driver knows no device; use backend = PASSRL_CPU, which serves every configuration"),
            other => refuse!(error::NO_DEVICE, "cuDeviceGetCount failed: {}; use backend = PASSRL_CPU, which serves every configuration", Words(other)),
        };
    }
    Ok(count)
}

/// An error's name, number and text.
pub struct Words(pub CUresult);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |get: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
            let mut at: *const c_char = null();
            // SAFETY: `ready` has found both functions; the driver's text is static.
            let found = unsafe { get(self.0, &mut at) } == CUresult::CUDA_SUCCESS && !at.is_null();
            // SAFETY: zero-terminated.
            found.then(|| unsafe { CStr::from_ptr(at) }.to_string_lossy()).unwrap_or_default()
        };
        write!(f, "{} ({}), {}", text(sys::cuGetErrorName), self.0 as u32, text(sys::cuGetErrorString))
    }
}

/// A driver call's outcome: its sentence says which call, and what helps.
pub fn done(outcome: CUresult, call: fmt::Arguments<'_>) -> Result<()> {
    if outcome == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let (status, mend) = match outcome {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => (error::RESOURCE, "; free device memory, or give smaller limits"),
        CUresult::CUDA_ERROR_INVALID_HANDLE => (error::DEVICE, "; is the stream one of the context's device, and alive?"),
        CUresult::CUDA_ERROR_INVALID_CONTEXT | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED => {
            (error::DEVICE, "; the CUDA context that the passrl context was made for is gone: make a new one")
        }
        CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED | CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED | CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT => {
            (error::DRIVER, "; a stream is being captured: make contexts and plans, and destroy them, before or after")
        }
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS | CUresult::CUDA_ERROR_LAUNCH_FAILED | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS => {
            (error::DRIVER, "; work put on the device before has failed, and the CUDA context can do no more: is every view as long as it says?")
        }
        _ => (error::DRIVER, ""),
    };
    error::set(format_args!("{call} failed: {}{mend}", Words(outcome)));
    Err(Refused(status))
}
