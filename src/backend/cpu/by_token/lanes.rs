//! Vectors of tokens: loads of f32 and bf16, and a writer that brings a scan's tiles to the vectors of the output's memory.
use crate::model::array::{Array, DType, Row};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

pub const TILE: usize = 32;

/// Eight registers of four positions each, rising.
pub type Tile = [__m256d; 8];

/// A tile as it stands in memory: four vectors of f32, or two of bf16 (and two of nothing).
pub type Results = [__m256i; 4];

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

    /// A copy of the first `count` (at most 32) elements as the last ones of 32, zeros before them.
    ///
    /// # Safety
    /// Elements 0 .. count are readable.
    pub unsafe fn at_the_end_of(self, room: &mut [u32; TILE], count: usize) -> Line {
        // SAFETY: by the caller's word.
        unsafe { self.copied(room, count, TILE - count) }
    }

    /// The same as the first ones of 32, zeros after them.
    ///
    /// # Safety
    /// Elements 0 .. count are readable.
    pub unsafe fn at_the_beginning_of(self, room: &mut [u32; TILE], count: usize) -> Line {
        // SAFETY: by the caller's word.
        unsafe { self.copied(room, count, 0) }
    }

    unsafe fn copied(self, room: &mut [u32; TILE], count: usize, first: usize) -> Line {
        assert!(first + count <= TILE);
        *room = [0; TILE];
        let bytes = self.bytes();
        let to = room.as_mut_ptr().cast::<u8>();
        // SAFETY: `count` elements from the line's beginning into room for 32 of either type.
        unsafe { std::ptr::copy_nonoverlapping(self.at, to.add(first * bytes), count * bytes) };
        Line { at: to, narrow: self.narrow }
    }
}

/// Elements i .. i + 8 of f32 or of bf16 (`NARROW`) as doubles. Always inlined, into functions that have AVX2: the conversion reads memory itself.
///
/// # Safety
/// AVX2; they are readable.
#[inline(always)]
pub unsafe fn doubles<const NARROW: bool>(at: *const u8, i: usize) -> [__m256d; 2] {
    // SAFETY: by the caller's word.
    unsafe {
        if NARROW {
            let (x, zero) = (_mm_loadu_si128(at.cast::<u16>().add(i).cast()), _mm_setzero_si128());
            [_mm_unpacklo_epi16(zero, x), _mm_unpackhi_epi16(zero, x)].map(|x| _mm256_cvtps_pd(_mm_castsi128_ps(x)))
        } else {
            [0, 4].map(|more| _mm256_cvtps_pd(_mm_loadu_ps(at.cast::<f32>().add(i + more))))
        }
    }
}

/// The largest of `largest`'s lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub fn most(largest: __m256i) -> u32 {
    let x = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
    let x = _mm_max_epu32(x, _mm_shuffle_epi32::<0b00_00_11_10>(x));
    _mm_cvtsi128_si32(_mm_max_epu32(x, _mm_shuffle_epi32::<1>(x))) as u32
}

