//! The primitives on groups of rollouts and on chunks: against plain f64 loops and against a run of the pipeline.
#[path = "primitives/rig.rs"]
mod rig;

use half::{bf16, f16};
use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use passrl::numerics::convert::OutElem;
use rig::*;
use std::ptr::{null, null_mut};

const R: usize = 23;
const G: usize = 7;

fn rewards(seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..R)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) % 64) as f64 / 8.0 - 3.0
        })
        .collect()
}

/// Group 0 has one rollout, group 1 none, group 2 equal values, the rest what is left, in a mixed order.
fn groups() -> Vec<i32> {
    (0..R)
        .map(|i| match i {
            4 => 0,
            1 | 9 | 20 => 2,
            i => 3 + (i * 5 % 4) as i32,
        })
        .collect()
}

fn outcome(seed: u64) -> Vec<f64> {
    let mut x = rewards(seed);
    groups().iter().zip(&mut x).filter(|(g, _)| **g == 2).for_each(|(_, x)| *x = 0.98);
    x
}

fn typed<T: Elem>(x: &[f64]) -> Vec<T> {
    x.iter().map(|x| T::of(*x)).collect()
}

fn stream(center: i32, scale: i32) -> passrl_stream {
    passrl_stream { center, scale, ..config().streams[PASSRL_STREAM_OUTCOME] }
}

struct Stats {
    count: Vec<i64>,
    mean: Vec<f64>,
    std: Vec<f64>,
    absmax: Vec<f64>,
}

fn standardize(rig: &Rig, b: &passrl_batch, row: &passrl_stream, x: &passrl_view, out: &passrl_view) -> (i32, Stats) {
    let mut s = Stats { count: vec![-1; G], mean: vec![-1.0; G], std: vec![-1.0; G], absmax: vec![-1.0; G] };
    let (c, m, d, a) = (line(&mut s.count), line(&mut s.mean), line(&mut s.std), line(&mut s.absmax));
    let status = unsafe { passrl_group_standardize(rig.context, b, row, x, out, &c, &m, &d, &a, rig.ws(), rig.bytes(), null_mut()) };
    (status, s)
}

fn operators() -> Vec<passrl_stream> {
    let mut all = Vec::new();
    for center in [PASSRL_CENTER_NONE, PASSRL_CENTER_GROUP, PASSRL_CENTER_LEAVE_ONE_OUT] {
        for scale in [PASSRL_SCALE_NONE, PASSRL_SCALE_GROUP, PASSRL_SCALE_LEAVE_ONE_OUT, PASSRL_SCALE_ABS_MAX] {
            for epsilon_mode in [PASSRL_EPSILON_ADD_STD, PASSRL_EPSILON_ADD_VAR, PASSRL_EPSILON_FLOOR_STD, PASSRL_EPSILON_FLOOR_VAR] {
                for (ddof, singleton) in [(1, PASSRL_SINGLETON_ZERO), (0, PASSRL_SINGLETON_PASSTHROUGH)] {
                    all.push(passrl_stream { epsilon_mode, ddof, singleton, epsilon: 1e-3, ..stream(center, scale) });
                }
            }
        }
    }
    all
}

/// N(x; S) in f64; `others`: the set without x, which is in it.
fn plain(row: &passrl_stream, x: f64, set: &[f64], me: Option<usize>) -> f64 {
    let std_of = |s: &[f64]| {
        let mean = s.iter().sum::<f64>() / s.len() as f64;
        let var = s.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (s.len() as f64 - row.ddof as f64);
        let e = row.epsilon;
        match row.epsilon_mode {
            PASSRL_EPSILON_ADD_STD => var.sqrt() + e,
            PASSRL_EPSILON_ADD_VAR => (var + e).sqrt(),
            PASSRL_EPSILON_FLOOR_STD => var.sqrt().max(e),
            _ => var.max(e).sqrt(),
        }
    };
    let equal = |s: &[f64]| s.iter().all(|x| *x == s[0]);
    let mut others = set.to_vec();
    if let Some(me) = me {
        others.remove(me);
    }
    let plain_op = row.center == PASSRL_CENTER_NONE && matches!(row.scale, PASSRL_SCALE_NONE | PASSRL_SCALE_ABS_MAX);
    let single = if row.singleton == PASSRL_SINGLETON_PASSTHROUGH { x } else { 0.0 };
    if set.is_empty() {
        return 0.0;
    }
    if set.len() == 1 && !plain_op {
        return single;
    }
    let most = set.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    if (row.scale == PASSRL_SCALE_GROUP && equal(set))
        || (row.scale == PASSRL_SCALE_ABS_MAX && most == 0.0)
        || (row.scale == PASSRL_SCALE_LEAVE_ONE_OUT && equal(&others))
    {
        return 0.0;
    }
    let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len() as f64;
    let shift = match row.center {
        PASSRL_CENTER_NONE => 0.0,
        PASSRL_CENTER_GROUP => mean(set),
        _ => mean(&others),
    };
    let divisor = match row.scale {
        PASSRL_SCALE_NONE => 1.0,
        PASSRL_SCALE_GROUP => std_of(set),
        PASSRL_SCALE_LEAVE_ONE_OUT => std_of(&others),
        _ => most,
    };
    (x - shift) / divisor
}

