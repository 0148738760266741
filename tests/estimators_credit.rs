//! Credit of the estimators (rules 58 to 63) through the C ABI: against plain loops, and the same bits whatever the layout, threads and micro-batches.
#[path = "estimators_credit/loops.rs"]
mod loops;
#[path = "estimators_credit/world.rs"]
mod world;

use harness::{Got, How};
use loops::expected;
use passrl::abi::constants::*;
use testkit::{cases, harness, oracle};
use world::{World, bits};

fn ways() -> Vec<How> {
    let how = How::default;
    vec![
        How { threads: 4, ..how() },
        How { padded: true, spare: 3, ..how() },
        How { padded: true, pad_left: true, spare: 70, threads: 4, ..how() },
        How { stride: 3, simd: PASSRL_SIMD_BASELINE, mask: PASSRL_I64, ..how() },
    ]
}

/// A run against the loops, and against itself in other layouts, threads and micro-batches.
fn hold(name: &str, w: &World) -> Got {
    let got = w.run(&How::default());
    assert_eq!(got.status, 0, "{name}: {}", got.message);
    let mut seen = 0.0f64;
    for i in 0..w.batch.rollouts.len() {
        let e = expected(w, &got, i);
        let largest = e.advantages.iter().chain(&e.returns).fold(1.0f64, |m, x| m.max(x.abs()));
        seen = seen.max(largest);
        // The KL is rounded to f32, which the loops may do the other way.
        let bound = largest * if w.gives_reference { 2e-6 } else { 1e-10 };
        for (what, got, want) in [("advantage", &got.advantages[i], &e.advantages), ("return", &got.returns[i], &e.returns)] {
            for (t, (a, b)) in got.iter().zip(want).enumerate() {
                assert!((a - b).abs() <= bound, "{name}: rollout {i} token {t}: {what} {a:e}, the loop {b:e}");
            }
        }
        assert!((got.path_scores[i] - e.path).abs() <= bound, "{name}: rollout {i}: path score {:e}, the loop {:e}", got.path_scores[i], e.path);
    }
    assert!(seen > 0.01, "{name}: all is 0");
    alike(name, w, &got);
    got
}

/// The same bits in every way of running.
fn alike(name: &str, w: &World, got: &Got) {
    for how in ways() {
        let other = w.run(&how);
        assert!(other.padding_is_zero, "{name} {how:?}");
        assert_eq!(bits(got), bits(&other), "{name} {how:?}");
        assert_eq!(got.bits(), other.bits(), "{name} {how:?}");
    }
    assert_eq!(bits(got), w.run_in_slices(&How::default()), "{name} in slices");
    assert_eq!(bits(got), w.run_in_slices(&How { padded: true, threads: 4, ..How::default() }), "{name} in padded slices");
    let lean = w.run(&How { lean: true, ..How::default() });
    assert_eq!(got.advantages, lean.advantages, "{name}: advantages alone");
}

/// As `hold`, with what may not be read made NaN: nothing changes.
fn hold_poisoned(name: &str, mut w: World) -> Got {
    let clean = hold(name, &w);
    w.poison(w.config.scan_mask == PASSRL_SCAN_MASK_NONE);
    let got = w.run(&How::default());
    assert_eq!(bits(&clean), bits(&got), "{name}: something out of scope was read");
    clean
}

#[test]
fn token_rewards_beside_return_to_go_and_broadcast() {
    for (seed, credit) in [(1, PASSRL_CREDIT_RETURN_TO_GO), (2, PASSRL_CREDIT_BROADCAST)] {
        for (kind, k) in [(PASSRL_KIND_KL, 0.0), (PASSRL_KIND_NONE, 0.7)] {
            let mut w = World::new(seed);
            (w.config.credit, w.config.kind, w.config.k) = (credit, kind, k);
            hold_poisoned("token rewards", w);
        }
    }
    // Token rewards alone, without a stream and without groups.
    let mut w = World::new(3);
    w.config.kind = PASSRL_KIND_NONE;
    w.batch.rollouts.iter_mut().for_each(|r| (r.outcome, r.format, r.format_ok) = (None, None, None));
    hold_poisoned("token rewards alone", w);
    // With the per-rollout streams apart: they are added after, whole, and a wrong format's is all that is added.
    let mut w = World::new(4);
    w.config.divide_scope = PASSRL_DIVIDE_PROCESS;
    let got = w.run(&How::default());
    let mut without = w.clone();
    without.drop_token_rewards();
    let other = without.run(&How::default());
    for (i, r) in w.batch.rollouts.iter().enumerate() {
        let mut own = 0.0;
        for t in (0..r.len).rev().filter(|t| w.scope(i, *t)) {
            own = r.token_rewards.as_ref().expect("rewards")[t] as f64 + w.config.gamma * own;
            assert!((got.advantages[i][t] - other.advantages[i][t] - own).abs() < 1e-10, "rollout {i} token {t}");
        }
    }
    alike("streams apart", &w, &got);
}

