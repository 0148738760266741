//! The oracle against the printed numbers of docs/formulas.md §6 and against laws that need no second implementation. (Not `oracle.rs`: beside
//! `oracle/mod.rs` that name would make `mod oracle;` ambiguous in every test crate.)

use cases::{all, random, worked_examples, Case, Input, Rng, Spec};
use oracle::*;
use testkit::{cases, oracle};

fn find(name: &str) -> Case {
    all().into_iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// Largest difference of two outputs' advantages, relative to the largest advantage (at least 1).
fn distance(a: &Output, b: &Output) -> f64 {
    let flat = |o: &Output| o.rollouts.iter().flat_map(|r| r.advantages.clone()).collect::<Vec<f64>>();
    let (a, b) = (flat(a), flat(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0f64, |m, (x, y)| m.max((x - y).abs())) / largest
}

fn with(case: &Case, edit: impl FnOnce(&mut Config)) -> Output {
    let mut cfg = case.cfg.clone();
    edit(&mut cfg);
    shape(&cfg, &case.batch)
}

#[test]
fn worked_examples_to_nine_places() {
    for w in worked_examples() {
        let out = shape(&w.case.cfg, &w.case.batch);
        for (i, expected) in w.advantages.iter().enumerate() {
            let got = &out.rollouts[i].advantages;
            assert_eq!(got.len(), expected.len());
            for (t, (g, e)) in got.iter().zip(expected).enumerate() {
                assert!((g - e).abs() <= 5.01e-10, "{} rollout {i} token {t}: {g:.12} is not {e:.9}", w.case.name);
            }
        }
        for (r, s) in out.rollouts.iter().zip(w.path_scores.iter().flatten()) {
            assert!((r.path_score - s).abs() <= 5.01e-10, "{}: path score {} is not {s}", w.case.name, r.path_score);
        }
        for (r, k) in out.rollouts.iter().zip(w.num_chunks.iter().flatten()) {
            assert_eq!(r.num_chunks, *k, "{}", w.case.name);
        }
    }
}

/// What must hold of every output, whatever the case.
fn whole(name: &str, case: &Case) -> Output {
    let out = shape(&case.cfg, &case.batch);
    assert_eq!(out.rollouts.len(), case.batch.rollouts.len(), "{name}");
    let mut tokens = 0;
    for (i, (r, o)) in case.batch.rollouts.iter().zip(&out.rollouts).enumerate() {
        assert_eq!(o.advantages.len(), r.len, "{name}");
        let finite = |v: &[f64]| v.iter().all(|x| x.is_finite());
        assert!(finite(&o.advantages) && finite(&o.returns) && finite(&o.chunk_values), "{name}: rollout {i} is not finite");
        assert!(o.path_score.is_finite() && o.advantages.iter().all(|a| a.abs() <= case.cfg.clip), "{name}");
        for t in 0..r.len {
            tokens += u64::from(o.scope[t]);
            let hidden = r.mask.as_ref().is_some_and(|m| !m[t]) || r.absent;
            assert!(!(hidden && o.scope[t]), "{name}: rollout {i} token {t} is hidden and in scope");
            assert!(o.scope[t] || o.advantages[t] == 0.0, "{name}: rollout {i} token {t} out of scope");
        }
        assert!(!out.bad_groups[r.group] || (o.forced_zero && o.advantages.iter().all(|&a| a == 0.0) && o.path_score == 0.0), "{name}");
        assert!(o.chunk_ends.len() == o.num_chunks && o.chunk_ends.windows(2).all(|w| w[0] < w[1]), "{name}");
        // The chunks end on in-scope tokens, the last one on the last.
        assert!(o.chunk_ends.iter().all(|&end| o.scope[end as usize - 1]), "{name}");
        let last = o.scope.iter().rposition(|&s| s).map(|t| t as i64 + 1);
        assert!(out.bad_steps[i] || o.chunk_ends.last().copied() == last, "{name}: rollout {i}");
    }
    assert_eq!(out.report.tokens_in_scope, tokens, "{name}");
    out
}

#[test]
fn names_are_unique_and_every_case_runs() {
    let table = all();
    let mut names: Vec<&str> = table.iter().map(|c| c.name).collect();
    names.sort();
    names.windows(2).for_each(|w| assert_ne!(w[0], w[1]));
    assert!(table.len() >= 90, "{} cases", table.len());
    for case in &table {
        whole(case.name, case);
    }
}

#[test]
fn random_cases_run_and_reach_every_feature() {
    let mut alive = 0;
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..2000 {
        let case = random(seed);
        let out = whole(&format!("random {seed}"), &case);
        if out.rollouts.iter().all(|r| r.advantages.iter().all(|&a| a == 0.0)) {
            continue;
        }
        alive += 1;
        let c = &case.cfg;
        let mut features = vec![
            format!("{:?} {:?}", c.kind, c.chunk),
            format!("{:?} {:?}", c.kind, c.fusion),
            format!("{:?} {:?}", c.credit, c.divide_scope),
            format!("{:?} {:?}", c.chunk_value, c.boundary_rule),
            format!("whiten {:?} shift {}", c.whiten, c.whiten_shift),
            format!("streams {} others {}", c.process.len(), c.others.len()),
        ];
        features.extend(c.streams().iter().map(|s| format!("{:?} {:?} {:?}", s.center, s.scale, s.missing)));
        features.into_iter().for_each(|f| *seen.entry(f).or_insert(0) += 1);
    }
    assert!(alive > 1500, "only {alive} of 2000 random cases have an advantage");
    // Every pair that the generator can make is made often.
    let rare: Vec<_> = seen.iter().filter(|(_, count)| **count < 5).collect();
    assert!(seen.len() >= 70 && rare.is_empty(), "{} features, rare: {rare:?}", seen.len());
    let again = |seed| format!("{:?}", shape(&random(seed).cfg, &random(seed).batch));
    assert_eq!(again(7), again(7));
}

#[test]
fn random_estimators_run_and_reach_every_setting() {
    let mut seen = std::collections::BTreeMap::new();
    let mut alive = 0;
    for seed in 0..2000 {
        let case = cases::random_estimators(seed);
        let out = whole(&format!("random estimators {seed}"), &case);
        if out.rollouts.iter().all(|r| r.advantages.iter().all(|&a| a == 0.0)) {
            continue;
        }
        alive += 1;
        let c = &case.cfg;
        let mut features = vec![
            format!("{:?} {:?}", c.kl_in_reward, c.kl_place),
            format!("{:?} {:?} {:?}", c.credit, c.scan_mask, c.gae_over),
            format!("{:?} {:?}", c.fusion, c.outcome.place),
            format!("{:?} {:?}", c.step_value, c.step_sets),
            format!("{:?} {:?}", c.step_value, c.pool),
            format!("{:?} {:?}", c.divide_by, c.divide_scope),
            format!("returns {} length {}", c.lam_returns, c.lam_length_alpha),
        ];
        features.extend(c.streams()[c.process.len()..].iter().map(|s| format!("{:?} {:?} {:?}", s.center, s.scale, s.zero_variance)));
        features.into_iter().for_each(|f| *seen.entry(f).or_insert(0) += 1);
    }
    assert!(alive > 1500, "only {alive} of 2000 random cases have an advantage");
    let rare: Vec<_> = seen.iter().filter(|(_, count)| **count < 5).collect();
    assert!(seen.len() >= 90 && rare.is_empty(), "{} features, rare: {rare:?}", seen.len());
}

#[test]
fn k_0_gamma_1_is_the_sum_of_eq_3() {
    // Eq. 3: the advantage of a token is the sum of the standardised scores of its own and all later steps.
    let case = find("grpo_process");
    let out = shape(&case.cfg, &case.batch);
    for g in 0..case.batch.num_groups {
        let members: Vec<usize> = (0..case.batch.rollouts.len()).filter(|&i| case.batch.rollouts[i].group == g).collect();
        // The score of each step that has a token, by walking the tokens.
        let steps = |i: usize| -> Vec<(usize, f64)> {
            let r = &case.batch.rollouts[i];
            let ends = r.step_ends.as_ref().unwrap();
            let of = |t: usize| (0..ends.len()).find(|&j| (t as i64) < ends[j]).unwrap_or(ends.len() - 1);
            let mut found: Vec<(usize, f64)> = Vec::new();
            for t in 0..r.len {
                if found.last().is_none_or(|last| last.0 != of(t)) {
                    found.push((of(t), r.step_scores[0][of(t)] as f64));
                }
            }
            found
        };
        let pool: Vec<f64> = members.iter().flat_map(|&i| steps(i)).map(|s| s.1).collect();
        let mean = pool.iter().sum::<f64>() / pool.len() as f64;
        let std = (pool.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (pool.len() - 1) as f64).sqrt();
        for &i in &members {
            let mut to_go: f64 = steps(i).iter().map(|s| (s.1 - mean) / (std + 1e-6)).sum();
            let mut at = 0;
            for (n, (_, s)) in steps(i).iter().enumerate() {
                let end = out.rollouts[i].chunk_ends[n] as usize;
                out.rollouts[i].advantages[at..end].iter().for_each(|a| assert!((a - to_go).abs() < 1e-9));
                to_go -= (s - mean) / (std + 1e-6);
                at = end;
            }
        }
    }
}

#[test]
fn outcome_alone_is_grpo_whatever_k_and_gamma_are() {
    // One chunk a rollout: the standardised reward on every token.
    let case = find("kind_none_no_format");
    let out = shape(&case.cfg, &case.batch);
    for g in 0..case.batch.num_groups {
        let members: Vec<usize> = (0..case.batch.rollouts.len()).filter(|&i| case.batch.rollouts[i].group == g).collect();
        let rewards: Vec<f64> = members.iter().map(|&i| case.batch.rollouts[i].outcome.unwrap() as f64).collect();
        let n = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        for (&i, r) in members.iter().zip(&rewards) {
            let expected = if std == 0.0 { 0.0 } else { (r - mean) / (std + 1e-6) };
            assert_eq!(out.rollouts[i].num_chunks, 1);
            out.rollouts[i].advantages.iter().for_each(|a| assert!((a - expected).abs() < 1e-12));
        }
    }
    assert_eq!(distance(&out, &with(&case, |c| (c.k, c.gamma) = (3.0, 0.5))), 0.0);
}

#[test]
fn outcome_leaves_the_factor_of_the_remaining_chunks() {
    // docs/formulas.md §2.5: a constant counted K-j+1 times over (K-j+1)^k leaves (K-j+1)^(1-k).
    let mut case = find("chunk_token_holes");
    case.batch.rollouts.iter_mut().for_each(|r| r.format_ok = Some(true));
    case.cfg.process[0].weight = 0.0;
    let flat = with(&case, |c| c.chunk = Chunk::None);
    let out = shape(&case.cfg, &case.batch);
    for (o, f) in out.rollouts.iter().zip(&flat.rollouts) {
        let mut left = o.num_chunks as f64;
        for t in (0..o.scope.len()).filter(|&t| o.scope[t]) {
            assert!((o.advantages[t] - f.path_score * left.powf(1.0 - case.cfg.k)).abs() < 1e-9);
            left -= 1.0;
        }
    }
}

#[test]
fn zero_variance_is_exact() {
    for name in ["zero_variance_098", "zero_variance_098_loo", "all_zero", "all_zero_abs_max"] {
        let case = find(name);
        // The format reward still varies; only the constant streams are looked at.
        let out = with(&case, |c| c.format.weight = 0.0);
        for (r, o) in case.batch.rollouts.iter().zip(&out.rollouts) {
            assert!(r.format_ok == Some(false) || o.advantages.iter().all(|&a| a == 0.0), "{name}");
        }
    }
}

#[test]
fn order_of_rollouts_and_other_groups_change_nothing() {
    for name in ["csr_holes", "kl_quantised_holes", "pooled", "reward_shaping_kl", "missing_csr_exclude", "gae_holes_bootstrap"] {
        let case = find(name);
        let whole = shape(&case.cfg, &case.batch);
        for g in 0..case.batch.num_groups {
            let mut members: Vec<usize> = (0..case.batch.rollouts.len()).filter(|&i| case.batch.rollouts[i].group == g).collect();
            members.reverse();
            let rollouts = members.iter().map(|&i| Rollout { group: 0, ..case.batch.rollouts[i].clone() }).collect();
            let alone = shape(&case.cfg, &Batch { num_groups: 1, rollouts, ..Batch::default() });
            for (o, &i) in alone.rollouts.iter().zip(&members) {
                assert_eq!(o.chunk_ends, whole.rollouts[i].chunk_ends, "{name}");
                o.advantages.iter().zip(&whole.rollouts[i].advantages).for_each(|(a, b)| assert!((a - b).abs() < 1e-9, "{name}"));
            }
        }
    }
}

#[test]
fn forms_of_the_same_input_agree() {
    // CSR scores, the same scores dense with ends, and sparse marks are one input.
    let spec = Spec { seed: 9, quantised: false, ..Spec::of(Input::Csr) };
    let (cfg, mut csr) = cases::build(&spec);
    let mut rng = Rng(3);
    for r in &mut csr.rollouts {
        // Steps without tokens have no place in the other forms.
        let mut ends: Vec<i64> = (1..r.len as i64).filter(|_| rng.chance(0.3)).collect();
        ends.push(r.len as i64);
        r.step_scores = vec![ends.iter().map(|_| rng.normal() as f32).collect()];
        r.step_ends = Some(ends);
    }
    let value = |r: &Rollout, t: usize| {
        let j = r.step_ends.as_ref().unwrap().iter().position(|&end| (t as i64) < end).unwrap();
        r.step_scores[0][j]
    };
    let (mut dense, mut sparse) = (csr.clone(), csr.clone());
    for (d, s) in dense.rollouts.iter_mut().zip(&mut sparse.rollouts) {
        d.signal = vec![(0..d.len).map(|t| value(d, t)).collect()];
        s.signal = d.signal.clone();
        let ends = s.step_ends.take().unwrap();
        s.step_marks = Some((0..s.len).map(|t| ends.contains(&(t as i64 + 1))).collect());
        d.step_scores.clear();
        s.step_scores.clear();
    }
    let out = shape(&cfg, &csr);
    assert_eq!(distance(&out, &shape(&cfg, &dense)), 0.0);
    assert_eq!(distance(&out, &shape(&cfg, &sparse)), 0.0);
    // Continuous scores do not repeat, so that the detector finds the steps without being given their ends.
    dense.rollouts.iter_mut().for_each(|d| d.step_ends = None);
    assert_eq!(distance(&out, &shape(&cfg, &dense)), 0.0);
}

#[test]
fn opd_is_the_kl_signal_and_gopd_with_lambda_1_is_opd() {
    let case = find("kl_opd");
    let mut signal = case.clone();
    for r in &mut signal.batch.rollouts {
        let logp = r.logp.take().unwrap();
        r.signal = vec![(0..r.len).map(|t| (logp.teacher[t] - logp.policy[t]) as f32).collect()];
    }
    assert_eq!(distance(&shape(&case.cfg, &case.batch), &shape(&signal.cfg, &signal.batch)), 0.0);
    let mut based = find("kl_gopd");
    based.cfg.opd_lambda = 1.0;
    let with_base = shape(&based.cfg, &based.batch);
    based.batch.rollouts.iter_mut().for_each(|r| r.logp.as_mut().unwrap().base = None);
    // The two differences are rounded to f32 from f64 values that differ in the last bits.
    assert!(distance(&with_base, &shape(&based.cfg, &based.batch)) < 1e-6);
}

#[test]
fn gae_with_gamma_and_lam_1_and_no_values_is_the_return_to_go() {
    let case = find("csr_holes");
    let mut gae = case.clone();
    gae.batch.rollouts.iter_mut().for_each(|r| r.values = Some(vec![0.0; r.len]));
    let a = with(&case, |c| c.k = 0.0);
    let b = with(&gae, |c| (c.k, c.credit) = (0.0, Credit::Gae));
    assert!(distance(&a, &b) < 1e-12);
    for (x, y) in a.rollouts.iter().zip(&b.rollouts) {
        x.returns.iter().zip(&y.returns).for_each(|(x, y)| assert!((x - y).abs() < 1e-9));
    }
}

#[test]
fn whitening_leaves_mean_0_and_variance_1() {
    let out = with(&find("whiten_tokens"), |c| c.whiten_epsilon = 0.0);
    let a: Vec<f64> = out.rollouts.iter().flat_map(|o| (0..o.scope.len()).filter(|&t| o.scope[t]).map(|t| o.advantages[t])).collect();
    let n = a.len() as f64;
    let mean = a.iter().sum::<f64>() / n;
    let var = a.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    assert!(mean.abs() < 1e-9 && (var - 1.0).abs() < 1e-9);
}

#[test]
fn quantised_kl_has_real_chunks_and_continuous_kl_a_chunk_a_token() {
    let quantised = shape(&find("kl_quantised").cfg, &find("kl_quantised").batch).report;
    assert!(quantised.sum_chunks * 2 < quantised.tokens_in_scope);
    let continuous = shape(&find("kl_continuous").cfg, &find("kl_continuous").batch).report;
    assert_eq!(continuous.sum_chunks, continuous.tokens_in_scope);
}

#[test]
fn findings_are_found() {
    let bad = |name: &str| shape(&find(name).cfg, &find(name).batch).bad_groups;
    for name in ["inf_outcome", "inf_score", "inf_signal_kl", "inf_logp", "inf_outside_the_sets", "nan_weight_0_stream", "nan_value_gae"] {
        assert!(bad(name).contains(&true), "{name}");
    }
    for name in ["steps_past_the_end", "steps_decreasing", "steps_negative", "begins_overlap", "missing_csr_error"] {
        assert!(bad(name).contains(&true) && bad(name).contains(&false), "{name}");
    }
    assert_eq!(bad("singleton_refuse"), [true, false, true]);
    assert_eq!(bad("singleton_refuse_abs_max"), [false, false]);
    assert_eq!(bad("nan_behind_the_mask"), [false; 3]);
    assert_eq!(bad("step_without_scope"), [false; 3]);
    assert_eq!(bad("absent_rollouts"), [false; 3]);
    assert_eq!(bad("all_groups_bad"), [true; 2]);
}

#[test]
fn kl_edges_on_integers_are_those_of_the_plain_average() {
    // The average of the standardised signal in f64, position by position. Real edges of these signals are far above the 1e-6 that
    // stands for eta here, and what is no edge is far below it.
    for name in [
        "kl_quantised",
        "kl_quantised_holes",
        "kl_bridge",
        "kl_average_over_group",
        "kl_average_over_group_none",
        "kl_average_over_group_loo",
        "kl_abs_max",
        "kl_mean",
        "kl_leave_one_out",
        "kl_loo_group_std",
        "kl_none",
        "kl_absent_rollouts",
    ] {
        let case = find(name);
        let row = &case.cfg.process[0];
        let out = shape(&case.cfg, &case.batch);
        for g in 0..case.batch.num_groups {
            let members: Vec<usize> =
                (0..case.batch.rollouts.len()).filter(|&i| case.batch.rollouts[i].group == g && !case.batch.rollouts[i].absent).collect();
            let scope = |i: usize| (0..out.rollouts[i].scope.len()).filter(|&t| out.rollouts[i].scope[t]).collect::<Vec<usize>>();
            let x = |i: usize, t: usize| case.batch.rollouts[i].signal[0][t] as f64;
            let set: Vec<f64> = members.iter().flat_map(|&i| scope(i).into_iter().map(move |t| x(i, t))).collect();
            let n = set.len() as f64;
            let sum: f64 = set.iter().sum();
            let std = (set.iter().map(|v| (v - sum / n).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let max = set.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let standard = |v: f64| {
                let centered = match row.center {
                    Center::None => v,
                    Center::Group => v - sum / n,
                    Center::LeaveOneOut => v - (sum - v) / (n - 1.0),
                    other => panic!("{other:?}"),
                };
                match row.scale {
                    Scale::Group => centered / (std + 1e-6),
                    Scale::AbsMax => centered / max,
                    _ => centered,
                }
            };
            let mut average = std::collections::BTreeMap::new();
            for &i in &members {
                for &t in &scope(i) {
                    let at = average.entry(t - scope(i)[0]).or_insert((0.0, 0.0));
                    *at = (at.0 + standard(x(i, t)), at.1 + 1.0);
                }
            }
            let u = |p: usize| average[&p].0 / if case.cfg.average_over == AverageOver::Live { average[&p].1 } else { members.len() as f64 };
            for &i in &members {
                let toks = scope(i);
                let mut ends = Vec::new();
                for w in toks.windows(2) {
                    let gap = w[1] - w[0] > 1 && !case.cfg.bridge_scope_gaps;
                    if gap || (u(w[1] - toks[0]) - u(w[0] - toks[0])).abs() > 1e-6 {
                        ends.push(w[0] as i64 + 1);
                    }
                }
                ends.extend(toks.last().map(|&t| t as i64 + 1));
                assert_eq!(out.rollouts[i].chunk_ends, ends, "{name}: rollout {i}");
            }
        }
    }
}

#[test]
fn leave_one_out_is_the_plain_loop_over_the_others() {
    for name in ["op_loo_std_of_others", "op_leave_one_out", "two_rollouts_loo_std", "zero_variance_but_one"] {
        let case = find(name);
        // Only the outcome, so that a rollout's value is its advantage.
        let out = with(&case, |c| {
            (c.kind, c.chunk, c.format.weight) = (Kind::None, Chunk::None, 0.0);
        });
        for (i, r) in case.batch.rollouts.iter().enumerate().filter(|(_, r)| r.format_ok != Some(false)) {
            let mut others = Vec::new();
            for (j, o) in case.batch.rollouts.iter().enumerate() {
                if j != i && o.group == r.group {
                    others.push(o.outcome.unwrap() as f64);
                }
            }
            let n = others.len() as f64;
            let mean = others.iter().sum::<f64>() / n;
            let std = (others.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let own = r.outcome.unwrap() as f64 - mean;
            let equal = others.iter().all(|v| *v == others[0]);
            let expected = match case.cfg.outcome.scale {
                Scale::None => own,
                _ if equal => 0.0,
                _ => own / (std + 1e-6),
            };
            assert!((out.rollouts[i].path_score - expected).abs() < 1e-9, "{name}: rollout {i}");
        }
    }
}

#[test]
fn opd_over_steps_is_the_csr_of_its_sums() {
    for name in ["opd_steps", "opd_steps_continuous"] {
        let mut case = find(name);
        let out = shape(&case.cfg, &case.batch);
        for r in &mut case.batch.rollouts {
            let logp = r.logp.take().unwrap();
            let ends = r.step_ends.clone().unwrap();
            let mut sums = vec![0.0f64; ends.len()];
            for t in (0..r.len).filter(|&t| r.mask.as_ref().is_none_or(|m| m[t])) {
                let j = ends.iter().position(|&end| (t as i64) < end).unwrap_or(ends.len() - 1);
                sums[j] += (logp.teacher[t] - logp.policy[t]) as f32 as f64;
            }
            r.step_scores = vec![sums.iter().map(|&s| s as f32).collect()];
        }
        assert!(distance(&out, &shape(&case.cfg, &case.batch)) < 1e-12, "{name}");
    }
}

#[test]
fn divide_scope_process_divides_the_process_alone() {
    let case = find("divide_scope_process");
    let apart = shape(&case.cfg, &case.batch);
    let process = with(&case, |c| (c.outcome.weight, c.format.weight) = (0.0, 0.0));
    let sequence = with(&case, |c| {
        c.process[0].weight = 0.0;
        c.chunk = Chunk::None;
    });
    for (i, r) in case.batch.rollouts.iter().enumerate().filter(|(_, r)| r.format_ok != Some(false)) {
        for t in 0..r.len {
            let sum = process.rollouts[i].advantages[t] + sequence.rollouts[i].advantages[t];
            assert!((apart.rollouts[i].advantages[t] - sum).abs() < 1e-9);
        }
    }
}
