//! Outputs: types, shapes, and that they share no memory with one another or with an input (but in place).
use super::view::{self, Want};
use crate::abi::constants::PASSRL_MAX_STREAMS;
use crate::abi::status::*;
use crate::abi::structs;
use crate::abi::types::{passrl_outputs, passrl_report};
use crate::error::Result;
use crate::model::array::{Array, DType};
use crate::model::batch::{Extents, Groups, Problem, Process};
use crate::model::context::{Memory, Where};
use crate::model::outputs::Outputs;
use crate::refuse;

/// Types and shapes; `apart` then says whether they share memory.
///
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
        let mut outputs = Outputs::of(advantages);
        let all = &mut outputs;
        view::output_to(&mut all.returns, place, o.returns, "outputs.returns", view::FLOATS, tokens)?;
        view::output_to(&mut all.path_scores, place, o.path_scores, "outputs.path_scores", view::WIDE, rollouts)?;
        view::output_to(&mut all.num_chunks, place, o.num_chunks, "outputs.num_chunks", view::INTS, rollouts)?;
        view::output_to(&mut all.chunk_ends, place, o.chunk_ends, "outputs.chunk_ends", view::INTS, tokens)?;
        view::output_to(&mut all.chunk_values, place, o.chunk_values, "outputs.chunk_values", view::WIDE, tokens)?;
        view::output_to(&mut all.stats_count, place, o.stats_count, "outputs.stats_count", view::I64, groups)?;
        view::output_to(&mut all.stats_mean, place, o.stats_mean, "outputs.stats_mean", view::F64, groups)?;
        view::output_to(&mut all.stats_std, place, o.stats_std, "outputs.stats_std", view::F64, groups)?;
        view::output_to(&mut all.stats_absmax, place, o.stats_absmax, "outputs.stats_absmax", view::F64, groups)?;
        view::output_to(&mut all.group_flags, place, o.group_flags, "outputs.group_flags", view::I32, groups)?;
        view::output_to(&mut all.rollout_flags, place, o.rollout_flags, "outputs.rollout_flags", view::I32, rollouts)?;
        (all.report, all.report_at) = (!o.report.is_null(), o.report.addr() as u64);
        if problem.pieces.is_some() {
            super::pieces::outputs(&outputs)?;
        }
        Ok(outputs)
    }
}

/// A report of the place's memory, or NULL.
///
/// # Safety
/// On the host NULL or a report.
pub unsafe fn report(place: Where, report: *mut passrl_report, name: &'static str) -> Result<Option<Memory>> {
    if report.is_null() {
        return Ok(None);
    }
    let bytes = match place {
        // SAFETY: by the contract.
        Where::Host => unsafe { structs::read(report, name)? }.struct_size as usize,
        Where::Cuda(_) => size_of::<passrl_report>(),
    };
    super::memory(report.cast(), bytes, bytes, align_of::<passrl_report>(), name).map(Some)
}

/// What a run writes of a report that `report` has accepted.
///
/// # Safety
/// As `report`.
pub unsafe fn report_memory(place: Where, report: *mut passrl_report) -> Option<Memory> {
    let bytes = match place {
        _ if report.is_null() => return None,
        // SAFETY: a report, whose first field is its size.
        Where::Host => unsafe { (*report).struct_size as usize },
        Where::Cuda(_) => size_of::<passrl_report>(),
    };
    Some(Memory { data: report.cast(), bytes })
}

