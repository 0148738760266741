//! Order of streams, captures and graphs, events, host threads.
use crate::args;
use crate::common::*;
use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUresult, CUstream, CUstreamCaptureMode::*, CUstreamCaptureStatus as Status};
use std::ptr::null_mut;

const CAPTURE_UNSUPPORTED: u32 = 900;
const CAPTURE_INVALIDATED: u32 = 901;
const CAPTURE_UNJOINED: u32 = 904;
const CAPTURE_IMPLICIT: u32 = 906;

fn code(result: CUresult) -> u32 {
    result as u32
}

impl Gpu {
    fn begin(&self) {
        // SAFETY: the stream is alive.
        assert_eq!(unsafe { sys::cuStreamBeginCapture_v2(self.stream, CU_STREAM_CAPTURE_MODE_GLOBAL) }, OK);
    }
    fn end(&self) -> (CUresult, CUgraph) {
        let mut graph = null_mut();
        // SAFETY: an out pointer.
        let result = unsafe { sys::cuStreamEndCapture(self.stream, &mut graph) };
        (result, graph)
    }
    fn another_stream(&self) -> CUstream {
        let mut stream = null_mut();
        // SAFETY: an out pointer.
        assert_eq!(unsafe { sys::cuStreamCreate(&mut stream, 1) }, OK);
        stream
    }
}

#[test]
fn another_stream_sees_old_data_until_it_waits() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.zeros::<f32>(64), 5f32, 64);
    let other = gpu.another_stream();
    assert_eq!(gpu.launch("fill", 1, 64, 0, &mut args!(p, v, n)), OK);
    assert_eq!(gpu.download_from::<f32>(other, p, 1), [0.0], "nothing waited for the launch");
    let mut event = null_mut();
    // SAFETY: handles of this test.
    unsafe {
        assert_eq!(sys::cuEventCreate(&mut event, 2), OK);
        assert_eq!(sys::cuEventRecord(event, gpu.stream), OK);
        assert_eq!(sys::cuStreamWaitEvent(other, event, 0), OK);
    }
    assert_eq!(gpu.download_from::<f32>(other, p, 1), [5.0]);
    // Work at once, where that is asked for.
    cudasim::defer(false);
    let v = 6f32;
    assert_eq!(gpu.launch("fill", 1, 64, 0, &mut args!(p, v, n)), OK);
    assert_eq!(gpu.download_from::<f32>(other, p, 1), [6.0]);
}

/// Work of the null stream and of blocking streams waits for one another; of the others it does not.
#[test]
fn the_null_stream() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.zeros::<f32>(4), 5f32, 4);
    let mut blocking = null_mut();
    // SAFETY: an out pointer; a kernel of three arguments.
    unsafe {
        assert_eq!(sys::cuStreamCreate(&mut blocking, 0), OK);
        let fill = function("fill").expect("a kernel");
        assert_eq!(sys::cuLaunchKernel(fill, 1, 1, 1, 4, 1, 1, 0, null_mut(), args!(p, v, n).as_mut_ptr(), null_mut()), OK);
    }
    assert_eq!(gpu.download::<f32>(p, 1), [0.0], "this stream is of the kind that does not wait");
    assert_eq!(gpu.download_from::<f32>(blocking, p, 1), [5.0]);
}

