//! Device memory of a placed batch: the driver that the library finds (in tests the simulated one), copies of the arenas, runs on them.
use super::arrays::Arena;
use super::{How, Outputs, Placed, Plan, library};
use libloading::Library as So;
use passrl::abi::constants::{PASSRL_CUDA, PASSRL_KERNELS_ANY, PASSRL_KERNELS_NVRTC};
use passrl::abi::types::*;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// The driver's functions that tests call, by the names of their symbols.
pub struct Driver {
    so: So,
}

/// `Err`: why there is none.
pub fn driver() -> Result<&'static Driver, &'static str> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    let found = DRIVER.get_or_init(|| {
        // SAFETY: the driver's library, by the name that the shipped one looks for first.
        let driver = Driver { so: unsafe { So::new("libcuda.so") }.ok()? };
        let init: unsafe extern "C" fn(c_uint) -> c_int = driver.get("cuInit");
        // SAFETY: the driver's first call.
        (unsafe { init(0) } == 0).then_some(driver)
    });
    found.as_ref().ok_or("no CUDA driver: neither the simulated one of tests/cudasim (which needs g++) nor a real one")
}

impl Driver {
    /// A function of the driver. The caller names its type.
    pub fn get<F: Copy>(&self, name: &str) -> F {
        // SAFETY: the types written in these tests are those of cuda.h.
        *unsafe { self.so.get::<F>(name.as_bytes()) }.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Makes device 0's primary context the thread's current one, as a framework does; it stays retained.
    pub fn use_device(&self) -> *mut c_void {
        let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int = self.get("cuDevicePrimaryCtxRetain");
        let set: unsafe extern "C" fn(*mut c_void) -> c_int = self.get("cuCtxSetCurrent");
        let mut context = null_mut();
        // SAFETY: device 0 of an initialised driver.
        unsafe {
            assert_eq!(retain(&mut context, 0), 0);
            assert_eq!(set(context), 0);
        }
        context
    }

    pub fn alloc(&self, bytes: usize) -> u64 {
        let alloc: unsafe extern "C" fn(*mut u64, usize) -> c_int = self.get("cuMemAlloc_v2");
        let mut at = 0;
        // SAFETY: writes one address.
        assert_eq!(unsafe { alloc(&mut at, bytes.max(1)) }, 0, "{bytes} bytes of device memory");
        at
    }

    pub fn free(&self, at: u64) {
        let free: unsafe extern "C" fn(u64) -> c_int = self.get("cuMemFree_v2");
        // SAFETY: allocated by `alloc`.
        assert_eq!(unsafe { free(at) }, 0);
    }

    pub fn upload(&self, to: u64, from: &[u8]) {
        let copy: unsafe extern "C" fn(u64, *const c_void, usize) -> c_int = self.get("cuMemcpyHtoD_v2");
        // SAFETY: as many bytes on both sides.
        assert_eq!(unsafe { copy(to, from.as_ptr().cast(), from.len()) }, 0);
    }

    pub fn download(&self, from: u64, bytes: usize) -> Vec<u8> {
        let copy: unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int = self.get("cuMemcpyDtoH_v2");
        let mut to = vec![0u8; bytes];
        // SAFETY: as many bytes on both sides.
        assert_eq!(unsafe { copy(to.as_mut_ptr().cast(), from, bytes) }, 0);
        to
    }

    /// Waits for all work of a stream.
    pub fn wait(&self, stream: *mut c_void) {
        let wait: unsafe extern "C" fn(*mut c_void) -> c_int = self.get("cuStreamSynchronize");
        // SAFETY: a live stream, or NULL.
        let outcome = unsafe { wait(stream) };
        let found = if std::env::var_os("PASSRL_GPU").is_none() { cudasim::report() } else { String::new() };
        assert_eq!(outcome, 0, "the stream's work failed\n{found}");
    }

    /// A stream that does not wait for the legacy one.
    pub fn stream(&self) -> *mut c_void {
        let create: unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int = self.get("cuStreamCreate");
        let mut stream = null_mut();
        // SAFETY: writes one handle.
        assert_eq!(unsafe { create(&mut stream, 1) }, 0);
        stream
    }

    pub fn destroy_stream(&self, stream: *mut c_void) {
        let destroy: unsafe extern "C" fn(*mut c_void) -> c_int = self.get("cuStreamDestroy_v2");
        // SAFETY: a stream of `stream`.
        assert_eq!(unsafe { destroy(stream) }, 0);
    }
}

/// target/tmp, which Cargo names to test crates alone: a test lies in target/<profile>/deps.
fn temporary() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    exe.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("tmp")
}

