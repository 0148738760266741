//! Threads of a context: helpers of whoever makes a call, started by the first plan that may use them, never touched after a fork.
//!
//! A call posts what it is about and begins itself at once; helpers join it as they come. What none has begun when the caller is done is withdrawn, so a thread
//! that the system is slow to wake delays nobody. A call allocates nothing: what it posts stands on its caller's stack.
use super::affinity::Affinity;
use crate::error::{RESOURCE, Result};
use crate::refuse;
use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Calls that may wait for helpers at once. One more does its work alone.
const POSTED: usize = 64;

/// Looks at what is waited for before a thread sleeps: some ten microseconds, about what it takes to be woken, more than lies between the parts of a call. (Not
/// with `yield_now` between them: on a busy machine each would last as long as others like to run.)
const LOOKS: usize = 500;

/// Bytes of a thread's stack.
const STACK: usize = 2 << 20;

type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// A call that is posted, on its caller's stack. Its shares from `next` to `end` wait for helpers.
struct Call<'a> {
    work: Work<'a>,
    next: usize,
    end: usize,
    /// What a helper's share panicked with.
    panic: Option<Box<dyn Any + Send>>,
}

/// A posted call, and the helpers that are at it.
struct Posted {
    call: NonNull<Call<'static>>,
    running: NonNull<AtomicUsize>,
}

// SAFETY: a call is touched under the queue's lock alone, its work is `Sync`, its count an atomic.
unsafe impl Send for Posted {}

/// What helpers and callers tell each other.
struct Queue {
    calls: Vec<Posted>,
    /// Helpers that sleep.
    asleep: Vec<usize>,
    /// Helpers that have come up.
    up: usize,
    ended: bool,
}

/// Where a helper sleeps until it is wanted, or until the end.
#[derive(Default)]
struct Bed {
    wanted: Condvar,
    affinity: Affinity,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Calls in the queue, to look at without its lock.
    waiting: AtomicUsize,
    beds: Vec<Bed>,
    /// Callers sleep here until helpers are done (or up).
    done: Condvar,
}

impl Shared {
    fn new(helpers: usize) -> Shared {
        let queue = Queue { calls: Vec::with_capacity(POSTED), asleep: Vec::with_capacity(helpers), up: 0, ended: false };
        let beds = (0..helpers).map(|_| Bed::default()).collect();
        Shared { queue: Mutex::new(queue), waiting: AtomicUsize::new(0), beds, done: Condvar::new() }
    }

    /// Nothing under the lock panics.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(on: &Condvar, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        on.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Wakes two helpers where as many shares wait; each that takes one wakes two more.
    fn wake(&self, shares: usize) {
        for _ in 0..shares.min(2) {
            let mut queue = self.lock();
            let Some(helper) = queue.asleep.pop() else { return };
            // Under the lock: a helper that wakes by itself does not go on before its processors are kept.
            self.beds[helper].affinity.apart_from_here();
            self.beds[helper].wanted.notify_one();
        }
    }

    /// Shares 1 .. threads of `work` for the helpers, 0 for the caller; back when all that were begun are done.
    fn spread(&self, threads: usize, work: Work) {
        let running = AtomicUsize::new(0);
        let mut call = Call { work, next: 1, end: threads, panic: None };
        // The list's lifetime is not the call's: before this returns it is neither in the list nor with a helper.
        let own = NonNull::from(&mut call).cast::<Call<'static>>();
        let mut queue = self.lock();
        let posted = queue.calls.len() < POSTED;
        if posted {
            queue.calls.push(Posted { call: own, running: NonNull::from(&running) });
            self.waiting.store(queue.calls.len(), Ordering::Relaxed);
        }
        drop(queue);
        if !posted {
            return work(0);
        }
        self.wake(threads - 1);
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut queue = self.lock();
        if let Some(i) = queue.calls.iter().position(|posted| posted.call == own) {
            queue.calls.remove(i);
            self.waiting.store(queue.calls.len(), Ordering::Relaxed);
        }
        if running.load(Ordering::Acquire) > 0 {
            drop(queue);
            looks(|| running.load(Ordering::Acquire) == 0);
            queue = self.lock();
            while running.load(Ordering::Acquire) > 0 {
                queue = Self::wait(&self.done, queue);
            }
        }
        drop(queue);
        // SAFETY: no helper has it any more; read where they wrote it.
        let theirs = unsafe { (*own.as_ptr()).panic.take() };
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// What helper number `own` does until the end.
    fn help(&self, own: usize) {
        let bed = &self.beds[own];
        bed.affinity.is_here();
        let mut queue = self.lock();
        queue.up += 1;
        self.done.notify_all();
        while !queue.ended {
            let Some(first) = queue.calls.first() else {
                drop(queue);
                looks(|| self.waiting.load(Ordering::Relaxed) > 0);
                queue = self.lock();
                if queue.calls.is_empty() && !queue.ended {
                    queue.asleep.push(own);
                    while queue.asleep.contains(&own) && !queue.ended {
                        queue = Self::wait(&bed.wanted, queue);
                    }
                    drop(queue);
                    bed.affinity.anywhere();
                    queue = self.lock();
                }
                continue;
            };
            let (call, running) = (first.call, first.running);
            // SAFETY: the caller of a call that is in the list, or that a helper is at, waits: for the lock, or for `running`.
            let (work, share, left) = unsafe {
                let call = &mut *call.as_ptr();
                call.next += 1;
                running.as_ref().fetch_add(1, Ordering::Relaxed);
                (call.work, call.next - 1, call.end - call.next)
            };
            if left == 0 {
                queue.calls.remove(0);
                self.waiting.store(queue.calls.len(), Ordering::Relaxed);
            }
            drop(queue);
            self.wake(left);
            let panic = catch_unwind(AssertUnwindSafe(|| work(share))).err();
            queue = self.lock();
            // SAFETY: as above; what comes after the count is not the call's.
            unsafe {
                // (Of several the first. The others' payloads are not dropped: what that does is not known, and the lock is held.)
                match &mut (*call.as_ptr()).panic {
                    first @ None => *first = panic,
                    Some(_) => std::mem::forget(panic),
                }
                running.as_ref().fetch_sub(1, Ordering::Release);
            }
            self.done.notify_all();
        }
    }

    fn end(&self, handles: &mut Vec<JoinHandle<()>>) {
        self.lock().ended = true;
        self.beds.iter().for_each(|bed| bed.wanted.notify_all());
        for handle in handles.drain(..) {
            // A helper does not panic: its shares' panics are the callers'.
            let _ = handle.join();
        }
    }
}

/// Looks whether `ready`, for a while.
fn looks(ready: impl Fn() -> bool) {
    for _ in 0..LOOKS {
        if ready() {
            return;
        }
        spin_loop();
    }
}

struct Running {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Process that the threads live in: a forked child has none of them.
    pid: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // A forked child: the threads are the parent's, and the lock may be held for ever.
            std::mem::forget(std::mem::take(&mut self.handles));
            return;
        }
        self.shared.end(&mut self.handles);
    }
}

