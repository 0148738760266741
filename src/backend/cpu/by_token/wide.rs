//! The scans of values a token in AVX-512: a tile is four registers of eight positions. The expressions and their association are those of the AVX2 ones, and of
//! `returns::plain`, so the bits are. Rounding and writing are AVX2's, eight results at a time.
use super::fused::Fused;
use super::lanes::{Ahead, Line, Results, TILE, Writer, most};
use super::round;
use super::scan::Done;
use super::steered::Steered;
use std::arch::x86_64::*;

/// Four registers of eight positions each, rising.
type Tile = [__m512d; 4];

/// c, c^2, c^4, c^8, c^16; c^(32 - i) at position i.
struct Powers {
    steps: [__m512d; 5],
    rising: Tile,
}

impl Powers {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new(powers: &[f64; 33]) -> Powers {
        let c = powers[1];
        let (c2, c4) = (c * c, (c * c) * (c * c));
        let c8 = c4 * c4;
        let rising: [f64; TILE] = std::array::from_fn(|i| powers[TILE - i]);
        Powers {
            steps: [_mm512_set1_pd(c), _mm512_set1_pd(c2), _mm512_set1_pd(c4), _mm512_set1_pd(c8), _mm512_set1_pd(c8 * c8)],
            // SAFETY: 8 v + 8 <= 32.
            rising: std::array::from_fn(|v| unsafe { _mm512_loadu_pd(rising.as_ptr().add(8 * v)) }),
        }
    }
}

/// The eight positions that begin `BY` after those of `low`, of which `high` are the next.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn after<const BY: i32>(low: __m512d, high: __m512d) -> __m512d {
    _mm512_castsi512_pd(_mm512_alignr_epi64::<BY>(_mm512_castpd_si512(high), _mm512_castpd_si512(low)))
}

/// y_i <- y_i + c_d y_(i+d) for d = 1, 2, 4, 8, 16 inside the tile, then c^(32-i) carry; the tile's first position is the next one's carry. `UNIT`: c = 1, whose
/// products are the values themselves. Beyond the tile stands 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn scan<const UNIT: bool>(y: &mut Tile, c: &Powers, carry: &mut __m512d) {
    let zero = _mm512_setzero_pd();
    let next = |y: &Tile, v: usize| if v < 4 { y[v] } else { zero };
    let add = |y: __m512d, c: __m512d, s: __m512d| _mm512_add_pd(y, if UNIT { s } else { _mm512_mul_pd(c, s) });
    // Rising order: what is read further on has not been written yet.
    for v in 0..4 {
        y[v] = add(y[v], c.steps[0], after::<1>(y[v], next(y, v + 1)));
    }
    for v in 0..4 {
        y[v] = add(y[v], c.steps[1], after::<2>(y[v], next(y, v + 1)));
    }
    for v in 0..4 {
        y[v] = add(y[v], c.steps[2], after::<4>(y[v], next(y, v + 1)));
    }
    for (step, distance) in [(3, 1), (4, 2)] {
        for v in 0..4 - distance {
            y[v] = add(y[v], c.steps[step], y[v + distance]);
        }
    }
    for v in 0..4 {
        y[v] = add(y[v], c.rising[v], *carry);
    }
    *carry = _mm512_broadcastsd_pd(_mm512_castpd512_pd128(y[0]));
}

