//! Primitives on groups of rollouts and on chunks in device memory (of the simulated driver) against the CPU's: every byte of every output and of the report, over random
//! groups, rows, findings, layouts and steps.
#[path = "primitives/both.rs"]
mod both;
#[path = "primitives/rig.rs"]
mod rig;
#[path = "cuda/world.rs"]
mod world;

use both::{Both, Line, Twins};
use cases::Rng;
use half::{bf16, f16};
use harness::device::{self, Block};
use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use rig::{Elem, Layout, Place, config, grid, last, line};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use testkit::{cases, harness};
use world::{Graph, simulated};

/// A call's arguments on one side; a view that is not wanted is NULL.
struct Side {
    context: *mut passrl_context,
    batch: passrl_batch,
    inputs: Vec<*const passrl_view>,
    outputs: Vec<*const passrl_view>,
    report: *mut passrl_report,
    workspace: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
}

type Call<'a> = &'a dyn Fn(&Side) -> i32;

/// Bytes of workspace that the limits of a batch ask for.
fn needed(context: *mut passrl_context, rollouts: usize, groups: usize, tokens: usize) -> usize {
    let limits = passrl_limits { rollouts: rollouts as i64, groups: groups as i64, tokens: tokens as i64, ..passrl_limits::defaults() };
    let mut bytes = 0;
    // SAFETY: a live context, a struct of the header.
    assert_eq!(unsafe { passrl_primitive_workspace_size(context, &limits, &mut bytes) }, PASSRL_OK, "{}", last());
    bytes
}

/// The bytes of a host view.
fn bytes_of(view: *const passrl_view, count: usize) -> Vec<u8> {
    // SAFETY: a dense view of the test's own memory, as many bytes as its twin has.
    unsafe { std::slice::from_raw_parts((*view).data.cast::<u8>(), count).to_vec() }
}

/// One call on both sides, the device first (in place the host's inputs change). Returns the host's status.
#[allow(clippy::too_many_arguments)]
fn same(c: &Both, what: &str, batch: &passrl_batch, groups: usize, inputs: &[passrl_view], outputs: &[Option<passrl_view>], reports: bool, tokens: usize, call: Call) -> i32 {
    let (driver, mut twins) = (device::driver().expect("a driver"), Twins::default());
    let rollouts = batch.num_rollouts as usize;
    let of = |views: &[Option<passrl_view>]| views.iter().map(|v| v.as_ref().map_or(null(), |v| &raw const *v)).collect::<Vec<_>>();
    let (ins, outs): (Vec<*const passrl_view>, _) = (inputs.iter().map(|v| &raw const *v).collect(), of(outputs));
    let room = Block::dirty(needed(c.device, rollouts, groups, tokens), 0xa5);
    let report = Block::dirty(size_of::<passrl_report>(), 0x5a);
    let stream = driver.stream();
    let there = Side {
        context: c.device,
        batch: twins.batch(batch),
        inputs: ins.iter().map(|v| twins.of(*v)).collect(),
        outputs: outs.iter().map(|v| twins.of(*v)).collect(),
        report: if reports { report.pointer().cast() } else { null_mut() },
        workspace: room.pointer(),
        bytes: room.bytes,
        stream,
    };
    assert_eq!(call(&there), PASSRL_OK, "{what}: {}", last());
    driver.wait(stream);
    driver.destroy_stream(stream);
    let mut host = vec![Line([0xa5; 64]); needed(c.host, rollouts, groups, tokens).div_ceil(64)];
    let mut here_report = passrl_report::defaults();
    let here = Side {
        context: c.host,
        batch: *batch,
        inputs: ins,
        outputs: outs,
        report: if reports { &mut here_report } else { null_mut() },
        bytes: host.len() * 64,
        workspace: host.as_mut_ptr().cast(),
        stream: null_mut(),
    };
    let status = call(&here);
    assert!(status >= 0, "{what}: {}", last());
    let said = last();
    for (o, (host, device)) in here.outputs.iter().zip(&there.outputs).enumerate().filter(|(_, (host, _))| !host.is_null()) {
        let device = twins.read(*device);
        let host = bytes_of(*host, device.len());
        let at = host.iter().zip(&device).position(|(a, b)| a != b);
        assert!(at.is_none(), "{what}: output {o} differs at byte {at:?} of {}; the host says {status} {said}", device.len());
    }
    if reports {
        let mut there_report = passrl_report::defaults();
        let judged = device::judged(&report, &mut there_report);
        let words = |r: &passrl_report| {
            [
                r.struct_size as i64, r.reserved0 as i64, r.findings, r.first_finding, r.first_rollout, r.first_group, r.first_stream, r.rollouts, r.tokens, r.chunks,
                r.degenerate_groups, r.bad_groups, r.violating_groups, r.missing_values, r.nonfinite_values, r.low_logps, r.clipped_tokens, r.overflowed_tokens,
                r.bad_steps, r.lost_deviations, r.sum_advantages.to_bits() as i64, r.sum_squares.to_bits() as i64,
            ]
        };
        assert_eq!(words(&there_report), words(&here_report), "{what}: report");
        assert_eq!(judged.0, status, "{what}: {} and {said}", judged.1);
    }
    status
}

