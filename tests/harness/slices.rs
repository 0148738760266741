//! Outputs of a run in memory, and runs in micro-batches by way of partials.
use super::arrays::Arena;
use super::{Floats, Got, How, Placed, config, library, limits, place};
use crate::oracle::{Batch, Config};
use half::{bf16, f16};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

/// Output memory, filled with dirt before the run.
pub struct Outputs {
    arena: Arena,
    outputs: passrl_outputs,
    pub(super) report: Box<passrl_report>,
    advantages: passrl_view,
    output: Floats,
    lean: bool,
    reports: bool,
    without_counts: bool,
}

impl Outputs {
    pub fn new(placed: &Placed, how: &How) -> Outputs {
        let mut arena = Arena::default();
        let mut o: passrl_outputs = library().initial();
        let layout = &placed.layout;
        let (rollouts, groups) = (layout.rollouts, placed.of.num_groups);
        let (shape, stride, ndim, count) = layout.shape(1);
        let tokens = (shape, stride, ndim);
        let line = ([rollouts as i64, 1], [1, 1], 1);
        let grid = ([groups as i64, PASSRL_MAX_STREAMS as i64], [PASSRL_MAX_STREAMS as i64, 1], 2);
        // SAFETY: `add` gives room for as many bytes.
        let dirty = |bytes: usize| move |to: *mut u8| unsafe { to.write_bytes(how.dirt, bytes) };
        o.advantages = match placed.signal.filter(|_| how.in_place) {
            Some(signal) => {
                let view = placed.arena.view(signal);
                arena.add(view.dtype, 4, 0, (view.shape, view.stride, view.ndim), |_| ());
                let last = arena.last();
                arena.point(last, view)
            }
            None => arena.add(how.output.dtype(), how.output.bytes(), count, tokens, dirty(count * how.output.bytes())),
        };
        let advantages = arena.view(arena.last());
        o.returns = arena.add(PASSRL_F64, 8, count, tokens, dirty(count * 8));
        o.path_scores = arena.add(PASSRL_F64, 8, rollouts, line, dirty(rollouts * 8));
        o.num_chunks = arena.add(PASSRL_I64, 8, rollouts, line, dirty(rollouts * 8));
        o.chunk_ends = arena.add(PASSRL_I32, 4, count, tokens, dirty(count * 4));
        o.chunk_values = arena.add(PASSRL_F64, 8, count, tokens, dirty(count * 8));
        let cells = groups * PASSRL_MAX_STREAMS;
        o.stats_count = arena.add(PASSRL_I64, 8, cells, grid, dirty(cells * 8));
        o.stats_mean = arena.add(PASSRL_F64, 8, cells, grid, dirty(cells * 8));
        o.stats_std = arena.add(PASSRL_F64, 8, cells, grid, dirty(cells * 8));
        o.stats_absmax = arena.add(PASSRL_F64, 8, cells, grid, dirty(cells * 8));
        o.group_flags = arena.add(PASSRL_I32, 4, cells, grid, dirty(cells * 4));
        o.rollout_flags = arena.add(PASSRL_I32, 4, rollouts, line, dirty(rollouts * 4));
        let output = if how.in_place && placed.signal.is_some() { Floats::F32 } else { how.output };
        Outputs { arena, outputs: o, report: Box::new(library().initial()), advantages, output, lean: how.lean, reports: how.reports, without_counts: how.without_counts }
    }

    pub fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    pub fn raw(&mut self) -> passrl_outputs {
        self.outputs.report = &mut *self.report;
        let mut asked = self.outputs;
        if self.lean {
            (asked.returns, asked.chunk_values, asked.chunk_ends) = (null(), null(), null());
        }
        if self.lean && !self.reports {
            asked.report = null_mut();
        }
        if self.without_counts {
            (asked.stats_count, asked.stats_mean, asked.stats_std, asked.group_flags) = (null(), null(), null(), null());
        }
        asked
    }

