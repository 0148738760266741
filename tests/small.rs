//! Small batches through the C functions of the crate itself, everything asked for: every kind of signal, packed and padded, with one thread and two. The
//! bits are those of the other layout and thread count. `make miri` runs this under Miri, which sees undefined behaviour that no value shows.
use passrl::abi::constants::*;
use passrl::abi::context::*;
use passrl::abi::plan::*;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use passrl::abi::util::passrl_last_error;
use std::ptr::null;

const LENGTHS: [usize; 4] = [9, 0, 35, 3];
const ROW: usize = 36;

fn view<T>(data: &mut [T], dtype: i32, columns: usize) -> passrl_view {
    let n = data.len() as i64;
    let (shape, stride, ndim) = if columns > 0 { ([n / columns as i64, columns as i64], [columns as i64, 1], 2) } else { ([n, 1], [1, 1], 1) };
    passrl_view { data: data.as_mut_ptr().cast(), shape, stride, ndim, dtype, device_type: PASSRL_CPU, device_id: 0 }
}

fn ok(status: i32) {
    // SAFETY: zero-terminated, this thread's.
    assert!(status >= 0, "{status}: {:?}", unsafe { std::ffi::CStr::from_ptr(passrl_last_error()) });
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Dense,
    Steps,
    Kl,
    Opd,
}