#[test]
fn scan_masks() {
    for scan_mask in [PASSRL_SCAN_MASK_DECAY, PASSRL_SCAN_MASK_NONE] {
        for kind in [PASSRL_KIND_KL, PASSRL_KIND_NONE] {
            for rewards in [true, false] {
                let mut w = World::new(10);
                (w.config.scan_mask, w.config.kind) = (scan_mask, kind);
                if !rewards {
                    w.drop_token_rewards();
                }
                hold_poisoned("return-to-go through gaps", w.clone());
                w.config.credit = PASSRL_CREDIT_GAE;
                for chunk in [PASSRL_CHUNK_TOKEN, PASSRL_CHUNK_GIVEN, PASSRL_CHUNK_BY_VALUE] {
                    w.config.chunk = chunk;
                    hold_poisoned("gae through gaps", w.clone());
                }
            }
        }
    }
    // A discount decays through a gap: one reward at the end, three tokens out of scope before it.
    let mut w = World::new(11);
    w.config.kind = PASSRL_KIND_NONE;
    w.batch.rollouts.truncate(1);
    w.batch.num_groups = 1;
    let r = &mut w.batch.rollouts[0];
    (r.outcome, r.format, r.format_ok) = (None, None, None);
    r.mask = Some((0..r.len).map(|t| !(4..7).contains(&t)).collect());
    r.token_rewards = Some((0..r.len).map(|t| f32::from(u8::from(t == 7))).collect());
    for (scan_mask, power) in [(PASSRL_SCAN_MASK_CARRY, 1), (PASSRL_SCAN_MASK_DECAY, 4)] {
        w.config.scan_mask = scan_mask;
        let a = w.run(&How::default()).advantages[0][3];
        assert!((a - w.config.gamma.powi(power)).abs() < 1e-12, "{a}");
    }
}

