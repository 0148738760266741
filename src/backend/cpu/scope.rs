//! Scope of a rollout: which of its tokens the policy wrote and the loss sees. A span where it has no holes, bits where it has.
use crate::model::array::{DType, Row};
use crate::numerics::simd::{Simd, dispatch};

#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// First in-scope token, one past the last, and how many there are.
    pub first: usize,
    pub end: usize,
    pub count: usize,
    /// Bit t % 64 of word t / 64; read only where the scope has holes.
    bits: &'a [u64],
}

fn word_mask(a: usize, b: usize, word: usize) -> u64 {
    let (low, high) = (a.max(word * 64), b.min(word * 64 + 64));
    if low >= high { 0 } else { (!0u64 >> (64 - (high - low))) << (low - word * 64) }
}

impl<'a> Scope<'a> {
    pub fn span(first: usize, end: usize) -> Scope<'static> {
        let (first, end) = if first < end { (first, end) } else { (0, 0) };
        Scope { first, end, count: end - first, bits: &[] }
    }

    /// From bits that are 0 beyond the rollout.
    pub fn from_bits(bits: &'a [u64]) -> Scope<'a> {
        let (first, end, count) = survey(bits);
        Scope { first, end, count, bits }
    }

    /// Likewise, with the instructions that count bits.
    pub fn counted(simd: Simd, bits: &'a [u64]) -> Scope<'a> {
        match simd {
            // SAFETY: `Simd::Avx2` is only made where the processor has AVX2 and the bit counts.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 | Simd::Avx512 => {
                let (first, end, count) = unsafe { super::scope_avx2::survey(bits) };
                Scope { first, end, count, bits }
            }
            _ => Scope::from_bits(bits),
        }
    }

    /// As it was kept between passes.
    pub fn kept(first: usize, end: usize, count: usize, bits: &'a [u64]) -> Scope<'a> {
        Scope { first, end, count, bits }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn has_holes(&self) -> bool {
        self.count != self.end - self.first
    }

    pub fn contains(&self, t: usize) -> bool {
        t >= self.first && t < self.end && (!self.has_holes() || self.bits[t / 64] >> (t % 64) & 1 == 1)
    }

    /// In-scope tokens in a..b.
    pub fn count_in(&self, a: usize, b: usize) -> usize {
        let (a, b) = (a.max(self.first), b.min(self.end));
        if a >= b {
            return 0;
        }
        if !self.has_holes() {
            return b - a;
        }
        (a / 64..b.div_ceil(64)).map(|w| (self.bits[w] & word_mask(a, b, w)).count_ones() as usize).sum()
    }

    /// First in-scope token in a..b.
    pub fn first_in(&self, a: usize, b: usize) -> Option<usize> {
        let mut first = None;
        self.runs(a, b, |x, _| first = first.or(Some(x)));
        first
    }

    /// Calls `each(begin, end)` for every run of tokens out of scope in a..b, in order.
    pub fn gaps(&self, a: usize, b: usize, mut each: impl FnMut(usize, usize)) {
        let mut begin = a;
        self.runs(a, b, |x, y| {
            if begin < x {
                each(begin, x);
            }
            begin = y;
        });
        if begin < b {
            each(begin, b);
        }
    }

    /// Last in-scope token in a..b.
    pub fn last_in(&self, a: usize, b: usize) -> Option<usize> {
        let (a, b) = (a.max(self.first), b.min(self.end));
        if a >= b {
            return None;
        }
        if !self.has_holes() {
            return Some(b - 1);
        }
        (a / 64..b.div_ceil(64)).rev().find_map(|w| {
            let word = self.bits[w] & word_mask(a, b, w);
            (word != 0).then(|| w * 64 + 63 - word.leading_zeros() as usize)
        })
    }

    /// Calls `each(begin, end)` for every run of in-scope tokens in a..b, in order.
    #[inline(always)]
    pub fn runs(&self, a: usize, b: usize, mut each: impl FnMut(usize, usize)) {
        let (a, b) = (a.max(self.first), b.min(self.end));
        if a >= b {
            return;
        }
        if !self.has_holes() {
            return each(a, b);
        }
        let mut open = None;
        for w in a / 64..b.div_ceil(64) {
            let mut word = self.bits[w] & word_mask(a, b, w);
            let base = w * 64;
            if let Some(begin) = open {
                if word & 1 == 0 {
                    each(begin, base);
                    open = None;
                }
            }
            let mut at = 0usize;
            while at < 64 {
                if open.is_none() {
                    if word == 0 {
                        break;
                    }
                    let skip = word.trailing_zeros() as usize;
                    at += skip;
                    word >>= skip;
                    open = Some(base + at);
                }
                let ones = (!word).trailing_zeros() as usize;
                at += ones;
                if at >= 64 {
                    break;
                }
                word >>= ones;
                if let Some(begin) = open.take() {
                    each(begin, base + at);
                }
            }
        }
        if let Some(begin) = open {
            each(begin, b);
        }
    }
}

/// First bit set, one past the last, how many: (0, 0, 0) where none is.
#[inline(always)]
pub fn survey(bits: &[u64]) -> (usize, usize, usize) {
    let count = bits.iter().map(|w| w.count_ones() as usize).sum();
    let first = bits.iter().position(|w| *w != 0).map_or(0, |i| i * 64 + bits[i].trailing_zeros() as usize);
    let end = bits.iter().rposition(|w| *w != 0).map_or(0, |i| i * 64 + 64 - bits[i].leading_zeros() as usize);
    (first, end, count)
}

/// Words of a rollout of `len` tokens.
pub fn words(len: usize) -> usize {
    len.div_ceil(64)
}

/// Sets bits first..end and no others.
pub fn fill_span(bits: &mut [u64], first: usize, end: usize) {
    for (w, word) in bits.iter_mut().enumerate() {
        *word = word_mask(first, end, w);
    }
}

pub fn clear(bits: &mut [u64], a: usize, b: usize) {
    for w in a / 64..b.div_ceil(64) {
        bits[w] &= !word_mask(a, b, w);
    }
}

macro_rules! mask_words {
    ($name:ident, $T:ty, |$x:ident| $nonzero:expr) => {
        dispatch! {
            fn $name(from: &[$T], bits: &mut [u64]) {
                let mut blocks = from.chunks_exact(64);
                let mut w = 0;
                for block in &mut blocks {
                    // All or none of 64 is the usual case and is counted without building bits.
                    let mut count = 0u32;
                    for $x in block {
                        count += u32::from($nonzero);
                    }
                    bits[w] = match count {
                        0 => 0,
                        64 => !0,
                        _ => block.iter().enumerate().fold(0, |word, (t, $x)| word | u64::from($nonzero) << t),
                    };
                    w += 1;
                }
                let rest = blocks.remainder();
                if !rest.is_empty() {
                    bits[w] = rest.iter().enumerate().fold(0, |word, (t, $x)| word | u64::from($nonzero) << t);
                }
            }
        }
    };
}
mask_words!(words_u8, u8, |x| *x != 0);
mask_words!(words_i32, i32, |x| *x != 0);
mask_words!(words_i64, i64, |x| *x != 0);
mask_words!(words_f32, f32, |x| *x != 0.0);

/// Bits of a mask: nonzero (NaN too) is set.
pub fn read_mask(simd: Simd, mask: &Row, bits: &mut [u64]) {
    // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    if simd >= Simd::Avx2 && unsafe { super::scope_avx2::read_mask(mask, bits) } {
        return;
    }
    match mask.dtype() {
        DType::U8 | DType::Bool => {
            if let Some(from) = mask.slice() {
                return words_u8(simd, from, bits);
            }
        }
        DType::I32 => {
            if let Some(from) = mask.slice() {
                return words_i32(simd, from, bits);
            }
        }
        DType::I64 => {
            if let Some(from) = mask.slice() {
                return words_i64(simd, from, bits);
            }
        }
        DType::F32 => {
            if let Some(from) = mask.slice() {
                return words_f32(simd, from, bits);
            }
        }
        _ => (),
    }
    bits.fill(0);
    for t in 0..mask.len() {
        bits[t / 64] |= u64::from(mask.flag(t)) << (t % 64);
    }
}

/// Masks that are read at once: a processor asks its memory for more where it reads at several places.
pub const ROWS: usize = 4;

/// `read_mask` of several at once.
pub fn read_masks<'a>(simd: Simd, masks: impl Iterator<Item = (Row, &'a mut [u64])>) {
    let mut each: [Option<(Row, &mut [u64])>; ROWS] = Default::default();
    each.iter_mut().zip(masks).for_each(|(to, mask)| *to = Some(mask));
    #[cfg(target_arch = "x86_64")]
    if let (true, [Some(a), Some(b), Some(c), Some(d)]) = (simd >= Simd::Avx2, &mut each) {
        // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
        if unsafe { super::scope_avx2::read_masks([&a.0, &b.0, &c.0, &d.0], [&mut *a.1, &mut *b.1, &mut *c.1, &mut *d.1]) } {
            return;
        }
    }
    each.into_iter().flatten().for_each(|(mask, bits)| read_mask(simd, &mask, bits));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_counts_and_lasts_agree_with_a_plain_loop() {
        let mut seed = 1u64;
        for case in 0..300 {
            let len = 1 + case % 200;
            let flags: Vec<u8> = (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    u8::from(seed >> 60 > (case as u64 % 16))
                })
                .collect();
            let mut bits = vec![!0u64; words(len)];
            words_u8(Simd::best(), &flags, &mut bits);
            let scope = Scope::from_bits(&bits);
            assert_eq!(scope.count, flags.iter().filter(|f| **f != 0).count());
            for (a, b) in [(0, len), (len / 3, len), (0, len / 2), (len / 4, 3 * len / 4)] {
                let plain: Vec<usize> = (a..b).filter(|t| flags[*t] != 0).collect();
                let mut got = Vec::new();
                let mut before = None;
                scope.runs(a, b, |x, y| {
                    assert!(x < y && before.is_none_or(|e| e < x), "runs are maximal and in order");
                    before = Some(y);
                    got.extend(x..y);
                });
                assert_eq!(got, plain);
                assert_eq!(scope.count_in(a, b), plain.len());
                assert_eq!(scope.last_in(a, b), plain.last().copied());
                assert!((a..b).all(|t| scope.contains(t) == (flags[t] != 0)));
            }
        }
    }

    /// Masks of unequal lengths, of one type, read at once and one by one: as each element says. Long ones, and one too short for it; side by side, and with gaps.
    #[test]
    fn several_masks_are_as_one_by_one() {
        use crate::model::array::Array;
        let mut seed = 7u64;
        let mut next = |n: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        for case in 0..24 {
            let (dtype, bytes) = [(DType::I64, 8), (DType::I32, 4), (DType::U8, 1), (DType::F32, 4)][case % 4];
            let slots = if case < 8 { 100 } else { 17_000 / bytes + next(300) };
            let stride = if case >= 20 { 2 } else { 1 };
            let mut memory = vec![0u64; 4 * slots * stride * bytes / 8 + 8];
            // SAFETY: the memory of the words.
            let all = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), 4 * slots * stride * bytes) };
            // Any byte of an element may be the one that is set.
            all.chunks_exact_mut(bytes).for_each(|element| element[next(bytes)] = (next(3) == 0) as u8);
            let lengths: [usize; 4] = std::array::from_fn(|_| slots - next(if case % 3 == 0 { 1 } else { slots }));
            let strides = [(slots * stride) as isize, stride as isize];
            let mask = Array { data: memory.as_mut_ptr().cast(), dtype, shape: [4, slots], stride: strides };
            let row = |r: usize| mask.line(r, 0, lengths[r], false);
            let mut bits = lengths.map(|n| vec![!0u64; words(n)]);
            for simd in [Simd::Baseline, Simd::best()] {
                for count in [4, 3] {
                    bits.iter_mut().flatten().for_each(|word| *word = 0x5555);
                    read_masks(simd, bits.iter_mut().take(count).enumerate().map(|(r, bits)| (row(r), &mut bits[..])));
                    for (r, bits) in bits.iter().enumerate().take(count) {
                        let want: Vec<bool> = (0..lengths[r]).map(|t| row(r).flag(t)).collect();
                        let got: Vec<bool> = (0..bits.len() * 64).map(|t| bits[t / 64] >> (t % 64) & 1 == 1).collect();
                        assert_eq!(got[..want.len()], want, "case {case}, {count} masks, {simd:?}");
                        assert!(got[want.len()..].iter().all(|bit| !bit), "case {case}: bits beyond the mask");
                    }
                }
            }
        }
    }
}
