//! Scans in one pass from the inputs' memory to the outputs': values a token standardised and fused, or rewards and values (GAE); return-to-go in tiles;
//! divide, round, store. The expressions and their association are those of `returns::plain`, `fuse` and `gae`, so the bits are.
use super::super::tile::{Steps, carried, first, rising, steps};
use super::lanes::{Ahead, Line, TILE, Tile, Writer, most, round};
use std::arch::x86_64::*;

/// What came of a line: its first result, sums for the report, bits of the largest magnitude in f32 (beyond f32 and not finite values among them).
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub path: f64,
    pub sum: f64,
    pub squares: f64,
    pub largest: u32,
}

/// Sums of results, where a report wants them.
struct Totals {
    sum: [__m256d; 2],
    squares: [__m256d; 2],
    rest: (f64, f64),
}

impl Totals {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Totals {
        let zero = _mm256_setzero_pd();
        Totals { sum: [zero; 2], squares: [zero; 2], rest: (0.0, 0.0) }
    }

    /// Adds a tile, whose first `lead` positions are before the line.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, tile: &Tile, lead: usize) {
        if lead == 0 {
            for (v, d) in tile.iter().enumerate() {
                self.sum[v % 2] = _mm256_add_pd(self.sum[v % 2], *d);
                self.squares[v % 2] = _mm256_add_pd(self.squares[v % 2], _mm256_mul_pd(*d, *d));
            }
        } else {
            for d in &lanes(tile)[lead..] {
                self.rest.0 += d;
                self.rest.1 += d * d;
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn done(&self, path: f64, largest: u32) -> Done {
        let total = |x: [__m256d; 2]| {
            let mut lanes = [0.0f64; 4];
            // SAFETY: four elements.
            unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), _mm256_add_pd(x[0], x[1])) };
            lanes.iter().sum::<f64>()
        };
        Done { path, sum: total(self.sum) + self.rest.0, squares: total(self.squares) + self.rest.1, largest }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes(tile: &Tile) -> [f64; TILE] {
    let mut lanes = [0.0f64; TILE];
    for (v, y) in tile.iter().enumerate() {
        // SAFETY: four elements.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr().add(4 * v), *y) };
    }
    lanes
}

#[inline]
#[target_feature(enable = "avx2")]
fn rounded<const NARROW: bool>(tile: &Tile, largest: &mut __m256i) -> [__m256; 4] {
    [
        round::<NARROW>(tile[0], tile[1], largest),
        round::<NARROW>(tile[2], tile[3], largest),
        round::<NARROW>(tile[4], tile[5], largest),
        round::<NARROW>(tile[6], tile[7], largest),
    ]
}

/// What `tokens` needs beside the values.
pub struct Fused<'a> {
    pub mean: f64,
    pub inv: f64,
    pub weight: f64,
    pub terms: &'a [f64],
    pub powers: &'a [f64; 33],
    /// n^-k of this K, first chunk first; empty: k = 0.
    pub divisors: &'a [f64],
    /// Are the sums wanted?
    pub sums: bool,
    /// Room for n results unrounded, or null: they are not wanted.
    pub exact: *mut f64,
}

/// The numbers of `Fused` in registers' shape.
struct Consts {
    c: Steps,
    rising: [f64; TILE],
    mean: __m256d,
    inv: __m256d,
}

/// D of a tile: 32 values of `xs`, their divisors at `divisors`. Always inlined, into functions that have AVX2: a tile handed over in memory costs as much as its scan.
///
/// # Safety
/// AVX2; 32 readable values and, where there are divisors at all, as many of those.
#[inline(always)]
unsafe fn fused_tile<const UNIT: bool>(xs: Line, divisors: *const f64, k: &Consts, line: &Fused, carry: &mut __m256d) -> Tile {
    // SAFETY: by the caller's word.
    unsafe {
        let mut tile = xs.tile(0);
        for y in &mut tile {
            *y = _mm256_mul_pd(_mm256_sub_pd(*y, k.mean), k.inv);
        }
        if line.weight != 1.0 {
            let weight = _mm256_set1_pd(line.weight);
            for y in &mut tile {
                *y = _mm256_mul_pd(weight, *y);
            }
        }
        for term in line.terms {
            let term = _mm256_set1_pd(*term);
            for y in &mut tile {
                *y = _mm256_add_pd(*y, term);
            }
        }
        steps::<UNIT>(&mut tile, &k.c);
        carried::<UNIT>(&mut tile, &k.rising, *carry);
        *carry = first(&tile);
        if !line.divisors.is_empty() {
            for (v, y) in tile.iter_mut().enumerate() {
                *y = _mm256_mul_pd(*y, _mm256_loadu_pd(divisors.add(4 * v)));
            }
        }
        tile
    }
}

