//! GAE: rewards and values to deltas, scanned, rounded and stored, and the returns beside them, in one pass from the inputs' memory to the outputs'. The
//! expressions are those of `gae`.
use super::super::tile::{Steps, carried, first, rising, steps};
use super::lanes::{Ahead, Line, TILE, Tile, Writer, most};
use super::scan::{Done, Totals, lanes, rounded};
use std::arch::x86_64::*;

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

/// The deltas of a tile, scanned: advantages, and the values they are of. Always inlined, into functions that have AVX2: a tile handed over in memory costs as much as its scan.
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

/// `gae_for!("avx2")` defines `gae` for an instruction set, from what the module has of it: a tile's deltas (`steered_tile`) and sums, `constants`, registers of one
/// number (`every`) or with one at their end.
macro_rules! gae_for {
    ($features:literal) => {
        /// GAE of n tokens in scope (at least one): advantages to `to`, returns to `returns`.
        ///
        /// # Safety
        /// The instruction set; n readable rewards and values, n writable results; the advantages may lie over the rewards or the values, the returns over nothing.
        #[target_feature(enable = $features)]
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

        #[target_feature(enable = $features)]
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
        #[target_feature(enable = $features)]
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
            let mut last = at_the_end(line.reward);
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
                last = every(0.0);
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
    };
}
pub(super) use gae_for;

gae_for!("avx2");

#[inline]
#[target_feature(enable = "avx2")]
fn constants(line: &Steered) -> (Steps, [f64; TILE], __m256d) {
    (Steps::new(line.powers[1]), rising(line.powers), every(line.gamma))
}

#[inline]
#[target_feature(enable = "avx2")]
fn every(x: f64) -> __m256d {
    _mm256_set1_pd(x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn at_the_end(x: f64) -> __m256d {
    _mm256_setr_pd(0.0, 0.0, 0.0, x)
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
