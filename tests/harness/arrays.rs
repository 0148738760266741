//! Memory of a placed batch: views of vectors that live as long as the arena.
use super::{How, Ints};
use crate::oracle::{Batch, Row16};
use half::bf16;
use passrl::abi::constants::*;
use passrl::abi::types::passrl_view;
use std::alloc;
use std::ffi::c_void;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floats {
    F64,
    F32,
    Bf16,
    F16,
}

impl Floats {
    pub fn dtype(self) -> i32 {
        match self {
            Floats::F64 => PASSRL_F64,
            Floats::F32 => PASSRL_F32,
            Floats::Bf16 => PASSRL_BF16,
            Floats::F16 => PASSRL_F16,
        }
    }
    pub fn bytes(self) -> usize {
        match self {
            Floats::F64 => 8,
            Floats::F32 => 4,
            _ => 2,
        }
    }
}

/// Where the tokens of each rollout lie.
#[derive(Clone, Debug)]
pub struct Layout {
    pub padded: bool,
    /// First slot of each rollout in the flat array of all slots (packed: and the end).
    pub offsets: Vec<usize>,
    pub lens: Vec<usize>,
    /// Slots of a padded row.
    pub row: usize,
    pub longest: usize,
    pub rollouts: usize,
}

impl Layout {
    pub fn of(batch: &Batch, how: &How) -> Layout {
        let lens: Vec<usize> = batch.rollouts.iter().map(|r| r.len).collect();
        let longest = lens.iter().copied().max().unwrap_or(0);
        let row = longest + how.spare;
        let offsets = if how.padded {
            lens.iter().enumerate().map(|(i, len)| i * row + if how.pad_left { row - len } else { 0 }).collect()
        } else {
            let mut offsets = vec![0];
            lens.iter().for_each(|len| offsets.push(offsets[offsets.len() - 1] + len));
            offsets
        };
        Layout { padded: how.padded, offsets, lens, row, longest: if how.padded { row } else { longest }, rollouts: batch.rollouts.len() }
    }

    pub fn slots_in_all(&self) -> usize {
        if self.padded { self.row * self.rollouts } else { self.offsets[self.rollouts] }
    }

    /// View shape and strides of a token-shaped array with `gap` elements between neighbours (packed) or `gap` - 1 spare slots a row.
    pub fn shape(&self, gap: usize) -> ([i64; 2], [i64; 2], i32, usize) {
        let n = self.slots_in_all();
        if self.padded {
            let stride = self.row + gap - 1;
            ([self.rollouts as i64, self.row as i64], [stride as i64, 1], 2, stride * self.rollouts)
        } else {
            ([n as i64, 1], [gap as i64, 1], 1, n * gap)
        }
    }

    /// Element of slot s in such an array.
    pub fn element(&self, slot: usize, gap: usize) -> usize {
        if self.padded { slot / self.row.max(1) * (self.row + gap - 1) + slot % self.row.max(1) } else { slot * gap }
    }
}

/// Memory of exactly so many bytes, with no more than an element's alignment: what lies around it is somebody else's.
pub struct Block {
    pub at: *mut u8,
    layout: alloc::Layout,
}

impl Block {
    pub fn new(bytes: usize, align: usize) -> Block {
        let layout = alloc::Layout::from_size_align(bytes.max(1), align).expect("a layout");
        // SAFETY: at least one byte.
        let at = unsafe { alloc::alloc(layout) };
        assert!(!at.is_null(), "no {bytes} bytes");
        Block { at, layout }
    }

    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: as allocated.
        unsafe { alloc::dealloc(self.at, self.layout) }
    }
}

/// Owns the memory and the views.
#[derive(Default)]
pub struct Arena {
    pub memory: Vec<Block>,
    views: Vec<Box<passrl_view>>,
    /// As `How::other_floats`.
    pub other_floats: bool,
}