/// Advantages by rollout, and the chunk counts.
fn run(kind: Kind, padded: bool, threads: i32, whiten: i32) -> (Vec<Vec<u32>>, Vec<i64>) {
    let columns = if padded { ROW } else { 0 };
    let begins: Vec<usize> = (0..4).map(|i| if padded { i * ROW } else { LENGTHS[..i].iter().sum() }).collect();
    let slots = if padded { 4 * ROW } else { LENGTHS.iter().sum() };
    let token = |i: usize, t: usize, salt: usize| ((i * 31 + t / 4 * 7 + salt) % 11) as f64 * 0.25 - 1.0;
    let mut dense = vec![f32::NAN; slots];
    let (mut policy, mut teacher, mut mask) = (vec![f64::NAN; slots], vec![f64::NAN; slots], vec![1u8; slots]);
    for i in 0..4 {
        for t in 0..LENGTHS[i] {
            let at = begins[i] + t;
            (dense[at], policy[at], teacher[at], mask[at]) = (token(i, t, 0) as f32, token(i, t, 1), token(i, t, 2), u8::from(t % 13 != 5));
        }
    }
    let mut cu = [0i64, 9, 9, 44, 47];
    let mut lengths = LENGTHS.map(|n| n as i32);
    let (mut offsets, mut ends, mut scores) = ([0i64, 2, 2, 5, 6], [4i64, 9, 10, 20, 35, 3], [1.0f32, -1.0, 0.5, 0.25, f32::MIN_POSITIVE, 2.0]);
    let (mut outcome, mut index) = ([1.0f32, 0.0, 0.5, 0.0], [0i32, 1, 0, 1]);
    let (mut advantages, mut returns, mut values) = (vec![7.0f32; slots], vec![7.0f64; slots], vec![7.0f32; slots]);
    let (mut chunks, mut chunk_ends, mut paths) = ([0i64; 4], vec![0i32; slots], [0.0f64; 4]);
    let (mut group_flags, mut means) = (vec![0i32; 32], vec![0.0f64; 32]);
    let v = [
        view(&mut cu, PASSRL_I64, 0),
        view(&mut lengths, PASSRL_I32, 0),
        view(&mut mask, PASSRL_U8, columns),
        view(&mut dense, PASSRL_F32, columns),
        view(&mut policy, PASSRL_F64, columns),
        view(&mut teacher, PASSRL_F64, columns),
        view(&mut offsets, PASSRL_I64, 0),
        view(&mut ends, PASSRL_I64, 0),
        view(&mut scores, PASSRL_F32, 0),
        view(&mut outcome, PASSRL_F32, 0),
        view(&mut index, PASSRL_I32, 0),
    ];
    let o = [
        view(&mut advantages, PASSRL_F32, columns),
        view(&mut returns, PASSRL_F64, columns),
        view(&mut values, PASSRL_F32, columns),
        view(&mut chunks, PASSRL_I64, 0),
        view(&mut chunk_ends, PASSRL_I32, columns),
        view(&mut paths, PASSRL_F64, 0),
        view(&mut group_flags, PASSRL_I32, PASSRL_MAX_STREAMS),
        view(&mut means, PASSRL_F64, PASSRL_MAX_STREAMS),
    ];
    let mut report = passrl_report::defaults();
    let mut b = passrl_batch { num_rollouts: 4, num_groups: 2, group_index: &v[10], mask: &v[2], outcome: &v[9], ..passrl_batch::defaults() };
    if padded {
        (b.layout, b.lengths) = (PASSRL_PADDED, &v[1]);
    } else {
        b.cu_seqlens = &v[0];
    }
    match kind {
        Kind::Dense | Kind::Kl => b.signal[0] = &v[3],
        Kind::Steps => (b.step_offsets, b.step_ends, b.step_scores) = (&v[6], &v[7], &v[8]),
        Kind::Opd => (b.logp_policy, b.logp_teacher) = (&v[4], &v[5]),
    }
    let outputs = passrl_outputs {
        advantages: &o[0],
        returns: &o[1],
        chunk_values: &o[2],
        num_chunks: &o[3],
        chunk_ends: &o[4],
        path_scores: &o[5],
        group_flags: &o[6],
        stats_mean: &o[7],
        report: &mut report,
        ..passrl_outputs::defaults()
    };
    let mut config = passrl_config::defaults();
    (config.kind, config.whiten) = (if matches!(kind, Kind::Kl | Kind::Opd) { PASSRL_KIND_KL } else { PASSRL_KIND_PRM }, whiten);
    let limits = passrl_limits { rollouts: 4, groups: 2, tokens: 4 * ROW as i64, rollout_tokens: ROW as i64, steps: 8, ..passrl_limits::defaults() };
    let options = passrl_context_options { threads, small_call_bytes: 0, ..passrl_context_options::defaults() };
    let (mut context, mut plan, mut bytes) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: structs and views of live memory; handles given back once.
    unsafe {
        ok(passrl_context_create(&options, &mut context));
        ok(passrl_plan_create(context, &config, &limits, null(), &mut plan));
        ok(passrl_plan_workspace_size(plan, &mut bytes));
        let mut workspace = vec![[0xa5a5_a5a5_a5a5_a5a5u64; 8]; bytes / 64 + 2];
        let start = workspace.as_mut_ptr().cast::<u8>();
        let start = start.add(start.align_offset(64));
        ok(passrl_plan_run(plan, &b, &outputs, start.cast(), bytes, std::ptr::null_mut()));
        passrl_plan_destroy(plan);
        passrl_context_destroy(context);
    }
    let bits = (0..4).map(|i| advantages[begins[i]..begins[i] + LENGTHS[i]].iter().map(|a| a.to_bits()).collect()).collect();
    (bits, chunks.to_vec())
}

#[test]
fn small_batches_in_either_layout_and_with_threads() {
    // Miri takes a minute or more for each.
    let (kinds, whitens) = if cfg!(miri) { (2, 1) } else { (4, 2) };
    for kind in [Kind::Steps, Kind::Opd, Kind::Dense, Kind::Kl].into_iter().take(kinds) {
        for whiten in [PASSRL_WHITEN_NONE, PASSRL_WHITEN_TOKENS].into_iter().take(whitens) {
            let alone = run(kind, false, 1, whiten);
            assert!(alone.0.iter().flatten().any(|bits| f32::from_bits(*bits) != 0.0));
            assert!(alone == run(kind, true, 1, whiten), "padded");
            assert!(alone == run(kind, whiten == PASSRL_WHITEN_NONE, 2, whiten), "two threads");
        }
    }
}
