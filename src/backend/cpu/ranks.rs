//! One rank's run: the shares of the phases as partials in the workspace, exchanged between the phases, then its rollouts shaped.
use super::pool::Pool;
use super::{apply, crew, joint, lock, members, partials_add};
use crate::error::Result;
use crate::model::batch::Problem;
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::ranks::{Header, WORDS};
use crate::model::report::Report;
use crate::plan::Plan;
use crate::plan::partials::Stage;
use crate::plan::ranks::Message;
use std::sync::Mutex;

/// What the layer above does between the phases.
pub struct Exchange<'a> {
    /// Words before the first message's maxima.
    pub header: [i32; WORDS],
    /// The caller's all-reduce, in place.
    pub reduce: &'a dyn Fn(&Message, Memory) -> Result<()>,
    /// Judges what all ranks' headers came to.
    pub agreed: &'a dyn Fn(&[i32; WORDS]) -> Result<()>,
    /// Judges the pieces that all ranks have.
    pub pieces: &'a dyn Fn(&[i64]) -> Result<()>,
    /// Judges which groups several ranks have rollouts of, where a group must be on one.
    pub groups: &'a dyn Fn(&[i64]) -> Result<()>,
    /// `strict`: this rank's own findings, before the ranks are asked for theirs.
    pub strict: &'a dyn Fn(&Report) -> Result<()>,
}

/// The header's words of the statistics' buffer.
///
/// # Safety
/// The buffer is this call's, and no thread is at work on it.
unsafe fn words<'a>(partials: Memory) -> &'a mut [i32] {
    // SAFETY: by the caller's word.
    unsafe { partials.part::<i32>(0, WORDS) }
}

pub fn run(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, outputs: &Outputs, memory: Memory, exchange: &Exchange) -> Result<Report> {
    let ranks = plan.ranks.as_ref().expect("a plan over ranks");
    let partials = ranks.buffer(plan, memory);
    // SAFETY: the buffer lies in the workspace, which serves this call alone; no thread has begun.
    unsafe { plan.partials.init(partials) };
    // Are they looked at? Known after the first message.
    let mut sums = true;
    for phase in 0..plan.partials.phases {
        if phase != 1 || sums {
            partials_add(pool, threads, plan, phase, problem, partials, memory);
        } else {
            // SAFETY: no thread is at work on the buffer.
            unsafe { plan.partials.count_by_maxima(partials) };
        }
        if phase == 0 {
            // SAFETY: the threads are done with the buffer; likewise below.
            unsafe { words(partials) }.copy_from_slice(&exchange.header);
        }
        for message in ranks.messages() {
            if message.phase != phase || (message.optional && !sums) {
                continue;
            }
            if message.findings {
                strict(pool, threads, plan, problem, partials, memory, exchange, message)?;
                continue;
            }
            (exchange.reduce)(message, partials)?;
            if phase == 0 {
                // SAFETY: as above.
                let found: [i32; WORDS] = std::array::from_fn(|i| unsafe { words(partials) }[i]);
                (exchange.agreed)(&found)?;
                sums = !ranks.maxima_alone || found[Header::NOTE] == Header::SUMS;
            }
        }
        if plan.partials.claims.count > 0 && plan.partials.stage(phase) == Stage::Sums {
            // SAFETY: as above.
            (exchange.groups)(unsafe { plan.partials.claims(partials) })?;
        }
        if let (Some(layout), Stage::Edges) = (&plan.partials.pieces, plan.partials.stage(phase)) {
            // SAFETY: as above.
            (exchange.pieces)(unsafe { layout.table(partials) })?;
        }
    }
    Ok(apply(pool, threads, plan, problem, partials, outputs, memory))
}

/// Every rank's findings, before anything is written on any.
#[allow(clippy::too_many_arguments)]
fn strict(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, partials: Memory, memory: Memory, exchange: &Exchange, message: &Message) -> Result<()> {
    let own = look_at_slice(pool, threads, plan, problem, partials, memory);
    let mut header = exchange.header;
    let refused = (exchange.strict)(&own);
    header[Header::REFUSED] = if refused.is_err() { plan.ranks.as_ref().map_or(0, |r| r.rank) + 1 } else { 0 };
    header[Header::NOTE] = Header::STRICT;
    // SAFETY: the threads are done with the buffer.
    unsafe { words(partials) }.copy_from_slice(&header);
    (exchange.reduce)(message, partials)?;
    if refused.is_err() {
        // Said again: the callback may have used this thread.
        return (exchange.strict)(&own);
    }
    // SAFETY: as above.
    let found: [i32; WORDS] = std::array::from_fn(|i| unsafe { words(partials) }[i]);
    (exchange.agreed)(&found)
}

/// What `apply` would find in the data; nothing is written.
pub fn look_at_slice(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, partials: Memory, memory: Memory) -> Report {
    let mut crew = crew(pool, threads, plan, problem, None, memory, true);
    crew.job.joint = joint(plan, partials, None);
    // SAFETY: read only.
    let batch = (plan.slots.batch != 0).then(|| unsafe { plan.partials.batch(partials) });
    crew.job.batch = batch.as_ref();
    let report = Mutex::new(Report::default());
    crew.each(problem.groups, &report, |worker, g| worker.slice_look(g, members(&worker.job, problem, g), partials));
    *lock(&report)
}
