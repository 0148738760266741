//! Outputs: types, shapes, and that they share no memory with one another or with an input (but in place).
use super::view::{self, Want};
use crate::abi::constants::PASSRL_MAX_STREAMS;
use crate::abi::status::*;
use crate::abi::structs;
use crate::abi::types::{passrl_outputs, passrl_report};
use crate::error::Result;
use crate::model::array::Array;
use crate::model::batch::{Extents, Groups, Problem, Process};
use crate::model::context::{Memory, Where};
use crate::model::outputs::Outputs;
use crate::refuse;

/// # Safety
/// The views are NULL or `passrl_view`s of writable memory of the place; the report is NULL or a report.
pub unsafe fn outputs(place: Where, o: &passrl_outputs, problem: &Problem) -> Result<Outputs> {
    let tokens = if problem.packed() { Want::Line(problem.slots) } else { Want::Grid(problem.rollouts, problem.slots) };
    let rollouts = Want::Line(problem.rollouts);
    let groups = Want::Grid(problem.groups, PASSRL_MAX_STREAMS);
    if o.reserved0 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "outputs.reserved0 is {}; it must be 0", o.reserved0);
    }
    // SAFETY: by the contract.
    unsafe {
        report(place, o.report, "outputs.report")?;
        let Some(advantages) = view::output(place, o.advantages, "outputs.advantages", view::FLOATS, tokens)? else {
            return refuse!(PASSRL_ERR_NULL, "outputs.advantages is NULL; a run always writes them");
        };
        let outputs = Outputs {
            advantages,
            returns: view::output(place, o.returns, "outputs.returns", view::FLOATS, tokens)?,
            path_scores: view::output(place, o.path_scores, "outputs.path_scores", view::WIDE, rollouts)?,
            num_chunks: view::output(place, o.num_chunks, "outputs.num_chunks", view::INTS, rollouts)?,
            chunk_ends: view::output(place, o.chunk_ends, "outputs.chunk_ends", view::INTS, tokens)?,
            chunk_values: view::output(place, o.chunk_values, "outputs.chunk_values", view::WIDE, tokens)?,
            stats_count: view::output(place, o.stats_count, "outputs.stats_count", view::I64, groups)?,
            stats_mean: view::output(place, o.stats_mean, "outputs.stats_mean", view::F64, groups)?,
            stats_std: view::output(place, o.stats_std, "outputs.stats_std", view::F64, groups)?,
            stats_absmax: view::output(place, o.stats_absmax, "outputs.stats_absmax", view::F64, groups)?,
            group_flags: view::output(place, o.group_flags, "outputs.group_flags", view::I32, groups)?,
            rollout_flags: view::output(place, o.rollout_flags, "outputs.rollout_flags", view::I32, rollouts)?,
            report: !o.report.is_null(),
            report_at: o.report.addr() as u64,
        };
        if problem.pieces.is_some() {
            super::pieces::outputs(&outputs)?;
        }
        apart(&outputs, problem)?;
        Ok(outputs)
    }
}

/// A report of the place's memory, or NULL.
///
/// # Safety
/// On the host NULL or a report.
pub unsafe fn report(place: Where, report: *mut passrl_report, name: &'static str) -> Result<()> {
    match place {
        _ if report.is_null() => (),
        // SAFETY: by the contract.
        Where::Host => _ = unsafe { structs::read(report, name)? },
        Where::Cuda(_) => _ = super::memory(report.cast(), size_of::<passrl_report>(), size_of::<passrl_report>(), 8, name)?,
    }
    Ok(())
}

