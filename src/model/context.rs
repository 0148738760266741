//! What a context is made from, and raw memory of the caller.

pub use crate::numerics::simd::Simd;

#[derive(Clone, Debug)]
pub struct ContextOptions {
    /// `None`: the CPU.
    pub cuda: Option<CudaOptions>,
    /// 0: as the calling thread may use.
    pub threads: usize,
    pub simd: Simd,
    /// `None`: by what a token costs.
    pub small_call_bytes: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct CudaOptions {
    /// Ordinal; -1: the calling thread's current context.
    pub device: i32,
    pub kernels: Kernels,
    pub cache: Cache,
    /// Path of the NVRTC library; `None`: found by name.
    pub nvrtc: Option<String>,
}

/// Which image of the kernels a context may load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernels {
    Any,
    BuiltIn,
    Nvrtc,
}

/// Where images that NVRTC made are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cache {
    Home,
    At(String),
    Off,
}

/// Where a context's arrays lie: host memory, or a CUDA device's by its ordinal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    Host,
    Cuda(i32),
}

/// Memory that the caller lends for one call: aligned and large enough, of any content.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub data: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address; who carves it hands each thread its own part.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// The first 32 bytes of a buffer of at least that size.
    pub fn header(&self) -> [u64; 4] {
        assert!(self.bytes >= 32);
        // SAFETY: 32 readable bytes, aligned to 8 (`check::memory`).
        unsafe { self.data.cast::<[u64; 4]>().read() }
    }

    /// First and last byte, as addresses (`None`: nothing).
    pub fn span(&self) -> Option<(usize, usize)> {
        (self.bytes > 0).then(|| (self.data.addr(), self.data.addr() + (self.bytes - 1)))
    }

    /// `count` elements at `offset`.
    ///
    /// # Safety
    /// The part is not in use elsewhere; every bit pattern is a valid T (or the part is written before it is read).
    pub unsafe fn part<'a, T>(&self, offset: usize, count: usize) -> &'a mut [T] {
        assert!(offset % align_of::<T>() == 0 && offset + count * size_of::<T>() <= self.bytes);
        if count == 0 {
            return &mut [];
        }
        // SAFETY: within the memory, aligned, exclusive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(offset).cast::<T>(), count) }
    }
}
