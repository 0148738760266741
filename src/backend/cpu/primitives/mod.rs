//! The stages of a run on their own: the same kernels on explicit arrays, on the calling thread, in a workspace of a few lines. Each sets the default
//! floating-point mode for its work.
mod chunks;
mod groups;
mod tokens;

pub use chunks::chunk_boundaries;
pub use groups::{group_flags, group_standardize};
pub use tokens::{discounted_returns, divide_length, gae, kl_in_reward, opd_signal, whiten};

use super::expand::{self, Chunks};
use super::members::{self, Members};
use super::scope::{self, Scope};
use crate::model::array::Array;
use crate::model::batch::{Extent, Groups, Problem};
use crate::model::context::Memory;
use crate::numerics::simd::Simd;
use crate::plan::primitives::Workspace;

/// The workspace, carved.
struct Scratch<'a> {
    order: &'a mut [u32],
    starts: &'a mut [u32],
    bits: &'a mut [u64],
    wide: [&'a mut [f64]; 3],
    table: &'a mut [f64],
    line: &'a mut [f32],
    value: &'a mut [f32],
    begin: &'a mut [u32],
    end: &'a mut [u32],
    last: &'a mut [u32],
}

impl<'a> Scratch<'a> {
    fn new(w: &Workspace, memory: Memory) -> Scratch<'a> {
        // SAFETY: parts lie apart, the memory is this call's alone, and numbers of any bit pattern are valid.
        unsafe {
            Scratch {
                order: memory.part(w.order.offset, w.order.count),
                starts: memory.part(w.starts.offset, w.starts.count),
                bits: memory.part(w.bits.offset, w.bits.count),
                wide: w.wide.map(|p| memory.part(p.offset, p.count)),
                table: memory.part(w.table.offset, w.table.count),
                line: memory.part(w.line.offset, w.line.count),
                value: memory.part(w.value.offset, w.value.count),
                begin: memory.part(w.begin.offset, w.begin.count),
                end: memory.part(w.end.offset, w.end.count),
                last: memory.part(w.last.offset, w.last.count),
            }
        }
    }
}

fn absent(problem: &Problem, i: usize) -> bool {
    problem.absent.is_some_and(|a| a.flag(i))
}

/// Is rollout i an element of sets?
fn counts(problem: &Problem, i: usize) -> bool {
    !absent(problem, i) && problem.in_stats.is_none_or(|a| a.flag(i))
}

/// Scope of rollout i by mask and absence; `bits` for its holes.
fn scope_of<'b>(simd: Simd, problem: &Problem, i: usize, at: &Extent, bits: &'b mut [u64]) -> Scope<'b> {
    if absent(problem, i) {
        return Scope::span(0, 0);
    }
    let Some(mask) = &problem.mask else { return Scope::span(0, at.len) };
    let bits = &mut bits[..scope::words(at.len)];
    scope::read_mask(simd, &at.of(mask), bits);
    Scope::from_bits(bits)
}

/// Writes a value for each in-scope token of a rollout, 0 elsewhere in its extent and (with `pad`) in its row.
fn write(simd: Simd, to: &Array, problem: &Problem, at: &Extent, scope: &Scope, values: &[f64], pad: bool) {
    // SAFETY: one thread; what lies under the output (in place) has been read into the workspace.
    unsafe { expand::expand(simd, to, at, scope, Chunks::EveryToken, values) };
    if pad {
        expand::pad(to, problem, at);
    }
}

/// Groups in order of their numbers.
fn each_group(problem: &Problem, order: &mut [u32], starts: &mut [u32], mut each: impl FnMut(usize, Members)) {
    if let Groups::Index(_) = &problem.grouping {
        members::counting_sort(problem, &mut order[..problem.rollouts], &mut starts[..problem.groups + 1]);
    }
    for g in 0..problem.groups {
        each(
            g,
            match &problem.grouping {
                Groups::Constant(n) => Members::Range(g * n, (g + 1) * n),
                Groups::Offsets(offsets) => Members::Range(offsets.int(g) as usize, offsets.int(g + 1) as usize),
                Groups::Index(_) => Members::List(&order[starts[g] as usize..starts[g + 1] as usize]),
            },
        );
    }
}
