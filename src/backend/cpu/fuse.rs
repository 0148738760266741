//! Advantage Fusion (eq. 4): the standardised streams of a rollout become one value a chunk.
use super::standard::{Apply, Standard, plain};
use crate::numerics::simd::dispatch;

dispatch! {
    /// f <- w ((x - mean) inv), or added to f where it is not the first stream.
    fn affine(xs: &[f32], mean: f64, inv: f64, weight: f64, first: bool, f: &mut [f64]) {
        if first {
            f.iter_mut().zip(xs).for_each(|(f, x)| *f = weight * ((*x as f64 - mean) * inv));
        } else {
            f.iter_mut().zip(xs).for_each(|(f, x)| *f += weight * ((*x as f64 - mean) * inv));
        }
    }
}

dispatch! {
    /// f <- ((f + t0) + t1) + ...
    pub fn add_terms(terms: &[f64], f: &mut [f64]) {
        match *terms {
            [] => (),
            [a] => f.iter_mut().for_each(|f| *f += a),
            [a, b] => f.iter_mut().for_each(|f| *f = (*f + a) + b),
            _ => f.iter_mut().for_each(|f| terms.iter().for_each(|t| *f += t)),
        }
    }
}

/// Adds stream's term w * s~ of every chunk to f (the first stream sets it). `skip`: NaN contributes 0.
#[allow(clippy::too_many_arguments)]
pub fn add_stream(
    simd: crate::numerics::simd::Simd,
    standard: &Standard,
    apply: Apply,
    weight: f64,
    xs: &[f32],
    skip: bool,
    first: bool,
    f: &mut [f64],
    lost: &mut i64,
) {
    match apply {
        Apply::Affine { mean, inv } if !skip => affine(simd, xs, mean, inv, weight, first, f),
        Apply::Zero => {
            if first {
                f.fill(0.0);
            }
        }
        _ => {
            for (f, x) in f.iter_mut().zip(xs) {
                let s = if skip && x.is_nan() {
                    0.0
                } else if matches!(apply, Apply::LeaveOut) {
                    standard.one(apply, *x, lost)
                } else {
                    plain(apply, *x as f64)
                };
                *f = if first { weight * s } else { *f + weight * s };
            }
        }
    }
}

/// As `add_stream`, of values standardised before: `steps[j]` is the one of chunk j.
pub fn add_stepped(values: &[f64], steps: &[u32], weight: f64, first: bool, f: &mut [f64]) {
    for (f, step) in f.iter_mut().zip(steps) {
        let s = weight * values[*step as usize];
        *f = if first { s } else { *f + s };
    }
}