/// n values (at least one), a chunk each, from `xs` to `to`, which may be one memory.
///
/// # Safety
/// AVX2; n readable values and n writable ones, the same memory or apart.
#[target_feature(enable = "avx2")]
pub unsafe fn tokens<const NARROW: bool>(xs: Line, to: Line, n: usize, stream: bool, line: &Fused, ahead: &mut Ahead) -> Done {
    // SAFETY: passed on.
    unsafe {
        if line.powers[1] == 1.0 {
            fused::<true, NARROW>(xs, Writer::new(to, n, stream), n, line, ahead)
        } else {
            fused::<false, NARROW>(xs, Writer::new(to, n, stream), n, line, ahead)
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn fused<const UNIT: bool, const NARROW: bool>(xs: Line, mut to: Writer<NARROW>, n: usize, line: &Fused, ahead: &mut Ahead) -> Done {
    let k = Consts { c: Steps::new(line.powers[1]), rising: rising(line.powers), mean: _mm256_set1_pd(line.mean), inv: _mm256_set1_pd(line.inv) };
    let mut totals = Totals::new();
    let mut carry = _mm256_setzero_pd();
    let mut largest = _mm256_setzero_si256();
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
        // SAFETY: 32 values, and as many divisors where there are any.
        let tile = unsafe { fused_tile::<UNIT>(values, divisors, &k, line, &mut carry) };
        // SAFETY: room for n results; elements of the line, whose values have been read.
        unsafe {
            fused_beside(&tile, lead, line, end, &mut totals);
            to.tile(end as isize - TILE as isize, &rounded::<NARROW>(&tile, &mut largest));
        }
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

/// What is wanted of a tile beside its rounded results. Inlined as `fused_tile` is.
///
/// # Safety
/// AVX2; room for the line's results where they are wanted unrounded.
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

/// What GAE needs beside rewards and values.
pub struct Steered<'a> {
    pub gamma: f64,
    /// The value after the last token.
    pub next: f64,
    /// The last token's reward, where there are none a token.
    pub reward: f64,
    pub powers: &'a [f64; 33],
    pub sums: bool,
}

/// The deltas of a tile, scanned: advantages, and the values they are of. Inlined as `fused_tile` is.
///
/// # Safety
/// AVX2; 32 readable rewards (where there are any) and values.
#[inline(always)]
unsafe fn steered_tile<const UNIT: bool>(
    rewards: Option<Line>,
    last: __m256d,
    values: Line,
    k: &(Steps, [f64; TILE], __m256d),
    next: &mut __m256d,
    carry: &mut __m256d,
) -> (Tile, Tile) {
    // SAFETY: by the caller's word.
    unsafe {
        let zero = _mm256_setzero_pd();
        let value = values.tile(0);
        let mut tile = match rewards {
            Some(rewards) => rewards.tile(0),
            None => [zero, zero, zero, zero, zero, zero, zero, last],
        };
        for v in 0..8 {
            let beyond = if v < 7 { value[v + 1] } else { *next };
            let pair = _mm256_permute2f128_pd::<0x21>(value[v], beyond);
            let after = _mm256_shuffle_pd::<0b0101>(value[v], pair);
            tile[v] = _mm256_sub_pd(_mm256_add_pd(tile[v], _mm256_mul_pd(k.2, after)), value[v]);
        }
        *next = first(&value);
        steps::<UNIT>(&mut tile, &k.0);
        carried::<UNIT>(&mut tile, &k.1, *carry);
        *carry = first(&tile);
        (tile, value)
    }
}

/// GAE of n tokens in scope (at least one): advantages to `to`, returns to `returns`.
///
/// # Safety
/// AVX2; n readable rewards and values, n writable results; the advantages may lie over the rewards or the values, the returns over nothing.
#[target_feature(enable = "avx2")]
pub unsafe fn gae(inputs: (Option<Line>, Line), to: (Line, bool), returns: Option<(Line, bool)>, n: usize, line: &Steered, ahead: &mut Ahead) -> Done {
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

#[target_feature(enable = "avx2")]
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
    unsafe { if line.powers[1] == 1.0 { steered::<true, A, R>(inputs, to, returns, n, line, ahead) } else { steered::<false, A, R>(inputs, to, returns, n, line, ahead) } }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn steered<const UNIT: bool, const A: bool, const R: bool>(
    inputs: (Option<Line>, Line),
    mut to: Writer<A>,
    mut returns: Option<Writer<R>>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    let (rewards, values) = inputs;
    let k = (Steps::new(line.powers[1]), rising(line.powers), _mm256_set1_pd(line.gamma));
    let mut totals = Totals::new();
    let (mut carry, mut next) = (_mm256_setzero_pd(), _mm256_set1_pd(line.next));
    let mut largest = _mm256_setzero_si256();
    let mut last = _mm256_setr_pd(0.0, 0.0, 0.0, line.reward);
    let (mut some, mut more) = ([0u32; TILE], [0u32; TILE]);
    let mut end = n;
    // The line's last tile and its lowest, which may be short, and between them whole tiles, whose registers stay registers.
    loop {
        let lead = TILE.saturating_sub(end);
        // SAFETY: the first `end` rewards and values.
        let (reward, value) = unsafe {
            if lead == 0 {
                (rewards.map(|r| r.from(end - TILE)), values.from(end - TILE))
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
        last = _mm256_setzero_pd();
        ahead.go();
        end -= TILE;
        while end > TILE {
            // SAFETY: as above.
            unsafe {
                let (tile, value) = steered_tile::<UNIT>(rewards.map(|r| r.from(end - TILE)), last, values.from(end - TILE), &k, &mut next, &mut carry);
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
#[target_feature(enable = "avx2")]
fn plus(a: &Tile, b: &Tile) -> Tile {
    let mut sum = *a;
    for (sum, b) in sum.iter_mut().zip(b) {
        *sum = _mm256_add_pd(*sum, *b);
    }
    sum
}
