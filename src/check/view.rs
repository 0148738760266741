//! One view: type, shape, alignment, device.
use crate::abi::constants::*;
use crate::abi::status::*;
use crate::abi::types::passrl_view;
use crate::error::Result;
use crate::model::array::{Array, DType};
use crate::model::context::Where;
use crate::refuse;

/// Types accepted for an argument.
pub const FLOATS: &[DType] = &[DType::F32, DType::Bf16, DType::F16, DType::F64];
pub const SIGNALS: &[DType] = &[DType::F32, DType::Bf16, DType::F16];
pub const INTS: &[DType] = &[DType::I32, DType::I64];
pub const MASKS: &[DType] = &[DType::Bool, DType::U8, DType::I32, DType::I64, DType::F32, DType::Bf16];
pub const WIDE: &[DType] = &[DType::F32, DType::F64];
pub const F64: &[DType] = &[DType::F64];
pub const I64: &[DType] = &[DType::I64];
pub const I32: &[DType] = &[DType::I32];

/// Shape wanted: one dimension, or two.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// `[n]`.
    Line(usize),
    /// `[rows, columns]`.
    Grid(usize, usize),
    /// `[n]` with n as large as it is.
    AnyLine,
}

fn dtype(number: i32) -> Option<DType> {
    Some(match number {
        PASSRL_F64 => DType::F64,
        PASSRL_F32 => DType::F32,
        PASSRL_F16 => DType::F16,
        PASSRL_BF16 => DType::Bf16,
        PASSRL_I64 => DType::I64,
        PASSRL_I32 => DType::I32,
        PASSRL_U8 => DType::U8,
        PASSRL_BOOL => DType::Bool,
        _ => return None,
    })
}

/// Names of types, "f32, bf16", in a fixed buffer's worth of text.
struct Names(&'static [DType]);
impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, d.name())?;
        }
        Ok(())
    }
}

/// Is the view where the context works?
fn placed(place: Where, view: &passrl_view, name: &str) -> Result<()> {
    match (view.device_type, place) {
        (PASSRL_CPU, Where::Host) => Ok(()),
        (PASSRL_CUDA, Where::Cuda(device)) if view.device_id == device => Ok(()),
        (PASSRL_CUDA, Where::Host) => {
            refuse!(PASSRL_ERR_DEVICE, "{name} is on CUDA device {}, the context is the CPU; use a CUDA context or host memory", view.device_id)
        }
        (PASSRL_CPU, Where::Cuda(device)) => {
            refuse!(PASSRL_ERR_DEVICE, "{name} is in host memory, the context is CUDA device {device}; copy it to the device or use a CPU context")
        }
        (PASSRL_CUDA, Where::Cuda(device)) => {
            refuse!(PASSRL_ERR_DEVICE, "{name} is on CUDA device {}, the context on device {device}; use memory of the context's device", view.device_id)
        }
        (other, _) => refuse!(PASSRL_ERR_DEVICE, "{name} has device_type {other}; it is PASSRL_CPU (1) or PASSRL_CUDA (2)"),
    }
}

/// Extents and strides below it reach less than 2^60 bytes, in two dimensions of 8 bytes. (A power of two: where the bits of several stand together below it, so
/// does each.)
const NEAR: usize = 1 << 28;