    pub fn collect(self, placed: &Placed, status: i32, message: String) -> Got {
        let layout = &placed.layout;
        let (rollouts, groups) = (layout.rollouts, placed.of.num_groups);
        let output = self.output;
        // SAFETY: views of this arena.
        let data = |view: *const passrl_view| unsafe { (*view).data };
        // SAFETY: views of this arena (or of the placed signal), with the types that `new` gave them; elements within their shapes.
        let (f64s, i64s, i32s) = (
            |view: *const passrl_view, e: usize| unsafe { data(view).cast::<f64>().add(e).read() },
            |view: *const passrl_view, e: usize| unsafe { data(view).cast::<i64>().add(e).read() },
            |view: *const passrl_view, e: usize| unsafe { data(view).cast::<i32>().add(e).read() },
        );
        let gap = if layout.padded { self.advantages.stride[0] as usize + 1 - layout.row } else { self.advantages.stride[0] as usize };
        let advantage = |slot: usize| {
            let at = layout.element(slot, gap);
            let base = self.advantages.data;
            // SAFETY: as above.
            unsafe {
                match output {
                    Floats::F64 => base.cast::<f64>().add(at).read(),
                    Floats::F32 => base.cast::<f32>().add(at).read() as f64,
                    Floats::Bf16 => base.cast::<bf16>().add(at).read().to_f64(),
                    Floats::F16 => base.cast::<f16>().add(at).read().to_f64(),
                }
            }
        };
        let o = &self.outputs;
        let tokens = |i: usize| layout.offsets[i]..layout.offsets[i] + layout.lens[i];
        // Chunk lists begin at the rollout's first slot; padded: of its row.
        let list = |i: usize| if layout.padded { i * layout.row } else { layout.offsets[i] };
        let chunks: Vec<usize> = (0..rollouts).map(|i| i64s(o.num_chunks, i) as usize).collect();
        let mut owned = vec![false; layout.slots_in_all()];
        (0..rollouts).flat_map(tokens).for_each(|s| owned[s] = true);
        let report = *self.report;
        Got {
            status,
            message,
            advantages: (0..rollouts).map(|i| tokens(i).map(advantage).collect()).collect(),
            returns: (0..rollouts).map(|i| tokens(i).map(|s| f64s(o.returns, s)).collect()).collect(),
            path_scores: (0..rollouts).map(|i| f64s(o.path_scores, i)).collect(),
            chunk_ends: (0..rollouts).map(|i| (0..chunks[i]).map(|j| i32s(o.chunk_ends, list(i) + j) as i64).collect()).collect(),
            chunk_values: (0..rollouts).map(|i| (0..chunks[i]).map(|j| f64s(o.chunk_values, list(i) + j)).collect()).collect(),
            num_chunks: chunks,
            stats: (0..groups)
                .map(|g| {
                    let cell = |s| g * PASSRL_MAX_STREAMS + s;
                    (0..PASSRL_MAX_STREAMS)
                        .map(|s| (i64s(o.stats_count, cell(s)), f64s(o.stats_mean, cell(s)), f64s(o.stats_std, cell(s)), f64s(o.stats_absmax, cell(s))))
                        .collect()
                })
                .collect(),
            group_flags: (0..groups).map(|g| (0..PASSRL_MAX_STREAMS).map(|s| i32s(o.group_flags, g * PASSRL_MAX_STREAMS + s)).collect()).collect(),
            rollout_flags: (0..rollouts).map(|i| i32s(o.rollout_flags, i)).collect(),
            padding_is_zero: owned.iter().enumerate().all(|(s, owned)| *owned || (advantage(s) == 0.0 && f64s(o.returns, s) == 0.0)),
            report,
        }
    }
}

/// How a batch is cut into micro-batches.
#[derive(Clone, Copy, Debug)]
pub struct Sliced {
    pub slices: usize,
    /// Order and membership are drawn from it.
    pub seed: u64,
    /// Two buffers, merged, and copied to other memory between the phases.
    pub merged: bool,
}