/// Rollouts in groups, drawn: of each form, with groups of none and of one, flags, and values of which some are bad, equal or missing.
struct Drawn {
    rollouts: usize,
    groups: usize,
    index: Vec<i32>,
    offsets: Vec<i64>,
    in_stats: Vec<u8>,
    absent: Vec<u8>,
    ok: Vec<u8>,
    form: usize,
    gives: [bool; 3],
}

impl Drawn {
    fn new(rng: &mut Rng) -> Drawn {
        let form = rng.below(3);
        let groups = 1 + rng.below(9);
        let rollouts = if form == 2 { groups * (1 + rng.below(6)) } else { rng.below(40) };
        let index: Vec<i32> = (0..rollouts).map(|_| rng.below(groups) as i32).collect();
        let mut cuts: Vec<i64> = (1..groups).map(|_| rng.below(rollouts + 1) as i64).collect();
        cuts.sort();
        let offsets = [vec![0], cuts, vec![rollouts as i64]].concat();
        let mut some = |p: f64| (0..rollouts).map(|_| u8::from(rng.chance(p))).collect::<Vec<u8>>();
        let (in_stats, absent, ok) = (some(0.8), some(0.1), some(0.6));
        Drawn { rollouts, groups, index, offsets, in_stats, absent, ok, form, gives: [rng.chance(0.5), rng.chance(0.5), rng.chance(0.7)] }
    }

    /// Values with so many kinds of trouble.
    fn values<T: Elem>(&self, rng: &mut Rng, bad: bool) -> Vec<T> {
        let level = rng.below(4);
        let value = |rng: &mut Rng| match rng.below(30) {
            0 | 1 if bad => f64::NAN,
            2 if bad => f64::INFINITY,
            _ if level == 0 => 0.5,
            _ if level == 1 => rng.below(2) as f64,
            _ => rng.normal() * [1.0, 1e4][level - 2],
        };
        (0..self.rollouts).map(|_| T::of(value(rng))).collect()
    }

    fn with_batch<R>(&mut self, work: impl FnOnce(&mut passrl_batch) -> R) -> R {
        let (index, offsets) = (line(&mut self.index), line(&mut self.offsets));
        let (in_stats, absent) = (line(&mut self.in_stats), line(&mut self.absent));
        let mut b = passrl_batch { num_rollouts: self.rollouts as i64, ..rig::batch() };
        match self.form {
            0 => (b.group_index, b.num_groups) = (&index, self.groups as i64),
            1 => b.group_offsets = &offsets,
            _ => b.group_size = (self.rollouts / self.groups) as i64,
        }
        b.in_stats = if self.gives[0] { &in_stats } else { null() };
        b.absent = if self.gives[1] { &absent } else { null() };
        work(&mut b)
    }
}

