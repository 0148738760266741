//! Devices, contexts, memory, modules, faults, counts: what the driver API answers, and what it refuses.
use crate::args;
use crate::common::*;
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use std::ffi::CStr;
use std::ptr::null_mut;

#[test]
fn geometry_that_the_driver_refuses() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.alloc::<f32>(64), 1f32, 64);
    let fill = function("fill").expect("a kernel");
    let launch = |g: [u32; 3], b: [u32; 3], shared, arguments: &mut [*mut std::ffi::c_void]| {
        // SAFETY: the driver looks at the geometry before anything runs.
        let result = unsafe { sys::cuLaunchKernel(fill, g[0], g[1], g[2], b[0], b[1], b[2], shared, gpu.stream, arguments.as_mut_ptr(), null_mut()) };
        (result, cudasim::report())
    };
    for (grid, block, shared, says) in [
        ([0, 1, 1], [1, 1, 1], 0, "a dimension of 0"),
        ([1, 1, 1], [1, 0, 1], 0, "a dimension of 0"),
        ([1, 65536, 1], [1, 1, 1], 0, "the grid is too large"),
        ([1, 1, 65536], [1, 1, 1], 0, "the grid is too large"),
        ([1 << 31, 1, 1], [1, 1, 1], 0, "the grid is too large"),
        ([1, 1, 1], [1025, 1, 1], 0, "the block is too large"),
        ([1, 1, 1], [32, 33, 1], 0, "the block is too large"),
        ([1, 1, 1], [1, 1, 65], 0, "the block is too large"),
        ([1, 1, 1], [1, 1, 1], (48 << 10) + 1, "more dynamic shared memory than its attribute allows"),
    ] {
        caught(launch(grid, block, shared, &mut args!(p, v, n)), 1, says);
    }
    caught(launch([1, 1, 1], [1, 1, 1], 0, &mut [&raw const p as *mut _, null_mut(), null_mut()]), 1, "an argument's pointer is null");
    clean(launch([1, 1, 1], [64, 1, 1], 48 << 10, &mut args!(p, v, n)));
    let dynamic = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is alive.
    unsafe {
        assert_eq!(sys::cuFuncSetAttribute(fill, dynamic, 227 << 10), OK);
        clean(launch([1, 1, 1], [64, 1, 1], 227 << 10, &mut args!(p, v, n)));
        assert_eq!(sys::cuFuncSetAttribute(fill, dynamic, (227 << 10) + 1) as u32, 1);
    }
    // A device that has less.
    cudasim::attribute(97, 99 << 10);
    // SAFETY: as above.
    assert_eq!(unsafe { sys::cuFuncSetAttribute(fill, dynamic, 100 << 10) } as u32, 1);
    assert_eq!(gpu.synchronize(), OK);
}

#[test]
fn two_and_three_dimensions() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.zeros::<f32>(4), 1f32, 4);
    let fill = function("fill").expect("a kernel");
    // SAFETY: the kernel writes p[0..4], once for each y and z.
    unsafe { assert_eq!(sys::cuLaunchKernel(fill, 1, 2, 3, 4, 5, 6, 0, gpu.stream, args!(p, v, n).as_mut_ptr(), null_mut()), OK) };
    assert_eq!(gpu.download::<f32>(p, 4), [1.0; 4]);
    let s = cudasim::stats(Some("fill"));
    assert_eq!((s.blocks, s.threads, s.warps), (6, 720, 24));
}

