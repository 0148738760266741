//! The CPU backend. A work item is a group: its rollouts are prepared, its statistics taken, its rollouts shaped, by one thread, while they are in
//! its cache. Statistics are exact integers, so the same stages serve a batch in pieces.
mod affinity;
mod batch_stats;
pub mod by_token;
mod chunk;
mod credit;
mod expand;
#[cfg(target_arch = "x86_64")]
mod formed;
mod fuse;
mod gae;
mod gaps;
mod group;
mod group_stats;
mod kl;
mod kl_reward;
mod lines;
mod logps;
pub mod members;
mod order;
mod outputs;
mod pieces;
mod pieces_scan;
pub mod pool;
mod prepare;
pub mod primitives;
pub mod ranks;
mod returns;
mod rollout_streams;
mod scope;
mod scope_avx2;
mod shape;
mod signal;
mod standard;
mod step_lists;
mod step_sets;
mod steps;
mod terms;
mod tile;
mod together;
mod token_baseline;
mod usual;
mod vtrace;
mod whiten;
mod worker;

use crate::model::batch::{Extents, Problem};
use crate::model::config::Whiten;
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::report::Report;
use crate::numerics::exact::{Extremes, Grid, STEP_BITS, Sums};
use crate::numerics::fpmode::with_default_mode;
use crate::plan::Plan;
use crate::plan::partials::{BatchState, Stage};
use pieces::Joint;
use members::{members, sort, step_starts};
use pool::Pool;
use shape::Sink;
use by_token::ByToken;
use order::Order;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use whiten::Whitening;
use worker::{Job, Worker};

/// Threads of a call and the work they share.
struct Crew<'a> {
    pool: &'a Pool,
    threads: usize,
    job: Job<'a>,
}

impl Crew<'_> {
    /// Hands items 0 .. count to the workers, as they come free; adds what each reports.
    fn each(&self, count: usize, report: &Mutex<Report>, item: impl Fn(&mut Worker, usize) + Sync) {
        self.each_in(&Order::plain(count), report, item, |_| ());
    }

    /// Likewise the groups, those first whose tokens are many.
    fn each_group(&self, report: &Mutex<Report>, item: impl Fn(&mut Worker, usize) + Sync) {
        let problem = self.job.problem;
        self.each_in(&Order::new(problem.groups, self.work_threads(), |g| members::tokens(&self.job, problem, g)), report, item, |_| ());
    }

    /// The extents of rollouts, likewise.
    fn extents(&self) -> Order {
        let problem = self.job.problem;
        Order::new(problem.units(), self.work_threads(), |i| problem.extent(i).len)
    }

    /// Threads that share the work, where items differ: 1 says that there is nothing to put in order.
    fn work_threads(&self) -> usize {
        match &self.job.problem.extents {
            Extents::Padded { lengths: None, .. } => 1,
            _ => self.threads,
        }
    }

    /// `done`: what a thread leaves when nothing is left to do.
    fn each_in(&self, order: &Order, report: &Mutex<Report>, item: impl Fn(&mut Worker, usize) + Sync, done: impl Fn(&Worker) + Sync) {
        let (next, count) = (AtomicUsize::new(0), order.len());
        let threads = self.threads.min(count).max(1);
        self.pool.spread(threads, &|thread| {
            with_default_mode(|| {
                // SAFETY: thread numbers are distinct within a call, and the workspace serves one call at a time.
                let mut worker = unsafe { self.job.worker(thread) };
                let mut claimed = next.fetch_add(1, Ordering::Relaxed);
                while claimed < count {
                    let i = claimed;
                    // What comes next is claimed now, so that what is asked for of it ahead is asked for by the thread that will read it; but for what
                    // follows large items, and for the last few, which go to whoever is free: of these the next one is likely to be that of a thread
                    // whose items take as long as all.
                    let early = threads > 1 && i >= order.large() && i + LAST * threads < count;
                    claimed = if early { next.fetch_add(1, Ordering::Relaxed) } else { i + threads };
                    worker.upcoming = (claimed < count).then(|| order.item(claimed));
                    item(&mut worker, order.item(i));
                    if !early {
                        claimed = next.fetch_add(1, Ordering::Relaxed);
                    }
                }
                stores_done();
                done(&worker);
                lock(report).add(&worker.report);
            });
        });
    }
}

