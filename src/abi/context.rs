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
/// A CUDA context is refused with a sentence (`PASSRL_ERR_NO_DEVICE`) where there is no driver or device, and in this version
/// altogether (`PASSRL_ERR_NOT_YET`). Starts no thread. Any thread.
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
        let inner = Arc::new(Context::create(check::context(&options)?)?);
        // SAFETY: not NULL, writable by the contract.
        unsafe { context.write(Box::into_raw(Box::new(passrl_context { inner }))) };
        Ok(PASSRL_OK)
    })
}

/// Destroys a context: its threads are joined once its last plan is destroyed too. NULL is a no-op. Nothing may be running on it from other threads.
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

/// Describes a context in text: backend, threads, instruction set. `buffer` has `capacity` bytes; `needed` (may be NULL) gets the bytes with the terminating zero;
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
