//! Presets whose rollouts come in pieces, dealt to ranks and to micro-batches of each: random cuts and Megatron's zigzag.
use super::micro::{bytes_of, sections};
use super::presets::Preset;
use super::wire::combine;
use super::Split;
use crate::cases::Rng;
use crate::cut::{self, Call, Piece, Stage};
use crate::harness::{self, Got, How, Plan};
use crate::oracle::Batch;
use crate::spread;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;

type Status = i32;
type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> Status;
type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> Status;
type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> Status;

/// A plan for a preset's rollouts in pieces, or why it is refused.
pub fn plan(preset: &Preset, pieces: &[Piece], how: &How) -> Result<Plan, (Status, String)> {
    harness::library().plan(&preset.config, &cut::limits(&preset.batch, pieces, how), how)
}

/// Pieces, and the calls of each rank, `[rank][micro-batch]`.
pub fn deal(split: Split, batch: &Batch, ranks: usize, micro: usize, rng: &mut Rng) -> (Vec<Piece>, Vec<Vec<Call>>) {
    let mut dealt = vec![vec![Vec::new(); micro]; ranks];
    if split == Split::Zigzag {
        for (rank, pieces) in cut::zigzag(batch, ranks).into_iter().enumerate() {
            pieces.into_iter().for_each(|p| dealt[rank][rng.below(micro)].push(p));
        }
    } else {
        cut::random(batch, 6, rng).into_iter().for_each(|p| dealt[rng.below(ranks)][rng.below(micro)].push(p));
    }
    let pieces = dealt.iter().flatten().flatten().copied().collect();
    let mut call = |mut pieces: Vec<Piece>| {
        cut::shuffle(&mut pieces, rng);
        let all = !pieces.is_empty() && rng.below(2) == 0;
        Call::new(pieces, batch, all, rng)
    };
    (pieces, dealt.into_iter().map(|calls| calls.into_iter().map(&mut call).collect()).collect())
}

/// One call a rank, its statistics and edges reduced within it.
pub fn in_one_call(preset: &Preset, how: &How, pieces: &[Piece], parts: Vec<Vec<Call>>) -> Result<Got, String> {
    let calls: Vec<Call> = parts.into_iter().flatten().collect();
    let (said, got) = spread::over_ranks_of(&preset.config, &preset.cfg, &preset.batch, how, &calls, pieces, &|_, _| ());
    match said.into_iter().find(|(status, _)| *status < 0) {
        Some((status, said)) => Err(format!("{status} {said}")),
        None => Ok(got),
    }
}

/// Each rank adds its micro-batches to a buffer of its own; after each phase the buffers' sections are all-reduced.
pub fn in_micro_batches(plan: &Plan, preset: &Preset, how: &How, parts: &[Vec<Call>]) -> Result<Got, String> {
    let library = harness::library();
    let bytes = plan.size("passrl_partials_size");
    let (init, add, apply): (Init, Add, Apply) = (library.get("passrl_partials_init"), library.get("passrl_partials_add"), library.get("passrl_plan_apply"));
    let said = |status: Status| if status < 0 { Err(format!("{status} {}", library.last_error())) } else { Ok(()) };
    let mut buffers = vec![vec![0u64; bytes.div_ceil(8)]; parts.len()];
    for buffer in &mut buffers {
        // SAFETY: a live plan and a buffer of that size.
        said(unsafe { init(plan.plan, buffer.as_mut_ptr().cast(), bytes) })?;
    }
    let workspace = plan.workspace(how);
    let batches: Vec<Vec<(Batch, Batch)>> = parts.iter().map(|calls| calls.iter().map(|call| cut::parts(&preset.batch, call)).collect()).collect();
    let mut placed: Vec<Vec<_>> = batches.iter().map(|of| of.iter().map(|of| cut::place(&preset.cfg, of, how)).collect()).collect();
    let stages: Vec<Vec<Stage>> = placed
        .iter_mut()
        .zip(parts)
        .map(|(placed, calls)| placed.iter_mut().zip(calls).map(|(placed, call)| Stage::new(placed, &preset.batch, call)).collect())
        .collect();
    for phase in 0..plan.phases() {
        for (buffer, stages) in buffers.iter_mut().zip(&stages) {
            for stage in stages {
                // SAFETY: live plan, batch and buffers; likewise below.
                said(unsafe { add(plan.plan, phase, &stage.batch, buffer.as_mut_ptr().cast(), bytes, workspace.at, workspace.bytes, null_mut()) })?;
            }
        }
        for section in sections(plan, phase) {
            let mut sum = bytes_of(&mut buffers[0], &section).to_vec();
            buffers[1..].iter_mut().for_each(|b| combine(&mut sum, bytes_of(b, &section), section.dtype, section.op));
            buffers.iter_mut().for_each(|b| bytes_of(b, &section).copy_from_slice(&sum));
        }
    }
    let mut all = harness::empty(&preset.batch);
    for (buffer, stages) in buffers.iter().zip(&stages) {
        for stage in stages {
            // SAFETY: as above.
            said(unsafe { apply(plan.plan, &stage.batch, buffer.as_ptr().cast(), bytes, &stage.outputs, workspace.at, workspace.bytes, null_mut()) })?;
            stage.gather(&mut all);
        }
    }
    Ok(all)
}
