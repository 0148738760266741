//! NCCL's all-reduce: libnccl.so.2, loaded when it is first asked for. One call of it a message, on the stream that it is given: nothing waits, nothing is
//! allocated, so a stream that is being captured takes it.
use super::nccl_sys::{self as sys, Nccl};
use crate::error::{COLLECTIVE, RESOURCE, Result};
use crate::plan::partials::{I32, I64, MAX, SUM};
use crate::refuse;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

const NAME: &str = "libnccl.so.2";

/// The process's NCCL. By its SONAME: where a framework has loaded one, the loader gives the same.
fn library() -> Result<&'static Nccl> {
    static LIBRARY: OnceLock<Nccl> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    // SAFETY: NCCL's constructors do what any host of it relies on; the symbols are typed by its header.
    match unsafe { Nccl::new(NAME) } {
        Ok(library) => Ok(LIBRARY.get_or_init(|| library)),
        Err(why) => refuse!(
            RESOURCE,
            "{NAME} could not be loaded ({why}); it comes with the wheel nvidia-nccl-cu12 or Debian's libnccl2: load it before (a framework does), or have its folder in LD_LIBRARY_PATH"
        ),
    }
}

/// A sentence for a status other than 0.
fn checked(library: &Nccl, what: &str, status: sys::ncclResult_t) -> Result<()> {
    if status == sys::ncclResult_t_ncclSuccess {
        return Ok(());
    }
    // SAFETY: takes any number; the text is static.
    let text = unsafe { library.ncclGetErrorString(status) };
    // SAFETY: zero-terminated.
    let text = if text.is_null() { "".into() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy() };
    refuse!(COLLECTIVE, "{what} returned {status} ({text})")
}

/// NCCL's version, as 22305 for 2.23.5.
pub fn version() -> Result<i32> {
    let library = library()?;
    let mut version = 0;
    // SAFETY: room for one number.
    checked(library, "ncclGetVersion", unsafe { library.ncclGetVersion(&mut version) })?;
    Ok(version)
}

/// Rank and size of a communicator.
///
/// # Safety
/// A live `ncclComm_t`.
pub unsafe fn rank_and_size(comm: *mut c_void) -> Result<(i32, i32)> {
    let library = library()?;
    let (mut rank, mut size) = (0, 0);
    // SAFETY: live by the caller's word.
    unsafe {
        checked(library, "ncclCommUserRank", library.ncclCommUserRank(comm.cast(), &mut rank))?;
        checked(library, "ncclCommCount", library.ncclCommCount(comm.cast(), &mut size))?;
    }
    Ok((rank, size))
}

/// Reduces device memory in place, in order with the stream. NCCL's status; -1 where nothing is loaded or what is asked is no message of a plan.
///
/// # Safety
/// A live communicator, `count` elements of its device's memory, a stream of that device.
pub unsafe fn all_reduce(comm: *mut c_void, buffer: *mut c_void, count: usize, dtype: i32, op: i32, stream: *mut c_void) -> i32 {
    let dtype = match dtype {
        I64 => sys::ncclDataType_t_ncclInt64,
        I32 => sys::ncclDataType_t_ncclInt32,
        _ => return -1,
    };
    let op = match op {
        SUM => sys::ncclRedOp_t_ncclSum,
        MAX => sys::ncclRedOp_t_ncclMax,
        _ => return -1,
    };
    let Ok(library) = library() else { return -1 };
    // SAFETY: by the caller's word.
    unsafe { library.ncclAllReduce(buffer, buffer, count, dtype, op, comm.cast(), stream.cast()) as i32 }
}