/// Hands over the outputs that are given, the advantages first.
fn given(o: &Outputs, each: &mut dyn FnMut(&'static str, &Array)) {
    each("advantages", &o.advantages);
    let others = [
        ("returns", &o.returns),
        ("path_scores", &o.path_scores),
        ("num_chunks", &o.num_chunks),
        ("chunk_ends", &o.chunk_ends),
        ("chunk_values", &o.chunk_values),
        ("stats_count", &o.stats_count),
        ("stats_mean", &o.stats_mean),
        ("stats_std", &o.stats_std),
        ("stats_absmax", &o.stats_absmax),
        ("group_flags", &o.group_flags),
        ("rollout_flags", &o.rollout_flags),
    ];
    for (name, array) in others {
        if let Some(array) = array {
            each(name, array);
        }
    }
}

/// May two arrays share a byte? Where the answer is no, they do not; columns of one matrix and parts of its rows lie in each other's gaps.
pub fn touch(a: &Array, b: &Array) -> bool {
    match (a.span(), b.span()) {
        (Some((a0, a1)), Some((b0, b1))) => a0 <= b1 && b0 <= a1 && !gaps(a, b),
        _ => false,
    }
}

/// Is there a period after which the bytes of both repeat, and within which they are apart? The strides are tried. Whatever the period is, a byte that both had would
/// have one place in it.
fn gaps(a: &Array, b: &Array) -> bool {
    let strides = |a: &Array| [0, 1].map(|d| if a.shape[d] > 1 { a.stride[d].unsigned_abs() * a.dtype.bytes() } else { 0 });
    strides(a).into_iter().chain(strides(b)).filter(|period| *period > 0).any(|period| {
        let ((a0, a), (b0, b)) = (within(a, period), within(b, period));
        let ahead = |from: usize, to: usize| (to + period - from) % period;
        // Each begins behind the other's end, going round.
        a < period && b < period && ahead(a0, b0) >= a && ahead(b0, a0) >= b
    })
}

/// Where in a period the bytes of an array that has some lie: from where on, how many at most.
fn within(a: &Array, period: usize) -> (usize, usize) {
    let (each, mut low, mut high) = (a.dtype.bytes() as isize, 0, 0);
    for d in 0..2 {
        let stride = if a.shape[d] > 1 { a.stride[d] * each } else { 0 };
        // A dimension that steps by whole periods is at one place in all of them.
        if stride.unsigned_abs() % period != 0 {
            let reach = (a.shape[d] as isize - 1) * stride;
            (low, high) = (low + reach.min(0), high + reach.max(0));
        }
    }
    (a.data.addr().wrapping_add_signed(low) % period, (high - low + each) as usize)
}

/// Memory as an array of bytes.
pub fn block(memory: &Memory) -> Array {
    Array { data: memory.data, dtype: DType::U8, shape: [memory.bytes, 1], stride: [1, 1] }
}

pub fn same(a: &Array, b: &Array) -> bool {
    a.data == b.data && a.dtype == b.dtype && a.shape == b.shape && a.stride == b.stride
}

/// Does no output share memory with anything? (The usual answer, found without looking for words.)
fn all_apart(o: &Outputs, report: Option<&Memory>, workspace: &Memory, p: &Problem) -> bool {
    // What is written, by its first and last bytes.
    let (mut spans, mut count, mut apart) = ([(0usize, 0usize); 14], 0, true);
    let met = |spans: &[(usize, usize)], (low, high): (usize, usize)| spans.iter().fold(false, |met, s| met | ((s.0 <= high) & (low <= s.1)));
    let mut written = |span: Option<(usize, usize)>| {
        if let Some(span) = span {
            apart &= !met(&spans[..count], span);
            spans[count] = span;
            count += 1;
        }
    };
    written(workspace.span());
    written(report.and_then(Memory::span));
    given(o, &mut |_, array| written(array.span()));
    inputs(p, &mut |_, array, _| apart &= !array.span().is_some_and(|span| met(&spans[..count], span)));
    apart
}

/// Outputs, report and workspace share no memory with one another or with an input, but for advantages in place. `workspace`: what `check::memory` said of it, which
/// is told after what is wrong with the outputs.
pub fn apart(o: &Outputs, report: Option<&Memory>, workspace: Result<Memory>, p: &Problem) -> Result<Memory> {
    if let Ok(memory) = workspace {
        if all_apart(o, report, &memory, p) {
            return Ok(memory);
        }
    }
    outputs_apart(o, report, p)?;
    let memory = workspace?;
    lent(&memory, "workspace", Some(o), p)?;
    if let Some(report) = report {
        super::apart(&memory, "workspace", report, "outputs.report")?;
    }
    Ok(memory)
}

/// `apart`, of outputs and report; found by looking, for the sentence.
pub fn outputs_apart(o: &Outputs, report: Option<&Memory>, p: &Problem) -> Result<()> {
    if let Some(report) = report {
        lent(report, "outputs.report", Some(o), p)?;
    }
    let (mut first, mut found) = (0, Ok(()));
    given(o, &mut |name, a| {
        let mut second = 0;
        given(o, &mut |other, b| {
            if second > first && found.is_ok() && touch(a, b) {
                found = refuse!(PASSRL_ERR_OVERLAP, "outputs.{name} and outputs.{other} share memory; give each its own");
            }
            second += 1;
        });
        inputs(p, &mut |other, b, in_place| {
            if found.is_ok() && touch(a, b) && !(in_place && first == 0 && same(a, b)) {
                found = refuse!(
                    PASSRL_ERR_OVERLAP,
                    "outputs.{name} and batch.{other} share memory; only advantages may be written in place, over signal[0], logp_policy, \
                     logp_teacher, logp_base, values or token_rewards of the same type, shape and strides"
                );
            }
        });
        first += 1;
    });
    found
}

/// Hands over the batch's arrays that are given; `true`: advantages may be written over it.
pub(super) fn inputs(p: &Problem, each: &mut dyn FnMut(&'static str, &Array, bool)) {
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
    let mut tell = |name: &'static str, array: Option<&Array>, in_place: bool| {
        if let Some(array) = array {
            each(name, array, in_place);
        }
    };
    tell("signal[0]", signal[0], true);
    tell("signal[1]", signal[1], false);
    tell("signal[2]", signal[2], false);
    tell("signal[3]", signal[3], false);
    tell("logp_policy", logp[0], true);
    tell("logp_teacher", logp[1], true);
    tell("logp_base", logp[2], true);
    tell("values", p.values.as_ref(), true);
    tell("token_rewards", p.token_rewards.as_ref(), true);
    tell("mask", p.mask.as_ref(), false);
    tell("step_scores", scores, false);
    tell("step_offsets", steps.map(|s| &s.offsets), false);
    tell("step_ends", steps.map(|s| &s.ends), false);
    tell("step_begins", steps.and_then(|s| s.begins.as_ref()), false);
    tell("step_marks", p.step_marks.as_ref(), false);
    tell("chunk_ends", p.chunk_marks.as_ref(), false);
    tell("cu_seqlens", cu_seqlens, false);
    tell("lengths", lengths, false);
    tell("group_index", group_index, false);
    tell("group_offsets", group_offsets, false);
    tell("format_ok", p.format_ok.as_ref(), false);
    tell("in_stats", p.in_stats.as_ref(), false);
    tell("absent", p.absent.as_ref(), false);
    tell("bootstrap", p.bootstrap.as_ref(), false);
    tell("baselines", p.baselines.as_ref(), false);
    tell("stats_mean", p.stats_mean.as_ref(), false);
    tell("stats_std", p.stats_std.as_ref(), false);
    tell("rollout_lam", p.rollout_lam.as_ref(), false);
    tell("logp_policy", p.reference.as_ref().or(p.behavior.as_ref()).map(|r| &r.0), true);
    tell("logp_reference", p.reference.as_ref().map(|r| &r.1), false);
    tell("logp_behavior", p.behavior.as_ref().map(|r| &r.1), false);
    tell("step_group", p.step_group.as_ref(), false);
    tell("logp_policy", baselines.map(|b| &b.policy), true);
    tell("sum_pi_squared", baselines.map(|b| &b.sum_pi_squared), false);
    tell("token_ratio", baselines.and_then(|b| b.ratio.as_ref()), false);
    tell("piece_rollout", pieces.map(|p| &p.rollout), false);
    tell("piece_begin", pieces.map(|p| &p.begin), false);
    tell("piece_index", pieces.map(|p| &p.index), false);
    tell("lengths", pieces.map(|p| &p.lengths), false);
    tell("rollout_index", pieces.and_then(|p| p.numbers.as_ref()), false);
    for stream in &p.rollout_streams {
        tell("outcome, format or extra", stream.as_ref(), false);
    }
}

/// Memory lent for the call shares nothing with an output or an input. A buffer that is only read may be read twice, but nothing is both.
pub fn lent(memory: &Memory, name: &str, o: Option<&Outputs>, p: &Problem) -> Result<()> {
    let Some((low, high)) = memory.span() else { return Ok(()) };
    let inside = |a: &Array| a.span().is_some_and(|(a0, a1)| a0 <= high && low <= a1) && touch(a, &block(memory));
    let mut found = Ok(());
    if let Some(o) = o {
        given(o, &mut |other, array| {
            if found.is_ok() && inside(array) {
                found = refuse!(PASSRL_ERR_OVERLAP, "{name} and outputs.{other} share memory; give each its own");
            }
        });
    }
    inputs(p, &mut |other, array, _| {
        if found.is_ok() && inside(array) {
            found = refuse!(PASSRL_ERR_OVERLAP, "{name} and batch.{other} share memory; give each its own");
        }
    });
    found
}