#[test]
fn every_operator_is_the_plain_loop_and_the_pipeline() {
    let rig = Rig::new();
    let index = groups();
    let x = outcome(1);
    let out_of_stats = [6usize, 11];
    for row in operators() {
        for loo_unit in [PASSRL_LOO_ELEMENT, PASSRL_LOO_ROLLOUT] {
            let row = passrl_stream { loo_unit, ..row };
            let (mut xs, mut out, mut of) = (typed::<f32>(&x), vec![f64::NAN; R], index.clone());
            let mut in_stats: Vec<u8> = (0..R).map(|i| u8::from(!out_of_stats.contains(&i))).collect();
            let (xv, ov, gv, sv) = (line(&mut xs), line(&mut out), line(&mut of), line(&mut in_stats));
            let b = passrl_batch { num_rollouts: R as i64, num_groups: G as i64, group_index: &gv, in_stats: &sv, ..batch() };
            let (status, stats) = standardize(&rig, &b, &row, &xv, &ov);
            assert_eq!(status, PASSRL_OK, "{}", last());
            for g in 0..G {
                let members: Vec<usize> = (0..R).filter(|i| index[*i] as usize == g && !out_of_stats.contains(i)).collect();
                let set: Vec<f64> = members.iter().map(|i| xs[*i] as f64).collect();
                assert_eq!(stats.count[g], set.len() as i64);
                let mean = if set.is_empty() { 0.0 } else { set.iter().sum::<f64>() / set.len() as f64 };
                assert!((stats.mean[g] - mean).abs() < 1e-12);
                assert_eq!(stats.absmax[g], set.iter().fold(0.0, |m, x| x.abs().max(m)));
                let var: f64 = set.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (set.len() as f64 - row.ddof as f64).max(1.0);
                assert!((stats.std[g] - if set.len() > 1 { var.sqrt() } else { 0.0 }).abs() < 1e-7, "{} {}", stats.std[g], var.sqrt());
                for i in (0..R).filter(|i| index[*i] as usize == g) {
                    let wanted = plain(&row, xs[i] as f64, &set, members.iter().position(|m| *m == i));
                    assert!((out[i] - wanted).abs() <= 1e-9 * (1.0 + wanted.abs()), "{row:?} rollout {i}: {} {wanted}", out[i]);
                }
            }
            // Statistics alone.
            let mut alone = vec![-1i64; G];
            let counts = line(&mut alone);
            let n = null();
            assert_eq!(
                unsafe { passrl_group_standardize(rig.context, &b, &row, &xv, n, &counts, n, n, n, rig.ws(), rig.bytes(), null_mut()) },
                PASSRL_OK
            );
            assert_eq!(alone, stats.count);
            // The pipeline on tokens of its own: outcome alone, undivided.
            let mut c = config();
            (c.kind, c.k) = (PASSRL_KIND_NONE, 0.0);
            c.streams[PASSRL_STREAM_OUTCOME] = row;
            let (mut cu, mut advantages) = ((0..=R as i32).collect::<Vec<_>>(), vec![f64::NAN; R]);
            let (cu, av) = (line(&mut cu), line(&mut advantages));
            let whole = passrl_batch { cu_seqlens: &cu, outcome: &xv, ..b };
            let (mut n, mut m, mut d, mut a) = (vec![-1i64; G * 16], vec![-1.0f64; G * 16], vec![-1.0f64; G * 16], vec![-1.0f64; G * 16]);
            let (nv, mv, dv, sa) = (grid(&mut n, G, 16), grid(&mut m, G, 16), grid(&mut d, G, 16), grid(&mut a, G, 16));
            let o = passrl_outputs {
                advantages: &av,
                stats_count: &nv,
                stats_mean: &mv,
                stats_std: &dv,
                stats_absmax: &sa,
                ..passrl_outputs::defaults()
            };
            assert_eq!(rig.pipeline_with(&c, &whole, &o), PASSRL_OK, "{}", last());
            assert!(advantages.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits()), "{row:?}\n{advantages:?}\n{out:?}");
            for g in 0..G {
                let at = g * 16 + PASSRL_STREAM_OUTCOME;
                assert_eq!(
                    (n[at], m[at].to_bits(), d[at].to_bits(), a[at]),
                    (stats.count[g], stats.mean[g].to_bits(), stats.std[g].to_bits(), stats.absmax[g])
                );
            }
        }
    }
}

