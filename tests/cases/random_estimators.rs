//! Seeded batches that mix the settings of the estimators (rules 47 to 66) with all others. Beside `random`, whose batches stay what they were.
use super::build::*;
use super::random::{configure, disturb, INPUTS};
use super::Case;
use crate::oracle::*;

pub fn random_estimators(seed: u64) -> Case {
    let mut rng = Rng(seed ^ 0xE571_AA70_4500);
    let input = rng.pick(&INPUTS);
    let nothing = matches!(input, Input::Nothing | Input::NothingSteps);
    let credit = rng.pick(&[Credit::ReturnToGo, Credit::ReturnToGo, Credit::Broadcast, Credit::Gae, Credit::Gae, Credit::Vtrace]);
    let valued = matches!(credit, Credit::Gae | Credit::Vtrace);
    let fusion = match rng.below(12) {
        0 if !nothing => Fusion::RewardShaping,
        1 if !nothing => Fusion::Pooled,
        2..6 => Fusion::RewardSum,
        _ => Fusion::Advantage,
    };
    let joint = matches!(fusion, Fusion::RewardShaping | Fusion::Pooled);
    let alone = matches!(input, Input::OpdSteps | Input::GOpdSteps | Input::KlOpd | Input::KlGOpd);
    let format = rng.chance(0.7);
    // Under `scan_mask = none` what is out of scope is read: most of the time it is to be sound.
    let scan_mask = rng.pick(&[ScanMask::Carry, ScanMask::Carry, ScanMask::Decay, ScanMask::None]);
    let spec = Spec {
        seed: rng.next(),
        input,
        sizes: if rng.chance(0.02) { Vec::new() } else { (0..1 + rng.below(4)).map(|_| rng.pick(&[0, 1, 2, 3, 5, 8])).collect() },
        interleave: rng.chance(0.5),
        max_len: rng.pick(&[1, 6, 33, 90]),
        streams: if !joint && !alone { rng.pick(&[1, 1, 2, 4]) } else { 1 },
        others: if joint { 0 } else { rng.pick(&[0, 1, 3]) },
        outcome: rng.chance(0.9) || nothing,
        format,
        ok: format && rng.chance(0.6),
        holes: rng.pick(&[0.0, 0.1, 0.5]),
        poison: rng.chance(if scan_mask == ScanMask::None { 0.1 } else { 0.6 }),
        begins: rng.chance(0.2),
        quantised: rng.chance(0.5),
        chunk_marks: rng.chance(0.1),
        values: valued,
        token_rewards: rng.chance(0.3),
        bootstrap: valued && rng.chance(0.5),
        baselines: rng.chance(0.4),
        lams: rng.chance(0.2),
        reference: rng.chance(0.5),
        behavior: credit == Credit::Vtrace,
        step_group: input == Input::Csr && rng.chance(0.4),
        unscored: false,
        sum_pi_squared: Rng(seed).chance(0.3),
        token_ratio: Rng(seed).chance(0.1),
        empty: rng.pick(&[0.0, 0.1, 0.4]),
    };
    let unscored = input == Input::Csr && spec.outcome && rng.chance(0.15);
    let spec = Spec { unscored, streams: if unscored { 1 } else { spec.streams }, ..spec };
    let (mut cfg, mut batch) = build(&spec);
    configure(&mut rng, &spec, valued, fusion, &mut cfg);
    if cfg.credit == Credit::Gae || !valued {
        cfg.credit = credit;
    }
    rows(&mut rng, &spec, joint, &mut cfg);
    rewards_and_scans(&mut rng, &spec, scan_mask, &mut cfg);
    steps(&mut rng, &spec, &mut cfg);
    if cfg.gae_over == GaeOver::Chunks {
        batch.rollouts.iter_mut().for_each(|r| r.token_rewards = None);
    }
    let over_tokens = cfg.takes_token_rewards() && (cfg.has_values() || cfg.divide_by == DivideBy::Count);
    if spec.sum_pi_squared && over_tokens {
        (cfg.token_baseline, cfg.k) = (rng.pick(&[TokenBaseline::Position, TokenBaseline::Token]), 0.0);
    }
    disturb(&mut rng, &mut cfg, &mut batch);
    if rng.chance(0.1) {
        disturb_inputs(&mut rng, &mut batch);
    }
    statistics(&mut Rng(seed ^ 0x57A7_15_71C5), &mut cfg, &mut batch);
    Case { name: "random estimators", cfg, batch }
}

