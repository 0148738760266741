//! Results of chunks (or tokens) to token-shaped outputs: every slot of the rollout is written, 0 outside scope.
use super::scope::Scope;
use super::worker::Worker;
use crate::model::array::{Array, DType, Row};
use crate::model::batch::{Extent, Problem};
use crate::numerics::convert::{OutElem, store_slice};
use crate::numerics::simd::{Simd, dispatch};
use half::{bf16, f16};

/// How values lie over tokens.
#[derive(Clone, Copy)]
pub enum Chunks<'a> {
    /// A value for each in-scope token.
    EveryToken,
    /// A value for each chunk; the last in-scope token of each.
    Last(&'a [u32]),
}

impl Chunks<'_> {
    /// Calls `each(chunk, begin, end)`: the tokens (in scope or not) from after the chunk before to the chunk's last.
    #[inline(always)]
    pub fn each(&self, scope: &Scope, mut each: impl FnMut(usize, usize, usize)) {
        match self {
            Chunks::EveryToken => {
                let mut j = 0;
                scope.runs(scope.first, scope.end, |a, b| {
                    for t in a..b {
                        each(j, t, t + 1);
                        j += 1;
                    }
                });
            }
            Chunks::Last(last) => {
                let mut begin = scope.first;
                for (j, l) in last.iter().enumerate() {
                    each(j, begin, *l as usize + 1);
                    begin = *l as usize + 1;
                }
            }
        }
    }
}

impl Chunks<'_> {
    /// Calls `each(chunk, begin, end)` for the runs of tokens in scope of each chunk, in order.
    #[inline(always)]
    pub fn runs(&self, scope: &Scope, mut each: impl FnMut(usize, usize, usize)) {
        let Chunks::Last(last) = self else { return self.each(scope, each) };
        let mut j = 0;
        scope.runs(scope.first, scope.end, |a, b| {
            let mut t = a;
            while t < b && j < last.len() {
                let own = last[j] as usize + 1;
                if own > t {
                    each(j, t, own.min(b));
                    t = own.min(b);
                }
                j += usize::from(own <= b);
            }
        });
    }

    /// Calls `each(chunk, tokens in scope)` for the chunks that have some.
    #[inline(always)]
    pub fn counts(&self, scope: &Scope, mut each: impl FnMut(usize, usize)) {
        let (mut own, mut n) = (0, 0);
        self.runs(scope, |j, a, b| {
            if j != own {
                if n > 0 {
                    each(own, n);
                }
                (own, n) = (j, 0);
            }
            n += b - a;
        });
        if n > 0 {
            each(own, n);
        }
    }
}

macro_rules! store {
    ($name:ident, $T:ty) => {
        dispatch! {
            fn $name(from: &[f64], to: &mut [$T]) -> u64 {
                store_slice(from, to)
            }
        }
    };
}
store!(store_f32, f32);
store!(store_bf16, bf16);
store!(store_f16, f16);
store!(store_f64, f64);

pub trait Out: OutElem {
    const ZERO: Self;
    fn store(simd: Simd, from: &[f64], to: &mut [Self]) -> u64;
}
macro_rules! out {
    ($($T:ty, $zero:expr, $store:ident;)*) => {$(
        impl Out for $T {
            const ZERO: Self = $zero;
            fn store(simd: Simd, from: &[f64], to: &mut [Self]) -> u64 {
                $store(simd, from, to)
            }
        }
    )*};
}
out! { f32, 0.0, store_f32; bf16, bf16::ZERO, store_bf16; f16, f16::ZERO, store_f16; f64, 0.0, store_f64; }

/// Tokens up to which a rollout with one value is written as it comes.
pub const FEW: usize = 32;

impl Worker<'_> {
    /// Writes a rollout's tokens, and the padding beside them where it is to be filled; returns how many were beyond the type's range.
    ///
    /// # Safety
    /// As `expand`.
    pub unsafe fn row(&mut self, to: &Array, at: &Extent, scope: &Scope, chunks: Chunks, values: &[f64]) -> u64 {
        let job = self.job;
        #[cfg(target_arch = "x86_64")]
        if let Chunks::Last(ends) = chunks
            && (ends.len() > 1 || at.len > FEW)
            && let Some(over) = super::lines::write(job, to, at, scope, ends, values, self.row_table, self.row_marks, &mut self.ahead)
        {
            return over;
        }
        // SAFETY: passed on.
        let over = unsafe { expand(job.simd(), to, at, scope, chunks, values) };
        if job.config().fill_padding {
            pad(to, job.problem, at);
        }
        over
    }
}

