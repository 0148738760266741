//! Each check of the fast build finds its seeded bug, and what is found names the place.
use crate::args;
use crate::common::*;
use crate::samples::{scan_case, worst};

const ILLEGAL_ADDRESS: u32 = 700;
const OUT_OF_RESOURCES: u32 = 701;
const TIMEOUT: u32 = 702;
const MISALIGNED: u32 = 716;
const LAUNCH_FAILED: u32 = 719;

#[test]
fn out_of_bounds() {
    let Some(gpu) = gpu(false) else { return };
    let p = gpu.alloc::<f32>(2048);
    caught(gpu.run("bug_out_of_bounds", 9, 256, 0, &mut args!(p)), ILLEGAL_ADDRESS, "offset 8192 of an allocation of 8192 bytes");
    // The error stays, as on hardware, until the context is gone.
    assert_eq!(gpu.launch("fill", 1, 1, 0, &mut args!(p)) as u32, ILLEGAL_ADDRESS);
}

#[test]
fn the_place_of_an_illegal_access_is_named() {
    let Some(gpu) = gpu(false) else { return };
    let p = gpu.alloc::<f32>(2048);
    let at = line_of("KERNEL bug_out_of_bounds");
    caught(gpu.run("bug_out_of_bounds", 9, 256, 0, &mut args!(p)), ILLEGAL_ADDRESS, &format!("bugs.cu:{at}"));
}

pub fn line_of(text: &str) -> usize {
    include_str!("../../kernels/bugs.cu").lines().position(|l| l.contains(text)).expect("a line of bugs.cu") + 1
}

#[test]
fn use_after_free() {
    let Some(gpu) = gpu(false) else { return };
    let p = gpu.alloc::<f32>(2048);
    // SAFETY: allocated above.
    assert_eq!(unsafe { cudarc::driver::sys::cuMemFree_v2(p) }, OK);
    caught(gpu.run("bug_out_of_bounds", 1, 32, 0, &mut args!(p)), ILLEGAL_ADDRESS, "a freed allocation of 8192 bytes");
}

/// Within 256 bytes of the end, and before the beginning: the canaries.
#[test]
fn bytes_beside_an_allocation() {
    let Some(gpu) = gpu(false) else { return };
    let (p, n) = (gpu.alloc::<f32>(10), 10);
    caught(gpu.run("bug_one_beyond", 1, 1, 0, &mut args!(p, n)), 0, "bug_one_beyond: a byte beside an allocation of 40 bytes was written, at offset 40");
    caught(gpu.run("bug_before", 1, 1, 0, &mut args!(p)), 0, "at offset -4");
    let n = 9;
    clean(gpu.run("bug_one_beyond", 1, 1, 0, &mut args!(p, n)));
}

#[test]
fn uninitialised_memory_is_nan() {
    let Some(gpu) = gpu(false) else { return };
    let (p, q) = (gpu.alloc::<f32>(64), gpu.alloc::<f32>(64));
    clean(gpu.run("bug_uninitialised", 1, 64, 0, &mut args!(p, q)));
    assert!(gpu.download::<f32>(q, 64).iter().all(|v| v.is_nan()));
    clean(gpu.run("bug_uninitialised_shared", 1, 32, 0, &mut args!(q)));
    let got: Vec<f32> = gpu.download(q, 32);
    assert!(got[30] == 1.0 && got[31].is_nan(), "{got:?}");
    clean(gpu.run("bug_carried_over", 2, 32, 0, &mut args!(q)));
    let got: Vec<f32> = gpu.download(q, 64);
    assert!(got[..32].iter().all(|v| *v == 1.0) && got[32..].iter().all(|v| v.is_nan()), "{got:?}");
}

