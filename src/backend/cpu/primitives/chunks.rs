//! Chunk boundaries (eq. 6, Algorithm 2) without values: the detector of kind prm on a dense signal or on scores, with or without steps.
use super::Scratch;
use crate::backend::cpu::chunk::{self, ChunkList, Detector};
use crate::backend::cpu::outputs::{put_int, slots};
use crate::backend::cpu::scope::{self, Scope};
use crate::backend::cpu::signal;
use crate::backend::cpu::steps::{self, StepList};
use crate::model::batch::{Extent, Problem, Process};
use crate::model::config::{BoundaryRule, Config, Missing};
use crate::model::context::Memory;
use crate::model::primitives::{Call, Found, What};
use crate::numerics::fpmode::with_default_mode;
use crate::numerics::simd::Simd;
use crate::plan::primitives::Workspace;

/// Outputs: chunks of each rollout; the exclusive end of each.
pub fn chunk_boundaries(simd: Simd, call: &Call<0, 2>, config: &Config, w: &Workspace, memory: Memory) -> Found {
    let mut found = Found::default();
    with_default_mode(|| {
        let mut s = Scratch::new(w, memory);
        for i in 0..call.problem.rollouts {
            let at = call.problem.extent(i);
            let k = rollout(simd, &call.problem, config, i, &at, &mut s, &mut found);
            // SAFETY: one thread; the outputs lie over no input.
            unsafe {
                if let Some(counts) = &call.outputs[0] {
                    put_int(&counts.whole(), i, k as i64);
                }
                if let Some(ends) = &call.outputs[1] {
                    let row = slots(ends, &at);
                    s.last[..k].iter().enumerate().for_each(|(j, last)| put_int(&row, j, *last as i64 + 1));
                }
            }
        }
        found
    })
}

/// Lists the last tokens of the chunks of rollout i; how many.
fn rollout(simd: Simd, problem: &Problem, config: &Config, i: usize, at: &Extent, s: &mut Scratch, found: &mut Found) -> usize {
    if super::absent(problem, i) {
        return 0;
    }
    let missing = config.streams[0].missing;
    let mut count_steps = 0;
    if let Some(csr) = &problem.steps {
        if !steps::fit(csr, i, at.len) {
            found.note(What::BadSteps, "batch.step_ends", i, None);
            return 0;
        }
        let (from, to) = steps::numbers(csr, i);
        count_steps = to - from;
    }
    // The scope in bits: steps and missing values take tokens out of it.
    let bits = &mut s.bits[..scope::words(at.len)];
    match &problem.mask {
        Some(mask) => scope::read_mask(simd, &at.of(mask), bits),
        None => scope::fill_span(bits, 0, at.len),
    }
    if let Some(csr) = problem.steps.filter(|_| count_steps > 0) {
        let (from, to) = steps::numbers(&csr, i);
        if let Some(begins) = csr.begins {
            let mut before = 0;
            for j in from..to {
                scope::clear(bits, before, begins.int(j) as usize);
                before = csr.ends.int(j) as usize;
            }
            scope::clear(bits, before, at.len);
        }
    }
    let mut chunks = ChunkList { last: s.last, values: Default::default(), lists: 0, count: 0 };
    let none = |_: usize, _: usize, _: usize| 0.0;
    if problem.steps.is_some() && count_steps == 0 {
        chunk::whole(&Scope::from_bits(bits), |_, _| 0.0, &mut chunks);
        return chunks.count;
    }
    let mut line: &[f32] = &[];
    if matches!(problem.process, Process::Signal(_)) {
        line = signal::load(simd, problem, at, 0, missing, config.opd_lambda, s.line, &mut s.wide);
        let bad = (0..at.len)
            .find(|t| bits[t / 64] >> (t % 64) & 1 == 1 && !line[*t].is_finite() && !(line[*t].is_nan() && missing == Missing::Exclude));
        note(found, bad.map(|t| line[t]), "batch.signal[0]", i, bad);
        if missing == Missing::Exclude {
            (0..at.len).filter(|t| line[*t].is_nan()).for_each(|t| scope::clear(bits, t, t + 1));
        }
    }
    let Some(csr) = &problem.steps else {
        let scope = Scope::from_bits(bits);
        if !scope.has_holes() && scope.count == at.len && config.boundary_rule == BoundaryRule::Adjacent {
            return chunk::detect(simd, line, config.eta, chunks.last);
        }
        Detector { config, steps_cut: false }.run(&scope, &[(0, at.len)], false, &|_, t| line[t], &none, &mut chunks);
        return chunks.count;
    };
    let (from, to) = steps::numbers(csr, i);
    let scores = matches!(problem.process, Process::Scores(_));
    let mut list = StepList { stride: s.begin.len(), begin: s.begin, end: s.end, value: s.value, count: 0 };
    let whole = Scope::from_bits(bits);
    let (first, end, count) = (whole.first, whole.end, whole.count);
    let mut noted = false;
    for number in from..to {
        let (a, b) = steps::range(csr, number, from, to, at.len);
        // Steps do not overlap: what an earlier one has taken out of scope is not asked for again.
        let Some(last) = Scope::kept(first, end, count, bits).last_in(a, b) else { continue };
        let mut x = 0.0;
        if scores {
            x = steps::score(problem, 0, number);
            if x.is_nan() && missing == Missing::Exclude {
                scope::clear(bits, a, b);
                continue;
            }
            x = if x.is_nan() && missing == Missing::Zero { 0.0 } else { x };
            if !x.is_finite() && !noted {
                note(found, Some(x), "batch.step_scores", i, Some(last));
                noted = true;
            }
        }
        let j = list.push(a, b);
        list.set(0, j, x);
    }
    let scope = Scope::from_bits(bits);
    let detector = Detector { config, steps_cut: true };
    if list.count == 0 {
        chunk::whole(&scope, |_, _| 0.0, &mut chunks);
    } else if scores {
        detector.run_list(&scope, &list, true, &|j, _| list.value[j], &none, &mut chunks);
    } else {
        detector.run_list(&scope, &list, false, &|_, t| line[t], &none, &mut chunks);
    }
    chunks.count
}

/// A value that is not finite.
fn note(found: &mut Found, value: Option<f32>, argument: &'static str, rollout: usize, token: Option<usize>) {
    if let Some(x) = value {
        found.note(if x.is_nan() { What::Missing } else { What::NonFinite }, argument, rollout, token);
    }
}
