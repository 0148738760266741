//! Contexts: which backend, which device, how many threads.
use super::guard;
use super::status::*;
use super::structs;
use super::types::*;
use super::util;
use crate::backend::Context;
use crate::error::Result;
use crate::{check, refuse};
use std::ffi::c_char;
use std::sync::Arc;

/// The context behind a handle.
///
/// # Safety
/// NULL or a live handle.
pub unsafe fn borrow<'a>(context: *const passrl_context) -> Result<&'a Arc<Context>> {
    // SAFETY: a live handle by the contract.
    match unsafe { context.as_ref() } {
        Some(context) => Ok(&context.inner),
        None => refuse!(PASSRL_ERR_NULL, "context is NULL; make one with passrl_context_create"),
    }
}

/// Makes a context. `options` NULL: the CPU with default threads. On success `*context` is a new handle, to be given to `passrl_context_destroy`.
///
/// CUDA (`options.backend = PASSRL_CUDA`): the device's primary context, or with `device = -1` the calling thread's current one, borrowed; the caller's
/// current context is as it was after every call. The kernels are loaded here: the image built into the library where the driver takes it, else the
/// embedded source compiled by NVRTC (about a minute of one core, once: the result is kept in `cache_dir`). `PASSRL_ERR_NO_DEVICE`: no driver, no device, one below compute
/// capability 8.0, or a driver that is too old; `PASSRL_ERR_FORK`: this process was forked from one that had used CUDA; `PASSRL_ERR_DRIVER`: a call of the driver
/// failed or the kernels did not compile. Every sentence says what is missing. Not while a stream of the thread is being captured.
///
/// Starts no thread. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_context_create(
    options: *const passrl_context_options,
    context: *mut *mut passrl_context,
) -> passrl_status {
    guard("passrl_context_create", || {
        if context.is_null() {
            return refuse!(PASSRL_ERR_NULL, "context is NULL; it must point to a passrl_context *");
        }
        let options = if options.is_null() {
            <passrl_context_options as structs::Growing>::defaults()
        } else {
            // SAFETY: the caller's struct by the contract.
            unsafe { structs::read(options, "options")? }
        };
        // SAFETY: NULL or zero-terminated by the contract.
        let (cache, nvrtc) = unsafe {
            let given = |pointer: *const c_char, name| if pointer.is_null() { Ok(None) } else { util::text(pointer, name).map(Some) };
            (given(options.cache_dir, "options.cache_dir")?, given(options.nvrtc, "options.nvrtc")?)
        };
        let inner = Arc::new(Context::create(check::context(&options, cache, nvrtc)?)?);
        // SAFETY: not NULL, writable by the contract.
        unsafe { context.write(Box::into_raw(Box::new(passrl_context { inner }))) };
        Ok(PASSRL_OK)
    })
}

/// Destroys a context: its threads are joined (its kernels unloaded) once its last plan is destroyed too; a borrowed CUDA context must still be alive then. NULL is a no-op. Nothing may be running on it from other threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_context_destroy(context: *mut passrl_context) {
    guard("passrl_context_destroy", || {
        if !context.is_null() {
            // SAFETY: a handle of passrl_context_create, given back once, by the contract.
            drop(unsafe { Box::from_raw(context) });
        }
        Ok(PASSRL_OK)
    });
}

/// Describes a context in text: backend, threads, instruction set; of a CUDA device its name, compute capability, driver version, where its kernels come from
/// (built in, compiled, cached) and the hash of their source. `buffer` has `capacity` bytes; `needed` (may be NULL) gets the bytes with the terminating zero;
/// `buffer` NULL with capacity 0 asks for the size. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_context_describe(
    context: *const passrl_context,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> passrl_status {
    guard("passrl_context_describe", || {
        // SAFETY: a live handle and the caller's buffer by the contract.
        unsafe { util::put_text(&borrow(context)?.describe(), buffer, capacity, needed) }
    })
}