/// The next launch with the same argument must not see the null pointer's page.
#[test]
fn null_misaligned_and_dynamic_shared() {
    for (kernel, shared, code, says) in
        [("bug_null", 0, 0, "null"), ("bug_misaligned", 0, MISALIGNED, "misaligned or null address"), ("bug_dynamic_overrun", 64, ILLEGAL_ADDRESS, "illegal address")]
    {
        let Some(gpu) = gpu(false) else { return };
        let q = gpu.alloc::<f32>(2048);
        let p = if kernel == "bug_null" { 0 } else { q };
        let (result, report) = gpu.run(kernel, 1, 32, shared, &mut args!(p));
        println!("{report}");
        if code != 0 {
            assert_eq!(result as u32, code, "{report}");
        } else {
            assert!([ILLEGAL_ADDRESS, MISALIGNED].contains(&(result as u32)), "{report}");
        }
        assert!(report.contains(says) || report.contains("0x"), "{report}");
    }
}

/// A test of the right scan under one schedule would pass; the seeds show the missing barrier, the newest-first ones above all.
#[test]
fn schedules_show_a_missing_barrier() {
    let Some(gpu) = gpu(false) else { return };
    let (r, reset, want) = scan_case(2, 1000);
    let (r, reset, out) = (gpu.upload(&r), gpu.upload(&reset), gpu.alloc::<f32>(2000));
    let (gamma, n) = (0.99f32, 1000i64);
    let mut wrong = Vec::new();
    for seed in 0..8 {
        cudasim::seed(seed);
        clean(gpu.run("bug_scan", 2, 256, 64, &mut args!(r, reset, out, gamma, n)));
        wrong.push(worst(&gpu.download(out, 2000), &want) > 1e-3);
    }
    println!("seeds 0 to 7 give a wrong result: {wrong:?}");
    assert!(wrong[1..4].contains(&true), "{wrong:?}");
}

#[test]
fn barriers_and_collectives() {
    let place = |text: &str, below: usize| format!("bugs.cu:{}", line_of(text) + below);
    let cases: [(&str, u32, u32, String); 7] = [
        ("bug_divergent", 64, 0, format!("thread 0 at {}", place("KERNEL bug_divergent", 2)).replace("at bugs", "at ")),
        ("bug_ended", 64, 0, "40 threads of block 0 wait at".into()),
        ("bug_deadlock", 32, LAUNCH_FAILED, "deadlock: 16 threads of block 0 wait for others that never come, thread 0 among them in __shfl_sync".into()),
        ("bug_mask", 32, LAUNCH_FAILED, "lane 0 is not in the mask 0xfffe".into()),
        ("bug_collectives", 32, 0, "lanes of a warp at different collectives: __shfl_down_sync at".into()),
        ("bug_trap", 32, LAUNCH_FAILED, "__trap at".into()),
        ("bug_stack", 32, LAUNCH_FAILED, "local memory exceeds".into()),
    ];
    for (kernel, block, code, says) in cases {
        let Some(gpu) = gpu(false) else { return };
        let q = gpu.alloc::<f32>(64);
        let found = gpu.run(kernel, 1, block, 0, &mut args!(q));
        if kernel == "bug_divergent" {
            let (one, other) = (place("KERNEL bug_divergent", 2), place("KERNEL bug_divergent", 4));
            assert!(found.1.contains("divergent __syncthreads") && found.1.contains(&one) && found.1.contains(&other), "{}", found.1);
            continue;
        }
        caught(found, code, &says);
        // What a launch that was ended has left does not reach the next one.
        cudasim::reset();
        let v = 3.0f32;
        let n = 64;
        clean(gpu.run("fill", 2, 32, 0, &mut args!(q, v, n)));
        assert_eq!(gpu.download::<f32>(q, 64), [3.0; 64]);
    }
}

#[test]
fn a_lane_that_is_absent_gives_nan() {
    let Some(gpu) = gpu(false) else { return };
    let q = gpu.alloc::<f32>(32);
    clean(gpu.run("bug_absent_lane", 1, 32, 0, &mut args!(q)));
    assert!(gpu.download::<f32>(q, 16).iter().all(|v| v.is_nan()));
}

#[test]
fn asynchronous_copies_without_a_wait() {
    let Some(gpu) = gpu(false) else { return };
    let (p, q) = (gpu.zeros::<f32>(128), gpu.alloc::<f32>(32));
    caught(gpu.run("bug_async", 1, 32, 0, &mut args!(p, q)), 0, "ended with asynchronous copies that it never waited for");
    assert!(gpu.download::<f32>(q, 32).iter().all(|v| v.is_nan()));
}

