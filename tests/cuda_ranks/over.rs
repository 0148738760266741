//! A batch over ranks as threads, on either backend, and what its shares are held to.
use crate::engine::{Engine, Seat};
use crate::harness::{self, Got, How, Outputs, device, library};
use crate::oracle::{Batch, Config, StepSets, TokenBaseline};
use crate::wire;
use crate::world::Run;
use crate::cases;
use passrl::abi::types::*;
use std::sync::Arc;

/// What every rank is given: the whole batch, of which each takes its rollouts.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub cfg: &'a Config,
    pub config: &'a passrl_config,
    pub limits: &'a passrl_limits,
    pub batch: &'a Batch,
    pub member: &'a [usize],
}

/// What one rank of a run gets.
pub struct Share {
    pub rows: Vec<usize>,
    pub status: i32,
    pub said: String,
    pub got: Option<Got>,
    /// Is every output what it was before?
    pub untouched: bool,
}

impl<'a> World<'a> {
    pub fn rows(&self, rank: usize) -> Vec<usize> {
        (0..self.batch.rollouts.len()).filter(|i| self.member[*i] == rank).collect()
    }

    pub fn part(&self, rank: usize) -> Batch {
        Batch { rollouts: self.rows(rank).iter().map(|i| self.batch.rollouts[*i].clone()).collect(), ..self.batch.clone() }
    }

    /// Runs it over ranks as threads. `edit` damages a rank's batch, `tune` its configuration and limits.
    pub fn run(
        &self,
        engine: Engine,
        how: &How,
        edit: &Edit,
        tune: &Tune,
    ) -> Vec<Share> {
        let engine = Arc::new(engine);
        let one = |rank: usize| {
            let seat = Seat::new(&engine, rank, how.cuda);
            if how.cuda {
                device::driver().expect("a driver").use_device();
            }
            let (mut config, mut limits) = (*self.config, *self.limits);
            tune(rank, &mut config, &mut limits);
            let (rows, part) = (self.rows(rank), self.part(rank));
            let plan = match library().plan_over(&config, &limits, how, &seat.collective()) {
                Ok(plan) => plan,
                Err((status, said)) => return Share { rows, status, said, got: None, untouched: true },
            };
            seat.expect(wire::messages(&plan, true));
            let mut placed = harness::place(self.cfg, &part, how);
            edit(rank, &mut placed.batch);
            let mut outputs = Outputs::new(&placed, how);
            let before = bytes_of(&mut outputs);
            let (status, said) = if how.cuda {
                let run: Run = library().get("passrl_plan_run");
                device::call(&plan, &mut placed, &mut outputs, how, |batch, outputs, workspace, bytes, stream| {
                    // Memory that another rank frees waits for all work of the device: none is under way before all have made theirs.
                    engine.meet();
                    // SAFETY: a live plan, views of live device memory.
                    let status = unsafe { run(plan.plan, batch, outputs, workspace, bytes, stream) };
                    // Drained once every rank's work is on its stream.
                    engine.meet();
                    status
                })
            } else {
                plan.run(&mut placed, &mut outputs, how)
            };
            // A rank that is done keeps its stream's memory until all are.
            engine.meet();
            let untouched = bytes_of(&mut outputs) == before;
            let got = (status >= 0).then(|| outputs.collect(&placed, status, said.clone()));
            Share { rows, status, said, got, untouched }
        };
        let shares = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..engine.size).map(|rank| scope.spawn({ let one = &one; move || one(rank) })).collect();
            ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
        });
        let wrong = engine.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        shares
    }

    pub fn plainly(&self, size: usize, how: &How) -> Vec<Share> {
        self.run(Engine::new(size), how, &|_, _| (), &|_, _, _| ())
    }
}

pub type Edit = dyn Fn(usize, &mut passrl_batch) + Sync;
pub type Tune = dyn Fn(usize, &mut passrl_config, &mut passrl_limits) + Sync;

/// The bytes of all outputs.
pub fn bytes_of(outputs: &mut Outputs) -> Vec<u8> {
    // SAFETY: the arena's own bytes.
    outputs.arena_mut().memory.iter().flat_map(|m| unsafe { std::slice::from_raw_parts(m.at, m.bytes()) }.to_vec()).collect()
}

pub fn cuda(how: How) -> How {
    How { cuda: true, ..how }
}

pub fn in_pieces(cfg: &Config) -> bool {
    cfg.step_sets == StepSets::Group && cfg.token_baseline == TokenBaseline::None
}

/// A draw of ranks for the rollouts in which every rank that has any gives the inputs that the batch gives.
pub fn draw(batch: &Batch, size: usize, seed: u64) -> Option<Vec<usize>> {
    let mut rng = cases::Rng(seed);
    let member: Vec<usize> = batch.rollouts.iter().map(|_| rng.below(size)).collect();
    let whole = harness::forms(&batch.rollouts);
    let of = |rank| batch.rollouts.iter().zip(&member).filter(|(_, m)| **m == rank).map(|(r, _)| r.clone()).collect::<Vec<_>>();
    (0..size).map(of).all(|part| part.is_empty() || harness::forms(&part) == whole).then_some(member)
}

/// Against one call on the whole batch, and rank by rank against the CPU's own run over ranks.
pub fn differs(name: &str, batch: &Batch, whole: &Got, cpu: &[Share], shares: &[Share]) -> Vec<String> {
    let mut found = Vec::new();
    let mut all = harness::empty(batch);
    for (rank, (share, twin)) in shares.iter().zip(cpu).enumerate() {
        let (Some(got), Some(twin)) = (&share.got, &twin.got) else {
            found.push(format!("{name}: rank {rank}: {} {}; on the CPU {} {}", share.status, share.said, twin.status, twin.said));
            return found;
        };
        harness::gather(&mut all, &share.rows, got);
        if !share.rows.is_empty() && got.stats != whole.stats {
            found.push(format!("{name}: statistics of rank {rank}"));
        }
        if (got.status, &got.group_flags, &got.rollout_flags, got.padding_is_zero) != (twin.status, &twin.group_flags, &twin.rollout_flags, twin.padding_is_zero) {
            found.push(format!("{name}: status or flags of rank {rank}: {} {:?} {:?}, on the CPU {} {:?} {:?}", got.status, got.group_flags, got.rollout_flags, twin.status, twin.group_flags, twin.rollout_flags));
        }
        let counts = |r: &passrl_report| {
            [
                r.findings, r.first_finding, r.first_rollout, r.first_group, r.first_stream, r.rollouts, r.tokens, r.chunks, r.degenerate_groups, r.bad_groups,
                r.violating_groups, r.missing_values, r.nonfinite_values, r.low_logps, r.clipped_tokens, r.overflowed_tokens, r.bad_steps, r.lost_deviations,
            ]
        };
        if counts(&got.report) != counts(&twin.report) {
            found.push(format!("{name}: report of rank {rank}: {:?}, on the CPU {:?}", counts(&got.report), counts(&twin.report)));
        }
    }
    if all.bits() != whole.bits() {
        found.push(format!("{name} on {} ranks: bits", shares.len()));
    }
    found
}

/// Every case with PASSRL_RANKS=all (`make ranks`), else one in so many.
pub fn every(sample: usize) -> usize {
    if std::env::var("PASSRL_RANKS").is_ok_and(|v| v == "all") { 1 } else { sample }
}

/// Both backends over `size` ranks.
pub fn check(name: &str, world: &World, size: usize, how: &How, whole: &Got) -> Vec<String> {
    let (cpu, shares) = (world.plainly(size, how), world.plainly(size, &cuda(*how)));
    differs(name, world.batch, whole, &cpu, &shares)
}
