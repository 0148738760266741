//! Primitives on token-shaped arrays in device memory (of the simulated driver) against the CPU's: every byte of every output, over layouts, types, in place, bad values.
#[path = "primitives/both.rs"]
mod both;
#[path = "primitives/rig.rs"]
mod rig;
#[path = "cuda/world.rs"]
mod world;

use both::{Both, Twins};
use harness::device::{self, Block};
use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use rig::{Data, Elem, LENGTHS, Layout, Place, config, data, last};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use testkit::{cases, harness};
use world::{Graph, simulated};

/// Context, batch, inputs, outputs, bootstrap, workspace, its bytes, stream.
type Call = fn(*mut passrl_context, &passrl_batch, &[*const passrl_view], &[*const passrl_view], *const passrl_view, *mut c_void, usize, *mut c_void) -> i32;

struct Primitive {
    name: &'static str,
    inputs: usize,
    outputs: usize,
    call: Call,
}

fn whitening(shift: i32) -> passrl_config {
    passrl_config { whiten_shift: shift, fill_padding: shift, whiten_epsilon_mode: PASSRL_EPSILON_ADD_STD, ..config() }
}

/// A primitive of this name, with so many inputs and outputs, called by this.
macro_rules! of {
    ($name:expr, $inputs:expr, $outputs:expr, |$($argument:tt),*| $call:expr) => {
        Primitive {
            name: $name,
            inputs: $inputs,
            outputs: $outputs,
            // SAFETY: a live context, views of live memory of its place.
            call: |$($argument),*| unsafe { $call },
        }
    };
}

fn primitives() -> Vec<Primitive> {
    vec![
        of!("returns", 1, 1, |c, b, i, o, _, w, n, s| passrl_discounted_returns(c, b, 0.97, i[0], o[0], w, n, s)),
        of!("gae", 2, 2, |c, b, i, o, _, w, n, s| passrl_gae(c, b, 0.97, 0.9, i[0], i[1], null(), o[0], o[1], w, n, s)),
        of!("gae, bootstrap, no returns", 2, 1, |c, b, i, o, boot, w, n, s| passrl_gae(c, b, 0.9, 1.0, i[0], i[1], boot, o[0], null(), w, n, s)),
        of!("opd", 2, 1, |c, b, i, o, _, w, n, s| passrl_opd_signal(c, b, 1.25, i[0], i[1], null(), o[0], w, n, s)),
        of!("g_opd", 3, 1, |c, b, i, o, _, w, n, s| passrl_opd_signal(c, b, 1.25, i[0], i[1], i[2], o[0], w, n, s)),
        of!("kl_in_reward", 3, 1, |c, b, i, o, _, w, n, s| {
            let k = passrl_config { kl_in_reward: PASSRL_KL_K3, kl_coef: 0.1, kl_log_ratio_clamp: 2.0, kl_clamp: 1.5, ..config() };
            passrl_kl_in_reward(c, b, &k, i[0], i[1], i[2], o[0], w, n, s)
        }),
        of!("kl alone", 2, 1, |c, b, i, o, _, w, n, s| {
            let k = passrl_config { kl_in_reward: PASSRL_KL_ABS, kl_coef: 0.3, ..config() };
            passrl_kl_in_reward(c, b, &k, i[0], i[1], null(), o[0], w, n, s)
        }),
        of!("divide_length", 1, 1, |c, b, i, o, _, w, n, s| passrl_divide_length(c, b, 0.7, i[0], o[0], w, n, s)),
        of!("divide_length, k 1", 1, 1, |c, b, i, o, _, w, n, s| passrl_divide_length(c, b, 1.0, i[0], o[0], w, n, s)),
        of!("divide_length, k 0", 1, 1, |c, b, i, o, _, w, n, s| passrl_divide_length(c, b, 0.0, i[0], o[0], w, n, s)),
        of!("whiten", 1, 1, |c, b, i, o, _, w, n, s| passrl_whiten(c, b, &whitening(1), i[0], o[0], w, n, s)),
        of!("whiten, scale alone, no padding", 1, 1, |c, b, i, o, _, w, n, s| passrl_whiten(c, b, &whitening(0), i[0], o[0], w, n, s)),
    ]
}

