//! Whitened tokens, from what was kept of them to the advantages' memory: shifted, scaled, rounded and stored in one pass. The expressions are those of
//! `Whitening::apply`.
use super::gae::LIMIT;
use super::lanes::{Line, TILE, Tile, doubles, most};
use super::round::rounded;
use super::scan::{Done, Totals};
use super::{Way, went};
use crate::backend::cpu::lines::LINE;
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::whiten::Affine;
use crate::backend::cpu::worker::Worker;
use crate::model::array::Array;
use crate::model::batch::Extent;
use crate::numerics::simd::Simd;
use std::arch::x86_64::*;

impl Worker<'_> {
    /// Writes a rollout's tokens in scope, a value each. `false`: the rollout or its memory is not a usual one, or a result comes near the end of f32, where it
    /// may have to be saturated and counted; what was written is written again then.
    pub fn whitened_tokens(&mut self, at: &Extent, scope: &Scope, values: &[f32], by: &Affine, to: &Array) -> bool {
        let job = self.job;
        let usual = job.simd() >= Simd::Avx2 && job.config().clip == f64::INFINITY && Line::fits(to, job.problem.packed()) && !scope.is_empty() && !scope.has_holes();
        if !usual || values.len() != scope.count {
            return false;
        }
        let (own, stream) = (Self::line(to, at).from(scope.first), job.by_token.stream);
        let sums = job.outputs.is_some_and(|outputs| outputs.report);
        // SAFETY: AVX2 is there; as many elements of the rollout's line as there are values.
        let done = unsafe { if own.narrow { pass::<true>(values, own, stream, by, sums) } else { pass::<false>(values, own, stream, by, sums) } };
        if done.largest >= LIMIT {
            return false;
        }
        self.around(to, at, scope.first, scope.end);
        self.report.sum_advantages += done.sum;
        self.report.sum_squares += done.squares;
        went(Way::Whitened);
        true
    }
}

/// # Safety
/// AVX2; as many elements are writable as there are values.
#[target_feature(enable = "avx2")]
unsafe fn pass<const NARROW: bool>(values: &[f32], to: Line, stream: bool, by: &Affine, sums: bool) -> Done {
    let bytes = to.bytes();
    let (mean, inv, back) = (_mm256_set1_pd(by.mean), _mm256_set1_pd(by.inv), _mm256_set1_pd(by.back));
    let mut totals = Totals::new();
    let mut largest = _mm256_setzero_si256();
    // Up to where a line of the caches begins, whole tiles, and the rest.
    let head = (to.at.align_offset(LINE) / bytes).min(values.len());
    let whole = (values.len() - head) / TILE * TILE;
    // SAFETY: (of the closures) 32 values.
    let whitened = |from: *const f32| unsafe {
        let mut tile: Tile = [_mm256_setzero_pd(); 8];
        for v in 0..4 {
            [tile[2 * v], tile[2 * v + 1]] = doubles::<false>(from.cast(), 8 * v);
        }
        tile.map(|a| _mm256_add_pd(_mm256_mul_pd(_mm256_sub_pd(a, mean), inv), back))
    };
    let mut part = |from: usize, count: usize| {
        let mut few = [0.0f32; TILE];
        few[TILE - count..].copy_from_slice(&values[from..from + count]);
        let tile = whitened(few.as_ptr());
        if sums {
            totals.add(&tile, TILE - count);
        }
        let results = rounded::<NARROW>(&tile, &mut largest);
        // SAFETY: `count` elements, the last of the tile's, to their places.
        unsafe { std::ptr::copy_nonoverlapping(results.as_ptr().cast::<u8>().add((TILE - count) * bytes), to.from(from).at, count * bytes) };
    };
    for (from, end) in [(0, head), (head + whole, values.len())] {
        (from..end).step_by(TILE).for_each(|from| part(from, TILE.min(end - from)));
    }
    for from in (head..head + whole).step_by(TILE) {
        let tile = whitened(values[from..from + TILE].as_ptr());
        if sums {
            totals.add(&tile, 0);
        }
        let at = to.from(from).at.cast::<__m256i>();
        for (v, x) in rounded::<NARROW>(&tile, &mut largest)[..bytes].iter().enumerate() {
            // SAFETY: a tile's elements, from where a line begins on.
            unsafe { if stream { _mm256_stream_si256(at.wrapping_add(v), *x) } else { _mm256_store_si256(at.wrapping_add(v), *x) } }
        }
    }
    totals.done(0.0, most(largest))
}
