//! A row written line by line of the cache: which chunk each cell is of follows from a bit a cell, by table and permutation, so that the loop has no branch
//! that depends on the data and every store is a whole line.
#![cfg(target_arch = "x86_64")]
use super::expand::{Chunks, Out};
use super::scope::Scope;
use super::worker::Job;
use crate::model::array::{Array, DType, Row};
use crate::model::batch::Extent;
use crate::numerics::simd::Simd;
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::Range;

/// Bytes of a line of the cache.
pub const LINE: usize = 64;

/// Entries of the table that a permutation may read beyond the last.
pub const WINDOW: usize = 16;

/// Byte j of entry m: how many of the bits below j are set in m.
static BELOW: [u64; 256] = {
    let mut table = [0u64; 256];
    let mut m = 0;
    while m < 256 {
        let mut j = 0;
        while j < 8 {
            table[m] |= ((m as u64 & ((1 << j) - 1)).count_ones() as u64) << (8 * j);
            j += 1;
        }
        m += 1;
    }
    table
};

/// The same for cells of two bytes, as the bytes of a shuffle: entry j is bytes 2 b and 2 b + 1, b the bits below j.
static PAIRS: [[u8; 16]; 256] = {
    let mut table = [[0u8; 16]; 256];
    let mut m = 0;
    while m < 256 {
        let mut j = 0;
        while j < 8 {
            let below = (BELOW[m] >> (8 * j)) as u8;
            table[m][2 * j] = 2 * below;
            table[m][2 * j + 1] = 2 * below + 1;
            j += 1;
        }
        m += 1;
    }
    table
};

/// `Worker::row`, of a value a chunk; `None`: nothing done, the output lies otherwise or the processor is another.
#[allow(clippy::too_many_arguments)]
pub fn write(job: &Job, to: &Array, at: &Extent, scope: &Scope, ends: &[u32], values: &[f64], table: &mut [u32], marks: &mut [u8], ahead: &mut Range<usize>) -> Option<u64> {
    if job.simd() < Simd::Avx2 || at.tail > 0 {
        return None;
    }
    let (row, before) = cells(job, to, at);
    let mut line = Line { scope, before, ends, values, streams: job.streams, flat: at.flat, ahead };
    match to.dtype {
        DType::F32 => line.typed::<f32>(&row, table, marks),
        DType::Bf16 => line.typed::<bf16>(&row, table, marks),
        DType::F16 => line.typed::<f16>(&row, table, marks),
        _ => None,
    }
}

/// The cells that are written of a rollout, and how many of them stand before its first token.
fn cells(job: &Job, to: &Array, at: &Extent) -> (Row, usize) {
    let whole = !at.flat && job.config().fill_padding;
    if whole { (to.line(at.row, 0, job.problem.slots, false), at.column) } else { (at.of(to), 0) }
}

/// Asks for the last line of a row that `write` will write: it is written in part, and asked for among stores that pass the caches by it would wait for these.
pub fn ask(job: &Job, to: &Array, at: &Extent) {
    let row = cells(job, to, at).0;
    // SAFETY: every x86-64 processor has SSE; no memory is touched.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(row.address().wrapping_add(row.len() * to.dtype.bytes()).cast()) };
}

struct Line<'a> {
    scope: &'a Scope<'a>,
    /// Cells before the rollout's first token.
    before: usize,
    ends: &'a [u32],
    values: &'a [f64],
    streams: bool,
    flat: bool,
    ahead: &'a mut Range<usize>,
}

