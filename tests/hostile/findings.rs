//! Wrong data: the run completes, outputs are whole, the group's advantages are 0, others are as if alone; `strict` refuses and writes nothing.
use crate::api::{Act, Api};
use crate::world::World;
use passrl::abi::constants::*;
use passrl::abi::status::*;

/// name, status, finding, first rollout, first group, first stream, words, what is damaged. The finding lies in group 0.
type Finding = (&'static str, i32, i64, i64, i64, &'static str, fn(&mut World));

fn outcome(w: &mut World, rollout: usize, value: f64) {
    let mut all = [1., 0., 0., 1., 0., 0.];
    all[rollout] = value;
    w.floats("batch.outcome", PASSRL_F32, &all);
}

fn ends(w: &mut World, first: [i64; 6]) {
    w.ints("batch.step_ends", PASSRL_I32, &[first, [2, 4, 3, 1, 2, 5]].concat());
}

fn scores(w: &mut World, step: usize, value: f64) {
    let mut all = [1.0, -1.0, 0.5, 0.25, 0.25, -0.5, 1.0, -1.0, 0.5, 0.25, 0.25, -0.5];
    all[step] = value;
    w.floats("batch.step_scores", PASSRL_F32, &all);
}

/// Group 0 of one rollout, group 1 of the others.
fn single(w: &mut World) {
    w.batch.group_size = 0;
    w.ints("batch.group_offsets", PASSRL_I32, &[0, 1, 6]);
    w.config.streams[4].singleton = PASSRL_SINGLETON_REFUSE;
}

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

#[rustfmt::skip]
fn cases() -> Vec<Finding> {
    vec![
        ("outcome_nan", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 0, 4, "rollout 0 of group 0 has a NaN", |w| outcome(w, 0, NAN)),
        ("outcome_inf", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 2, 4, "rollout 2 of group 0 has a value that is not finite", |w| outcome(w, 2, INF)),
        ("outcome_minus_inf", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 4, "rollout 1 of group 0 has a value that is not finite", |w| outcome(w, 1, -INF)),
        ("outcome_inf_where_nan_is_zero", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 2, 4, "not finite", |w| { w.config.streams[4].missing = PASSRL_MISSING_ZERO; outcome(w, 2, INF) }),
        ("format_nan", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 1, 5, "stream format", |w| w.floats("batch.format", PASSRL_F64, &[1., NAN, 0., 1., 1., 0.])),
        ("format_beyond_f32", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 0, 5, "not finite", |w| w.floats("batch.format", PASSRL_F64, &[1e300, 1., 0., 1., 1., 0.])),
        ("outcome_inf_shaped", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 4, "stream outcome", |w| { w.shaped(); outcome(w, 1, INF) }),
        ("outcome_nan_shaped", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 1, 4, "stream outcome", |w| { w.shaped(); w.config.streams[4].missing = PASSRL_MISSING_ERROR; outcome(w, 1, NAN) }),
        ("format_inf_shaped", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 5, "stream format", |w| { w.shaped(); w.floats("batch.format", PASSRL_F64, &[1., -INF, 0., 1., 1., 0.]) }),
        ("score_nan", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 2, 0, "stream process_0", |w| scores(w, 4, NAN)),
        ("score_inf", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 0, "stream process_0", |w| scores(w, 2, INF)),
        ("signal_nan", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 1, 0, "rollout 1 of group 0", |w| { w.kl(); let mut s = [-0.5; 24]; s[5] = NAN; w.floats("batch.signal[0]", PASSRL_F32, &s) }),
        ("signal_inf", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 0, 0, "rollout 0 of group 0", |w| { w.kl(); let mut s = [-0.5; 24]; s[3] = -INF; w.floats("batch.signal[0]", PASSRL_F32, &s) }),
        ("ends_decrease", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 0, 0, "has steps that do not fit", |w| ends(w, [3, 2, 3, 1, 2, 5])),
        ("ends_beyond_length", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 1, 0, "rollout 1 of group 0 has steps that do not fit", |w| ends(w, [2, 4, 4, 1, 2, 5])),
        ("ends_negative", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 2, 0, "rollout 2 of group 0", |w| ends(w, [2, 4, 3, -1, 2, 5])),
        ("ends_huge", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 2, 0, "rollout 2 of group 0", |w| w.ints("batch.step_ends", PASSRL_I64, &[2, 4, 3, 1, 2, 1 << 62, 2, 4, 3, 1, 2, 5])),
        ("begin_before_end", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 0, 0, "rollout 0 of group 0", |w| w.ints("batch.step_begins", PASSRL_I32, &[0, 1, 0, 0, 1, 2, 0, 2, 0, 0, 1, 2])),
        ("begin_negative", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 1, 0, "rollout 1 of group 0", |w| w.ints("batch.step_begins", PASSRL_I64, &[0, 2, -1, 0, 1, 2, 0, 2, 0, 0, 1, 2])),
        ("begin_beyond_end", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 1, 0, "rollout 1 of group 0", |w| w.ints("batch.step_begins", PASSRL_I64, &[0, 2, 9, 0, 1, 2, 0, 2, 0, 0, 1, 2])),
        ("score_nan_of_a_state", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 2, 0, "stream process_0", |w| { w.keyed(); scores(w, 4, NAN) }),
        ("score_inf_taken_back", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 0, "stream process_0", |w| { w.config.step_value = PASSRL_STEP_VALUE_RETURN_TO_GO; w.keyed(); scores(w, 2, INF) }),
        ("outcome_inf_taken_back", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 4, "stream outcome", |w| { w.returns(); w.keyed(); outcome(w, 1, INF) }),
        ("ends_of_a_state", PASSRL_FINDING_BAD_STEPS, PASSRL_FOUND_BAD_STEPS, 0, 0, "has steps that do not fit", |w| { w.keyed(); ends(w, [3, 2, 3, 1, 2, 5]) }),
        ("score_nan_of_means", PASSRL_FINDING_MISSING, PASSRL_FOUND_MISSING, 2, 0, "stream process_0", |w| { w.config.pool = PASSRL_POOL_ROLLOUTS; scores(w, 4, NAN) }),
        ("squares_nan", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 1, 0, "rollout 1 of group 0 has a value that is not finite", |w| { w.token_baseline(); let mut q = [0.5; 24]; q[6] = NAN; w.floats("batch.sum_pi_squared", PASSRL_F64, &q) }),
        ("ratio_inf", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, 0, 0, "rollout 0 of group 0 has a value that is not finite", |w| { w.token_baseline(); let mut r = [1.0; 24]; r[0] = INF; w.floats("batch.token_ratio", PASSRL_F32, &r) }),
        ("given_std_nan", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, -1, 4, "group 0 has a value that is not finite, or is given a mean or deviation that is not finite", |w| w.given(0.5, NAN)),
        ("given_std_negative", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, -1, 4, "or a deviation below 0, stream outcome", |w| w.given(0.5, -1.0)),
        ("given_mean_inf", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, -1, 4, "group 0 has a value that is not finite, or is given a mean", |w| w.given(INF, 1.0)),
        ("given_mean_beyond_f32", PASSRL_FINDING_NONFINITE, PASSRL_FOUND_NONFINITE, -1, 4, "stream outcome", |w| w.given(1e300, 1.0)),
        ("group_of_one", PASSRL_FINDING_SINGLETON, PASSRL_FOUND_SINGLETON, -1, 4, "group 0 has a single element where singleton = refuse", single),
    ]
}

