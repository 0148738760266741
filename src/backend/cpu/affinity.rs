//! Where a helper's thread may run.
use std::sync::atomic::AtomicI32;
#[cfg(all(target_os = "linux", not(miri)))]
use std::sync::{Mutex, atomic::Ordering};

/// The processors that a helper may run on. Where all are busy (threads of OpenMP that spin after their work, say) the system would have a thread that is woken
/// wait on its waker's, who goes on: it is woken for the others, and is back to all of them once it runs.
#[derive(Default)]
pub struct Affinity {
    /// Its number in the system; 0: not known.
    pub thread: AtomicI32,
    /// Those it had.
    #[cfg(all(target_os = "linux", not(miri)))]
    all: Mutex<Option<libc::cpu_set_t>>,
}

#[cfg(all(target_os = "linux", not(miri)))]
impl Affinity {
    /// Of the calling thread.
    pub fn is_here(&self) {
        // SAFETY: asks for a number. (glibc has a function for it since 2.30 alone.)
        self.thread.store(unsafe { libc::syscall(libc::SYS_gettid) } as i32, Ordering::Relaxed);
    }

    /// The sleeping thread is to run beside the caller. (It does no harm where the system will not have it.)
    pub fn apart_from_here(&self) {
        let thread = self.thread.load(Ordering::Relaxed);
        let mut all = self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: sets of processors of the size that is told; a set of zeros is one.
        unsafe {
            let (here, size) = (libc::sched_getcpu(), size_of::<libc::cpu_set_t>());
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            if here < 0 || here as usize >= 8 * size || thread == 0 || libc::sched_getaffinity(thread, size, &mut set) != 0 {
                return;
            }
            let before = set;
            if libc::CPU_ISSET(here as usize, &set) && libc::CPU_COUNT(&set) > 1 {
                libc::CPU_CLR(here as usize, &mut set);
                if libc::sched_setaffinity(thread, size, &set) == 0 {
                    *all = Some(before);
                }
            }
        }
    }

    /// The calling thread, which is this one, may run again where it might. If that was all of the host's cpuset it is given every processor, which the system cuts
    /// to what the cpuset is at any time; a smaller set was somebody's choice.
    pub fn anywhere(&self) {
        if let Some(before) = self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            let size = size_of::<libc::cpu_set_t>();
            // SAFETY: sets of processors of the size that is told; any bits are one.
            unsafe {
                let (mut every, mut now): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
                (&raw mut every).write_bytes(0xff, 1);
                libc::sched_setaffinity(0, size, &every);
                if libc::sched_getaffinity(0, size, &mut now) != 0 || !libc::CPU_EQUAL(&now, &before) {
                    libc::sched_setaffinity(0, size, &before);
                }
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
impl Affinity {
    pub fn is_here(&self) {}
    pub fn apart_from_here(&self) {}
    pub fn anywhere(&self) {}
}