impl Arena {
    /// A view of new memory of `count` elements of `bytes` each; `fill` writes element by element. What the view reaches is there, and no byte more.
    pub fn add(&mut self, dtype: i32, bytes: usize, count: usize, shape: ([i64; 2], [i64; 2], i32), fill: impl FnOnce(*mut u8)) -> *const passrl_view {
        let mut whole = vec![0u64; (count * bytes).div_ceil(8)];
        fill(whole.as_mut_ptr().cast());
        let (shape, stride, ndim) = shape;
        let reach = if shape[0] * shape[1] > 0 { (shape[0] - 1) * stride[0] + (shape[1] - 1) * stride[1] + 1 } else { 0 } as usize;
        let memory = Block::new(reach.min(count) * bytes, bytes);
        // SAFETY: `whole` has as many bytes.
        unsafe { memory.at.copy_from_nonoverlapping(whole.as_ptr().cast(), reach.min(count) * bytes) };
        let data = memory.at.cast::<c_void>();
        self.memory.push(memory);
        self.views.push(Box::new(passrl_view { data, shape, stride, ndim, dtype, device_type: PASSRL_CPU, device_id: 0 }));
        &**self.views.last().expect("just pushed")
    }

    pub fn views_mut(&mut self) -> impl Iterator<Item = &mut passrl_view> {
        self.views.iter_mut().map(|view| &mut **view)
    }

    pub fn last(&self) -> usize {
        self.views.len() - 1
    }

    /// Makes view i a copy of another.
    pub fn point(&mut self, i: usize, view: passrl_view) -> *const passrl_view {
        *self.views[i] = view;
        &*self.views[i]
    }

    pub fn view(&self, i: usize) -> passrl_view {
        *self.views[i]
    }

    fn vector<T: Copy>(&mut self, dtype: i32, values: &[T]) -> *const passrl_view {
        let n = values.len();
        self.add(dtype, size_of::<T>(), n, ([n as i64, 1], [1, 1], 1), |to| {
            // SAFETY: the memory has room for n elements and is aligned to 8.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to.cast::<T>(), n) }
        })
    }

    pub fn ints(&mut self, values: &Ints) -> *const passrl_view {
        match values {
            Ints::Narrow(v) => self.vector(PASSRL_I32, v),
            Ints::Wide(v) => self.vector(PASSRL_I64, v),
        }
    }

    pub fn line(&mut self, values: &[f32]) -> *const passrl_view {
        if self.other_floats {
            return self.vector(PASSRL_F64, &values.iter().map(|x| *x as f64).collect::<Vec<f64>>());
        }
        self.vector(PASSRL_F32, values)
    }

    pub fn grid(&mut self, values: &[f32], rows: usize) -> *const passrl_view {
        let columns = values.len() / rows;
        let view = self.line(values);
        let last = self.last();
        self.views[last].shape = [rows as i64, columns as i64];
        self.views[last].stride = [columns as i64, 1];
        self.views[last].ndim = 2;
        view
    }

    /// `[G, 16]` in f64 (or f32 where it holds all): one line serves all groups by a stride of 0.
    pub fn statistics(&mut self, lines: &[Row16], groups: usize, how: &How) -> *const passrl_view {
        let gap = how.stride;
        let apart = if lines.len() == 1 { 0 } else { 16 * gap };
        let (shape, count) = (([groups as i64, 16], [apart as i64, gap as i64], 2), 16 * gap * lines.len());
        let narrow = self.other_floats && lines.iter().flatten().all(|x| x.is_nan() || *x as f32 as f64 == *x);
        let (dtype, bytes) = if narrow { (PASSRL_F32, 4) } else { (PASSRL_F64, 8) };
        self.add(dtype, bytes, count, shape, |to| {
            for e in 0..count {
                let x = if e % gap == 0 { lines[e / gap / 16][e / gap % 16] } else { f64::NAN };
                // SAFETY: `add` gives room for `count` numbers of the type.
                unsafe { if narrow { to.cast::<f32>().add(e).write(x as f32) } else { to.cast::<f64>().add(e).write(x) } }
            }
        })
    }

    pub fn flags(&mut self, values: &[bool], mask: i32) -> *const passrl_view {
        let n = values.len();
        self.mask(mask, n, ([n as i64, 1], [1, 1], 1), |i| values[i], n)
    }

