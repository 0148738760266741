//! The scan's tile in AVX2 registers, and comparisons of many tokens or positions at a time. The expressions and their association are those of
//! `returns::plain`, so the bits are.
#![cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

const TILE: usize = 32;

/// Eight registers of four positions each, rising.
pub type Tile = [__m256d; 8];

/// c, c^2, c^4, c^8, c^16.
pub struct Steps(pub [__m256d; 5]);

impl Steps {
    #[target_feature(enable = "avx2")]
    pub fn new(c: f64) -> Steps {
        let c2 = c * c;
        let c4 = c2 * c2;
        let c8 = c4 * c4;
        Steps([_mm256_set1_pd(c), _mm256_set1_pd(c2), _mm256_set1_pd(c4), _mm256_set1_pd(c8), _mm256_set1_pd(c8 * c8)])
    }
}

/// The steps of a tile of a few positions, in at most four registers.
pub struct Powers {
    unit: bool,
    steps: Steps,
}

impl Powers {
    /// Of c.
    #[target_feature(enable = "avx2")]
    pub fn new(c: f64) -> Powers {
        Powers { unit: c == 1.0, steps: Steps::new(c) }
    }

    /// `returns::scan` of fewer than `TILE` positions, after which zeros stand.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn sum<const N: usize>(&self, y: &mut [__m256d; N]) {
        if self.unit { few::<true, N>(y, &self.steps) } else { few::<false, N>(y, &self.steps) }
    }
}

/// `steps` of N registers.
#[inline]
#[target_feature(enable = "avx2")]
pub fn few<const UNIT: bool, const N: usize>(y: &mut [__m256d; N], c: &Steps) {
    let zero = _mm256_setzero_pd();
    let add = |y: __m256d, c: __m256d, s: __m256d| _mm256_add_pd(y, if UNIT { s } else { _mm256_mul_pd(c, s) });
    let pair = |y: &[__m256d; N], v: usize| _mm256_permute2f128_pd::<0x21>(y[v], if v + 1 < N { y[v + 1] } else { zero });
    for v in 0..N {
        y[v] = add(y[v], c.0[0], _mm256_shuffle_pd::<0b0101>(y[v], pair(y, v)));
    }
    for v in 0..N {
        y[v] = add(y[v], c.0[1], pair(y, v));
    }
    for (step, distance) in [(2, 1), (3, 2), (4, 4)] {
        for v in 0..N.saturating_sub(distance) {
            y[v] = add(y[v], c.0[step], y[v + distance]);
        }
    }
}

/// y_i <- y_i + c_d y_(i+d) for d = 1, 2, 4, 8, 16 inside the tile. `UNIT`: c = 1, whose products are the values themselves.
#[inline]
#[target_feature(enable = "avx2")]
pub fn steps<const UNIT: bool>(y: &mut Tile, c: &Steps) {
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
    // Beyond the tile stands 0: the sum is the value itself (or a zero of the other sign, which no result keeps).
    for (step, distance) in [(2, 1), (3, 2), (4, 4)] {
        for v in 0..8 - distance {
            y[v] = add(y[v], c.0[step], y[v + distance]);
        }
    }
}

/// Adds the carry of the tiles after: c^(32-i) carry at position i.
#[inline]
#[target_feature(enable = "avx2")]
pub fn carried<const UNIT: bool>(y: &mut Tile, rising: &[f64; TILE], carry: __m256d) {
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

pub fn rising(powers: &[f64; 33]) -> [f64; TILE] {
    std::array::from_fn(|i| powers[TILE - i])
}

/// The tile's first position, in every lane.
#[inline]
#[target_feature(enable = "avx2")]
pub fn first(y: &Tile) -> __m256d {
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

/// No two sums of the values of at most `RUNS` rollouts, of 30 bits each, are as far apart.
const NEVER: i64 = 1 << 40;

/// The least whole distance of two sums that stands for an edge: (d part) inv > right holds from there on.
fn least_edge(part: f64, inv: f64, right: f64) -> i64 {
    let edge = |d: i64| d as f64 * part * inv > right;
    let (mut none, mut least) = (0, NEVER);
    // The quotient is nearly that, but for numbers at the ends of f64.
    let guess = (right / (part * inv)).clamp(0.0, NEVER as f64) as i64;
    for d in [guess - 2, guess + 2] {
        if none < d && d < least {
            if edge(d) { least = d } else { none = d }
        }
    }
    while least - none > 1 {
        let d = none + (least - none) / 2;
        if edge(d) { least = d } else { none = d }
    }
    least
}

/// The same where the live counts come in runs: inside one the condition is of the difference of two sums alone, |n C - n C'| = n |C - C'|, and 2^(e - 30) n is
/// exact; so it is that of an integer with a bound. `bits` are clear.
#[target_feature(enable = "avx2")]
pub fn run_edges(columns: &[i64], runs: &[super::chunk::Run], scale: f64, inv: f64, eta: f64, bits: &mut [u64]) {
    let mut first = 0;
    for (r, run) in runs.iter().enumerate() {
        let n = run.live as f64;
        // Positions t with t + 1 in the run.
        let end = run.end.min(columns.len()) - 1;
        let least = least_edge(n * scale, inv, eta * n * n);
        // -least < d < least, as one comparison: d + (least - 1), as a number without sign, is at most 2 (least - 1).
        let (raise, most) = (_mm256_set1_epi64x(i64::MIN + least - 1), _mm256_set1_epi64x(i64::MIN + 2 * (least - 1)));
        let single = |t: usize| (columns[t + 1] - columns[t]).abs() >= least;
        let four = |t: usize| {
            // SAFETY: t + 4 <= end, so that t + 1 + 4 <= columns.len().
            let (a, b) = unsafe { (_mm256_loadu_si256(columns.as_ptr().add(t).cast()), _mm256_loadu_si256(columns.as_ptr().add(t + 1).cast())) };
            let there = _mm256_cmpgt_epi64(_mm256_add_epi64(_mm256_sub_epi64(b, a), raise), most);
            _mm256_movemask_pd(_mm256_castsi256_pd(there)) as u64
        };
        let mut t = first;
        while t < end {
            // To the end of a word, or of the run.
            let (word, stop) = (t / 64, end.min(t / 64 * 64 + 64));
            let mut found = 0u64;
            while t < stop && t % 4 != 0 {
                found |= u64::from(single(t)) << (t % 64);
                t += 1;
            }
            if stop - t == 64 {
                for part in 0..16 {
                    found |= four(t + 4 * part) << (4 * part);
                }
                t = stop;
            }
            while t + 4 <= stop {
                found |= four(t) << (t % 64);
                t += 4;
            }
            while t < stop {
                found |= u64::from(single(t)) << (t % 64);
                t += 1;
            }
            bits[word] |= found;
        }
        // From the run's last position to the next one's first.
        if let Some(next) = runs.get(r + 1) {
            let (a, b, m) = (columns[end] as f64, columns[end + 1] as f64, next.live as f64);
            bits[end / 64] |= u64::from((b * n - a * m).abs() * scale * inv > eta * m * n) << (end % 64);
        }
        first = run.end;
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