fn row(rng: &mut Rng) -> passrl_stream {
    passrl_stream {
        center: rng.pick(&[PASSRL_CENTER_NONE, PASSRL_CENTER_GROUP, PASSRL_CENTER_LEAVE_ONE_OUT]),
        scale: rng.pick(&[PASSRL_SCALE_NONE, PASSRL_SCALE_GROUP, PASSRL_SCALE_LEAVE_ONE_OUT, PASSRL_SCALE_ABS_MAX]),
        epsilon_mode: rng.pick(&[PASSRL_EPSILON_ADD_STD, PASSRL_EPSILON_ADD_VAR, PASSRL_EPSILON_FLOOR_STD, PASSRL_EPSILON_FLOOR_VAR]),
        ddof: rng.below(2) as i32,
        loo_unit: rng.pick(&[PASSRL_LOO_ELEMENT, PASSRL_LOO_ROLLOUT]),
        singleton: rng.pick(&[PASSRL_SINGLETON_ZERO, PASSRL_SINGLETON_PASSTHROUGH, PASSRL_SINGLETON_REFUSE]),
        missing: rng.pick(&[PASSRL_MISSING_ERROR, PASSRL_MISSING_ZERO, PASSRL_MISSING_EXCLUDE]),
        ..config().streams[PASSRL_STREAM_OUTCOME]
    }
}

fn standardize_as<I: Elem, O: Elem>(c: &Both, rng: &mut Rng, what: &str, in_place: bool) -> i32 {
    let mut drawn = Drawn::new(rng);
    let (row, bad) = (row(rng), rng.chance(0.5));
    let mut x = drawn.values::<I>(rng, bad);
    let (rollouts, groups) = (drawn.rollouts, drawn.groups);
    let (mut out, mut count) = (vec![O::of(7.0); rollouts], vec![-7i64; groups]);
    let mut stats = vec![[-7.0f64; 1]; 3 * groups];
    let (mean, rest) = stats.as_flattened_mut().split_at_mut(groups);
    let (std, absmax) = rest.split_at_mut(groups);
    let xv = line(&mut x);
    let outs = [Some(if in_place { xv } else { line(&mut out) }), Some(line(&mut count)), Some(line(mean)), Some(line(std)), Some(line(absmax))];
    // Each of them may be left out; not all.
    let left_out = rng.below(8);
    let outs = std::array::from_fn::<_, 5, _>(|i| outs[i].filter(|_| i != left_out));
    let what = format!("{what}, {rollouts} rollouts in {groups} groups, {row:?}");
    drawn.with_batch(|b| {
        same(c, &what, b, groups, &[xv], &outs, false, 0, &|s: &Side| {
            // SAFETY: live contexts, views of live memory of their places; likewise below.
            unsafe {
                let o = &s.outputs;
                passrl_group_standardize(s.context, &s.batch, &row, s.inputs[0], o[0], o[1], o[2], o[3], o[4], s.workspace, s.bytes, s.stream)
            }
        })
    })
}

#[test]
fn standardised_groups_have_the_bytes_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let (mut rng, mut found) = (Rng(1), [0; 2]);
    for n in 0..120 {
        cudasim::seed(n % 5);
        let what = format!("case {n}");
        let status = match n % 6 {
            0 => standardize_as::<f64, f64>(&c, &mut rng, &what, false),
            1 => standardize_as::<bf16, f16>(&c, &mut rng, &what, false),
            2 => standardize_as::<f16, bf16>(&c, &mut rng, &what, false),
            3 => standardize_as::<f32, f32>(&c, &mut rng, &what, true),
            4 => standardize_as::<f64, f64>(&c, &mut rng, &what, true),
            _ => standardize_as::<f32, f64>(&c, &mut rng, &what, false),
        };
        found[usize::from(status > 0)] += 1;
    }
    cudasim::seed(0);
    assert!(found.iter().all(|n| *n > 20), "without and with findings: {found:?}");
    assert_eq!(cudasim::report(), "");
}

