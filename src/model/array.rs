//! Typed windows on the caller's memory. `check` has seen that shape, stride, type and alignment fit; reading past them is impossible here.
use crate::numerics::convert::InElem;
use half::{bf16, f16};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    U8,
    Bool,
}

impl DType {
    #[inline]
    pub fn bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::U8 | DType::Bool => 1,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }
}

/// A view of one or two dimensions. One-dimensional views have shape `[n, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct Array {
    pub data: *mut u8,
    pub dtype: DType,
    pub shape: [usize; 2],
    /// In elements.
    pub stride: [isize; 2],
}

// SAFETY: an Array is an address with its extent; the run that holds it reads inputs and writes each output slot from one thread.
unsafe impl Send for Array {}
// SAFETY: as above.
unsafe impl Sync for Array {}

/// `len` elements of an array in a line: a rollout's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    data: *mut u8,
    dtype: DType,
    stride: isize,
    len: usize,
}

macro_rules! by_float {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::Bf16 => {
                type $T = bf16;
                $body
            }
            DType::F16 => {
                type $T = f16;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            _ => $other,
        }
    };
}

impl Array {
    /// Line of `len` elements that starts at `[row, column]` and runs along the last dimension (`flat`: along the first).
    #[inline(always)]
    pub fn line(&self, row: usize, column: usize, len: usize, flat: bool) -> Row {
        let (begin, stride) = if flat {
            debug_assert!(column + len <= self.shape[0]);
            (column as isize * self.stride[0], self.stride[0])
        } else {
            debug_assert!(row < self.shape[0] && column + len <= self.shape[1]);
            (row as isize * self.stride[0] + column as isize * self.stride[1], self.stride[1])
        };
        Row { data: self.data.wrapping_offset(begin * self.dtype.bytes() as isize), dtype: self.dtype, stride, len }
    }

    /// All of a one-dimensional array.
    pub fn whole(&self) -> Row {
        self.line(0, 0, self.shape[0], true)
    }

    /// Element i of a one-dimensional array whose type is T.
    #[inline(always)]
    fn element<T: Copy>(&self, i: usize) -> T {
        assert!(i < self.shape[0]);
        debug_assert!(size_of::<T>() == self.dtype.bytes());
        // SAFETY: i is within the array, whose memory and alignment `check` has seen; T is its type.
        unsafe { self.data.cast::<T>().offset(i as isize * self.stride[0]).read() }
    }

    /// Elements 0, i and i + 1 of offsets.
    #[inline(always)]
    pub fn offsets(&self, i: usize) -> [i64; 3] {
        assert!(i < self.shape[0].saturating_sub(1));
        let at = [0, i, i + 1].map(|i| i as isize * self.stride[0]);
        // SAFETY: all three are within the array, whose memory, type and alignment `check` has seen.
        unsafe {
            match self.dtype {
                DType::I64 => at.map(|at| self.data.cast::<i64>().offset(at).read()),
                _ => at.map(|at| self.data.cast::<i32>().offset(at).read() as i64),
            }
        }
    }

    /// First and last byte touched, as addresses (`None` where nothing is).
    pub fn span(&self) -> Option<(usize, usize)> {
        if self.shape[0] == 0 || self.shape[1] == 0 {
            return None;
        }
        let (mut low, mut high) = (0isize, 0isize);
        for d in 0..2 {
            let reach = (self.shape[d] as isize - 1) * self.stride[d];
            low += reach.min(0);
            high += reach.max(0);
        }
        let bytes = self.dtype.bytes() as isize;
        let base = self.data as isize;
        Some(((base + low * bytes) as usize, (base + high * bytes + bytes - 1) as usize))
    }
}

