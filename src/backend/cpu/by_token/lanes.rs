//! Vectors of eight tokens: loads of f32 and bf16, rounding, and a writer that brings a scan's tiles to the vectors of the output's memory.
use crate::model::array::{Array, DType, Row};
use crate::numerics::convert::OutElem;
use half::bf16;
use std::arch::x86_64::*;

pub const TILE: usize = 32;

/// Eight registers of four positions each, rising.
pub type Tile = [__m256d; 8];

/// Elements of f32, or of bf16 (`narrow`), in a line.
#[derive(Clone, Copy)]
pub struct Line {
    pub at: *mut u8,
    pub narrow: bool,
}

impl Line {
    pub const NONE: Line = Line { at: std::ptr::null_mut(), narrow: false };

    /// Can lines of this array be taken in eights: f32 or bf16, a rollout's tokens side by side?
    pub fn fits(array: &Array, packed: bool) -> bool {
        matches!(array.dtype, DType::F32 | DType::Bf16) && array.stride[if packed { 0 } else { 1 }] == 1
    }

    pub fn of(row: &Row) -> Line {
        Line { at: row.address(), narrow: row.dtype() == DType::Bf16 }
    }

    pub fn of_f32(values: &mut [f32]) -> Line {
        Line { at: values.as_mut_ptr().cast(), narrow: false }
    }

    pub fn bytes(self) -> usize {
        if self.narrow { 2 } else { 4 }
    }

    pub fn from(self, i: usize) -> Line {
        Line { at: self.at.wrapping_add(i * self.bytes()), narrow: self.narrow }
    }

    /// # Safety
    /// Element i is readable.
    #[inline(always)]
    pub unsafe fn one(self, i: usize) -> f32 {
        // SAFETY: by the caller's word; natural alignment is the arrays'.
        unsafe { if self.narrow { f32::from_bits((*self.at.cast::<u16>().add(i) as u32) << 16) } else { *self.at.cast::<f32>().add(i) } }
    }

    /// # Safety
    /// Elements i .. i + 8 are readable.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn eight(self, i: usize) -> __m256 {
        // SAFETY: by the caller's word.
        unsafe {
            if self.narrow {
                let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(self.at.cast::<u16>().add(i).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
            } else {
                _mm256_loadu_ps(self.at.cast::<f32>().add(i))
            }
        }
    }

    /// # Safety
    /// Elements i .. i + 32 are readable.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn tile(self, i: usize) -> Tile {
        let mut tile = [_mm256_setzero_pd(); 8];
        // SAFETY: by the caller's word.
        unsafe {
            if self.narrow {
                let at = self.at.cast::<u16>().add(i);
                for (v, y) in tile.iter_mut().enumerate() {
                    let x = _mm_slli_epi32::<16>(_mm_cvtepu16_epi32(_mm_loadl_epi64(at.add(4 * v).cast())));
                    *y = _mm256_cvtps_pd(_mm_castsi128_ps(x));
                }
            } else {
                let at = self.at.cast::<f32>().add(i);
                for (v, y) in tile.iter_mut().enumerate() {
                    *y = _mm256_cvtps_pd(_mm_loadu_ps(at.add(4 * v)));
                }
            }
        }
        tile
    }

    /// A copy of the first `count` (at most 32) elements as the last ones of 32, zeros before them.
    ///
    /// # Safety
    /// Elements 0 .. count are readable.
    pub unsafe fn at_the_end_of(self, room: &mut [u32; TILE], count: usize) -> Line {
        debug_assert!(count <= TILE);
        let bytes = self.bytes();
        let to = room.as_mut_ptr().cast::<u8>();
        // SAFETY: `count` elements from the line's beginning to the end of room for 32 of either type.
        unsafe { std::ptr::copy_nonoverlapping(self.at, to.add((TILE - count) * bytes), count * bytes) };
        Line { at: to, narrow: self.narrow }
    }
}

/// Eight results as f32 to nearest even, or as the f32 that a bf16 is.
#[inline]
#[target_feature(enable = "avx2")]
pub fn round<const NARROW: bool>(low: __m256d, high: __m256d, largest: &mut __m256i) -> __m256 {
    let nearest = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high));
    let bits = _mm256_castps_si256(nearest);
    *largest = _mm256_max_epu32(*largest, _mm256_and_si256(bits, _mm256_set1_epi32(i32::MAX)));
    let zero = _mm256_setzero_ps();
    if !NARROW {
        // -0, also one that underflow made, is stored as +0.
        return _mm256_add_ps(nearest, zero);
    }
    // An f32 that stands on a tie of bf16 does not say on which side of it the result was.
    let ties = _mm256_cmpeq_epi32(_mm256_slli_epi32::<16>(bits), _mm256_set1_epi32(i32::MIN));
    if _mm256_testz_si256(ties, ties) == 0 {
        return exactly(low, high);
    }
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let cut = _mm256_and_si256(up, _mm256_set1_epi32(!0xffff));
    _mm256_add_ps(_mm256_castsi256_ps(cut), zero)
}

