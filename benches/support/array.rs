//! Arrays in f32 or bf16, and the views that the library is given of arrays.
use half::bf16;
use passrl::abi::{constants::*, types::passrl_view};
use std::ffi::c_void;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    pub const ALL: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }

    /// Half a unit in the last place beside the library's own error.
    pub fn tolerance(self) -> f64 {
        match self {
            Dtype::F32 => 1e-6,
            Dtype::Bf16 => 1.0 / 256.0 + 1e-6,
        }
    }
}

pub enum Array {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Array {
    /// The values, which are bf16's, in the type asked for.
    pub fn of(values: &[f32], dtype: Dtype) -> Array {
        match dtype {
            Dtype::F32 => Array::F32(values.to_vec()),
            Dtype::Bf16 => Array::Bf16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
        }
    }

    /// What an output holds before the run: an unwritten slot is found.
    pub fn unwritten(slots: usize, dtype: Dtype) -> Array {
        match dtype {
            Dtype::F32 => Array::F32(vec![f32::NAN; slots]),
            Dtype::Bf16 => Array::Bf16(vec![bf16::NAN; slots]),
        }
    }

    pub fn at(&self, index: usize) -> f32 {
        match self {
            Array::F32(values) => values[index],
            Array::Bf16(values) => values[index].to_f32(),
        }
    }

    fn raw(&self) -> (*const c_void, i32) {
        match self {
            Array::F32(values) => (values.as_ptr().cast(), PASSRL_F32),
            Array::Bf16(values) => (values.as_ptr().cast(), PASSRL_BF16),
        }
    }
}

/// Compact views, at addresses that do not move.
#[derive(Default)]
pub struct Views(Vec<Box<passrl_view>>);

impl Views {
    /// `shape[1]` 0: one dimension.
    pub fn add(&mut self, data: *const c_void, shape: [usize; 2], dtype: i32) -> *const passrl_view {
        let dimensions = if shape[1] == 0 { 1 } else { 2 };
        self.0.push(Box::new(passrl_view {
            data: data.cast_mut(),
            shape: shape.map(|n| n as i64),
            stride: if dimensions == 2 { [shape[1] as i64, 1] } else { [1, 1] },
            ndim: dimensions,
            dtype,
            device_type: PASSRL_CPU,
            device_id: 0,
        }));
        &**self.0.last().expect("just pushed")
    }

    pub fn of(&mut self, array: &Array, shape: [usize; 2]) -> *const passrl_view {
        let (data, dtype) = array.raw();
        self.add(data, shape, dtype)
    }
}
