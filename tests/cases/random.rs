//! A seeded batch and configuration that mix every feature in combinations that the library accepts.
use super::build::*;
use super::Case;
use crate::oracle::*;

pub(super) const INPUTS: [Input; 12] = [
    Input::Csr,
    Input::DenseEnds,
    Input::Dense,
    Input::Sparse,
    Input::OpdSteps,
    Input::GOpdSteps,
    Input::KlSignal,
    Input::KlOpd,
    Input::KlGOpd,
    Input::KlSteps,
    Input::Nothing,
    Input::NothingSteps,
];
const MODES: [EpsilonMode; 4] = [EpsilonMode::AddStd, EpsilonMode::AddVar, EpsilonMode::FloorStd, EpsilonMode::FloorVar];

/// Operators of a stream; a leave-one-out std is refused in some combinations, which the caller repairs.
fn operator(rng: &mut Rng, row: &mut StreamCfg) {
    (row.center, row.scale) = rng.pick(&[
        (Center::Group, Scale::Group),
        (Center::Group, Scale::Group),
        (Center::Group, Scale::None),
        (Center::None, Scale::None),
        (Center::None, Scale::AbsMax),
        (Center::LeaveOneOut, Scale::None),
        (Center::LeaveOneOut, Scale::Group),
        (Center::LeaveOneOut, Scale::LeaveOneOut),
    ]);
    row.ddof = rng.below(2) as u32;
    row.epsilon = rng.pick(&[1e-6, 1e-4, 1e-9]);
    row.epsilon_mode = rng.pick(&MODES);
    row.loo_unit = rng.pick(&[LooUnit::Element, LooUnit::Rollout]);
    row.singleton = match rng.below(16) {
        0 => Singleton::Refuse,
        1..6 => Singleton::Passthrough,
        _ => Singleton::Zero,
    };
    row.missing = rng.pick(&[Missing::Error, Missing::Zero, Missing::Exclude]);
    row.weight = rng.pick(&[1.0, 1.0, 0.5, 0.0, -0.25, 2.0]);
}

pub fn random(seed: u64) -> Case {
    let mut rng = Rng(seed ^ 0x5EED_CA5E);
    let input = rng.pick(&INPUTS);
    let gae = rng.chance(0.15);
    let fusion = match rng.below(10) {
        0 if !matches!(input, Input::Nothing | Input::NothingSteps) => Fusion::RewardShaping,
        1 if !matches!(input, Input::Nothing | Input::NothingSteps) => Fusion::Pooled,
        _ => Fusion::Advantage,
    };
    let alone = matches!(input, Input::OpdSteps | Input::GOpdSteps | Input::KlOpd | Input::KlGOpd);
    let format = rng.chance(0.7);
    let holes = rng.pick(&[0.0, 0.1, 0.5]);
    let spec = Spec {
        seed: rng.next(),
        input,
        // Now and then no group at all, or one without rollouts.
        sizes: if rng.chance(0.02) { Vec::new() } else { (0..1 + rng.below(4)).map(|_| rng.pick(&[0, 1, 2, 3, 4, 5, 8, 12])).collect() },
        interleave: rng.chance(0.5),
        max_len: rng.pick(&[1, 6, 33, 90]),
        streams: if fusion == Fusion::Advantage && !alone { rng.pick(&[1, 1, 2, 4]) } else { 1 },
        others: if fusion == Fusion::Advantage { rng.pick(&[0, 0, 1, 3, 9]) } else { 0 },
        // With kind = none something must be given.
        outcome: rng.chance(0.8) || matches!(input, Input::Nothing | Input::NothingSteps),
        format,
        ok: format && rng.chance(0.7),
        holes,
        poison: rng.chance(0.5),
        begins: rng.chance(0.3),
        quantised: rng.chance(0.6),
        chunk_marks: rng.chance(0.3),
        values: gae,
        token_rewards: gae && rng.chance(0.3),
        bootstrap: gae && rng.chance(0.5),
        empty: rng.pick(&[0.0, 0.1, 0.4]),
        ..Spec::default()
    };
    let (mut cfg, mut batch) = build(&spec);
    configure(&mut rng, &spec, gae, fusion, &mut cfg);
    disturb(&mut rng, &mut cfg, &mut batch);
    Case { name: "random", cfg, batch }
}

