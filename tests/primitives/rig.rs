//! Views, layouts and a context for the tests of the primitives.
#![allow(dead_code)]
use half::{bf16, f16};
use passrl::abi::constants::*;
use passrl::abi::context::{passrl_context_create, passrl_context_destroy};
use passrl::abi::plan::*;
use passrl::abi::status::PASSRL_OK;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

pub const LENGTHS: [usize; 10] = [0, 1, 5, 31, 32, 33, 64, 100, 129, 2];

/// In-scope values of each rollout.
pub type Data = Vec<Vec<f64>>;

pub fn data(seed: u64) -> Data {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    LENGTHS
        .iter()
        .map(|n| {
            (0..*n)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((state >> 40) % 128) as f64 / 8.0 - 8.0
                })
                .collect()
        })
        .collect()
}

pub fn bits(outs: &[Data]) -> Vec<Vec<Vec<u64>>> {
    outs.iter().map(|d| d.iter().map(|r| r.iter().map(|x| x.to_bits()).collect()).collect()).collect()
}

pub trait Elem: Copy {
    const DTYPE: i32;
    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
}
macro_rules! elem {
    ($($T:ty, $dtype:expr, |$x:ident| $of:expr, |$y:ident| $wide:expr;)*) => {$(
        impl Elem for $T {
            const DTYPE: i32 = $dtype;
            fn of($x: f64) -> Self { $of }
            fn wide(self) -> f64 { let $y = self; $wide }
        }
    )*};
}
elem! {
    f32, PASSRL_F32, |x| x as f32, |y| y as f64;
    f64, PASSRL_F64, |x| x, |y| y;
    bf16, PASSRL_BF16, |x| bf16::from_f64(x), |y| y.to_f64();
    f16, PASSRL_F16, |x| f16::from_f64(x), |y| y.to_f64();
    i32, PASSRL_I32, |x| x as i32, |y| y as f64;
    i64, PASSRL_I64, |x| x as i64, |y| y as f64;
    u8, PASSRL_U8, |x| x as u8, |y| y as f64;
}

pub fn line<T: Elem>(data: &mut [T]) -> passrl_view {
    passrl_view {
        data: data.as_mut_ptr().cast(),
        shape: [data.len() as i64, 1],
        stride: [1, 1],
        ndim: 1,
        dtype: T::DTYPE,
        device_type: PASSRL_CPU,
        device_id: 0,
    }
}

pub fn grid<T: Elem>(data: &mut [T], rows: usize, columns: usize) -> passrl_view {
    assert_eq!(data.len(), rows * columns);
    passrl_view { shape: [rows as i64, columns as i64], stride: [columns as i64, 1], ndim: 2, ..line(data) }
}

pub fn batch() -> passrl_batch {
    passrl_batch::defaults()
}

pub fn config() -> passrl_config {
    passrl_config::defaults()
}

pub fn last() -> String {
    passrl::error::last_text()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    Packed,
    /// A slice of a longer packed batch, i64 offsets.
    Slice,
    Padded {
        left: bool,
    },
    /// A padded batch with a mask alone, rollouts somewhere in their rows.
    Mask,
    /// Packed, with holes in scope.
    Holes,
    /// Padded with lengths, with holes in scope.
    PaddedHoles {
        left: bool,
    },
}

impl Layout {
    pub const ALL: [Layout; 8] = [
        Layout::Packed,
        Layout::Slice,
        Layout::Padded { left: false },
        Layout::Padded { left: true },
        Layout::Mask,
        Layout::Holes,
        Layout::PaddedHoles { left: false },
        Layout::PaddedHoles { left: true },
    ];
}

/// Where the in-scope tokens of each rollout lie in a token-shaped array.
pub struct Place {
    pub layout: Layout,
    pub slots: usize,
    /// T; 0 packed.
    pub row: usize,
    pub at: Vec<Vec<usize>>,
    pub cu: Vec<i64>,
    pub lengths: Vec<i32>,
    pub mask: Option<Vec<u8>>,
}

