//! The one struct of DLPack that a view is made from (dlpack.h: `DLTensor`, unchanged from 0.x to 1.x).
use super::constants::*;
use super::status::*;
use super::types::passrl_view;
use crate::error::Result;
use crate::refuse;
use std::ffi::c_void;

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// # Safety
/// `tensor` points to a valid `DLTensor`.
pub unsafe fn view(tensor: *const c_void) -> Result<passrl_view> {
    // SAFETY: by the contract; natural alignment is not presumed.
    let t = unsafe { tensor.cast::<DlTensor>().read_unaligned() };
    if !(1..=2).contains(&t.ndim) {
        return refuse!(PASSRL_ERR_SHAPE, "dltensor has {} dimensions; a view has 1 or 2", t.ndim);
    }
    if t.lanes != 1 {
        return refuse!(PASSRL_ERR_DTYPE, "dltensor has {} lanes; a view's elements have 1", t.lanes);
    }
    // DLDataTypeCode: 0 int, 1 uint, 2 float, 4 bfloat, 6 bool.
    let dtype = match (t.code, t.bits) {
        (0, 64) => PASSRL_I64,
        (0, 32) => PASSRL_I32,
        (1, 8) => PASSRL_U8,
        (2, 64) => PASSRL_F64,
        (2, 32) => PASSRL_F32,
        (2, 16) => PASSRL_F16,
        (4, 16) => PASSRL_BF16,
        (6, 8) => PASSRL_BOOL,
        (code, bits) => {
            return refuse!(
                PASSRL_ERR_DTYPE,
                "dltensor has type code {code} with {bits} bits; a view's types are f64, f32, f16, bf16, i64, i32, u8 and bool"
            );
        }
    };
    // DLDeviceType: 1 CPU, 2 CUDA, 3 CUDA host (pinned), 13 CUDA managed.
    let (device_type, device_id) = match t.device_type {
        1 | 3 => (PASSRL_CPU, 0),
        2 | 13 => (PASSRL_CUDA, t.device_id),
        other => return refuse!(PASSRL_ERR_DEVICE, "dltensor is on DLPack device type {other}; a view is on 1 (CPU) or 2 (CUDA)"),
    };
    let ndim = t.ndim as usize;
    if t.shape.is_null() {
        return refuse!(PASSRL_ERR_NULL, "dltensor.shape is NULL with {ndim} dimensions");
    }
    let (mut shape, mut stride) = ([1i64; 2], [1i64; 2]);
    for d in 0..ndim {
        // SAFETY: shape has ndim elements by DLPack's contract.
        shape[d] = unsafe { t.shape.add(d).read_unaligned() };
    }
    if t.strides.is_null() {
        // NULL strides: compact row-major.
        if ndim == 2 {
            stride[0] = shape[1];
        }
    } else {
        for d in 0..ndim {
            // SAFETY: strides has ndim elements where it is not NULL.
            stride[d] = unsafe { t.strides.add(d).read_unaligned() };
        }
    }
    let Ok(byte_offset) = usize::try_from(t.byte_offset) else {
        return refuse!(PASSRL_ERR_VALUE, "dltensor.byte_offset is {}; it does not fit this machine", t.byte_offset);
    };
    Ok(passrl_view { data: t.data.wrapping_byte_add(byte_offset), shape, stride, ndim: t.ndim, dtype, device_type, device_id })
}
