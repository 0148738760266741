//! Helpers of a call.
use super::*;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

fn started(threads: usize) -> Pool {
    let pool = Pool::new(threads);
    pool.start().expect("threads");
    pool
}

/// Waits until it is so.
fn until(ready: impl Fn() -> bool) {
    while !ready() {
        std::thread::yield_now();
    }
}

#[test]
fn callers_at_once_share_the_helpers() {
    const CALLS: usize = if cfg!(miri) { 3 } else { 2000 };
    let pool = started(3);
    let helped = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let (pool, helped) = (&pool, &helped);
            scope.spawn(move || {
                for call in 0..CALLS {
                    // What a share wrote is there when the call is back, and a share is begun once at most.
                    let (mut begun, next) = ([0u32; 3], AtomicUsize::new(0));
                    let (list, sum) = (AtomicPtr::new(begun.as_mut_ptr()), AtomicUsize::new(0));
                    pool.spread(3, &|thread| {
                        // SAFETY: an element of this share alone.
                        unsafe { *list.load(Ordering::Relaxed).add(thread) += 1 };
                        loop {
                            let item = next.fetch_add(1, Ordering::Relaxed);
                            if item >= 50 {
                                break;
                            }
                            sum.fetch_add(item, Ordering::Relaxed);
                        }
                    });
                    assert_eq!(sum.load(Ordering::Relaxed), 49 * 50 / 2, "caller {caller}, call {call}");
                    assert!(begun[0] == 1 && begun[1] <= 1 && begun[2] <= 1, "caller {caller}, call {call}: {begun:?}");
                    helped.fetch_add((begun[1] + begun[2]) as usize, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(cfg!(miri) || helped.load(Ordering::Relaxed) > 0, "no helper ever came");
}

#[test]
fn a_call_does_not_wait_for_who_has_not_come() {
    let pool = started(2);
    let (held, begun) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The only helper is held in another caller's share.
        scope.spawn(|| {
            pool.spread(2, &|thread| {
                if thread == 1 {
                    begun.store(true, Ordering::Release);
                    held.wait();
                } else {
                    until(|| begun.load(Ordering::Acquire));
                }
            })
        });
        until(|| begun.load(Ordering::Acquire));
        let shares = AtomicUsize::new(0);
        pool.spread(2, &|_| {
            shares.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(shares.into_inner(), 1);
        held.wait();
    });
}

#[test]
fn a_share_that_panics_is_its_callers() {
    let pool = started(2);
    for panics in [1, 0] {
        let begun = AtomicBool::new(false);
        let call = || {
            pool.spread(2, &|thread| {
                if thread == 1 {
                    begun.store(true, Ordering::Release);
                } else {
                    until(|| begun.load(Ordering::Acquire));
                }
                assert_ne!(thread, panics, "share {panics}");
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("the share's panic");
        assert!(panic.downcast_ref::<String>().is_some_and(|said| said.contains(&format!("share {panics}"))));
    }
    // The helper is there as before.
    let both = Barrier::new(2);
    pool.spread(2, &|_| {
        both.wait();
    });
}

#[test]
fn calls_beyond_those_that_may_wait_are_done_alone() {
    let pool = started(2);
    let (inside, out) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..POSTED + 8 {
            scope.spawn(|| {
                pool.spread(2, &|_| {
                    inside.fetch_add(1, Ordering::Release);
                    until(|| out.load(Ordering::Acquire));
                })
            });
        }
        // Each caller's own share, and the only helper's.
        until(|| inside.load(Ordering::Acquire) == POSTED + 8 + 1);
        out.store(true, Ordering::Release);
    });
}

/// A helper is woken for other processors than its waker's, and has all of its own again as soon as it runs.
#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_helper_keeps_its_processors() {
    // SAFETY: sets of processors of the size that is told; a set of zeros is one.
    let of = |thread: i32| unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &mut set), 0);
        set
    };
    let own = of(0);
    let pool = started(3);
    let shared = &pool.current().expect("helpers").shared;
    let threads: Vec<i32> = shared.beds.iter().map(|bed| bed.affinity.thread.load(Ordering::Relaxed)).collect();
    let asleep = || until(|| shared.lock().asleep.len() == 2);
    let (apart, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for _ in 0..20 {
        asleep();
        // SAFETY: asks for a number; likewise below.
        let here = unsafe { libc::sched_getcpu() };
        let begun = AtomicBool::new(false);
        pool.spread(2, &|thread| {
            if thread == 0 {
                return until(|| begun.load(Ordering::Acquire));
            }
            // Its processors are its own again; where it woke says more only where the caller has stayed.
            let set = of(0);
            // SAFETY: as above.
            assert!(unsafe { libc::CPU_EQUAL(&set, &own) }, "a helper runs with fewer processors");
            apart.fetch_add(usize::from(unsafe { libc::sched_getcpu() } != here), Ordering::Relaxed);
            calls.fetch_add(1, Ordering::Relaxed);
            begun.store(true, Ordering::Release);
        });
    }
    asleep();
    for thread in threads {
        // SAFETY: as above.
        assert!(unsafe { libc::CPU_EQUAL(&of(thread), &own) }, "a helper that sleeps has fewer processors");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 20);
    // SAFETY: as above.
    if unsafe { libc::CPU_COUNT(&own) } > 1 {
        assert!(apart.load(Ordering::Relaxed) > 10, "{apart:?} of 20 helpers began beside their caller");
    }
}
