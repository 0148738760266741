//! Short rollouts, many at a time: where values change, as a bit a token; what the bits list; a rollout's credit in registers.
use crate::backend::cpu::chunk;
use crate::backend::cpu::tile::Powers;
use crate::numerics::convert::InElem;
use crate::plan::workspace::SPARE;
use std::arch::x86_64::*;

/// Bits of a word.
pub const WORD: usize = 64;

/// Bit t: tokens t and t + 1 of 65 differ. Of numbers of 4 bytes in value, a NaN from everything; of 2 bytes in their bits: what differs in value does so, a
/// NaN is found in the list of its run, and zeros of two signs are found to be near (`near`).
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn differs<T>(at: *const T) -> u64 {
    // SAFETY: 65 tokens at `at`, by the caller's word.
    unsafe {
        if size_of::<T>() == 4 {
            let at = at.cast::<f32>();
            let eight = |t: usize| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_NEQ_UQ>(_mm256_loadu_ps(at.add(t)), _mm256_loadu_ps(at.add(t + 1))));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let half = |t: usize| {
                let (low, high) = (_mm256_packs_epi32(eight(t), eight(t + 8)), _mm256_packs_epi32(eight(t + 16), eight(t + 24)));
                _mm256_movemask_epi8(_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order)) as u32 as u64
            };
            half(0) | half(32) << 32
        } else {
            let at = at.cast::<u16>();
            let sixteen = |t: usize| _mm256_cmpeq_epi16(_mm256_loadu_si256(at.add(t).cast()), _mm256_loadu_si256(at.add(t + 1).cast()));
            let half = |t: usize| {
                let bytes = _mm256_packs_epi16(sixteen(t), sixteen(t + 16));
                _mm256_movemask_epi8(_mm256_permute4x64_epi64::<0b11_01_10_00>(bytes)) as u32 as u64
            };
            !(half(0) | half(32) << 32)
        }
    }
}

/// Bit `phase + t`: tokens t and t + 1 differ; every other bit of the words is 0.
///
/// # Panics
/// Where there are no tokens, or the words are not as many as the bits take.
#[target_feature(enable = "avx2")]
pub fn edges<T: Copy + Default>(xs: &[T], phase: usize, words: &mut [u64]) {
    let n = xs.len();
    assert!(n > 0 && phase < WORD && words.len() == (n + phase).div_ceil(WORD));
    if n <= WORD {
        let mut few = [T::default(); WORD + 1];
        few[..n].copy_from_slice(xs);
        // SAFETY: 65 tokens.
        let bits = unsafe { differs(few.as_ptr()) } & ((1 << (n - 1)) - 1);
        words[0] = bits << phase;
        if let Some(second) = words.get_mut(1) {
            *second = bits >> (WORD - phase);
        }
        return;
    }
    let (at, last) = (xs.as_ptr(), n - 1 - WORD);
    // SAFETY: tokens t ..= t + 64 are there for t <= last.
    unsafe {
        words[0] = differs(at) << phase;
        let mut t = WORD - phase;
        for word in &mut words[1..] {
            // What reaches beyond the end is taken from the last 65 tokens, whose bits that stand in the word before are shifted out; of the very last
            // token nothing is left.
            *word = if t <= last { differs(at.add(t)) } else { differs(at.add(last)).checked_shr((t - last) as u32).unwrap_or(0) };
            t += WORD;
        }
    }
}

/// Lists the tokens whose bits are set, from entry `begin` of `values` on: how many entries there are then. `before[w]`: entries before word w. `None`: there is
/// no room.
///
/// # Panics
/// Where words and tokens do not fit.
#[target_feature(enable = "avx2,popcnt,bmi1")]
pub fn list<T: InElem>(xs: &[T], phase: usize, words: &[u64], before: &mut [u32], values: &mut [f32], begin: usize) -> Option<usize> {
    assert!(phase < WORD && words.len() == (xs.len() + phase).div_ceil(WORD) && before.len() == words.len());
    let all = words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
    (begin + all + SPARE <= values.len()).then_some(())?;
    let mut count = begin;
    let (first, others) = words.split_first()?;
    before[0] = count as u32;
    let mut bits = *first;
    while bits != 0 {
        values[count] = xs[bits.trailing_zeros() as usize - phase].to_f32();
        bits &= bits - 1;
        count += 1;
    }
    let (mut to, mut from) = (values[count..].as_mut_ptr(), xs.as_ptr().wrapping_add(WORD - phase));
    for (word, before) in others.iter().zip(&mut before[1..]) {
        let (mut bits, n) = (*word, word.count_ones() as usize);
        *before = count as u32;
        let mut at = to;
        loop {
            // Two at a time, whether there are so many or not, as in `runs`.
            for _ in 0..2 {
                // SAFETY: the word's first token is there, and so are those whose bits are set; `at` is at most one entry behind the word's own, for which there
                // is room.
                unsafe {
                    *at = (*from.add(bits.trailing_zeros() as usize & (WORD - 1))).to_f32();
                    at = at.add(1);
                }
                bits &= bits.wrapping_sub(1);
            }
            if bits == 0 {
                break;
            }
        }
        (count, to, from) = (count + n, to.wrapping_add(n), from.wrapping_add(WORD));
    }
    Some(count)
}