/// In one seed of three: values counted by steps, and statistics that the caller gives. Drawn by themselves, so that other seeds stay what they were.
fn statistics(rng: &mut Rng, cfg: &mut Config, batch: &mut Batch) {
    use Center as C;
    use Scale as S;
    if !rng.chance(0.34) || !matches!(cfg.fusion, Fusion::Advantage | Fusion::RewardSum) {
        return;
    }
    let by_step = cfg.kind == Kind::Prm && rng.chance(0.5);
    let p = cfg.process.len();
    // An average over the whole group asks for the group's own shift; steps of equal state, for their own sets.
    let averages = cfg.kind == Kind::Kl && cfg.chunk == Chunk::ByValue && cfg.average_over == AverageOver::Group;
    let (states, mean) = (cfg.step_sets == StepSets::StepGroup, cfg.chunk_value == ChunkValue::Mean);
    let by_baselines = batch.rollouts.iter().any(|r| r.baseline.is_some());
    for (s, row) in cfg.streams_mut().into_iter().enumerate() {
        let process = s < p;
        if rng.chance(0.4) && !(process && states) {
            match rng.below(3) {
                0 if row.center != C::LengthWeighted => row.scale = S::Given,
                1 if !(process && averages) => (row.center, row.scale) = (C::Given, S::Given),
                _ if !(process && averages) => (row.center, row.scale) = (C::Given, rng.pick(&[S::None, S::Group, S::AbsMax])),
                _ => {}
            }
        }
        let own_set = matches!(row.center, C::None | C::Group | C::Given | C::RunnerUp)
            && matches!(row.scale, S::None | S::Group | S::Given | S::AbsMax | S::Mean);
        if !process && by_step && own_set && rng.chance(0.7) {
            row.count_by = CountBy::Step;
        }
        assert!(!(process && mean && row.scale == S::LeaveOneOut));
    }
    let lines = if rng.chance(0.2) { batch.num_groups.min(1) } else { batch.num_groups };
    let bad = if rng.chance(0.15) { 0.1 } else { 0.0 };
    let mut line = |asked: &dyn Fn(usize, &StreamCfg) -> bool, of: &dyn Fn(&mut Rng) -> f64| {
        let mut line = [f64::NAN; 16];
        for (s, row) in cfg.streams().into_iter().enumerate() {
            let column = if s < p { s } else { 4 + s - p };
            if asked(s, row) {
                line[column] = if rng.chance(bad) { rng.pick(&[f64::NAN, f64::INFINITY, -1.0, 0.0]) } else { of(rng) };
            }
        }
        line
    };
    let means = (0..lines).map(|_| line(&|s, row| row.center == C::Given && !(s == p && by_baselines), &|rng| rng.normal())).collect();
    let stds = (0..lines).map(|_| line(&|_, row| row.scale == S::Given, &|rng| rng.pick(&[0.25, 0.5, 1.0, 0.1]) + rng.unit())).collect();
    (batch.stats_mean, batch.stats_std) = (Some(means), Some(stds));
}

/// What is subtracted from a per-rollout stream, what it is divided by, and where its term goes.
fn rows(rng: &mut Rng, spec: &Spec, joint: bool, cfg: &mut Config) {
    use Center as C;
    use Scale as S;
    for s in cfg.streams_mut() {
        s.zero_variance = rng.pick(&[ZeroVariance::Zero, ZeroVariance::Center]);
    }
    let apart = cfg.divide_scope == DivideScope::Process;
    for (at, s) in [&mut cfg.outcome, &mut cfg.format].into_iter().chain(&mut cfg.others).enumerate() {
        if rng.chance(0.3) {
            s.clip_value = rng.pick(&[0.5, 1.0, 0.3]);
        }
        if joint {
            continue;
        }
        if rng.chance(0.7) {
            (s.center, s.scale) = rng.pick(&[
                (C::Batch, S::None),
                (C::Batch, S::Batch),
                (C::Group, S::Batch),
                (C::None, S::Batch),
                (C::Batch, S::Group),
                (C::Batch, S::LeaveOneOut),
                (C::LeaveOneOut, S::Batch),
                (C::LengthWeighted, S::None),
                (C::LengthWeighted, S::None),
                (C::RunnerUp, S::None),
                (C::RunnerUp, S::Group),
                (C::RunnerUp, S::Batch),
                (C::Group, S::NonzeroShare),
                (C::None, S::NonzeroShare),
                (C::Group, S::Mean),
                (C::None, S::Mean),
            ]);
        }
        if at == 0 && spec.baselines && rng.chance(0.5) {
            (s.center, s.scale) = (C::Given, rng.pick(&[S::None, S::None, S::Group, S::Batch, S::AbsMax, S::NonzeroShare]));
        }
        if !apart {
            s.place = rng.pick(&[Place::Every, Place::Every, Place::Last, Place::End]);
        }
        if rng.chance(0.2) {
            s.clip_standardized = rng.pick(&[0.5, 1.5]);
        }
    }
    let averages = cfg.kind == Kind::Kl && cfg.chunk == Chunk::ByValue && cfg.average_over == AverageOver::Group;
    for s in &mut cfg.process {
        if !joint && rng.chance(0.3) {
            (s.center, s.scale) = (if averages { C::Group } else { rng.pick(&[C::Batch, C::Group]) }, rng.pick(&[S::Batch, S::Batch, S::None]));
        }
    }
}