impl Line<'_> {
    fn typed<T: Out>(&mut self, row: &Row, room: &mut [u32], marks: &mut [u8]) -> Option<u64> {
        // SAFETY: the rollout's slots are this thread's, and its input has been read.
        let cells = unsafe { row.slice_mut::<T>()? };
        let (k, scope, bytes) = (self.ends.len(), self.scope, size_of::<T>());
        // The last line is written in part, last of all: it had better be there by then.
        // SAFETY: every x86-64 processor has SSE; no memory is touched.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(cells.as_ptr_range().end.cast()) };
        if k == 0 {
            // SAFETY: the cells' bytes, all of which 0 is the zero of every type.
            unsafe { zeros(cells.as_mut_ptr().cast(), size_of_val(cells), self.streams) };
            return Some(0);
        }
        let per_line = LINE / bytes;
        // Cells in scope, and where the line of the first begins, in cells from the line that the row begins in.
        // (Of a rollout whose steps do not fit no chunk reaches the end of the scope.)
        let (a, b) = (scope.first + self.before, self.ends[k - 1] as usize + 1 + self.before);
        // What the lines below rely on.
        assert!(a < b && b <= cells.len());
        let phase = (cells.as_ptr().addr() / bytes) % per_line;
        let first = (a + phase) / per_line * per_line;
        let last = (b - 1 + phase) / per_line * per_line;
        let marks = &mut marks[..(last + per_line - first) / 8];
        marks.fill(0);
        let mut mark = |cell: usize| {
            let bit = cell + phase - first;
            marks[bit / 8] |= 1 << (bit % 8);
        };
        // SAFETY: numbers of any bit pattern are valid, and `room` is aligned for the largest of these types.
        let room = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<T>(), room.len() * 4 / bytes) };
        // Without gaps the values of the chunks are the table, after a 0 for what stands before the first token in its line.
        let lead = usize::from(a + phase > first && a > 0);
        let (own, table) = room.split_at_mut(if scope.has_holes() { k } else { 0 });
        let mut over = T::store(Simd::Avx2, self.values, if scope.has_holes() { own } else { &mut table[lead..lead + k] });
        if over > 0 {
            over = 0;
            Chunks::Last(self.ends).runs(scope, |j, x, y| {
                let mut one = 0;
                T::from_f64(self.values[j], &mut one);
                over += one * (y - x) as u64;
            });
        }
        let mut n = lead;
        if lead > 0 {
            table[0] = T::ZERO;
            mark(a - 1);
        }
        if scope.has_holes() {
            let mut done = scope.first;
            Chunks::Last(self.ends).runs(scope, |j, x, y| {
                if x > done {
                    table[n] = T::ZERO;
                    mark(x + self.before - 1);
                    n += 1;
                }
                table[n] = own[j];
                mark(y + self.before - 1);
                (n, done) = (n + 1, y);
            });
        } else {
            self.ends.iter().for_each(|end| mark(*end as usize + self.before));
            n += k;
        }
        table[n..n + WINDOW].fill(T::ZERO);
        let to = Cells { at: cells.as_mut_ptr().cast(), bytes: size_of_val(cells), phase: phase * bytes, first: first * bytes, last: last * bytes, streams: self.streams, pages: self.streams && self.flat, ahead: self.ahead.clone() };
        let (marks, table) = (marks.as_ptr(), table.as_ptr().cast::<u8>());
        // SAFETY: AVX2 is there (`write`); marks and table reach as far as the lines, the table `WINDOW` entries further.
        unsafe {
            self.ahead.start = match bytes {
                4 => lines::<4>(&to, marks, table),
                _ => lines::<2>(&to, marks, table),
            }
        }
        Some(over)
    }
}

/// The first cells in scope of a row, all of which are: what `Line` writes, of marks that stand already. `cells` are those of the row, the first `n` have a
/// value, the others are 0. Bit `cell + phase(cells)` of `marks` is set where a chunk ends; its values stand in `table`.
///
/// # Safety
/// AVX2 and the bit counts; marks reach to the end of the line of the last of the n cells, the table `WINDOW` entries beyond the marks set.
pub unsafe fn marked<T: Out>(cells: &mut [T], n: usize, marks: *const u8, table: *const T, streams: bool, ahead: &mut Range<usize>) {
    let (bytes, phase) = (size_of::<T>(), phase::<T>(cells.as_ptr().cast()));
    debug_assert!(n > 0 && n <= cells.len());
    let last = (n - 1 + phase) / (LINE / bytes) * LINE;
    let to = Cells { at: cells.as_mut_ptr().cast(), bytes: size_of_val(cells), phase: phase * bytes, first: 0, last, streams, pages: streams, ahead: ahead.clone() };
    // SAFETY: by the caller's word.
    unsafe {
        ahead.start = match bytes {
            4 => lines::<4>(&to, marks, table.cast()),
            _ => lines::<2>(&to, marks, table.cast()),
        }
    }
}

/// Where in its line of the cache a row of cells of type T begins, in cells.
pub fn phase<T>(row: *const u8) -> usize {
    row.addr() / size_of::<T>() % (LINE / size_of::<T>())
}

