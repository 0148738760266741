//! A device with the kernels loaded: what a CUDA context handle stands for.
use super::driver::{self, done};
use super::image::{self, Loaded};
use crate::error::{self, Result};
use crate::model::context::CudaOptions;
use crate::refuse;
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use std::ffi::CStr;
use std::ptr::null_mut;

/// Lowest compute capability: 8.0.
const LOWEST: i32 = 80;

/// A CUDA context: the device's primary one, retained, or the caller's, borrowed.
struct Held {
    context: sys::CUcontext,
    retained: Option<sys::CUdevice>,
    /// The process that it belongs to: a forked child has none of it.
    pid: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(device), true) = (self.retained, self.pid == std::process::id()) {
            // SAFETY: retained once, released once. An error has no one to go to.
            let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(device) };
        }
    }
}

/// While it lives the context is the thread's current one; then the caller's is again.
pub struct Current<'a>(&'a Held);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut before = null_mut();
        // SAFETY: pushed by `Held::enter` on this thread, which stays on it.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut before) };
        debug_assert!(before == self.0.context || before.is_null());
    }
}

impl Held {
    fn enter(&self) -> Result<Current<'_>> {
        if self.pid != std::process::id() {
            return refuse!(
                error::FORK,
                "the CUDA context was made in process {} and carried over a fork to {}; make one in a process that is started anew (multiprocessing's spawn), or use a CPU context here",
                self.pid,
                std::process::id()
            );
        }
        // SAFETY: a live context; if the caller has destroyed a borrowed one the driver says so.
        done(unsafe { sys::cuCtxPushCurrent_v2(self.context) }, format_args!("cuCtxPushCurrent"))?;
        Ok(Current(self))
    }
}

pub struct Device {
    ordinal: i32,
    multiprocessors: usize,
    loaded: Loaded,
    text: String,
    held: Held,
}

// SAFETY: handles of the driver, which may be used from any thread; nothing here changes after `open`.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Drop for Device {
    fn drop(&mut self) {
        // Where the context is gone or was another process's, so are its modules.
        if let Ok(_current) = self.held.enter() {
            // SAFETY: loaded once, unloaded once.
            let _ = unsafe { sys::cuModuleUnload(self.loaded.module) };
        }
    }
}

fn attribute(device: sys::CUdevice, which: Attribute) -> Result<i32> {
    let mut value = 0;
    // SAFETY: a device of the driver.
    done(unsafe { sys::cuDeviceGetAttribute(&mut value, which, device) }, format_args!("cuDeviceGetAttribute"))?;
    Ok(value)
}

fn name(device: sys::CUdevice) -> Result<String> {
    let mut bytes = [0 as std::ffi::c_char; 128];
    // SAFETY: 127 bytes and a zero at the end.
    done(unsafe { sys::cuDeviceGetName(bytes.as_mut_ptr(), 127, device) }, format_args!("cuDeviceGetName"))?;
    // SAFETY: zero-terminated.
    Ok(unsafe { CStr::from_ptr(bytes.as_ptr()) }.to_string_lossy().into_owned())
}

/// Driver handle of an ordinal.
fn device(ordinal: i32) -> Result<sys::CUdevice> {
    let mut device = 0;
    // SAFETY: writes one handle.
    done(unsafe { sys::cuDeviceGet(&mut device, ordinal) }, format_args!("cuDeviceGet({ordinal})"))?;
    Ok(device)
}

/// The calling thread's current context and its device's ordinal.
fn borrowed(count: i32) -> Result<(Held, i32)> {
    let mut context = null_mut();
    // SAFETY: writes one handle.
    done(unsafe { sys::cuCtxGetCurrent(&mut context) }, format_args!("cuCtxGetCurrent"))?;
    if context.is_null() {
        return refuse!(error::NO_DEVICE, "options.device is -1 and this thread has no current CUDA context; make one (cudaSetDevice, torch.cuda.init) or give a device's ordinal");
    }
    let mut current = 0;
    // SAFETY: a context is current.
    done(unsafe { sys::cuCtxGetDevice(&mut current) }, format_args!("cuCtxGetDevice"))?;
    for ordinal in 0..count {
        if device(ordinal)? == current {
            return Ok((Held { context, retained: None, pid: std::process::id() }, ordinal));
        }
    }
    refuse!(error::NO_DEVICE, "the current CUDA context is of a device that is none of the driver's {count}")
}

/// The primary context of a device.
fn primary(ordinal: i32, count: i32) -> Result<(Held, i32)> {
    if ordinal >= count {
        return refuse!(error::NO_DEVICE, "options.device is {ordinal}; the driver knows {count} device(s) (0 to {})", count - 1);
    }
    let device = device(ordinal)?;
    let mut context = null_mut();
    // SAFETY: a device of the driver; released when `Held` goes.
    done(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) }, format_args!("cuDevicePrimaryCtxRetain({ordinal})"))?;
    Ok((Held { context, retained: Some(device), pid: std::process::id() }, ordinal))
}

impl Device {
    pub fn open(options: &CudaOptions) -> Result<Device> {
        let count = driver::ready()?;
        let (held, ordinal) = if options.device < 0 { borrowed(count)? } else { primary(options.device, count)? };
        let handle = device(ordinal)?;
        let of = |which| attribute(handle, which);
        let capability =
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? * 10 + of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let name = name(handle)?;
        if capability < LOWEST {
            return refuse!(
                error::NO_DEVICE,
                "device {ordinal} ({name}) has compute capability {}.{}; the kernels need 8.0 or more: use backend = PASSRL_CPU, which serves every configuration",
                capability / 10,
                capability % 10
            );
        }
        let multiprocessors = of(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(0) as usize;
        let mut version = 0;
        // SAFETY: writes one number.
        done(unsafe { sys::cuDriverGetVersion(&mut version) }, format_args!("cuDriverGetVersion"))?;
        let loaded = {
            let _current = held.enter()?;
            image::load(options, capability)?
        };
        let text = format!(
            "passrl {} (numerics {}), cuda backend, device {ordinal} ({name}), compute capability {}.{}, driver for CUDA {}.{}, {} context; kernels: {}, source {:016x}",
            env!("CARGO_PKG_VERSION"),
            crate::NUMERICS_VERSION,
            capability / 10,
            capability % 10,
            version / 1000,
            version % 1000 / 10,
            if held.retained.is_some() { "primary" } else { "the caller's" },
            loaded.origin,
            image::HASH
        );
        Ok(Device { ordinal, multiprocessors, loaded, text, held })
    }

    pub fn ordinal(&self) -> i32 {
        self.ordinal
    }

    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    pub fn describe(&self) -> String {
        self.text.clone()
    }

    /// Makes the context current, as long as what it returns lives.
    pub fn enter(&self) -> Result<Current<'_>> {
        self.held.enter()
    }

    pub fn kernels(&self) -> &super::launch::Kernels {
        &self.loaded.kernels
    }
}