fn rewards_and_scans(rng: &mut Rng, spec: &Spec, scan_mask: ScanMask, cfg: &mut Config) {
    if cfg.has_values() {
        cfg.divide_scope = DivideScope::All;
        cfg.rho_clip = rng.pick(&[1.0, 2.0, f64::INFINITY]);
        cfg.c_clip = rng.pick(&[1.0, 0.5, f64::INFINITY]);
        cfg.lam_returns = rng.pick(&[-1.0, -1.0, 1.0, 0.5]);
        cfg.lam_length_alpha = rng.pick(&[0.0, 0.0, 0.1, 2.0]);
    }
    if cfg.chunk != Chunk::Given && rng.chance(0.3) {
        cfg.chunk = rng.pick(&[Chunk::Token, Chunk::Segment]);
    }
    if cfg.credit == Credit::Gae && rng.chance(0.3) {
        cfg.gae_over = GaeOver::Chunks;
    }
    if !cfg.has_values() && rng.chance(0.2) {
        (cfg.divide_by, cfg.k) = (DivideBy::DiscountedCount, 1.0);
    }
    let over_tokens = cfg.takes_token_rewards();
    if scan_mask != ScanMask::Carry && over_tokens && cfg.credit != Credit::Vtrace && cfg.divide_by == DivideBy::Count {
        (cfg.scan_mask, cfg.k) = (scan_mask, 0.0);
    }
    if spec.reference {
        cfg.kl_in_reward = rng.pick(&[KlInReward::K1, KlInReward::K2, KlInReward::K3, KlInReward::Abs]);
        cfg.kl_place = if over_tokens { rng.pick(&[KlPlace::Reward, KlPlace::Advantage, KlPlace::Outcome]) } else { KlPlace::Outcome };
        if cfg.kl_place == KlPlace::Outcome && !spec.outcome {
            cfg.kl_in_reward = KlInReward::None;
        }
        cfg.kl_coef = rng.pick(&[0.05, -0.1, 1.0, 0.0]);
        cfg.kl_log_ratio_clamp = rng.pick(&[f64::INFINITY, 10.0, 0.25]);
        cfg.kl_clamp = rng.pick(&[f64::INFINITY, 10.0, 0.1]);
    }
}

fn steps(rng: &mut Rng, spec: &Spec, cfg: &mut Config) {
    let csr = spec.input == Input::Csr;
    if spec.unscored || (csr && rng.chance(0.5)) {
        (cfg.step_value, cfg.step_gamma) = (StepValue::ReturnToGo, rng.pick(&[1.0, 0.9, 0.0]));
    }
    if spec.step_group && cfg.fusion == Fusion::Advantage {
        (cfg.step_sets, cfg.pool, cfg.chunk_value) = (StepSets::StepGroup, Pool::Steps, ChunkValue::Last);
        for s in &mut cfg.process {
            s.loo_unit = LooUnit::Element;
            if matches!(s.center, Center::Batch) || s.scale == Scale::Batch {
                (s.center, s.scale) = (Center::Group, Scale::Group);
            }
            if s.singleton == Singleton::Refuse {
                s.singleton = Singleton::Zero;
            }
        }
    } else if cfg.fusion == Fusion::Advantage && rng.chance(0.35) && !(cfg.kind == Kind::Kl && cfg.chunk == Chunk::ByValue) {
        cfg.pool = Pool::Rollouts;
        for s in cfg.process.iter_mut().filter(|s| s.scale == Scale::LeaveOneOut) {
            s.loo_unit = LooUnit::Rollout;
        }
    }
}

/// Bad values here and there in the estimators' inputs.
fn disturb_inputs(rng: &mut Rng, batch: &mut Batch) {
    for r in &mut batch.rollouts {
        for v in [&mut r.baseline, &mut r.lam].into_iter().flatten() {
            if rng.chance(0.05) {
                *v = f32::NAN;
            }
        }
        for row in [&mut r.logp_reference, &mut r.logp_behavior, &mut r.sum_pi_squared, &mut r.token_ratio].into_iter().flatten() {
            row.iter_mut().for_each(|p| {
                if rng.chance(0.01) {
                    *p = f64::NEG_INFINITY;
                }
            });
        }
        for row in [&mut r.token_rewards, &mut r.values].into_iter().flatten() {
            row.iter_mut().for_each(|v| {
                if rng.chance(0.005) {
                    *v = f32::NAN;
                }
            });
        }
    }
}
