//! The yardstick: moving as many bytes, by as many threads, with plain or with non-temporal stores; and the sweep that leaves the caches with other memory.
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Instant;

/// Read and written before a cold call: beyond every cache.
const SWEPT: usize = 600 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stores {
    Plain,
    Streaming,
}

pub struct Copier {
    from: Vec<u64>,
    to: Vec<u64>,
    swept: Vec<u64>,
    pool: ThreadPool,
}

impl Copier {
    /// For two threads and at most `bytes` copied or half as many filled.
    pub fn new(bytes: usize) -> Copier {
        let words = bytes / 16 + 1;
        let pool = ThreadPoolBuilder::new().num_threads(2).build().expect("threads for the copy");
        Copier { from: vec![1; words], to: vec![1; words], swept: Vec::new(), pool }
    }

    /// Seconds of moving `bytes` in all: half of them read, half written.
    pub fn copy(&mut self, bytes: usize, threads: usize, stores: Stores) -> f64 {
        let words = (bytes / 16).max(1);
        let work: fn(&[u64], &mut [u64]) = if stores == Stores::Plain { plain_copy } else { streaming_copy };
        spread(&self.pool, &self.from[..words], &mut self.to[..words], threads, work)
    }

    /// Seconds of writing `bytes`.
    pub fn fill(&mut self, bytes: usize, threads: usize, stores: Stores) -> f64 {
        let words = (bytes / 8).max(1);
        let work: fn(&[u64], &mut [u64]) = if stores == Stores::Plain { |_, to| to.fill(2) } else { streaming_fill };
        spread(&self.pool, &[], &mut self.to[..words], threads, work)
    }

    /// Leaves every core's caches with memory of no one's.
    pub fn sweep(&mut self) {
        if self.swept.is_empty() {
            self.swept = vec![1; SWEPT / 8];
        }
        let half = self.swept.len() / 2;
        let (one, two) = self.swept.split_at_mut(half);
        let touch = |part: &mut [u64]| part.iter_mut().step_by(8).for_each(|word| *word = word.wrapping_add(1));
        self.pool.in_place_scope(|scope| {
            scope.spawn(|_| touch(one));
            touch(two);
        });
    }
}

fn spread(pool: &ThreadPool, from: &[u64], to: &mut [u64], threads: usize, work: fn(&[u64], &mut [u64])) -> f64 {
    let part = to.len().div_ceil(threads);
    let begin = Instant::now();
    if threads == 1 {
        work(from, to);
    } else {
        // The calling thread takes the first part, as in a call of the library.
        pool.in_place_scope(|scope| {
            let (own, others) = to.split_at_mut(part);
            for (i, to) in others.chunks_mut(part).enumerate() {
                let from = if from.is_empty() { from } else { &from[(i + 1) * part..][..to.len()] };
                scope.spawn(move |_| work(from, to));
            }
            work(if from.is_empty() { from } else { &from[..part] }, own);
        });
    }
    std::hint::black_box(&to);
    begin.elapsed().as_secs_f64()
}

fn plain_copy(from: &[u64], to: &mut [u64]) {
    to.copy_from_slice(from);
}

fn streaming_copy(from: &[u64], to: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        return unsafe { avx(Some(from), to) };
    }
    plain_copy(from, to);
}

fn streaming_fill(_: &[u64], to: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        return unsafe { avx(None, to) };
    }
    to.fill(2);
}

/// Copies `from`, or fills where there is none.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn avx(from: Option<&[u64]>, to: &mut [u64]) {
    use std::arch::x86_64::*;
    assert!(from.is_none_or(|from| from.len() == to.len()));
    let rest = |to: &mut [u64], at: usize| match from {
        Some(from) => to.copy_from_slice(&from[at..][..to.len()]),
        None => to.fill(2),
    };
    // Words before the first 32-byte line of the destination.
    let head = to.as_ptr().align_offset(32).min(to.len());
    rest(&mut to[..head], 0);
    let blocks = (to.len() - head) / 16;
    for block in 0..blocks {
        let at = head + block * 16;
        for lane in (at..at + 16).step_by(4) {
            // SAFETY: lane + 4 <= len of both; the destination is 32-byte aligned at `lane`.
            unsafe {
                let value = from.map_or(_mm256_set1_epi64x(2), |from| _mm256_loadu_si256(from.as_ptr().add(lane).cast()));
                _mm256_stream_si256(to.as_mut_ptr().add(lane).cast(), value);
            }
        }
    }
    let tail = head + blocks * 16;
    rest(&mut to[tail..], tail);
    _mm_sfence();
}
