//! Small readers of the caller's memory and the functions that need no handle: version, last error, views, groups, reports.
use super::constants::*;
use super::guard;
use super::status::*;
use super::structs::{self};
use super::types::*;
use crate::error::{self, Result};
use crate::refuse;
use std::ffi::{CStr, c_char, c_void};

/// A zero-terminated UTF-8 string of the caller.
///
/// # Safety
/// NULL or zero-terminated, unchanged during `'a`.
pub unsafe fn text<'a>(pointer: *const c_char, argument: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return refuse!(PASSRL_ERR_NULL, "{argument} is NULL; it must be a zero-terminated string");
    }
    // SAFETY: zero-terminated by the contract.
    match unsafe { CStr::from_ptr(pointer) }.to_str() {
        Ok(text) => Ok(text),
        Err(_) => refuse!(PASSRL_ERR_VALUE, "{argument} is not UTF-8 text"),
    }
}

/// Copies text with its terminating zero into the caller's buffer; always tells the bytes needed.
///
/// # Safety
/// `buffer` is NULL with capacity 0 or has `capacity` writable bytes; `needed` is NULL or writable.
pub unsafe fn put_text(text: &str, buffer: *mut c_char, capacity: usize, needed: *mut usize) -> Result<i32> {
    let bytes = text.len() + 1;
    if !needed.is_null() {
        // SAFETY: writable by the contract; natural alignment is not presumed.
        unsafe { needed.write_unaligned(bytes) };
    }
    if buffer.is_null() && capacity == 0 {
        return Ok(PASSRL_OK);
    }
    if buffer.is_null() {
        return refuse!(PASSRL_ERR_NULL, "buffer is NULL with capacity {capacity}; pass capacity 0 to ask for the size");
    }
    if capacity < bytes {
        return refuse!(PASSRL_ERR_WORKSPACE, "buffer has {capacity} bytes, the text needs {bytes}");
    }
    // SAFETY: capacity >= bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len());
        *buffer.add(text.len()) = 0;
    }
    Ok(PASSRL_OK)
}

/// The library's version, "0.1.0"; `PASSRL_VERSION` is that of the header. Static memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Version of the ABI: additive changes keep it. Compare with `PASSRL_ABI_VERSION`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_abi_version() -> u32 {
    PASSRL_ABI_VERSION
}

/// Raised whenever any output bit for a valid input may differ. Compare with `PASSRL_NUMERICS_VERSION`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_numerics_version() -> u32 {
    PASSRL_NUMERICS_VERSION
}

/// The sentence of this thread's last call that did not return 0: "function: argument, both numbers, the mend". Empty after a call that returned 0.
/// Valid until this thread's next call into the library. Thread-local, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_last_error() -> *const c_char {
    error::last()
}

/// Name of a status, "PASSRL_ERR_SHAPE"; "unknown status" for other numbers. Static memory. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_status_name(status: passrl_status) -> *const c_char {
    crate::check::names::status(status).as_ptr()
}

/// Fills a view from a DLPack tensor: `dltensor` points to a `DLTensor` (DLPack 0.x and 1.x: the struct itself, not the managed wrapper). One or
/// two dimensions; NULL strides mean compact row-major; `byte_offset` is added. The view borrows the tensor's memory. Any thread.
/// Refused: other dimensions, lanes above 1, types and devices that no view knows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_view_from_dlpack(dltensor: *const c_void, view: *mut passrl_view) -> passrl_status {
    guard("passrl_view_from_dlpack", || {
        if dltensor.is_null() || view.is_null() {
            return refuse!(PASSRL_ERR_NULL, "{} is NULL", if dltensor.is_null() { "dltensor" } else { "view" });
        }
        // SAFETY: a DLTensor by the contract.
        let made = unsafe { super::dlpack::view(dltensor)? };
        // SAFETY: not NULL, a passrl_view by the contract.
        unsafe { view.write_unaligned(made) };
        Ok(PASSRL_OK)
    })
}

/// Dense group index from keys: equal keys get equal numbers, in order of first appearance. `keys` `[R]` i64 (hash strings first; any 64-bit value), `index`
/// `[R]` i32 or i64 out, `num_groups` out (may be NULL). CPU memory. Allocates; not for the hot path. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_group_index(keys: *const passrl_view, index: *const passrl_view, num_groups: *mut i64) -> passrl_status {
    guard("passrl_group_index", || {
        // SAFETY: NULL or passrl_views by the contract.
        let (keys, index) = unsafe { (keys.as_ref(), index.as_ref()) };
        let groups = crate::check::groups::dense_index(keys, index)?;
        if !num_groups.is_null() {
            // SAFETY: writable by the contract.
            unsafe { num_groups.write_unaligned(groups) };
        }
        Ok(PASSRL_OK)
    })
}

/// sizeof(passrl_report) of this library: what a caller that keeps reports in device memory allocates. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn passrl_report_size() -> usize {
    size_of::<passrl_report>()
}

/// Status and sentence of a report (a host copy, where the run was on a device): 0, or the positive status of its first kind of finding; `PASSRL_ERR_COLLECTIVE` (of groups on several ranks `PASSRL_ERR_CONFLICT`)
/// where it says that ranks did not agree. Streams are called as the stream table's rows are (`extra_0`): a report has no names.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_report_status(report: *const passrl_report) -> passrl_status {
    guard("passrl_report_status", || {
        // SAFETY: a report by the contract.
        let report = unsafe { structs::read(report, "report")? };
        Ok(crate::check::report::status(&report))
    })
}

/// Adds `other` to `into`: counts and sums add, the earlier first finding stays. Any thread, one at a time on `into`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_report_merge(into: *mut passrl_report, other: *const passrl_report) -> passrl_status {
    guard("passrl_report_merge", || {
        // SAFETY: reports by the contract.
        let (mut sum, other) = unsafe { (structs::read(into, "into")?, structs::read(other, "other")?) };
        crate::check::report::merge(&mut sum, &other);
        let size = sum.struct_size;
        // SAFETY: `read` has seen a struct of `struct_size` bytes there.
        unsafe { structs::write(into, size, sum, "into") }
    })
}