impl Place {
    pub fn new(layout: Layout) -> Place {
        let holes = matches!(layout, Layout::Holes | Layout::PaddedHoles { .. });
        // Offsets of the in-scope tokens in each rollout, and its extent.
        let spread = |i: usize, n: usize| -> (Vec<usize>, usize) {
            if !holes {
                return ((0..n).collect(), n);
            }
            let mut t = i % 3;
            let mut offsets = Vec::new();
            for j in 0..n {
                offsets.push(t);
                t += if (i * 7 + j * 13) % 5 == 0 { 1 + (j % 70) } else { 1 };
            }
            (offsets, t + i % 2)
        };
        let spreads: Vec<(Vec<usize>, usize)> = LENGTHS.iter().enumerate().map(|(i, n)| spread(i, *n)).collect();
        let longest = spreads.iter().map(|s| s.1).max().unwrap_or(0);
        let mut place = Place { layout, slots: 0, row: 0, at: Vec::new(), cu: Vec::new(), lengths: Vec::new(), mask: None };
        match layout {
            Layout::Packed | Layout::Slice | Layout::Holes => {
                let mut begin = if layout == Layout::Slice { 5 } else { 0 };
                for (offsets, len) in &spreads {
                    place.cu.push(begin as i64);
                    place.at.push(offsets.iter().map(|t| begin + t).collect());
                    begin += len;
                }
                place.cu.push(begin as i64);
                place.slots = begin + if layout == Layout::Slice { 7 } else { 0 };
            }
            _ => {
                place.row = longest + 3;
                place.slots = place.row * LENGTHS.len();
                for (i, (offsets, len)) in spreads.iter().enumerate() {
                    let column = match layout {
                        Layout::Padded { left: true } | Layout::PaddedHoles { left: true } => place.row - len,
                        Layout::Mask => i % 4,
                        _ => 0,
                    };
                    place.lengths.push(*len as i32);
                    place.at.push(offsets.iter().map(|t| i * place.row + column.min(place.row - len) + t).collect());
                }
            }
        }
        if holes || layout == Layout::Mask {
            let mut mask = vec![0u8; place.slots];
            place.at.iter().flatten().for_each(|t| mask[*t] = 1);
            place.mask = Some(mask);
        }
        place
    }

    pub fn scatter<T: Elem>(&self, data: &Data, elsewhere: T) -> Vec<T> {
        let mut to = vec![elsewhere; self.slots];
        for (at, values) in self.at.iter().zip(data) {
            at.iter().zip(values).for_each(|(t, x)| to[*t] = T::of(*x));
        }
        to
    }

    /// In-scope values; every other slot must be +0.
    pub fn gather<T: Elem>(&self, from: &[T]) -> Data {
        let mut scope = vec![false; self.slots];
        self.at.iter().flatten().for_each(|t| scope[*t] = true);
        for (t, x) in from.iter().enumerate().filter(|(t, _)| !scope[*t]) {
            assert!(x.wide().to_bits() == 0, "{:?}: slot {t} is {}", self.layout, x.wide());
        }
        self.at.iter().map(|at| at.iter().map(|t| from[*t].wide()).collect()).collect()
    }

    pub fn view<T: Elem>(&self, data: &mut [T]) -> passrl_view {
        if self.row == 0 { line(data) } else { grid(data, LENGTHS.len(), self.row) }
    }

    pub fn with_batch<R>(&self, work: impl FnOnce(&passrl_batch) -> R) -> R {
        let (mut cu, mut lengths, mut mask) = (self.cu.clone(), self.lengths.clone(), self.mask.clone().unwrap_or_default());
        let (cu, lengths) = (line(&mut cu), line(&mut lengths));
        let mask = self.mask.as_ref().map(|_| self.view(&mut mask));
        let mut b = passrl_batch { num_rollouts: LENGTHS.len() as i64, ..batch() };
        if self.row == 0 {
            b.cu_seqlens = &cu;
        } else {
            b.layout = PASSRL_PADDED;
            if self.layout != Layout::Mask {
                b.lengths = &lengths;
            }
            b.pad_side = match self.layout {
                Layout::Padded { left: true } | Layout::PaddedHoles { left: true } => PASSRL_PAD_LEFT,
                _ => PASSRL_PAD_RIGHT,
            };
        }
        b.mask = mask.as_ref().map_or(null(), |m| m);
        work(&b)
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Cell([u8; 64]);

/// A context and a workspace.
pub struct Rig {
    pub context: *mut passrl_context,
    owned: bool,
    workspace: UnsafeCell<Vec<Cell>>,
    /// Sentence of the last run of the pipeline.
    pub said: std::cell::RefCell<String>,
}

// SAFETY: a context may be used from many threads; `beside` gives each its own workspace.
unsafe impl Sync for Rig {}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(PASSRL_SIMD_BEST)
    }

