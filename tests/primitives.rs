//! The primitives through their C functions: against plain f64 loops, over layouts and types, in place, against a run of the pipeline.
//! (Arguments that must be refused: `primitives_hostile.rs`.)
#[path = "primitives/rig.rs"]
mod rig;

use half::{bf16, f16};
use passrl::abi::constants::*;
use passrl::abi::primitives::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use passrl::numerics::convert::OutElem;
use rig::*;
use std::ptr::{null, null_mut};

const GAMMA: f64 = 0.97;
const LAM: f64 = 0.9;

/// The token primitives as one list: name, inputs, outputs, call, and the plain f64 loop on one rollout.
type Loop = fn(&[&[f64]]) -> Vec<Vec<f64>>;
struct Primitive {
    name: &'static str,
    inputs: usize,
    outputs: usize,
    call: fn(&Rig, &passrl_batch, &[*const passrl_view], &[*const passrl_view]) -> i32,
    plain: Loop,
}

fn primitives() -> Vec<Primitive> {
    vec![
        Primitive {
            name: "returns",
            inputs: 1,
            outputs: 1,
            call: |r, b, i, o| unsafe { passrl_discounted_returns(r.context, b, GAMMA, i[0], o[0], r.ws(), r.bytes(), null_mut()) },
            plain: |i| vec![back(i[0], GAMMA)],
        },
        Primitive {
            name: "gae",
            inputs: 2,
            outputs: 2,
            call: |r, b, i, o| unsafe {
                passrl_gae(r.context, b, GAMMA, LAM, i[0], i[1], null(), o[0], o[1], r.ws(), r.bytes(), null_mut())
            },
            plain: |i| {
                let next = |t: usize| if t + 1 < i[1].len() { i[1][t + 1] } else { 0.0 };
                let delta: Vec<f64> = (0..i[0].len()).map(|t| i[0][t] + GAMMA * next(t) - i[1][t]).collect();
                let a = back(&delta, GAMMA * LAM);
                let returns = a.iter().zip(i[1]).map(|(a, v)| a + v).collect();
                vec![a, returns]
            },
        },
        Primitive {
            name: "divide",
            inputs: 1,
            outputs: 1,
            call: |r, b, i, o| unsafe { passrl_divide_length(r.context, b, 0.7, i[0], o[0], r.ws(), r.bytes(), null_mut()) },
            plain: |i| vec![i[0].iter().enumerate().map(|(j, x)| x * ((i[0].len() - j) as f64).powf(-0.7)).collect()],
        },
        Primitive {
            name: "opd",
            inputs: 2,
            outputs: 1,
            call: |r, b, i, o| unsafe { passrl_opd_signal(r.context, b, 1.25, i[0], i[1], null(), o[0], r.ws(), r.bytes(), null_mut()) },
            plain: |i| vec![i[0].iter().zip(i[1]).map(|(p, t)| (t - p) as f32 as f64).collect()],
        },
        Primitive {
            name: "g_opd",
            inputs: 3,
            outputs: 1,
            call: |r, b, i, o| unsafe { passrl_opd_signal(r.context, b, 1.25, i[0], i[1], i[2], o[0], r.ws(), r.bytes(), null_mut()) },
            plain: |i| vec![(0..i[0].len()).map(|t| (1.25 * (i[1][t] - i[2][t]) - (i[0][t] - i[2][t])) as f32 as f64).collect()],
        },
        Primitive {
            name: "kl_in_reward",
            inputs: 3,
            outputs: 1,
            call: |r, b, i, o| unsafe {
                let c = passrl_config { kl_in_reward: PASSRL_KL_K3, kl_coef: 0.1, kl_log_ratio_clamp: 2.0, kl_clamp: 1.5, ..config() };
                passrl_kl_in_reward(r.context, b, &c, i[0], i[1], i[2], o[0], r.ws(), r.bytes(), null_mut())
            },
            plain: |i| {
                let kl = |d: f64| ((-d).exp() - 1.0 + d).clamp(-1.5, 1.5) as f32 as f64;
                vec![(0..i[0].len()).map(|t| i[2][t] - 0.1 * kl((i[0][t] - i[1][t]).max(-2.0))).collect()]
            },
        },
    ]
}

