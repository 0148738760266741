//! NCCL as a collective. The library is loaded at run time; nothing is linked.
use super::types::*;
use super::{guard, structs};
use super::status::*;
use crate::backend::cuda::nccl;
use crate::refuse;
use std::ffi::c_void;

/// The collective's function: `user` is the communicator.
pub unsafe extern "C" fn nccl_all_reduce(user: *mut c_void, buffer: *mut c_void, count: usize, dtype: i32, op: i32, stream: *mut c_void) -> i32 {
    // A panic must not cross into C.
    // SAFETY: what a plan hands over, on a communicator that lives as long as the plan, by the contract.
    std::panic::catch_unwind(|| unsafe { nccl::all_reduce(user, buffer, count, dtype, op, stream) }).unwrap_or(-1)
}

/// Does the collective reduce by NCCL?
pub fn is_nccl(collective: &passrl_collective) -> bool {
    collective.all_reduce.is_some_and(|f| f as usize == nccl_all_reduce as *const () as usize)
}

/// Fills a collective (`struct_size`: `sizeof *collective`) from `comm`, a live `ncclComm_t` of one rank, which must outlive the plans made with it: its rank
/// and size, and a function that calls `ncclAllReduce` once a message, in place, on the stream that the plan runs on. It neither waits nor allocates, so the
/// stream may be one that is being captured. The communicator is blocking (NCCL's default). `libnccl.so.2` is loaded by the first call, by that name: where a
/// framework has loaded it, it is the same; else it is looked for as any library is (LD_LIBRARY_PATH).
///
/// NCCL reduces device memory: it is for plans of a CUDA context, of the device of `comm`. One of a CPU context, whose statistics lie in host memory, is refused with
/// `PASSRL_ERR_CONFLICT`.
///
/// `PASSRL_ERR_RESOURCE`: the library or a function of it is not found. `PASSRL_ERR_COLLECTIVE`: NCCL refuses the communicator. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_nccl_collective(collective: *mut passrl_collective, struct_size: u32, comm: *mut c_void) -> passrl_status {
    guard("passrl_nccl_collective", || {
        if comm.is_null() {
            return refuse!(PASSRL_ERR_NULL, "comm is NULL; it must be a live ncclComm_t");
        }
        // SAFETY: a live communicator by the contract.
        let (rank, size) = unsafe { nccl::rank_and_size(comm)? };
        let filled = passrl_collective {
            struct_size: size_of::<passrl_collective>() as u32,
            reserved0: 0,
            user: comm,
            all_reduce: Some(nccl_all_reduce),
            rank,
            size,
            device_type: super::constants::PASSRL_CUDA,
            reserved1: 0,
        };
        // SAFETY: the caller's pointer and size are passed on.
        unsafe { structs::write(collective, struct_size, filled, "collective") }
    })
}

/// Version of the NCCL that is loaded (22305: 2.23.5), loading it if need be; errors as `passrl_nccl_collective`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_nccl_version(version: *mut i32) -> passrl_status {
    guard("passrl_nccl_version", || {
        if version.is_null() {
            return refuse!(PASSRL_ERR_NULL, "version is NULL; it must point to an int32_t");
        }
        let found = nccl::version()?;
        // SAFETY: not NULL, writable by the contract.
        unsafe { version.write_unaligned(found) };
        Ok(PASSRL_OK)
    })
}