/// Device bytes of workspace.
fn workspace(context: *mut passrl_context, place: &Place) -> Block {
    let limits = passrl_limits { rollouts: LENGTHS.len() as i64, tokens: place.slots as i64, ..passrl_limits::defaults() };
    let mut bytes = 0;
    // SAFETY: a live context, a struct of the header.
    assert_eq!(unsafe { passrl_primitive_workspace_size(context, &limits, &mut bytes) }, PASSRL_OK, "{}", last());
    Block::dirty(bytes, 0xa5)
}

/// One primitive on both; whole outputs as bytes. `edit` changes the batch; `over`: the input that the first output lies over.
fn both<I: Elem, O: Elem>(c: &Both, p: &Primitive, place: &Place, inputs: &[Data], over: Option<usize>, status: i32, edit: &dyn Fn(&mut passrl_batch)) {
    let mut arrays: Vec<Vec<I>> = inputs.iter().map(|d| place.scatter(d, I::of(f64::NAN))).collect();
    let mut results = vec![vec![O::of(7.0); place.slots]; p.outputs];
    let mut boot: Vec<f32> = (0..LENGTHS.len()).map(|i| i as f32 / 4.0).collect();
    let boot = rig::line(&mut boot);
    let ins: Vec<passrl_view> = arrays.iter_mut().map(|a| place.view(a)).collect();
    let mut outs: Vec<passrl_view> = results.iter_mut().map(|a| place.view(a)).collect();
    if let Some(input) = over {
        outs[0] = ins[input];
    }
    let pointers = |views: &[passrl_view]| views.iter().map(|v| &raw const *v).collect::<Vec<_>>();
    let driver = device::driver().expect("a driver");
    place.with_batch(|b| {
        let mut b = *b;
        edit(&mut b);
        // The device first: in place the host's inputs change.
        let mut twins = Twins::default();
        let twin_ins: Vec<*const passrl_view> = ins.iter().map(|v| twins.of(v)).collect();
        let twin_outs: Vec<*const passrl_view> = match over {
            Some(input) => std::iter::once(twin_ins[input]).chain(outs[1..].iter().map(|v| twins.of(v))).collect(),
            None => outs.iter().map(|v| twins.of(v)).collect(),
        };
        let twin = passrl_batch {
            cu_seqlens: twins.of(b.cu_seqlens),
            lengths: twins.of(b.lengths),
            mask: twins.of(b.mask),
            absent: twins.of(b.absent),
            in_stats: twins.of(b.in_stats),
            ..b
        };
        let (twin_boot, room, stream) = (twins.of(&boot), workspace(c.device, place), driver.stream());
        let got = (p.call)(c.device, &twin, &twin_ins, &twin_outs, twin_boot, room.pointer(), room.bytes, stream);
        assert_eq!(got, PASSRL_OK, "{} {:?}: {}", p.name, place.layout, last());
        driver.wait(stream);
        driver.destroy_stream(stream);
        let from_device: Vec<Vec<u8>> = twin_outs.iter().map(|v| twins.read(*v)).collect();
        let limits = passrl_limits { rollouts: 64, tokens: 1 << 20, rollout_tokens: 4096, ..passrl_limits::defaults() };
        let mut needed = 0;
        // SAFETY: as `workspace`; then memory of the test's own.
        unsafe { passrl_primitive_workspace_size(c.host, &limits, &mut needed) };
        let mut host = vec![both::Line([0xa5; 64]); needed.div_ceil(64)];
        let found = (p.call)(c.host, &b, &pointers(&ins), &pointers(&outs), &boot, host.as_mut_ptr().cast(), needed, null_mut());
        assert_eq!(found, status, "{} {:?}: {}", p.name, place.layout, last());
        for (o, (view, device)) in outs.iter().zip(&from_device).enumerate() {
            // SAFETY: the arrays above.
            let host = unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), device.len()) };
            let at = host.iter().zip(device).position(|(a, b)| a != b);
            assert!(at.is_none(), "{} {:?}: output {o} differs at byte {at:?} of {}", p.name, place.layout, device.len());
        }
    });
}