fn back(x: &[f64], c: f64) -> Vec<f64> {
    let mut g = 0.0;
    let mut out: Vec<f64> = x
        .iter()
        .rev()
        .map(|r| {
            g = r + c * g;
            g
        })
        .collect();
    out.reverse();
    out
}

fn whiten(r: &Rig, config: &passrl_config, b: &passrl_batch, x: *const passrl_view, out: *const passrl_view) -> i32 {
    unsafe { passrl_whiten(r.context, b, config, x, out, r.ws(), r.bytes(), null_mut()) }
}

#[test]
fn token_primitives_are_the_plain_loops() {
    let rig = Rig::new();
    for p in primitives() {
        let inputs: Vec<Data> = (0..p.inputs).map(|s| data(s as u64 + 1)).collect();
        let place = Place::new(Layout::Packed);
        let outs = rig.run::<f64>(&place, &inputs, p.outputs, p.call, PASSRL_OK);
        for i in 0..LENGTHS.len() {
            let rows: Vec<&[f64]> = inputs.iter().map(|d| &d[i][..]).collect();
            for (wanted, got) in (p.plain)(&rows).iter().zip(&outs) {
                assert_eq!(wanted.len(), got[i].len());
                for (a, b) in wanted.iter().zip(&got[i]) {
                    assert!((a - b).abs() <= 1e-12 * (1.0 + a.abs()), "{} rollout {i}: {a} {b}", p.name);
                }
            }
        }
    }
}

#[test]
fn layouts_give_the_same_bits_and_zeros_elsewhere() {
    let rig = Rig::new();
    let config = config();
    for p in primitives() {
        let inputs: Vec<Data> = (0..p.inputs).map(|s| data(s as u64 + 1)).collect();
        let packed = rig.run::<f32>(&Place::new(Layout::Packed), &inputs, p.outputs, p.call, PASSRL_OK);
        for layout in Layout::ALL {
            let got = rig.run::<f32>(&Place::new(layout), &inputs, p.outputs, p.call, PASSRL_OK);
            assert!(bits(&got) == bits(&packed), "{} {layout:?}", p.name);
        }
    }
    let x = [data(9)];
    let call = |r: &Rig, b: &passrl_batch, i: &[*const passrl_view], o: &[*const passrl_view]| whiten(r, &config, b, i[0], o[0]);
    let packed = rig.run::<f32>(&Place::new(Layout::Packed), &x, 1, call, PASSRL_OK);
    for layout in Layout::ALL {
        assert!(bits(&rig.run::<f32>(&Place::new(layout), &x, 1, call, PASSRL_OK)) == bits(&packed), "whiten {layout:?}");
    }
    // Against a plain loop.
    let all: Vec<f64> = x[0].iter().flatten().copied().collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let var = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (all.len() - 1) as f64;
    for (a, b) in all.iter().zip(packed[0].iter().flatten()) {
        let wanted = (a - mean) / (var + 1e-8).sqrt();
        assert!((wanted - b).abs() < 1e-6, "{wanted} {b}");
    }
}