/// `round` to bf16, one after the other.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn exactly(low: __m256d, high: __m256d) -> __m256 {
    let (mut exact, mut lanes, mut over) = ([0.0f64; 8], [0u32; 8], 0);
    // SAFETY: eight elements each.
    unsafe {
        _mm256_storeu_pd(exact.as_mut_ptr(), low);
        _mm256_storeu_pd(exact.as_mut_ptr().add(4), high);
        for (lane, x) in lanes.iter_mut().zip(exact) {
            *lane = (<bf16 as OutElem>::from_f64(x, &mut over).to_bits() as u32) << 16;
        }
        _mm256_loadu_ps(lanes.as_ptr().cast())
    }
}

/// The largest of `largest`'s lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub fn most(largest: __m256i) -> u32 {
    let mut lanes = [0u32; 8];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) };
    lanes.iter().fold(0, |m, x| m.max(*x))
}

/// Eight lanes to memory. `stream`: past the caches, the address is one of a vector.
///
/// # Safety
/// Eight elements from `at` on are writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn put_as<const NARROW: bool>(at: *mut u8, x: __m256, stream: bool) {
    // SAFETY: by the caller's word.
    unsafe {
        if NARROW {
            let half = _mm256_srli_epi32::<16>(_mm256_castps_si256(x));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            if stream { _mm_stream_si128(at.cast(), packed) } else { _mm_storeu_si128(at.cast(), packed) }
        } else if stream {
            _mm256_stream_ps(at.cast(), x);
        } else {
            _mm256_storeu_ps(at.cast(), x);
        }
    }
}

/// Eight lanes to elements i .. i + 8.
///
/// # Safety
/// They are writable.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn put(to: Line, i: usize, x: __m256, stream: bool) {
    let at = to.from(i).at;
    // SAFETY: by the caller's word.
    unsafe { if to.narrow { put_as::<true>(at, x, stream) } else { put_as::<false>(at, x, stream) } }
}

/// Lanes a .. b of eight to elements i + a .. i + b; i may lie before the line.
///
/// # Safety
/// Those elements are writable.
#[inline(never)]
#[target_feature(enable = "avx2")]
pub unsafe fn put_some(to: Line, i: isize, x: __m256, a: usize, b: usize) {
    let mut lanes = [0u32; 8];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr().cast(), x) };
    let mut lane = a;
    while lane < b {
        let (at, bits) = (i + lane as isize, lanes[lane]);
        // SAFETY: by the caller's word.
        unsafe { if to.narrow { *to.at.cast::<u16>().offset(at) = (bits >> 16) as u16 } else { *to.at.cast::<u32>().offset(at) = bits } }
        lane += 1;
    }
}

/// Writes a line's tiles, the last first. Where they go past the caches they are turned in registers, so that whole vectors of the memory are written.
pub struct Writer<const NARROW: bool> {
    to: Line,
    stream: bool,
    /// Elements from a tile's first to the first that begins a vector of the memory.
    shift: usize,
    turn: __m256i,
    late: __m256,
    /// The first eight of the tile after, turned.
    after: __m256,
    top: bool,
}

impl<const NARROW: bool> Writer<NARROW> {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn new(to: Line, n: usize, stream: bool) -> Writer<NARROW> {
        debug_assert!(to.narrow == NARROW);
        let vector = 8 * to.bytes();
        // Tiles begin a multiple of 32 elements before the end.
        let beyond = (to.at as usize + n * to.bytes()) % vector;
        let shift = if stream { (vector - beyond) % vector / to.bytes() } else { 0 };
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let turned = _mm256_add_epi32(lanes, _mm256_set1_epi32(shift as i32));
        Writer {
            to,
            stream,
            shift,
            turn: turned,
            late: _mm256_castsi256_ps(_mm256_cmpgt_epi32(turned, _mm256_set1_epi32(7))),
            after: _mm256_setzero_ps(),
            top: true,
        }
    }

