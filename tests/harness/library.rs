//! The shipped `libpassrl.so`, opened as a host would.
use super::arrays::Block;
use super::slices::Outputs;
use super::{How, Placed};
use libloading::Library as So;
use passrl::abi::types::*;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

type Status = i32;

pub struct Library {
    so: So,
}

/// One library for all tests of a crate.
pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Beside the test, in target/<profile>/deps: cargo builds it there with the crate (and copies it up only in `cargo build`).
        let path = std::env::var_os("PASSRL_LIBRARY").map(PathBuf::from).unwrap_or_else(|| {
            let exe = std::env::current_exe().expect("a test has a path");
            exe.with_file_name("libpassrl.so")
        });
        // SAFETY: our own library; it has no constructors.
        Library { so: unsafe { So::new(&path) }.unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    })
}

/// A struct with an init function.
pub trait Initial: Sized {
    const NAME: &'static str;
}
macro_rules! initial {
    ($($T:ident),*) => {$(impl Initial for $T { const NAME: &'static str = concat!(stringify!($T), "_init"); })*};
}
initial!(passrl_config, passrl_limits, passrl_batch, passrl_outputs, passrl_report, passrl_context_options, passrl_collective);

impl Library {
    /// A function of the library. The caller names its type.
    pub fn get<F: Copy>(&self, name: &str) -> F {
        // SAFETY: the types written in these tests are those of the header.
        *unsafe { self.so.get::<F>(name.as_bytes()) }.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn initial<T: Initial>(&self) -> T {
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        let init: unsafe extern "C" fn(*mut T, u32) -> Status = self.get(T::NAME);
        // SAFETY: init writes the whole struct.
        unsafe {
            assert_eq!(init(value.as_mut_ptr(), size_of::<T>() as u32), 0);
            value.assume_init()
        }
    }

    pub fn config(&self, preset: &str) -> passrl_config {
        let mut config = self.initial();
        let init: unsafe extern "C" fn(*mut passrl_config, u32, *const c_char) -> Status = self.get("passrl_config_init_preset");
        let name = CString::new(preset).expect("no zero in a name");
        // SAFETY: a struct of that size and a zero-terminated name.
        let status = unsafe { init(&mut config, size_of::<passrl_config>() as u32, name.as_ptr()) };
        assert_eq!(status, 0, "{}", self.last_error());
        config
    }

    pub fn last_error(&self) -> String {
        let last: unsafe extern "C" fn() -> *const c_char = self.get("passrl_last_error");
        // SAFETY: zero-terminated, valid until this thread's next call.
        unsafe { CStr::from_ptr(last()) }.to_string_lossy().into_owned()
    }

    /// A plan with a context of its own, or the status and sentence of its refusal.
    pub fn plan(&'static self, config: &passrl_config, limits: &passrl_limits, how: &How) -> Result<Plan, (Status, String)> {
        self.plan_over(config, limits, how, null())
    }

    /// As `plan`, of one rank.
    pub fn plan_over(&'static self, config: &passrl_config, limits: &passrl_limits, how: &How, over: *const passrl_collective) -> Result<Plan, (Status, String)> {
        let mut options: passrl_context_options = self.initial();
        (options.threads, options.simd, options.small_call_bytes) = (how.threads, how.simd, how.small_call_bytes);
        let compiler = how.cuda.then(super::device::compiler);
        if let Some(compiler) = &compiler {
            compiler.choose(&mut options);
        }
        let make: unsafe extern "C" fn(*const passrl_context_options, *mut *mut c_void) -> Status = self.get("passrl_context_create");
        type Create = unsafe extern "C" fn(*const c_void, *const passrl_config, *const passrl_limits, *const passrl_collective, *mut *mut c_void) -> Status;
        let create: Create = self.get("passrl_plan_create");
        let (mut context, mut plan) = (null_mut(), null_mut());
        // SAFETY: structs of the header; handles are written on success.
        unsafe {
            let status = make(&options, &mut context);
            assert_eq!(status, 0, "{}", self.last_error());
            match create(context, config, limits, over, &mut plan) {
                0 => Ok(Plan { library: self, context, plan }),
                status => {
                    let sentence = self.last_error();
                    self.get::<unsafe extern "C" fn(*mut c_void)>("passrl_context_destroy")(context);
                    Err((status, sentence))
                }
            }
        }
    }
}

pub struct Plan {
    pub library: &'static Library,
    context: *mut c_void,
    pub plan: *mut c_void,
}

impl Plan {
    pub fn size(&self, function: &str) -> usize {
        let size: unsafe extern "C" fn(*const c_void, *mut usize) -> Status = self.library.get(function);
        let mut bytes = usize::MAX;
        // SAFETY: a live plan.
        assert_eq!(unsafe { size(self.plan, &mut bytes) }, 0, "{}", self.library.last_error());
        bytes
    }

    pub fn phases(&self) -> i32 {
        let phases: unsafe extern "C" fn(*const c_void, *mut i32) -> Status = self.library.get("passrl_plan_phases");
        let mut count = 0;
        // SAFETY: a live plan.
        assert_eq!(unsafe { phases(self.plan, &mut count) }, 0);
        count
    }

    /// Workspace full of dirt, aligned to 64.
    pub fn workspace(&self, how: &How) -> Workspace {
        let bytes = self.size("passrl_plan_workspace_size");
        let memory = Block::new(bytes, 64);
        // SAFETY: as many bytes.
        unsafe { memory.at.write_bytes(how.dirt, bytes) };
        Workspace { at: memory.at.cast(), bytes, _memory: memory }
    }

    pub fn run(&self, placed: &mut Placed, outputs: &mut Outputs, how: &How) -> (Status, String) {
        if how.cuda {
            return super::device::run(self, placed, outputs, how);
        }
        type Run = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> Status;
        let run: Run = self.library.get("passrl_plan_run");
        let workspace = self.workspace(how);
        // SAFETY: a live plan, and memory that outlives the call.
        let status = unsafe { run(self.plan, &placed.batch, &outputs.raw(), workspace.at, workspace.bytes, null_mut()) };
        (status, self.library.last_error())
    }
}

pub struct Workspace {
    pub at: *mut c_void,
    pub bytes: usize,
    _memory: Block,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: live handles, given back once.
        unsafe {
            self.library.get::<unsafe extern "C" fn(*mut c_void)>("passrl_plan_destroy")(self.plan);
            self.library.get::<unsafe extern "C" fn(*mut c_void)>("passrl_context_destroy")(self.context);
        }
    }
}
