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
                    let (list, sum, came) = (AtomicPtr::new(begun.as_mut_ptr()), AtomicUsize::new(0), AtomicUsize::new(0));
                    pool.spread(3, &|thread| {
                        // SAFETY: an element of this share alone.
                        unsafe { *list.load(Ordering::Relaxed).add(thread) += 1 };
                        came.fetch_add(usize::from(thread > 0), Ordering::Relaxed);
                        if thread == 0 && call % 50 == 0 {
                            // However busy the machine is, a helper comes to a call that lasts.
                            soon(|| came.load(Ordering::Relaxed) > 0);
                        }
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
        let list = pool.current().map(|running| running.shared.lock().calls.capacity());
        out.store(true, Ordering::Release);
        assert_eq!(list, Some(POSTED), "the list has grown");
    });
}

/// Waits until it is so, ten seconds at most.
fn soon(ready: impl Fn() -> bool) -> bool {
    let begun = std::time::Instant::now();
    while !ready() {
        if begun.elapsed().as_secs() >= 10 {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A call that lasts gets every helper, each with a share of its own, also those that sleep.
#[test]
fn every_share_of_a_long_call_is_begun() {
    const THREADS: usize = 6;
    let pool = started(THREADS);
    let shared = &pool.current().expect("helpers").shared;
    for threads in [2, 3, THREADS, THREADS] {
        assert!(soon(|| shared.lock().asleep.len() == THREADS - 1), "helpers that do not sleep");
        let begun = [const { AtomicUsize::new(0) }; THREADS + 1];
        pool.spread(threads, &|thread| {
            begun[thread].fetch_add(1, Ordering::Relaxed);
            soon(|| begun[..threads].iter().all(|share| share.load(Ordering::Relaxed) > 0));
        });
        for (share, begun) in begun.into_iter().enumerate() {
            assert_eq!(begun.into_inner(), usize::from(share < threads), "share {share} of {threads}");
        }
    }
}

/// Calls that wait are helped in the order in which they came, and the list and its count say the same.
#[test]
fn calls_that_wait_are_helped_in_turn() {
    const CALLS: usize = 4;
    let pool = started(2);
    let shared = &pool.current().expect("helpers").shared;
    let waiting = |calls: usize| {
        soon(|| shared.lock().calls.len() == calls);
        let queue = shared.lock();
        assert_eq!((queue.calls.len(), shared.waiting.load(Ordering::Relaxed)), (calls, calls));
    };
    let (out, helped) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for call in 0..CALLS {
            let (pool, out, helped) = (&pool, &out, &helped);
            scope.spawn(move || {
                pool.spread(2, &|thread| {
                    if thread == 0 {
                        soon(|| helped.lock().unwrap().len() == CALLS);
                        return;
                    }
                    helped.lock().unwrap().push((call, thread));
                    soon(|| call > 0 || out.load(Ordering::Relaxed));
                })
            });
            // The first has the only helper.
            soon(|| helped.lock().unwrap().len() == 1);
            waiting(call);
        }
        out.store(true, Ordering::Relaxed);
    });
    assert_eq!(helped.into_inner().unwrap(), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    waiting(0);
    // One that is withdrawn while the helper is held.
    let (begun, out) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pool.spread(2, &|thread| {
                begun.fetch_or(thread == 1, Ordering::Relaxed);
                soon(|| if thread == 1 { out.load(Ordering::Relaxed) } else { begun.load(Ordering::Relaxed) });
            })
        });
        soon(|| begun.load(Ordering::Relaxed));
        pool.spread(2, &|thread| assert_eq!(thread, 0));
        waiting(0);
        out.store(true, Ordering::Relaxed);
    });
}

/// A caller is back when its own helpers are, whoever else waits.
#[test]
fn a_caller_waits_for_its_own_helpers() {
    let pool = started(3);
    let flags = || [const { AtomicBool::new(false) }; 2];
    let (begun, out, back) = (flags(), flags(), flags());
    std::thread::scope(|scope| {
        for call in 0..2 {
            let (pool, begun, out, back) = (&pool, &begun[call], &out[call], &back[call]);
            scope.spawn(move || {
                pool.spread(2, &|thread| {
                    if thread == 1 {
                        begun.store(true, Ordering::Relaxed);
                        until(|| out.load(Ordering::Relaxed));
                    } else {
                        until(|| begun.load(Ordering::Relaxed));
                    }
                });
                back.store(true, Ordering::Relaxed);
            });
            until(|| begun.load(Ordering::Relaxed));
            // Its caller sleeps by now.
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        out[1].store(true, Ordering::Relaxed);
        let second = soon(|| back[1].load(Ordering::Relaxed));
        std::thread::sleep(std::time::Duration::from_millis(5));
        let first = back[0].load(Ordering::Relaxed);
        out[0].store(true, Ordering::Relaxed);
        assert!(second && !first);
        assert!(soon(|| back[0].load(Ordering::Relaxed)));
    });
}

/// The helpers are up when `start` is back, are not replaced by another, and are gone with the pool.
#[test]
fn helpers_start_once_and_end_with_the_pool() {
    let pool = started(3);
    let shared = Arc::downgrade(&pool.current().expect("helpers").shared);
    assert_eq!((pool.usable(), shared.upgrade().map(|shared| shared.lock().up)), (3, Some(2)));
    pool.start().expect("threads");
    assert!(pool.current().is_some_and(|running| std::ptr::eq(Arc::as_ptr(&running.shared), shared.as_ptr())), "helpers were started twice");
    drop(pool);
    assert!(shared.upgrade().is_none(), "a helper outlives its pool");
}

/// A helper that the system wakes for nothing sleeps on, and stands in the list once.
#[test]
fn a_helper_that_wakes_for_nothing_sleeps_on() {
    let pool = started(2);
    let shared = &pool.current().expect("helpers").shared;
    assert!(soon(|| shared.lock().asleep.len() == 1));
    for _ in 0..3 {
        shared.beds[0].wanted.notify_all();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(shared.lock().asleep, [0]);
    }
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
