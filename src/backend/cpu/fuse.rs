//! Advantage Fusion (eq. 4): the standardised streams of a rollout become one value a chunk.
use super::standard::{Apply, Standard, plain};
use crate::model::config::*;
use crate::numerics::simd::dispatch;

/// Terms of a rollout that are the same for all its chunks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// w * N(r) of the per-rollout streams given, in the stream table's order.
    pub list: [f64; 12],
    pub count: usize,
    /// The format is wrong: F is this, whatever the other streams say.
    pub gated: Option<f64>,
}

impl Terms {
    pub fn push(&mut self, term: f64) {
        self.list[self.count] = term;
        self.count += 1;
    }
    pub fn as_slice(&self) -> &[f64] {
        &self.list[..self.count]
    }
    /// ((t0 + t1) + t2) + ...
    pub fn sum(&self) -> f64 {
        self.as_slice().iter().copied().reduce(|a, b| a + b).unwrap_or(0.0)
    }
}

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

/// W: the sum of the weights of the streams given, in the stream table's order.
pub fn total_weight(c: &Config, process: usize, given: &[bool; 12]) -> f64 {
    let rollout = given.iter().enumerate().filter(|(_, g)| **g).map(|(s, _)| c.streams[OUTCOME + s].weight);
    c.streams[..process].iter().map(|s| s.weight).chain(rollout).fold(0.0, |sum, w| sum + w)
}