fn inputs_of(p: &Primitive, seed: u64) -> Vec<Data> {
    (0..p.inputs).map(|s| data(seed + s as u64)).collect()
}

#[test]
fn every_layout_has_the_bytes_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    for p in primitives() {
        for layout in Layout::ALL {
            both::<f32, f32>(&c, &p, &Place::new(layout), &inputs_of(&p, 1), None, PASSRL_OK, &|_| ());
        }
    }
    assert_eq!(cudasim::report(), "");
}

#[test]
fn every_type_and_in_place_have_the_bytes_of_the_cpu() {
    use half::{bf16, f16};
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    for p in primitives() {
        let (packed, padded) = (Place::new(Layout::Holes), Place::new(Layout::Padded { left: true }));
        let inputs = inputs_of(&p, 20);
        cudasim::seed(3);
        // Beyond f32: what is rounded on load is seen.
        let fine: Vec<Data> = inputs.iter().map(|d| d.iter().map(|r| r.iter().map(|x| x + 1e-9).collect()).collect()).collect();
        both::<f64, f64>(&c, &p, &packed, &fine, None, PASSRL_OK, &|_| ());
        both::<bf16, f64>(&c, &p, &padded, &inputs, None, PASSRL_OK, &|_| ());
        both::<f16, bf16>(&c, &p, &packed, &inputs, None, PASSRL_OK, &|_| ());
        both::<f32, f16>(&c, &p, &padded, &inputs, None, PASSRL_OK, &|_| ());
        for over in 0..p.inputs {
            both::<f32, f32>(&c, &p, &packed, &inputs, Some(over), PASSRL_OK, &|_| ());
            both::<f32, f32>(&c, &p, &padded, &inputs, Some(over), PASSRL_OK, &|_| ());
        }
        cudasim::seed(0);
    }
    assert_eq!(cudasim::report(), "");
}

#[test]
fn bad_values_and_absent_rollouts_have_the_bytes_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let (mut absent, mut out) = (vec![0u8; LENGTHS.len()], vec![1i32; LENGTHS.len()]);
    (absent[3], absent[8], out[5], out[7]) = (1, 1, 0, 0);
    let (absent, out) = (rig::line(&mut absent), rig::line(&mut out));
    for p in primitives() {
        for value in [f64::NAN, f64::NEG_INFINITY] {
            for at in 0..p.inputs {
                let mut inputs = inputs_of(&p, 40);
                (inputs[at][4][2], inputs[at][9][1]) = (value, value);
                both::<f32, f32>(&c, &p, &Place::new(Layout::Holes), &inputs, None, PASSRL_FINDING_NONFINITE, &|_| ());
            }
        }
        both::<f32, f32>(&c, &p, &Place::new(Layout::Packed), &inputs_of(&p, 50), None, PASSRL_OK, &|b| (b.absent, b.in_stats) = (&absent, &out));
    }
    assert_eq!(cudasim::report(), "");
}

/// Offsets that the host cannot see: nothing is read or written beyond, every slot is 0; then the same work from a graph, its offsets mended.
#[test]
fn offsets_that_do_not_fit_give_zeros_and_a_graph_replays() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let driver = device::driver().expect("a driver");
    let place = Place::new(Layout::Packed);
    for p in primitives() {
        let mut arrays: Vec<Vec<f32>> = inputs_of(&p, 60).iter().map(|d| place.scatter(d, f32::NAN)).collect();
        let mut results = vec![vec![7.0f32; place.slots]; p.outputs];
        let mut boot = vec![0.5f32; LENGTHS.len()];
        let good: Vec<i64> = place.cu.clone();
        for (at, bad) in [(2, -1), (4, 1 << 40), (LENGTHS.len(), place.slots as i64 + 1), (0, -3)] {
            let mut cu = good.clone();
            cu[at] = bad;
            let mut twins = Twins::default();
            let ins: Vec<*const passrl_view> = arrays.iter_mut().map(|a| twins.of(&place.view(a))).collect();
            let outs: Vec<*const passrl_view> = results.iter_mut().map(|a| twins.of(&place.view(a))).collect();
            let (offsets, boot) = (twins.of(&rig::line(&mut cu)), twins.of(&rig::line(&mut boot)));
            let b = passrl_batch { num_rollouts: LENGTHS.len() as i64, cu_seqlens: offsets, ..rig::batch() };
            let room = workspace(c.device, &place);
            let graph = Graph::capture(|stream| {
                assert_eq!((p.call)(c.device, &b, &ins, &outs, boot, room.pointer(), room.bytes, stream), PASSRL_OK, "{}: {}", p.name, last());
            });
            graph.replay();
            let read = |view: *const passrl_view| {
                // SAFETY: a view of `twins`.
                let at = unsafe { (*view).data.addr() } as u64;
                driver.download(at, place.slots * 4)
            };
            for view in &outs {
                assert!(read(*view).iter().all(|byte| *byte == 0), "{}: cu_seqlens[{at}] = {bad}", p.name);
            }
            // SAFETY: as above.
            driver.upload(unsafe { (*offsets).data.addr() } as u64, &good.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>());
            graph.replay();
            assert!(read(outs[0]).iter().any(|byte| *byte != 0), "{}", p.name);
        }
    }
    assert_eq!(cudasim::report(), "");
}