#[test]
fn every_type_goes_in_and_comes_out_rounded_once() {
    let rig = Rig::new();
    for p in primitives() {
        // Multiples of 1/8 below 8: exact in every type.
        let inputs: Vec<Data> = (0..p.inputs).map(|s| data(s as u64 + 20)).collect();
        let place = Place::new(Layout::Padded { left: true });
        let wide = rig.run::<f64>(&place, &inputs, p.outputs, p.call, PASSRL_OK);
        let f32s = rig.run_typed::<f32, f32>(&place, &inputs, p.outputs, p.call, PASSRL_OK);
        assert!(bits(&rig.run_typed::<bf16, f32>(&place, &inputs, p.outputs, p.call, PASSRL_OK)) == bits(&f32s));
        assert!(bits(&rig.run_typed::<f16, f32>(&place, &inputs, p.outputs, p.call, PASSRL_OK)) == bits(&f32s));
        assert!(bits(&rig.run_typed::<f64, f32>(&place, &inputs, p.outputs, p.call, PASSRL_OK)) == bits(&f32s));
        let rounded = |round: fn(f64) -> f64| {
            wide.iter().map(|d| d.iter().map(|r| r.iter().map(|x| round(*x)).collect()).collect()).collect::<Vec<Data>>()
        };
        assert!(bits(&f32s) == bits(&rounded(|x| <f32 as OutElem>::from_f64(x, &mut 0) as f64)));
        let halves = rig.run_typed::<f32, bf16>(&place, &inputs, p.outputs, p.call, PASSRL_OK);
        assert!(bits(&halves) == bits(&rounded(|x| <bf16 as OutElem>::from_f64(x, &mut 0).to_f64())));
        let halves = rig.run_typed::<f32, f16>(&place, &inputs, p.outputs, p.call, PASSRL_OK);
        assert!(bits(&halves) == bits(&rounded(|x| <f16 as OutElem>::from_f64(x, &mut 0).to_f64())));
    }
}

#[test]
fn in_place_gives_the_same_bits() {
    let rig = Rig::new();
    for p in primitives() {
        for layout in Layout::ALL {
            let inputs: Vec<Data> = (0..p.inputs).map(|s| data(s as u64 + 3)).collect();
            let place = Place::new(layout);
            let apart = rig.run::<f32>(&place, &inputs, p.outputs, p.call, PASSRL_OK);
            for over in 0..p.inputs {
                let mut arrays: Vec<Vec<f32>> = inputs.iter().map(|d| place.scatter(d, f32::NAN)).collect();
                let mut extra = vec![f32::NAN; place.slots];
                let views: Vec<passrl_view> = arrays.iter_mut().map(|a| place.view(a)).collect();
                let spare = place.view(&mut extra);
                let ins: Vec<*const passrl_view> = views.iter().map(|v| &raw const *v).collect();
                let outs = [ins[over], if p.outputs == 2 { &raw const spare } else { null() }];
                place.with_batch(|b| assert_eq!((p.call)(&rig, b, &ins, &outs), PASSRL_OK, "{}", last()));
                assert!(bits(&[place.gather(&arrays[over])]) == bits(&apart[..1]), "{} over {over} {layout:?}", p.name);
            }
        }
    }
}

#[test]
fn a_rollout_with_a_bad_value_is_zero_and_says_so() {
    let rig = Rig::new();
    let config = config();
    let bad = 4;
    let check = |name: &str, got: &[Data], clean: Option<&[Data]>| {
        for (o, d) in got.iter().enumerate() {
            assert!(d[bad].iter().all(|x| *x == 0.0), "{name}");
            for i in (0..LENGTHS.len()).filter(|i| *i != bad) {
                assert!(d[i].iter().all(|x| x.is_finite()));
                if let Some(clean) = clean {
                    assert_eq!(d[i], clean[o][i], "{name}: other rollouts are as they were");
                }
            }
        }
        assert!(last().contains("rollout 4") && last().contains("token"), "{}", last());
    };
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for p in primitives() {
            for over in 0..p.inputs {
                let mut inputs: Vec<Data> = (0..p.inputs).map(|s| data(s as u64 + 3)).collect();
                let clean = rig.run::<f32>(&Place::new(Layout::Holes), &inputs, p.outputs, p.call, PASSRL_OK);
                inputs[over][bad][2] = value;
                let got = rig.run::<f32>(&Place::new(Layout::Holes), &inputs, p.outputs, p.call, PASSRL_FINDING_NONFINITE);
                check(p.name, &got, Some(&clean));
            }
        }
        let mut x = [data(5)];
        x[0][bad][2] = value;
        let call = |r: &Rig, b: &passrl_batch, i: &[*const passrl_view], o: &[*const passrl_view]| whiten(r, &config, b, i[0], o[0]);
        let got = rig.run::<f32>(&Place::new(Layout::Holes), &x, 1, call, PASSRL_FINDING_NONFINITE);
        check("whiten", &got, None);
        // The others are whitened as if it were not there.
        let place = Place::new(Layout::Packed);
        let mut present = [data(5)];
        present[0][bad] = vec![0.0; LENGTHS[bad]];
        let mut absent = vec![0u8; LENGTHS.len()];
        absent[bad] = 1;
        let mut arrays = place.scatter::<f32>(&present[0], f32::NAN);
        let (input, absent) = (place.view(&mut arrays), line(&mut absent));
        place.with_batch(|b| {
            let b = passrl_batch { absent: &absent, ..*b };
            assert_eq!(whiten(&rig, &config, &b, &input, &input), PASSRL_OK, "{}", last());
        });
        assert!(bits(&[place.gather(&arrays)]) == bits(&got));
    }
    // A bad bootstrap.
    let (rewards, values) = (data(1), data(2));
    let call = |r: &Rig, b: &passrl_batch, i: &[*const passrl_view], o: &[*const passrl_view]| {
        let mut bootstrap = vec![0.5f32; LENGTHS.len()];
        (bootstrap[0], bootstrap[bad]) = (f32::NAN, f32::INFINITY);
        let bootstrap = line(&mut bootstrap);
        unsafe { passrl_gae(r.context, b, GAMMA, LAM, i[0], i[1], &bootstrap, o[0], o[1], r.ws(), r.bytes(), null_mut()) }
    };
    let got = rig.run::<f32>(&Place::new(Layout::Packed), &[rewards, values], 2, call, PASSRL_FINDING_NONFINITE);
    assert!(got.iter().all(|d| d[bad].iter().all(|x| *x == 0.0)) && last().contains("bootstrap of rollout 4"), "{}", last());
}