/// Writes a rollout's tokens; returns how many were beyond the type's range.
///
/// # Safety
/// The rollout's slots of the output are this thread's, and nothing that the output lies over (in place) is read after.
pub unsafe fn expand(simd: Simd, output: &Array, at: &Extent, scope: &Scope, chunks: Chunks, values: &[f64]) -> u64 {
    let row = at.of(output);
    // SAFETY: by the caller's word.
    unsafe {
        match output.dtype {
            DType::F32 => typed::<f32>(simd, &row, scope, chunks, values),
            DType::Bf16 => typed::<bf16>(simd, &row, scope, chunks, values),
            DType::F16 => typed::<f16>(simd, &row, scope, chunks, values),
            _ => typed::<f64>(simd, &row, scope, chunks, values),
        }
    }
}

unsafe fn typed<T: Out>(simd: Simd, row: &Row, scope: &Scope, chunks: Chunks, values: &[f64]) -> u64 {
    let mut overflowed = 0;
    // SAFETY: by the caller's word.
    let Some(to) = (unsafe { row.slice_mut::<T>() }) else {
        for t in 0..row.len() {
            // SAFETY: as above.
            unsafe { row.put(t, T::ZERO) };
        }
        chunks.runs(scope, |j, a, b| {
            let mut over = 0;
            let value = T::from_f64(values[j], &mut over);
            overflowed += over * (b - a) as u64;
            // SAFETY: as above.
            (a..b).for_each(|t| unsafe { row.put(t, value) });
        });
        return overflowed;
    };
    if let Chunks::EveryToken = chunks {
        let mut k = 0;
        let mut begin = 0;
        scope.runs(0, to.len(), |a, b| {
            to[begin..a].fill(T::ZERO);
            overflowed += T::store(simd, &values[k..k + b - a], &mut to[a..b]);
            k += b - a;
            begin = b;
        });
        to[begin..].fill(T::ZERO);
        return overflowed;
    }
    if scope.has_holes() {
        to.fill(T::ZERO);
        chunks.runs(scope, |j, a, b| {
            let mut over = 0;
            to[a..b].fill(T::from_f64(values[j], &mut over));
            overflowed += over * (b - a) as u64;
        });
        return overflowed;
    }
    to[..scope.first].fill(T::ZERO);
    let mut written = scope.first;
    chunks.each(scope, |j, a, b| {
        let mut over = 0;
        to[a..b].fill(T::from_f64(values[j], &mut over));
        overflowed += over * (b - a) as u64;
        written = b;
    });
    // Tokens in scope may have no chunk: where the steps do not fit there is none.
    to[written..].fill(T::ZERO);
    overflowed
}

fn zero_row(row: &Row) {
    fn zero<T: Copy>(row: &Row, zero: T) {
        // SAFETY: slots of the output that no rollout owns, written by one thread; all-zero bytes are the zero of every type.
        match unsafe { row.slice_mut::<T>() } {
            Some(slice) => slice.fill(zero),
            // SAFETY: as above.
            None => (0..row.len()).for_each(|t| unsafe { row.put(t, zero) }),
        }
    }
    match row.dtype().bytes() {
        8 => zero(row, 0u64),
        4 => zero(row, 0u32),
        2 => zero(row, 0u16),
        _ => zero(row, 0u8),
    }
}

/// Zeros left and right of the rollout (padded layout), or after the tokens of a piece.
pub fn pad(output: &Array, problem: &Problem, at: &Extent) {
    if at.flat {
        zero_row(&output.line(0, at.column + at.len, at.tail, true));
    } else {
        zero_row(&output.line(at.row, 0, at.column, false));
        let end = at.column + at.len;
        zero_row(&output.line(at.row, end, problem.slots - end, false));
    }
}

/// Packed layout: zeros before the first rollout and after the last.
pub fn pad_ends(output: &Array, problem: &Problem) {
    if let crate::model::batch::Extents::Packed { cu_seqlens } = problem.extents {
        let (first, last) = (cu_seqlens.int(0) as usize, cu_seqlens.int(problem.units()) as usize);
        if first > 0 {
            zero_row(&output.line(0, 0, first, true));
        }
        if last < problem.slots {
            zero_row(&output.line(0, last, problem.slots - last, true));
        }
    }
}