/// A view that is given.
#[inline(always)]
pub fn array(place: Where, view: &passrl_view, name: &str, types: &'static [DType], want: Want) -> Result<Array> {
    let Some(dtype) = dtype(view.dtype) else {
        return refuse!(PASSRL_ERR_DTYPE, "{name} has dtype {}; it is one of {}", view.dtype, Names(types));
    };
    if !types.contains(&dtype) {
        return refuse!(PASSRL_ERR_DTYPE, "{name} has dtype {}; it is one of {}", dtype.name(), Names(types));
    }
    placed(place, view, name)?;
    let dims = if matches!(want, Want::Grid(..)) { 2 } else { 1 };
    if view.ndim != dims {
        return refuse!(PASSRL_ERR_SHAPE, "{name} has {} dimension(s); it must have {dims}", view.ndim);
    }
    let (mut shape, mut stride) = ([1usize; 2], [1isize; 2]);
    for d in 0..dims as usize {
        let Ok(extent) = usize::try_from(view.shape[d]) else {
            return refuse!(PASSRL_ERR_SHAPE, "{name} has shape[{d}] = {}; it must be 0 or more", view.shape[d]);
        };
        shape[d] = extent;
        stride[d] = view.stride[d] as isize;
    }
    match want {
        Want::Line(n) if shape[0] != n => {
            return refuse!(PASSRL_ERR_SHAPE, "{name} has {} elements; it must have {n}", shape[0]);
        }
        Want::Grid(rows, columns) if shape != [rows, columns] => {
            return refuse!(PASSRL_ERR_SHAPE, "{name} has shape [{}, {}]; it must be [{rows}, {columns}]", shape[0], shape[1]);
        }
        _ => (),
    }
    if shape[0] == 0 || shape[1] == 0 {
        return Ok(Array { data: std::ptr::NonNull::<u64>::dangling().as_ptr().cast(), dtype, shape, stride });
    }
    if view.data.is_null() {
        return refuse!(PASSRL_ERR_NULL, "{name}.data is NULL with {} elements", shape[0] as u128 * shape[1] as u128);
    }
    if view.data.addr() % dtype.bytes() != 0 {
        return refuse!(PASSRL_ERR_LAYOUT, "{name}.data is at {:p}; {} needs an address that is a multiple of {}", view.data, dtype.name(), dtype.bytes());
    }
    // The bytes reached must be addressable: extents times strides may not wrap round.
    if shape[0] | shape[1] | stride[0].unsigned_abs() | stride[1].unsigned_abs() >= NEAR {
        let reach = (0..2).try_fold(0i128, |sum, d| {
            let elements = (shape[d] as i128 - 1).checked_mul(stride[d] as i128)?;
            sum.checked_add(elements.checked_mul(dtype.bytes() as i128)?.checked_abs()?)
        });
        if reach.is_none_or(|r| r >= isize::MAX as i128 / 2) {
            return refuse!(
                PASSRL_ERR_LAYOUT,
                "{name} with shape [{}, {}] and strides [{}, {}] reaches further than memory does", shape[0], shape[1], stride[0], stride[1]
            );
        }
    }
    Ok(Array { data: view.data.cast(), dtype, shape, stride })
}

/// A view that may be NULL.
///
/// # Safety
/// NULL or a `passrl_view`.
#[inline(always)]
pub unsafe fn optional(place: Where, view: *const passrl_view, name: &str, types: &'static [DType], want: Want) -> Result<Option<Array>> {
    // Most views of a call are not given: of these there is nothing to call.
    #[inline(never)]
    fn given(place: Where, view: &passrl_view, name: &str, types: &'static [DType], want: Want) -> Result<Option<Array>> {
        array(place, view, name, types, want).map(Some)
    }
    // SAFETY: by the contract.
    match unsafe { view.as_ref() } {
        Some(view) => given(place, view, name, types, want),
        None => Ok(None),
    }
}

/// The same, to where it is to stand, which says `None`: what most views of a call are is written once, not for each of them.
///
/// # Safety
/// As `optional`.
#[inline(always)]
pub unsafe fn optional_to(to: &mut Option<Array>, place: Where, view: *const passrl_view, name: &str, types: &'static [DType], want: Want) -> Result<()> {
    if !view.is_null() {
        // SAFETY: passed on.
        *to = unsafe { optional(place, view, name, types, want)? };
    }
    Ok(())
}

/// An output: its elements must not share memory with one another.
///
/// # Safety
/// NULL or a `passrl_view`.
pub unsafe fn output(place: Where, view: *const passrl_view, name: &str, types: &'static [DType], want: Want) -> Result<Option<Array>> {
    let mut to = None;
    // SAFETY: passed on.
    unsafe { output_to(&mut to, place, view, name, types, want)? };
    Ok(to)
}

/// The same, to where it is to stand, which says `None`.
///
/// # Safety
/// As `output`.
#[inline(always)]
pub unsafe fn output_to(to: &mut Option<Array>, place: Where, view: *const passrl_view, name: &str, types: &'static [DType], want: Want) -> Result<()> {
    if !view.is_null() {
        // SAFETY: passed on.
        *to = unsafe { optional(place, view, name, types, want)? };
        if let Some(array) = to {
            a_place_each(array, name)?;
        }
    }
    Ok(())
}

fn a_place_each(a: &Array, name: &str) -> Result<()> {
    if a.shape[0] > 0 && a.shape[1] > 0 {
        // Sorted by stride, each dimension must step over the whole of the one below.
        let mut dims: [(usize, usize); 2] = std::array::from_fn(|d| (a.stride[d].unsigned_abs(), a.shape[d]));
        dims.sort();
        let mut extent = 1usize;
        for (stride, shape) in dims {
            if shape > 1 {
                if stride < extent {
                    return refuse!(
                        PASSRL_ERR_LAYOUT,
                        "{name} with shape [{}, {}] and strides [{}, {}] overlaps itself; an output has a place for each element",
                        a.shape[0], a.shape[1], a.stride[0], a.stride[1]
                    );
                }
                extent = stride * shape;
            }
        }
    }
    Ok(())
}
