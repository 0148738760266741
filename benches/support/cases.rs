//! What is timed: the preset `pass` and the estimators, with their layouts, the plain loop that gives the answer, and how near the floor they are to come.
use super::estimators;
use super::reference::{self, Input};
use super::workload::Workload;
use std::ffi::CStr;

/// What the batch carries beside outcome and extents.
#[derive(Clone, Copy, PartialEq)]
pub enum Carries {
    Dense,
    Steps,
    Kl,
    /// Rewards and values a token; the returns are asked for as well.
    Values,
    /// The outcome alone.
    Outcome,
    /// Three rewards a rollout.
    Rewards,
}

/// How the tokens lie, and what says where rollouts end.
#[derive(Clone, Copy, PartialEq)]
pub enum Layout {
    Packed,
    Lengths,
    /// An i64 mask alone, as the trainers' padded batches come.
    Mask,
}

/// Answers in the packed layout, by plain f64 loops.
pub struct Answer {
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
}

pub struct Case {
    pub name: &'static str,
    pub preset: &'static CStr,
    pub set: &'static [(&'static CStr, &'static CStr)],
    pub carries: Carries,
    pub layout: Layout,
    pub answer: fn(&Workload) -> Answer,
    /// Most times the floor: 2 threads, sizes paper and large, f32, warm and cold.
    pub targets: [f64; 2],
}

pub const GAMMA: f64 = 0.99;
pub const LAM: f64 = 0.95;
const GAE: &[(&CStr, &CStr)] = &[(c"whiten", c"none"), (c"gamma", c"0.99"), (c"lam", c"0.95")];

/// Cases of one answer stand together: it is made once.
pub const CASES: [Case; 13] = [
    pass("dense packed", Carries::Dense, Layout::Packed, dense, [1.5, 1.4]),
    pass("dense padded mask", Carries::Dense, Layout::Mask, dense, [1.6, 1.5]),
    pass("dense padded lengths", Carries::Dense, Layout::Lengths, dense, [1.6, 1.5]),
    pass("steps packed", Carries::Steps, Layout::Packed, steps, [1.4, 1.4]),
    pass("steps padded", Carries::Steps, Layout::Lengths, steps, [1.4, 1.4]),
    Case { set: &[(c"kind", c"kl")], ..pass("kl packed", Carries::Kl, Layout::Packed, kl, [3.0, 2.0]) },
    Case { set: &[(c"kind", c"kl")], ..pass("kl padded", Carries::Kl, Layout::Lengths, kl, [3.0, 2.0]) },
    Case { preset: c"verl.gae", set: GAE, ..pass("gae packed", Carries::Values, Layout::Packed, estimators::gae, [1.5, 1.3]) },
    Case { preset: c"verl.gae", set: GAE, ..pass("gae padded", Carries::Values, Layout::Mask, estimators::gae, [1.5, 1.3]) },
    Case { preset: c"verl.grpo", ..pass("grpo padded", Carries::Outcome, Layout::Mask, estimators::grpo, [1.5, 1.4]) },
    Case { preset: c"verl.rloo", ..pass("rloo padded", Carries::Outcome, Layout::Mask, estimators::rloo, [1.5, 1.4]) },
    Case { preset: c"verl.reinforce_plus_plus", ..pass("reinforce++ padded", Carries::Outcome, Layout::Mask, estimators::reinforce, [1.5, 1.4]) },
    Case {
        preset: c"verl.gdpo",
        set: &[(c"num_extra", c"3")],
        ..pass("gdpo padded", Carries::Rewards, Layout::Mask, estimators::gdpo, [1.5, 1.4])
    },
];

const fn pass(name: &'static str, carries: Carries, layout: Layout, answer: fn(&Workload) -> Answer, targets: [f64; 2]) -> Case {
    Case { name, preset: c"pass", set: &[], carries, layout, answer, targets }
}

fn dense(work: &Workload) -> Answer {
    Answer { advantages: reference::advantages(work, Input::Dense), returns: Vec::new() }
}

fn steps(work: &Workload) -> Answer {
    Answer { advantages: reference::advantages(work, Input::Steps), returns: Vec::new() }
}

fn kl(work: &Workload) -> Answer {
    Answer { advantages: reference::advantages(work, Input::Kl), returns: Vec::new() }
}
