//! Every named case and random ones with each array, output, workspace, partials buffer and view struct right before a page that cannot be read, then right
//! behind one; inputs are read-only while the library runs. A byte read or written outside what the caller lent ends the test with the case's name.

use cases::Case;
use harness::fence::{Fence, Side, fenced};
use harness::{Floats, GroupsAs, How, Sliced, in_pieces, in_slices, served, try_run};
use oracle::Batch;
use passrl::abi::constants::*;
use testkit::{cases, harness, oracle};

#[global_allocator]
static FENCE: Fence = Fence;

fn sample(random: u64) -> Vec<Case> {
    let tokens = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>();
    let table = cases::all().into_iter().filter(|c| tokens(&c.batch) < 20_000);
    table.chain((0..random).map(cases::random)).filter(|c| served(&c.cfg)).collect()
}

/// Layouts, types, instruction sets and threads; not their product.
fn ways() -> Vec<How> {
    let d = How::default;
    let mut ways = vec![
        How { lean: true, output: Floats::F32, ..d() },
        How { lean: true, output: Floats::F32, simd: PASSRL_SIMD_BASELINE, ..d() },
        How { lean: true, output: Floats::F32, padded: true, ..d() },
        How { lean: true, output: Floats::F32, in_place: true, ..d() },
        How { in_place: true, output: Floats::F32, padded: true, pad_left: true, spare: 1, ..d() },
        How { output: Floats::Bf16, mask: PASSRL_BOOL, wide_offsets: true, ..d() },
        How { output: Floats::F16, mask: PASSRL_I32, groups_as: GroupsAs::Offsets, stride: 2, ..d() },
        How { output: Floats::F16, mask: PASSRL_F32, padded: true, spare: 3, stride: 5, wide_offsets: true, ..d() },
        How { output: Floats::F64, mask: PASSRL_I64, padded: true, pad_left: true, spare: 2, ..d() },
        How { output: Floats::F32, mask: PASSRL_BF16, stride: 3, simd: PASSRL_SIMD_BASELINE, ..d() },
        How { output: Floats::Bf16, padded: true, simd: PASSRL_SIMD_BASELINE, lean: true, ..d() },
        How { output: Floats::F32, threads: 2, ..d() },
    ];
    ways.iter_mut().for_each(|how| how.dirt = 0xff);
    ways
}

/// Every case in a third of the ways, each way on a third of the cases.
fn run_all(side: Side) {
    let (sample, mut runs) = (sample(60), 0);
    for (w, how) in ways().into_iter().enumerate() {
        for case in sample.iter().skip(w % 3).step_by(3) {
            let name = format!("{} {side:?} {how:?}", case.name);
            let refusal = fenced(side, &name, || try_run(&case.cfg, &case.batch, &how).err());
            assert!(refusal.is_none(), "{name}: {refusal:?}");
            runs += 1;
        }
    }
    println!("{runs} runs fenced {side:?}");
}

#[test]
fn nothing_after_the_callers_memory() {
    run_all(Side::After);
}

#[test]
fn nothing_before_the_callers_memory() {
    run_all(Side::Before);
}

#[test]
fn nothing_around_micro_batches_and_partials() {
    let sample = sample(20);
    let ways = [How { output: Floats::F32, ..How::default() }, How { padded: true, spare: 1, threads: 2, ..How::default() }];
    for side in [Side::After, Side::Before] {
        for (w, how) in ways.into_iter().enumerate() {
            for (n, case) in sample.iter().enumerate().filter(|(n, c)| n % 3 == w && in_pieces(&c.cfg) && !c.batch.rollouts.is_empty()) {
                let sliced = Sliced { slices: 3, seed: n as u64 + 1, merged: n % 2 == 0 };
                fenced(side, &format!("slices of {} {side:?} {how:?}", case.name), || in_slices(&case.cfg, &case.batch, &how, sliced));
            }
        }
    }
}

/// The fences are there: a child process that goes one byte too far, reads a sealed block's neighbour or writes to a sealed one, dies of it.
#[test]
fn the_fences_hold() {
    type Wrong = fn();
    let wrongs: [(&str, Wrong); 4] = [
        ("after", || {
            fenced(Side::After, "after", || {
                let v = vec![0u8; 100];
                // SAFETY: none; that is the test.
                unsafe { std::hint::black_box(v.as_ptr().add(100).read_volatile()) };
            })
        }),
        ("before", || {
            fenced(Side::Before, "before", || {
                let v = vec![0u8; 100];
                // SAFETY: none.
                unsafe { std::hint::black_box(v.as_ptr().wrapping_sub(1).read_volatile()) };
            })
        }),
        ("sealed", || {
            fenced(Side::After, "sealed", || {
                let mut v = vec![0u8; 100];
                harness::fence::seal(v.as_ptr(), 100);
                // SAFETY: none.
                unsafe { v.as_mut_ptr().write_volatile(1) };
            })
        }),
        ("given back", || {
            fenced(Side::After, "given back", || {
                let v = vec![0u8; 100];
                let at = v.as_ptr();
                drop(v);
                // SAFETY: none.
                unsafe { std::hint::black_box(at.read_volatile()) };
            })
        }),
    ];
    for (name, wrong) in wrongs {
        // SAFETY: the child makes a fault and ends, whatever the parent's other threads hold.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: silence; the handler prints the case.
            unsafe { libc::close(2) };
            wrong();
            // SAFETY: no fault: that is the failure.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: our child.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "{name}: status {status:#x}");
    }
}
