//! kl: values a token standardised and fused, return-to-go, divided, rounded and stored, in one pass from the input's memory to the output's. The expressions
//! are those of `fuse` and `standard`.
use super::lanes::{Ahead, Line, TILE, Tile, Writer, doubles};
use super::round::rounded;
use super::scan::{Done, Rows, Scan, Totals, lanes};
use super::short;
use std::arch::x86_64::*;

/// How many tiles before its scan a tile's values are fused: 14 to 18 stores each.
const BEFORE: usize = 4;

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
pub struct Consts {
    mean: __m256d,
    inv: __m256d,
    weight: __m256d,
    terms: [__m256d; 2],
}

/// n values (at least one), a chunk each, from `xs` to `to`, which may be one memory.
///
/// # Safety
/// AVX2; n readable values and n writable ones, the same memory or apart.
#[target_feature(enable = "avx2")]
pub unsafe fn tokens(xs: Line, to: Line, n: usize, stream: bool, line: &Fused, ahead: &mut Ahead) -> Done {
    // Most lines: two terms at most, of weight 1. A term of 0 changes nothing (or the sign of a zero, which no result keeps).
    let plain = line.weight == 1.0 && line.terms.len() <= 2;
    // SAFETY: passed on.
    unsafe {
        match (plain, line.powers[1] == 1.0) {
            (true, true) => typed::<true, true>(xs, to, n, stream, line, ahead),
            (true, false) => typed::<true, false>(xs, to, n, stream, line, ahead),
            (false, true) => typed::<false, true>(xs, to, n, stream, line, ahead),
            (false, false) => typed::<false, false>(xs, to, n, stream, line, ahead),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn typed<const PLAIN: bool, const UNIT: bool>(xs: Line, to: Line, n: usize, stream: bool, line: &Fused, ahead: &mut Ahead) -> Done {
    // SAFETY: passed on.
    unsafe {
        match (xs.narrow, to.narrow) {
            (false, false) => pass::<PLAIN, UNIT, false, false>(xs, to, n, stream, line, ahead),
            (false, true) => pass::<PLAIN, UNIT, false, true>(xs, to, n, stream, line, ahead),
            (true, false) => pass::<PLAIN, UNIT, true, false>(xs, to, n, stream, line, ahead),
            (true, true) => pass::<PLAIN, UNIT, true, true>(xs, to, n, stream, line, ahead),
        }
    }
}

/// F of eight tokens, to a row. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; eight readable values from element i on, a row.
#[inline(always)]
unsafe fn fuse<const PLAIN: bool, const NARROW: bool>(xs: *const u8, i: usize, k: &Consts, line: &Fused, row: *mut f64) {
    // SAFETY: by the caller's word.
    unsafe {
        for (v, x) in doubles::<NARROW>(xs, i).into_iter().enumerate() {
            _mm256_storeu_pd(row.add(i + 4 * v), fused::<PLAIN>(x, k, line));
        }
    }
}

/// F of four values. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub unsafe fn fused<const PLAIN: bool>(x: __m256d, k: &Consts, line: &Fused) -> __m256d {
    // SAFETY: by the caller's word.
    unsafe {
        let mut f = _mm256_mul_pd(_mm256_sub_pd(x, k.mean), k.inv);
        if PLAIN {
            return _mm256_add_pd(_mm256_add_pd(f, k.terms[0]), k.terms[1]);
        }
        f = _mm256_mul_pd(k.weight, f);
        for term in line.terms {
            f = _mm256_add_pd(f, _mm256_set1_pd(*term));
        }
        f
    }
}

#[target_feature(enable = "avx2")]
unsafe fn pass<const PLAIN: bool, const UNIT: bool, const IN: bool, const OUT: bool>(
    xs: Line,
    to: Line,
    n: usize,
    stream: bool,
    line: &Fused,
    ahead: &mut Ahead,
) -> Done {
    let set = |x: f64| _mm256_set1_pd(x);
    let term = |i: usize| set(line.terms.get(i).copied().unwrap_or(0.0));
    let k = Consts { mean: set(line.mean), inv: set(line.inv), weight: set(line.weight), terms: [term(0), term(1)] };
    if n <= 4 * short::WHOLE && line.exact.is_null() {
        ahead.go();
        // SAFETY: passed on.
        return unsafe {
            if n <= 4 * short::HALF {
                short::tokens::<PLAIN, UNIT, OUT, { short::HALF }>(Line { narrow: IN, ..xs }, to, n, &k, line)
            } else {
                short::tokens::<PLAIN, UNIT, OUT, { short::WHOLE }>(Line { narrow: IN, ..xs }, to, n, &k, line)
            }
        };
    }
    let mut to = Writer::<OUT>::new(to, n, stream);
    let (mut scan, mut totals, mut rows) = (Scan::new(line.powers), Totals::new(), Rows::new());
    rows.end_in_zero();
    let (mut some, mut table, mut unused) = ([0u32; TILE], [0.0f64; TILE], _mm256_setzero_si256());
    // Tile 0 is the line's last; the lowest may be short, and its values and divisors are copied to where 32 are.
    let (tiles, low) = (n.div_ceil(TILE), n - (n - 1) / TILE * TILE);
    // SAFETY: the first `low` values.
    let lowest = unsafe { xs.at_the_end_of(&mut some, low) };
    let divided = !line.divisors.is_empty();
    if divided {
        table[TILE - low..].copy_from_slice(&line.divisors[..low]);
    }
    let values = |j: usize| if j + 1 < tiles { xs.from(n - TILE * (j + 1)).at } else { lowest.at };
    let divide = |tile: &mut Tile, divisors: *const f64| {
        if divided {
            for (v, y) in tile.iter_mut().enumerate() {
                // SAFETY: 32 divisors, as the callers below choose them.
                *y = _mm256_mul_pd(*y, unsafe { _mm256_loadu_pd(divisors.add(4 * v)) });
            }
        }
    };
    let ready = |rows: &mut Rows, j: usize| {
        let (from, row) = (values(j), rows.row(j));
        for part in 0..4 {
            // SAFETY: 32 values; a row.
            unsafe { fuse::<PLAIN, IN>(from, 8 * part, &k, line, row) };
        }
    };
    (0..tiles.min(BEFORE)).for_each(|j| ready(&mut rows, j));
    let mut j = 0;
    // Tiles one after the other: the line's first ones, and those for which none is left to be made ready; and between them those that are scanned while one is.
    loop {
        let is_low = j + 1 == tiles;
        let lead = if is_low { TILE - low } else { 0 };
        let from = n as isize - (TILE * (j + 1)) as isize;
        if j + BEFORE < tiles {
            ready(&mut rows, j + BEFORE);
        }
        // SAFETY: a row that is ready; 32 divisors; room for n results; elements of the line, whose values have been read.
        unsafe {
            let mut tile = scan.tile::<UNIT>(rows.row(j), |_| ());
            divide(&mut tile, if is_low { table.as_ptr() } else { line.divisors.as_ptr().wrapping_offset(from) });
            beside(&tile, lead, line, from, &mut totals);
            let results = rounded::<OUT>(&tile, &mut unused);
            if j > 0 && !is_low { to.whole(from as usize, &results) } else { to.tile(from, &results) }
            if is_low {
                return totals.done(lanes(&tile)[lead], 0);
            }
        }
        ahead.go();
        j += 1;
        while j + BEFORE < tiles {
            let from = n - TILE * (j + 1);
            let (values, to_come, own) = (values(j + BEFORE), rows.row(j + BEFORE), rows.row(j));
            // SAFETY: as above; 32 values; the row of no tile that waits.
            unsafe {
                let mut tile = scan.tile::<UNIT>(own, |part| fuse::<PLAIN, IN>(values, 8 * part, &k, line, to_come));
                divide(&mut tile, line.divisors.as_ptr().wrapping_add(from));
                beside(&tile, 0, line, from as isize, &mut totals);
                to.whole(from, &rounded::<OUT>(&tile, &mut unused));
            }
            ahead.go();
            j += 1;
        }
    }
}

/// What is wanted of a tile beside its rounded results. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; room for the line's results where they are wanted unrounded.
#[inline(always)]
unsafe fn beside(tile: &Tile, lead: usize, line: &Fused, from: isize, totals: &mut Totals) {
    // One question of most lines, not two.
    if !line.sums & line.exact.is_null() {
        return;
    }
    // SAFETY: by the caller's word.
    unsafe {
        if line.sums {
            totals.add(tile, lead);
        }
        if !line.exact.is_null() {
            std::ptr::copy_nonoverlapping(lanes(tile).as_ptr().add(lead), line.exact.offset(from.max(0)), TILE - lead);
        }
    }
}