#[test]
fn flags_and_reports_have_the_bytes_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let (mut rng, mut found) = (Rng(2), [0; 2]);
    for n in 0..120 {
        cudasim::seed(n % 5);
        let mut drawn = Drawn::new(&mut rng);
        let extra = rng.below(3);
        let mut k = passrl_config { num_extra: extra as i32, kind: rng.pick(&[PASSRL_KIND_PRM, PASSRL_KIND_NONE]), ..config() };
        k.streams.iter_mut().skip(PASSRL_STREAM_OUTCOME).for_each(|s| *s = row(&mut rng));
        let bad = rng.chance(0.5);
        let (mut outcome, mut format) = (drawn.values::<f32>(&mut rng, bad), drawn.values::<bf16>(&mut rng, bad));
        let mut extras: Vec<Vec<f64>> = (0..extra).map(|_| drawn.values(&mut rng, bad)).collect();
        let (rollouts, groups, ok) = (drawn.rollouts, drawn.groups, drawn.gives[2]);
        let (mut flags, mut own) = (vec![-7i32; 16 * groups], vec![-7i32; rollouts]);
        let (fv, ov) = (grid(&mut flags, groups, 16), line(&mut own));
        let (out_v, format_v) = (line(&mut outcome), line(&mut format));
        let extra_v: Vec<passrl_view> = extras.iter_mut().map(|x| line(x)).collect();
        let mut ok_line = drawn.ok.clone();
        let ok_v = line(&mut ok_line);
        let (outs, reports) = ([Some(fv), Some(ov).filter(|_| n % 7 != 0)], n % 11 != 0);
        let with_format = ok || rng.chance(0.5);
        let status = drawn.with_batch(|b| {
            b.outcome = &out_v;
            b.format = if with_format { &format_v } else { null() };
            b.format_ok = if ok { &ok_v } else { null() };
            extra_v.iter().enumerate().for_each(|(x, v)| b.extra[x] = v);
            let what = format!("case {n}: {rollouts} rollouts in {groups} groups, {extra} extra");
            // SAFETY: the side's own context, structs and memory.
            same(&c, &what, b, groups, &[], &outs, reports, 0, &|s: &Side| unsafe {
                passrl_group_flags(s.context, &s.batch, &k, s.outputs[0], s.outputs[1], s.report, s.workspace, s.bytes, s.stream)
            })
        });
        found[usize::from(status > 0)] += 1;
    }
    cudasim::seed(0);
    assert!(found.iter().all(|n| *n > 20), "without and with findings: {found:?}");
    assert_eq!(cudasim::report(), "");
}

/// Steps of every rollout of a place: in order inside its extent, now and then beyond it or none.
struct Steps {
    offsets: Vec<i64>,
    ends: Vec<i32>,
    begins: Vec<i32>,
    scores: Vec<f32>,
}

fn steps(rng: &mut Rng, extents: &[usize], bad: bool) -> Steps {
    let mut s = Steps { offsets: vec![0], ends: vec![], begins: vec![], scores: vec![] };
    for len in extents {
        let mut t = 0;
        while t < *len && !rng.chance(0.08) {
            let begin = (t + rng.below(3)).min(*len);
            t = (begin + rng.below(7)).min(*len);
            s.begins.push(begin as i32);
            s.ends.push(t as i32);
            s.scores.push(if bad && rng.chance(0.05) { f32::NAN } else { rng.pick(&[0.5, 0.5, -1.0, 0.25]) });
        }
        if bad && rng.chance(0.1) {
            s.begins.push(0);
            s.ends.push(*len as i32 + 3);
            s.scores.push(1.0);
        }
        s.offsets.push(s.ends.len() as i64);
    }
    s
}