fn call(plan: &super::Plan, status: i32) {
    assert!(status >= 0, "{status}: {}", plan.library.last_error());
}

/// Runs a case in micro-batches: every phase over all slices, in another order each time, then each slice shaped on its own.
/// `None`: a slice would not show which streams or forms the batch gives.
pub fn in_slices(cfg: &Config, batch: &Batch, how: &How, sliced: Sliced) -> Option<Got> {
    let mut rng = crate::cases::Rng(sliced.seed);
    let member: Vec<usize> = batch.rollouts.iter().map(|_| (rng.next() >> 33) as usize % sliced.slices.max(1)).collect();
    in_given_slices(cfg, batch, how, sliced, rng, &member).map(|got| got.unwrap_or_else(|(status, said)| panic!("{status}: {said}")))
}

/// The same with each rollout's slice given; the first refusal, if there is one.
pub fn in_given_slices(cfg: &Config, batch: &Batch, how: &How, sliced: Sliced, mut rng: crate::cases::Rng, member: &[usize]) -> Option<Result<Got, (i32, String)>> {
    let library = library();
    let plan = library.plan(&config(library, cfg), &limits(batch, how), how).unwrap_or_else(|(s, m)| panic!("plan refused: {s} {m}"));
    let mut draw = |n: usize| (rng.next() >> 33) as usize % n.max(1);
    // A slice keeps the forms of the whole batch; which streams are given is a property of the batch.
    let parts: Vec<(Vec<usize>, Batch)> = (0..sliced.slices)
        .map(|s| {
            let rows: Vec<usize> = (0..batch.rollouts.len()).filter(|i| member[*i] == s).collect();
            let rollouts = rows.iter().map(|i| batch.rollouts[*i].clone()).collect();
            (rows, batch.with(rollouts))
        })
        .filter(|(rows, _)| !rows.is_empty())
        .collect();
    if parts.iter().any(|(rows, _)| super::forms(&batch.rollouts) != super::forms(&rows.iter().map(|i| batch.rollouts[*i].clone()).collect::<Vec<_>>())) {
        return None;
    }
    let bytes = plan.size("passrl_partials_size");
    let fresh = || {
        let mut buffer = vec![0xa5a5_a5a5_a5a5_a5a5u64; bytes.div_ceil(8)];
        let init: unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32 = library.get("passrl_partials_init");
        // SAFETY: a live plan and a buffer of that size.
        call(&plan, unsafe { init(plan.plan, buffer.as_mut_ptr().cast(), bytes) });
        buffer
    };
    type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> i32;
    let add: Add = library.get("passrl_partials_add");
    type Merge = unsafe extern "C" fn(*const c_void, *mut c_void, usize, *const c_void, usize) -> i32;
    let merge: Merge = library.get("passrl_partials_merge");
    let mut buffer = fresh();
    for phase in 0..plan.phases() {
        let mut order: Vec<usize> = (0..parts.len()).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, draw(i + 1)));
        // Two accumulators start from what the phases before have found; the second from it too, with this phase's share empty.
        let mut other = sliced.merged.then(|| buffer.clone());
        for (n, p) in order.into_iter().enumerate() {
            let placed = place(cfg, &parts[p].1, how);
            placed.seal();
            let workspace = plan.workspace(how);
            let into = match (&mut other, n % 2) {
                (Some(other), 1) => other,
                _ => &mut buffer,
            };
            // SAFETY: live plan, batch and buffers.
            let status = unsafe { add(plan.plan, phase, &placed.batch, into.as_mut_ptr().cast(), bytes, workspace.at, workspace.bytes, null_mut()) };
            if status < 0 {
                return Some(Err((status, library.last_error())));
            }
        }
        if let Some(other) = other {
            // `merge` adds whole buffers; a phase's share is merged into a buffer that has nothing else twice: start both from empty by subtraction.
            buffer = merge_phase(&plan, merge, buffer, other, phase, bytes);
        }
        // Saved and reloaded: other memory, same bytes.
        buffer = buffer.clone();
    }
    type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> i32;
    let apply: Apply = library.get("passrl_plan_apply");
    let mut whole: Option<Got> = None;
    for (rows, part) in &parts {
        let placed = place(cfg, part, how);
        placed.seal();
        let mut outputs = Outputs::new(&placed, how);
        let workspace = plan.workspace(how);
        // SAFETY: as above.
        let status =
            unsafe { apply(plan.plan, &placed.batch, buffer.as_ptr().cast(), bytes, &outputs.raw(), workspace.at, workspace.bytes, null_mut()) };
        if status < 0 {
            return Some(Err((status, library.last_error())));
        }
        let got = outputs.collect(&placed, status, library.last_error());
        let all = whole.get_or_insert_with(|| empty(batch));
        gather(all, rows, &got);
        all.status = all.status.max(status);
        all.padding_is_zero &= got.padding_is_zero;
        all.stats = got.stats;
        all.group_flags = got.group_flags;
    }
    Some(Ok(whole.unwrap_or_else(|| empty(batch))))
}

