//! A small program of the driver API, by cudarc's raw functions, over the kernels of ../../kernels. Each test file runs one build of them.
#![allow(dead_code)]
use cudarc::driver::sys::{self, CUcontext, CUfunction, CUresult, CUstream};
use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::{MutexGuard, OnceLock};

pub const OK: CUresult = CUresult::CUDA_SUCCESS;

/// An image that the driver takes without looking into it: a fat binary's first bytes.
pub static IMAGE: [u32; 4] = [0xBA55_ED50, 0, 0, 0];

fn compile(checked: bool) -> Result<String, String> {
    let driver = cudasim::folder()?;
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(if checked { "checked" } else { "fast" });
    std::fs::create_dir_all(&out).map_err(|e| e.to_string())?;
    let make = |file: &str, name: &str, options: &[&str]| {
        let library = out.join(format!("{name}.so"));
        cudasim::compile::kernels(&kernels.join(file), &cudasim::sources(), &driver, &library, checked, 0x1234, options).map(|()| library)
    };
    let libraries = std::thread::scope(|scope| {
        let jobs = [scope.spawn(|| make("samples.cu", "samples", &[])), scope.spawn(|| make("bugs.cu", "bugs", &[]))];
        jobs.map(|job| job.join().expect("no panic").unwrap_or_else(|why| panic!("{why}")))
    });
    Ok(libraries.map(|l| l.display().to_string()).join(":"))
}

/// The driver with a stream in the primary context of device 0, for one test. None: it was not built, which is said.
pub fn gpu(checked: bool) -> Option<Gpu> {
    static READY: OnceLock<Result<(), String>> = OnceLock::new();
    let lock = cudasim::lock();
    let ready = READY.get_or_init(|| {
        // A test that runs itself again as a program of its own need not compile again.
        let libraries = std::env::var("CUDASIM_KERNELS").map_or_else(|_| compile(checked), Ok)?;
        // SAFETY: under the lock, before the driver is loaded.
        unsafe {
            std::env::set_var("CUDASIM_KERNELS", libraries);
            std::env::set_var("CUDASIM_CHECKED", if checked { "1" } else { "0" });
            std::env::set_var("CUDASIM_TIMEOUT", "3");
            std::env::set_var("CUDASIM_DEVICES", "2");
        }
        Ok(())
    });
    if let Err(why) = ready {
        println!("SKIPPED: {why}");
        return None;
    }
    cudasim::reset();
    assert_eq!(cudasim::checked(), checked);
    // SAFETY: out pointers are of this frame.
    unsafe {
        assert_eq!(sys::cuInit(0), OK);
        let (mut context, mut stream) = (null_mut(), null_mut());
        assert_eq!(sys::cuDevicePrimaryCtxRetain(&mut context, 0), OK);
        assert_eq!(sys::cuCtxSetCurrent(context), OK);
        assert_eq!(sys::cuStreamCreate(&mut stream, 1), OK);
        Some(Gpu { context, stream, lock: Some(lock) })
    }
}

pub struct Gpu {
    pub context: CUcontext,
    pub stream: CUstream,
    lock: Option<MutexGuard<'static, ()>>,
}

/// Gives the context back, with all that is in it.
impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: made in `gpu`.
        unsafe {
            cudasim::reset();
            sys::cuCtxSetCurrent(null_mut());
            sys::cuDevicePrimaryCtxRelease_v2(0);
        }
        cudasim::reset();
        self.lock = None;
    }
}

pub fn function(name: &str) -> Result<CUfunction, CUresult> {
    let name = CString::new(name).expect("a name");
    let (mut module, mut function) = (null_mut(), null_mut());
    // SAFETY: the image lives as long as the program.
    unsafe {
        sys::cuModuleLoadData(&mut module, IMAGE.as_ptr().cast()).result().map_err(|e| e.0)?;
        sys::cuModuleGetFunction(&mut function, module, name.as_ptr()).result().map_err(|e| e.0)?;
    }
    Ok(function)
}

#[macro_export]
macro_rules! args { ($($a:expr),* $(,)?) => { [$(&$a as *const _ as *mut std::ffi::c_void),*] } }

impl Gpu {
    /// Uninitialised memory for `n` values.
    pub fn alloc<T>(&self, n: usize) -> u64 {
        let mut p = 0;
        // SAFETY: an out pointer.
        assert_eq!(unsafe { sys::cuMemAlloc_v2(&mut p, n * size_of::<T>()) }, OK);
        p
    }
    pub fn upload<T: Copy>(&self, values: &[T]) -> u64 {
        let p = self.alloc::<T>(values.len());
        // SAFETY: as long as allocated.
        assert_eq!(unsafe { sys::cuMemcpyHtoD_v2(p, values.as_ptr().cast(), size_of_val(values)) }, OK);
        p
    }
    pub fn zeros<T: Copy + Default>(&self, n: usize) -> u64 {
        self.upload(&vec![T::default(); n])
    }
    /// After what the stream has still to do.
    pub fn download<T: Copy + Default>(&self, p: u64, n: usize) -> Vec<T> {
        self.download_from(self.stream, p, n)
    }
    pub fn download_from<T: Copy + Default>(&self, stream: CUstream, p: u64, n: usize) -> Vec<T> {
        let mut out = vec![T::default(); n];
        // SAFETY: as long as the vector; to pageable memory it is done when the call returns.
        assert_eq!(unsafe { sys::cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), p, n * size_of::<T>(), stream) }, OK);
        out
    }
    pub fn launch(&self, name: &str, grid: u32, block: u32, shared: u32, args: &mut [*mut c_void]) -> CUresult {
        match function(name) {
            Ok(f) => self.launch_function(f, grid, block, shared, args),
            Err(e) => e,
        }
    }
    pub fn launch_function(&self, f: CUfunction, grid: u32, block: u32, shared: u32, args: &mut [*mut c_void]) -> CUresult {
        // SAFETY: the arguments are the kernel's.
        unsafe { sys::cuLaunchKernel(f, grid, 1, 1, block, 1, 1, shared, self.stream, args.as_mut_ptr(), null_mut()) }
    }
    pub fn synchronize(&self) -> CUresult {
        // SAFETY: the stream is alive.
        unsafe { sys::cuStreamSynchronize(self.stream) }
    }
    /// Launches and waits: the error, and what was found.
    pub fn run(&self, name: &str, grid: u32, block: u32, shared: u32, args: &mut [*mut c_void]) -> (CUresult, String) {
        let launched = self.launch(name, grid, block, shared, args);
        let result = if launched == OK { self.synchronize() } else { launched };
        (result, cudasim::report())
    }
}

/// The result and the one word that the report must have; prints all of it.
#[track_caller]
pub fn caught((result, report): (CUresult, String), code: u32, says: &str) {
    println!("[{}] {report}", result as u32);
    assert_eq!(result as u32, code, "{report}");
    assert!(report.contains(says), "{says:?} is not in {report:?}");
}

#[track_caller]
pub fn clean((result, report): (CUresult, String)) {
    assert_eq!((result, report.as_str()), (OK, ""));
}
