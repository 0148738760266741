//! What the tests of CUDA calls share: contexts, plans, graphs, and the lock on the simulated driver.
#![allow(dead_code)]
use crate::cases::{self, Case};
use crate::harness::{self, How, Plan, device, library};
use passrl::abi::types::*;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

pub type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;

/// The simulated driver for this test alone, in its first state; `None` (said aloud) where it was not built.
pub fn simulated() -> Option<std::sync::MutexGuard<'static, ()>> {
    let found = cudasim::folder().map_err(|why| why.to_string()).and_then(|_| device::driver().map_err(str::to_string));
    match found {
        Ok(driver) => {
            let lock = cudasim::lock();
            cudasim::reset();
            driver.use_device();
            Some(lock)
        }
        Err(why) => {
            println!("SKIPPED: calls of the CUDA backend: {why}");
            None
        }
    }
}

pub fn ok(status: i32) {
    assert!(status >= 0, "{status}: {}", library().last_error());
}

pub fn named(name: &str) -> Case {
    cases::all().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

pub fn plan_of(case: &Case, how: &How) -> Plan {
    let config = harness::config(library(), &case.cfg);
    library().plan(&config, &harness::limits(&case.batch, how), how).unwrap_or_else(|(status, said)| panic!("{}: plan refused: {status} {said}", case.name))
}

/// A CUDA context with the tests' stand-in for the compiler; `edit` changes its options.
pub fn context(edit: impl FnOnce(&mut passrl_context_options)) -> Result<*mut c_void, (i32, String)> {
    let compiler = device::compiler();
    let mut options: passrl_context_options = library().initial();
    compiler.choose(&mut options);
    edit(&mut options);
    let make: unsafe extern "C" fn(*const passrl_context_options, *mut *mut c_void) -> i32 = library().get("passrl_context_create");
    let mut context = null_mut();
    // SAFETY: a struct of the header; a handle is written on success.
    match unsafe { make(&options, &mut context) } {
        0 => Ok(context),
        status => Err((status, library().last_error())),
    }
}

pub fn destroy_context(context: *mut c_void) {
    let destroy: unsafe extern "C" fn(*mut c_void) = library().get("passrl_context_destroy");
    // SAFETY: a live handle, given back once.
    unsafe { destroy(context) }
}

pub fn describe(context: *const c_void) -> String {
    let describe: unsafe extern "C" fn(*const c_void, *mut c_char, usize, *mut usize) -> i32 = library().get("passrl_context_describe");
    let mut bytes = vec![0u8; 4096];
    // SAFETY: a live context and a buffer of that size.
    ok(unsafe { describe(context, bytes.as_mut_ptr().cast(), bytes.len(), null_mut()) });
    String::from_utf8_lossy(&bytes[..bytes.iter().position(|b| *b == 0).expect("zero-terminated")]).into_owned()
}

/// A reference that a test hands to another thread; it says itself that this is right.
pub struct Shared<'a, T>(pub &'a T);
// SAFETY: by the test's word: what it refers to is used by one thread at a time, or read only.
unsafe impl<T> Send for Shared<'_, T> {}
impl<'a, T> Shared<'a, T> {
    pub fn get(&self) -> &'a T {
        self.0
    }
}

/// Work captured from a stream.
pub struct Graph {
    graph: *mut c_void,
    exec: *mut c_void,
    stream: *mut c_void,
}

impl Graph {
    pub fn capture(work: impl FnOnce(*mut c_void)) -> Graph {
        let driver = device::driver().expect("a driver");
        let begin: unsafe extern "C" fn(*mut c_void, c_int) -> c_int = driver.get("cuStreamBeginCapture_v2");
        let end: unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int = driver.get("cuStreamEndCapture");
        let instantiate: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, u64) -> c_int = driver.get("cuGraphInstantiateWithFlags");
        let stream = driver.stream();
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: a stream of the test's; every call of the work is captured. 0: global, under which unsafe calls of any thread are refused.
        unsafe {
            assert_eq!(begin(stream, 0), 0);
            work(stream);
            assert_eq!(end(stream, &mut graph), 0, "the capture was broken");
            assert_eq!(instantiate(&mut exec, graph, 0), 0);
        }
        Graph { graph, exec, stream }
    }

    pub fn replay(&self) {
        self.launch();
        self.wait();
    }

    pub fn launch(&self) {
        let launch: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int = device::driver().expect("a driver").get("cuGraphLaunch");
        // SAFETY: a live graph and stream.
        assert_eq!(unsafe { launch(self.exec, self.stream) }, 0);
    }

    pub fn wait(&self) {
        device::driver().expect("a driver").wait(self.stream);
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let driver = device::driver().expect("a driver");
        let (exec, graph): (unsafe extern "C" fn(*mut c_void) -> c_int, unsafe extern "C" fn(*mut c_void) -> c_int) =
            (driver.get("cuGraphExecDestroy"), driver.get("cuGraphDestroy"));
        // SAFETY: live handles, given back once.
        unsafe {
            assert_eq!((exec(self.exec), graph(self.graph)), (0, 0));
        }
        driver.destroy_stream(self.stream);
    }
}
