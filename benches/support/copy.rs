//! The yardstick: copying as many bytes, by as many threads, with libc's memcpy or with non-temporal stores.
use std::time::Instant;

pub struct Copier {
    from: Vec<u64>,
    to: Vec<u64>,
    threads: usize,
    pool: rayon::ThreadPool,
}

/// Seconds of one copy of each kind.
pub struct Seconds {
    pub memcpy: f64,
    pub streaming: f64,
}

impl Copier {
    /// Moves `bytes` in all: half of them read, half written.
    pub fn new(bytes: usize, threads: usize) -> Copier {
        let words = (bytes / 2).div_ceil(8).max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads for the copy");
        Copier { from: (0..words as u64).collect(), to: vec![1; words], threads, pool }
    }

    pub fn time(&mut self) -> Seconds {
        let memcpy = self.run(plain);
        let streaming = self.run(streaming);
        Seconds { memcpy, streaming }
    }

    fn run(&mut self, copy: fn(&[u64], &mut [u64])) -> f64 {
        let part = self.from.len().div_ceil(self.threads);
        let (from, to) = (&self.from, &mut self.to);
        let begin = Instant::now();
        if self.threads == 1 {
            copy(from, to);
        } else {
            self.pool.scope(|scope| {
                for (from, to) in from.chunks(part).zip(to.chunks_mut(part)) {
                    scope.spawn(move |_| copy(from, to));
                }
            });
        }
        std::hint::black_box(&self.to);
        begin.elapsed().as_secs_f64()
    }
}

fn plain(from: &[u64], to: &mut [u64]) {
    // SAFETY: both slices are `from.len()` words long and do not overlap.
    unsafe { libc::memcpy(to.as_mut_ptr().cast(), from.as_ptr().cast(), size_of_val(from)) };
}

fn streaming(from: &[u64], to: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        return unsafe { avx(from, to) };
    }
    plain(from, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn avx(from: &[u64], to: &mut [u64]) {
    use std::arch::x86_64::*;
    assert_eq!(from.len(), to.len());
    // Words before the first 32-byte line of the destination.
    let head = to.as_ptr().align_offset(32).min(to.len());
    to[..head].copy_from_slice(&from[..head]);
    let blocks = (to.len() - head) / 16;
    for block in 0..blocks {
        let at = head + block * 16;
        // SAFETY: at + 16 <= len; the destination is 32-byte aligned at `at`.
        unsafe {
            let (source, target) = (from.as_ptr().add(at), to.as_mut_ptr().add(at));
            for lane in 0..4 {
                _mm256_stream_si256(target.add(lane * 4).cast(), _mm256_loadu_si256(source.add(lane * 4).cast()));
            }
        }
    }
    let tail = head + blocks * 16;
    to[tail..].copy_from_slice(&from[tail..]);
    _mm_sfence();
}