/// A stand-in for NVRTC (tests/cuda/nvrtc.c), compiled once a test crate, and "no cache": the simulated driver runs the kernels' sources compiled for the
/// host, so that nothing needs compiling here. (NVRTC itself: tests/cuda_build.rs.)
pub fn compiler() -> Compiler {
    if std::env::var_os("PASSRL_GPU").is_some() {
        // On a real device (tests/gpu/check) kernels come as a user's do.
        let given = std::env::var_os("PASSRL_NVRTC").filter(|path| !path.is_empty());
        return Compiler { nvrtc: given.map(|path| CString::new(path.as_encoded_bytes()).expect("a path")), cache: None, kernels: PASSRL_KERNELS_ANY };
    }
    static BUILT: OnceLock<CString> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = temporary().join(format!("nvrtc-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder below target/tmp");
        let library = folder.join("libnvrtc.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../cuda/nvrtc.c");
        let done = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(source).status();
        assert!(done.is_ok_and(|status| status.success()), "cc does not compile {source}");
        CString::new(library.as_os_str().as_encoded_bytes()).expect("a path")
    });
    Compiler { nvrtc: Some(built.clone()), cache: Some(CString::default()), kernels: PASSRL_KERNELS_NVRTC }
}

/// Where a test's context has its kernels from.
pub struct Compiler {
    pub nvrtc: Option<CString>,
    cache: Option<CString>,
    kernels: i32,
}

impl Compiler {
    /// The options point into it.
    pub fn choose(&self, options: &mut passrl_context_options) {
        let at = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        (options.backend, options.kernels, options.nvrtc, options.cache_dir) = (PASSRL_CUDA, self.kernels, at(&self.nvrtc), at(&self.cache));
    }
}

/// Device memory, freed with it.
pub struct Block {
    pub at: u64,
    pub bytes: usize,
}

impl Block {
    pub fn new(bytes: usize) -> Block {
        Block { at: driver().expect("a driver").alloc(bytes), bytes }
    }
    pub fn of(content: &[u8]) -> Block {
        let block = Block::new(content.len());
        block.fill(content);
        block
    }
    pub fn dirty(bytes: usize, dirt: u8) -> Block {
        Block::of(&vec![dirt; bytes])
    }
    pub fn fill(&self, content: &[u8]) {
        driver().expect("a driver").upload(self.at, content);
    }
    pub fn read(&self) -> Vec<u8> {
        driver().expect("a driver").download(self.at, self.bytes)
    }
    pub fn pointer(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.at as usize)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // After a failure the context may do no more.
        if !std::thread::panicking() {
            driver().expect("a driver").free(self.at);
        }
    }
}

/// Copies of the memory of arenas, and the arenas' views on it until `back`.
pub struct Mirror {
    blocks: Vec<(*mut u8, Block)>,
}

impl Mirror {
    pub fn of(arenas: &mut [&mut Arena]) -> Mirror {
        let blocks: Vec<(*mut u8, Block)> = arenas
            .iter()
            .flat_map(|arena| &arena.memory)
            // SAFETY: the arena's own bytes.
            .map(|host| (host.at, Block::of(unsafe { std::slice::from_raw_parts(host.at, host.bytes()) })))
            .collect();
        let mirror = Mirror { blocks };
        mirror.turn(arenas, true);
        mirror
    }