#[test]
fn a_spinning_kernel_is_ended() {
    for kernel in ["bug_spin", "bug_spin_atomic"] {
        let Some(gpu) = gpu(false) else { return };
        let flag = gpu.zeros::<u32>(1);
        caught(gpu.run(kernel, 1, 32, 0, &mut args!(flag)), TIMEOUT, "no end after 3 s");
    }
}

#[test]
fn what_x86_does_otherwise() {
    let cases = [("bug_shift", 0, "shift by the type's width"), ("bug_cast", 0, "beyond the integer's range")];
    for (kernel, code, says) in cases {
        let Some(gpu) = gpu(false) else { return };
        let (q, v) = (gpu.alloc::<u32>(64), 3e9f32);
        caught(gpu.run(kernel, 1, 32, 0, &mut args!(q, v)), code, says);
    }
    for (kernel, argument, code, says) in [
        ("bug_divide", 0, LAUNCH_FAILED, "division by zero"),
        ("bug_local_array", 1, ILLEGAL_ADDRESS, "index outside an array"),
        ("bug_shared_index", 0, ILLEGAL_ADDRESS, "index outside an array"),
    ] {
        let Some(gpu) = gpu(false) else { return };
        let q = gpu.alloc::<u32>(64);
        caught(gpu.run(kernel, 1, 32, 0, &mut args!(q, argument)), code, says);
    }
}

#[test]
fn bounds_and_shared_memory_of_a_launch() {
    let Some(gpu) = gpu(false) else { return };
    let q = gpu.alloc::<f32>(128);
    clean(gpu.run("bug_bounds", 1, 64, 0, &mut args!(q)));
    caught(gpu.run("bug_bounds", 1, 96, 0, &mut args!(q)), OUT_OF_RESOURCES, "more threads than its __launch_bounds__");
    // 40,000 bytes of its own beside 9,153: 49,153.
    clean(gpu.run("bug_static_shared", 1, 32, 9152, &mut args!(q)));
    caught(gpu.run("bug_static_shared", 1, 32, 9153, &mut args!(q)), OUT_OF_RESOURCES, "40000 bytes of shared arrays beside 9153 bytes");
}

/// The program dies of its own access, outside of launches: it runs again as its own process.
#[test]
fn host_code_that_touches_device_memory_dies() {
    let Some(gpu) = gpu(false) else { return };
    if std::env::var_os("CUDASIM_TEST_TOUCH").is_some() {
        let p = gpu.upload(&[1.0f32]);
        println!("before {}", gpu.download::<f32>(p, 1)[0]);
        // SAFETY: none; this is the bug.
        println!("after {}", unsafe { std::ptr::read_volatile(p as *const f32) });
        return;
    }
    drop(gpu);
    let own = std::env::current_exe().expect("a test program");
    let mut command = std::process::Command::new(own);
    command.args(["--exact", "bugs::host_code_that_touches_device_memory_dies", "--nocapture"]).env("CUDASIM_TEST_TOUCH", "1");
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert!(signal == Some(11) && text.contains("before 1") && !text.contains("after"), "{:?}: {text}", output.status);
}

/// What nobody asked for is told at the end of the process, and is its status where that is asked for.
#[test]
fn a_program_that_never_asks_hears_of_it() {
    let Some(gpu) = gpu(false) else { return };
    if std::env::var_os("CUDASIM_STRICT").is_some() {
        let q = gpu.alloc::<f32>(64);
        assert_eq!(gpu.launch("bug_ended", 1, 64, 0, &mut args!(q)), OK);
        assert_eq!(gpu.synchronize(), OK);
        std::process::exit(0);
    }
    drop(gpu);
    let own = std::env::current_exe().expect("a test program");
    let mut command = std::process::Command::new(own);
    command.args(["--exact", "bugs::a_program_that_never_asks_hears_of_it", "--nocapture"]).env("CUDASIM_STRICT", "1");
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(99) && text.contains("cudasim found:\nbug_ended: divergent __syncthreads"), "{:?}: {text}", output.status);
}
