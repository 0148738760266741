//! The scan's tile in AVX2 registers, and the way of a rollout whose every token is a chunk (kl) in one pass: standardise, fuse, return-to-go, divide,
//! round, store. The expressions and their association are those of `returns::plain` and `fuse`, so the bits are.
#![cfg(target_arch = "x86_64")]
use super::returns;
use std::arch::x86_64::*;

const TILE: usize = 32;

/// Eight registers of four positions each, rising.
type Tile = [__m256d; 8];

/// c, c^2, c^4, c^8, c^16.
struct Steps([__m256d; 5]);

impl Steps {
    #[target_feature(enable = "avx2")]
    fn new(c: f64) -> Steps {
        let c2 = c * c;
        let c4 = c2 * c2;
        let c8 = c4 * c4;
        Steps([_mm256_set1_pd(c), _mm256_set1_pd(c2), _mm256_set1_pd(c4), _mm256_set1_pd(c8), _mm256_set1_pd(c8 * c8)])
    }
}

/// y_i <- y_i + c_d y_(i+d) for d = 1, 2, 4, 8, 16 inside the tile. `UNIT`: c = 1, whose products are the values themselves.
#[inline]
#[target_feature(enable = "avx2")]
fn steps<const UNIT: bool>(y: &mut Tile, c: &Steps) {
    let zero = _mm256_setzero_pd();
    let next = |y: &Tile, v: usize| if v < 8 { y[v] } else { zero };
    let add = |y: __m256d, c: __m256d, s: __m256d| _mm256_add_pd(y, if UNIT { s } else { _mm256_mul_pd(c, s) });
    // Rising order: what is read further on has not been written yet.
    for v in 0..8 {
        let pair = _mm256_permute2f128_pd::<0x21>(y[v], next(y, v + 1));
        y[v] = add(y[v], c.0[0], _mm256_shuffle_pd::<0b0101>(y[v], pair));
    }
    for v in 0..8 {
        y[v] = add(y[v], c.0[1], _mm256_permute2f128_pd::<0x21>(y[v], next(y, v + 1)));
    }
    for (step, distance) in [(2, 1), (3, 2), (4, 4)] {
        for v in 0..8 {
            y[v] = add(y[v], c.0[step], next(y, v + distance));
        }
    }
}

/// Adds the carry of the tiles after: c^(32-i) carry at position i.
#[inline]
#[target_feature(enable = "avx2")]
fn carried<const UNIT: bool>(y: &mut Tile, rising: &[f64; TILE], carry: __m256d) {
    for v in 0..8 {
        let part = if UNIT {
            carry
        } else {
            // SAFETY: 4 v + 4 <= 32.
            _mm256_mul_pd(unsafe { _mm256_loadu_pd(rising.as_ptr().add(4 * v)) }, carry)
        };
        y[v] = _mm256_add_pd(y[v], part);
    }
}

fn rising(powers: &[f64; 33]) -> [f64; TILE] {
    std::array::from_fn(|i| powers[TILE - i])
}

#[inline]
#[target_feature(enable = "avx2")]
fn first(y: &Tile) -> __m256d {
    _mm256_broadcastsd_pd(_mm256_castpd256_pd128(y[0]))
}