pub(super) fn configure(rng: &mut Rng, spec: &Spec, gae: bool, fusion: Fusion, cfg: &mut Config) {
    if rng.chance(0.7) {
        for row in cfg.streams_mut() {
            operator(rng, row);
        }
    } else {
        cfg.set_missing_all(rng.pick(&[Missing::Error, Missing::Zero, Missing::Exclude]));
    }
    cfg.fusion = fusion;
    cfg.pool = rng.pick(&[Pool::Steps, Pool::Steps, Pool::Tokens]);
    cfg.chunk = rng.pick(&[Chunk::ByValue, Chunk::ByValue, Chunk::ByValue, Chunk::Step, Chunk::Token, Chunk::None]);
    if spec.chunk_marks {
        cfg.chunk = Chunk::Given;
    }
    cfg.eta = rng.pick(&[1e-8, 1e-8, 0.3]);
    cfg.boundary_rule = rng.pick(&[BoundaryRule::Adjacent, BoundaryRule::Adjacent, BoundaryRule::Anchored]);
    cfg.merge_equal_steps = rng.chance(0.3);
    cfg.average_over = rng.pick(&[AverageOver::Live, AverageOver::Live, AverageOver::Group]);
    cfg.bridge_scope_gaps = rng.chance(0.3);
    cfg.chunk_value = rng.pick(&[ChunkValue::Last, ChunkValue::Last, ChunkValue::Mean]);
    cfg.gamma = rng.pick(&[1.0, 1.0, 0.99, 0.5, 0.0]);
    cfg.lam = rng.pick(&[1.0, 0.95, 0.0]);
    cfg.k = rng.pick(&[0.7, 0.7, 0.0, 1.0, 2.5, 8.0]);
    cfg.credit = rng.pick(&[Credit::ReturnToGo, Credit::ReturnToGo, Credit::ReturnToGo, Credit::Broadcast]);
    if gae {
        (cfg.credit, cfg.k) = (Credit::Gae, 0.0);
    } else if fusion == Fusion::Advantage && rng.chance(0.25) {
        cfg.divide_scope = DivideScope::Process;
    }
    cfg.temperature = rng.pick(&[1.0, 1.0, 0.5, 3.0]);
    cfg.whiten = rng.pick(&[Whiten::None, Whiten::None, Whiten::None, Whiten::Tokens, Whiten::Rollouts]);
    if gae && cfg.whiten == Whiten::Rollouts {
        cfg.whiten = Whiten::Tokens;
    }
    cfg.whiten_ddof = rng.below(2) as u32;
    cfg.whiten_epsilon = rng.pick(&[1e-8, 1e-5]);
    cfg.whiten_epsilon_mode = rng.pick(&MODES);
    cfg.whiten_shift = rng.chance(0.7);
    cfg.clip = rng.pick(&[f64::INFINITY, f64::INFINITY, 1.0, 0.1]);
    repair(cfg);
}

/// Takes back what the library refuses.
fn repair(cfg: &mut Config) {
    let kl = cfg.kind == Kind::Kl && cfg.chunk == Chunk::ByValue;
    let mean = cfg.chunk_value == ChunkValue::Mean;
    // Leaving a token's value out that is no element of its step is defined, but its std then has no plain meaning.
    let dense = cfg.kind == Kind::Prm;
    for row in &mut cfg.process {
        if row.scale == Scale::LeaveOneOut && (kl || mean || dense) {
            row.scale = Scale::Group;
        }
        if kl {
            row.loo_unit = LooUnit::Element;
        }
    }
}

/// Missing and infinite values, absent rollouts, rollouts that do not count, and steps that do not fit, all of them rare.
pub(super) fn disturb(rng: &mut Rng, cfg: &mut Config, batch: &mut Batch) {
    let level = rng.pick(&[0.0, 0.0, 0.02, 0.2]);
    if level > 0.0 && rng.chance(0.8) {
        // Most of the time a missing value shall not kill its group.
        for row in cfg.streams_mut().into_iter().filter(|row| row.missing == Missing::Error) {
            row.missing = Missing::Exclude;
        }
    }
    let infinite = if rng.chance(0.1) { 0.01 } else { 0.0 };
    let aside = rng.pick(&[0.0, 0.0, 0.2]);
    for r in &mut batch.rollouts {
        r.in_stats = !rng.chance(aside);
        r.absent = rng.chance(aside / 2.0);
        let mut hit = |v: &mut f32| {
            if rng.chance(level) {
                *v = f32::NAN;
            }
            if rng.chance(infinite) {
                *v = f32::NEG_INFINITY;
            }
        };
        r.outcome.iter_mut().for_each(&mut hit);
        r.format.iter_mut().for_each(&mut hit);
        r.others.iter_mut().for_each(&mut hit);
        // Tokens are many: one in eight of the chance that a rollout's own value has.
        r.signal.iter_mut().flatten().step_by(8).for_each(&mut hit);
        r.step_scores.iter_mut().flatten().step_by(2).for_each(&mut hit);
        let shifted = rng.chance(infinite);
        r.step_ends.iter_mut().flatten().for_each(|end| *end += i64::from(shifted));
    }
}