/// May two values that follow each other be no further apart than eta? (What lies near it is looked at again, in f64.)
///
/// # Panics
/// Where the list has no spare entries.
#[target_feature(enable = "avx2")]
pub fn near(values: &[f32], count: usize, eta: f64) -> bool {
    assert!(count + SPARE <= values.len());
    // The difference in f32 is off by less than one part in 2^24.
    let eta = _mm256_set1_ps((eta * 1.001) as f32 + f32::MIN_POSITIVE);
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    let mut found = _mm256_setzero_ps();
    let pairs = count.saturating_sub(1);
    for j in (0..pairs).step_by(8) {
        // SAFETY: j + 9 <= count + 8, for which there is room.
        let (a, b) = unsafe { (_mm256_loadu_ps(values.as_ptr().add(j)), _mm256_loadu_ps(values.as_ptr().add(j + 1))) };
        let close = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_and_ps(_mm256_sub_ps(a, b), magnitude), eta);
        let lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32((pairs - j).min(8) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        found = _mm256_or_ps(found, _mm256_and_ps(close, _mm256_castsi256_ps(lanes)));
    }
    _mm256_movemask_ps(found) != 0
}

/// Is each two neighbouring values' distance above eta?
pub fn all_edges(values: &[f32], eta: f64) -> bool {
    values.windows(2).all(|pair| chunk::edge(pair[0], pair[1], eta))
}

/// How the values of a rollout become what is credited.
#[derive(Clone, Copy)]
pub struct Affine {
    pub mean: f64,
    pub inv: f64,
    pub weight: f64,
}

impl Affine {
    /// Every value is 0.
    pub const NONE: Affine = Affine { mean: 0.0, inv: 0.0, weight: 0.0 };
}

/// Chunks that registers hold.
pub const HELD: usize = 16;

/// Ones and then zeros: `HELD - k` entries on, the lanes of k chunks.
static LANES: [i64; 2 * HELD] = {
    let mut lanes = [0; 2 * HELD];
    let mut i = 0;
    while i < HELD {
        lanes[i] = -1;
        i += 1;
    }
    lanes
};

/// A rollout of at most `HELD` chunks: w ((x - mean) inv), the terms of its per-rollout streams in their order, the return-to-go where there are powers of its
/// discount, the divisors of its chunks where there are some. The expressions are those of `fuse`, `returns` and `tile`. What stands after the rollout's
/// entries is written over.
///
/// # Panics
/// Where the lists are too short for whole vectors, or the divisors are not as many as the chunks.
#[inline]
#[target_feature(enable = "avx2")]
pub fn credit(values: &[f32], k: usize, affine: &Affine, terms: impl IntoIterator<Item = f64>, powers: Option<&Powers>, divisors: &[f64], to: &mut [f64]) {
    assert!(k <= HELD && values.len() >= HELD && to.len() >= HELD && (divisors.is_empty() || divisors.len() == k));
    match k {
        0..=4 => registers::<1>(values, k, affine, terms, powers, divisors, to),
        5..=8 => registers::<2>(values, k, affine, terms, powers, divisors, to),
        _ => registers::<4>(values, k, affine, terms, powers, divisors, to),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn registers<const N: usize>(
    values: &[f32],
    k: usize,
    affine: &Affine,
    terms: impl IntoIterator<Item = f64>,
    powers: Option<&Powers>,
    divisors: &[f64],
    to: &mut [f64],
) {
    // SAFETY (here and below): 4 v + 4 <= HELD entries are there (`credit`), of the lanes as many from HELD - k on; of the divisors those of the k chunks are read.
    let there: [__m256i; N] = std::array::from_fn(|v| unsafe { _mm256_loadu_si256(LANES.as_ptr().add(HELD - k + 4 * v).cast()) });
    let (mean, inv, weight) = (_mm256_set1_pd(affine.mean), _mm256_set1_pd(affine.inv), _mm256_set1_pd(affine.weight));
    let mut y: [__m256d; N] = std::array::from_fn(|v| {
        // SAFETY: as above.
        let x = unsafe { _mm256_cvtps_pd(_mm_loadu_ps(values.as_ptr().add(4 * v))) };
        _mm256_mul_pd(weight, _mm256_mul_pd(_mm256_sub_pd(x, mean), inv))
    });
    for term in terms {
        let term = _mm256_set1_pd(term);
        y.iter_mut().for_each(|y| *y = _mm256_add_pd(*y, term));
    }
    // What stands in the list after the rollout's values is none of its.
    (0..N).for_each(|v| y[v] = _mm256_and_pd(y[v], _mm256_castsi256_pd(there[v])));
    if let Some(powers) = powers {
        powers.sum(&mut y);
    }
    if !divisors.is_empty() {
        // SAFETY: as above.
        (0..N).for_each(|v| y[v] = _mm256_mul_pd(y[v], unsafe { _mm256_maskload_pd(divisors.as_ptr().wrapping_add(4 * v), there[v]) }));
    }
    // SAFETY: as above.
    (0..N).for_each(|v| unsafe { _mm256_storeu_pd(to.as_mut_ptr().add(4 * v), y[v]) });
}
