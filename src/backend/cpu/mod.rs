//! The CPU backend. A work item is a group: its rollouts are prepared, its statistics taken, its rollouts shaped, by one thread, while they are in
//! its cache. Statistics are exact integers, so the same stages serve a batch in pieces.
mod chunk;
mod credit;
mod expand;
mod fuse;
mod group;
mod group_stats;
mod kl;
mod members;
mod outputs;
pub mod pool;
mod prepare;
pub mod primitives;
mod returns;
mod scope;
mod shape;
mod signal;
mod standard;
mod step_sets;
mod steps;
mod tile;
mod whiten;
mod worker;

use crate::model::batch::Problem;
use crate::model::config::Whiten;
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::report::Report;
use crate::numerics::exact::{Extremes, Sums};
use crate::numerics::fpmode::with_default_mode;
use crate::plan::Plan;
use members::{members, sort, step_starts};
use pool::Pool;
use shape::Sink;
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
        let next = AtomicUsize::new(0);
        let threads = self.threads.min(count).max(1);
        self.pool.spread(threads, &|thread| {
            with_default_mode(|| {
                // SAFETY: thread numbers are distinct within a call, and the workspace serves one call at a time.
                let mut worker = unsafe { self.job.worker(thread) };
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        break;
                    }
                    item(&mut worker, i);
                }
                lock(report).add(&worker.report);
            });
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn crew<'a>(pool: &'a Pool, threads: usize, plan: &'a Plan, problem: &'a Problem, outputs: Option<&'a Outputs>, memory: Memory, counting: bool) -> Crew<'a> {
    let job = Job { plan, problem, outputs, memory, counting };
    sort(&job);
    step_starts(&job);
    Crew { pool, threads: threads.min(plan.threads), job }
}

pub fn run(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, outputs: &Outputs, memory: Memory) -> Report {
    let crew = crew(pool, threads, plan, problem, Some(outputs), memory, true);
    let report = Mutex::new(Report::default());
    let whitens = plan.config.whiten != Whiten::None;
    let extremes = Mutex::new(Extremes::EMPTY);
    crew.each(problem.groups, &report, |worker, g| {
        let members = members(&worker.job, problem, g);
        worker.group_alone(g, members, if whitens { Sink::Keep } else { Sink::Write(None) });
        if whitens {
            lock(&extremes).add(&worker.group_whiten_extremes(members));
        }
    });
    if whitens {
        let extremes = *lock(&extremes);
        let sums = whiten_sums(&crew, problem, &extremes);
        let whitening = with_default_mode(|| Whitening::new(&plan.config, &extremes, &sums));
        crew.each(problem.rollouts, &report, |worker, i| worker.write_whitened(i, &whitening));
    }
    ends(plan, problem, outputs);
    *lock(&report)
}

fn whiten_sums(crew: &Crew, problem: &Problem, extremes: &Extremes) -> Sums {
    let sums = Mutex::new(Sums::default());
    crew.each(problem.rollouts, &Mutex::new(Report::default()), |worker, i| {
        let mut own = Sums::default();
        worker.whiten_sums(i, extremes, &mut own);
        lock(&sums).add(&own);
    });
    *lock(&sums)
}

/// Slots of a packed output that no rollout has.
fn ends(plan: &Plan, problem: &Problem, outputs: &Outputs) {
    if plan.config.fill_padding {
        expand::pad_ends(&outputs.advantages, problem);
        outputs.returns.iter().for_each(|returns| expand::pad_ends(returns, problem));
    }
}

pub fn look(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, memory: Memory) -> Report {
    let crew = crew(pool, threads, plan, problem, None, memory, true);
    let report = Mutex::new(Report::default());
    crew.each(problem.groups, &report, |worker, g| worker.group_look(g, members(&worker.job, problem, g)));
    *lock(&report)
}

pub fn partials_add(pool: &Pool, threads: usize, plan: &Plan, phase: usize, problem: &Problem, partials: Memory, memory: Memory) {
    let crew = crew(pool, threads, plan, problem, None, memory, false);
    let report = Mutex::new(Report::default());
    let extremes = Mutex::new(Extremes::EMPTY);
    crew.each(problem.groups, &report, |worker, g| {
        let members = members(&worker.job, problem, g);
        if !members.is_empty() {
            worker.group_share(phase, g, members, partials);
            if phase == 2 {
                lock(&extremes).add(&worker.group_whiten_extremes(members));
            }
        }
    });
    if phase >= 2 {
        // SAFETY: the buffer is this call's; the threads are done with it.
        let (mut total, mut sums) = unsafe { plan.partials.whitening(partials) };
        if phase == 2 {
            total.add(&lock(&extremes));
        } else {
            let own = whiten_sums(&crew, problem, &total);
            sums.add(&own);
        }
        // SAFETY: as above.
        unsafe { plan.partials.set_whitening(partials, &total, &sums) };
    }
}

pub fn apply(pool: &Pool, threads: usize, plan: &Plan, problem: &Problem, partials: Memory, outputs: &Outputs, memory: Memory) -> Report {
    let crew = crew(pool, threads, plan, problem, Some(outputs), memory, true);
    let report = Mutex::new(Report::default());
    let whitening = (plan.config.whiten != Whiten::None).then(|| {
        // SAFETY: read only.
        let (extremes, sums) = unsafe { plan.partials.whitening(partials) };
        with_default_mode(|| Whitening::new(&plan.config, &extremes, &sums))
    });
    crew.each(problem.groups, &report, |worker, g| {
        let members = members(&worker.job, problem, g);
        worker.group_slice(g, members, partials, Sink::Write(whitening.as_ref()));
    });
    ends(plan, problem, outputs);
    *lock(&report)
}