/// Every call of a small program fails in turn, with the code that was asked for; the fault happens once.
#[test]
fn faults_by_name_and_number() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.alloc::<f32>(64), 1f32, 64);
    let fill = function("fill").expect("a kernel");
    cudasim::fault("cuLaunchKernel", 1, 719);
    assert_eq!(gpu.launch_function(fill, 1, 64, 0, &mut args!(p, v, n)), OK);
    assert_eq!((gpu.launch_function(fill, 1, 64, 0, &mut args!(p, v, n)) as u32, cudasim::faults_left()), (719, 0));
    assert_eq!(gpu.launch_function(fill, 1, 64, 0, &mut args!(p, v, n)), OK);
    assert_eq!((gpu.synchronize(), cudasim::stats(None).launches), (OK, 2));
    let mut out = 0;
    let (mut module, mut context) = (null_mut(), null_mut());
    // SAFETY: out pointers; a fault does nothing else.
    unsafe {
        for (name, code) in [("cuMemAlloc_v2", 2), ("cuMemAlloc_v2", 700)] {
            cudasim::fault(name, 0, code);
            assert_eq!((sys::cuMemAlloc_v2(&mut out, 4) as i32, out), (code, 0));
        }
        for code in [200, 209, 218, 222] {
            cudasim::fault("cuModuleLoadData", 0, code);
            assert_eq!(sys::cuModuleLoadData(&mut module, IMAGE.as_ptr().cast()) as i32, code);
        }
        cudasim::fault("*", 1, 46);
        assert_eq!(sys::cuCtxGetCurrent(&mut context), OK);
        assert_eq!(sys::cuCtxGetCurrent(&mut context) as i32, 46);
    }
}

#[test]
fn calls_are_counted_and_traced() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.alloc::<f32>(64), 1f32, 64);
    let fill = function("fill").expect("a kernel");
    cudasim::reset();
    // SAFETY: the context is alive.
    unsafe {
        assert_eq!(sys::cuCtxPushCurrent_v2(gpu.context), OK);
        for _ in 0..2 {
            assert_eq!(gpu.launch_function(fill, 1, 64, 0, &mut args!(p, v, n)), OK);
        }
        assert_eq!(sys::cuCtxPopCurrent_v2(&mut null_mut()), OK);
    }
    assert_eq!(cudasim::trace(), ["cuCtxPushCurrent_v2", "cuLaunchKernel", "cuLaunchKernel", "cuCtxPopCurrent_v2"]);
    assert_eq!((cudasim::calls("cuLaunchKernel"), cudasim::calls("cuMemAlloc_v2")), (2, 0));
}

#[test]
fn images_are_looked_at() {
    let Some(_gpu) = gpu(false) else { return };
    let load = |image: &[u8]| {
        let mut module = null_mut();
        // SAFETY: padded below.
        let result = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        (result as u32, module)
    };
    let has = |module, name: &CStr| {
        let mut function = null_mut();
        // SAFETY: a living module.
        unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) as u32 }
    };
    assert_eq!(load(&[0; 64]).0, 200);
    assert_eq!(load(b"not an image of any kind, and long enough to look at all of it\0").0, 200);
    let mut elf = [0u8; 64];
    elf[..4].copy_from_slice(b"\x7fELF");
    assert_eq!(load(&elf).0, 200, "no GPU's");
    assert_eq!(load(b"// text without a version\0").0, 218);
    let (result, ptx) = load(b"//\n// Generated\n.version 8.0\n.target sm_80\n.visible .entry fill(\n)\n.visible .entry fill_more()\0");
    assert_eq!((result, has(ptx, c"fill"), has(ptx, c"copy4"), has(ptx, c"fil")), (0, 0, 500, 500));
    assert_eq!(cudasim::report(), "");
    // In the image, but no kernel here has the name.
    assert_eq!(has(ptx, c"fill_more"), 500);
    assert!(cudasim::report().contains("no kernel library"));
    // SAFETY: the image is four words, 16 bytes, and lives as long as the program.
    let (result, fat) = load(unsafe { std::slice::from_raw_parts(IMAGE.as_ptr().cast(), 16) });
    assert_eq!((result, has(fat, c"fill"), has(fat, c"nothing")), (0, 0, 500));
    assert_eq!(cudasim::live().modules, 2);
    // SAFETY: loaded above.
    unsafe {
        assert_eq!(sys::cuModuleUnload(fat), OK);
        assert_eq!(sys::cuModuleUnload(fat) as u32, 400);
    }
    assert_eq!((cudasim::live().modules, has(fat, c"fill")), (1, 400));
}