#[test]
fn ways_to_group_types_and_places_agree() {
    let rig = Rig::new();
    let row = stream(PASSRL_CENTER_GROUP, PASSRL_SCALE_GROUP);
    let x = rewards(3);
    let n = 20usize;
    let run = |b: &passrl_batch, xs: &mut [f32]| {
        let (xv, mut out) = (line(xs), vec![f32::NAN; xs.len()]);
        let ov = line(&mut out);
        let status = unsafe {
            passrl_group_standardize(rig.context, b, &row, &xv, &ov, null(), null(), null(), null(), rig.ws(), rig.bytes(), null_mut())
        };
        assert_eq!(status, PASSRL_OK, "{}", last());
        out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let mut xs = typed::<f32>(&x[..n]);
    let base = passrl_batch { num_rollouts: n as i64, ..batch() };
    let constant = run(&passrl_batch { group_size: 5, ..base }, &mut xs);
    let mut offsets = vec![0i64, 5, 10, 15, 20];
    let ov = line(&mut offsets);
    assert_eq!(run(&passrl_batch { group_offsets: &ov, ..base }, &mut xs), constant);
    // Rollouts in another order, groups with other numbers.
    let order: Vec<usize> = (0..n).map(|i| i * 7 % n).collect();
    let mut index: Vec<i64> = order.iter().map(|i| 6 - (*i / 5) as i64).collect();
    let iv = line(&mut index);
    let mut moved: Vec<f32> = order.iter().map(|i| xs[*i]).collect();
    let got = run(&passrl_batch { group_index: &iv, num_groups: 7, ..base }, &mut moved);
    assert!(order.iter().zip(&got).all(|(i, bits)| constant[*i] == *bits));
    // Types in and out, strided, in place.
    let b = passrl_batch { group_size: 5, ..base };
    let call = |x: &passrl_view, out: &passrl_view| {
        let status = unsafe {
            passrl_group_standardize(rig.context, &b, &row, x, out, null(), null(), null(), null(), rig.ws(), rig.bytes(), null_mut())
        };
        assert_eq!(status, PASSRL_OK, "{}", last());
    };
    fn case<I: Elem, O: Elem>(x: &[f64], call: &dyn Fn(&passrl_view, &passrl_view)) -> Vec<f64> {
        let (mut a, mut o) = (typed::<I>(x), vec![O::of(f64::NAN); x.len() * 3]);
        let wide = passrl_view { shape: [x.len() as i64, 1], stride: [3, 1], ..line(&mut o) };
        call(&line(&mut a), &wide);
        o.iter().step_by(3).map(|x| x.wide()).collect()
    }
    let wide = case::<f32, f64>(&x[..n], &call);
    for other in [case::<f64, f64>(&x[..n], &call), case::<bf16, f64>(&x[..n], &call), case::<f16, f64>(&x[..n], &call)] {
        assert!(other == wide);
    }
    assert!(case::<f32, bf16>(&x[..n], &call) == wide.iter().map(|x| <bf16 as OutElem>::from_f64(*x, &mut 0).to_f64()).collect::<Vec<_>>());
    assert!(case::<f32, f16>(&x[..n], &call) == wide.iter().map(|x| <f16 as OutElem>::from_f64(*x, &mut 0).to_f64()).collect::<Vec<_>>());
    let mut same = xs.clone();
    let v = line(&mut same);
    call(&v, &v);
    assert!(same.iter().map(|x| x.to_bits()).eq(constant.iter().copied()));
}

#[test]
fn findings_zero_their_group_alone() {
    let rig = Rig::new();
    let cases = [
        (f32::NAN, PASSRL_MISSING_ERROR, PASSRL_FINDING_MISSING, "rollout 3, group 1"),
        (f32::INFINITY, PASSRL_MISSING_ERROR, PASSRL_FINDING_NONFINITE, "rollout 3, group 1"),
        (f32::NEG_INFINITY, PASSRL_MISSING_EXCLUDE, PASSRL_FINDING_NONFINITE, "rollout 3, group 1"),
        (f32::NAN, PASSRL_MISSING_ZERO, PASSRL_OK, ""),
        (f32::NAN, PASSRL_MISSING_EXCLUDE, PASSRL_OK, ""),
    ];
    for (bad, missing, status, words) in cases {
        let row = passrl_stream { missing, ..stream(PASSRL_CENTER_GROUP, PASSRL_SCALE_NONE) };
        let mut x = vec![1.0f32, 3.0, 2.0, bad, 6.0, 4.0];
        let mut out = vec![f32::NAN; 6];
        let (xv, ov) = (line(&mut x), line(&mut out));
        let b = passrl_batch { num_rollouts: 6, group_size: 2, ..batch() };
        let got = unsafe {
            passrl_group_standardize(rig.context, &b, &row, &xv, &ov, null(), null(), null(), null(), rig.ws(), rig.bytes(), null_mut())
        };
        assert_eq!(got, status, "{}", last());
        assert!(last().contains(words), "{}", last());
        let middle = match (status, missing) {
            (PASSRL_OK, PASSRL_MISSING_ZERO) => [1.0, -1.0],
            _ => [0.0, 0.0],
        };
        assert_eq!(out, [-1.0, 1.0, middle[0], middle[1], 1.0, -1.0]);
    }
    // A refused singleton; an absent rollout counts for nothing.
    let row = passrl_stream { singleton: PASSRL_SINGLETON_REFUSE, ..stream(PASSRL_CENTER_GROUP, PASSRL_SCALE_NONE) };
    let (mut x, mut out, mut absent) = (vec![1.0f32, 3.0, 2.0, f32::NAN], vec![f32::NAN; 4], vec![0u8, 0, 0, 1]);
    let (xv, ov, av) = (line(&mut x), line(&mut out), line(&mut absent));
    let b = passrl_batch { num_rollouts: 4, group_size: 2, absent: &av, ..batch() };
    let got = unsafe {
        passrl_group_standardize(rig.context, &b, &row, &xv, &ov, null(), null(), null(), null(), rig.ws(), rig.bytes(), null_mut())
    };
    assert_eq!((got, &out[..]), (PASSRL_FINDING_SINGLETON, &[-1.0, 1.0, 0.0, 0.0][..]), "{}", last());
    // Too many for exact sums.
    let n = (1 << 17) + 3;
    let (mut x, mut out) = (vec![1e30f32; n], vec![f32::NAN; n]);
    let (xv, ov) = (line(&mut x), line(&mut out));
    let b = passrl_batch { num_rollouts: n as i64, group_size: n as i64, ..batch() };
    let row = stream(PASSRL_CENTER_GROUP, PASSRL_SCALE_GROUP);
    let mut bytes = 0;
    let limits = passrl_limits { rollouts: n as i64, ..passrl_limits::defaults() };
    unsafe { passrl_primitive_workspace_size(rig.context, &limits, &mut bytes) };
    let mut memory = vec![0u64; bytes / 8 + 8];
    let at = memory.as_mut_ptr().cast::<u8>();
    let at = at.wrapping_add(at.align_offset(64)).cast();
    let got = unsafe { passrl_group_standardize(rig.context, &b, &row, &xv, &ov, null(), null(), null(), null(), at, bytes, null_mut()) };
    assert_eq!(got, PASSRL_FINDING_TOO_LARGE, "{}", last());
    assert!(out.iter().all(|x| *x == 0.0));
}

#[test]
fn flags_are_those_of_a_run_without_process() {
    let rig = Rig::new();
    for seed in 0..40u64 {
        let pick = |i: usize, m: u64| {
            (seed.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(i as u32 * 7) ^ (i as u64 * 0x9e37_79b9)) >> 7 & (m - 1)
        };
        let (mut a, mut f, mut e) = (typed::<f32>(&outcome(seed)), typed::<bf16>(&rewards(seed + 50)), typed::<f64>(&rewards(seed + 90)));
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0][seed as usize % 4];
        a[seed as usize % R] = bad as f32;
        e[(seed as usize * 5 + 2) % R] = bad;
        if seed % 3 == 0 {
            f[seed as usize % 7] = bf16::NAN;
        }
        let (mut ok, mut in_stats, mut absent): (Vec<u8>, Vec<i32>, Vec<u8>) = (0..R)
            .map(|i| (u8::from(pick(i, 4) > 1), i32::from(pick(i + 3, 8) > 0), u8::from(pick(i + 5, 16) == 0)))
            .collect::<Vec<_>>()
            .into_iter()
            .fold((vec![], vec![], vec![]), |mut all, (a, b, c)| {
                all.0.push(a);
                all.1.push(b);
                all.2.push(c);
                all
            });
        let mut index = groups();
        let mut c = config();
        (c.kind, c.num_extra) = (PASSRL_KIND_NONE, 1);
        for (s, row) in c.streams.iter_mut().enumerate() {
            row.missing = [PASSRL_MISSING_ERROR, PASSRL_MISSING_ZERO, PASSRL_MISSING_EXCLUDE][(seed as usize + s) % 3];
            row.singleton = [PASSRL_SINGLETON_ZERO, PASSRL_SINGLETON_REFUSE][(seed as usize / 7 + s) % 2];
        }
        let mut cu: Vec<i32> = (0..=R as i32).collect();
        let mut advantages = vec![f32::NAN; R];
        let views = (line(&mut a), line(&mut f), line(&mut e), line(&mut ok), line(&mut in_stats), line(&mut absent), line(&mut index));
        let (cu, av) = (line(&mut cu), line(&mut advantages));
        let mut extra = [null(); 10];
        extra[0] = &raw const views.2;
        let b = passrl_batch {
            num_rollouts: R as i64,
            num_groups: G as i64,
            outcome: &views.0,
            format: &views.1,
            extra,
            format_ok: &views.3,
            in_stats: &views.4,
            absent: &views.5,
            group_index: &views.6,
            ..batch()
        };
        let (mut early, mut late) = (vec![-1i32; G * 16], vec![-1i32; G * 16]);
        let (mut early_r, mut late_r) = (vec![-1i32; R], vec![-1i32; R]);
        let (mut first, mut second) = (passrl_report::defaults(), passrl_report::defaults());
        let (ev, er) = (grid(&mut early, G, 16), line(&mut early_r));
        let early_status = unsafe { passrl_group_flags(rig.context, &b, &c, &ev, &er, &mut first, rig.ws(), rig.bytes(), null_mut()) };
        let sentence = last();
        let (lv, lr) = (grid(&mut late, G, 16), line(&mut late_r));
        let o = passrl_outputs { advantages: &av, group_flags: &lv, rollout_flags: &lr, report: &mut second, ..passrl_outputs::defaults() };
        let late_status = rig.pipeline_with(&c, &passrl_batch { cu_seqlens: &cu, ..b }, &o);
        assert!(early_status >= 0, "{sentence}");
        assert_eq!(early, late, "seed {seed}: {sentence} / {}", rig.said.borrow());
        assert_eq!(early_r, late_r, "seed {seed}");
        let said = rig.said.borrow().replace("passrl_plan_run", "passrl_group_flags");
        assert_eq!((early_status, sentence), (late_status, said), "seed {seed}");
        macro_rules! same {
            ($($field:ident)*) => {$(assert_eq!(first.$field, second.$field, "seed {seed}: {}", stringify!($field));)*};
        }
        same!(findings first_finding first_rollout first_group first_stream rollouts degenerate_groups bad_groups violating_groups missing_values nonfinite_values);
    }
}

