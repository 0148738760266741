//! One thread of a run: its scratch, its share of the shared workspace, its counts.
#[cfg(target_arch = "x86_64")]
use super::formed::Formed;
use super::pieces::{Joint, Place};
use super::scope::{self, Scope};
use super::signal;
use super::steps::StepList;
use super::token_baseline::Places;
use super::by_token::ByToken;
use super::chunk::Runs;
use super::usual::sets::Sets;
use crate::model::batch::{Extent, Problem};
use crate::model::config::Config;
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::report::Report;
use crate::numerics::exact::Sums;
use crate::numerics::simd::Simd;
use crate::plan::Plan;
use crate::plan::partials::BatchState;
use crate::plan::workspace::{KeyedStep, Part, Rollout};

/// What all threads of a call share. Arrays of the workspace are handed out by rollout; a rollout is worked on by one thread at a time.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub plan: &'a Plan,
    pub problem: &'a Problem,
    /// `None`: statistics alone.
    pub outputs: Option<&'a Outputs>,
    pub memory: Memory,
    /// Findings and counts go to the report (a call's first pass over its data).
    pub counting: bool,
    /// Per-rollout streams given, and those that have a set (of a sum of rewards the first alone): a bit each.
    pub given: u32,
    pub sets: u32,
    /// Outputs are larger than the caches: stores of whole lines pass them by.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub streams: bool,
    /// Sets of the whole batch, once they are known.
    pub batch: Option<&'a BatchState>,
    /// Rollouts come in pieces: what these have exchanged.
    pub joint: Option<Joint>,
    /// What of the call goes the short ways.
    pub by_token: ByToken,
    /// Rollouts are prepared alike (`together`).
    pub alike: bool,
}

pub struct Worker<'a> {
    pub job: &'a Job<'a>,
    pub f: &'a mut [f64],
    pub d: &'a mut [f64],
    pub v: &'a mut [f64],
    pub signal: &'a mut [f32],
    pub compressed: &'a mut [f32],
    pub step_begin: &'a mut [u32],
    pub step_end: &'a mut [u32],
    pub step_value: &'a mut [f32],
    pub columns: &'a mut [i64],
    pub live: &'a mut [i64],
    pub edges: &'a mut [u64],
    #[cfg(target_arch = "x86_64")]
    pub formed: Formed<'a>,
    pub lines: &'a mut [f64],
    pub usual_ends: &'a mut [u32],
    pub usual_values: &'a mut [f32],
    pub usual_elements: &'a mut [f32],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub usual_before: &'a mut [u32],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub usual_credits: &'a mut [f64],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub row_table: &'a mut [u32],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub row_marks: &'a mut [u8],
    pub places: Places<'a>,
    pub report: Report,
    /// The group whose masks stand in its rollouts' words as they were given.
    pub masks: Option<usize>,
    /// Of the group in work: slots in which a value is missing; a finding of a rollout was reported.
    pub missing: u32,
    pub found: bool,
    /// Likewise: the sets of its per-rollout streams are known (`together`).
    pub together: bool,
    /// The item that this thread is likely to take next.
    pub upcoming: Option<usize>,
    /// Addresses that will be read next: asked for while a row is written.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub ahead: std::ops::Range<usize>,
    /// Of the group in work, where its case is usual.
    pub usual_sets: Sets,
    /// A mask with holes was met: groups go no longer the way of short rollouts, who have none.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub gappy: bool,
    /// Of the rollout in work: where it stands among the pieces of its rollout; it brings its tiles of the scan together.
    pub place: Place,
    pub tells: bool,
    /// The group in work, its members, the place among them of the rollout in work.
    pub group: usize,
    pub members: usize,
    pub ordinal: usize,
    /// Tokens side by side that will be read after those in work and have not been asked for.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub next_tokens: std::ops::Range<usize>,
    /// Of the whitening's values that this thread has seen.
    pub whiten_sums: Sums,
    /// kl: live counts of the group in work, where they are no table.
    pub runs: Runs,
    /// kl: chunks of the rollout in work were counted, and are listed where the general stages come to read them.
    pub counted: bool,
    /// kl: exponent of the maximum of the group before, once there was one.
    pub exponent: Option<i32>,
    /// gae: values and rewards of the group are judged by what comes of them, and were found not to be usual; else the largest of them (its bits).
    pub late: bool,
    pub unclean: bool,
    pub credit_most: i32,
}

/// A thread's scratch, seen to be there as a whole.
struct Own {
    at: *mut u8,
    bytes: usize,
}