    /// A tile that lies wholly in the line and is not its last.
    ///
    /// # Safety
    /// Elements `from` .. `from + 32` are writable, `from` is above 0 where vectors are turned, and the tile after has been written.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn whole(&mut self, from: usize, lanes: &[__m256; 4]) {
        const BYTES: [usize; 2] = [4, 2];
        let bytes = BYTES[NARROW as usize];
        let mut at = self.to.at.wrapping_add((from + self.shift) * bytes);
        if self.stream {
            let turned = [
                _mm256_permutevar8x32_ps(lanes[0], self.turn),
                _mm256_permutevar8x32_ps(lanes[1], self.turn),
                _mm256_permutevar8x32_ps(lanes[2], self.turn),
                _mm256_permutevar8x32_ps(lanes[3], self.turn),
            ];
            let next = [turned[1], turned[2], turned[3], self.after];
            for j in (0..4).rev() {
                // SAFETY: within the line or, by its turned lanes, in the tile after; at a vector's address.
                unsafe { put_as::<NARROW>(at.wrapping_add(8 * j * bytes), _mm256_blendv_ps(turned[j], next[j], self.late), true) };
            }
            self.after = turned[0];
        } else {
            for x in lanes {
                // SAFETY: within the line (nothing is turned: the shift is 0).
                unsafe { put_as::<NARROW>(at, *x, false) };
                at = at.wrapping_add(8 * bytes);
            }
        }
    }

    /// Any tile of elements `from` .. `from + 32`; the lowest may begin before the line.
    ///
    /// # Safety
    /// Those elements from 0 on are writable; every tile but the lowest begins at 0 or after.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn tile(&mut self, from: isize, lanes: &[__m256; 4]) {
        if !self.stream {
            for (j, x) in lanes.iter().enumerate() {
                let at = from + 8 * j as isize;
                // SAFETY: within the line.
                unsafe { if at >= 0 { put(self.to, at as usize, *x, false) } else if at > -8 { put_some(self.to, at, *x, -at as usize, 8) } }
            }
            return;
        }
        let mut next = self.after;
        let mut turned = next;
        for j in (0..4).rev() {
            turned = _mm256_permutevar8x32_ps(lanes[j], self.turn);
            let x = _mm256_blendv_ps(turned, next, self.late);
            next = turned;
            let at = from + (self.shift + 8 * j) as isize;
            // SAFETY: within the line, at a vector's address.
            unsafe {
                if j == 3 && self.top && self.shift > 0 {
                    // The vector reaches beyond the end.
                    let begin = from + 24;
                    put_some(self.to, begin, lanes[3], self.shift.max((-begin).max(0) as usize), 8);
                } else if at >= 0 {
                    put(self.to, at as usize, x, true);
                } else if at > -8 {
                    put_some(self.to, at, x, -at as usize, 8);
                }
            }
        }
        self.after = turned;
        self.top = false;
        if from <= 0 {
            // SAFETY: the elements before the first vector.
            unsafe { put_some(self.to, from, lanes[0], -from as usize, self.shift) };
        }
    }
}

/// Zeros in `bytes` bytes.
///
/// # Safety
/// They are writable.
#[target_feature(enable = "avx2")]
pub unsafe fn zero(at: *mut u8, bytes: usize, stream: bool) {
    const VECTOR: usize = 32;
    // SAFETY: by the caller's word.
    unsafe {
        if !stream || bytes < 4 * VECTOR {
            return std::ptr::write_bytes(at, 0, bytes);
        }
        let head = (VECTOR - at as usize % VECTOR) % VECTOR;
        std::ptr::write_bytes(at, 0, head);
        let (mut done, zero) = (head, _mm256_setzero_si256());
        while done + VECTOR <= bytes {
            _mm256_stream_si256(at.add(done).cast(), zero);
            done += VECTOR;
        }
        std::ptr::write_bytes(at.add(done), 0, bytes - done);
    }
}

/// Lines of memory that will be read soon: those of the next rollout, or of the next group's.
pub struct Ahead {
    pub parts: [(*const u8, *const u8); 2],
}

impl Ahead {
    pub const NONE: Ahead = Ahead { parts: [(std::ptr::null(), std::ptr::null()); 2] };

    /// Fetches the next few lines of each.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn go(&mut self) {
        for (at, end) in &mut self.parts {
            if *at < *end {
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(64).cast());
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(128).cast());
                *at = at.wrapping_add(192);
            }
        }
    }
}
