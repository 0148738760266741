//! Vectors of eight tokens: loads of f32 and bf16, rounding, and a writer that brings a scan's tiles to the vectors of the output's memory.
use crate::model::array::{Array, DType, Row};
use crate::numerics::convert::OutElem;
use half::bf16;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

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

/// Elements i .. i + 4 of f32 or of bf16 (`NARROW`). Always inlined, into functions that have AVX2: the conversion reads memory itself.
///
/// # Safety
/// AVX2; they are readable.
#[inline(always)]
pub unsafe fn four<const NARROW: bool>(at: *const u8, i: usize) -> __m256d {
    // SAFETY: by the caller's word.
    unsafe {
        if NARROW {
            let x = _mm_slli_epi32::<16>(_mm_cvtepu16_epi32(_mm_loadl_epi64(at.cast::<u16>().add(i).cast())));
            _mm256_cvtps_pd(_mm_castsi128_ps(x))
        } else {
            _mm256_cvtps_pd(_mm_loadu_ps(at.cast::<f32>().add(i)))
        }
    }
}

/// Eight results as f32 to nearest even, or as the f32 that a bf16 is.
#[inline]
#[target_feature(enable = "avx2")]
pub fn round<const NARROW: bool>(low: __m256d, high: __m256d, largest: &mut __m256i) -> __m256 {
    let nearest = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high));
    finish::<NARROW>(nearest, low, high, largest)
}

/// `round` from the nearest f32 on.
#[inline]
#[target_feature(enable = "avx2")]
pub fn finish<const NARROW: bool>(nearest: __m256, low: __m256d, high: __m256d, largest: &mut __m256i) -> __m256 {
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

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// Tiles that wait before they go past the caches: what is read back of them at other places than it was written has reached the cache by then, past all
/// stores that the processor queues. (Behind a store past the caches the queue is long: what had to wait for it would not be computed meanwhile.)
const WAIT: usize = 4;

/// Tiles of the ring: those that wait, the newest, the one after the oldest.
const RING: usize = 8;

/// Writes a line's tiles, the last first. Where they go past the caches they wait in a ring, and are then read back at the lines of the caches: parts of lines,
/// written among those of another output, cost several times as much.
pub struct Writer<const NARROW: bool> {
    to: Line,
    stream: bool,
    /// Elements from a tile's first to the first that begins a line of the caches.
    shift: usize,
    /// Of the newest tile, which of the ring's it is, if there is one; how many wait.
    slot: usize,
    held: bool,
    waiting: usize,
    ring: Ring,
}

/// Tiles, falling from the ring's end, and after the last the first bytes of the first: what is read reaches over a tile's end.
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
        if stream {
            // The first line is written in part, last of all: it had better be there by then.
            _mm_prefetch::<_MM_HINT_T0>(to.at.cast());
        }
        Writer { to, stream, shift, slot: 0, held: false, waiting: 0, ring: Ring([MaybeUninit::uninit(); RING * 4 * TILE + LINE]) }
    }

    /// Where in the ring the tile stands that came `before` tiles before the newest.
    #[inline(always)]
    fn kept(&self, before: usize) -> *const u8 {
        self.ring.0.as_ptr().wrapping_add((self.slot + before) % RING * TILE * Self::BYTES).cast()
    }

    /// A tile that is neither the line's last nor its lowest.
    ///
    /// # Safety
    /// Elements `from` .. `from + 32` and those of the tiles that wait are writable, and the tile after has been handed over.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn whole(&mut self, from: usize, lanes: &[__m256; 4]) {
        // SAFETY: by the caller's word.
        unsafe {
            if !self.stream {
                let at = self.to.at.wrapping_add(from * Self::BYTES);
                for (j, x) in lanes.iter().enumerate() {
                    put_as::<NARROW, false>(at.wrapping_add(8 * j * Self::BYTES), *x);
                }
                return;
            }
            if self.waiting == WAIT {
                self.emit(from + TILE * WAIT, WAIT - 1);
                self.waiting -= 1;
            }
            self.keep(lanes);
            self.waiting += 1;
        }
    }

    /// The tile that came `before` tiles before the newest, of elements `from` .. `from + 32`: its lines, the last of which may reach into the tile after.
    ///
    /// # Safety
    /// Elements up to the end of that are writable.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn emit(&self, from: usize, before: usize) {
        let at = self.to.at.wrapping_add((from + self.shift) * Self::BYTES).cast::<__m256i>();
        let kept = self.kept(before).wrapping_add(self.shift * Self::BYTES).cast::<__m256i>();
        for j in 0..Self::BYTES {
            // SAFETY: a tile's bytes, from less than a line after its first on; at an address of the memory's lines.
            unsafe { _mm256_stream_si256(at.wrapping_add(j), _mm256_loadu_si256(kept.wrapping_add(j))) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn keep(&mut self, lanes: &[__m256; 4]) {
        self.slot = (self.slot + RING - 1) % RING;
        self.held = true;
        let kept = self.kept(0).cast_mut();
        // SAFETY: a tile of the ring; beyond its last there is room for a line.
        unsafe {
            for (j, x) in lanes.iter().enumerate() {
                put_as::<NARROW, false>(kept.add(8 * j * Self::BYTES), *x);
            }
            if self.slot == 0 {
                for (j, x) in lanes.iter().enumerate().take(LINE / 8 / Self::BYTES) {
                    put_as::<NARROW, false>(kept.add((RING * TILE + 8 * j) * Self::BYTES), *x);
                }
            }
        }
    }

    /// The line's last tile or its lowest, of elements `from` .. `from + 32`; the lowest may begin before the line, and what waits is written with it.
    ///
    /// # Safety
    /// Those elements from 0 on are writable, and what waits.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn tile(&mut self, from: isize, lanes: &[__m256; 4]) {
        // SAFETY: by the caller's word.
        unsafe {
            if self.stream && from > 0 {
                // The last of more than one. What stands in it before its first line is written with the tile before: no line is written in both ways.
                self.keep(lanes);
                let at = self.to.from(from as usize + self.shift).at;
                return std::ptr::copy_nonoverlapping(self.kept(0).add(self.shift * Self::BYTES), at, (TILE - self.shift) * Self::BYTES);
            }
            for (j, x) in lanes.iter().enumerate() {
                let at = from + 8 * j as isize;
                if at >= 0 { put(self.to, at as usize, *x, false) } else if at > -8 { put_some(self.to, at, *x, -at as usize, 8) }
            }
            let after = (from + TILE as isize) as usize;
            for before in (0..self.waiting).rev() {
                self.emit(after + TILE * before, before);
            }
            if self.held {
                // Of the tile after, the elements before its first line.
                std::ptr::copy_nonoverlapping(self.kept(0), self.to.from(after).at, self.shift * Self::BYTES);
            }
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