/// A cubin is an ELF file for machine 190; its kernels are its .text sections.
#[test]
fn names_in_a_cubin() {
    let Some(_gpu) = gpu(false) else { return };
    let names = b"\0.text.fill\0.text.other\0";
    let mut elf = vec![0u8; 64 + 64];
    elf[..4].copy_from_slice(b"\x7fELF");
    elf[18..20].copy_from_slice(&190u16.to_le_bytes());
    elf[40..48].copy_from_slice(&64u64.to_le_bytes());
    elf[58..60].copy_from_slice(&64u16.to_le_bytes());
    elf[60..62].copy_from_slice(&1u16.to_le_bytes());
    elf[64 + 24..64 + 32].copy_from_slice(&128u64.to_le_bytes());
    elf[64 + 32..64 + 40].copy_from_slice(&(names.len() as u64).to_le_bytes());
    elf.extend_from_slice(names);
    let (mut module, mut function) = (null_mut(), null_mut());
    // SAFETY: a whole file.
    unsafe {
        assert_eq!(sys::cuModuleLoadData(&mut module, elf.as_ptr().cast()), OK);
        assert_eq!(sys::cuModuleGetFunction(&mut function, module, c"fill".as_ptr()), OK);
        assert_eq!(sys::cuModuleGetFunction(&mut function, module, c"copy4".as_ptr()) as u32, 500);
    }
}

#[test]
fn contexts_have_memory_modules_and_streams_of_their_own() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.zeros::<f32>(64), 1f32, 64);
    let fill = function("fill").expect("a kernel");
    let (mut second, mut current) = (null_mut(), null_mut());
    // SAFETY: handles of this test.
    unsafe {
        assert_eq!(sys::cuCtxCreate_v2(&mut second, 0, 1), OK);
        assert_eq!(sys::cuCtxGetCurrent(&mut current), OK);
        assert_eq!(current, second);
        let mut device = 9;
        assert_eq!(sys::cuCtxGetDevice(&mut device), OK);
        assert_eq!(device, 1);
        // The first context's function and stream, while the second is current.
        caught((gpu.launch_function(fill, 1, 64, 0, &mut args!(p, v, n)), cudasim::report()), 400, "another context");
        let own = function("fill").expect("a kernel");
        caught((gpu.launch_function(own, 1, 64, 0, &mut args!(p, v, n)), cudasim::report()), 400, "no such stream in the current context");
        // Its own stream, and the other's memory.
        assert_eq!(sys::cuLaunchKernel(own, 1, 1, 1, 64, 1, 1, 0, null_mut(), args!(p, v, n).as_mut_ptr(), null_mut()), OK);
        caught((sys::cuCtxSynchronize(), cudasim::report()), 700, "memory of another context");
        // The first works on.
        assert_eq!(sys::cuCtxPopCurrent_v2(&mut current), OK);
        assert_eq!(current, second);
        clean(gpu.run("fill", 1, 64, 0, &mut args!(p, v, n)));
        let mut of_stream = null_mut();
        assert_eq!(sys::cuStreamGetCtx(gpu.stream, &mut of_stream), OK);
        assert_eq!(of_stream, gpu.context);
        assert_eq!(cudasim::live().contexts, 1);
        assert_eq!(sys::cuCtxDestroy_v2(second), OK);
        assert_eq!(sys::cuCtxPushCurrent_v2(second) as u32, 709);
        // Primary contexts are everybody's.
        caught((sys::cuCtxDestroy_v2(gpu.context), cudasim::report()), 201, "primary");
        assert_eq!(sys::cuCtxPopCurrent_v2(&mut current), OK);
        let mut p = 0;
        assert_eq!(sys::cuMemAlloc_v2(&mut p, 4) as u32, 201, "no context is current");
        assert_eq!(sys::cuCtxPopCurrent_v2(&mut current) as u32, 201);
        assert_eq!(sys::cuCtxPushCurrent_v2(gpu.context), OK);
    }
}