/// Cells of a row, in bytes; lines from the one that the row begins in.
struct Cells {
    at: *mut u8,
    bytes: usize,
    /// Where in its line the row begins.
    phase: usize,
    /// Where the lines with cells in scope begin: the first, the last.
    first: usize,
    last: usize,
    streams: bool,
    /// What is written past the caches goes on behind the row, in the next one: of its pages a line is asked for (`PAGES`).
    pages: bool,
    /// Addresses that will be read next.
    ahead: Range<usize>,
}

/// Bytes of a page of memory.
const PAGE: usize = 4096;

/// Pages between what is written past the caches and what is asked for a line of, so that the processor knows by then where the page lies: a store that has to
/// look this up holds up all after it.
const PAGES: usize = 2;

/// # Safety
/// AVX2; `bytes` writable bytes.
unsafe fn zeros(at: *mut u8, bytes: usize, streams: bool) {
    let head = at.align_offset(LINE).min(bytes);
    let whole = (bytes - head) / LINE * LINE;
    // SAFETY: head, whole lines and the rest make up the bytes.
    unsafe {
        if bytes == 0 {
            return;
        }
        if !streams || whole == 0 {
            return at.write_bytes(0, bytes);
        }
        at.write_bytes(0, head);
        zero_lines(at.add(head), whole);
        at.add(head + whole).write_bytes(0, bytes - head - whole);
    }
}

#[target_feature(enable = "avx2")]
unsafe fn zero_lines(at: *mut u8, bytes: usize) {
    let zero = _mm256_setzero_si256();
    for line in (0..bytes).step_by(LINE) {
        // SAFETY: a whole aligned line.
        unsafe {
            _mm256_stream_si256(at.add(line).cast(), zero);
            _mm256_stream_si256(at.add(line + 32).cast(), zero);
        }
    }
}

/// One line of cells of `BYTES` bytes: marks at `marks`, values of the table from entry `chunk` on.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn line<const BYTES: usize>(marks: *const u8, table: *const u8, chunk: &mut usize) -> [__m256i; 2] {
    // SAFETY: by the caller's word: marks of a line, and a window of the table from each entry that is reached.
    unsafe {
        if BYTES == 4 {
            let mut eight = |m: u8| {
                let at = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(BELOW[m as usize] as i64));
                let window = _mm256_loadu_si256(table.add(4 * *chunk).cast());
                *chunk += m.count_ones() as usize;
                _mm256_permutevar8x32_epi32(window, at)
            };
            [eight(*marks), eight(*marks.add(1))]
        } else {
            let mut eight = |m: u8| {
                let window = table.add(2 * *chunk);
                *chunk += m.count_ones() as usize;
                (PAIRS.as_ptr().add(m as usize).cast::<__m128i>(), window.cast::<__m128i>())
            };
            let mut sixteen = |at: usize| {
                let (low, high) = (eight(*marks.add(at)), eight(*marks.add(at + 1)));
                let cells = |low: *const __m128i, high: *const __m128i| {
                    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high))
                };
                _mm256_shuffle_epi8(cells(low.1, high.1), cells(low.0, high.0))
            };
            [sixteen(0), sixteen(2)]
        }
    }
}

/// Bytes low .. high of a line.
///
/// # Safety
/// They are writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_part<const BYTES: usize>(at: *mut u8, cells: [__m256i; 2], low: usize, high: usize) {
    // SAFETY: by the caller's word; a masked store touches no byte that is not stored.
    unsafe {
        if BYTES == 4 {
            let lane = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
            for (half, cells) in cells.into_iter().enumerate() {
                let byte = _mm256_add_epi32(lane, _mm256_set1_epi32(32 * half as i32));
                let there = _mm256_and_si256(
                    _mm256_cmpgt_epi32(byte, _mm256_set1_epi32(low as i32 - 1)),
                    _mm256_cmpgt_epi32(_mm256_set1_epi32(high as i32), byte),
                );
                _mm256_maskstore_epi32(at.wrapping_add(32 * half).cast(), there, cells);
            }
        } else {
            let mut bytes = [0u8; LINE];
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), cells[0]);
            _mm256_storeu_si256(bytes.as_mut_ptr().add(32).cast(), cells[1]);
            at.wrapping_add(low).copy_from_nonoverlapping(bytes.as_ptr().add(low), high - low);
        }
    }
}

