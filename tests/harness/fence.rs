//! An allocator that fences memory: while it is on for a thread, each block it gives that thread ends where an unreadable page begins, or begins where
//! one ends. One byte too far, read or written, is a SIGSEGV, and so is any use after the block was given back. The handler names the case.
//!
//! A test crate makes it its own with `#[global_allocator] static FENCE: Fence = Fence;`. The shared library has another allocator; what the test hands it
//! is fenced.
#![allow(dead_code)]
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which side of a block the unreadable page touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    After,
    Before,
}

pub struct Fence;

const PAGE: usize = 4096;
/// Addresses, not memory: given out once each, so a block given back is never readable again.
const REGION: usize = 1 << 38;
static BASE: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(PAGE);
static RESERVE: Once = Once::new();

thread_local! {
    static SIDE: Cell<Option<Side>> = const { Cell::new(None) };
}

/// The case under way, for the handler: address and length of its name.
static NAME: AtomicUsize = AtomicUsize::new(0);
static NAME_LEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_fault(_: libc::c_int) {
    let name = NAME.load(Ordering::Relaxed) as *const libc::c_void;
    // SAFETY: bytes that are there.
    let says = |text: &[u8]| unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    // SAFETY: async-signal-safe calls; the name is leaked by `case`.
    unsafe {
        says(b"\nSIGSEGV: a byte outside the memory it was lent, in case: ");
        libc::write(2, name, NAME_LEN.load(Ordering::Relaxed));
        says(b"\n");
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::raise(libc::SIGSEGV);
    }
}

fn reserve() {
    RESERVE.call_once(|| {
        // SAFETY: new addresses without memory.
        let at = unsafe { libc::mmap(null_mut(), REGION, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0) };
        assert!(at != libc::MAP_FAILED, "no addresses for fenced memory");
        BASE.store(at.addr(), Ordering::Release);
        // SAFETY: a handler that makes async-signal-safe calls.
        unsafe { libc::signal(libc::SIGSEGV, on_fault as *const () as libc::sighandler_t) };
    });
}

/// Runs `work` with this thread's allocations fenced.
pub fn fenced<R>(side: Side, name: &str, work: impl FnOnce() -> R) -> R {
    reserve();
    let name: &'static str = Box::leak(name.to_string().into_boxed_str());
    NAME_LEN.store(0, Ordering::Relaxed);
    NAME.store(name.as_ptr().addr(), Ordering::Relaxed);
    NAME_LEN.store(name.len(), Ordering::Relaxed);
    SIDE.set(Some(side));
    let result = work();
    SIDE.set(None);
    result
}

fn inside(at: *const u8) -> bool {
    let base = BASE.load(Ordering::Acquire);
    base != 0 && at.addr().wrapping_sub(base) < REGION
}

/// Pages of a fenced block (of one byte at least).
fn pages(at: *const u8, bytes: usize) -> (usize, usize) {
    let from = at.addr() & !(PAGE - 1);
    (from, (at.addr() + bytes.max(1)).next_multiple_of(PAGE) - from)
}

/// Makes a fenced block read-only; nothing where the block is not fenced.
pub fn seal(at: *const u8, bytes: usize) {
    if inside(at) && bytes > 0 {
        let (from, len) = pages(at, bytes);
        // SAFETY: whole pages of that block alone.
        assert_eq!(unsafe { libc::mprotect(from as *mut _, len, libc::PROT_READ) }, 0);
    }
}

// SAFETY: blocks are disjoint whole pages; everything else is the system's allocator.
unsafe impl GlobalAlloc for Fence {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(side) = SIDE.try_with(Cell::get).ok().flatten().filter(|_| layout.align() <= PAGE) else {
            // SAFETY: the caller's layout.
            return unsafe { System.alloc(layout) };
        };
        let room = layout.size().next_multiple_of(PAGE);
        let offset = NEXT.fetch_add(room + PAGE, Ordering::Relaxed);
        let base = BASE.load(Ordering::Acquire);
        if offset + room + PAGE > REGION {
            return null_mut();
        }
        let from = (base + offset) as *mut u8;
        // SAFETY: pages of the region that nobody else has.
        if unsafe { libc::mprotect(from.cast(), room, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return null_mut();
        }
        let skip = match side {
            Side::After => (room - layout.size()) & !(layout.align() - 1),
            Side::Before => 0,
        };
        // SAFETY: within the pages.
        unsafe { from.add(skip) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if !inside(at) {
            // SAFETY: from the system's allocator.
            return unsafe { System.dealloc(at, layout) };
        }
        let (from, len) = pages(at, layout.size());
        // SAFETY: the block's own pages: their memory goes back, their addresses stay reserved.
        unsafe { libc::mmap(from as *mut _, len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED, -1, 0) };
    }
}