#[test]
fn the_pipeline_has_the_same_bits() {
    let rig = Rig::new();
    let raw = |c: &mut passrl_config| {
        c.kind = PASSRL_KIND_KL;
        c.chunk = PASSRL_CHUNK_TOKEN;
        c.k = 0.0;
        c.gamma = GAMMA;
        (c.streams[0].center, c.streams[0].scale) = (PASSRL_CENTER_NONE, PASSRL_SCALE_NONE);
    };
    for layout in Layout::ALL {
        let place = Place::new(layout);
        let (a, b, c) = (data(31), data(32), data(33));
        let mut arrays: Vec<Vec<f32>> = [&a, &b, &c].iter().map(|d| place.scatter(d, f32::NAN)).collect();
        let views: Vec<passrl_view> = arrays.iter_mut().map(|a| place.view(a)).collect();
        let mut bootstrap: Vec<f32> = (0..LENGTHS.len()).map(|i| i as f32 * 0.3 - 1.0).collect();
        let bootstrap = line(&mut bootstrap);
        let mut in_stats: Vec<i32> = (0..LENGTHS.len()).map(|i| i32::from(i % 3 != 1)).collect();
        let in_stats = line(&mut in_stats);
        let run = |config: &passrl_config, fill: &dyn Fn(&mut passrl_batch)| {
            place.with_batch(|batch| {
                let mut batch = passrl_batch { group_size: LENGTHS.len() as i64, ..*batch };
                fill(&mut batch);
                let (mut advantages, mut returns) = (vec![f32::NAN; place.slots], vec![f32::NAN; place.slots]);
                let status = rig.pipeline(config, &batch, &place.view(&mut advantages), &place.view(&mut returns));
                assert_eq!(status, PASSRL_OK, "{}", last());
                (advantages, returns)
            })
        };
        let primitive = |call: &dyn Fn(&passrl_batch, *const passrl_view, *const passrl_view) -> i32| {
            place.with_batch(|batch| {
                let (mut first, mut second) = (vec![f32::NAN; place.slots], vec![f32::NAN; place.slots]);
                let (f, s) = (place.view(&mut first), place.view(&mut second));
                assert_eq!(call(batch, &f, &s), PASSRL_OK, "{}", last());
                (first, second)
            })
        };
        let equal =
            |what: &str, a: &[f32], b: &[f32]| assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{what} {layout:?}");

        let mut gae = config();
        raw(&mut gae);
        (gae.kind, gae.credit, gae.lam) = (PASSRL_KIND_NONE, PASSRL_CREDIT_GAE, LAM);
        let whole = run(&gae, &|b| (b.token_rewards, b.values, b.bootstrap) = (&views[0], &views[1], &bootstrap));
        let part = primitive(&|b, f, s| unsafe {
            passrl_gae(rig.context, b, GAMMA, LAM, &views[0], &views[1], &bootstrap, f, s, rig.ws(), rig.bytes(), null_mut())
        });
        equal("gae advantages", &whole.0, &part.0);
        equal("gae returns", &whole.1, &part.1);

        let mut returns = config();
        raw(&mut returns);
        let whole = run(&returns, &|b| b.signal[0] = &views[0]);
        let part = primitive(&|b, f, _| unsafe {
            passrl_discounted_returns(rig.context, b, GAMMA, &views[0], f, rig.ws(), rig.bytes(), null_mut())
        });
        equal("returns", &whole.1, &part.0);

        returns.k = 0.7;
        let divided = run(&returns, &|b| b.signal[0] = &views[0]);
        let mut wide = vec![f64::NAN; place.slots];
        let g = place.view(&mut wide);
        let part = primitive(&|b, f, _| unsafe {
            assert_eq!(passrl_discounted_returns(rig.context, b, GAMMA, &views[0], &g, rig.ws(), rig.bytes(), null_mut()), PASSRL_OK);
            passrl_divide_length(rig.context, b, 0.7, &g, f, rig.ws(), rig.bytes(), null_mut())
        });
        equal("returns and division in two calls", &divided.0, &part.0);

        let mut white = config();
        raw(&mut white);
        (white.credit, white.whiten) = (PASSRL_CREDIT_BROADCAST, PASSRL_WHITEN_TOKENS);
        for (shift, mode, ddof) in [(1, PASSRL_EPSILON_ADD_VAR, 1), (0, PASSRL_EPSILON_ADD_STD, 0), (1, PASSRL_EPSILON_FLOOR_STD, 1)] {
            (white.whiten_shift, white.whiten_epsilon_mode, white.whiten_ddof) = (shift, mode, ddof);
            let whole = run(&white, &|b| (b.signal[0], b.in_stats) = (&views[0], &in_stats));
            let part = primitive(&|b, f, _| {
                let b = passrl_batch { in_stats: &in_stats, ..*b };
                whiten(&rig, &white, &b, &views[0], f)
            });
            equal("whiten", &whole.0, &part.0);
        }

        let mut opd = config();
        raw(&mut opd);
        opd.credit = PASSRL_CREDIT_BROADCAST;
        for base in [null(), &raw const views[2]] {
            let whole = run(&opd, &|b| (b.logp_policy, b.logp_teacher, b.logp_base) = (&views[0], &views[1], base));
            let part = primitive(&|b, f, _| unsafe {
                passrl_opd_signal(rig.context, b, 1.25, &views[0], &views[1], base, f, rig.ws(), rig.bytes(), null_mut())
            });
            equal("opd", &whole.0, &part.0);
        }

        // Rewards a token less their KL are what a run broadcasts.
        let mut kl = opd;
        (kl.kind, kl.chunk) = (PASSRL_KIND_NONE, PASSRL_CHUNK_TOKEN);
        (kl.kl_in_reward, kl.kl_place, kl.kl_coef) = (PASSRL_KL_K2, PASSRL_KL_PLACE_REWARD, 0.3);
        let whole = run(&kl, &|b| (b.logp_policy, b.logp_reference, b.token_rewards) = (&views[0], &views[1], &views[2]));
        let part = primitive(&|b, f, _| unsafe {
            passrl_kl_in_reward(rig.context, b, &kl, &views[0], &views[1], &views[2], f, rig.ws(), rig.bytes(), null_mut())
        });
        equal("kl_in_reward", &whole.0, &part.0);
    }
}

