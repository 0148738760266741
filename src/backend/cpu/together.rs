//! What a group's rollouts have in common, found out once a group or a call instead of once a rollout: of a short call that is most of the work.
use super::members::Members;
use super::rollout_streams;
use super::scope::Scope;
use super::signal;
use super::worker::{Job, Worker};
use crate::model::array::DType;
use crate::model::batch::Process;
use crate::model::config::*;
use crate::model::flags;
use crate::numerics::exact::{self, Extremes, Grid, Sums};
use crate::numerics::simd::Simd;
use crate::plan::partials::GroupState;
use crate::plan::workspace::{Rollout, state};

/// Rollouts of a group whose values are summed at once: as many as exact sums on the finer grid allow.
const MOST: usize = 1 << 17;

/// Are all tokens of each rollout in scope, and is there nothing to find in them before they are read: does `prepare` come to the same for all?
pub fn alike(job: &Job) -> bool {
    let (problem, c) = (job.problem, job.config());
    let given = job.joint.is_none()
        && problem.pieces.is_none()
        && problem.mask.is_none()
        && problem.absent.is_none()
        && problem.in_stats.is_none()
        && problem.steps.is_none()
        && problem.step_marks.is_none()
        && problem.reference.is_none()
        && problem.baseline_inputs.is_none();
    // A rollout without a stream is told of: none is where each has a process signal, or no value can be excluded.
    let streams = || rollout_streams::places(job.given).all(|s| c.streams[OUTCOME + s].missing != Missing::Exclude);
    given
        && match c.kind {
            Kind::Kl => job.by_token.kl && c.streams[..problem.num_process].iter().all(|row| row.missing == Missing::Error),
            Kind::None => job.by_token.unlisted && streams(),
            _ => false,
        }
}

impl Worker<'_> {
    /// `prepare` of a rollout like all others (`alike`). `false`: it has no tokens, which is told.
    pub fn prepare_alike(&mut self, i: usize, group: usize) -> bool {
        let job = self.job;
        let at = job.problem.extent(i);
        let len = at.len as u32;
        if len == 0 {
            return false;
        }
        let mut kept = Rollout { group: group as u32, end: len, count: len, total: len, ..Rollout::default() };
        if job.problem.format_ok.is_some_and(|ok| !ok.flag(i)) {
            kept.flags |= flags::ROLLOUT_FORMAT_VIOLATING;
        }
        if job.config().kind == Kind::Kl {
            if job.counting && matches!(job.problem.process, Process::LogProbs { .. }) {
                self.report.low_logps += signal::count_low(job.simd(), job.problem, &at, &Scope::span(0, at.len));
            }
            (kept.elements, kept.state) = (len, state::HAS_PROCESS);
        } else {
            (kept.chunks, kept.state) = (1, if len == 1 { state::EVERY_TOKEN } else { 0 });
        }
        // SAFETY: the rollout is this thread's.
        unsafe { job.keep(i, kept) };
        #[cfg(target_arch = "x86_64")]
        super::by_token::went(super::by_token::Way::Alike);
        true
    }

    /// Is there no set whose maxima and sums are not known (`known`: those of kl's), and nothing else that `extremes` would find? Then what it says of the
    /// members stands in `to`.
    pub fn settled(&self, members: Members, known: Option<usize>, to: &mut GroupState) -> bool {
        let problem = self.job.problem;
        // gae: values and rewards are judged by what comes of them.
        let found = if self.job.config().kind == Kind::Kl { known.is_some() } else { self.late && problem.bootstrap.is_none() && problem.rollout_lam.is_none() };
        if !self.job.alike || !self.together || !found {
            return false;
        }
        to.members += members.len() as i64;
        for i in members.iter() {
            to.format = to.format.max(if self.job.rollout(i).flags & flags::ROLLOUT_FORMAT_VIOLATING != 0 { 1 } else { 2 });
        }
        true
    }

    /// Maxima and sums of the sets of the group's per-rollout streams, into `to`, where their values lie side by side, nothing is done to them and all are
    /// finite. `false`: they are taken a rollout at a time.
    pub fn streams_together(&mut self, members: Members, to: &mut GroupState) -> bool {
        let job = self.job;
        let (problem, c, slots) = (job.problem, job.config(), &job.plan.slots);
        let Members::Range(a, b) = members else { return false };
        // The baseline goes no short way, so that all that do are held against it.
        let plain = job.simd() != Simd::Baseline
            && a < b
            && b - a < MOST
            && job.joint.is_none()
            && problem.pieces.is_none()
            && problem.in_stats.is_none()
            && problem.absent.is_none()
            && problem.reference.is_none()
            && problem.baselines.is_none()
            && !slots.joint
            && slots.runner_up == 0
            && c.fusion != Fusion::RewardSum;
        if !plain {
            return false;
        }
        let mut found = [(Extremes::EMPTY, Sums::default()); rollout_streams::COUNT];
        for s in rollout_streams::places(job.given) {
            let (row, slot) = (&c.streams[OUTCOME + s], slots.of_rollout_stream(s));
            let Some(stream) = problem.rollout_streams[s].filter(|stream| stream.dtype == DType::F32) else { return false };
            let line = stream.whole();
            let Some(values) = line.slice::<f32>().and_then(|values| values.get(a..b)) else { return false };
            if row.center == Center::LengthWeighted || row.count_by != CountBy::Rollout || row.clip_value != f64::INFINITY {
                return false;
            }
            let extremes = exact::few_extremes(job.simd(), values);
            if extremes.is_bad() {
                return false;
            }
            exact::sums_wide_of(job.simd(), &Grid::new(job.plan.bits(slot), extremes.absmax), values, &extremes, &mut found[s].1);
            found[s].0 = extremes;
        }
        for s in rollout_streams::places(job.given) {
            let slot = slots.of_rollout_stream(s);
            (to.extremes[slot], to.sums[slot]) = found[s];
        }
        #[cfg(target_arch = "x86_64")]
        super::by_token::went(super::by_token::Way::Together);
        true
    }
}