    fn turn(&self, arenas: &mut [&mut Arena], to_device: bool) {
        for view in arenas.iter_mut().flat_map(|arena| arena.views_mut()) {
            let data = view.data.addr();
            let found = self.blocks.iter().find_map(|(host, device)| {
                let (from, to) = if to_device { (host.addr(), device.at as usize) } else { (device.at as usize, host.addr()) };
                (from..from + device.bytes).contains(&data).then(|| to + (data - from))
            });
            // What none of the blocks holds has no elements.
            view.data = if to_device || found.is_none() {
                std::ptr::without_provenance_mut(found.unwrap_or(data))
            } else {
                self.host(data).cast()
            };
            (view.device_type, view.device_id) = if to_device { (PASSRL_CUDA, 0) } else { (passrl::abi::constants::PASSRL_CPU, 0) };
        }
    }

    fn host(&self, device: usize) -> *mut u8 {
        let found = self.blocks.iter().find(|(_, block)| (block.at as usize..block.at as usize + block.bytes).contains(&device));
        found.map_or(null_mut(), |(host, block)| host.wrapping_add(device - block.at as usize))
    }

    /// In the order of the arenas and of the memory in each.
    pub fn device_blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().map(|(_, block)| block)
    }

    /// What the arenas hold now, on the device.
    pub fn again(&self) {
        for (host, device) in &self.blocks {
            // SAFETY: the arena's own bytes.
            device.fill(unsafe { std::slice::from_raw_parts(*host, device.bytes) });
        }
    }

    /// What the device holds, in the arenas; their views as they were. Memory that is the same is not written (inputs may be sealed).
    pub fn back(self, arenas: &mut [&mut Arena]) {
        self.turn(arenas, false);
        for (host, device) in &self.blocks {
            let now = device.read();
            // SAFETY: the arena's own bytes.
            unsafe {
                if std::slice::from_raw_parts(*host, now.len()) != now {
                    host.copy_from_nonoverlapping(now.as_ptr(), now.len());
                }
            }
        }
    }
}

type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// A run on device memory and on a stream of its own. The status and sentence are those of the report, where the call itself is not refused.
pub fn run(plan: &Plan, placed: &mut Placed, outputs: &mut Outputs, how: &How) -> (i32, String) {
    let run: Run = library().get("passrl_plan_run");
    // SAFETY: a live plan, views of live device memory.
    call(plan, placed, outputs, how, |batch, outputs, workspace, bytes, stream| unsafe { run(plan.plan, batch, outputs, workspace, bytes, stream) })
}

/// As `run`, of any function that puts work on a stream.
pub fn call(
    plan: &Plan,
    placed: &mut Placed,
    outputs: &mut Outputs,
    how: &How,
    function: impl FnOnce(*const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32,
) -> (i32, String) {
    let driver = driver().expect("a driver");
    driver.use_device();
    let mirror = Mirror::of(&mut [&mut placed.arena, outputs.arena_mut()]);
    let workspace = Block::dirty(plan.size("passrl_plan_workspace_size"), how.dirt);
    let report = Block::dirty(size_of::<passrl_report>(), how.dirt);
    let mut raw = outputs.raw();
    if !raw.report.is_null() {
        raw.report = report.pointer().cast();
    }
    let stream = driver.stream();
    let mut status = function(&placed.batch, &raw, workspace.pointer(), workspace.bytes, stream);
    let mut said = library().last_error();
    if status == 0 {
        driver.wait(stream);
        if !raw.report.is_null() && report.read() != vec![how.dirt; report.bytes] {
            (status, said) = judged(&report, &mut outputs.report);
        }
    }
    driver.destroy_stream(stream);
    mirror.back(&mut [&mut placed.arena, outputs.arena_mut()]);
    (status, said)
}

/// A report's host copy, its status and sentence.
pub fn judged(report: &Block, to: &mut passrl_report) -> (i32, String) {
    let bytes = report.read();
    let status: unsafe extern "C" fn(*const passrl_report) -> i32 = library().get("passrl_report_status");
    // SAFETY: a report's bytes, whatever the device wrote.
    unsafe {
        (&raw mut *to).cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        (status(to), library().last_error())
    }
}
