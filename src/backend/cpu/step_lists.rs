//! The caller's steps of a rollout, as a list of those that have a token in scope: CSR steps, and sparse marks.
use super::pieces::Edge;
use super::prepare::Form;
use super::scope::{self, Scope};
use super::steps::{self, StepList};
use super::worker::Job;
use crate::model::batch::{Extent, Problem, Process};
use crate::model::config::*;
use crate::model::flags;
use crate::model::pieces as words;
use crate::plan::workspace::Rollout;

/// CSR steps that have a token in scope, with their values. Returns the missing values counted.
#[allow(clippy::too_many_arguments)]
pub fn csr(
    i: usize,
    at: &Extent,
    form: Form,
    lines: &[&[f32]; MAX_PROCESS],
    bits: &mut [u64],
    in_bits: &mut bool,
    list: &mut StepList,
    job: &Job,
    kept: &mut Rollout,
) -> i64 {
    let (problem, c) = (job.problem, job.config());
    let Some(csr) = &problem.steps else { return 0 };
    let (from, to) = steps::numbers(csr, problem.row(i));
    let streams = if form == Form::Stepless { 0 } else { problem.num_process };
    let scores = matches!(problem.process, Process::Scores(_)) && streams > 0;
    let mut missing_values = 0;
    // Bits as they are before steps are taken out: ranges of steps do not overlap, so counting in the old scope is counting in the new.
    let first_scope = if *in_bits { Scope::from_bits(bits) } else { Scope::span(0, at.len) };
    let (first, end, count) = (first_scope.first, first_scope.end, first_scope.count);
    for number in from..to {
        let (a, b) = steps::clipped(steps::range(csr, number, from, to, at.whole), at);
        let scope = Scope::kept(first, end, count, bits);
        let Some(last) = scope.last_in(a, b) else { continue };
        let mut values = [0f32; MAX_PROCESS];
        let mut drop = false;
        for p in 0..streams {
            let mut x = match (scores, form) {
                (true, _) => steps::score(problem, p, number),
                _ if matches!(problem.process, Process::Returns) => 0.0,
                (false, Form::DenseWithEnds) => lines[p][last],
                _ => steps::exact_sum(job.simd(), lines[p], &scope, a, b),
            };
            if scores && x.is_nan() && c.streams[p].missing != Missing::Error {
                missing_values += i64::from(job.counting && !job.step_goes_on(i, number - from));
                kept.flags |= flags::ROLLOUT_MISSING;
                match c.streams[p].missing {
                    Missing::Zero => x = 0.0,
                    _ => drop |= p == 0,
                }
            }
            values[p] = x;
            if drop {
                break; // the other streams are not read in a step that leaves the scope
            }
        }
        if drop {
            if !*in_bits {
                scope::fill_span(bits, 0, at.len);
                *in_bits = true;
            }
            // Later steps are looked up in the scope as it was; this one's tokens are not asked for again.
            scope::clear(bits, a, b);
            continue;
        }
        let j = list.push(a, b);
        if let Some(keys) = &problem.step_group {
            // SAFETY: the rollout's own list.
            unsafe { job.step_keys(at)[j] = keys.int(number) };
        }
        for (p, x) in values.iter().enumerate().take(streams) {
            list.set(p, j, *x);
        }
    }
    missing_values
}

/// Steps of the sparse form: a mark on an in-scope token ends a step with that token's value.
#[allow(clippy::too_many_arguments)]
pub fn sparse(
    i: usize,
    at: &Extent,
    lines: &[&[f32]; MAX_PROCESS],
    bits: &mut [u64],
    in_bits: &mut bool,
    list: &mut StepList,
    job: &Job,
    kept: &mut Rollout,
    edge: &mut Edge,
) -> i64 {
    let (problem, c) = (job.problem, job.config());
    let Some(marks) = problem.step_marks.as_ref().map(|m| at.of(m)) else { return 0 };
    let sums = matches!(problem.process, Process::LogProbs { .. });
    let mut missing_values = 0;
    if !*in_bits {
        scope::fill_span(bits, 0, at.len);
        *in_bits = true;
    }
    let last_mark = (0..at.len).rev().find(|t| bits[t / 64] >> (t % 64) & 1 == 1 && marks.flag(*t));
    // Of a piece: a later one may have a mark, whose step these tokens are of.
    let (rollout, piece) = job.piece(i);
    let rows = job.rows(rollout);
    let later = rows.is_some_and(|rows| (piece + 1..rows.count()).any(|j| rows.row(j)[words::MARKS] > 0));
    let tail_from = last_mark.map_or(0, |t| t + 1);
    let mut begin = 0;
    for t in 0..at.len {
        if bits[t / 64] >> (t % 64) & 1 == 0 || !marks.flag(t) {
            continue;
        }
        // Tokens after the last mark belong to the last step.
        let end = if Some(t) == last_mark && !later { at.len } else { t + 1 };
        let mut values = [0f32; MAX_PROCESS];
        let mut drop = false;
        for p in 0..problem.num_process {
            values[p] = if sums { steps::exact_sum(job.simd(), lines[p], &Scope::from_bits(bits), begin, end) } else { lines[p][t] };
            let raw_missing = !sums && signal_is_nan(problem, at, p, t);
            if raw_missing && c.streams[p].missing != Missing::Error {
                missing_values += i64::from(job.counting);
                kept.flags |= flags::ROLLOUT_MISSING;
                drop |= p == 0 && c.streams[p].missing == Missing::Exclude;
            }
            if drop {
                break; // as for CSR steps
            }
        }
        edge.marks += 1;
        for (word, x) in edge.marked.iter_mut().zip(values) {
            *word = words::pair(if edge.marks == 1 { x } else { words::first(*word) }, x);
        }
        if drop {
            scope::clear(bits, begin, end);
        } else {
            let j = list.push(begin, end);
            for (p, x) in values.iter().enumerate().take(problem.num_process) {
                list.set(p, j, *x);
            }
        }
        begin = end;
        if end == at.len {
            break;
        }
    }
    let scope = Scope::from_bits(bits);
    edge.marked_last = !scope.is_empty() && last_mark == Some(scope.end - 1);
    let Some(rows) = rows.filter(|rows| (0..rows.count()).any(|j| rows.row(j)[words::MARKS] > 0)) else { return missing_values };
    if (later || last_mark.is_none()) && scope.count_in(tail_from, at.len) > 0 {
        let j = list.push(tail_from, at.len);
        for p in 0..problem.num_process {
            list.set(p, j, rows.marked(piece + 1, p));
        }
    }
    missing_values
}

fn signal_is_nan(problem: &Problem, at: &Extent, p: usize, t: usize) -> bool {
    match &problem.process {
        Process::Signal(arrays) => arrays[p].as_ref().is_some_and(|a| at.of(a).f32(t).is_nan()),
        _ => false,
    }
}
