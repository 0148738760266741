//! The rollouts of a group, wherever they lie in the batch.
use super::worker::Job;
use crate::model::batch::{Extents, Groups, Problem};

#[derive(Clone, Copy)]
pub enum Members<'a> {
    Range(usize, usize),
    List(&'a [u32]),
}

impl Members<'_> {
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<'_> {
        let (range, list): (std::ops::Range<usize>, &[u32]) = match self {
            Members::Range(a, b) => (*a..*b, &[]),
            Members::List(list) => (0..0, list),
        };
        range.chain(list.iter().map(|i| *i as usize))
    }
    pub fn nth(&self, k: usize) -> Option<usize> {
        match self {
            Members::Range(a, b) => Some(a + k).filter(|i| i < b),
            Members::List(list) => list.get(k).map(|i| *i as usize),
        }
    }
    pub fn len(&self) -> usize {
        match self {
            Members::Range(a, b) => b.saturating_sub(*a),
            Members::List(list) => list.len(),
        }
    }
    pub fn is_empty(&self) -> bool {
        match self {
            Members::Range(a, b) => a >= b,
            Members::List(list) => list.is_empty(),
        }
    }
}

/// Sorts the rollouts by group (counting sort) where the groups come as an index. One thread, before all others.
pub fn sort(job: &Job) {
    let problem = job.problem;
    if !listed(problem) {
        return;
    }
    let w = &job.plan.workspace;
    // SAFETY: no other thread has begun.
    let (order, starts) = unsafe { (job.memory.part::<u32>(w.order.offset, problem.units()), job.memory.part::<u32>(w.starts.offset, problem.groups + 1)) };
    counting_sort(problem, order, starts);
}

/// Are the members of a group listed (not a range)?
fn listed(problem: &Problem) -> bool {
    matches!(problem.grouping, Groups::Index(_)) || problem.pieces.is_some()
}

/// Where the steps of each group begin among those of all groups (`step_sets = step_group`). One thread, after `sort` and before all others.
pub fn step_starts(job: &Job) {
    let (problem, part) = (job.problem, job.plan.workspace.keyed_starts);
    let Some(steps) = problem.steps.as_ref().filter(|_| part.count > 0) else { return };
    // SAFETY: no other thread has begun.
    let starts = unsafe { job.memory.part::<u64>(part.offset, problem.groups + 1) };
    starts[0] = 0;
    for g in 0..problem.groups {
        let count = members(job, problem, g).iter().map(|i| super::steps::numbers(steps, i)).map(|(from, to)| to.saturating_sub(from)).sum::<usize>();
        starts[g + 1] = starts[g] + count as u64;
    }
}

/// Rollouts by group in `order` `[R]`, and where each group begins in `starts` `[G+1]`.
pub fn counting_sort(problem: &Problem, order: &mut [u32], starts: &mut [u32]) {
    starts.fill(0);
    let group = |i: usize| problem.group(problem.row(i));
    for i in 0..problem.units() {
        starts[group(i) + 1] += 1;
    }
    for g in 0..problem.groups {
        starts[g + 1] += starts[g];
    }
    // Place each rollout at its group's cursor, which ends where the next group begins; then shift the cursors back.
    for i in 0..problem.units() {
        let at = &mut starts[group(i)];
        if let Some(slot) = order.get_mut(*at as usize) {
            *slot = i as u32;
        }
        *at += 1;
    }
    for g in (1..=problem.groups).rev() {
        starts[g] = starts[g - 1];
    }
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
}

/// A group that is not whole in a call, by what all calls have said: the calls that have rollouts of it, its rollouts here and in all.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    pub group: usize,
    pub calls: i64,
    pub here: usize,
    pub all: usize,
}

/// The first such group of this call.
pub fn split(job: &Job, claims: &[i64]) -> Option<Split> {
    claims.iter().take(job.problem.groups).enumerate().find_map(|(group, claim)| {
        let (calls, all, here) = (claim >> 32, *claim as u32 as usize, members(job, job.problem, group).len());
        (here > 0 && (calls != 1 || here != all)).then_some(Split { group, calls, here, all })
    })
}

/// Members of group g.
pub fn members<'a>(job: &Job<'a>, problem: &Problem, g: usize) -> Members<'a> {
    match problem.grouping {
        _ if problem.pieces.is_some() => list(job, problem, g),
        Groups::Constant(n) => Members::Range(g * n, (g + 1) * n),
        Groups::Offsets(offsets) => Members::Range(offsets.int(g) as usize, offsets.int(g + 1) as usize),
        Groups::Index(_) => list(job, problem, g),
    }
}

/// Tokens of group g.
pub fn tokens(job: &Job, problem: &Problem, g: usize) -> usize {
    match (members(job, problem, g), &problem.extents) {
        (Members::Range(a, b), Extents::Packed { cu_seqlens }) => (cu_seqlens.int(b.max(a)) - cu_seqlens.int(a)) as usize,
        (members, _) => members.iter().map(|i| problem.extent(i).len).sum(),
    }
}

fn list<'a>(job: &Job<'a>, problem: &Problem, g: usize) -> Members<'a> {
    let w = &job.plan.workspace;
    // SAFETY: read only, after `sort` and before any write to them.
    unsafe {
        let starts = job.memory.part::<u32>(w.starts.offset, problem.groups + 1);
        let (a, b) = (starts[g] as usize, starts[g + 1] as usize);
        Members::List(&job.memory.part::<u32>(w.order.offset, problem.units())[a..b])
    }
}