/// Missing values out of scope contribute 0; errors there are findings of their group alone.
#[test]
fn what_is_read_out_of_scope_is_judged() {
    let mut w = World::new(12);
    w.config.scan_mask = PASSRL_SCAN_MASK_NONE;
    w.drop_token_rewards();
    let gap = (0..90).rfind(|t| !w.scope(1, *t) && *t > 10).expect("a gap");
    let other = w.run(&How::default());
    for (missing, value, bad) in [
        (PASSRL_MISSING_ERROR, f32::NAN, true),
        (PASSRL_MISSING_ERROR, f32::INFINITY, true),
        (PASSRL_MISSING_EXCLUDE, f32::NEG_INFINITY, true),
        (PASSRL_MISSING_EXCLUDE, f32::NAN, false),
        (PASSRL_MISSING_ZERO, f32::NAN, false),
    ] {
        let mut w = w.clone();
        w.config.streams[0].missing = missing;
        w.batch.rollouts[1].signal[0][gap] = value;
        let got = w.run(&How::default());
        assert_eq!(got.status > 0, bad, "{missing} {value}: {}", got.message);
        assert_eq!(got.report.nonfinite_values, i64::from(bad));
        assert_eq!(got.group_flags[1][0] & PASSRL_GROUP_BAD != 0, bad);
        assert_eq!(got.advantages[0], other.advantages[0], "the other group");
        assert!(got.advantages[1].iter().all(|a| a.is_finite() && (!bad || *a == 0.0)));
        if !bad {
            // As a value whose standardised form is 0 (exclude), or as 0 itself.
            w.batch.rollouts[1].signal[0][gap] = if missing == PASSRL_MISSING_ZERO { 0.0 } else { got.stats[1][0].1 as f32 };
            let like = w.run(&How::default());
            let apart = got.advantages[1].iter().zip(&like.advantages[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-7, "{missing}: {apart:e}");
        }
        alike("gap values", &w, &w.run(&How::default()));
    }
    // Token rewards and values likewise; with carry they are not read.
    for credit in [PASSRL_CREDIT_RETURN_TO_GO, PASSRL_CREDIT_GAE] {
        let mut w = World::new(12);
        w.config.credit = credit;
        w.batch.rollouts[1].token_rewards.as_mut().expect("rewards")[gap] = f32::NAN;
        for (scan_mask, bad) in [(PASSRL_SCAN_MASK_CARRY, false), (PASSRL_SCAN_MASK_DECAY, false), (PASSRL_SCAN_MASK_NONE, true)] {
            w.config.scan_mask = scan_mask;
            let got = w.run(&How::default());
            assert_eq!((got.status > 0, got.report.nonfinite_values), (bad, i64::from(bad)), "{credit} {scan_mask}");
        }
    }
    let mut w = World::new(12);
    (w.config.credit, w.config.scan_mask) = (PASSRL_CREDIT_GAE, PASSRL_SCAN_MASK_NONE);
    w.batch.rollouts[1].values.as_mut().expect("values")[gap] = f32::INFINITY;
    assert_eq!(w.run(&How::default()).status, passrl::abi::status::PASSRL_FINDING_NONFINITE);
}

#[test]
fn lambdas_of_gae() {
    for scan_mask in [PASSRL_SCAN_MASK_CARRY, PASSRL_SCAN_MASK_DECAY] {
        for (lam_returns, alpha, given) in [(1.0, 0.0, false), (0.0, 0.0, true), (-1.0, 0.05, false), (0.95, 0.05, false), (-1.0, 0.0, true), (-1.0, 3.0, true)] {
            let mut w = World::new(20);
            w.config.credit = PASSRL_CREDIT_GAE;
            w.config.scan_mask = scan_mask;
            (w.config.lam_returns, w.config.lam_length_alpha, w.gives_lam) = (lam_returns, alpha, given);
            hold_poisoned("lambdas", w.clone());
            (w.config.scan_mask, w.config.gae_over, w.config.chunk) = (PASSRL_SCAN_MASK_CARRY, PASSRL_GAE_CHUNKS, PASSRL_CHUNK_GIVEN);
            w.drop_token_rewards();
            hold_poisoned("lambdas over chunks", w);
        }
    }
    // A lambda that is none costs its group; one of a rollout without a token in scope is not read.
    for (i, lam, bad) in [(4, 1.5, true), (1, f32::NAN, true), (3, -0.1, true), (2, f32::NAN, false)] {
        let mut w = World::new(20);
        (w.config.credit, w.gives_lam) = (PASSRL_CREDIT_GAE, true);
        let good = w.run(&How::default());
        w.extra[i].lam = lam;
        let got = w.run(&How::default());
        assert_eq!((got.status > 0, got.report.nonfinite_values, got.report.bad_groups), (bad, i64::from(bad), i64::from(bad)), "{i} {lam}");
        assert_eq!(got.advantages[1 - i % 2], good.advantages[1 - i % 2]);
        assert!(got.advantages[i].iter().all(|a| *a == 0.0));
        alike("lambdas", &w, &got);
    }
    // lam_returns = lam is lam_returns = -1, to the bit.
    let mut w = World::new(21);
    w.config.credit = PASSRL_CREDIT_GAE;
    let plain = w.run(&How::default());
    w.config.lam_returns = w.config.lam;
    assert_eq!(bits(&plain), bits(&w.run(&How::default())));
}

#[test]
fn gae_over_chunks() {
    for chunk in [PASSRL_CHUNK_BY_VALUE, PASSRL_CHUNK_GIVEN, PASSRL_CHUNK_SEGMENT, PASSRL_CHUNK_NONE, PASSRL_CHUNK_TOKEN] {
        let mut w = World::new(30);
        (w.config.credit, w.config.gae_over, w.config.chunk) = (PASSRL_CREDIT_GAE, PASSRL_GAE_CHUNKS, chunk);
        w.drop_token_rewards();
        hold_poisoned("gae over chunks", w.clone());
        w.config.kind = PASSRL_KIND_NONE;
        hold_poisoned("gae over chunks, outcome alone", w);
    }
    // A chunk a token is gae over tokens.
    let mut w = World::new(31);
    w.drop_token_rewards();
    w.config.credit = PASSRL_CREDIT_GAE;
    let tokens = w.run(&How::default());
    w.config.gae_over = PASSRL_GAE_CHUNKS;
    assert_eq!(bits(&tokens), bits(&w.run(&How::default())));
}

#[test]
fn discounted_count() {
    for (gamma, chunk) in [(0.97, PASSRL_CHUNK_TOKEN), (0.5, PASSRL_CHUNK_GIVEN), (1.0, PASSRL_CHUNK_TOKEN), (0.0, PASSRL_CHUNK_BY_VALUE)] {
        let mut w = World::new(40);
        w.drop_token_rewards();
        (w.config.divide_by, w.config.k, w.config.gamma, w.config.chunk) = (PASSRL_DIVIDE_BY_DISCOUNTED_COUNT, 1.0, gamma, chunk);
        let got = hold_poisoned("discounted count", w.clone());
        if gamma == 1.0 {
            w.config.divide_by = PASSRL_DIVIDE_BY_COUNT;
            assert_eq!(bits(&got), bits(&w.run(&How::default())), "without a discount it is the count");
        }
    }
}

#[test]
fn vtrace() {
    for (rho, c, lam, rewards) in [(1.0, 1.0, 1.0, true), (0.7, 2.0, 0.9, false), (f64::INFINITY, 1.1, 0.95, true), (0.0, 0.0, 1.0, false)] {
        let mut w = World::new(50);
        w.gives_behavior = true;
        w.config.credit = PASSRL_CREDIT_VTRACE;
        (w.config.rho_clip, w.config.c_clip, w.config.lam) = (rho, c, lam);
        if !rewards {
            w.drop_token_rewards();
        }
        for chunk in [PASSRL_CHUNK_TOKEN, PASSRL_CHUNK_GIVEN] {
            w.config.chunk = chunk;
            hold_poisoned("vtrace", w.clone());
        }
    }
    // On policy with lam = 1: the returns are the discounted sums, and the advantages one-step errors of them.
    let mut w = World::new(51);
    w.gives_behavior = true;
    (w.config.credit, w.config.lam) = (PASSRL_CREDIT_VTRACE, 1.0);
    w.extra.iter_mut().for_each(|e| e.behavior = e.policy.clone());
    let got = w.run(&How::default());
    for (i, r) in w.batch.rollouts.iter().enumerate() {
        let mut g = r.bootstrap.expect("a bootstrap") as f64;
        for t in (0..r.len).rev().filter(|t| w.scope(i, *t)) {
            g = r.token_rewards.as_ref().expect("rewards")[t] as f64 + w.config.gamma * g;
            assert!((got.returns[i][t] - g).abs() < 1e-10);
        }
    }
    // Ratios beyond every bound give finite numbers.
    let mut w = World::new(52);
    w.gives_behavior = true;
    (w.config.credit, w.config.rho_clip, w.config.c_clip) = (PASSRL_CREDIT_VTRACE, f64::INFINITY, f64::INFINITY);
    // And a ratio of 0 now and then, which an infinity before it would make NaN.
    w.extra.iter_mut().for_each(|e| e.behavior.iter_mut().enumerate().for_each(|(t, b)| *b += if t % 30 == 7 { 1e4 } else { -1e4 }));
    let got = w.run(&How::default());
    assert_eq!(got.status, 0);
    assert!(got.advantages.iter().chain(&got.returns).flatten().all(|a| a.is_finite()));
    // At a ratio of 0 the target is the value, whatever came after. (A NaN would be stored as 0.)
    for (i, r) in w.batch.rollouts.iter().enumerate() {
        for t in (7..r.len).step_by(30).filter(|t| w.scope(i, *t)) {
            assert_eq!(got.returns[i][t], r.values.as_ref().expect("values")[t] as f64, "rollout {i} token {t}");
        }
    }
}

/// w_out r_out + w_fmt r_fmt.
fn c_sum(w: &World, r: &oracle::Rollout) -> f64 {
    let weight = |row: usize| w.config.streams[row].weight;
    weight(PASSRL_STREAM_OUTCOME) * r.outcome.expect("an outcome") as f64 + weight(PASSRL_STREAM_FORMAT) * r.format.expect("a format") as f64
}

const KINDS: [i32; 4] = [PASSRL_KL_K1, PASSRL_KL_K2, PASSRL_KL_K3, PASSRL_KL_ABS];

#[test]
fn kl_of_tokens() {
    for place in [PASSRL_KL_PLACE_REWARD, PASSRL_KL_PLACE_ADVANTAGE] {
        for kind in KINDS {
            let mut w = World::new(60);
            w.gives_reference = true;
            (w.config.kl_in_reward, w.config.kl_place) = (kind, place);
            hold_poisoned("kl and return-to-go", w.clone());
            w.config.scan_mask = PASSRL_SCAN_MASK_DECAY;
            hold_poisoned("kl through gaps", w.clone());
            (w.config.credit, w.config.chunk) = (PASSRL_CREDIT_GAE, PASSRL_CHUNK_GIVEN);
            hold_poisoned("kl and gae through gaps", w.clone());
            (w.config.kl_log_ratio_clamp, w.config.kl_clamp, w.config.scan_mask) = (0.5, 0.3, PASSRL_SCAN_MASK_CARRY);
            hold_poisoned("kl within limits", w.clone());
            (w.config.credit, w.gives_behavior) = (PASSRL_CREDIT_VTRACE, true);
            hold_poisoned("kl and vtrace", w.clone());
            (w.config.credit, w.config.chunk, w.config.kind, w.config.k) = (PASSRL_CREDIT_RETURN_TO_GO, PASSRL_CHUNK_TOKEN, PASSRL_KIND_NONE, 0.5);
            w.drop_token_rewards();
            hold_poisoned("kl and an outcome", w);
        }
    }
}

/// The outcome loses the KL before its set: as a batch whose outcomes have lost it already.
#[test]
fn kl_of_the_outcome() {
    for kind in KINDS {
        let mut w = World::new(61);
        w.gives_reference = true;
        (w.config.kl_in_reward, w.config.kl_place) = (kind, PASSRL_KL_PLACE_OUTCOME);
        // Multiples of 1/1024: sums of k1, k2 and |d| are exact.
        for e in &mut w.extra {
            e.policy.iter_mut().for_each(|x| *x = (*x * 1024.0).round() / 1024.0);
            e.reference.iter_mut().for_each(|x| *x = (*x * 1024.0).round() / 1024.0);
        }
        let mut taken = w.clone();
        taken.gives_reference = false;
        taken.config.kl_in_reward = PASSRL_KL_NONE;
        for i in 0..w.batch.rollouts.len() {
            let sum = loops::kl_sum(&w, i);
            let outcome = taken.batch.rollouts[i].outcome.as_mut().expect("an outcome");
            *outcome = (*outcome as f64 - w.config.kl_coef * sum as f64) as f32;
        }
        for (fusion, credit, whiten) in [
            (PASSRL_FUSION_ADVANTAGE, PASSRL_CREDIT_RETURN_TO_GO, PASSRL_WHITEN_NONE),
            (PASSRL_FUSION_ADVANTAGE, PASSRL_CREDIT_GAE, PASSRL_WHITEN_TOKENS),
            (PASSRL_FUSION_POOLED, PASSRL_CREDIT_RETURN_TO_GO, PASSRL_WHITEN_NONE),
            (PASSRL_FUSION_REWARD_SHAPING, PASSRL_CREDIT_BROADCAST, PASSRL_WHITEN_ROLLOUTS),
            (PASSRL_FUSION_REWARD_SUM, PASSRL_CREDIT_RETURN_TO_GO, PASSRL_WHITEN_NONE),
        ] {
            let set = |w: &World| {
                let mut w = w.clone();
                (w.config.fusion, w.config.credit, w.config.whiten) = (fusion, credit, whiten);
                w
            };
            let (mut asked, mut taken) = (set(&w), set(&taken));
            if fusion == PASSRL_FUSION_REWARD_SUM {
                // R = r_out + r_fmt less the KL, rounded once: outcomes and formats are small multiples of 1/2, so their sums are exact.
                for i in 0..7 {
                    let sum = loops::kl_sum(&w, i) as f64;
                    let (from, to) = (&w.batch.rollouts[i], &mut taken.batch.rollouts[i]);
                    let r = c_sum(&w, from);
                    to.outcome = Some((r - w.config.kl_coef * sum) as f32);
                    (to.format, to.format_ok) = (None, None);
                }
                taken.config.fusion = PASSRL_FUSION_ADVANTAGE;
                taken.config.streams[PASSRL_STREAM_OUTCOME].weight = 1.0;
            }
            let (got, want) = (asked.run(&How::default()), taken.run(&How::default()));
            assert_eq!((got.status, want.status), (0, 0), "{}", got.message);
            if kind != PASSRL_KL_K3 {
                assert_eq!(got.bits(), want.bits(), "kind {kind}, fusion {fusion}");
                assert!(fusion == PASSRL_FUSION_REWARD_SUM || got.stats == want.stats);
            }
            let largest = want.advantages.iter().flatten().fold(0.0f64, |m, a| m.max(a.abs()));
            assert!(largest > 0.01);
            for (a, b) in got.advantages.iter().flatten().zip(want.advantages.iter().flatten()) {
                assert!((a - b).abs() <= 1e-5 * largest, "kind {kind}, fusion {fusion}: {a:e} {b:e}");
            }
            alike("kl of the outcome", &asked, &got);
            asked.poison(false);
            assert_eq!(bits(&got), bits(&asked.run(&How::default())), "poisoned");
        }
    }
}

#[test]
fn bad_log_probabilities_cost_their_group() {
    for (place, value) in [(PASSRL_KL_PLACE_OUTCOME, f64::NAN), (PASSRL_KL_PLACE_REWARD, f64::NEG_INFINITY), (PASSRL_KL_PLACE_ADVANTAGE, f64::INFINITY), (-1, f64::NAN)] {
        let mut w = World::new(62);
        if place < 0 {
            w.gives_behavior = true;
            w.config.credit = PASSRL_CREDIT_VTRACE;
        } else {
            w.gives_reference = true;
            (w.config.kl_in_reward, w.config.kl_place) = (PASSRL_KL_K3, place);
        }
        let good = w.run(&How::default());
        let t = (0..90).rfind(|t| w.scope(1, *t)).expect("a token");
        w.extra[1].policy[t] = value;
        let got = w.run(&How::default());
        assert_eq!(got.status, passrl::abi::status::PASSRL_FINDING_NONFINITE, "{}", got.message);
        assert_eq!((got.report.nonfinite_values, got.report.first_rollout, got.report.first_group, got.report.bad_groups), (1, 1, 1, 1), "place {place}");
        assert_ne!(got.rollout_flags[1] & PASSRL_ROLLOUT_NONFINITE, 0);
        for (i, r) in w.batch.rollouts.iter().enumerate() {
            assert!(if r.group == 1 { got.advantages[i].iter().all(|a| *a == 0.0) } else { got.advantages[i] == good.advantages[i] }, "rollout {i}");
        }
        alike("bad log-probabilities", &w, &got);
    }
    // A KL beyond f32 is a finding; limits make it none.
    let mut w = World::new(63);
    w.gives_reference = true;
    w.config.kl_in_reward = PASSRL_KL_K3;
    let t = (0..90).rfind(|t| w.scope(1, *t)).expect("a token");
    w.extra[1].reference[t] += 500.0;
    for place in [PASSRL_KL_PLACE_OUTCOME, PASSRL_KL_PLACE_REWARD] {
        w.config.kl_place = place;
        w.config.kl_log_ratio_clamp = f64::INFINITY;
        assert_eq!(w.run(&How::default()).report.nonfinite_values, 1);
        w.config.kl_log_ratio_clamp = 20.0;
        assert_eq!(w.run(&How::default()).status, 0);
    }
    // What an absent rollout has is not read.
    w.config.kl_log_ratio_clamp = f64::INFINITY;
    w.batch.rollouts[1].absent = true;
    assert_eq!(w.run(&How::default()).status, 0);
}

/// Whitened, every setting: the same bits in pieces, and the unwhitened result standardised.
#[test]
fn whitening_takes_what_credit_gives() {
    type Edit = fn(&mut World);
    let settings: [(&str, Edit); 8] = [
        ("token rewards", |_| ()),
        ("decay", |w| w.config.scan_mask = PASSRL_SCAN_MASK_DECAY),
        ("none", |w| (w.config.scan_mask, w.config.credit) = (PASSRL_SCAN_MASK_NONE, PASSRL_CREDIT_GAE)),
        ("gae over chunks", |w| {
            (w.config.credit, w.config.gae_over, w.config.chunk) = (PASSRL_CREDIT_GAE, PASSRL_GAE_CHUNKS, PASSRL_CHUNK_GIVEN);
            w.drop_token_rewards();
        }),
        ("gae over tokens, chunks given", |w| (w.config.credit, w.config.chunk, w.config.lam_returns) = (PASSRL_CREDIT_GAE, PASSRL_CHUNK_GIVEN, 1.0)),
        ("vtrace", |w| (w.config.credit, w.config.chunk, w.gives_behavior) = (PASSRL_CREDIT_VTRACE, PASSRL_CHUNK_GIVEN, true)),
        ("kl of advantages", |w| (w.config.kl_in_reward, w.config.kl_place, w.gives_reference) = (PASSRL_KL_K3, PASSRL_KL_PLACE_ADVANTAGE, true)),
        ("discounted count", |w| (w.config.divide_by, w.config.k) = (PASSRL_DIVIDE_BY_DISCOUNTED_COUNT, 1.0)),
    ];
    for (name, edit) in settings {
        let mut w = World::new(70);
        edit(&mut w);
        let plain = w.run(&How::default());
        for whiten in [PASSRL_WHITEN_TOKENS, PASSRL_WHITEN_ROLLOUTS] {
            w.config.whiten = whiten;
            let got = w.run(&How::default());
            alike(name, &w, &got);
            let set: Vec<f64> = if whiten == PASSRL_WHITEN_ROLLOUTS {
                plain.path_scores.clone()
            } else {
                (0..7).flat_map(|i| (0..w.batch.rollouts[i].len).filter(|t| w.scope(i, *t)).map(|t| plain.advantages[i][t]).collect::<Vec<_>>()).collect()
            };
            let n = set.len() as f64;
            let mean = set.iter().sum::<f64>() / n;
            let var = set.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - w.config.whiten_ddof as f64);
            for i in 0..7 {
                for t in (0..w.batch.rollouts[i].len).filter(|t| w.scope(i, *t)) {
                    let want = (plain.advantages[i][t] - mean) / (var + w.config.whiten_epsilon).sqrt();
                    let a = got.advantages[i][t];
                    assert!((a - want).abs() < 1e-5 * (1.0 + want.abs()), "{name}: rollout {i} token {t}: {a:e}, {want:e}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    type Edit = fn(&mut World);
    let cases: [(Edit, &str); 2] = [
        (|w| (w.config.credit, w.config.gae_over, w.config.chunk) = (PASSRL_CREDIT_GAE, PASSRL_GAE_CHUNKS, PASSRL_CHUNK_GIVEN), "batch.token_rewards is given and config.gae_over is chunks"),
        (|w| { w.config.kl_in_reward = PASSRL_KL_K1; w.gives_reference = true; w.batch.rollouts.iter_mut().for_each(|r| r.outcome = None) }, "batch.outcome is NULL; config.kl_place = outcome"),
    ];
    for (edit, words) in cases {
        let mut w = World::new(80);
        edit(&mut w);
        let sentence = w.try_run(&How::default()).map(|_| ()).expect_err(words);
        assert!(sentence.contains(words), "{sentence}");
    }
}
