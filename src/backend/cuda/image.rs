//! Which image of the kernels a context loads: the one built in, one that NVRTC has made before, or one that it makes now from the embedded source.
use super::cache::Folder;
use super::driver::{Words, done};
use super::launch::Kernels;
use super::nvrtc::Nvrtc;
use crate::error::{self, Result};
use crate::model::context::{CudaOptions, Kernels as Which};
use crate::refuse;
use cudarc::driver::sys::{self, CUresult};
use std::ptr::null_mut;

/// FNV-1a over the sorted kernel files, as the build script has read them.
pub const HASH: u64 = parse(env!("PASSRL_KERNELS_HASH"));
/// One translation unit, every include written out.
const SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/passrl.cu"));
/// The fatbin; empty where the library was built without nvcc.
static BUILT_IN: Aligned<[u8; include_bytes!(concat!(env!("OUT_DIR"), "/passrl.fatbin")).len()]> =
    Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/passrl.fatbin")));
/// What made it: "nvcc 13.0", or why there is none.
const BUILDER: &str = env!("PASSRL_KERNELS_BUILDER");

/// The driver reads an image by words.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// A hexadecimal number of the build script.
const fn parse(text: &str) -> u64 {
    match u64::from_str_radix(text, 16) {
        Ok(hash) => hash,
        Err(_) => panic!("PASSRL_KERNELS_HASH is a hexadecimal number"),
    }
}

/// The source, for tests.
pub fn source() -> &'static str {
    SOURCE
}

/// A loaded module with its kernels.
pub struct Loaded {
    pub module: sys::CUmodule,
    pub kernels: Kernels,
    /// Where the image came from, in words.
    pub origin: String,
}

/// Errors that say "not this image": another one may do.
fn refused(outcome: CUresult) -> bool {
    use CUresult::*;
    matches!(
        outcome,
        CUDA_ERROR_INVALID_IMAGE | CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_INVALID_PTX | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUDA_ERROR_JIT_COMPILER_NOT_FOUND | CUDA_ERROR_JIT_COMPILATION_DISABLED | CUDA_ERROR_INVALID_SOURCE
    )
}

/// Loads an image into the current context. `Ok(Err(outcome))`: the driver takes no such image.
fn module(image: &[u8], origin: String) -> Result<std::result::Result<Loaded, CUresult>> {
    let mut module = null_mut();
    // SAFETY: a whole image (PTX ends with a zero), no options; the driver keeps nothing of it.
    let outcome = unsafe { sys::cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), 0, null_mut(), null_mut()) };
    if refused(outcome) {
        return Ok(Err(outcome));
    }
    done(outcome, format_args!("cuModuleLoadDataEx of {} bytes ({origin})", image.len()))?;
    match Kernels::of(module) {
        Ok(kernels) => Ok(Ok(Loaded { module, kernels, origin })),
        Err(refusal) => {
            // SAFETY: loaded above.
            let _ = unsafe { sys::cuModuleUnload(module) };
            Err(refusal)
        }
    }
}

/// The kernels for a device of this compute capability, in the current context.
pub fn load(options: &CudaOptions, capability: i32) -> Result<Loaded> {
    let mut before = String::new();
    if options.kernels != Which::Nvrtc {
        match BUILT_IN.0.is_empty() {
            true => before = format!("there is no image built in ({BUILDER})"),
            false => match module(&BUILT_IN.0, format!("built in by {BUILDER}"))? {
                Ok(loaded) => return Ok(loaded),
                Err(outcome) => before = format!("the driver refuses the image built in by {BUILDER}: {}", Words(outcome)),
            },
        }
        if options.kernels == Which::BuiltIn {
            return refuse!(error::DRIVER, "options.kernels is PASSRL_KERNELS_BUILT_IN and {before}; let NVRTC compile them (PASSRL_KERNELS_ANY)");
        }
    }
    compiled(options, capability).map(|mut loaded| {
        if !before.is_empty() {
            loaded.origin = format!("{} ({before})", loaded.origin);
        }
        loaded
    })
}

fn compiled(options: &CudaOptions, capability: i32) -> Result<Loaded> {
    let folder = Folder::open(&options.cache);
    let name = format!("passrl-{}-{HASH:016x}-sm_{capability}.cubin", env!("CARGO_PKG_VERSION"));
    if let Some((image, made_by)) = folder.read(&name, HASH) {
        if let Ok(loaded) = module(&image, format!("{made_by}, read from {}", folder.path(&name)))? {
            return Ok(loaded);
        }
    }
    let nvrtc = Nvrtc::open(options.nvrtc.as_deref())?;
    let image = nvrtc.compile(SOURCE, capability)?;
    let kept = folder.write(&name, HASH, &image, &nvrtc.name());
    match module(&image, format!("{}, {kept}", nvrtc.name()))? {
        Ok(loaded) => Ok(loaded),
        Err(outcome) => refuse!(
            error::DRIVER,
            "the driver refuses what {} made for compute capability {}.{}: {}; use a libnvrtc no newer than the driver (options.nvrtc), or update the driver",
            nvrtc.name(),
            capability / 10,
            capability % 10,
            Words(outcome)
        ),
    }
}