/// Adds the shares of one phase of two buffers that had the same content before it: merges the second's share through an empty buffer.
fn merge_phase(
    plan: &super::Plan,
    merge: unsafe extern "C" fn(*const c_void, *mut c_void, usize, *const c_void, usize) -> i32,
    mut into: Vec<u64>,
    other: Vec<u64>,
    phase: i32,
    bytes: usize,
) -> Vec<u64> {
    let library = plan.library;
    let mut share = vec![0u64; into.len()];
    let init: unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> i32 = library.get("passrl_partials_init");
    type Sections = unsafe extern "C" fn(*const c_void, i32, *mut passrl_section, usize, *mut usize) -> i32;
    let layout: Sections = library.get("passrl_partials_layout");
    let mut sections = [passrl_section { offset: 0, count: 0, dtype: 0, op: 0 }; 8];
    let mut count = 0;
    // SAFETY: live plan, buffers of its size.
    unsafe {
        call(plan, init(plan.plan, share.as_mut_ptr().cast(), bytes));
        call(plan, layout(plan.plan, phase, sections.as_mut_ptr(), sections.len(), &mut count));
        for s in &sections[..count] {
            let size = s.count as usize * if s.dtype == PASSRL_I64 { 8 } else { 4 };
            let (from, to) = (other.as_ptr().cast::<u8>().add(s.offset as usize), share.as_mut_ptr().cast::<u8>().add(s.offset as usize));
            std::ptr::copy_nonoverlapping(from, to, size);
        }
        call(plan, merge(plan.plan, into.as_mut_ptr().cast(), bytes, share.as_ptr().cast(), bytes));
    }
    into
}

/// Puts a slice's rollouts where they stand in the whole batch.
pub fn gather(all: &mut Got, rows: &[usize], got: &Got) {
    for (at, i) in rows.iter().enumerate() {
        all.advantages[*i] = got.advantages[at].clone();
        all.returns[*i] = got.returns[at].clone();
        all.path_scores[*i] = got.path_scores[at];
        all.num_chunks[*i] = got.num_chunks[at];
        all.chunk_ends[*i] = got.chunk_ends[at].clone();
        all.chunk_values[*i] = got.chunk_values[at].clone();
        all.rollout_flags[*i] = got.rollout_flags[at];
    }
}

pub fn empty(batch: &Batch) -> Got {
    let n = batch.rollouts.len();
    Got {
        status: 0,
        message: String::new(),
        advantages: batch.rollouts.iter().map(|r| vec![f64::NAN; r.len]).collect(),
        returns: batch.rollouts.iter().map(|r| vec![f64::NAN; r.len]).collect(),
        path_scores: vec![f64::NAN; n],
        num_chunks: vec![0; n],
        chunk_ends: vec![Vec::new(); n],
        chunk_values: vec![Vec::new(); n],
        stats: Vec::new(),
        group_flags: Vec::new(),
        rollout_flags: vec![0; n],
        report: library().initial(),
        padding_is_zero: true,
    }
}