/// What one element says, of the type that its `element` reads.
macro_rules! elements {
    ($($Of:ty)*) => {$(
        impl $Of {
            /// Element i of integers.
            #[inline]
            pub fn int(&self, i: usize) -> i64 {
                match self.dtype {
                    DType::I64 => self.element::<i64>(i),
                    DType::I32 => self.element::<i32>(i) as i64,
                    DType::U8 | DType::Bool => self.element::<u8>(i) as i64,
                    _ => 0,
                }
            }

            /// Element i of floats, rounded to f32.
            #[inline]
            pub fn f32(&self, i: usize) -> f32 {
                by_float!(self.dtype, T => self.element::<T>(i).to_f32(), else 0.0)
            }

            /// Likewise unrounded.
            #[inline]
            pub fn f64(&self, i: usize) -> f64 {
                match self.dtype {
                    DType::F64 => self.element::<f64>(i),
                    _ => self.f32(i) as f64,
                }
            }

            /// Is element i of a mask nonzero (NaN is)?
            #[inline]
            pub fn flag(&self, i: usize) -> bool {
                match self.dtype {
                    DType::F32 | DType::Bf16 | DType::F16 | DType::F64 => self.f64(i) != 0.0,
                    _ => self.int(i) != 0,
                }
            }
        }
    )*};
}
// Of an array those of one dimension.
elements! { Array Row }

impl Row {
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Where its first element lies.
    pub fn address(&self) -> *mut u8 {
        self.data
    }

    #[inline(always)]
    fn element<T: Copy>(&self, i: usize) -> T {
        assert!(i < self.len && size_of::<T>() == self.dtype.bytes());
        // SAFETY: i is within the line, whose memory and alignment `check` has seen; T has the line's element size.
        unsafe { self.data.cast::<T>().offset(i as isize * self.stride).read() }
    }

    /// The line as a slice, where it lies without gaps and is of type T's size.
    pub fn slice<T: Copy>(&self) -> Option<&[T]> {
        if self.len == 0 {
            return Some(&[]);
        }
        if (self.stride != 1 && self.len > 1) || size_of::<T>() != self.dtype.bytes() {
            return None;
        }
        // SAFETY: `len` adjacent elements that `check` has seen, naturally aligned.
        Some(unsafe { std::slice::from_raw_parts(self.data.cast::<T>(), self.len) })
    }

    /// The line as a mutable slice, likewise.
    ///
    /// # Safety
    /// No other reference to these elements is in use.
    pub unsafe fn slice_mut<'a, T: Copy>(&self) -> Option<&'a mut [T]> {
        if self.len == 0 {
            return Some(&mut []);
        }
        if (self.stride != 1 && self.len > 1) || size_of::<T>() != self.dtype.bytes() {
            return None;
        }
        // SAFETY: `len` adjacent elements that `check` has seen; exclusive by the caller's word.
        Some(unsafe { std::slice::from_raw_parts_mut(self.data.cast::<T>(), self.len) })
    }

    /// # Safety
    /// No other thread uses this element, and T is the line's type.
    pub unsafe fn put<T: Copy>(&self, i: usize, value: T) {
        assert!(i < self.len && size_of::<T>() == self.dtype.bytes());
        // SAFETY: within the line; exclusive by the caller's word.
        unsafe { self.data.cast::<T>().offset(i as isize * self.stride).write(value) }
    }

    /// Reads the line, rounded to f32.
    pub fn read_f32(&self, to: &mut [f32]) {
        by_float!(self.dtype, T => self.read(to, |x: T| x.to_f32()), else to.fill(0.0))
    }

    /// Reads the line in f64, unrounded.
    pub fn read_f64(&self, to: &mut [f64]) {
        match self.dtype {
            DType::F64 => self.read(to, |x: f64| x),
            _ => by_float!(self.dtype, T => self.read(to, |x: T| x.to_f32() as f64), else to.fill(0.0)),
        }
    }

    fn read<T: Copy, U>(&self, to: &mut [U], convert: impl Fn(T) -> U) {
        assert!(to.len() == self.len);
        match self.slice::<T>() {
            Some(from) => to.iter_mut().zip(from).for_each(|(to, from)| *to = convert(*from)),
            None => to.iter_mut().enumerate().for_each(|(i, to)| *to = convert(self.element::<T>(i))),
        }
    }
}
