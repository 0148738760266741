//! A plan: configuration and limits turned into decisions, once. Pure host code; no pointers, no device.
pub mod divisors;
mod inputs;
pub mod partials;
pub mod pieces;
pub mod primitives;
pub mod ranks;
mod states;
pub mod workspace;

use crate::error::Result;
use crate::model::config::*;
use crate::model::names::StreamNames;
use crate::numerics::simd::Simd;
use crate::numerics::table::decay_powers;
use divisors::{Divisors, Tables};
use partials::Partials;
use workspace::Workspace;

/// The sets that the configuration has: the process sets, then outcome, format and further streams, in the stream table's order.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub count: usize,
    /// Process streams of the configuration.
    pub process: usize,
    /// Process sets: one a stream; with `joint` also set 1, the shaped reward or the pooled set, beside that of the signal the detector reads.
    pub sets: usize,
    pub joint: bool,
    /// Lists of process values: one a stream; with `shaped` (fusion `reward_shaping`) also list 1, R.
    pub lists: usize,
    pub shaped: bool,
    /// Slots (bits) that have a set of the whole batch.
    pub batch: u32,
    /// Slots (bits) that need the second largest value.
    pub runner_up: u32,
}

impl Slots {
    fn new(config: &Config) -> Slots {
        let joint = matches!(config.fusion, Fusion::RewardShaping | Fusion::Pooled);
        let shaped = config.fusion == Fusion::RewardShaping;
        let process = config.num_process;
        let sets = process + usize::from(joint);
        let count = sets + 2 + config.num_extra;
        let mut slots = Slots { count, process, sets, joint, lists: process + usize::from(shaped), shaped, batch: 0, runner_up: 0 };
        for slot in 0..count {
            let row = &config.streams[slots.row(slot)];
            slots.batch |= u32::from(row.asks_batch()) << slot;
            slots.runner_up |= u32::from(row.center == Center::RunnerUp) << slot;
        }
        slots
    }

    /// Slot of a per-rollout stream: 0 outcome, 1 format, 2.. further.
    pub fn of_rollout_stream(&self, stream: usize) -> usize {
        self.sets + stream
    }

    /// Row of the stream table that says how a slot is standardised; findings name it.
    pub fn row(&self, slot: usize) -> usize {
        match slot {
            1 if self.joint => 0,
            s if s < self.sets => s,
            s => OUTCOME + s - self.sets,
        }
    }

    /// Row that reports a slot's statistics: with a joint set that one alone, in row 0.
    pub fn reported(&self, slot: usize) -> Option<usize> {
        if self.joint { (slot == 1).then_some(0) } else { Some(self.row(slot)) }
    }
}

pub struct Plan {
    pub config: Config,
    pub limits: Limits,
    /// Of the rows of the stream table, for sentences.
    pub names: StreamNames,
    pub slots: Slots,
    pub workspace: Workspace,
    pub partials: Partials,
    pub divisors: Divisors,
    /// Powers of the scan's coefficient: gamma, or gamma * lam for gae.
    pub decay: [f64; 33],
    pub threads: usize,
    pub simd: Simd,
    /// One rank among several, whose statistics are reduced within a run.
    pub ranks: Option<ranks::Ranks>,
}

impl Plan {
    /// `tables`: those of the context.
    pub fn create(config: Config, limits: Limits, threads: usize, simd: Simd, tables: &Tables) -> Result<Plan> {
        let slots = Slots::new(&config);
        let coefficient = if config.credit == Credit::Gae { config.gamma * config.lam } else { config.gamma };
        Ok(Plan {
            config,
            limits,
            names: StreamNames::TABLE,
            slots,
            workspace: Workspace::new(&config, &limits, &slots, threads),
            partials: Partials::new(&config, &limits, &slots),
            divisors: tables.divisors(&config, limits.rollout_tokens)?,
            decay: decay_powers(coefficient),
            threads,
            simd,
            ranks: None,
        })
    }

    /// Bits of the grid of a slot's set.
    pub fn bits(&self, slot: usize) -> i32 {
        use crate::numerics::exact::{ROLLOUT_BITS, STEP_BITS};
        let row = &self.config.streams[self.slots.row(slot)];
        let narrow = row.center == Center::LengthWeighted || slot < self.slots.sets && row.scale != Scale::LeaveOneOut;
        if narrow { STEP_BITS } else { ROLLOUT_BITS }
    }

    /// Stages, reductions and bytes, in text.
    pub fn describe(&self) -> String {
        use std::fmt::Write;
        let (c, l, p) = (&self.config, &self.limits, &self.partials);
        let mut t = String::new();
        // Writing to a String does not fail.
        let mut line = |text: String| {
            let _ = writeln!(t, "{text}");
        };
        line(format!("passrl plan: cpu, {} thread(s), {}", self.threads, self.simd.name()));
        line(format!("limits: {} rollouts, {} groups, {} tokens, {} a rollout, {} steps", l.rollouts, l.groups, l.tokens, l.rollout_tokens, l.steps));
        line(format!("inputs: {}; no other is read", inputs::read(c).join(", ")));
        line(format!("1. scope and steps: kind {}, pool {}", c.kind.name(), c.pool.name()));
        if (c.step_value, c.step_sets) != (StepValue::Score, StepSets::Group) {
            line(format!("   steps: value {} (gamma {}), sets by {}", c.step_value.name(), c.step_gamma, c.step_sets.name()));
        }
        for slot in 0..self.slots.count {
            let s = &c.streams[self.slots.row(slot)];
            let name = if self.slots.joint && slot == 1 { c.fusion.name().to_string() } else { self.names.of(self.slots.row(slot)).to_string() };
            line(format!(
                "2. group_stats {name}: center {}, scale {}, ddof {}, epsilon {:e} {}, {} bits, weight {}",
                s.center.name(), s.scale.name(), s.ddof, s.epsilon, s.epsilon_mode.name(), self.bits(slot), s.weight
            ));
        }
        line(format!("3. fuse: {}", c.fusion.name()));
        line(format!("4. chunk: {}, eta {:e}, {}", c.chunk.name(), c.eta, c.boundary_rule.name()));
        line(format!("5. returns: {}, gamma {}, lam {}, scan_mask {}, kl_in_reward {}", c.credit.name(), c.gamma, c.lam, c.scan_mask.name(), c.kl_in_reward.name()));
        if c.token_baseline != TokenBaseline::None {
            line(format!("   token_baseline: {}", c.token_baseline.name()));
        }
        line(format!("6. divide: k {}, {}, by {}", c.k, c.divide_scope.name(), c.divide_by.name()));
        line(format!("7. post: temperature {}, whiten {}, clip {}", c.temperature, c.whiten.name(), c.clip));
        line(format!("workspace: {} bytes (touched as far as the data reaches)", self.workspace.bytes));
        line(format!("partials: {} bytes, {} phases", p.bytes, p.phases));
        for phase in 0..p.phases {
            for s in p.sections(phase) {
                let op = if s.op == partials::SUM { "sum" } else { "max" };
                let (dtype, each) = if s.dtype == partials::I64 { ("i64", 8) } else { ("i32", 4) };
                line(format!("  phase {phase}: {op} of {} {dtype}, {} bytes, at {}", s.count, s.count * each, s.offset));
            }
        }
        if let Some(ranks) = self.ranks.as_ref().filter(|r| r.size > 0) {
            t += &ranks.describe();
        }
        t
    }
}
