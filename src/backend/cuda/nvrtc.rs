//! NVRTC: the CUDA compiler as a library, which every PyTorch install brings. Loaded when a context needs it.
use crate::error::{self, Result};
use crate::refuse;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

/// The numerics contract's flags, as nvcc has them in kernels/build.rs.
const FLAGS: [&CStr; 6] =
    [c"--std=c++17", c"--fmad=false", c"--ftz=false", c"--prec-div=true", c"--prec-sqrt=true", c"-device-int128"];

/// Machine code by as many threads as there are processors; a release that does not know it says so at once.
const SPLIT: &CStr = c"--split-compile=0";
const INVALID_OPTION: c_int = 5;

/// By name, newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

type Program = *mut c_void;

/// The functions called, looked up at once.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    words: unsafe extern "C" fn(c_int) -> *const c_char,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    arch_list: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
}

pub struct Nvrtc {
    functions: Functions,
    version: (c_int, c_int),
}

/// A program, destroyed whatever becomes of it.
struct Compiling<'a>(&'a Functions, Program);

impl Drop for Compiling<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.0.destroy)(&mut self.1) };
    }
}

fn found(path: Option<&str>) -> Result<Library> {
    // RTLD_NOLOAD: one that the process has, which fits its driver.
    let open = |name: &str, mode| {
        // SAFETY: NVIDIA's library; its constructors set up the compiler.
        unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL | mode) }
    };
    if let Some(path) = path {
        return open(path, 0).or_else(|fault| refuse!(error::DRIVER, "options.nvrtc is {path:?}, which does not load: {fault}"));
    }
    let found = NAMES.iter().find_map(|name| open(name, libc::RTLD_NOLOAD).ok()).or_else(|| NAMES.iter().find_map(|name| open(name, 0).ok()));
    match found {
        Some(library) => Ok(library),
        None => refuse!(
            error::DRIVER,
            "the kernels must be compiled and there is no NVRTC (libnvrtc.so.12 or .13): install nvidia-cuda-nvrtc, give its path as options.nvrtc, or use a libpassrl.so built with nvcc"
        ),
    }
}

impl Nvrtc {
    pub fn open(path: Option<&str>) -> Result<Nvrtc> {
        let library = found(path)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the types of nvrtc.h.
                match unsafe { library.get($name.to_bytes_with_nul()) } {
                    Ok(function) => *function,
                    Err(_) => return refuse!(error::DRIVER, "the NVRTC library has no {}; use one of CUDA 12 or later", $name.to_string_lossy()),
                }
            };
        }
        let functions = Functions {
            version: function!(c"nvrtcVersion"),
            words: function!(c"nvrtcGetErrorString"),
            archs: function!(c"nvrtcGetNumSupportedArchs"),
            arch_list: function!(c"nvrtcGetSupportedArchs"),
            create: function!(c"nvrtcCreateProgram"),
            compile: function!(c"nvrtcCompileProgram"),
            log_size: function!(c"nvrtcGetProgramLogSize"),
            log: function!(c"nvrtcGetProgramLog"),
            cubin_size: function!(c"nvrtcGetCUBINSize"),
            cubin: function!(c"nvrtcGetCUBIN"),
            ptx_size: function!(c"nvrtcGetPTXSize"),
            ptx: function!(c"nvrtcGetPTX"),
            destroy: function!(c"nvrtcDestroyProgram"),
        };
        // It stays loaded: its threads have destructors in it.
        std::mem::forget(library);
        let mut version = (0, 0);
        // SAFETY: writes two numbers.
        unsafe { (functions.version)(&mut version.0, &mut version.1) };
        Ok(Nvrtc { functions, version })
    }

    pub fn name(&self) -> String {
        format!("NVRTC {}.{}", self.version.0, self.version.1)
    }

    fn done(&self, outcome: c_int, call: &str) -> Result<()> {
        if outcome == 0 {
            return Ok(());
        }
        // SAFETY: static text.
        let words = unsafe { CStr::from_ptr((self.functions.words)(outcome)) }.to_string_lossy();
        refuse!(error::DRIVER, "{call} of {} failed: {words} ({outcome})", self.name())
    }

    /// Architectures that it makes code for, ascending.
    fn architectures(&self) -> Result<Vec<c_int>> {
        let mut count = 0;
        // SAFETY: writes one number.
        self.done(unsafe { (self.functions.archs)(&mut count) }, "nvrtcGetNumSupportedArchs")?;
        let mut list = vec![0; count.max(0) as usize];
        // SAFETY: room for as many.
        self.done(unsafe { (self.functions.arch_list)(list.as_mut_ptr()) }, "nvrtcGetSupportedArchs")?;
        Ok(list)
    }

    /// A cubin for the device; where this NVRTC does not know it, PTX of the newest architecture below, which the driver compiles.
    pub fn compile(&self, source: &str, capability: i32) -> Result<Vec<u8>> {
        let known = self.architectures()?;
        let Some(nearest) = known.iter().copied().filter(|arch| *arch <= capability).max() else {
            return refuse!(error::DRIVER, "{} makes code for compute capabilities from {:?} on; the device has {capability}", self.name(), known.first());
        };
        let cubin = nearest == capability;
        let architecture = format!("--gpu-architecture={}_{nearest}", if cubin { "sm" } else { "compute" });
        let (Ok(source), Ok(architecture)) = (CString::new(source), CString::new(architecture)) else {
            return refuse!(error::DRIVER, "the embedded source has a zero byte");
        };
        let f = &self.functions;
        let mut program = null_mut();
        // SAFETY: zero-terminated texts, no headers.
        self.done(unsafe { (f.create)(&mut program, source.as_ptr(), c"passrl.cu".as_ptr(), 0, null_mut(), null_mut()) }, "nvrtcCreateProgram")?;
        let program = Compiling(f, program);
        let options: Vec<*const c_char> = FLAGS.iter().map(|flag| flag.as_ptr()).chain([architecture.as_ptr(), SPLIT.as_ptr()]).collect();
        let compile = |options: &[*const c_char]| {
            // SAFETY: a program, and as many options.
            unsafe { (f.compile)(program.1, options.len() as c_int, options.as_ptr()) }
        };
        let mut outcome = compile(&options);
        if outcome == INVALID_OPTION {
            outcome = compile(&options[..options.len() - 1]);
        }
        if outcome != 0 {
            let log = self.text(program.1);
            let first = log.lines().find(|line| line.contains("error")).unwrap_or("no message").to_string();
            self.done(outcome, "nvrtcCompileProgram").or_else(|_| refuse!(error::DRIVER, "{} does not compile the kernels: {first}", self.name()))?;
        }
        let (size, get) = if cubin { (f.cubin_size, f.cubin) } else { (f.ptx_size, f.ptx) };
        let mut bytes = 0;
        // SAFETY: a compiled program; room for as many bytes as it says.
        unsafe {
            self.done(size(program.1, &mut bytes), "the size of the image")?;
            let mut image = vec![0u8; bytes];
            self.done(get(program.1, image.as_mut_ptr().cast()), "the image")?;
            Ok(image)
        }
    }

    fn text(&self, program: Program) -> String {
        let mut bytes = 0;
        // SAFETY: a program; room for as many bytes as it says.
        unsafe {
            (self.functions.log_size)(program, &mut bytes);
            let mut log = vec![0u8; bytes];
            (self.functions.log)(program, log.as_mut_ptr().cast());
            String::from_utf8_lossy(&log).into_owned()
        }
    }
}
