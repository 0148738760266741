//! The simulated CUDA driver, for Rust tests: where it is, and the functions of `sim/control.h`. Depending on this crate puts the driver on the
//! library path of `cargo test`. Its state is one for the process: tests that use it take `lock()`.
use std::ffi::{CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

pub mod compile;

/// Counts since the last reset, as `CudasimStats` of `sim/control.h` says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub launches: u64,
    pub blocks: u64,
    pub threads: u64,
    pub warps: u64,
    pub barriers: u64,
    pub collectives: u64,
    pub atomics: u64,
    pub switches: u64,
    pub read_requests: u64,
    pub read_bytes: u64,
    pub read_sectors: u64,
    pub read_ideal: u64,
    pub write_requests: u64,
    pub write_bytes: u64,
    pub write_sectors: u64,
    pub write_ideal: u64,
    pub atomic_requests: u64,
    pub atomic_bytes: u64,
    pub atomic_sectors: u64,
    pub atomic_ideal: u64,
    pub shared_requests: u64,
    pub shared_wavefronts: u64,
    pub accesses: u64,
    pub warp_requests: u64,
    pub longest_warp: u64,
    pub memset_bytes: u64,
}

/// What is alive in the process, as `CudasimLive` of `sim/control.h` says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub allocations: u64,
    pub bytes: u64,
    pub host_allocations: u64,
    pub contexts: u64,
    pub primary_retains: u64,
    pub streams: u64,
    pub events: u64,
    pub modules: u64,
    pub graphs: u64,
    pub graph_execs: u64,
}

/// The folder with libcuda.so and libcuda.so.1, or a sentence that says why there is none: tests print it after "SKIPPED: ".
pub fn folder() -> Result<PathBuf, String> {
    let why = include_str!(concat!(env!("OUT_DIR"), "/why_not.txt"));
    if why.is_empty() { Ok(Path::new(env!("OUT_DIR")).join("fast")) } else { Err(format!("the simulated CUDA driver was not built: {why}")) }
}

/// The sources of the simulator (`cudasim.h`), for `compile::kernels`.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sim")
}

/// Held by a test for as long as it uses the driver. A test that failed leaves it usable.
pub fn lock() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

/// A function of control.h; the driver stays loaded. It is the same copy that cudarc loads.
fn symbol<F: Copy>(name: &str) -> F {
    static LIBRARY: OnceLock<libloading::Library> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let path = folder().expect("tests ask for folder() first").join("libcuda.so.1");
        // SAFETY: its constructors read environment variables only.
        unsafe { libloading::Library::new(&path) }.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    });
    // SAFETY: callers name a function of control.h with its type.
    unsafe { *library.get::<F>(name.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}")) }
}

/// The text that a function of control.h writes.
fn text(call: impl Fn(*mut c_char, usize) -> usize) -> String {
    let mut bytes = vec![0u8; call(std::ptr::null_mut(), 0) + 1];
    let length = call(bytes.as_mut_ptr().cast(), bytes.len());
    bytes.truncate(length.min(bytes.len() - 1));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn name(text: &str) -> CString {
    CString::new(text).expect("a name without zeros")
}

/// Of one kernel, or of all.
pub fn stats(kernel: Option<&str>) -> Stats {
    let mut out = Stats::default();
    let kernel = kernel.map(name);
    // SAFETY: the struct is control.h's.
    unsafe {
        symbol::<unsafe extern "C" fn(*const c_char, *mut Stats)>("cudasim_stats")(kernel.as_ref().map_or(std::ptr::null(), |k| k.as_ptr()), &mut out);
    }
    out
}

/// Names of the kernels launched since the last reset.
pub fn launched() -> Vec<String> {
    // SAFETY: writes at most the capacity.
    text(|p, n| unsafe { symbol::<unsafe extern "C" fn(*mut c_char, usize) -> usize>("cudasim_launched")(p, n) }).lines().map(str::to_owned).collect()
}

/// What the checks found since it was last taken; empty: nothing.
pub fn report() -> String {
    let call = symbol::<unsafe extern "C" fn(*mut c_char, usize, c_int) -> usize>("cudasim_report");
    // SAFETY: writes at most the capacity.
    text(|p, n| unsafe { call(p, n, c_int::from(n > 0)) })
}

/// All back to the beginning.
pub fn reset() {
    // SAFETY: no arguments.
    unsafe { symbol::<unsafe extern "C" fn()>("cudasim_reset")() }
}

/// The schedule of threads and blocks; 0: in order.
pub fn seed(seed: u64) {
    // SAFETY: a number.
    unsafe { symbol::<unsafe extern "C" fn(u64)>("cudasim_seed")(seed) }
}

/// Whether queued work waits until something waits for it.
pub fn defer(on: bool) {
    // SAFETY: a number.
    unsafe { symbol::<unsafe extern "C" fn(c_int)>("cudasim_defer")(on.into()) }
}

/// The nth call from now (0: the next) of a driver function ("*": any) returns `code`, once.
pub fn fault(function: &str, nth: i32, code: i32) {
    // SAFETY: the name is copied.
    unsafe { symbol::<unsafe extern "C" fn(*const c_char, c_int, c_int)>("cudasim_fault")(name(function).as_ptr(), nth, code) }
}

/// Faults that have not happened yet.
pub fn faults_left() -> i32 {
    // SAFETY: no arguments.
    unsafe { symbol::<unsafe extern "C" fn() -> c_int>("cudasim_faults_left")() }
}

/// Calls of a driver function since the last reset.
pub fn calls(function: &str) -> i32 {
    // SAFETY: the name is read only.
    unsafe { symbol::<unsafe extern "C" fn(*const c_char) -> c_int>("cudasim_calls")(name(function).as_ptr()) }
}

/// The driver functions called since the last reset, in order.
pub fn trace() -> Vec<String> {
    // SAFETY: writes at most the capacity.
    text(|p, n| unsafe { symbol::<unsafe extern "C" fn(*mut c_char, usize) -> usize>("cudasim_trace")(p, n) }).lines().map(str::to_owned).collect()
}

/// What every device says of an attribute from now on.
pub fn attribute(attribute: i32, value: i32) {
    // SAFETY: numbers.
    unsafe { symbol::<unsafe extern "C" fn(c_int, c_int)>("cudasim_attribute")(attribute, value) }
}

/// What is alive now.
pub fn live() -> Live {
    let mut out = Live::default();
    // SAFETY: the struct is control.h's.
    unsafe { symbol::<unsafe extern "C" fn(*mut Live)>("cudasim_live")(&mut out) }
    out
}

/// Whether the checked build runs (CUDASIM_CHECKED=1).
pub fn checked() -> bool {
    // SAFETY: no arguments.
    unsafe { symbol::<unsafe extern "C" fn() -> c_int>("cudasim_checked")() == 1 }
}

/// Of the kernel sources that are compiled in: `compile::source_hash`.
pub fn source_hash() -> u64 {
    // SAFETY: no arguments.
    unsafe { symbol::<unsafe extern "C" fn() -> u64>("cudasim_source_hash")() }
}
