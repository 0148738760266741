//! The order of a partials buffer's phases, by what each has been given. On CUDA, where the host does not see the buffer, kernels/phases.cuh looks likewise.
use crate::abi::status::*;
use crate::error::Result;
use crate::model::batch::Problem;
use crate::refuse;

/// May a call come to phase `phase`?
pub fn add(given: &[i64], phase: usize, problem: &Problem) -> Result<()> {
    let (units, what) = (problem.units(), rows(problem));
    if units == 0 {
        return Ok(());
    }
    if let Some(later) = (phase + 1..given.len()).find(|later| given[*later] != 0) {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "phase {phase} is given {units} {what} after phase {later} has been given {}, which has taken phase {phase} for complete; give all micro-batches to a phase before the first one to the next, and begin another batch with passrl_partials_init",
            given[later]
        );
    }
    if phase > 0 && given[phase - 1] == 0 {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "phase {phase} is given {units} {what} and phase {} has been given none; give all micro-batches to a phase before the first one to the next, and reduce all of its sections where ranks have their own buffers",
            phase - 1
        );
    }
    Ok(())
}

/// Has every phase been given as much, and something where the slice is not empty?
pub fn complete(given: &[i64], problem: &Problem) -> Result<()> {
    if problem.units() > 0 && given.iter().all(|n| *n == 0) {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "buffer: none of the {} phases has been given anything, and this slice has {} {}; give every micro-batch once to each phase, and reduce all of their sections where ranks have their own buffers",
            given.len(), problem.units(), rows(problem)
        );
    }
    match (1..given.len()).find(|phase| given[*phase] != given[0]) {
        Some(other) => refuse!(
            PASSRL_ERR_CONFLICT,
            "buffer: phase 0 has been given {} {what} and phase {other} {}; give every micro-batch once to each of the {} phases, and reduce all of their sections where ranks have their own buffers",
            given[0], given[other], given.len(), what = rows(problem)
        ),
        None => Ok(()),
    }
}

/// Two buffers that were merged, unless they differ in a phase before the latest.
pub fn merged(differ: Option<usize>) -> Result<()> {
    match differ {
        Some(phase) => refuse!(
            PASSRL_ERR_CONFLICT,
            "into and from differ in phase {phase}, and a later phase has begun, whose share alone could be added; merge buffers after each phase, and begin the next one with copies of what they came to"
        ),
        None => Ok(()),
    }
}

fn rows(problem: &Problem) -> &'static str {
    if problem.pieces.is_some() { "piece(s)" } else { "rollout(s)" }
}
