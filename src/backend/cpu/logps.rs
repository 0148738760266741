//! Loops over log-probabilities that lie side by side: differences, ratios, and what is looked for in them.
use crate::model::array::{DType, Row};
use crate::numerics::convert::InElem;
use crate::numerics::exp::exp;
use crate::numerics::simd::{Simd, dispatch};
use half::bf16;

/// Log-probabilities below it are counted: a sign of a masked or broken softmax.
pub const LOW_LOGP: f64 = -1e4;

/// A type of log-probabilities that most come in.
pub trait Logp: InElem {
    const DTYPE: DType;
    /// s = teacher - policy in f64, rounded once. An infinite log-probability is a finding, even where the difference is NaN.
    fn opd(simd: Simd, policy: &[Self], teacher: &[Self], to: &mut [f32]);
    /// s = lambda (teacher - base) - (policy - base) in f64, rounded once.
    fn g_opd(simd: Simd, lambda: f64, policy: &[Self], teacher: &[Self], base: &[Self], to: &mut [f32]);
    /// How many are below `LOW_LOGP`.
    fn low(simd: Simd, logps: &[Self]) -> i64;
    /// Importance ratios, within f32.
    fn ratios(simd: Simd, policy: &[Self], behavior: &[Self], to: &mut [f64]);
    /// Tokens of which one is not finite.
    fn bad(simd: Simd, policy: &[Self], behavior: &[Self]) -> i64;
}

/// `$body` with `$T` the type of log-probabilities of `$dtype`, where most come in it; else `None`.
macro_rules! by_logp {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::model::array::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::model::array::DType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::model::array::DType::F64 => {
                type $T = f64;
                $body
            }
            _ => None,
        }
    };
}
pub(super) use by_logp;

/// The line, where it lies side by side and is of type T.
pub fn slice<'r, T: Logp>(row: &'r Row) -> Option<&'r [T]> {
    if row.dtype() == T::DTYPE { row.slice() } else { None }
}

/// No ratio is beyond f32.
pub fn ratio(policy: f64, behavior: f64) -> f64 {
    exp(policy - behavior).min(f32::MAX as f64)
}

#[inline(always)]
fn opd<T: InElem>(policy: &[T], teacher: &[T], to: &mut [f32]) {
    for ((p, t), s) in policy.iter().zip(teacher).zip(to) {
        let (p, t) = (p.to_f64(), t.to_f64());
        *s = if p.is_infinite() | t.is_infinite() { f32::INFINITY } else { (t - p) as f32 };
    }
}

#[inline(always)]
fn g_opd<T: InElem>(lambda: f64, policy: &[T], teacher: &[T], base: &[T], to: &mut [f32]) {
    for (((p, t), b), s) in policy.iter().zip(teacher).zip(base).zip(to) {
        let (p, t, b) = (p.to_f64(), t.to_f64(), b.to_f64());
        let infinite = p.is_infinite() | t.is_infinite() | b.is_infinite();
        *s = if infinite { f32::INFINITY } else { (lambda * (t - b) - (p - b)) as f32 };
    }
}

#[inline(always)]
fn low<T: InElem>(logps: &[T]) -> i64 {
    // An f64 just below the limit is at it in f32.
    let is_low = |x: &T| if size_of::<T>() == 8 { x.to_f64() < LOW_LOGP } else { x.to_f32() < LOW_LOGP as f32 };
    logps.iter().map(|x| u32::from(is_low(x))).sum::<u32>() as i64
}

#[inline(always)]
fn ratios<T: InElem>(policy: &[T], behavior: &[T], to: &mut [f64]) {
    for ((p, b), to) in policy.iter().zip(behavior).zip(to) {
        *to = ratio(p.to_f64(), b.to_f64());
    }
}

#[inline(always)]
fn bad<T: InElem>(policy: &[T], behavior: &[T]) -> i64 {
    policy.iter().zip(behavior).map(|(p, b)| u32::from(!(p.to_f64().is_finite() & b.to_f64().is_finite()))).sum::<u32>() as i64
}

macro_rules! logps {
    ($($T:ty, $dtype:expr;)*) => {$(
        impl Logp for $T {
            const DTYPE: DType = $dtype;
            fn opd(simd: Simd, policy: &[$T], teacher: &[$T], to: &mut [f32]) {
                dispatch! { fn run(policy: &[$T], teacher: &[$T], to: &mut [f32]) { opd(policy, teacher, to) } }
                run(simd, policy, teacher, to)
            }
            fn g_opd(simd: Simd, lambda: f64, policy: &[$T], teacher: &[$T], base: &[$T], to: &mut [f32]) {
                dispatch! { fn run(lambda: f64, policy: &[$T], teacher: &[$T], base: &[$T], to: &mut [f32]) { g_opd(lambda, policy, teacher, base, to) } }
                run(simd, lambda, policy, teacher, base, to)
            }
            fn low(simd: Simd, logps: &[$T]) -> i64 {
                dispatch! { fn run(logps: &[$T]) -> i64 { low(logps) } }
                run(simd, logps)
            }
            fn ratios(simd: Simd, policy: &[$T], behavior: &[$T], to: &mut [f64]) {
                dispatch! { fn run(policy: &[$T], behavior: &[$T], to: &mut [f64]) { ratios(policy, behavior, to) } }
                run(simd, policy, behavior, to)
            }
            fn bad(simd: Simd, policy: &[$T], behavior: &[$T]) -> i64 {
                dispatch! { fn run(policy: &[$T], behavior: &[$T]) -> i64 { bad(policy, behavior) } }
                run(simd, policy, behavior)
            }
        }
    )*};
}
logps! { f32, DType::F32; bf16, DType::Bf16; f64, DType::F64; }
