//! Threads of a context: a rayon pool whose threads we join ourselves, made by the first plan that may use it, never touched after a fork.
use crate::error::{RESOURCE, Result};
use crate::refuse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread::JoinHandle;

struct Running {
    pool: Option<rayon::ThreadPool>,
    handles: Vec<JoinHandle<()>>,
    /// Process that the threads live in: a forked child has none of them.
    pid: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        let pool = self.pool.take();
        if self.pid != std::process::id() {
            // A forked child: the threads are the parent's. Taking the pool down would wait for them.
            std::mem::forget(pool);
            std::mem::forget(std::mem::take(&mut self.handles));
            return;
        }
        drop(pool);
        for handle in self.handles.drain(..) {
            // A thread that panicked has been reported by the run it served.
            let _ = handle.join();
        }
    }
}

/// Bytes of a thread's stack.
const STACK: usize = 2 << 20;

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

/// None yet, or the running pool.
pub struct Pool {
    threads: usize,
    running: AtomicPtr<Running>,
}

impl Pool {
    pub fn new(threads: usize) -> Pool {
        Pool { threads, running: AtomicPtr::new(std::ptr::null_mut()) }
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    fn current(&self) -> Option<&Running> {
        // SAFETY: a published pool lives until the context does (one replaced in a forked child is leaked).
        unsafe { self.running.load(Ordering::Acquire).as_ref() }
    }

    /// Starts the threads where there are none in this process.
    pub fn start(&self) -> Result<()> {
        let before = self.running.load(Ordering::Acquire);
        // SAFETY: as `current`.
        let here = unsafe { before.as_ref() }.is_some_and(|r| r.pid == std::process::id());
        if self.threads < 2 || here {
            return Ok(());
        }
        let handles = Mutex::new(Vec::new());
        let signals = HostSignals::block();
        let built = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .spawn_handler(|thread| {
                let name = format!("passrl-{}", thread.index());
                // Without a size the standard library would read RUST_MIN_STACK from the host's environment.
                let handle = std::thread::Builder::new().name(name).stack_size(STACK).spawn(|| thread.run())?;
                handles.lock().unwrap_or_else(|e| e.into_inner()).push(handle);
                Ok(())
            })
            .build();
        drop(signals);
        let handles = handles.into_inner().unwrap_or_else(|e| e.into_inner());
        let pool = match built {
            Ok(pool) => pool,
            Err(error) => {
                // Those that did start have been told to end.
                handles.into_iter().for_each(|handle| drop(handle.join()));
                return refuse!(RESOURCE, "{} threads could not be started ({error}); ask for fewer (options.threads)", self.threads);
            }
        };
        // A thread takes memory as it starts: it does so now, not during a run.
        pool.broadcast(|_| ());
        let new = Box::into_raw(Box::new(Running { pool: Some(pool), handles, pid: std::process::id() }));
        if self.running.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another plan was first. A pool replaced after a fork stays allocated: its threads are in another process.
            // SAFETY: never published.
            drop(unsafe { Box::from_raw(new) });
        }
        Ok(())
    }

    /// Calls `work(thread)` for 0 .. threads, on the pool where it may, else one after the other on the caller.
    pub fn spread(&self, threads: usize, work: &(impl Fn(usize) + Sync)) {
        match self.current().filter(|r| threads > 1 && r.pid == std::process::id()).and_then(|r| r.pool.as_ref()) {
            Some(pool) => pool.install(|| halves(0, threads, work)),
            None => work(0),
        }
    }

    /// Threads that a call would use.
    pub fn usable(&self) -> usize {
        if self.current().is_some_and(|r| r.pid == std::process::id()) { self.threads } else { 1 }
    }
}

fn halves(from: usize, to: usize, work: &(impl Fn(usize) + Sync)) {
    if to - from <= 1 {
        return work(from);
    }
    let middle = from + (to - from) / 2;
    rayon::join(|| halves(from, middle, work), || halves(middle, to, work));
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