    fn mask(&mut self, mask: i32, count: usize, shape: ([i64; 2], [i64; 2], i32), of: impl Fn(usize) -> bool, n: usize) -> *const passrl_view {
        let bytes = match mask {
            PASSRL_I64 => 8,
            PASSRL_I32 | PASSRL_F32 => 4,
            PASSRL_BF16 => 2,
            _ => 1,
        };
        self.add(mask, bytes, count, shape, |to| {
            for i in 0..n {
                let v = of(i);
                // SAFETY: i < count elements of the mask's type.
                unsafe {
                    match mask {
                        // A NaN is nonzero, and so is a negative number.
                        PASSRL_F32 => to.cast::<f32>().add(i).write(if v { f32::NAN } else { -0.0 }),
                        PASSRL_BF16 => to.cast::<bf16>().add(i).write(if v { bf16::from_f32(-3.0) } else { bf16::ZERO }),
                        PASSRL_I64 => to.cast::<i64>().add(i).write(if v { 1 << 40 } else { 0 }),
                        PASSRL_I32 => to.cast::<i32>().add(i).write(if v { -1 } else { 0 }),
                        _ => to.add(i).write(u8::from(v)),
                    }
                }
            }
        })
    }

    /// Slot -> (rollout, token), where there is one.
    fn owners(layout: &Layout) -> Vec<Option<(usize, usize)>> {
        let mut owners = vec![None; layout.slots_in_all()];
        for i in 0..layout.rollouts {
            for t in 0..layout.lens[i] {
                owners[layout.offsets[i] + t] = Some((i, t));
            }
        }
        owners
    }

    pub fn token_flags(&mut self, layout: &Layout, how: &How, of: impl Fn(usize, usize) -> bool) -> *const passrl_view {
        let (shape, stride, ndim, count) = layout.shape(1);
        let owners = Arena::owners(layout);
        // Padding is marked in scope: lengths alone say that it is not.
        self.mask(how.mask, count, (shape, stride, ndim), |s| owners[s].is_none_or(|(i, t)| of(i, t)), count)
    }

    fn token<T: Copy>(&mut self, dtype: i32, nan: T, layout: &Layout, how: &How, of: impl Fn(usize, usize) -> Option<T>) -> *const passrl_view {
        let (shape, stride, ndim, count) = layout.shape(how.stride);
        let owners = Arena::owners(layout);
        self.add(dtype, size_of::<T>(), count, (shape, stride, ndim), |to| {
            let to = to.cast::<T>();
            // SAFETY: elements of slots are below count.
            unsafe {
                (0..count).for_each(|e| to.add(e).write(nan));
                for (s, owner) in owners.iter().enumerate() {
                    if let Some(x) = owner.and_then(|(i, t)| of(i, t)) {
                        to.add(layout.element(s, how.stride)).write(x);
                    }
                }
            }
        })
    }

    /// Process signals: never f64.
    pub fn token_signal(&mut self, layout: &Layout, how: &How, of: impl Fn(usize, usize) -> Option<f32>) -> *const passrl_view {
        self.token(PASSRL_F32, f32::NAN, layout, how, of)
    }

    pub fn token_f32(&mut self, layout: &Layout, how: &How, of: impl Fn(usize, usize) -> Option<f32>) -> *const passrl_view {
        if self.other_floats {
            return self.token(PASSRL_F64, f64::NAN, layout, how, |i, t| of(i, t).map(f64::from));
        }
        self.token(PASSRL_F32, f32::NAN, layout, how, of)
    }

    pub fn token_f64(&mut self, layout: &Layout, how: &How, of: impl Fn(usize, usize) -> Option<f64>) -> *const passrl_view {
        let fits = |x: f64| x.is_nan() || x as f32 as f64 == x;
        if self.other_floats && Arena::owners(layout).into_iter().flatten().all(|(i, t)| of(i, t).is_none_or(fits)) {
            return self.token(PASSRL_F32, f32::NAN, layout, how, |i, t| of(i, t).map(|x| x as f32));
        }
        self.token(PASSRL_F64, f64::NAN, layout, how, of)
    }
}