/// `returns::scan`.
#[target_feature(enable = "avx2")]
pub fn scan_avx2(y: &mut [f64], powers: &[f64; 33]) {
    if powers[1] == 1.0 { scan_tiles::<true>(y, powers) } else { scan_tiles::<false>(y, powers) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn scan_tiles<const UNIT: bool>(y: &mut [f64], powers: &[f64; 33]) {
    // One position: nothing is added to it but 0.
    if let [y] = y {
        *y += 0.0;
        return;
    }
    let (c, rising) = (Steps::new(powers[1]), if UNIT { [1.0; TILE] } else { rising(powers) });
    let mut carry = _mm256_setzero_pd();
    let mut end = y.len();
    while end >= TILE {
        let at = y[end - TILE..end].as_mut_ptr();
        // SAFETY: 32 elements at `at`.
        let mut tile: Tile = std::array::from_fn(|v| unsafe { _mm256_loadu_pd(at.add(4 * v)) });
        steps::<UNIT>(&mut tile, &c);
        carried::<UNIT>(&mut tile, &rising, carry);
        // SAFETY: as above.
        (0..8).for_each(|v| unsafe { _mm256_storeu_pd(at.add(4 * v), tile[v]) });
        carry = first(&tile);
        end -= TILE;
    }
    if end > 0 {
        rest::<UNIT>(&mut y[..end], &c, &rising, carry);
    }
}

/// The positions before the whole tiles: a tile in which zeros follow them.
#[inline]
#[target_feature(enable = "avx2")]
fn rest<const UNIT: bool>(y: &mut [f64], c: &Steps, rising: &[f64; TILE], carry: __m256d) {
    let (n, at) = (y.len(), y.as_mut_ptr());
    assert!(n < TILE);
    let lanes = _mm256_setr_epi64x(0, 1, 2, 3);
    let there = |v: usize| _mm256_cmpgt_epi64(_mm256_set1_epi64x(n as i64 - 4 * v as i64), lanes);
    // SAFETY: elements below n alone are read.
    let mut tile: Tile = std::array::from_fn(|v| unsafe { _mm256_maskload_pd(at.wrapping_add(4 * v), there(v)) });
    steps::<UNIT>(&mut tile, c);
    // c^(n - i) at position i.
    let power = rising.as_ptr().wrapping_add(TILE - n);
    for (v, y) in tile.iter_mut().enumerate() {
        // SAFETY: TILE - n + i < TILE for the elements that are read.
        let part = if UNIT { carry } else { unsafe { _mm256_mul_pd(_mm256_maskload_pd(power.wrapping_add(4 * v), there(v)), carry) } };
        *y = _mm256_add_pd(*y, part);
    }
    for (v, y) in tile.iter().enumerate().take(n.div_ceil(4)) {
        // SAFETY: whole vectors below n, and of the last the elements below n.
        unsafe {
            if 4 * v + 4 <= n {
                _mm256_storeu_pd(at.add(4 * v), *y);
            } else {
                _mm256_maskstore_pd(at.add(4 * v), there(v), *y);
            }
        }
    }
}

/// What `tokens` needs beside the values.
pub struct Line<'a> {
    pub mean: f64,
    pub inv: f64,
    pub weight: f64,
    /// Are the sums wanted (for a report)?
    pub sums: bool,
    pub terms: &'a [f64],
    pub powers: &'a [f64; 33],
    /// n^-k of this K, first chunk first; empty: k = 0.
    pub divisors: &'a [f64],
}

/// What came of it: D of the first token, sums for the report.
pub struct Done {
    pub path: f64,
    pub sum: f64,
    pub squares: f64,
}

/// n tokens from `xs` to `to`, which may be one memory.
///
/// # Safety
/// AVX2; n readable values at `xs` and n writable ones at `to`, the same memory or apart.
#[target_feature(enable = "avx2")]
pub unsafe fn tokens(xs: *const f32, to: *mut f32, n: usize, line: &Line) -> Done {
    // SAFETY: passed on.
    unsafe { if line.powers[1] == 1.0 { run::<true>(xs, to, n, line) } else { run::<false>(xs, to, n, line) } }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn run<const UNIT: bool>(xs: *const f32, to: *mut f32, n: usize, line: &Line) -> Done {
    let (c, rising) = (Steps::new(line.powers[1]), rising(line.powers));
    let (mean, inv, weight) = (_mm256_set1_pd(line.mean), _mm256_set1_pd(line.inv), _mm256_set1_pd(line.weight));
    let zero = _mm256_setzero_pd();
    let (mut sum, mut squares) = ([zero; 2], [zero; 2]);
    let mut carry = zero;
    let mut end = n;
    while end >= TILE {
        let from = end - TILE;
        let mut tile: Tile = std::array::from_fn(|v| {
            // SAFETY: from + 4 v + 4 <= n.
            let x = unsafe { _mm256_cvtps_pd(_mm_loadu_ps(xs.add(from + 4 * v))) };
            _mm256_mul_pd(_mm256_sub_pd(x, mean), inv)
        });
        if line.weight != 1.0 {
            tile.iter_mut().for_each(|y| *y = _mm256_mul_pd(weight, *y));
        }
        for term in line.terms {
            let term = _mm256_set1_pd(*term);
            tile.iter_mut().for_each(|y| *y = _mm256_add_pd(*y, term));
        }
        steps::<UNIT>(&mut tile, &c);
        carried::<UNIT>(&mut tile, &rising, carry);
        carry = first(&tile);
        if !line.divisors.is_empty() {
            let divisors = line.divisors[from..from + TILE].as_ptr();
            // SAFETY: 32 elements.
            (0..8).for_each(|v| tile[v] = _mm256_mul_pd(tile[v], unsafe { _mm256_loadu_pd(divisors.add(4 * v)) }));
        }
        if line.sums {
            for (v, d) in tile.iter().enumerate() {
                sum[v % 2] = _mm256_add_pd(sum[v % 2], *d);
                squares[v % 2] = _mm256_add_pd(squares[v % 2], _mm256_mul_pd(*d, *d));
            }
        }
        for v in 0..8 {
            let d = tile[v];
            // -0, also one that underflow made, is stored as +0.
            let rounded = _mm_add_ps(_mm256_cvtpd_ps(d), _mm_setzero_ps());
            // SAFETY: as for the load, whose values have been read.
            unsafe { _mm_storeu_ps(to.add(from + 4 * v), rounded) };
        }
        end = from;
        if end == 0 {
            carry = tile[0];
        }
    }
    let lanes = |x: __m256d| -> [f64; 4] {
        let mut lanes = [0.0; 4];
        // SAFETY: four elements.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), x) };
        lanes
    };
    let total = |x: [__m256d; 2]| lanes(_mm256_add_pd(x[0], x[1])).iter().sum::<f64>();
    let mut done = Done {
        path: _mm256_cvtsd_f64(carry),
        sum: total(sum),
        squares: total(squares),
    };
    if end > 0 {
        let mut rest = [0.0f64; TILE];
        let rest = &mut rest[..end];
        for (i, y) in rest.iter_mut().enumerate() {
            // SAFETY: i < end <= n.
            let x = unsafe { *xs.add(i) } as f64;
            *y = line.terms.iter().fold(line.weight * ((x - line.mean) * line.inv), |y, t| y + t);
        }
        returns::plain(rest, line.powers, _mm256_cvtsd_f64(carry));
        for (i, d) in rest.iter_mut().enumerate() {
            if !line.divisors.is_empty() {
                *d *= line.divisors[i];
            }
            done.sum += *d;
            done.squares += *d * *d;
            // SAFETY: as above.
            unsafe { *to.add(i) = *d as f32 + 0.0 };
        }
        done.path = rest[0];
    }
    done
}

/// `chunk::live_edges`: bit t where an edge stands between positions t and t + 1. All integers are below 2^51, all products exact.
#[target_feature(enable = "avx2")]
pub fn live_edges(columns: &[i64], live: &[i64], scale: f64, inv: f64, eta: f64, bits: &mut [u64]) {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let (magic, zero) = (_mm256_set1_pd(MAGIC), _mm256_setzero_pd());
    let magnitude = _mm256_castsi256_pd(_mm256_set1_epi64x(i64::MAX));
    let (scale, inv, eta) = (_mm256_set1_pd(scale), _mm256_set1_pd(inv), _mm256_set1_pd(eta));
    let n = columns.len() - 1;
    assert!(live.len() > n);
    // SAFETY: the callers below keep at + 4 <= columns.len().
    let float = |from: &[i64], at: usize| unsafe {
        let x = _mm256_loadu_si256(from.as_ptr().add(at).cast());
        _mm256_sub_pd(_mm256_castsi256_pd(_mm256_add_epi64(x, _mm256_castpd_si256(magic))), magic)
    };
    let mut t = 0;
    while t + 5 <= columns.len() {
        let (ca, cb, na, nb) = (float(columns, t), float(columns, t + 1), float(live, t), float(live, t + 1));
        let left = _mm256_and_pd(_mm256_sub_pd(_mm256_mul_pd(cb, na), _mm256_mul_pd(ca, nb)), magnitude);
        let right = _mm256_mul_pd(_mm256_mul_pd(eta, nb), na);
        let there = _mm256_cmp_pd::<_CMP_GT_OQ>(_mm256_mul_pd(_mm256_mul_pd(left, scale), inv), right);
        let counted = _mm256_cmp_pd::<_CMP_GT_OQ>(_mm256_mul_pd(na, nb), zero);
        // Four positions lie in one word.
        bits[t / 64] |= (_mm256_movemask_pd(_mm256_and_pd(there, counted)) as u64) << (t % 64);
        t += 4;
    }
    for t in t..n {
        let (ca, cb, na, nb) = (columns[t] as f64, columns[t + 1] as f64, live[t] as f64, live[t + 1] as f64);
        let there = (cb * na - ca * nb).abs() * _mm256_cvtsd_f64(scale) * _mm256_cvtsd_f64(inv) > _mm256_cvtsd_f64(eta) * nb * na;
        bits[t / 64] |= u64::from(there && na * nb > 0.0) << (t % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::table::{decay_powers, power_table};

    /// One pass against the stages one after the other, whatever the length: whole tiles, the rest, both.
    #[test]
    fn one_pass_is_the_stages_to_the_bit() {
        if crate::numerics::simd::Simd::best() != crate::numerics::simd::Simd::Avx2 {
            println!("SKIPPED: no AVX2 on this processor");
            return;
        }
        for n in (0..100).chain([128, 1000, 1024]) {
            for (gamma, k, weight) in [(1.0, 0.7, 1.0), (0.99, 0.0, 1.0), (0.9, 1.0, -0.5)] {
                let xs: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
                let powers = decay_powers(gamma);
                let divisors: Vec<f64> = if k == 0.0 { Vec::new() } else { power_table(k, n + 1).into_iter().skip(1).rev().collect() };
                let terms = [0.25, -1.5, 0.125];
                let mut d: Vec<f64> = xs.iter().map(|x| terms.iter().fold(weight * ((*x as f64 - 0.1) * 3.0), |f, t| f + t)).collect();
                returns::plain(&mut d, &powers, 0.0);
                d.iter_mut().zip(&divisors).for_each(|(d, t)| *d *= t);
                let mut out = vec![f32::NAN; n];
                let line = Line { mean: 0.1, inv: 3.0, weight, sums: true, terms: &terms, powers: &powers, divisors: &divisors };
                // SAFETY: AVX2 is there; n values each.
                let done = unsafe { tokens(xs.as_ptr(), out.as_mut_ptr(), n, &line) };
                assert!(out.iter().zip(&d).all(|(o, d)| o.to_bits() == (*d as f32 + 0.0).to_bits()), "n {n} gamma {gamma}");
                let sum: f64 = d.iter().sum();
                assert!((done.sum - sum).abs() <= 1e-9 * (1.0 + sum.abs()));
                if n > 0 {
                    assert_eq!(done.path.to_bits(), d[0].to_bits(), "path score, n {n} gamma {gamma}");
                }
            }
        }
    }
}

/// Edges of the first tokens by comparisons of 32 at a time (`chunk::detect`): how many were listed, and the first token that was not looked at.
///
/// # Panics
/// Where `last` is shorter than `xs`.
#[target_feature(enable = "avx2")]
pub fn detect(xs: &[f32], eta: f64, last: &mut [u32]) -> (usize, usize) {
    const BLOCK: usize = 32;
    assert!(last.len() >= xs.len());
    let (mut count, mut t) = (0, 1);
    while t + BLOCK <= xs.len() {
        let mut differs = 0u32;
        for part in 0..4 {
            // SAFETY: t - 1 + 8 part + 8 < t + 32 <= the length.
            let (before, now) = unsafe { (_mm256_loadu_ps(xs.as_ptr().add(t - 1 + 8 * part)), _mm256_loadu_ps(xs.as_ptr().add(t + 8 * part))) };
            // Unordered: a NaN differs from everything.
            differs |= (_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(before, now)) as u32) << (8 * part);
        }
        while differs != 0 {
            let at = t + differs.trailing_zeros() as usize;
            differs &= differs - 1;
            // SAFETY: 1 <= at < t + 32 <= the length; `count` is below the tokens looked at, for which `last` has room.
            unsafe {
                *last.get_unchecked_mut(count) = (at - 1) as u32;
                count += usize::from(super::chunk::edge(*xs.get_unchecked(at - 1), *xs.get_unchecked(at), eta));
            }
        }
        t += BLOCK;
    }
    (count, t)
}