#[test]
fn queries_and_events_tell_what_is_done() {
    let Some(gpu) = gpu(false) else { return };
    let (p, v, n) = (gpu.zeros::<f32>(64), 5f32, 64);
    let (mut before, mut after) = (null_mut(), null_mut());
    // SAFETY: handles of this test.
    unsafe {
        assert_eq!(sys::cuEventCreate(&mut before, 0), OK);
        assert_eq!(sys::cuEventCreate(&mut after, 0), OK);
        assert_eq!(sys::cuEventRecord(before, gpu.stream), OK);
        assert_eq!(sys::cuEventQuery(before), OK);
        assert_eq!(gpu.launch("fill", 1, 64, 0, &mut args!(p, v, n)), OK);
        assert_eq!(sys::cuEventRecord(after, gpu.stream), OK);
        assert_eq!(code(sys::cuEventQuery(after)), 600);
        // A query lets one operation run.
        assert_eq!(sys::cuEventQuery(after), OK);
        assert_eq!(gpu.launch("fill", 1, 64, 0, &mut args!(p, v, n)), OK);
        assert_eq!(code(sys::cuStreamQuery(gpu.stream)), 600);
        assert_eq!(sys::cuStreamQuery(gpu.stream), OK);
        let mut milliseconds = 0f32;
        assert_eq!(sys::cuEventElapsedTime(&mut milliseconds, before, after), OK);
        assert!(milliseconds > 0.0);
        assert_eq!(cudasim::live().events, 2);
        assert_eq!(sys::cuEventDestroy_v2(before), OK);
        assert_eq!(sys::cuEventDestroy_v2(after), OK);
    }
    assert_eq!((cudasim::live().events, cudasim::report().as_str()), (0, ""));
}

#[test]
fn a_capture_runs_nothing_and_replays_with_new_data() {
    let Some(gpu) = gpu(false) else { return };
    let (p, n) = (gpu.zeros::<f32>(64), 64);
    let add = function("add_one").expect("a kernel");
    gpu.begin();
    let mut status = Status::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: an out pointer; 256 bytes are allocated.
    unsafe {
        assert_eq!(sys::cuStreamIsCapturing(gpu.stream, &mut status), OK);
        assert_eq!(sys::cuMemsetD32Async(p + 128, 0, 32, gpu.stream), OK);
    }
    assert_eq!(status, Status::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    assert_eq!(gpu.launch_function(add, 1, 64, 0, &mut args!(p, n)), OK);
    assert_eq!(gpu.launch_function(add, 1, 64, 0, &mut args!(p, n)), OK);
    let (result, graph) = gpu.end();
    assert_eq!(result, OK);
    assert_eq!(cudasim::stats(None).launches, 0);
    let (mut exec, mut nodes): (CUgraphExec, usize) = (null_mut(), 0);
    // SAFETY: handles of this test.
    unsafe {
        assert_eq!(sys::cuGraphGetNodes(graph, null_mut(), &mut nodes), OK);
        assert_eq!(nodes, 3);
        assert_eq!(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0), OK);
        assert_eq!(sys::cuGraphLaunch(exec, gpu.stream), OK);
        assert_eq!(sys::cuGraphLaunch(exec, gpu.stream), OK);
    }
    let got: Vec<f32> = gpu.download(p, 64);
    assert_eq!((got[0], got[63], cudasim::stats(None).launches), (4.0, 2.0, 4));
    let p_again = gpu.upload(&[0f32]);
    // SAFETY: both allocated.
    unsafe {
        assert_eq!(sys::cuMemcpyDtoDAsync_v2(p, p_again, 4, gpu.stream), OK);
        assert_eq!(sys::cuGraphLaunch(exec, gpu.stream), OK);
        assert_eq!(gpu.download::<f32>(p, 1), [2.0]);
        let live = cudasim::live();
        assert_eq!((live.graphs, live.graph_execs), (1, 1));
        assert_eq!(sys::cuGraphExecDestroy(exec), OK);
        assert_eq!(sys::cuGraphDestroy(graph), OK);
    }
    assert_eq!((cudasim::live().graphs, cudasim::report().as_str()), (0, ""));
}