    pub fn with(simd: i32) -> Rig {
        let options = passrl_context_options { simd, threads: 1, ..passrl_context_options::defaults() };
        let mut context = null_mut();
        assert_eq!(unsafe { passrl_context_create(&options, &mut context) }, PASSRL_OK, "{}", last());
        Rig { context, owned: true, workspace: UnsafeCell::new(vec![Cell([0xa5; 64]); Rig::needed(context)]), said: Default::default() }
    }

    pub fn beside(&self) -> Rig {
        Rig {
            context: self.context,
            owned: false,
            workspace: UnsafeCell::new(vec![Cell([0x5a; 64]); Rig::needed(self.context)]),
            said: Default::default(),
        }
    }

    fn needed(context: *mut passrl_context) -> usize {
        let limits = passrl_limits { rollouts: 64, tokens: 1 << 20, rollout_tokens: 4096, ..passrl_limits::defaults() };
        let mut bytes = 0;
        assert_eq!(
            unsafe { passrl::abi::primitives::passrl_primitive_workspace_size(context, &limits, &mut bytes) },
            PASSRL_OK,
            "{}",
            last()
        );
        bytes.div_ceil(64)
    }

    pub fn ws(&self) -> *mut c_void {
        unsafe { (*self.workspace.get()).as_mut_ptr().cast() }
    }

    pub fn bytes(&self) -> usize {
        unsafe { (*self.workspace.get()).len() * 64 }
    }

    /// Inputs in f32 (f64 outputs: in f64).
    pub fn run<O: Elem>(
        &self,
        place: &Place,
        inputs: &[Data],
        outputs: usize,
        call: impl Fn(&Rig, &passrl_batch, &[*const passrl_view], &[*const passrl_view]) -> i32,
        status: i32,
    ) -> Vec<Data> {
        self.run_typed::<f32, O>(place, inputs, outputs, call, status)
    }

    pub fn run_typed<I: Elem, O: Elem>(
        &self,
        place: &Place,
        inputs: &[Data],
        outputs: usize,
        call: impl Fn(&Rig, &passrl_batch, &[*const passrl_view], &[*const passrl_view]) -> i32,
        status: i32,
    ) -> Vec<Data> {
        let mut arrays: Vec<Vec<I>> = inputs.iter().map(|d| place.scatter(d, I::of(f64::NAN))).collect();
        let views: Vec<passrl_view> = arrays.iter_mut().map(|a| place.view(a)).collect();
        let mut results = vec![vec![O::of(f64::NAN); place.slots]; outputs];
        let targets: Vec<passrl_view> = results.iter_mut().map(|a| place.view(a)).collect();
        let ins: Vec<*const passrl_view> = views.iter().map(|v| &raw const *v).collect();
        let outs: Vec<*const passrl_view> = targets.iter().map(|v| &raw const *v).collect();
        place.with_batch(|b| assert_eq!(call(self, b, &ins, &outs), status, "{}", last()));
        results.iter().map(|r| place.gather(r)).collect()
    }

    /// A run of the pipeline; other outputs by `fill`.
    pub fn pipeline(&self, config: &passrl_config, batch: &passrl_batch, advantages: &passrl_view, returns: &passrl_view) -> i32 {
        self.pipeline_with(config, batch, &passrl_outputs { advantages, returns, ..passrl_outputs::defaults() })
    }

    pub fn pipeline_with(&self, config: &passrl_config, batch: &passrl_batch, outputs: &passrl_outputs) -> i32 {
        let limits = passrl_limits { rollouts: 64, tokens: 1 << 16, rollout_tokens: 4096, ..passrl_limits::defaults() };
        let mut plan = null_mut();
        unsafe {
            assert_eq!(passrl_plan_create(self.context, config, &limits, null(), &mut plan), PASSRL_OK, "{}", last());
            let mut bytes = 0;
            passrl_plan_workspace_size(plan, &mut bytes);
            let mut workspace = vec![Cell([0x3c; 64]); bytes.div_ceil(64)];
            let status = passrl_plan_run(plan, batch, outputs, workspace.as_mut_ptr().cast(), bytes, null_mut());
            *self.said.borrow_mut() = last();
            passrl_plan_destroy(plan);
            status
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.owned {
            unsafe { passrl_context_destroy(self.context) };
        }
    }
}
