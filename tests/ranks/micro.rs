//! Ranks that see their rollouts in micro-batches: each adds to a buffer of its own, the buffers' sections are all-reduced after each phase, and each
//! micro-batch is shaped from its rank's buffer.
use super::wire::combine;
use crate::harness::{self, Got, How, Outputs, Plan};
use crate::oracle::{Batch, Config};
use passrl::abi::constants::*;
use passrl::abi::types::*;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

type Status = i32;
type Add = unsafe extern "C" fn(*const c_void, i32, *const passrl_batch, *mut c_void, usize, *mut c_void, usize, *mut c_void) -> Status;
type Apply = unsafe extern "C" fn(*const c_void, *const passrl_batch, *const c_void, usize, *const passrl_outputs, *mut c_void, usize, *mut c_void) -> Status;
type Init = unsafe extern "C" fn(*const c_void, *mut c_void, usize) -> Status;
type Layout = unsafe extern "C" fn(*const c_void, i32, *mut passrl_section, usize, *mut usize) -> Status;

/// One rank: its micro-batches (rows of the whole batch, and copies of them), its buffer, the time it took.
pub struct Rank {
    pub micro: Vec<(Vec<usize>, Batch)>,
    buffer: Vec<u64>,
    pub time: Duration,
}

/// What all ranks exchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchanged {
    /// All-reduces: sections of one phase, type and operator lie side by side and go as one.
    pub rounds: usize,
    /// Bytes that a rank gives to them.
    pub bytes: usize,
}

fn done(plan: &Plan, status: Status) {
    assert!(status >= 0, "{status}: {}", plan.library.last_error());
}

pub fn sections(plan: &Plan, phase: i32) -> Vec<passrl_section> {
    let layout: Layout = plan.library.get("passrl_partials_layout");
    let mut sections = vec![passrl_section { offset: 0, count: 0, dtype: 0, op: 0 }; 8];
    let mut count = 0;
    // SAFETY: a live plan and room for 8 sections.
    done(plan, unsafe { layout(plan.plan, phase, sections.as_mut_ptr(), sections.len(), &mut count) });
    sections.truncate(count);
    sections
}

/// Bytes of a section.
pub fn size(section: &passrl_section) -> usize {
    section.count as usize * if section.dtype == PASSRL_I64 { 8 } else { 4 }
}

pub fn bytes_of<'a>(buffer: &'a mut [u64], section: &passrl_section) -> &'a mut [u8] {
    // SAFETY: a section lies within the buffer, whose bytes are these.
    let all = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<u8>(), buffer.len() * 8) };
    &mut all[section.offset as usize..][..size(section)]
}

/// Ranks with copies of their own rollouts: `parts[r]` lists the rows of each micro-batch of rank r.
pub fn ranks(plan: &Plan, batch: &Batch, parts: &[Vec<Vec<usize>>]) -> Vec<Rank> {
    let bytes = plan.size("passrl_partials_size");
    let init: Init = plan.library.get("passrl_partials_init");
    let part = |rows: &Vec<usize>| (rows.clone(), batch.with(rows.iter().map(|i| batch.rollouts[*i].clone()).collect()));
    parts
        .iter()
        .map(|micro| {
            let mut buffer = vec![0u64; bytes.div_ceil(8)];
            // SAFETY: a live plan and a buffer of that size.
            done(plan, unsafe { init(plan.plan, buffer.as_mut_ptr().cast(), bytes) });
            Rank { micro: micro.iter().map(part).collect(), buffer, time: Duration::ZERO }
        })
        .collect()
}

/// Runs the ranks in turn; what each got stands in the result where the whole batch has it.
pub fn run(plan: &Plan, cfg: &Config, batch: &Batch, how: &How, ranks: &mut [Rank]) -> (Got, Exchanged) {
    try_run(plan, cfg, batch, how, ranks).unwrap_or_else(|(status, said)| panic!("{status}: {said}"))
}

/// The same, or the first refusal.
pub fn try_run(plan: &Plan, cfg: &Config, batch: &Batch, how: &How, ranks: &mut [Rank]) -> Result<(Got, Exchanged), (Status, String)> {
    let done = |status: Status| if status < 0 { Err((status, plan.library.last_error())) } else { Ok(()) };
    let bytes = plan.size("passrl_partials_size");
    let (add, apply): (Add, Apply) = (plan.library.get("passrl_partials_add"), plan.library.get("passrl_plan_apply"));
    let workspace = plan.workspace(how);
    let mut exchanged = Exchanged::default();
    for phase in 0..plan.phases() {
        for rank in ranks.iter_mut() {
            for (_, part) in &rank.micro {
                let placed = harness::place(cfg, part, how);
                placed.seal();
                let begin = Instant::now();
                // SAFETY: live plan, batch and buffers.
                let status = unsafe {
                    add(plan.plan, phase, &placed.batch, rank.buffer.as_mut_ptr().cast(), bytes, workspace.at, workspace.bytes, null_mut())
                };
                rank.time += begin.elapsed();
                done(status)?;
            }
        }
        let mut kinds = Vec::new();
        for section in sections(plan, phase) {
            let mut sum = bytes_of(&mut ranks[0].buffer, &section).to_vec();
            ranks[1..].iter_mut().for_each(|r| combine(&mut sum, bytes_of(&mut r.buffer, &section), section.dtype, section.op));
            ranks.iter_mut().for_each(|r| bytes_of(&mut r.buffer, &section).copy_from_slice(&sum));
            exchanged.bytes += size(&section);
            kinds.push((section.dtype, section.op));
        }
        kinds.dedup();
        exchanged.rounds += kinds.len();
    }
    let mut all = harness::empty(batch);
    all.padding_is_zero = true;
    for rank in ranks.iter_mut() {
        for (rows, part) in &rank.micro {
            let placed = harness::place(cfg, part, how);
            placed.seal();
            let mut outputs = Outputs::new(&placed, how);
            let begin = Instant::now();
            // SAFETY: as above.
            let status = unsafe {
                apply(plan.plan, &placed.batch, rank.buffer.as_ptr().cast(), bytes, &outputs.raw(), workspace.at, workspace.bytes, null_mut())
            };
            rank.time += begin.elapsed();
            done(status)?;
            let got = outputs.collect(&placed, status, plan.library.last_error());
            all.padding_is_zero &= got.padding_is_zero;
            harness::gather(&mut all, rows, &got);
            if !rows.is_empty() {
                (all.stats, all.group_flags) = (got.stats, got.group_flags);
            }
        }
    }
    Ok((all, exchanged))
}
