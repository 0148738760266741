//! GAE: rewards and values to deltas, scanned, rounded and stored, and the returns beside them, in one pass from the inputs' memory to the outputs'. The
//! expressions are those of `gae`.
use super::lanes::{Ahead, Line, TILE, Tile, Writer, doubles, most};
use super::round::rounded;
use super::scan::{Done, Rows, Scan, Totals, lanes};
use super::short;
use std::arch::x86_64::*;

/// How many tiles before its scan a tile's deltas are made, and as many before that its values are brought to a row. (As in `fused`; the rows from a tile on,
/// twice as many and one more, must all be in the ring.)
const BEFORE: usize = 2;

/// What GAE needs beside rewards and values.
pub struct Steered<'a> {
    pub gamma: f64,
    /// The value after the last token.
    pub next: f64,
    /// The last token's reward, where there are none a token.
    pub reward: f64,
    pub powers: &'a [f64; 33],
    /// Positions at the end, fewer than 32, whose reward and value are 0; the reward of `reward` is that of the token before them. (0 where n <= 32.)
    pub tail: usize,
    pub sums: bool,
}

/// Types of rewards and values: both f32, both bf16, or any.
const F32: u8 = 0;
const BF16: u8 = 1;
const ANY: u8 = 2;

/// GAE of n tokens in scope (at least one), or of n positions with those of the tail: advantages to `to`, returns to `returns`.
///
/// # Safety
/// AVX2; n readable rewards and values (of the tail none is read), n writable results; the advantages may lie over the rewards or the values, the returns over nothing.
#[target_feature(enable = "avx2")]
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
            (false, false) => written::<false, false>(inputs, to, returns, n, line, ahead),
            (true, true) => written::<true, true>(inputs, to, returns, n, line, ahead),
            (false, true) => written::<false, true>(inputs, to, returns, n, line, ahead),
            (true, false) => written::<true, false>(inputs, to, returns, n, line, ahead),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn written<const A: bool, const R: bool>(
    inputs: (Option<Line>, Line),
    to: (Line, bool),
    returns: Option<(Line, bool)>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    let (rewards, values) = inputs;
    // SAFETY: passed on.
    unsafe {
        if n <= 4 * short::WHOLE {
            ahead.go();
            let (to, returns) = (to.0, returns.map(|(at, _)| at));
            return match (line.powers[1] == 1.0, n <= 4 * short::HALF) {
                (true, true) => short::gae::<true, A, R, { short::HALF }>(inputs, to, returns, n, line),
                (true, false) => short::gae::<true, A, R, { short::WHOLE }>(inputs, to, returns, n, line),
                (false, true) => short::gae::<false, A, R, { short::HALF }>(inputs, to, returns, n, line),
                (false, false) => short::gae::<false, A, R, { short::WHOLE }>(inputs, to, returns, n, line),
            };
        }
        match (values.narrow, rewards.is_none_or(|r| r.narrow == values.narrow)) {
            (false, true) => scanned::<F32, A, R>(inputs, to, returns, n, line, ahead),
            (true, true) => scanned::<BF16, A, R>(inputs, to, returns, n, line, ahead),
            _ => scanned::<ANY, A, R>(inputs, to, returns, n, line, ahead),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scanned<const IN: u8, const A: bool, const R: bool>(
    inputs: (Option<Line>, Line),
    to: (Line, bool),
    returns: Option<(Line, bool)>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    // SAFETY: passed on.
    unsafe {
        if line.powers[1] == 1.0 {
            steered::<true, IN, A, R>(inputs, to, returns, n, line, ahead)
        } else {
            steered::<false, IN, A, R>(inputs, to, returns, n, line, ahead)
        }
    }
}

/// Eight elements as doubles. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; elements i .. i + 8 are readable.
#[inline(always)]
unsafe fn eight<const IN: u8>(from: Line, i: usize) -> [__m256d; 2] {
    // SAFETY: by the caller's word.
    unsafe { if IN == BF16 || (IN == ANY && from.narrow) { doubles::<true>(from.at, i) } else { doubles::<false>(from.at, i) } }
}

/// Deltas of eight tokens, to a row, from their rewards and the row of their values. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; readable rewards from element i on, two rows.
#[inline(always)]
unsafe fn deltas<const IN: u8>(rewards: Line, i: usize, gamma: __m256d, values: *const f64, to: *mut f64) {
    // SAFETY: by the caller's word; i <= 24, so that i + 4 + 1 + 4 <= TILE + 1.
    unsafe {
        for (v, reward) in eight::<IN>(rewards, i).into_iter().enumerate() {
            let (own, after) = (_mm256_loadu_pd(values.add(i + 4 * v)), _mm256_loadu_pd(values.add(i + 4 * v + 1)));
            _mm256_storeu_pd(to.add(i + 4 * v), _mm256_sub_pd(_mm256_add_pd(reward, _mm256_mul_pd(gamma, after)), own));
        }
    }
}

/// Values of eight tokens, to a row, and the tile's first to the end of the row `before`. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; readable values from element i on, two rows.
#[inline(always)]
unsafe fn widened<const IN: u8>(values: Line, i: usize, to: *mut f64, before: *mut f64) {
    // SAFETY: by the caller's word.
    unsafe {
        let value = eight::<IN>(values, i);
        _mm256_storeu_pd(to.add(i), value[0]);
        _mm256_storeu_pd(to.add(i + 4), value[1]);
        if i == 0 {
            _mm256_storeu_pd(before.add(TILE), value[0]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn steered<const UNIT: bool, const IN: u8, const A: bool, const R: bool>(
    inputs: (Option<Line>, Line),
    to: (Line, bool),
    returns: Option<(Line, bool)>,
    n: usize,
    line: &Steered,
    ahead: &mut Ahead,
) -> Done {
    let mut to = Writer::<A>::new(to.0, n, to.1);
    let mut returns = returns.map(|(at, stream)| Writer::<R>::new(at, n, stream));
    let (rewards, values) = inputs;
    let gamma = _mm256_set1_pd(line.gamma);
    let (mut scan, mut totals, mut rows, mut value_rows) = (Scan::new(line.powers), Totals::new(), Rows::new(), Rows::new());
    rows.end_in_zero();
    let mut largest = _mm256_setzero_si256();
    let (mut some, mut more, mut none) = ([0u32; TILE], [0u32; TILE], [0u32; TILE]);
    // Tile 0 is the line's last; the lowest may be short, and its rewards and values are copied to where 32 are.
    let (tiles, low) = (n.div_ceil(TILE), n - (n - 1) / TILE * TILE);
    let none = Line { at: none.as_mut_ptr().cast(), narrow: values.narrow };
    // SAFETY: the first `low` rewards and values.
    let lowest = unsafe { (rewards.map_or(none, |r| r.at_the_end_of(&mut some, low)), values.at_the_end_of(&mut more, low)) };
    let (mut last, mut latest) = ([0u32; TILE], [0u32; TILE]);
    let tail = line.tail;
    debug_assert!(tail == 0 || tiles > 1);
    // Neither branches nor calls, so that what stands in registers stays there.
    let (reward, step) = rewards.map_or((none, 0), |r| (r, r.bytes()));
    let reward_of = |j: usize| Line { at: if j + 1 < tiles { reward.at.wrapping_add((n - TILE * (j + 1)) * step) } else { lowest.0.at }, ..lowest.0 };
    let value_of = |j: usize| if j + 1 < tiles { values.from(n - TILE * (j + 1)) } else { lowest.1 };
    let newest = if tail == 0 {
        (reward_of(0), value_of(0))
    } else {
        // SAFETY: the last elements of the line before its tail.
        unsafe { (reward_of(0).at_the_beginning_of(&mut last, TILE - tail), value_of(0).at_the_beginning_of(&mut latest, TILE - tail)) }
    };
    // SAFETY: in row 0 what stands after tile 0; 32 rewards and values of each tile; rows.
    unsafe {
        _mm256_storeu_pd(value_rows.row(0).add(TILE), _mm256_set1_pd(line.next));
        for j in 0..tiles.min(2 * BEFORE) {
            let (value, to, before) = (if j == 0 { newest.1 } else { value_of(j) }, value_rows.row(j), value_rows.row(j + 1));
            (0..4).for_each(|part| widened::<IN>(value, 8 * part, to, before));
        }
        for j in 0..tiles.min(BEFORE) {
            let (reward, from, to) = (if j == 0 { newest.0 } else { reward_of(j) }, value_rows.row(j), rows.row(j));
            (0..4).for_each(|part| deltas::<IN>(reward, 8 * part, gamma, from, to));
        }
        if rewards.is_none() {
            // The last token's.
            let (at, own) = (TILE - 1 - tail, value_rows.row(0));
            *rows.row(0).add(at) = (line.reward + line.gamma * *own.add(at + 1)) - *own.add(at);
        }
    }
    let mut j = 0;
    // The line's last tile and its lowest ones, and between them whole tiles, whose registers stay registers. While one of these is scanned the deltas of one to
    // come are made, and the values of another are brought to its row.
    loop {
        let is_low = j + 1 == tiles;
        let lead = if is_low { TILE - low } else { 0 };
        let from = n as isize - (TILE * (j + 1)) as isize;
        // SAFETY: rows that are ready; room for n results; elements of the line, whose rewards and values have been read; else as above, of the rows of no tile
        // that waits.
        unsafe {
            let (reward, value) = (j + BEFORE, j + 2 * BEFORE);
            if value < tiles {
                (0..4).for_each(|part| widened::<IN>(value_of(value), 8 * part, value_rows.row(value), value_rows.row(value + 1)));
            }
            if reward < tiles {
                (0..4).for_each(|part| deltas::<IN>(reward_of(reward), 8 * part, gamma, value_rows.row(reward), rows.row(reward)));
            }
            let tile = scan.tile::<UNIT>(rows.row(j), |_| ());
            if line.sums {
                totals.add(&tile, lead);
            }
            let results = rounded::<A>(&tile, &mut largest);
            if j > 0 && !is_low { to.whole(from as usize, &results) } else { to.tile(from, &results) }
            if let Some(returns) = &mut returns {
                let results = rounded::<R>(&plus(&tile, value_rows.row(j)), &mut largest);
                if j > 0 && !is_low { returns.whole(from as usize, &results) } else { returns.tile(from, &results) }
            }
            if is_low {
                return totals.done(lanes(&tile)[lead], most(largest));
            }
        }
        ahead.go();
        j += 1;
        while j + BEFORE < tiles {
            let from = n - TILE * (j + 1);
            let (reward, value) = (j + BEFORE, j + 2 * BEFORE);
            // Chosen here: the compiler would choose anew at each load.
            let (rewards_to_come, values_to_come) = std::hint::black_box((reward_of(reward).at, value_of(value).at));
            let (rewards_to_come, values_to_come) = (Line { at: rewards_to_come, ..lowest.0 }, Line { at: values_to_come, ..values });
            let (own, values) = (rows.row(j), value_rows.row(j));
            let (delta_row, value_row) = (rows.row(reward), value_rows.row(reward));
            let (to_come, before) = (value_rows.row(value), value_rows.row(value + 1));
            // SAFETY: as above.
            unsafe {
                let tile = scan.tile::<UNIT>(own, |part| {
                    // Beyond the lowest tile rows are written that none reads.
                    widened::<IN>(values_to_come, 8 * part, to_come, before);
                    deltas::<IN>(rewards_to_come, 8 * part, gamma, value_row, delta_row);
                });
                if line.sums {
                    totals.add(&tile, 0);
                }
                to.whole(from, &rounded::<A>(&tile, &mut largest));
                if let Some(returns) = &mut returns {
                    returns.whole(from, &rounded::<R>(&plus(&tile, values), &mut largest));
                }
            }
            ahead.go();
            j += 1;
        }
    }
}

/// The tile's values, which stand in `row`, added. Inlined as `Scan::tile` is.
///
/// # Safety
/// AVX2; a row of `Rows`.
#[inline(always)]
unsafe fn plus(tile: &Tile, row: *const f64) -> Tile {
    let mut sum = *tile;
    for (v, sum) in sum.iter_mut().enumerate() {
        // SAFETY: 32 values.
        *sum = unsafe { _mm256_add_pd(_mm256_loadu_pd(row.add(4 * v)), *sum) };
    }
    sum
}