#[test]
fn the_primary_context_is_counted() {
    let Some(_gpu) = gpu(false) else { return };
    let (mut context, mut flags, mut active) = (null_mut(), 9, 9);
    // SAFETY: out pointers.
    unsafe {
        assert_eq!(sys::cuDevicePrimaryCtxGetState(1, &mut flags, &mut active), OK);
        assert_eq!((flags, active), (0, 0));
        assert_eq!(sys::cuDevicePrimaryCtxRetain(&mut context, 1), OK);
        assert_eq!(cudasim::live().primary_retains, 2);
        assert_eq!(sys::cuDevicePrimaryCtxRelease_v2(1), OK);
        assert_eq!(sys::cuDevicePrimaryCtxRelease_v2(1) as u32, 201);
        assert!(cudasim::report().contains("released more often than retained"));
        assert_eq!(sys::cuDevicePrimaryCtxRetain(&mut context, 2) as u32, 101);
    }
}

#[test]
fn what_a_pointer_is() {
    use cudarc::driver::sys::CUpointer_attribute_enum as P;
    let Some(gpu) = gpu(false) else { return };
    let p = gpu.alloc::<f32>(64);
    let local = 0u64;
    // SAFETY: out pointers wide enough for each attribute.
    unsafe {
        let one = |attribute, p| {
            let mut out = 0u64;
            let result = sys::cuPointerGetAttribute((&raw mut out).cast(), attribute, p) as u32;
            (result, out)
        };
        assert_eq!(one(P::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p + 100), (0, 2));
        assert_eq!(one(P::CU_POINTER_ATTRIBUTE_CONTEXT, p), (0, gpu.context as u64));
        assert_eq!(one(P::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, p + 100), (0, p));
        assert_eq!(one(P::CU_POINTER_ATTRIBUTE_RANGE_SIZE, p), (0, 256));
        assert_eq!(one(P::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p + 256).0, 1);
        assert_eq!(one(P::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, &raw const local as u64).0, 1);
        let (mut kind, mut device) = (7u32, 7i32);
        let mut which = [P::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, P::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL];
        let mut out = [(&raw mut kind).cast(), (&raw mut device).cast()];
        assert_eq!(sys::cuPointerGetAttributes(2, which.as_mut_ptr(), out.as_mut_ptr(), &raw const local as u64), OK);
        assert_eq!((kind, device), (0, -2));
        assert_eq!(sys::cuPointerGetAttributes(2, which.as_mut_ptr(), out.as_mut_ptr(), p), OK);
        assert_eq!((kind, device), (2, 0));
    }
}

#[test]
fn copies_and_fills_stay_inside() {
    let Some(gpu) = gpu(false) else { return };
    let (p, q) = (gpu.upload(&[1u32, 2, 3, 4]), gpu.alloc::<u32>(4));
    let mut host = [0u32; 8];
    // SAFETY: refused before anything is touched, or within bounds.
    unsafe {
        for (name, result, report) in [
            ("cuMemcpyDtoH_v2", sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), p, 20), cudasim::report()),
            ("cuMemcpyHtoDAsync_v2", sys::cuMemcpyHtoDAsync_v2(p + 4, host.as_ptr().cast(), 16, gpu.stream), cudasim::report()),
            ("cuMemcpyDtoDAsync_v2", sys::cuMemcpyDtoDAsync_v2(q, host.as_ptr() as u64, 4, gpu.stream), cudasim::report()),
            ("cuMemsetD32Async", sys::cuMemsetD32Async(q, 1, 5, gpu.stream), cudasim::report()),
        ] {
            assert!(report.contains(name), "{report}");
            caught((result, report), 1, "are not inside a device allocation");
        }
        assert_eq!(sys::cuMemcpyAsync(q, p, 16, gpu.stream), OK);
        assert_eq!(sys::cuMemsetD32Async(q + 4, 9, 2, gpu.stream), OK);
        assert_eq!(sys::cuMemsetD8Async(q + 15, 1, 1, gpu.stream), OK);
        assert_eq!(sys::cuMemcpyAsync(host.as_mut_ptr() as u64, q, 16, gpu.stream), OK);
        assert_eq!(host[..4], [1, 9, 9, 0x0100_0004]);
        assert_eq!(sys::cuMemFree_v2(q), OK);
        caught((sys::cuMemFree_v2(q), cudasim::report()), 1, "no living allocation");
        caught((sys::cuMemFree_v2(p + 4), cudasim::report()), 1, "no living allocation");
    }
}