/// Every call that CUDA forbids while a stream captures; each spoils the capture.
#[test]
fn illegal_calls_during_a_capture() {
    let Some(gpu) = gpu(false) else { return };
    let p = gpu.zeros::<f32>(64);
    let mut event = null_mut();
    // SAFETY: an out pointer.
    assert_eq!(unsafe { sys::cuEventCreate(&mut event, 2) }, OK);
    let (mut out, mut word, mut module) = (0, [0f32; 1], null_mut());
    type Call<'a> = (&'a str, Box<dyn FnMut() -> CUresult + 'a>);
    let calls: Vec<Call> = vec![
        // SAFETY: handles of this test, memory that is allocated.
        ("cuMemAlloc_v2", Box::new(|| unsafe { sys::cuMemAlloc_v2(&mut out, 64) })),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuMemFree_v2", Box::new(|| unsafe { sys::cuMemFree_v2(p) })),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuMemcpyDtoH_v2", Box::new(|| unsafe { sys::cuMemcpyDtoH_v2(word.as_mut_ptr().cast(), p, 4) })),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuMemsetD8_v2", Box::new(|| unsafe { sys::cuMemsetD8_v2(p, 0, 4) })),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuCtxSynchronize", Box::new(|| unsafe { sys::cuCtxSynchronize() })),
        ("cuStreamSynchronize", Box::new(|| gpu.synchronize())),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuModuleLoadData", Box::new(|| unsafe { sys::cuModuleLoadData(&mut module, IMAGE.as_ptr().cast()) })),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuEventSynchronize", Box::new(|| unsafe { sys::cuEventSynchronize(event) })),
        // SAFETY: handles of this test, memory that is allocated.
        ("cuEventQuery", Box::new(|| unsafe { sys::cuEventQuery(event) })),
    ];
    for (name, mut call) in calls {
        gpu.begin();
        assert_eq!(code(call()), CAPTURE_UNSUPPORTED, "{name}");
        assert!(cudasim::report().contains(name), "{name}");
        let (result, graph) = gpu.end();
        assert_eq!((code(result), graph.is_null()), (CAPTURE_INVALIDATED, true), "{name}");
    }
    // The context and the stream work on.
    let (v, n) = (2f32, 64);
    clean(gpu.run("fill", 1, 64, 0, &mut args!(p, v, n)));
}

/// A second stream that joins the capture by an event must be waited for before its end; work on the null stream is refused.
#[test]
fn captures_over_two_streams() {
    let Some(gpu) = gpu(false) else { return };
    let (p, n, v) = (gpu.zeros::<f32>(64), 64, 3f32);
    let other = gpu.another_stream();
    let (add, fill) = (function("add_one").expect("a kernel"), function("fill").expect("a kernel"));
    let (mut fork, mut join) = (null_mut(), null_mut());
    for joined in [true, false] {
        // SAFETY: handles of this test.
        let graph = unsafe {
            assert_eq!(sys::cuEventCreate(&mut fork, 2), OK);
            assert_eq!(sys::cuEventCreate(&mut join, 2), OK);
            gpu.begin();
            assert_eq!(gpu.launch_function(fill, 1, 64, 0, &mut args!(p, v, n)), OK);
            assert_eq!(sys::cuEventRecord(fork, gpu.stream), OK);
            assert_eq!(sys::cuStreamWaitEvent(other, fork, 0), OK);
            assert_eq!(sys::cuLaunchKernel(add, 1, 1, 1, 64, 1, 1, 0, other, args!(p, n).as_mut_ptr(), null_mut()), OK);
            assert_eq!(sys::cuEventRecord(join, other), OK);
            if joined {
                assert_eq!(sys::cuStreamWaitEvent(gpu.stream, join, 0), OK);
            }
            let (result, graph) = gpu.end();
            assert_eq!(code(result), if joined { 0 } else { CAPTURE_UNJOINED });
            graph
        };
        if joined {
            let mut exec = null_mut();
            // SAFETY: handles of this test.
            unsafe {
                assert_eq!(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0), OK);
                assert_eq!(sys::cuGraphLaunch(exec, gpu.stream), OK);
            }
            assert_eq!(gpu.download::<f32>(p, 64), [4.0; 64]);
            // SAFETY: made above.
            unsafe { assert_eq!((sys::cuGraphExecDestroy(exec), sys::cuGraphDestroy(graph)), (OK, OK)) };
        }
    }
    let mut blocking = null_mut();
    // SAFETY: handles of this test.
    unsafe {
        assert_eq!(sys::cuStreamCreate(&mut blocking, 0), OK);
        assert_eq!(sys::cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED), OK);
        assert_eq!(sys::cuLaunchKernel(fill, 1, 1, 1, 64, 1, 1, 0, null_mut(), args!(p, v, n).as_mut_ptr(), null_mut()), OK, "relaxed");
        let mut graph = null_mut();
        assert_eq!(sys::cuStreamEndCapture(blocking, &mut graph), OK);
        assert_eq!(sys::cuGraphDestroy(graph), OK);
        assert_eq!(sys::cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_GLOBAL), OK);
        let refused = sys::cuLaunchKernel(fill, 1, 1, 1, 64, 1, 1, 0, null_mut(), args!(p, v, n).as_mut_ptr(), null_mut());
        assert_eq!(code(refused), CAPTURE_IMPLICIT);
        assert_eq!(code(sys::cuStreamEndCapture(blocking, &mut graph)), CAPTURE_INVALIDATED);
    }
}