fn tokens(w: &World) -> usize {
    // Tokens of group 0.
    if w.slots.contains_key("batch.group_offsets") { 4 } else { 12 }
}

#[test]
fn bad_data_costs_its_group_and_no_other() {
    let api = Api::load();
    let mut wrong = Vec::new();
    for (name, status, finding, rollout, stream, words, edit) in cases() {
        // The same batch without what is bad, for the others' advantages.
        let mut good = World::new(&api);
        edit(&mut good);
        match name {
            "group_of_one" => good.config.streams[4].singleton = PASSRL_SINGLETON_ZERO,
            _ if good.slots.contains_key("batch.signal[0]") => good.floats("batch.signal[0]", PASSRL_F32, &[-0.5; 24]),
            _ => {
                let begins = good.slots.remove("batch.step_begins").is_some();
                outcome(&mut good, 0, 1.0);
                if good.slots.contains_key("batch.step_scores") {
                    scores(&mut good, 0, 1.0);
                }
                ends(&mut good, [2, 4, 3, 1, 2, 5]);
                good.floats("batch.format", PASSRL_F64, &[1., 1., 0., 1., 1., 0.]);
                if good.slots.contains_key("batch.stats_std") {
                    good.given(0.5, 1.0);
                }
                for (name, sound) in [("batch.sum_pi_squared", 0.5), ("batch.token_ratio", 1.0)] {
                    if good.slots.contains_key(name) {
                        good.floats(name, PASSRL_F64, &[sound; 24]);
                    }
                }
                if begins {
                    good.ints("batch.step_begins", PASSRL_I32, &[0, 2, 0, 0, 1, 2, 0, 2, 0, 0, 1, 2]);
                }
            }
        }
        let clean = api.call(&mut good, Act::Run);
        assert_eq!(clean, PASSRL_OK, "{name}, mended: {}", good.sentence);
        let mut w = World::new(&api);
        edit(&mut w);
        let got = api.call(&mut w, Act::Run);
        let mut check = |holds: bool, what: String| {
            if !holds {
                wrong.push(format!("{name}: {what}; sentence \"{}\"", w.sentence));
            }
        };
        check(got == status, format!("status {got}, wanted {status}"));
        check(w.sentence.starts_with("passrl_plan_run: done, with findings") && w.sentence.contains(words), format!("wanted \"{words}\""));
        let r = &w.report;
        check(r.findings & finding == finding, format!("findings {}", r.findings));
        check(
            (r.first_finding, r.first_rollout, r.first_group, r.first_stream) == (finding, rollout, 0, stream),
            format!("first finding {} rollout {} group {} stream {}", r.first_finding, r.first_rollout, r.first_group, r.first_stream),
        );
        check(r.bad_groups == 1, format!("{} bad groups", r.bad_groups));
        let (bad, fine) = (w.f64s("advantages"), good.f64s("advantages"));
        let n = tokens(&w);
        check(bad[..n].iter().all(|a| a.to_bits() == 0), format!("advantages of the bad group: {:?}", &bad[..n]));
        check(bad[n..] == fine[n..], format!("advantages of the other group: {:?}, wanted {:?}", &bad[n..], &fine[n..]));
        check(bad[n..].iter().any(|a| *a != 0.0), "the other group is all 0".into());
        let flags = w.f64s("group_flags");
        check(flags[..16].iter().all(|f| *f as i32 & PASSRL_GROUP_BAD != 0), format!("flags {:?}", &flags[..16]));
        check(flags[16..].iter().all(|f| *f as i32 & PASSRL_GROUP_BAD == 0), format!("flags of the other group {:?}", &flags[16..]));
        let rollouts = w.f64s("rollout_flags");
        check(
            rollouts[0] as i32 & PASSRL_ROLLOUT_IN_BAD_GROUP != 0 && rollouts[5] as i32 & PASSRL_ROLLOUT_IN_BAD_GROUP == 0,
            format!("rollout flags {rollouts:?}"),
        );
        // Every output is written, where chunks are not concerned.
        for output in ["returns", "path_scores", "num_chunks", "stats_count", "stats_mean", "stats_std", "stats_absmax"] {
            let filled = w.f64s(output).iter().any(|v| v.to_bits() == u64::from_ne_bytes([crate::world::SENTINEL; 8]) || v.is_nan());
            check(!filled, format!("{output} {:?}", w.f64s(output)));
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong[..wrong.len().min(6)].join("\n"));
}

/// The same data under other settings: the bad group's advantages are +0, every one is written, none is NaN.
#[test]
fn bad_data_under_other_settings() {
    let api = Api::load();
    let settings: [(&str, fn(&mut World)); 6] = [
        ("whiten_tokens", |w| w.config.whiten = PASSRL_WHITEN_TOKENS),
        ("whiten_rollouts", |w| w.config.whiten = PASSRL_WHITEN_ROLLOUTS),
        ("gae", World::gae),
        ("chunk_token", |w| w.config.chunk = PASSRL_CHUNK_TOKEN),
        ("chunk_none", |w| w.config.chunk = PASSRL_CHUNK_NONE),
        ("broadcast", |w| w.config.credit = PASSRL_CREDIT_BROADCAST),
    ];
    let mut wrong = Vec::new();
    for (name, status, finding, _, _, _, edit) in cases() {
        for (setting, change) in settings {
            for act in [Act::Run, Act::Apply] {
                let mut w = World::new(&api);
                edit(&mut w);
                change(&mut w);
                let baseline = w.config.token_baseline != PASSRL_TOKEN_BASELINE_NONE;
                let whole_groups = baseline || w.config.step_sets == PASSRL_STEP_SETS_STEP_GROUP;
                if whole_groups && matches!(act, Act::Apply) || baseline && setting == "chunk_none" {
                    continue; // refused: cases of cases_batch and cases_config
                }
                let got = api.call(&mut w, act);
                let advantages = w.f64s("advantages");
                let n = tokens(&w);
                // Statistics that were never added know of no finding: what the call itself sees is told all the same.
                let zero = advantages[..n].iter().all(|a| a.to_bits() == 0) || matches!(act, Act::Apply);
                let whole = advantages.iter().all(|a| a.is_finite() && (*a as f32).to_bits() != 0xA5A5_A5A5);
                if (got != status || w.report.findings & finding == 0) && matches!(act, Act::Run) || !zero || !whole {
                    wrong.push(format!("{name}, {setting}, {act:?}: status {got}, findings {}, {advantages:?}", w.report.findings));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong[..wrong.len().min(6)].join("\n"));
}

#[test]
fn strict_refuses_bad_data_and_writes_nothing() {
    let api = Api::load();
    for (name, _, _, rollout, _, _, edit) in cases() {
        let mut w = World::new(&api);
        edit(&mut w);
        w.config.strict = 1;
        let status = api.call(&mut w, Act::Run);
        assert_eq!(status, PASSRL_ERR_DATA, "{name}: {}", w.sentence);
        let whom = if rollout < 0 { "strict: group 0 has".to_string() } else { format!("strict: rollout {rollout} of group 0 has") };
        assert!(w.sentence.contains(&whom) && w.sentence.contains("nothing was written"), "{name}: {}", w.sentence);
        assert!(w.untouched().is_ok(), "{name}: {:?}", w.untouched());
    }
    let mut w = World::new(&api);
    w.config.strict = 1;
    assert_eq!(api.call(&mut w, Act::Run), PASSRL_OK, "{}", w.sentence);
}

/// 2^17 rollouts in a group said to have 8: sums would not be exact; the group is bad and its neighbour is not.
#[test]
fn a_group_too_large_for_exact_sums() {
    let api = Api::load();
    let mut w = World::new(&api);
    let large = 1i64 << 17;
    let rollouts = large as usize + 2;
    w.slots.clear();
    w.config.kind = PASSRL_KIND_NONE;
    (w.limits.rollouts, w.limits.groups, w.limits.group_rollouts) = (rollouts as i64, 2, 8);
    w.batch.num_rollouts = rollouts as i64;
    w.batch.group_size = 0;
    w.ints("batch.group_offsets", PASSRL_I64, &[0, large, large + 2]);
    // One token each for the last three, none before.
    let begins: Vec<i64> = (0..=rollouts as i64).map(|i| (i - (large - 1)).max(0)).collect();
    w.ints("batch.cu_seqlens", PASSRL_I32, &begins);
    w.floats("batch.outcome", PASSRL_F32, &(0..rollouts).map(|i| (i % 2) as f64).collect::<Vec<_>>());
    w.output("advantages", PASSRL_F32, [3, 1], 1);
    let status = api.call(&mut w, Act::Run);
    assert_eq!(status, PASSRL_FINDING_TOO_LARGE, "{}", w.sentence);
    assert!(w.sentence.contains("group 0 has more elements than exact sums allow, stream outcome"), "{}", w.sentence);
    let advantages = w.f64s("advantages");
    assert!(advantages[0].to_bits() == 0 && advantages[1] < 0.0 && advantages[2] > 0.0, "{advantages:?}");
    assert_eq!((w.report.first_group, w.report.first_stream, w.report.bad_groups), (0, 4, 1));
}

/// Likewise of a baseline a token, where no stream has a set: rewards a token alone.
#[test]
fn a_group_too_large_for_exact_baselines() {
    let api = Api::load();
    let mut w = World::new(&api);
    let large = 1i64 << 17;
    let rollouts = large as usize + 2;
    w.slots.clear();
    w.config.kind = PASSRL_KIND_NONE;
    (w.config.token_baseline, w.config.chunk, w.config.k) = (PASSRL_TOKEN_BASELINE_TOKEN, PASSRL_CHUNK_TOKEN, 0.0);
    (w.limits.rollouts, w.limits.groups, w.limits.group_rollouts) = (rollouts as i64, 2, 8);
    w.batch.num_rollouts = rollouts as i64;
    w.batch.group_size = 0;
    w.ints("batch.group_offsets", PASSRL_I64, &[0, large, large + 2]);
    // One token each for the last three, none before.
    let begins: Vec<i64> = (0..=rollouts as i64).map(|i| (i - (large - 1)).max(0)).collect();
    w.ints("batch.cu_seqlens", PASSRL_I32, &begins);
    w.floats("batch.token_rewards", PASSRL_F32, &[1.0, 0.0, 1.0]);
    w.floats("batch.logp_policy", PASSRL_F32, &[-1.0; 3]);
    w.floats("batch.sum_pi_squared", PASSRL_F32, &[0.5; 3]);
    w.output("advantages", PASSRL_F32, [3, 1], 1);
    let status = api.call(&mut w, Act::Run);
    assert_eq!(status, PASSRL_FINDING_TOO_LARGE, "{}", w.sentence);
    let advantages = w.f64s("advantages");
    assert!(advantages[0].to_bits() == 0 && advantages[1] < -0.4 && advantages[2] > 0.4, "{advantages:?}");
    assert_eq!((w.report.first_group, w.report.bad_groups), (0, 1));
}