#[test]
fn one_value_equal_values_and_nothing_are_whitened() {
    let rig = Rig::new();
    let mut config = config();
    for (x, shift, wanted) in
        [(vec![3.0f32], 1, vec![0.0f32]), (vec![2.5; 6], 1, vec![0.0; 6]), (vec![2.5; 6], 0, vec![2.5; 6]), (vec![], 1, vec![])]
    {
        config.whiten_shift = shift;
        let (mut x, mut cu) = (x, vec![0i32, 0]);
        cu[1] = x.len() as i32;
        let (v, cu) = (line(&mut x), line(&mut cu));
        let b = passrl_batch { num_rollouts: 1, cu_seqlens: &cu, ..batch() };
        assert_eq!(whiten(&rig, &config, &b, &v, &v), PASSRL_OK, "{}", last());
        assert_eq!(x, wanted);
    }
}

#[test]
fn edge_exponents_and_discounts() {
    let rig = Rig::new();
    let place = Place::new(Layout::Packed);
    let x = [data(7)];
    for k in [0.0, 1.0, 8.0] {
        let outs = place.with_batch(|b| {
            let mut from = place.scatter::<f64>(&x[0], f64::NAN);
            let mut to = from.clone();
            let (f, t) = (place.view(&mut from), place.view(&mut to));
            assert_eq!(unsafe { passrl_divide_length(rig.context, b, k, &f, &t, rig.ws(), rig.bytes(), null_mut()) }, PASSRL_OK);
            place.gather(&to)
        });
        for (got, x) in outs.iter().zip(&x[0]) {
            for (j, (d, x)) in got.iter().zip(x).enumerate() {
                let wanted = x * ((got.len() - j) as f64).powf(-k);
                assert!((d - wanted).abs() <= 1e-14 * wanted.abs() && (k > 0.0 || d == x));
            }
        }
    }
    for gamma in [0.0, 1.0] {
        place.with_batch(|b| {
            let mut from = place.scatter::<f64>(&x[0], f64::NAN);
            let v = place.view(&mut from);
            assert_eq!(unsafe { passrl_discounted_returns(rig.context, b, gamma, &v, &v, rig.ws(), rig.bytes(), null_mut()) }, PASSRL_OK);
            for (got, x) in place.gather(&from).iter().zip(&x[0]) {
                assert!(got.iter().zip(back(x, gamma)).all(|(a, b)| (a - b).abs() < 1e-12));
            }
        });
    }
}