#[test]
fn chunk_boundaries_have_the_bytes_of_the_cpu() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let (mut rng, mut found) = (Rng(3), [0; 2]);
    for n in 0..144usize {
        let place = Place::new(Layout::ALL[n % 8]);
        let rollouts = rig::LENGTHS.len();
        let extents: Vec<usize> = match (place.row, place.layout) {
            (0, _) => place.cu.windows(2).map(|w| (w[1] - w[0]) as usize).collect(),
            (row, Layout::Mask) => vec![row; rollouts],
            _ => place.lengths.iter().map(|l| *l as usize).collect(),
        };
        let mut k = passrl_config { eta: rng.pick(&[1e-8, 0.3]), ..config() };
        k.boundary_rule = rng.pick(&[PASSRL_BOUNDARY_ADJACENT, PASSRL_BOUNDARY_ANCHORED]);
        (k.merge_equal_steps, k.bridge_scope_gaps) = (rng.below(2) as i32, rng.below(2) as i32);
        k.streams[0].missing = rng.pick(&[PASSRL_MISSING_ERROR, PASSRL_MISSING_ZERO, PASSRL_MISSING_EXCLUDE]);
        // Dense, dense with ends, dense with begins, scores, scores with begins.
        let (form, bad) = (n / 8 % 5, rng.chance(0.5));
        let mut coarse = rig::data(n as u64 + 70);
        coarse.iter_mut().flatten().for_each(|x| *x = if bad && rng.chance(0.02) { rng.pick(&[f64::NAN, f64::INFINITY]) } else { (*x / 4.0).round() / 4.0 });
        let mut signal = place.scatter::<f32>(&coarse, f32::NAN);
        let mut s = steps(&mut rng, &extents, bad);
        let signal_v = place.view(&mut signal);
        let (so, se, sb, ss) = (line(&mut s.offsets), line(&mut s.ends), line(&mut s.begins), line(&mut s.scores));
        let mut absent: Vec<u8> = (0..rollouts).map(|_| u8::from(rng.chance(0.1))).collect();
        let absent = line(&mut absent);
        let (mut counts, mut ends) = (vec![-7i64; rollouts], vec![-7i32; place.slots]);
        let outs = [Some(line(&mut counts)).filter(|_| n % 9 != 4), Some(place.view(&mut ends)).filter(|_| n % 9 != 5)];
        let status = place.with_batch(|b| {
            let mut b = *b;
            b.absent = &absent;
            if form < 3 {
                b.signal[0] = &signal_v;
            } else {
                b.step_scores = &ss;
                b.row_tokens = place.row as i64;
            }
            if form > 0 {
                (b.step_offsets, b.step_ends) = (&so, &se);
                b.step_begins = if form == 2 || form == 4 { &sb } else { null() };
            }
            if outs[1].is_none() && form > 2 && b.mask.is_null() && place.row == 0 {
                return PASSRL_OK;
            }
            let what = format!("case {n}: {:?}, form {form}, rule {}, missing {}", place.layout, k.boundary_rule, k.streams[0].missing);
            // SAFETY: the side's own context, structs and memory.
            same(&c, &what, &b, 1, &[], &outs, false, place.slots, &|s: &Side| unsafe {
                passrl_chunk_boundaries(s.context, &s.batch, &k, s.outputs[0], s.outputs[1], s.workspace, s.bytes, s.stream)
            })
        });
        found[usize::from(status > 0)] += 1;
    }
    assert!(found.iter().all(|n| *n > 20), "without and with findings: {found:?}");
    assert_eq!(cudasim::report(), "");
}