#[test]
fn what_does_not_fit_is_said() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let place = Place::new(Layout::Packed);
    let mut values = vec![0.0f32; place.slots];
    let mut twins = Twins::default();
    let x = twins.of(&place.view(&mut values));
    let host = place.view(&mut values);
    place.with_batch(|b| {
        let b = passrl_batch { cu_seqlens: twins.of(b.cu_seqlens), ..*b };
        let room = workspace(c.device, &place);
        // SAFETY: refused before anything is touched.
        unsafe {
            let status = passrl_discounted_returns(c.device, &b, 0.9, x, x, room.pointer(), 4096, null_mut());
            assert!(status == PASSRL_ERR_WORKSPACE && last().contains("workspace has"), "{status} {}", last());
            let status = passrl_discounted_returns(c.device, &b, 0.9, &host, x, room.pointer(), room.bytes, null_mut());
            assert!(status == PASSRL_ERR_DEVICE && last().contains("rewards is in host memory"), "{status} {}", last());
        }
    });
}

/// The table that a plan would have kept is made on the device: every entry is the host's, for rollouts of thousands of values and every kind of exponent.
#[test]
fn divisors_are_those_of_the_host() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let n = 6_000usize;
    let mut rng = cases::Rng(11);
    let mut x: Vec<f64> = (0..n).map(|_| rng.unit() * 8.0 - 4.0).collect();
    let (mut cu, mut host) = (vec![0i64, n as i64], vec![0.0f64; n]);
    let mut room = vec![both::Line([0; 64]); 40_000];
    let (xv, cv) = (rig::line(&mut x), rig::line(&mut cu));
    for k in [1e-3, 0.5, 0.7, 1.0, 1.3, 2.0, std::f64::consts::PI, 8.0] {
        let mut twins = Twins::default();
        let hv = rig::line(&mut host);
        let b = passrl_batch { num_rollouts: 1, cu_seqlens: &cv, ..rig::batch() };
        let twin = passrl_batch { cu_seqlens: twins.of(b.cu_seqlens), ..b };
        let (twin_x, twin_out) = (twins.of(&xv), twins.of(&hv));
        let device = Block::dirty(200_000, 0xa5);
        // SAFETY: live contexts, views of live memory of their places.
        unsafe {
            assert_eq!(passrl_divide_length(c.host, &b, k, &xv, &hv, room.as_mut_ptr().cast(), room.len() * 64, null_mut()), PASSRL_OK, "{}", last());
            assert_eq!(passrl_divide_length(c.device, &twin, k, twin_x, twin_out, device.pointer(), device.bytes, null_mut()), PASSRL_OK, "{}", last());
        }
        device::driver().expect("a driver").wait(null_mut());
        let got = twins.read(twin_out);
        let at = host.iter().flat_map(|x| x.to_ne_bytes()).zip(&got).position(|(a, b)| a != *b);
        assert!(at.is_none(), "k {k}: byte {at:?}");
    }
    assert_eq!(cudasim::report(), "");
}