/// Eight lanes to memory. `STREAM`: past the caches, the address is one of a vector.
///
/// # Safety
/// Eight elements from `at` on are writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn put_as<const NARROW: bool, const STREAM: bool>(at: *mut u8, x: __m256) {
    // SAFETY: by the caller's word.
    unsafe {
        if NARROW {
            let half = _mm256_srli_epi32::<16>(_mm256_castps_si256(x));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            if STREAM { _mm_stream_si128(at.cast(), packed) } else { _mm_storeu_si128(at.cast(), packed) }
        } else if STREAM {
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
    unsafe {
        match (to.narrow, stream) {
            (false, false) => put_as::<false, false>(at, x),
            (true, false) => put_as::<true, false>(at, x),
            (false, true) => put_as::<false, true>(at, x),
            (true, true) => put_as::<true, true>(at, x),
        }
    }
}

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// Lines at the beginning: what is left of a tile, and the parts of a line about it. (At the end the last of them is not needed.)
const EDGE: usize = 3;

/// Tiles that wait before they go past the caches: what is read back of them at other places than it was written has reached the cache by then, past all
/// stores that the processor queues. (Behind a store past the caches the queue is long: what had to wait for it would not be computed meanwhile.)
const WAIT: usize = 4;

/// Tiles of the ring: those that wait, the newest, the one after the oldest.
const RING: usize = 8;

/// Writes a line's tiles, the last first. Where they go past the caches they wait in a ring, and are then read back at the lines of the caches: parts of lines,
/// written among those of another output, cost several times as much.
pub struct Writer<const NARROW: bool> {
    to: Line,
    n: usize,
    stream: bool,
    /// Elements from a tile's first to the first that begins a line of the caches.
    shift: usize,
    ring: Ring,
}

/// Tiles, each where the number of its first element says, so that nothing need be kept of where the ring stands; and after its last the first bytes of the first:
/// what is read reaches over a tile's end.
#[repr(align(64))]
struct Ring([MaybeUninit<u8>; RING * 4 * TILE + LINE]);

impl<const NARROW: bool> Writer<NARROW> {
    const BYTES: usize = if NARROW { 2 } else { 4 };

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn new(to: Line, n: usize, stream: bool) -> Writer<NARROW> {
        debug_assert!(to.narrow == NARROW);
        // Tiles begin a multiple of 32 elements before the end.
        let beyond = (to.at as usize + n * Self::BYTES) % LINE;
        let shift = if stream { (LINE - beyond) % LINE / Self::BYTES } else { 0 };
        Writer { to, n, stream, shift, ring: Ring([MaybeUninit::uninit(); RING * 4 * TILE + LINE]) }
    }

    /// Where in the ring the tile of elements `from` .. `from + 32` stands.
    #[inline(always)]
    fn kept(&self, from: usize) -> *const u8 {
        self.ring.0.as_ptr().wrapping_add(from / TILE % RING * TILE * Self::BYTES).cast()
    }

    /// A tile that is neither the line's last nor its lowest.
    ///
    /// # Safety
    /// Elements `from` .. `from + 32` and those of the tiles that wait are writable, and all tiles after it have been handed over.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn whole(&mut self, from: usize, results: &Results) {
        // SAFETY: by the caller's word.
        unsafe {
            if !self.stream {
                let at = self.to.at.wrapping_add(from * Self::BYTES);
                for (j, x) in results[..Self::BYTES].iter().enumerate() {
                    _mm256_storeu_si256(at.cast::<__m256i>().wrapping_add(j), *x);
                }
                return;
            }
            // But for the last tile, which is none of them, as many have come as wait.
            if from + TILE * (WAIT + 2) <= self.n {
                self.emit(from + TILE * WAIT);
            }
            self.keep(from, results);
        }
    }

    /// The tile of elements `from` .. `from + 32`: its lines, the last of which may reach into the tile after.
    ///
    /// # Safety
    /// Elements up to the end of that are writable, and both tiles are in the ring.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn emit(&self, from: usize) {
        let at = self.to.at.wrapping_add((from + self.shift) * Self::BYTES).cast::<__m256i>();
        let kept = self.kept(from).wrapping_add(self.shift * Self::BYTES).cast::<__m256i>();
        for j in 0..Self::BYTES {
            // SAFETY: a tile's bytes, from less than a line after its first on; at an address of the memory's lines.
            unsafe { _mm256_stream_si256(at.wrapping_add(j), _mm256_loadu_si256(kept.wrapping_add(j))) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn keep(&mut self, from: usize, results: &Results) {
        let kept = self.kept(from).cast_mut();
        // SAFETY: a tile of the ring; beyond its last there is room for a line.
        unsafe {
            for (j, x) in results[..Self::BYTES].iter().enumerate() {
                _mm256_storeu_si256(kept.cast::<__m256i>().add(j), *x);
            }
            if from / TILE % RING == 0 {
                for (j, x) in results[..LINE / 32].iter().enumerate() {
                    _mm256_storeu_si256(kept.add(RING * TILE * Self::BYTES).cast::<__m256i>().add(j), *x);
                }
            }
        }
    }

    /// The line's last tile or its lowest, of elements `from` .. `from + 32`; the lowest may begin before the line, and what waits is written with it.
    ///
    /// # Safety
    /// Those elements from 0 on are writable, and what waits; all tiles after it have been handed over.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn tile(&mut self, from: isize, results: &Results) {
        // SAFETY: by the caller's word.
        unsafe {
            if self.stream && from > 0 {
                // The last of more than one. What stands in it before its first line is written with the tile before: no line is written in both ways.
                let from = from as usize;
                self.keep(from, results);
                let at = self.to.from(from + self.shift).at;
                return std::ptr::copy_nonoverlapping(self.kept(from).add(self.shift * Self::BYTES), at, (TILE - self.shift) * Self::BYTES);
            }
            if from >= 0 {
                let at = self.to.from(from as usize).at.cast::<__m256i>();
                results[..Self::BYTES].iter().enumerate().for_each(|(j, x)| _mm256_storeu_si256(at.add(j), *x));
            } else {
                let before = from.unsigned_abs();
                let own = results.as_ptr().cast::<u8>().add(before * Self::BYTES);
                std::ptr::copy_nonoverlapping(own, self.to.at, (TILE - before) * Self::BYTES);
            }
            let after = (from + TILE as isize) as usize;
            if !self.stream || after >= self.n {
                return;
            }
            let waiting = ((self.n - after) / TILE - 1).min(WAIT);
            for before in (0..waiting).rev() {
                self.emit(after + TILE * before);
            }
            // Of the tile after, the elements before its first line.
            std::ptr::copy_nonoverlapping(self.kept(after), self.to.from(after).at, self.shift * Self::BYTES);
        }
    }
}

/// Asks for the lines of the caches that a `Writer` past the caches writes as others are written, at both ends of n elements: of a rollout that comes next, as a
/// store that has to wait for its line holds up all after it.
pub fn ask_for_ends(to: Line, n: usize) {
    let bytes = n * to.bytes();
    // SAFETY: every x86-64 processor has SSE; what is asked for need not be there.
    unsafe {
        for line in 0..EDGE {
            _mm_prefetch::<_MM_HINT_T0>(to.at.wrapping_add(LINE * line).cast());
        }
        for line in 0..EDGE - 1 {
            _mm_prefetch::<_MM_HINT_T0>(to.at.wrapping_add(bytes).wrapping_sub(1 + LINE * line).cast());
        }
    }
}

/// Zeros in `bytes` bytes.
///
/// # Safety
/// They are writable.
#[target_feature(enable = "avx2")]
pub unsafe fn zero(at: *mut u8, bytes: usize, stream: bool) {
    const VECTOR: usize = LINE / 2;
    // SAFETY: by the caller's word.
    unsafe {
        if !stream || bytes < 4 * LINE {
            return std::ptr::write_bytes(at, 0, bytes);
        }
        // No line is written in both ways.
        let head = at.align_offset(LINE);
        std::ptr::write_bytes(at, 0, head);
        let (mut done, zero) = (head, _mm256_setzero_si256());
        while done + LINE <= bytes {
            _mm256_stream_si256(at.add(done).cast(), zero);
            _mm256_stream_si256(at.add(done + VECTOR).cast(), zero);
            done += LINE;
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

    /// Fetches the next lines of each: as many as a tile of f32 has, so that little more waits in the cache than is read meanwhile.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn go(&mut self) {
        for (at, end) in &mut self.parts {
            if *at < *end {
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(64).cast());
                *at = at.wrapping_add(128);
            }
        }
    }
}