/// Elements i .. i + 32. Always inlined, into functions that have AVX-512.
///
/// # Safety
/// AVX-512; they are readable.
#[inline(always)]
unsafe fn load(from: Line, i: usize) -> Tile {
    // SAFETY: by the caller's word.
    unsafe { [0, 8, 16, 24].map(|v| _mm512_cvtps_pd(from.eight(i + v))) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn rounded<const NARROW: bool>(tile: &Tile, largest: &mut __m256i) -> Results {
    let mut nearest = [_mm256_setzero_ps(); 4];
    for (to, x) in nearest.iter_mut().zip(tile) {
        *to = _mm512_cvtpd_ps(*x);
    }
    if !NARROW {
        return round::wide(nearest, largest);
    }
    for v in [0, 2] {
        let (a, b) = (nearest[v], nearest[v + 1]);
        (nearest[v], nearest[v + 1]) = (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
    }
    // SAFETY: AVX2 is there where AVX-512 is.
    unsafe { round::narrow(nearest, || halves(tile), largest) }
}

/// A tile in registers of four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn halves(tile: &Tile) -> super::lanes::Tile {
    std::array::from_fn(|v| if v % 2 == 0 { _mm512_castpd512_pd256(tile[v / 2]) } else { _mm512_extractf64x4_pd::<1>(tile[v / 2]) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn lanes(tile: &Tile) -> [f64; TILE] {
    let mut lanes = [0.0f64; TILE];
    for (v, y) in tile.iter().enumerate() {
        // SAFETY: eight elements.
        unsafe { _mm512_storeu_pd(lanes.as_mut_ptr().add(8 * v), *y) };
    }
    lanes
}

/// Sums of results, where a report wants them.
struct Totals {
    sum: __m512d,
    squares: __m512d,
    rest: (f64, f64),
}

impl Totals {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new() -> Totals {
        Totals { sum: _mm512_setzero_pd(), squares: _mm512_setzero_pd(), rest: (0.0, 0.0) }
    }

    /// Adds a tile, whose first `lead` positions are before the line.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn add(&mut self, tile: &Tile, lead: usize) {
        if lead == 0 {
            for d in tile {
                self.sum = _mm512_add_pd(self.sum, *d);
                self.squares = _mm512_add_pd(self.squares, _mm512_mul_pd(*d, *d));
            }
        } else {
            for d in &lanes(tile)[lead..] {
                self.rest.0 += d;
                self.rest.1 += d * d;
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn done(&self, path: f64, largest: u32) -> Done {
        let zero = _mm512_setzero_pd();
        let total = |x: __m512d| lanes(&[x, zero, zero, zero]).iter().sum::<f64>();
        Done { path, sum: total(self.sum) + self.rest.0, squares: total(self.squares) + self.rest.1, largest }
    }
}

/// As `fused::tokens`: n values (at least one), a chunk each, from `xs` to `to`, which may be one memory.
///
/// # Safety
/// AVX-512; n readable values and n writable ones, the same memory or apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub unsafe fn tokens(xs: Line, to: Line, n: usize, stream: bool, line: &Fused, ahead: &mut Ahead) -> Done {
    // SAFETY: passed on.
    unsafe {
        match (line.powers[1] == 1.0, to.narrow) {
            (true, false) => fused::<true, false>(xs, Writer::new(to, n, stream), n, line, ahead),
            (true, true) => fused::<true, true>(xs, Writer::new(to, n, stream), n, line, ahead),
            (false, false) => fused::<false, false>(xs, Writer::new(to, n, stream), n, line, ahead),
            (false, true) => fused::<false, true>(xs, Writer::new(to, n, stream), n, line, ahead),
        }
    }
}

/// D of a tile: 32 values of `xs`, their divisors at `divisors`.
///
/// # Safety
/// AVX-512; 32 readable values and, where there are divisors at all, as many of those.
#[inline(always)]
unsafe fn fused_tile<const UNIT: bool>(xs: Line, divisors: *const f64, k: &Powers, line: &Fused, carry: &mut __m512d) -> Tile {
    // SAFETY: by the caller's word.
    unsafe {
        let mut tile = load(xs, 0);
        let (mean, inv) = (_mm512_set1_pd(line.mean), _mm512_set1_pd(line.inv));
        for y in &mut tile {
            *y = _mm512_mul_pd(_mm512_sub_pd(*y, mean), inv);
        }
        if line.weight != 1.0 {
            let weight = _mm512_set1_pd(line.weight);
            for y in &mut tile {
                *y = _mm512_mul_pd(weight, *y);
            }
        }
        for term in line.terms {
            let term = _mm512_set1_pd(*term);
            for y in &mut tile {
                *y = _mm512_add_pd(*y, term);
            }
        }
        scan::<UNIT>(&mut tile, k, carry);
        if !line.divisors.is_empty() {
            for (v, y) in tile.iter_mut().enumerate() {
                *y = _mm512_mul_pd(*y, _mm512_loadu_pd(divisors.add(8 * v)));
            }
        }
        tile
    }
}

/// What is wanted of a tile beside its rounded results.
///
/// # Safety
/// AVX-512; room for the line's results where they are wanted unrounded.
#[inline(always)]
unsafe fn fused_beside(tile: &Tile, lead: usize, line: &Fused, end: usize, totals: &mut Totals) {
    // SAFETY: by the caller's word.
    unsafe {
        if line.sums {
            totals.add(tile, lead);
        }
        if !line.exact.is_null() {
            std::ptr::copy_nonoverlapping(lanes(tile).as_ptr().add(lead), line.exact.add(end.saturating_sub(TILE)), TILE - lead);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn fused<const UNIT: bool, const NARROW: bool>(xs: Line, mut to: Writer<NARROW>, n: usize, line: &Fused, ahead: &mut Ahead) -> Done {
    let k = Powers::new(line.powers);
    let mut totals = Totals::new();
    let (mut carry, mut largest) = (_mm512_setzero_pd(), _mm256_setzero_si256());
    let (mut some, mut table) = ([0u32; TILE], [0.0f64; TILE]);
    let mut end = n;
    // The line's last tile and its lowest, which may be short, and between them whole tiles, whose registers stay registers.
    loop {
        let lead = TILE.saturating_sub(end);
        let (values, divisors) = if lead == 0 {
            (xs.from(end - TILE), line.divisors.as_ptr().wrapping_add(end - TILE))
        } else {
            if !line.divisors.is_empty() {
                table[lead..].copy_from_slice(&line.divisors[..end]);
            }
            // SAFETY: the first `end` values.
            (unsafe { xs.at_the_end_of(&mut some, end) }, table.as_ptr())
        };
        // SAFETY: 32 values, and as many divisors where there are any; room for n results; elements of the line, whose values have been read.
        let tile = unsafe {
            let tile = fused_tile::<UNIT>(values, divisors, &k, line, &mut carry);
            fused_beside(&tile, lead, line, end, &mut totals);
            to.tile(end as isize - TILE as isize, &rounded::<NARROW>(&tile, &mut largest));
            tile
        };
        if end <= TILE {
            return totals.done(lanes(&tile)[lead], most(largest));
        }
        ahead.go();
        end -= TILE;
        while end > TILE {
            // SAFETY: as above.
            unsafe {
                let tile = fused_tile::<UNIT>(xs.from(end - TILE), line.divisors.as_ptr().wrapping_add(end - TILE), &k, line, &mut carry);
                fused_beside(&tile, 0, line, end, &mut totals);
                to.whole(end - TILE, &rounded::<NARROW>(&tile, &mut largest));
            }
            ahead.go();
            end -= TILE;
        }
    }
}

/// GAE of n tokens in scope (at least one): advantages to `to`, returns to `returns`.
///
/// # Safety
/// The instruction set; n readable rewards and values, n writable results; the advantages may lie over the rewards or the values, the returns over nothing.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub unsafe fn gae(
    inputs: (Option<Line>, Line),
    to: (Line, bool),
    returns: Option<(Line, bool)>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    let narrow = (to.0.narrow, returns.map_or(to.0.narrow, |r| r.0.narrow));
    // SAFETY: passed on.
    unsafe {
        match narrow {
            (false, false) => steered_by::<false, false>(inputs, to, returns, n, line, ahead),
            (true, true) => steered_by::<true, true>(inputs, to, returns, n, line, ahead),
            (false, true) => steered_by::<false, true>(inputs, to, returns, n, line, ahead),
            (true, false) => steered_by::<true, false>(inputs, to, returns, n, line, ahead),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn steered_by<const A: bool, const R: bool>(
    inputs: (Option<Line>, Line),
    to: (Line, bool),
    returns: Option<(Line, bool)>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    let to = Writer::<A>::new(to.0, n, to.1);
    let returns = returns.map(|(at, stream)| Writer::<R>::new(at, n, stream));
    // SAFETY: passed on.
    unsafe {
        if line.powers[1] == 1.0 {
            steered::<true, A, R>(inputs, to, returns, n, line, ahead)
        } else {
            steered::<false, A, R>(inputs, to, returns, n, line, ahead)
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn steered<const UNIT: bool, const A: bool, const R: bool>(
    inputs: (Option<Line>, Line),
    mut to: Writer<A>,
    mut returns: Option<Writer<R>>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    let (rewards, values) = inputs;
    let k = constants(line);
    let mut totals = Totals::new();
    let (mut carry, mut next) = (every(0.0), every(line.next));
    let mut largest = _mm256_setzero_si256();
    let (mut some, mut more) = ([0u32; TILE], [0u32; TILE]);
    let (mut end, tail) = (n, line.tail);
    debug_assert!(tail == 0 || n > TILE);
    let mut last = reward_at(line.reward, TILE - 1 - tail);
    // The line's last tile and its lowest, which may be short, and between them whole tiles, whose registers stay registers.
    loop {
        let lead = TILE.saturating_sub(end);
        // SAFETY: the first `end` rewards and values.
        let (reward, value) = unsafe {
            if lead == 0 && (tail == 0 || end < n) {
                (rewards.map(|r| r.from(end - TILE)), values.from(end - TILE))
            } else if lead == 0 {
                let (reward, value) = (rewards.map(|r| r.from(end - TILE)), values.from(end - TILE));
                (reward.map(|r| r.at_the_beginning_of(&mut some, TILE - tail)), value.at_the_beginning_of(&mut more, TILE - tail))
            } else {
                (rewards.map(|r| r.at_the_end_of(&mut some, end)), values.at_the_end_of(&mut more, end))
            }
        };
        let from = end as isize - TILE as isize;
        // SAFETY: 32 rewards and values; elements of the line, whose rewards and values have been read.
        let tile = unsafe {
            let (tile, value) = steered_tile::<UNIT>(reward, last, value, &k, &mut next, &mut carry);
            if line.sums {
                totals.add(&tile, lead);
            }
            to.tile(from, &rounded::<A>(&tile, &mut largest));
            if let Some(returns) = &mut returns {
                returns.tile(from, &rounded::<R>(&plus(&value, &tile), &mut largest));
            }
            tile
        };
        if end <= TILE {
            return totals.done(lanes(&tile)[lead], most(largest));
        }
        last = [every(0.0); 4];
        ahead.go();
        end -= TILE;
        while end > TILE {
            // SAFETY: as above.
            unsafe {
                let (tile, value) =
                    steered_tile::<UNIT>(rewards.map(|r| r.from(end - TILE)), last, values.from(end - TILE), &k, &mut next, &mut carry);
                if line.sums {
                    totals.add(&tile, 0);
                }
                to.whole(end - TILE, &rounded::<A>(&tile, &mut largest));
                if let Some(returns) = &mut returns {
                    returns.whole(end - TILE, &rounded::<R>(&plus(&value, &tile), &mut largest));
                }
            }
            ahead.go();
            end -= TILE;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn constants(line: &Steered) -> (Powers, __m512d) {
    (Powers::new(line.powers), every(line.gamma))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn every(x: f64) -> __m512d {
    _mm512_set1_pd(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn reward_at(x: f64, at: usize) -> Tile {
    let mut rewards = [0.0; TILE];
    rewards[at] = x;
    // SAFETY: eight elements each.
    std::array::from_fn(|v| unsafe { _mm512_loadu_pd(rewards.as_ptr().add(8 * v)) })
}

/// The deltas of a tile, scanned: advantages, and the values they are of.
///
/// # Safety
/// AVX-512; 32 readable rewards (where there are any) and values.
#[inline(always)]
unsafe fn steered_tile<const UNIT: bool>(
    rewards: Option<Line>,
    last: Tile,
    values: Line,
    k: &(Powers, __m512d),
    next: &mut __m512d,
    carry: &mut __m512d,
) -> (Tile, Tile) {
    // SAFETY: by the caller's word.
    unsafe {
        let value = load(values, 0);
        let mut tile = match rewards {
            Some(rewards) => load(rewards, 0),
            None => last,
        };
        for v in 0..4 {
            let following = after::<1>(value[v], if v < 3 { value[v + 1] } else { *next });
            tile[v] = _mm512_sub_pd(_mm512_add_pd(tile[v], _mm512_mul_pd(k.1, following)), value[v]);
        }
        *next = _mm512_broadcastsd_pd(_mm512_castpd512_pd128(value[0]));
        scan::<UNIT>(&mut tile, &k.0, carry);
        (tile, value)
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn plus(a: &Tile, b: &Tile) -> Tile {
    std::array::from_fn(|v| _mm512_add_pd(a[v], b[v]))
}