impl Own {
    /// One of its parts.
    ///
    /// # Safety
    /// `part` is one of `Scratch`'s, and is handed out once.
    #[inline(always)]
    unsafe fn part<'a, T>(&self, part: Part) -> &'a mut [T] {
        debug_assert!(part.offset % align_of::<T>() == 0 && (part.count == 0 || part.offset + part.count * size_of::<T>() <= self.bytes));
        // SAFETY: the plan has laid the parts out within the scratch, aligned and apart; each is handed out once, by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.at.wrapping_add(part.offset).cast::<T>(), part.count) }
    }
}

impl<'a> Job<'a> {
    pub fn config(&self) -> &'a Config {
        &self.plan.config
    }

    pub fn simd(&self) -> Simd {
        self.plan.simd
    }

    /// Scratch of thread `thread`.
    ///
    /// # Safety
    /// One worker a thread number at a time.
    pub unsafe fn worker(&'a self, thread: usize) -> Worker<'a> {
        let w = &self.plan.workspace;
        assert!(thread < self.plan.threads);
        let s = &w.scratch;
        // SAFETY: each part lies in this thread's scratch, which is this worker's alone; numbers of any bit pattern are valid.
        unsafe {
            let all = self.memory.part::<u8>(w.threads.offset + thread * w.thread_bytes, w.thread_bytes);
            let own = Own { at: all.as_mut_ptr(), bytes: all.len() };
            Worker {
                job: self,
                f: own.part(s.f),
                d: own.part(s.d),
                v: own.part(s.v),
                signal: own.part(s.signal),
                compressed: own.part(s.compressed),
                step_begin: own.part(s.step_begin),
                step_end: own.part(s.step_end),
                step_value: own.part(s.step_value),
                columns: own.part(s.columns),
                live: own.part(s.live),
                edges: own.part(s.edges),
                #[cfg(target_arch = "x86_64")]
                formed: Formed::new(own.part(s.formed)),
                lines: own.part(s.lines),
                usual_ends: own.part(s.usual_ends),
                usual_values: own.part(s.usual_values),
                usual_elements: own.part(s.usual_elements),
                usual_before: own.part(s.usual_before),
                usual_credits: own.part(s.usual_credits),
                row_table: own.part(s.row_table),
                row_marks: own.part(s.row_marks),
                places: Places {
                    gain_most: own.part(s.gain_most),
                    weight_most: own.part(s.weight_most),
                    gain_sums: own.part(s.gain_sums),
                    weight_sums: own.part(s.weight_sums),
                },
                report: Report::default(),
                masks: None,
                missing: 0,
                found: false,
                together: false,
                upcoming: None,
                ahead: 0..0,
                usual_sets: Sets::none(),
                gappy: false,
                place: Place::WHOLE,
                tells: false,
                group: 0,
                members: 0,
                ordinal: 0,
                next_tokens: 0..0,
                whiten_sums: Sums::default(),
                runs: Runs::NONE,
                counted: false,
                exponent: None,
                late: false,
                unclean: false,
                credit_most: 0,
            }
        }
    }

    /// # Safety
    /// The range is this thread's alone.
    unsafe fn part<T>(&self, part: Part, from: usize, count: usize) -> &'a mut [T] {
        assert!(from + count <= part.count);
        // SAFETY: within the part; exclusive by the caller's word.
        unsafe { self.memory.part(part.offset + from * size_of::<T>(), count) }
    }

    /// What is kept of rollout i.
    pub fn rollout(&self, i: usize) -> Rollout {
        // SAFETY: written by the thread that prepared the rollout, in an earlier step of the same work item or before a barrier.
        unsafe { self.part::<Rollout>(self.plan.workspace.rollouts, i, 1)[0] }
    }

    /// # Safety
    /// The rollout is this thread's.
    pub unsafe fn keep(&self, i: usize, rollout: Rollout) {
        // SAFETY: by the caller's word.
        unsafe { self.part::<Rollout>(self.plan.workspace.rollouts, i, 1)[0] = rollout }
    }

    /// # Safety
    /// As `keep`; likewise for the lists below.
    pub unsafe fn scope_bits(&self, i: usize, at: &Extent) -> &'a mut [u64] {
        // SAFETY: rollout i's words: those of its slots, with one to spare for each rollout before it.
        unsafe { self.part(self.plan.workspace.scope, at.slot / 64 + 2 * i, scope::words(at.len)) }
    }

    pub unsafe fn last(&self, at: &Extent) -> &'a mut [u32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.last, at.slot, at.len) }
    }

    pub unsafe fn weights(&self, at: &Extent) -> &'a mut [u32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.weights, at.slot, at.len) }
    }

    pub unsafe fn elements(&self, list: usize, at: &Extent) -> &'a mut [f32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.elements, list * self.plan.limits.tokens + at.slot, at.len) }
    }

    pub unsafe fn values(&self, list: usize, at: &Extent) -> &'a mut [f32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.values, list * self.plan.limits.tokens + at.slot, at.len) }
    }

    pub unsafe fn token_values(&self, list: usize, at: &Extent) -> &'a mut [f32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.token_values, list * self.plan.limits.tokens + at.slot, at.len) }
    }

    pub unsafe fn step_keys(&self, at: &Extent) -> &'a mut [i64] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.step_keys, at.slot, at.len) }
    }

    pub unsafe fn chunk_steps(&self, at: &Extent) -> &'a mut [u32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.chunk_steps, at.slot, at.len) }
    }

    /// Standardised elements of a list, from slot `slot` on.
    pub unsafe fn stepped(&self, list: usize, slot: usize, count: usize) -> &'a mut [f64] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.stepped, list * self.plan.limits.tokens + slot, count) }
    }

    /// The element of a list at slot `slot`, whichever rollout has it.
    pub unsafe fn element(&self, list: usize, slot: usize) -> f32 {
        // SAFETY: by the caller's word.
        unsafe { self.part::<f32>(self.plan.workspace.elements, list * self.plan.limits.tokens + slot, 1)[0] }
    }

    /// Room for the steps of group g.
    pub unsafe fn keyed(&self, g: usize) -> &'a mut [KeyedStep] {
        // SAFETY: read only, written before the threads began; then by the caller's word.
        unsafe {
            let starts = self.part::<u64>(self.plan.workspace.keyed_starts, g, 2);
            self.part(self.plan.workspace.keyed, starts[0] as usize, (starts[1] - starts[0]) as usize)
        }
    }

    pub unsafe fn whitened(&self, at: &Extent) -> &'a mut [f32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.whitened, at.slot, at.len) }
    }

    pub unsafe fn baseline_weights(&self, at: &Extent) -> &'a mut [f64] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.baseline_weights, at.slot, at.len) }
    }

    pub unsafe fn baseline_gains(&self, at: &Extent) -> &'a mut [f64] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.baseline_gains, at.slot, at.len) }
    }

    pub unsafe fn kl(&self, at: &Extent) -> &'a mut [f32] {
        // SAFETY: by the caller's word.
        unsafe { self.part(self.plan.workspace.kl, at.slot, at.len) }
    }

    pub unsafe fn kl_sum(&self, i: usize) -> &'a mut f32 {
        // SAFETY: by the caller's word.
        unsafe { &mut self.part(self.plan.workspace.kl_sums, i, 1)[0] }
    }

    pub unsafe fn path(&self, i: usize) -> &'a mut f32 {
        // SAFETY: by the caller's word.
        unsafe { &mut self.part(self.plan.workspace.paths, i, 1)[0] }
    }

    /// The scope that was kept of rollout i.
    pub fn kept_scope(&self, i: usize, kept: &Rollout, at: &Extent) -> Scope<'a> {
        let (first, end, count) = (kept.first as usize, kept.end as usize, kept.count as usize);
        // SAFETY: read only, by the thread that has the rollout.
        let bits: &[u64] = if count == end - first { &[] } else { unsafe { self.scope_bits(i, at) } };
        Scope::kept(first, end, count, bits)
    }

    /// The shaped reward of a step (fusion `reward_shaping`): R = ((w_prc s + w_out r_out) + w_fmt r_fmt), rounded once. A reward of the rollout that is not
    /// finite is a finding of its own stream and left out; a signal that is not finite stays what it is, under a weight of 0 too.
    pub fn shaped_reward(&self, i: usize) -> impl Fn(f32) -> f32 + use<> {
        let c = self.config();
        let weight = c.streams[0].weight;
        let value = |s| self.rollout_value(s, i).filter(|r| r.is_finite());
        let terms: [Option<f64>; 2] = std::array::from_fn(|s| value(s).map(|r| c.streams[crate::model::config::OUTCOME + s].weight * r as f64));
        move |s| {
            let mut r = weight * s as f64;
            for term in terms.iter().flatten() {
                r += term;
            }
            if s.is_finite() { r as f32 } else { s }
        }
    }
}

impl<'a> Worker<'a> {
    /// Token values of process stream p; see `signal::load`. Uses the scratch of list p and f, d, v.
    pub fn load(&mut self, at: &Extent, p: usize) -> &[f32] {
        let job = self.job;
        let stride = job.plan.limits.rollout_tokens + 16;
        let to = &mut self.signal[p * stride..(p + 1) * stride];
        let mut wide = [&mut *self.f, &mut *self.d, &mut *self.v];
        let c = job.config();
        signal::load(job.simd(), job.problem, at, p, c.streams[p].missing, c.opd_lambda, to, &mut wide)
    }

    /// The steps of the scratch, empty.
    pub fn step_list<'s>(begin: &'s mut [u32], end: &'s mut [u32], value: &'s mut [f32]) -> StepList<'s> {
        let stride = begin.len();
        StepList { begin, end, value, stride, count: 0 }
    }
}
