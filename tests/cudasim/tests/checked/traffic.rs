//! Counts of the checked build against kernels whose traffic is known.
use crate::args;
use crate::common::*;

fn counted(gpu: &Gpu, kernel: &str, grid: u32, block: u32, args: &mut [*mut std::ffi::c_void]) -> cudasim::Stats {
    let before = cudasim::stats(Some(kernel));
    clean(gpu.run(kernel, grid, block, 0, args));
    let after = cudasim::stats(Some(kernel));
    assert_eq!(after.launches, before.launches + 1);
    cudasim::reset();
    after
}

#[test]
fn global_requests_bytes_and_sectors() {
    let Some(gpu) = gpu(true) else { return };
    let (p, q) = (gpu.zeros::<f32>(2048), gpu.zeros::<f32>(2048));
    // 16 bytes a lane: one request of 512 bytes.
    let s = counted(&gpu, "copy4", 1, 32, &mut args!(p, q));
    assert_eq!((s.read_requests, s.read_bytes, s.read_sectors, s.read_ideal), (1, 512, 16, 16));
    assert_eq!((s.write_requests, s.write_bytes, s.write_sectors, s.write_ideal), (1, 512, 16, 16));
    assert_eq!((s.accesses, s.warp_requests, s.longest_warp, s.warps), (64, 2, 2, 1));
    // A stride of n floats: n times the sectors, up to one a lane. Allocations are 32-aligned, their last float too.
    for (stride, bytes, sectors) in [(0, 4, 1), (1, 128, 4), (2, 128, 8), (8, 128, 32), (16, 128, 32)] {
        let s = counted(&gpu, "strided", 1, 32, &mut args!(p, q, stride));
        assert_eq!((s.read_requests, s.read_bytes, s.read_sectors), (1, bytes, sectors), "stride {stride}");
        assert_eq!((s.write_bytes, s.write_sectors), (128, 4));
    }
    // Off by one float: one sector more than the bytes need.
    let off = p + 4;
    let stride = 1;
    let s = counted(&gpu, "strided", 1, 32, &mut args!(off, q, stride));
    assert_eq!((s.read_bytes, s.read_sectors, s.read_ideal), (128, 5, 4));
    // Three whole warps and one of 4 lanes.
    let s = counted(&gpu, "strided", 1, 100, &mut args!(p, q, stride));
    assert_eq!((s.read_requests, s.read_bytes, s.warps, s.blocks, s.threads), (4, 400, 4, 1, 100));
}

#[test]
fn bank_conflicts() {
    let Some(gpu) = gpu(true) else { return };
    let q = gpu.alloc::<f32>(64);
    for (stride, wavefronts) in [(1, 1), (2, 2), (8, 8), (32, 32), (31, 1)] {
        let s = counted(&gpu, "banks", 1, 32, &mut args!(q, stride));
        assert_eq!((s.shared_requests, s.shared_wavefronts), (2, 2 * wavefronts), "stride {stride}");
    }
}

#[test]
fn atomics_apart() {
    let Some(gpu) = gpu(true) else { return };
    let (i, u, l) = (gpu.zeros::<i32>(2), gpu.zeros::<u32>(4), gpu.zeros::<i64>(2));
    let (ul, f) = (gpu.zeros::<u64>(3), gpu.zeros::<f32>(1));
    let s = counted(&gpu, "maxima", 1, 64, &mut args!(i, u, l, ul, f));
    assert_eq!((s.atomics, s.atomic_requests, s.read_requests, s.write_requests), (12 * 64, 24, 0, 0));
    assert_eq!(s.atomic_bytes, 2 * (7 * 4 + 5 * 8));
}

/// The longest warp of all launches over the mean of all warps.
#[test]
fn balance_over_warps() {
    let Some(gpu) = gpu(true) else { return };
    let (p, q) = (gpu.zeros::<f32>(256), gpu.alloc::<f32>(512));
    let s = counted(&gpu, "unbalanced", 4, 128, &mut args!(p, q));
    assert_eq!((s.warps, s.warp_requests, s.longest_warp), (16, 4 * (9 + 3 * 2), 9));
}

/// Counts are kept by kernel, and sum over all.
#[test]
fn counts_of_each_kernel_and_of_all() {
    let Some(gpu) = gpu(true) else { return };
    let (p, q, v, n) = (gpu.zeros::<f32>(256), gpu.alloc::<f32>(256), 1f32, 256);
    clean(gpu.run("copy4", 1, 32, 0, &mut args!(p, q)));
    clean(gpu.run("fill", 2, 128, 0, &mut args!(q, v, n)));
    assert_eq!(cudasim::launched(), ["copy4", "fill"]);
    let (one, other, all) = (cudasim::stats(Some("copy4")), cudasim::stats(Some("fill")), cudasim::stats(None));
    assert_eq!((one.write_bytes, other.write_bytes, all.write_bytes), (512, 1024, 1536));
    assert_eq!((all.launches, all.longest_warp), (2, 2));
    assert_eq!(cudasim::stats(Some("no such kernel")), cudasim::Stats::default());
}