/// While it lives, threads that are started take no signal of the host's: a handler would run where the host does not know of, and a signal that the host has
/// blocked in its own threads would be delivered to ours. Faults stay open: they are the thread's own.
struct HostSignals(#[cfg(all(unix, not(miri)))] libc::sigset_t);

#[cfg(all(unix, not(miri)))]
impl HostSignals {
    fn block() -> HostSignals {
        let (mut all, mut before) = (std::mem::MaybeUninit::uninit(), std::mem::MaybeUninit::<libc::sigset_t>::zeroed());
        // SAFETY: both sets are ours; a sigset_t of zeros is one.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS] {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            HostSignals(before.assume_init())
        }
    }
}

#[cfg(all(unix, not(miri)))]
impl Drop for HostSignals {
    fn drop(&mut self) {
        // SAFETY: the mask that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

#[cfg(not(all(unix, not(miri))))]
impl HostSignals {
    fn block() -> HostSignals {
        HostSignals()
    }
}

/// None yet, or the running helpers.
pub struct Pool {
    threads: usize,
    running: AtomicPtr<Running>,
}

impl Pool {
    pub fn new(threads: usize) -> Pool {
        Pool { threads, running: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Those of a call: its caller, and helpers.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The helpers that live in this process.
    fn current(&self) -> Option<&Running> {
        // SAFETY: what is published lives until the context does (what is replaced in a forked child is leaked).
        unsafe { self.running.load(Ordering::Acquire).as_ref() }.filter(|running| running.pid == std::process::id())
    }

    /// Starts the helpers where there are none in this process.
    pub fn start(&self) -> Result<()> {
        let before = self.running.load(Ordering::Acquire);
        if self.threads < 2 || self.current().is_some() {
            return Ok(());
        }
        let mut new = Running { shared: Arc::new(Shared::new(self.threads - 1)), handles: Vec::new(), pid: std::process::id() };
        let signals = HostSignals::block();
        for helper in 0..self.threads - 1 {
            let shared = Arc::clone(&new.shared);
            // Without a size the standard library would read RUST_MIN_STACK from the host's environment.
            match std::thread::Builder::new().name(format!("passrl-{}", helper + 1)).stack_size(STACK).spawn(move || shared.help(helper)) {
                Ok(handle) => new.handles.push(handle),
                Err(error) => return refuse!(RESOURCE, "{} threads could not be started ({error}); ask for fewer (options.threads)", self.threads),
            }
        }
        drop(signals);
        // A thread takes memory as it starts: it does so now, not during a run.
        let mut queue = new.shared.lock();
        while queue.up < new.handles.len() {
            queue = Shared::wait(&new.shared.done, queue);
        }
        drop(queue);
        let new = Box::into_raw(Box::new(new));
        if self.running.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another plan was first.
            // SAFETY: never published.
            drop(unsafe { Box::from_raw(new) });
        }
        Ok(())
    }

    /// Calls `work(thread)` for 0 on the caller, and at once for as many of 1 .. threads as helpers come for before it returns.
    pub fn spread(&self, threads: usize, work: &(impl Fn(usize) + Sync)) {
        match if threads > 1 { self.current() } else { None } {
            Some(running) => running.shared.spread(threads, work),
            None => work(0),
        }
    }

    /// Threads that a call would use.
    pub fn usable(&self) -> usize {
        if self.current().is_some() { self.threads } else { 1 }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let running = *self.running.get_mut();
        if !running.is_null() {
            // SAFETY: made by Box::into_raw, taken back once.
            drop(unsafe { Box::from_raw(running) });
        }
    }
}

#[cfg(test)]
mod tests;