/// Offsets and indices that the host cannot see: nothing is read or written beyond, what they concern is 0; then the same work from a graph, the data mended.
#[test]
fn offsets_that_do_not_fit_give_zeros_and_a_graph_replays() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let driver = device::driver().expect("a driver");
    let (mut x, mut good, mut out, mut count) = (vec![1.0f32, 3.0, 2.0, 5.0], vec![0i64, 2, 4], vec![7.0f32; 4], vec![-7i64; 2]);
    let mut flags = vec![-7i32; 32];
    let row = config().streams[PASSRL_STREAM_OUTCOME];
    for (at, bad) in [(1, -1), (1, 9), (2, 3), (0, 1)] {
        let mut offsets = good.clone();
        offsets[at] = bad;
        let mut twins = Twins::default();
        let b = passrl_batch { num_rollouts: 4, group_offsets: twins.of(&line(&mut offsets)), outcome: twins.of(&line(&mut x)), ..rig::batch() };
        let (xt, ot, ct, ft) = (b.outcome, twins.of(&line(&mut out)), twins.of(&line(&mut count)), twins.of(&grid(&mut flags, 2, 16)));
        let (room, report) = (Block::dirty(needed(c.device, 4, 2, 0), 0x11), Block::dirty(size_of::<passrl_report>(), 0x11));
        let k = config();
        // SAFETY: structs and memory of this test, alive until the graph is destroyed.
        let graph = Graph::capture(|stream| unsafe {
            let (w, n) = (room.pointer(), room.bytes);
            // SAFETY: live context, views of live device memory.
            assert_eq!(passrl_group_standardize(c.device, &b, &row, xt, ot, ct, null(), null(), null(), w, n, stream), PASSRL_OK, "{}", last());
            assert_eq!(passrl_group_flags(c.device, &b, &k, ft, null(), report.pointer().cast(), w, n, stream), PASSRL_OK, "{}", last());
        });
        graph.replay();
        assert!(twins.read(ot).iter().chain(&twins.read(ct)).all(|byte| *byte == 0), "group_offsets[{at}] = {bad}");
        assert_eq!(twins.read(ft)[..4], PASSRL_GROUP_BAD.to_ne_bytes(), "group_offsets[{at}] = {bad}");
        assert_eq!(device::judged(&report, &mut passrl_report::defaults()).0, PASSRL_FINDING_BAD_OFFSETS);
        twins.fill(b.group_offsets, &good.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>());
        graph.replay();
        assert_eq!(twins.read(ct), [2i64, 2].map(i64::to_ne_bytes).concat());
        assert_eq!(device::judged(&report, &mut passrl_report::defaults()).0, PASSRL_OK);
    }
    // An index out of range concerns its rollout alone.
    good.clear();
    let mut index = vec![0i32, 0, 7, 1];
    let mut twins = Twins::default();
    let b = passrl_batch { num_rollouts: 4, num_groups: 2, group_index: twins.of(&line(&mut index)), ..rig::batch() };
    let (xt, ot, ct) = (twins.of(&line(&mut x)), twins.of(&line(&mut out)), twins.of(&line(&mut count)));
    let room = Block::dirty(needed(c.device, 4, 2, 0), 0x11);
    let stream = driver.stream();
    cudasim::reset();
    // SAFETY: as above.
    unsafe {
        assert_eq!(passrl_group_standardize(c.device, &b, &row, xt, ot, ct, null(), null(), null(), room.pointer(), room.bytes, stream), PASSRL_OK, "{}", last());
    }
    // A call is a push, a memset, four launches and a pop.
    let trace = cudasim::trace();
    assert_eq!(trace, ["cuCtxPushCurrent_v2", "cuMemsetD8Async", "cuLaunchKernel", "cuLaunchKernel", "cuLaunchKernel", "cuLaunchKernel", "cuCtxPopCurrent_v2"]);
    driver.wait(stream);
    driver.destroy_stream(stream);
    assert_eq!(twins.read(ct), [2i64, 1].map(i64::to_ne_bytes).concat());
    let advantages: Vec<f32> = twins.read(ot).chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().expect("four"))).collect();
    assert!(advantages[0] < 0.0 && advantages[1] > 0.0 && advantages[2..] == [0.0, 0.0], "{advantages:?}");
    assert_eq!(cudasim::report(), "");
}