#[test]
fn flags_need_no_process_signal_and_no_layout() {
    let rig = Rig::new();
    let (mut a, mut ok, mut f) = (vec![1.0f32, 1.0, 0.0, 1.0], vec![1u8, 1, 0, 0], vec![1.0f32, 1.0, 0.0, 0.0]);
    let (av, okv, fv) = (line(&mut a), line(&mut ok), line(&mut f));
    let b = passrl_batch { num_rollouts: 4, group_size: 2, outcome: &av, format: &fv, format_ok: &okv, ..batch() };
    let mut flags = vec![-1i32; 32];
    let view = grid(&mut flags, 2, 16);
    assert_eq!(
        unsafe { passrl_group_flags(rig.context, &b, &config(), &view, null(), null_mut(), rig.ws(), rig.bytes(), null_mut()) },
        PASSRL_OK,
        "{}",
        last()
    );
    assert_eq!(flags[PASSRL_STREAM_OUTCOME], PASSRL_GROUP_ZERO_VARIANCE);
    assert_eq!(flags[16 + PASSRL_STREAM_OUTCOME], 0);
    assert_eq!(flags[16 + PASSRL_STREAM_FORMAT], PASSRL_GROUP_ZERO_VARIANCE | PASSRL_GROUP_ALL_VIOLATING);
}
