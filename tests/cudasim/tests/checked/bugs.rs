//! Each check of the checked build finds its seeded bug, and what is found names the line.
use crate::args;
use crate::common::*;
use crate::samples::scan_case;

const ILLEGAL_ADDRESS: u32 = 700;
const NOT_SUPPORTED: u32 = 801;

fn place(text: &str, below: usize) -> String {
    let lines = include_str!("../../kernels/bugs.cu");
    format!("bugs.cu:{}", lines.lines().position(|l| l.contains(text)).expect("a line of bugs.cu") + 1 + below)
}

#[test]
fn bounds_of_allocations_to_the_byte() {
    let Some(gpu) = gpu(true) else { return };
    let (p, n) = (gpu.alloc::<f32>(10), 10);
    let found = gpu.run("bug_one_beyond", 1, 1, 0, &mut args!(p, n));
    assert!(found.1.contains(&place("KERNEL bug_one_beyond", 0)), "{}", found.1);
    caught(found, ILLEGAL_ADDRESS, "write of 4 bytes at offset 40 of an allocation of 40 bytes");
    cudasim::reset();
    caught(gpu.run("bug_before", 1, 1, 0, &mut args!(p)), ILLEGAL_ADDRESS, "offset -4 of");
    cudasim::reset();
    // SAFETY: allocated above.
    assert_eq!(unsafe { cudarc::driver::sys::cuMemFree_v2(p) }, OK);
    caught(gpu.run("bug_one_beyond", 1, 1, 0, &mut args!(p, n)), ILLEGAL_ADDRESS, "a freed allocation");
}

#[test]
fn bounds_of_shared_arrays_to_the_byte() {
    for (kernel, shared, says) in [
        ("bug_shared_overrun", 0, "write of 4 bytes at offset 128 of shared first of 128 bytes"),
        ("bug_dynamic_overrun", 124, "write of 4 bytes at offset 124 of dynamic shared memory of 124 bytes"),
    ] {
        let Some(gpu) = gpu(true) else { return };
        let q = gpu.alloc::<f32>(64);
        caught(gpu.run(kernel, 1, 32, shared, &mut args!(q)), ILLEGAL_ADDRESS, says);
    }
    let Some(gpu) = gpu(true) else { return };
    let q = gpu.alloc::<f32>(64);
    clean(gpu.run("bug_dynamic_overrun", 1, 32, 128, &mut args!(q)));
}

#[test]
fn addresses_that_are_not_the_devices() {
    let host = vec![1f32; 32];
    for (kernel, p, code, says) in [
        ("bug_host_pointer", host.as_ptr() as u64, ILLEGAL_ADDRESS, "a host address"),
        ("bug_module_variable", 0, NOT_SUPPORTED, "a variable of the module is written"),
    ] {
        let Some(gpu) = gpu(true) else { return };
        let q = gpu.alloc::<f32>(64);
        let first = if p == 0 { q } else { p };
        caught(gpu.run(kernel, 1, 32, 0, &mut args!(first, q)), code, says);
    }
}

/// Page-locked memory may be read by a kernel.
#[test]
fn pinned_memory_is_the_devices() {
    let Some(gpu) = gpu(true) else { return };
    let mut host = std::ptr::null_mut();
    // SAFETY: written within its 128 bytes.
    unsafe {
        assert_eq!(cudarc::driver::sys::cuMemHostAlloc(&mut host, 128, 0), OK);
        std::slice::from_raw_parts_mut(host.cast::<f32>(), 32).fill(4.0);
    }
    let (p, q) = (host as u64, gpu.alloc::<f32>(32));
    clean(gpu.run("bug_host_pointer", 1, 32, 0, &mut args!(p, q)));
    assert_eq!(gpu.download::<f32>(q, 32), [4.0; 32]);
}

#[test]
fn uninitialised_reads() {
    let Some(gpu) = gpu(true) else { return };
    let (p, q) = (gpu.alloc::<f32>(64), gpu.alloc::<f32>(64));
    caught(gpu.run("bug_uninitialised", 1, 32, 0, &mut args!(p, q)), 0, &place("KERNEL bug_uninitialised(", 0));
    // SAFETY: 63 of the 64 are written: one read is left to find.
    assert_eq!(unsafe { cudarc::driver::sys::cuMemsetD8Async(p, 0, 63 * 4, gpu.stream) }, OK);
    caught(gpu.run("bug_uninitialised", 1, 64, 0, &mut args!(p, q)), 0, "uninitialised global memory read at byte 252 of 256");
    clean(gpu.run("bug_uninitialised", 1, 63, 0, &mut args!(p, q)));
    caught(gpu.run("bug_uninitialised_shared", 1, 32, 0, &mut args!(q)), 0, "uninitialised shared s read at byte 124 of 256");
    caught(gpu.run("bug_carried_over", 2, 32, 0, &mut args!(q)), 0, "uninitialised shared s read at byte 0 of 128: block 1");
}

#[test]
fn races_of_threads() {
    let cases = [
        ("bug_missing_barrier", 64, 1, "race on shared s", place("KERNEL bug_missing_barrier", 3)),
        ("bug_missing_syncwarp", 32, 1, "read-write race on shared s", place("KERNEL bug_missing_syncwarp", 5)),
        ("bug_lost_update", 64, 1, "race on global memory byte 0", place("KERNEL bug_lost_update", 0)),
        ("bug_blocks_race", 32, 2, "write-write race on global memory byte 0 of 8192: thread 0 of another block", place("KERNEL bug_blocks_race", 0)),
    ];
    for (kernel, block, grid, says, at) in cases {
        for seed in [0, 1, 2] {
            let Some(gpu) = gpu(true) else { return };
            cudasim::seed(seed);
            let q = gpu.zeros::<f32>(2048);
            let (code, report) = gpu.run(kernel, grid, block, 0, &mut args!(q));
            println!("{report}");
            assert!(code == OK && report.contains(says) && report.contains(&at), "{kernel}, seed {seed}: {report}");
        }
    }
}

/// On every schedule, also the one that gives the right result.
#[test]
fn the_missing_barrier_of_the_scan() {
    let Some(gpu) = gpu(true) else { return };
    let (r, reset, _) = scan_case(1, 600);
    let (r, reset, out) = (gpu.upload(&r), gpu.upload(&reset), gpu.alloc::<f32>(600));
    let (gamma, n) = (0.99f32, 600i64);
    for seed in 0..4 {
        cudasim::seed(seed);
        let found = gpu.run("bug_scan", 1, 256, 64, &mut args!(r, reset, out, gamma, n));
        assert!(found.1.contains("scan.cuh:"), "{}", found.1);
        caught(found, 0, "race on dynamic shared memory");
    }
}

/// What the fast build finds by itself is found here too.
#[test]
fn the_fast_checks_hold_here_too() {
    for (kernel, block, code, says) in
        [("bug_misaligned", 32, 716, "misaligned"), ("bug_deadlock", 32, 719, "deadlock"), ("bug_divergent", 64, 0, "divergent __syncthreads")]
    {
        let Some(gpu) = gpu(true) else { return };
        let q = gpu.alloc::<f32>(2048);
        caught(gpu.run(kernel, 1, block, 0, &mut args!(q)), code, says);
    }
}