fn named(o: &Outputs) -> [(&'static str, Option<Array>); 12] {
    [
        ("advantages", Some(o.advantages)),
        ("returns", o.returns),
        ("path_scores", o.path_scores),
        ("num_chunks", o.num_chunks),
        ("chunk_ends", o.chunk_ends),
        ("chunk_values", o.chunk_values),
        ("stats_count", o.stats_count),
        ("stats_mean", o.stats_mean),
        ("stats_std", o.stats_std),
        ("stats_absmax", o.stats_absmax),
        ("group_flags", o.group_flags),
        ("rollout_flags", o.rollout_flags),
    ]
}

pub fn touch(a: &Array, b: &Array) -> bool {
    match (a.span(), b.span()) {
        (Some((a0, a1)), Some((b0, b1))) => a0 <= b1 && b0 <= a1,
        _ => false,
    }
}

pub fn same(a: &Array, b: &Array) -> bool {
    a.data == b.data && a.dtype == b.dtype && a.shape == b.shape && a.stride == b.stride
}

/// Does no output share memory with anything? (The usual answer, found without looking for words.)
fn all_apart(outputs: &[(&'static str, Option<Array>)], p: &Problem) -> bool {
    // Outputs given, by their first and last bytes; the first of them is the advantages.
    let (mut spans, mut count) = ([(0usize, 0usize); 12], 0);
    for span in outputs.iter().filter_map(|(_, a)| a.as_ref()?.span()) {
        if spans[..count].iter().any(|s| s.0 <= span.1 && span.0 <= s.1) {
            return false;
        }
        spans[count] = span;
        count += 1;
    }
    inputs(p).filter_map(|(_, a, _)| a?.span()).all(|span| spans[..count].iter().all(|s| s.0 > span.1 || span.0 > s.1))
}

fn apart(o: &Outputs, p: &Problem) -> Result<()> {
    let outputs = named(o);
    if all_apart(&outputs, p) {
        return Ok(());
    }
    for (i, (name, a)) in outputs.iter().enumerate() {
        let Some(a) = a else { continue };
        for (other, b) in outputs.iter().skip(i + 1) {
            if b.is_some_and(|b| touch(a, &b)) {
                return refuse!(PASSRL_ERR_OVERLAP, "outputs.{name} and outputs.{other} share memory; give each its own");
            }
        }
        for (other, b, in_place) in inputs(p) {
            let Some(b) = b else { continue };
            if touch(a, b) && !(in_place && i == 0 && same(a, b)) {
                return refuse!(
                    PASSRL_ERR_OVERLAP,
                    "outputs.{name} and batch.{other} share memory; only advantages may be written in place, over signal[0], logp_*, values or \
                     token_rewards of the same type, shape and strides"
                );
            }
        }
    }
    Ok(())
}

/// The batch's arrays; `true`: advantages may be written over it.
pub(super) fn inputs(p: &Problem) -> impl Iterator<Item = (&'static str, Option<&Array>, bool)> {
    let (cu_seqlens, lengths) = match &p.extents {
        Extents::Packed { cu_seqlens } => (Some(cu_seqlens), None),
        Extents::Padded { lengths, .. } => (None, lengths.as_ref()),
    };
    let (group_index, group_offsets) = match &p.grouping {
        Groups::Index(a) => (Some(a), None),
        Groups::Offsets(a) => (None, Some(a)),
        Groups::Constant(_) => (None, None),
    };
    let (mut signal, mut logp, mut scores) = ([None; 4], [None; 3], None);
    match &p.process {
        Process::None | Process::Returns => (),
        Process::Signal(arrays) => signal = arrays.each_ref().map(Option::as_ref),
        Process::LogProbs { policy, teacher, base } => logp = [Some(policy), Some(teacher), base.as_ref()],
        Process::Scores(a) => scores = Some(a),
    }
    let (steps, pieces, baselines) = (p.steps.as_ref(), p.pieces.as_ref(), p.baseline_inputs.as_ref());
    let rollout_streams = p.rollout_streams.iter().map(|a| ("outcome, format or extra", a.as_ref(), false));
    [
        ("signal[0]", signal[0], true),
        ("signal[1]", signal[1], false),
        ("signal[2]", signal[2], false),
        ("signal[3]", signal[3], false),
        ("logp_policy", logp[0], true),
        ("logp_teacher", logp[1], true),
        ("logp_base", logp[2], true),
        ("values", p.values.as_ref(), true),
        ("token_rewards", p.token_rewards.as_ref(), true),
        ("mask", p.mask.as_ref(), false),
        ("step_scores", scores, false),
        ("step_offsets", steps.map(|s| &s.offsets), false),
        ("step_ends", steps.map(|s| &s.ends), false),
        ("step_begins", steps.and_then(|s| s.begins.as_ref()), false),
        ("step_marks", p.step_marks.as_ref(), false),
        ("chunk_ends", p.chunk_marks.as_ref(), false),
        ("cu_seqlens", cu_seqlens, false),
        ("lengths", lengths, false),
        ("group_index", group_index, false),
        ("group_offsets", group_offsets, false),
        ("format_ok", p.format_ok.as_ref(), false),
        ("in_stats", p.in_stats.as_ref(), false),
        ("absent", p.absent.as_ref(), false),
        ("bootstrap", p.bootstrap.as_ref(), false),
        ("baselines", p.baselines.as_ref(), false),
        ("stats_mean", p.stats_mean.as_ref(), false),
        ("stats_std", p.stats_std.as_ref(), false),
        ("rollout_lam", p.rollout_lam.as_ref(), false),
        ("logp_policy", p.reference.as_ref().or(p.behavior.as_ref()).map(|r| &r.0), true),
        ("logp_reference", p.reference.as_ref().map(|r| &r.1), false),
        ("logp_behavior", p.behavior.as_ref().map(|r| &r.1), false),
        ("step_group", p.step_group.as_ref(), false),
        ("logp_policy", baselines.map(|b| &b.policy), true),
        ("sum_pi_squared", baselines.map(|b| &b.sum_pi_squared), false),
        ("token_ratio", baselines.and_then(|b| b.ratio.as_ref()), false),
        ("piece_rollout", pieces.map(|p| &p.rollout), false),
        ("piece_begin", pieces.map(|p| &p.begin), false),
        ("piece_index", pieces.map(|p| &p.index), false),
        ("lengths", pieces.map(|p| &p.lengths), false),
        ("rollout_index", pieces.and_then(|p| p.numbers.as_ref()), false),
    ]
    .into_iter()
    .chain(rollout_streams)
}

/// Memory lent for the call shares nothing with an output or an input. A buffer that is only read may be read twice, but nothing is both.
pub fn lent(memory: &Memory, name: &str, o: Option<&Outputs>, p: &Problem) -> Result<()> {
    let Some((low, high)) = memory.span() else { return Ok(()) };
    let inside = |a: &Array| a.span().is_some_and(|(a0, a1)| a0 <= high && low <= a1);
    for (other, array) in o.into_iter().flat_map(named) {
        if array.as_ref().is_some_and(inside) {
            return refuse!(PASSRL_ERR_OVERLAP, "{name} and outputs.{other} share memory; give each its own");
        }
    }
    for (other, array, _) in inputs(p) {
        if array.is_some_and(inside) {
            return refuse!(PASSRL_ERR_OVERLAP, "{name} and batch.{other} share memory; give each its own");
        }
    }
    Ok(())
}