/// Stores that pass the caches by are ordered before what the thread does next.
fn stores_done() {
    // SAFETY: every x86-64 processor has SSE.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Items a thread at the end of a call that are not claimed ahead.
const LAST: usize = 4;

/// Bytes of output a thread above which stores pass the caches by.
const STREAMED: usize = 1 << 20;

#[cfg(test)]
thread_local! {
    /// Tests set it: results of calls of this thread pass the caches by however few they are.
    static STREAMS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn streamed(problem: &Problem, outputs: &Outputs, threads: usize) -> bool {
    #[cfg(test)]
    if STREAMS.get() {
        return true;
    }
    let slots = if problem.packed() { problem.slots } else { problem.slots * problem.rollouts };
    slots * outputs.advantages.dtype.bytes() / threads.max(1) > STREAMED
}

fn crew<'a>(pool: &'a Pool, threads: usize, plan: &'a Plan, problem: &'a Problem, outputs: Option<&'a Outputs>, memory: Memory, counting: bool) -> Crew<'a> {
    let (given, sets) = rollout_streams::there(&plan.config, problem);
    let threads = threads.min(plan.threads);
    let streams = outputs.is_some_and(|o| streamed(problem, o, threads));
    let by_token = outputs.map_or(ByToken::default(), |outputs| ByToken::new(plan, problem, outputs, streams));
    let mut job = Job { plan, problem, outputs, memory, counting, given, sets, streams, batch: None, joint: None, by_token, alike: false };
    job.alike = together::alike(&job);
    sort(&job);
    step_starts(&job);
    Crew { pool, threads, job }
}

pub fn run(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, outputs: &Outputs, memory: Memory) -> Report {
    run_by(pool, threads, plan, problem, outputs, memory, true)
}

/// `usual`: the short way may be taken.
fn run_by(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, outputs: &Outputs, memory: Memory, usual: bool) -> Report {
    let mut crew = crew(pool, threads, plan, problem, Some(outputs), memory, true);
    let batch = batch_state(&crew, problem);
    crew.job.batch = batch.as_ref();
    let report = Mutex::new(Report::default());
    let whitens = plan.config.whiten != Whiten::None;
    let extremes = Mutex::new(Extremes::EMPTY);
    let lane = usual::Lane::new(&crew.job).filter(|_| usual);
    crew.each_group(&report, |worker, g| {
        let members = members(&worker.job, problem, g);
        let usual = lane.as_ref().is_some_and(|lane| worker.usual_group(lane, g, members));
        if !usual {
            worker.group_alone(g, members, if whitens { Sink::Keep } else { Sink::Write(None) });
        }
        if whitens {
            lock(&extremes).add(&worker.group_whiten_extremes(members));
        }
    });
    if whitens {
        let extremes = *lock(&extremes);
        let sums = whiten_sums(&crew, &extremes);
        let whitening = with_default_mode(|| Whitening::new(&plan.config, &extremes, &sums));
        crew.each_in(&crew.extents(), &report, |worker, i| worker.write_whitened(i, &whitening), |_| ());
    }
    ends(plan, problem, outputs);
    *lock(&report)
}

fn whiten_sums(crew: &Crew, extremes: &Extremes) -> Sums {
    let (sums, grid) = (Mutex::new(Sums::default()), Grid::new(STEP_BITS, extremes.absmax));
    let add = |worker: &Worker| lock(&sums).add(&worker.whiten_sums);
    crew.each_in(&crew.extents(), &Mutex::new(Report::default()), |worker, i| worker.whiten_sums(i, &grid), add);
    *lock(&sums)
}

/// The batch's own sets, where the configuration asks for some: maxima first, then sums.
fn batch_state(crew: &Crew, problem: &Problem) -> Option<BatchState> {
    if crew.job.plan.slots.batch == 0 {
        return None;
    }
    let mut state = BatchState::EMPTY;
    batch_maxima(crew, problem, &mut state);
    batch_sums(crew, problem, &mut state);
    Some(state)
}

fn batch_maxima(crew: &Crew, problem: &Problem, state: &mut BatchState) {
    // What is found is reported by the pass that shapes.
    let quiet = Crew { pool: crew.pool, threads: crew.threads, job: Job { counting: false, ..crew.job } };
    let all = Mutex::new(state.extremes);
    quiet.each_group(&Mutex::new(Report::default()), |worker, g| {
        let mut own = BatchState::EMPTY.extremes;
        worker.batch_extremes(g, members(&worker.job, problem, g), &mut own);
        lock(&all).iter_mut().zip(&own).for_each(|(a, b)| a.add(b));
    });
    state.extremes = *lock(&all);
}

/// After `batch_maxima` on the same batch, whose rollouts are prepared.
fn batch_sums(crew: &Crew, problem: &Problem, state: &mut BatchState) {
    let extremes = state.extremes;
    let all = Mutex::new(&mut *state);
    crew.each_group(&Mutex::new(Report::default()), |worker, g| {
        let (mut sums, mut nonzero) = (BatchState::EMPTY.sums, [0i64; 16]);
        worker.batch_sums(members(&worker.job, problem, g), &extremes, &mut sums, &mut nonzero);
        batch_stats::add(&mut lock(&all), &sums, &nonzero);
    });
}

/// Slots of a packed output that no rollout has.
fn ends(plan: &Plan, problem: &Problem, outputs: &Outputs) {
    if plan.config.fill_padding {
        expand::pad_ends(&outputs.advantages, problem);
        outputs.returns.iter().for_each(|returns| expand::pad_ends(returns, problem));
    }
}

/// What pieces of rollouts have exchanged; the phase that is taken.
fn joint(plan: &Plan, partials: Memory, stage: Option<Stage>) -> Option<Joint> {
    plan.partials.pieces.map(|layout| Joint { buffer: partials, layout, stage })
}

pub fn look(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, memory: Memory) -> Report {
    let mut crew = crew(pool, threads, plan, problem, None, memory, true);
    let batch = batch_state(&crew, problem);
    crew.job.batch = batch.as_ref();
    let report = Mutex::new(Report::default());
    crew.each_group(&report, |worker, g| worker.group_look(g, members(&worker.job, problem, g)));
    *lock(&report)
}

pub fn partials_add(pool: &Pool, threads: usize, plan: &Plan, phase: usize, problem: &Problem, partials: Memory, memory: Memory) {
    let stage = plan.partials.stage(phase);
    let mut crew = crew(pool, threads, plan, problem, None, memory, false);
    crew.job.joint = joint(plan, partials, Some(stage));
    crew.job.alike &= crew.job.joint.is_none();
    // SAFETY: the buffer is this call's, and no thread has begun.
    let mut batch = (plan.slots.batch != 0).then(|| unsafe { plan.partials.batch(partials) });
    if let (Some(batch), true) = (&mut batch, matches!(stage, Stage::Maxima | Stage::Sums)) {
        if stage == Stage::Sums {
            // The buffer's maxima stay; this prepares the rollouts.
            batch_maxima(&crew, problem, &mut BatchState::EMPTY.clone());
            batch_sums(&crew, problem, batch);
        } else {
            batch_maxima(&crew, problem, batch);
        }
        // SAFETY: as above.
        unsafe { plan.partials.set_batch(partials, batch) };
    }
    crew.job.batch = batch.as_ref();
    let report = Mutex::new(Report::default());
    let extremes = Mutex::new(Extremes::EMPTY);
    crew.each_group(&report, |worker, g| {
        let members = members(&worker.job, problem, g);
        if !members.is_empty() {
            worker.group_share(stage, g, members, partials);
            if stage == Stage::WhitenMaxima {
                lock(&extremes).add(&worker.group_whiten_extremes(members));
            }
        }
    });
    if matches!(stage, Stage::WhitenMaxima | Stage::WhitenSums) {
        // SAFETY: the buffer is this call's; the threads are done with it.
        let (mut total, mut sums) = unsafe { plan.partials.whitening(partials) };
        if stage == Stage::WhitenMaxima {
            total.add(&lock(&extremes));
        } else {
            let own = whiten_sums(&crew, &total);
            sums.add(&own);
        }
        // SAFETY: as above.
        unsafe { plan.partials.set_whitening(partials, &total, &sums) };
    }
}

/// The first group of a call that is not whole in it, where it must be; known once all have added their sums.
pub fn split_group(pool: &Pool, plan: &Plan, problem: &Problem, partials: Memory, memory: Memory) -> Option<members::Split> {
    if plan.partials.claims.count == 0 {
        return None;
    }
    let crew = crew(pool, 1, plan, problem, None, memory, false);
    // SAFETY: read only from here on.
    members::split(&crew.job, unsafe { plan.partials.claims(partials) })
}

pub fn apply(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, partials: Memory, outputs: &Outputs, memory: Memory) -> Report {
    let mut crew = crew(pool, threads, plan, problem, Some(outputs), memory, true);
    crew.job.joint = joint(plan, partials, None);
    crew.job.alike &= crew.job.joint.is_none();
    // SAFETY: read only.
    let batch = (plan.slots.batch != 0).then(|| unsafe { plan.partials.batch(partials) });
    crew.job.batch = batch.as_ref();
    let report = Mutex::new(Report::default());
    let whitening = (plan.config.whiten != Whiten::None).then(|| {
        // SAFETY: read only.
        let (extremes, sums) = unsafe { plan.partials.whitening(partials) };
        with_default_mode(|| Whitening::new(&plan.config, &extremes, &sums))
    });
    crew.each_group(&report, |worker, g| {
        let members = members(&worker.job, problem, g);
        worker.group_slice(g, members, partials, Sink::Write(whitening.as_ref()));
    });
    ends(plan, problem, outputs);
    *lock(&report)
}