/// Thread-local captures leave other threads alone; global ones do not.
#[test]
fn a_capture_and_other_threads() {
    let Some(gpu) = gpu(false) else { return };
    let context = gpu.context as usize;
    let allocate_elsewhere = || {
        let thread = std::thread::spawn(move || {
            let mut p = 0;
            // SAFETY: the context is alive; an out pointer.
            unsafe {
                assert_eq!(sys::cuCtxSetCurrent(context as _), OK);
                code(sys::cuMemAlloc_v2(&mut p, 16))
            }
        });
        thread.join().expect("no panic")
    };
    for (mode, refused) in [(CU_STREAM_CAPTURE_MODE_GLOBAL, CAPTURE_UNSUPPORTED), (CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, 0), (CU_STREAM_CAPTURE_MODE_RELAXED, 0)] {
        // SAFETY: the stream is alive.
        assert_eq!(unsafe { sys::cuStreamBeginCapture_v2(gpu.stream, mode) }, OK);
        assert_eq!(allocate_elsewhere(), refused, "{mode:?}");
        let (result, graph) = gpu.end();
        assert_eq!(code(result), if refused == 0 { 0 } else { CAPTURE_INVALIDATED });
        // SAFETY: made above.
        assert_eq!(unsafe { sys::cuGraphDestroy(graph) }, if refused == 0 { OK } else { CUresult::CUDA_ERROR_INVALID_VALUE });
    }
}

/// Threads with streams of their own, in two contexts.
#[test]
fn several_host_threads_at_once() {
    let Some(gpu) = gpu(false) else { return };
    let mut second = null_mut();
    // SAFETY: an out pointer; the new context is taken off this thread again.
    unsafe {
        assert_eq!(sys::cuCtxCreate_v2(&mut second, 0, 1), OK);
        assert_eq!(sys::cuCtxPopCurrent_v2(&mut null_mut()), OK);
    }
    let contexts = [gpu.context as usize, second as usize];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                // SAFETY: handles and memory of this thread.
                unsafe {
                    assert_eq!(sys::cuCtxPushCurrent_v2(contexts[thread % 2] as _), OK);
                    let (mut stream, mut p) = (null_mut(), 0);
                    assert_eq!(sys::cuStreamCreate(&mut stream, 1), OK);
                    assert_eq!(sys::cuMemAlloc_v2(&mut p, 4096), OK);
                    let (fill, add, n) = (function("fill").expect("a kernel"), function("add_one").expect("a kernel"), 1024);
                    for round in 0..20 {
                        let v = (thread * 100 + round) as f32;
                        assert_eq!(sys::cuLaunchKernel(fill, 4, 1, 1, 256, 1, 1, 0, stream, args!(p, v, n).as_mut_ptr(), null_mut()), OK);
                        assert_eq!(sys::cuLaunchKernel(add, 4, 1, 1, 256, 1, 1, 0, stream, args!(p, n).as_mut_ptr(), null_mut()), OK);
                        let mut out = vec![0f32; 1024];
                        assert_eq!(sys::cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), p, 4096, stream), OK);
                        assert!(out.iter().all(|x| *x == v + 1.0));
                    }
                    assert_eq!(sys::cuStreamDestroy_v2(stream), OK);
                    assert_eq!(sys::cuCtxPopCurrent_v2(&mut null_mut()), OK);
                }
            });
        }
    });
    // SAFETY: made above.
    assert_eq!(unsafe { sys::cuCtxDestroy_v2(second) }, OK);
    assert_eq!(cudasim::report(), "");
    assert_eq!(cudasim::live().allocations, 2);
}