#[test]
fn devices_say_what_they_are_told_to() {
    let Some(_gpu) = gpu(false) else { return };
    let (mut count, mut value, mut version, mut bytes) = (0, 0, 0, 0);
    let mut name = [0i8; 64];
    // SAFETY: out pointers.
    unsafe {
        assert_eq!(sys::cuDeviceGetCount(&mut count), OK);
        assert_eq!(sys::cuDriverGetVersion(&mut version), OK);
        assert_eq!(sys::cuDeviceGetName(name.as_mut_ptr(), 64, 0), OK);
        assert_eq!(sys::cuDeviceTotalMem_v2(&mut bytes, 0), OK);
        assert_eq!((count, version, CStr::from_ptr(name.as_ptr()), bytes), (2, 13000, c"cudasim (simulated)", 4 << 30));
        let major = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        assert_eq!((sys::cuDeviceGetAttribute(&mut value, major, 0), value), (OK, 9));
        cudasim::attribute(75, 7);
        assert_eq!((sys::cuDeviceGetAttribute(&mut value, major, 0), value), (OK, 7));
        cudasim::reset();
        assert_eq!((sys::cuDeviceGetAttribute(&mut value, major, 0), value), (OK, 9));
        let (mut text, mut none) = (std::ptr::null(), std::ptr::null());
        assert_eq!(sys::cuGetErrorName(sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, &mut text), OK);
        assert_eq!(CStr::from_ptr(text), c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION");
        assert_eq!(sys::cuGetErrorString(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY, &mut none), OK);
        assert_eq!(CStr::from_ptr(none), c"out of memory");
        // More than there is.
        let mut p = 0;
        assert_eq!(sys::cuMemAlloc_v2(&mut p, 5 << 30) as u32, 2);
        assert_eq!(sys::cuMemAlloc_v2(&mut p, 0) as u32, 1);
    }
}

/// What is left after a context is given back: nothing.
#[test]
fn nothing_outlives_its_context() {
    {
        let Some(gpu) = gpu(false) else { return };
        let _p = gpu.zeros::<f32>(64);
        function("fill").expect("a kernel");
        let live = cudasim::live();
        assert_eq!((live.allocations, live.bytes, live.streams, live.modules, live.primary_retains), (1, 256, 1, 1, 1));
    }
    assert_eq!(cudasim::live(), cudasim::Live::default());
}

/// The same library from C: control.h is C, and nothing else than LD_LIBRARY_PATH is needed.
#[test]
fn a_program_in_c() {
    let Some(_gpu) = gpu(false) else { return };
    let (folder, here) = (cudasim::folder().expect("built"), std::path::Path::new(env!("CARGO_MANIFEST_DIR")));
    let program = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("program");
    let mut compile = std::process::Command::new(std::env::var("CC").unwrap_or("cc".into()));
    compile.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here.join("sim")).arg(here.join("tests/fast/program.c")).arg("-o").arg(&program);
    assert!(compile.arg(folder.join("libcuda.so.1")).status().expect("a C compiler").success());
    let output = std::process::Command::new(&program).env("LD_LIBRARY_PATH", &folder).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7 7 7 7; 1 launch; report: \"\"\n", "{output:?}");
}