#[test]
fn chunks_of_offsets_that_do_not_fit_are_none() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let (mut signal, mut k) = (vec![1.0f32, 1.0, 2.0, 2.0, 3.0, 3.0], vec![-7i64; 2]);
    let (mut offsets, mut ends) = (vec![0i64, 1, 2], vec![2i32, 99]);
    for (cu, expected) in [(vec![0i64, 3, 9], [0i64, 0]), (vec![0, 4, 2], [0, 0]), (vec![0, 3, 6], [2, 0])] {
        let mut cu = cu;
        let mut twins = Twins::default();
        let mut b = passrl_batch { num_rollouts: 2, cu_seqlens: twins.of(&line(&mut cu)), ..rig::batch() };
        b.signal[0] = twins.of(&line(&mut signal));
        // Steps of the second rollout lie beyond it.
        (b.step_offsets, b.step_ends) = (twins.of(&line(&mut offsets)), twins.of(&line(&mut ends)));
        let (kt, room) = (twins.of(&line(&mut k)), Block::dirty(needed(c.device, 2, 1, 6), 0x11));
        // SAFETY: live context, views of live device memory.
        let status = unsafe { passrl_chunk_boundaries(c.device, &b, &config(), kt, null(), room.pointer(), room.bytes, null_mut()) };
        assert_eq!(status, PASSRL_OK, "{}", last());
        device::driver().expect("a driver").wait(null_mut());
        assert_eq!(twins.read(kt), expected.map(i64::to_ne_bytes).concat(), "{cu:?}");
    }
    // Nothing says how many slots there are.
    let mut twins = Twins::default();
    let (mut cu, mut scores) = (vec![0i64, 3, 6], vec![0.5f32, 1.0]);
    let b = passrl_batch {
        num_rollouts: 2,
        cu_seqlens: twins.of(&line(&mut cu)),
        step_offsets: twins.of(&line(&mut offsets)),
        step_ends: twins.of(&line(&mut ends)),
        step_scores: twins.of(&line(&mut scores)),
        ..rig::batch()
    };
    let kt = twins.of(&line(&mut k));
    // SAFETY: as above; refused.
    let status = unsafe { passrl_chunk_boundaries(c.device, &b, &config(), kt, null(), null_mut(), 0, null_mut()) };
    assert!(status == PASSRL_ERR_NULL && last().contains("how many token slots"), "{status} {}", last());
    assert_eq!(cudasim::report(), "");
}

/// More rollouts than the exact sums of a group allow: nothing is known of the set, as on the CPU.
#[test]
fn a_group_that_is_too_large_is_told() {
    let Some(_lock) = simulated() else { return };
    let c = Both::new();
    let rollouts = (1 << 17) + 1;
    let (mut x, mut index) = (vec![0.5f32; rollouts], vec![0i32; rollouts]);
    index[rollouts - 1] = 1;
    let (mut flags, mut count, mut mean) = (vec![-7i32; 32], vec![-7i64; 2], vec![-7.0f64; 2]);
    let (xv, iv) = (line(&mut x), line(&mut index));
    let b = passrl_batch { num_rollouts: rollouts as i64, num_groups: 2, group_index: &iv, outcome: &xv, ..rig::batch() };
    let row = config().streams[PASSRL_STREAM_OUTCOME];
    let outs = [Some(line(&mut count)), Some(line(&mut mean))];
    // SAFETY: the side's own context, structs and memory.
    let status = same(&c, "statistics", &b, 2, &[xv], &outs, false, 0, &|s: &Side| unsafe {
        passrl_group_standardize(s.context, &s.batch, &row, s.inputs[0], null(), s.outputs[0], s.outputs[1], null(), null(), s.workspace, s.bytes, s.stream)
    });
    assert_eq!(status, PASSRL_FINDING_TOO_LARGE);
    let k = config();
    let outs = [Some(grid(&mut flags, 2, 16))];
    // SAFETY: the side's own context, structs and memory.
    same(&c, "flags", &b, 2, &[], &outs, true, 0, &|s: &Side| unsafe {
        passrl_group_flags(s.context, &s.batch, &k, s.outputs[0], null(), s.report, s.workspace, s.bytes, s.stream)
    });
    assert_eq!(cudasim::report(), "");
}