#[test]
fn other_threads_rounding_and_context_change_nothing() {
    let rig = Rig::new();
    let place = Place::new(Layout::Holes);
    let p = &primitives()[1];
    let inputs = [data(1), data(2)];
    let here = rig.run::<f32>(&place, &inputs, 2, p.call, PASSRL_OK);
    let baseline = Rig::with(PASSRL_SIMD_BASELINE);
    assert!(bits(&baseline.run::<f32>(&place, &inputs, 2, p.call, PASSRL_OK)) == bits(&here));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let own = rig.beside();
                for _ in 0..20 {
                    assert!(bits(&own.run::<f32>(&place, &inputs, 2, primitives()[1].call, PASSRL_OK)) == bits(&here));
                }
            });
        }
    });
    #[cfg(target_arch = "x86_64")]
    #[allow(deprecated)]
    unsafe {
        // Flush to zero, towards zero: the caller's mode is neither used nor lost.
        let before = std::arch::x86_64::_mm_getcsr();
        let odd = 0x1f80 | 0x8040 | 0x6000;
        std::arch::x86_64::_mm_setcsr(odd);
        let outs = place.with_batch(|b| {
            let mut arrays: Vec<Vec<f32>> = inputs.iter().map(|d| place.scatter(d, f32::NAN)).collect();
            let views: Vec<passrl_view> = arrays.iter_mut().map(|a| place.view(a)).collect();
            let status = (p.call)(&rig, b, &[&views[0], &views[1]], &[&views[0], &views[1]]);
            let after = std::arch::x86_64::_mm_getcsr();
            std::arch::x86_64::_mm_setcsr(before);
            assert_eq!((status, after & !0x3f), (PASSRL_OK, odd));
            arrays.iter().map(|a| place.gather(a)).collect::<Vec<Data>>()
        });
        assert!(bits(&outs) == bits(&here));
    }
}
