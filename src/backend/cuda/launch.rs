//! The kernels by name, and a launch of one.
use super::driver::done;
use crate::error::Result;
use cudarc::driver::sys;
use std::ffi::CStr;
use std::ptr::null_mut;

/// The entry points of kernels/passrl.cu that the host launches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    Prepare,
    Sums,
    Edges,
    Gae,
    Steps,
    StepSets,
    BaselinesLongest,
    BaselinesClear,
    BaselinesAdd,
    Shape,
    ShapeOnePass,
    WhitenSums,
    WhitenWrite,
    Announce,
    Claims,
    Phases,
    PrimitiveStart,
    PrimitiveExtents,
    PrimitiveTokens,
    PrimitiveWhitenSums,
    PrimitiveWhitenWrite,
    PrimitiveChunks,
    PrimitiveGroups,
    PiecesPlace,
    PiecesLengths,
    PiecesOffsets,
    PiecesGather,
    PiecesScatter,
    PiecesUnits,
    PiecesTable,
    PiecesPrepare,
    PiecesSums,
    PiecesShape,
}

const ALL: [(Kernel, &CStr); 33] = [
    (Kernel::Prepare, c"passrl_prepare"),
    (Kernel::Sums, c"passrl_sums"),
    (Kernel::Edges, c"passrl_edges"),
    (Kernel::Gae, c"passrl_gae"),
    (Kernel::Steps, c"passrl_steps"),
    (Kernel::StepSets, c"passrl_step_sets"),
    (Kernel::BaselinesLongest, c"passrl_baselines_longest"),
    (Kernel::BaselinesClear, c"passrl_baselines_clear"),
    (Kernel::BaselinesAdd, c"passrl_baselines_add"),
    (Kernel::Shape, c"passrl_shape"),
    (Kernel::ShapeOnePass, c"passrl_shape_one_pass"),
    (Kernel::WhitenSums, c"passrl_whiten_sums"),
    (Kernel::WhitenWrite, c"passrl_whiten_write"),
    (Kernel::Announce, c"passrl_announce"),
    (Kernel::Claims, c"passrl_claims"),
    (Kernel::Phases, c"passrl_phases"),
    (Kernel::PrimitiveStart, c"passrl_primitive_start"),
    (Kernel::PrimitiveExtents, c"passrl_primitive_extents"),
    (Kernel::PrimitiveTokens, c"passrl_primitive_tokens"),
    (Kernel::PrimitiveWhitenSums, c"passrl_primitive_whiten_sums"),
    (Kernel::PrimitiveWhitenWrite, c"passrl_primitive_whiten_write"),
    (Kernel::PrimitiveChunks, c"passrl_primitive_chunks"),
    (Kernel::PrimitiveGroups, c"passrl_primitive_groups"),
    (Kernel::PiecesPlace, c"passrl_pieces_place"),
    (Kernel::PiecesLengths, c"passrl_pieces_lengths"),
    (Kernel::PiecesOffsets, c"passrl_pieces_offsets"),
    (Kernel::PiecesGather, c"passrl_pieces_gather"),
    (Kernel::PiecesScatter, c"passrl_pieces_scatter"),
    (Kernel::PiecesUnits, c"passrl_pieces_units"),
    (Kernel::PiecesTable, c"passrl_pieces_table"),
    (Kernel::PiecesPrepare, c"passrl_pieces_prepare"),
    (Kernel::PiecesSums, c"passrl_pieces_sums"),
    (Kernel::PiecesShape, c"passrl_pieces_shape"),
];

pub struct Kernels([sys::CUfunction; ALL.len()]);

impl Kernels {
    /// Looks all of them up.
    pub fn of(module: sys::CUmodule) -> Result<Kernels> {
        let mut functions = [null_mut(); ALL.len()];
        for (function, (_, name)) in functions.iter_mut().zip(ALL) {
            // SAFETY: a loaded module and a zero-terminated name.
            done(unsafe { sys::cuModuleGetFunction(function, module, name.as_ptr()) }, format_args!("cuModuleGetFunction({})", name.to_string_lossy()))?;
        }
        Ok(Kernels(functions))
    }

    /// Puts a kernel on a stream, with the struct that it takes. The context is current.
    pub fn launch<T>(&self, kernel: Kernel, blocks: usize, threads: u32, args: &T, stream: sys::CUstream) -> Result<()> {
        self.launch_with(kernel, blocks, threads, 0, args, stream)
    }

    /// The same with `shared` bytes of dynamic shared memory a block.
    pub fn launch_with<T>(&self, kernel: Kernel, blocks: usize, threads: u32, shared: u32, args: &T, stream: sys::CUstream) -> Result<()> {
        let (at, name) = (kernel as usize, ALL[kernel as usize].1.to_string_lossy());
        let Ok(blocks) = u32::try_from(blocks) else {
            // `check` allows no more rollouts or groups than a grid has blocks.
            unreachable!("{blocks} blocks")
        };
        if blocks == 0 {
            return Ok(());
        }
        let mut parameters = [(&raw const *args).cast_mut().cast()];
        // SAFETY: the kernel takes one such struct by value, which the driver copies during the call.
        let outcome =
            unsafe { sys::cuLaunchKernel(self.0[at], blocks, 1, 1, threads, 1, 1, shared, stream, parameters.as_mut_ptr(), null_mut()) };
        done(outcome, format_args!("cuLaunchKernel({name}, {blocks} blocks of {threads} threads)"))
    }
}