/// A whole aligned line.
///
/// # Safety
/// It is writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<const STREAMS: bool>(to: *mut u8, cells: [__m256i; 2]) {
    // SAFETY: by the caller's word.
    unsafe {
        if STREAMS {
            _mm256_stream_si256(to.cast(), cells[0]);
            _mm256_stream_si256(to.add(32).cast(), cells[1]);
        } else {
            _mm256_store_si256(to.cast(), cells[0]);
            _mm256_store_si256(to.add(32).cast(), cells[1]);
        }
    }
}

/// `bytes` of whole lines; where `ASKS`, each asks for as many values of 4 bytes from address `ahead` on.
///
/// # Safety
/// They are writable and aligned; marks and table as in `lines`. (What is asked for need not be there.)
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn whole_lines<const BYTES: usize, const STREAMS: bool, const ASKS: bool>(to: *mut u8, bytes: usize, ahead: usize, marks: *const u8, table: *const u8, chunk: &mut usize) {
    let (mut to, mut marks, mut ahead, mut done) = (to, marks, ahead, *chunk);
    // SAFETY: by the caller's word.
    unsafe {
        let end = to.wrapping_add(bytes);
        while to < end {
            if ASKS {
                for _ in 0..4 / BYTES {
                    _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(ahead));
                    ahead += LINE;
                }
            }
            store::<STREAMS>(to, line::<BYTES>(marks, table, &mut done));
            (to, marks) = (to.add(LINE), marks.add(LINE / BYTES / 8));
        }
    }
    *chunk = done;
}

/// # Safety
/// The cells are writable; marks of the lines first ..= last, a table of as many entries as marks and a window more.
#[target_feature(enable = "avx2,popcnt")]
unsafe fn lines<const BYTES: usize>(to: &Cells, marks: *const u8, table: *const u8) -> usize {
    let step = LINE / BYTES / 8;
    // SAFETY: by the caller's word; a line that is not wholly the row's is written in part.
    unsafe {
        zeros(to.at, to.first.saturating_sub(to.phase).min(to.bytes), to.streams);
        let (mut marks, mut chunk, mut at) = (marks, 0, to.first);
        let whole = |at: usize| at >= to.phase && at + LINE <= to.phase + to.bytes;
        let mut part = |at: usize, marks: *const u8| {
            let cells = line::<BYTES>(marks, table, &mut chunk);
            store_part::<BYTES>(to.at.wrapping_add(at).wrapping_sub(to.phase), cells, to.phase.saturating_sub(at), LINE.min(to.phase + to.bytes - at));
        };
        if !whole(at) {
            part(at, marks);
            (at, marks) = (at + LINE, marks.add(step));
        }
        let end = if whole(to.last) { to.last + LINE } else { to.last };
        let mut target = to.at.wrapping_add(at.wrapping_sub(to.phase));
        // What a line asks for: as many values as it has cells, of 4 bytes.
        let (mut ahead, each) = (to.ahead.start, LINE * (4 / BYTES));
        while at < end {
            let mut bytes = end - at;
            if to.pages {
                _mm_prefetch::<_MM_HINT_T0>(target.wrapping_add(PAGES * PAGE).cast());
                bytes = bytes.min(PAGE - target.addr() % PAGE);
            }
            let asks = ahead < to.ahead.end;
            if asks {
                bytes = bytes.min((to.ahead.end - ahead).div_ceil(each) * LINE);
            }
            let write = match (to.streams, asks) {
                (false, false) => whole_lines::<BYTES, false, false>,
                (false, true) => whole_lines::<BYTES, false, true>,
                (true, false) => whole_lines::<BYTES, true, false>,
                (true, true) => whole_lines::<BYTES, true, true>,
            };
            write(target, bytes, ahead, marks, table, &mut chunk);
            ahead += if asks { bytes / LINE * each } else { 0 };
            (at, target, marks) = (at + bytes, target.wrapping_add(bytes), marks.add(bytes / LINE * step));
        }
        if at == to.last {
            let cells = line::<BYTES>(marks, table, &mut chunk);
            store_part::<BYTES>(to.at.add(at - to.phase), cells, 0, to.phase + to.bytes - at);
            at += LINE;
        }
        let done = (at - to.phase).min(to.bytes);
        zeros(to.at.add(done), to.bytes - done, to.streams);
        ahead.min(to.ahead.end)
    }
}
