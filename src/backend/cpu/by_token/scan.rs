//! Return-to-go in tiles, from values that stand ready in rows of f64. The association is that of `returns::plain`, so the bits are.
//!
//! A tile's own sums are one long chain, longer than what the processor looks ahead. So the values of the tiles to come are made while a tile is scanned, a few
//! instructions of the one after a few of the other, and a row is read, at once and one position further on, so long after it was written that no store of it
//! waits in the processor's queue any more (64 stores where this was tried): the first of the scan's steps needs no shuffles.
use super::super::tile::{Steps, first, rising};
use super::lanes::{TILE, Tile};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// What came of a line: its first result, sums for the report, bits of the largest magnitude in f32 (beyond f32 and not finite values among them).
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub path: f64,
    pub sum: f64,
    pub squares: f64,
    pub largest: u32,
}

/// Sums of results, where a report wants them.
pub(super) struct Totals {
    sum: [__m256d; 2],
    squares: [__m256d; 2],
    rest: (f64, f64),
}

impl Totals {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new() -> Totals {
        let zero = _mm256_setzero_pd();
        Totals { sum: [zero; 2], squares: [zero; 2], rest: (0.0, 0.0) }
    }

    /// Adds a tile, whose first `lead` positions are before the line.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add(&mut self, tile: &Tile, lead: usize) {
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
    pub(super) fn done(&self, path: f64, largest: u32) -> Done {
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
pub(super) fn lanes(tile: &Tile) -> [f64; TILE] {
    let mut lanes = [0.0f64; TILE];
    for (v, y) in tile.iter().enumerate() {
        // SAFETY: four elements.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr().add(4 * v), *y) };
    }
    lanes
}

/// Doubles of a row: a tile, and the position after it.
const ROW: usize = TILE + 4;

/// Rows of a ring.
const ROWS: usize = 8;

/// A ring of rows: of tile j (0 is a line's last) row j modulo their number.
#[repr(align(64))]
pub(super) struct Rows([MaybeUninit<f64>; ROWS * ROW]);

impl Rows {
    /// Of which all is written before it is read.
    #[inline(always)]
    pub(super) fn new() -> Rows {
        Rows([MaybeUninit::uninit(); ROWS * ROW])
    }

    /// Puts 0 after each row's tile. (Not in `new`: what is handed over in part would be copied. Each store as it stands: as the rest says nothing yet, the
    /// compiler would clear all of it.)
    #[inline(always)]
    pub(super) fn end_in_zero(&mut self) {
        for row in 0..ROWS {
            // SAFETY: an element of the ring.
            unsafe { std::ptr::write_volatile(self.0.as_mut_ptr().add(row * ROW + TILE), MaybeUninit::new(0.0)) };
        }
    }

    /// Of tile j; whole vectors of four positions from it on, and at `TILE` what stands after the tile.
    #[inline(always)]
    pub(super) fn row(&mut self, j: usize) -> *mut f64 {
        self.0.as_mut_ptr().wrapping_add(j % ROWS * ROW).cast()
    }
}

/// What the scan of a line is by.
pub(super) struct Scan {
    steps: Steps,
    rising: [f64; TILE],
    carry: __m256d,
}

impl Scan {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(powers: &[f64; 33]) -> Scan {
        Scan { steps: Steps::new(powers[1]), rising: rising(powers), carry: _mm256_setzero_pd() }
    }

    /// The next tile, whose values stand in `row`, with 0 after them. `between`: what is done meanwhile, in four parts. Always inlined, into functions that have
    /// AVX2: a tile handed over in memory costs as much as its scan.
    ///
    /// # Safety
    /// AVX2; a row of `Rows`.
    #[inline(always)]
    pub(super) unsafe fn tile<const UNIT: bool>(&mut self, row: *const f64, mut between: impl FnMut(usize)) -> Tile {
        // SAFETY: by the caller's word; v < 8, so that 4 v + 1 + 4 <= TILE + 1.
        unsafe {
            let zero = _mm256_setzero_pd();
            let c = self.steps.0;
            let add = |y: __m256d, c: __m256d, s: __m256d| _mm256_add_pd(y, if UNIT { s } else { _mm256_mul_pd(c, s) });
            let mut y = [zero; 8];
            for v in 0..8 {
                y[v] = add(_mm256_loadu_pd(row.add(4 * v)), c[0], _mm256_loadu_pd(row.add(4 * v + 1)));
            }
            between(0);
            // Rising order: what is read further on has not been written yet.
            for v in 0..8 {
                let next = if v < 7 { y[v + 1] } else { zero };
                y[v] = add(y[v], c[1], _mm256_permute2f128_pd::<0x21>(y[v], next));
            }
            between(1);
            // Beyond the tile stands 0: the sum is the value itself (or a zero of the other sign, which no result keeps).
            for (step, distance) in [(2, 1), (3, 2), (4, 4)] {
                for v in 0..8 - distance {
                    y[v] = add(y[v], c[step], y[v + distance]);
                }
            }
            between(2);
            for v in 0..8 {
                let part = if UNIT { self.carry } else { _mm256_mul_pd(_mm256_loadu_pd(self.rising.as_ptr().add(4 * v)), self.carry) };
                y[v] = _mm256_add_pd(y[v], part);
            }
            self.carry = first(&y);
            between(3);
            y
        }
    }
}
