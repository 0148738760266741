//! A plan on a device: its table in device memory, its constants among the arguments of every launch; its calls as memsets and kernels on the caller's stream.
use super::args::{Args, Outputs, PhaseNote, PlanConstants, StateLayout, UnitsStart, mode};
use super::device::Device;
use super::driver::done;
use super::fill;
use super::launch::{Kernel, Kernels};
use super::pieces;
use super::ranks::{self, Seat};
use super::units;
use super::way::{self, Way};
use super::workspace::{self, Layout, Stretch};
use crate::error::Result;
use crate::model::batch::{Problem, Process};
use crate::model::config::{BoundaryRule, Kind, Missing, StepSets, TokenBaseline, Whiten};
use crate::model::context::Memory;
use crate::model::outputs;
use crate::plan::Plan;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::sync::Arc;

/// As kernels/kl_parts.cuh has it: how many places a block of further edges looks at.
const PLACES_A_BLOCK: usize = 2;

/// Empty keys; and, as bytes of a memset of words, what they are set to.
pub(super) const LOWEST: u32 = i32::MIN as u32;

pub struct OnDevice {
    constants: PlanConstants,
    /// n^-k; 0: there is none.
    divisors: sys::CUdeviceptr,
    layout: Layout,
    seat: Option<Seat>,
    device: Arc<Device>,
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        if self.divisors == 0 {
            return;
        }
        if let Ok(_current) = self.device.enter() {
            // SAFETY: allocated once, freed once; no run is under way.
            let _ = unsafe { sys::cuMemFree_v2(self.divisors) };
        }
    }
}

/// Threads of a block: enough for the longest rollout, in powers of two.
pub(super) fn threads(slots: usize) -> u32 {
    match slots {
        0..=32 => 32,
        33..=64 => 64,
        65..=256 => 128,
        257..=4096 => 256,
        _ => 512,
    }
}

fn more(asked: bool, kernels: usize) -> usize {
    if asked { kernels } else { 0 }
}

/// Kernels of `Call::beside`.
pub(super) fn beside(plan: &Plan) -> usize {
    let c = &plan.config;
    more(c.step_sets == StepSets::StepGroup, 1) + more(c.token_baseline != TokenBaseline::None, 4)
}

impl OnDevice {
    /// Puts the table into device memory.
    pub fn new(device: Arc<Device>, plan: &Plan) -> Result<OnDevice> {
        let mut made = OnDevice { constants: fill::constants(plan, 0), divisors: 0, layout: Layout::new(plan), seat: None, device };
        // Its last entry ends a sector of 32 bytes, so that a tile of positions, which are counted from a rollout's end, reads whole ones.
        let (bytes, before) = (plan.divisors.len() * 8, plan.divisors.len().next_multiple_of(4) * 8 - plan.divisors.len() * 8);
        if bytes > 0 {
            let current = made.device.enter()?;
            let mut at = 0;
            // SAFETY: writes one address.
            done(unsafe { sys::cuMemAlloc_v2(&mut at, before + bytes) }, format_args!("cuMemAlloc of {} bytes for the plan's table", before + bytes))?;
            // From here on whatever fails frees it.
            (made.divisors, made.constants.divisors) = (at, at + before as u64);
            // SAFETY: plain numbers as bytes.
            let table = unsafe { std::slice::from_raw_parts(plan.divisors.as_ptr().cast::<u8>(), bytes) };
            made.put(made.constants.divisors, table)?;
            drop(current);
        }
        made.seat = plan.ranks.as_ref().map(|ranks| Seat::new(&made.device, ranks.messages())).transpose()?;
        Ok(made)
    }

    /// Copies host bytes to the device and waits. The context is current.
    fn put(&self, to: sys::CUdeviceptr, bytes: &[u8]) -> Result<()> {
        // SAFETY: as many bytes on both sides, by the caller's contract on the device's.
        done(unsafe { sys::cuMemcpyHtoD_v2(to, bytes.as_ptr().cast(), bytes.len()) }, format_args!("cuMemcpyHtoD of {} bytes", bytes.len()))
    }

    pub fn workspace_bytes(&self) -> usize {
        self.layout.bytes
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn units(&self, base: u64) -> units::Places {
        self.layout.units(base)
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// The statistics of a run over ranks.
    pub(super) fn shared(&self) -> Stretch {
        self.layout.ranks
    }

    pub(super) fn call<'a>(&'a self, plan: &'a Plan, problem: &Problem, memory: Memory, stream: *mut c_void) -> Call<'a> {
        let base = memory.data.addr() as u64;
        let args = Args {
            plan: 0,
            mode: 0,
            primitive: 0,
            batch: fill::batch(problem),
            outputs: Outputs::NOTHING,
            layout: self.layout.state,
            work: self.layout.at(base),
            constants: self.constants,
        };
        let longest = if problem.packed() { plan.limits.rollout_tokens } else { problem.slots };
        let shape = if way::is_one_pass(plan, problem) { Kernel::ShapeOnePass } else { Kernel::Shape };
        let threads = threads(longest);
        let (rollouts, groups) = (problem.rollouts, problem.groups);
        let (places_of_prepare, places_of_sums, places_of_shape) = (0, 0, 0);
        Call { on: self, plan, args, base, threads, shape, rollouts, groups, places_of_prepare, places_of_sums, places_of_shape, units: None, stream: stream.cast() }
    }

    pub fn run(&self, plan: &Plan, problem: &Problem, outputs: &outputs::Outputs, memory: Memory, stream: *mut c_void) -> Result<()> {
        let _current = self.device.enter()?;
        let mut call = self.call(plan, problem, memory, stream);
        call.args.outputs = fill::outputs(outputs);
        let way = Way::of(plan, problem, outputs, self.device.multiprocessors());
        let pieces = pieces::gathering(plan, problem, &self.layout.places(call.base), &mut call.args);
        // (Of pieces the host sees no whole rollout's length.)
        if !matches!(way, Way::GaeAlone | Way::Steps) && pieces.is_none() {
            call.split(problem);
        }
        call.zeros(match way {
            Way::GaeAlone => self.layout.counts,
            Way::Steps => self.layout.counts_alone,
            _ if call.is_split() => self.layout.zeros,
            _ => self.layout.zeros_unsplit,
        })?;
        if let Some(pieces) = &pieces {
            pieces::gather(&self.device, pieces, call.stream)?;
        }
        self.on_whole(&mut call, way, problem)?;
        match &pieces {
            Some(pieces) => pieces::scatter(&self.device, pieces, call.stream),
            None => Ok(()),
        }
    }

    /// A run's kernels on whole rollouts.
    fn on_whole(&self, call: &mut Call, way: Way, problem: &Problem) -> Result<()> {
        match way {
            Way::GaeAlone => return call.gae(),
            Way::Steps => return call.steps(problem),
            Way::Joined => {
                let in_place = if way::may_stay_in_place(call.plan, problem) { mode::IN_PLACE } else { 0 };
                call.prepare(mode::COUNTING | mode::JOINED | in_place)?;
            }
            Way::Apart => {
                call.prepare(mode::COUNTING)?;
                call.launch(Kernel::Sums, problem.rollouts, mode::COUNTING)?;
            }
            Way::Kl { joined } => {
                call.prepare(mode::COUNTING)?;
                // Edges of the further parts of positions have blocks of their own (kernels/sums.cuh).
                let (places, edges) = (call.places_of_sums, call.places_of_sums.div_ceil(PLACES_A_BLOCK));
                if joined {
                    call.launch(Kernel::Sums, problem.rollouts + places + edges, mode::COUNTING | mode::JOINED)?;
                } else {
                    call.launch(Kernel::Sums, problem.rollouts + places, mode::COUNTING)?;
                    call.launch(Kernel::Edges, problem.groups + edges, mode::COUNTING)?;
                }
                return call.shape(mode::COUNTING | mode::EDGES, true);
            }
        }
        call.shape(mode::COUNTING, true)
    }

    /// An empty buffer of partials. Waits.
    pub fn partials_init(&self, plan: &Plan, buffer: Memory) -> Result<()> {
        let p = &plan.partials;
        let at = buffer.data.addr() as u64;
        let _current = self.device.enter()?;
        // SAFETY: the caller's buffer, of at least these bytes.
        done(unsafe { sys::cuMemsetD8_v2(at, 0, p.bytes) }, format_args!("cuMemsetD8 of {} bytes", p.bytes))?;
        self.put(at, &p.header().map(u64::to_ne_bytes).concat())?;
        for (section, zeros) in p.keys_of_all().iter().filter(|(section, _)| section.count > 0) {
            let keys: Vec<u8> = (0..section.count).flat_map(|i| zeros.first(i).to_ne_bytes()).collect();
            self.put(at + section.offset as u64, &keys)?;
        }
        Ok(())
    }

    /// A buffer's first words. Waits.
    pub fn partials_header(&self, buffer: Memory) -> Result<[u64; 4]> {
        let _current = self.device.enter()?;
        let words = self.fetched(Memory { data: buffer.data, bytes: 32 })?;
        Ok([words[0], words[1], words[2], words[3]])
    }

    /// Adds two buffers on the host; or the phase in which they differ (`Partials::merge`). Waits.
    pub fn partials_merge(&self, plan: &Plan, into: Memory, from: Memory) -> Result<Option<usize>> {
        let _current = self.device.enter()?;
        let (mut sum, mut other) = (self.fetched(into)?, self.fetched(from)?);
        let memory = |words: &mut Vec<u64>| Memory { data: words.as_mut_ptr().cast(), bytes: words.len() * 8 };
        // SAFETY: two copies of buffers of this plan.
        let differ = unsafe { plan.partials.merge(memory(&mut sum), memory(&mut other)) };
        if differ.is_none() {
            // SAFETY: the words as bytes.
            let bytes = unsafe { std::slice::from_raw_parts(sum.as_ptr().cast::<u8>(), into.bytes) };
            self.put(into.data.addr() as u64, bytes)?;
        }
        Ok(differ)
    }

    /// A host copy of device memory.
    fn fetched(&self, from: Memory) -> Result<Vec<u64>> {
        let mut words = vec![0u64; from.bytes.div_ceil(8)];
        // SAFETY: the caller's memory, and room for as many bytes.
        let outcome = unsafe { sys::cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), from.data.addr() as u64, from.bytes) };
        done(outcome, format_args!("cuMemcpyDtoH of {} bytes", from.bytes))?;
        Ok(words)
    }

    pub fn partials_add(&self, plan: &Plan, phase: usize, problem: &Problem, partials: Memory, memory: Memory, stream: *mut c_void) -> Result<()> {
        let _current = self.device.enter()?;
        let mut call = self.call(plan, problem, memory, stream);
        call.note_phase(phase, problem, partials.data.addr() as u64)?;
        if plan.partials.pieces.is_some() {
            return self.add_pieces(plan, phase, problem, partials.data.addr() as u64, &mut call, 0);
        }
        call.on_partials(partials.data.addr() as u64, workspace::partials(plan))?;
        match phase {
            0 => call.prepare(0),
            1 => {
                call.prepare(mode::KNOWN)?;
                call.launch(Kernel::Sums, problem.rollouts, mode::KNOWN)
            }
            _ => {
                call.prepare(mode::KNOWN)?;
                call.whole_groups()?;
                let known = if phase == 2 { 0 } else { mode::KNOWN };
                call.beside(mode::KNOWN)?;
                call.keep(known)?;
                match phase {
                    2 => Ok(()),
                    _ => call.launch(Kernel::WhitenSums, problem.rollouts, mode::KEEP | mode::DRY | mode::KNOWN),
                }
            }
        }
    }

    pub fn apply(&self, plan: &Plan, problem: &Problem, partials: Memory, outputs: &outputs::Outputs, memory: Memory, stream: *mut c_void) -> Result<()> {
        let _current = self.device.enter()?;
        let mut call = self.call(plan, problem, memory, stream);
        call.args.outputs = fill::outputs(outputs);
        if plan.partials.pieces.is_some() {
            return self.shape_pieces(plan, problem, partials.data.addr() as u64, &mut call, 0);
        }
        call.on_partials(partials.data.addr() as u64, workspace::partials(plan))?;
        call.note_phase(plan.partials.phases, problem, partials.data.addr() as u64)?;
        call.prepare(mode::COUNTING | mode::KNOWN)?;
        call.whole_groups()?;
        call.shape(mode::COUNTING | mode::KNOWN, false)
    }

    /// Stages and bytes, in text.
    pub fn describe(&self, plan: &Plan) -> String {
        let text = plan.describe();
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        let host = format!("workspace: {} bytes (touched as far as the data reaches)", plan.workspace.bytes);
        let here = format!("workspace: {} bytes of device memory", self.layout.bytes);
        let c = &plan.config;
        let beside = beside(plan) + more(plan.limits.pieces > 0, pieces::KERNELS) + more(c.whiten != Whiten::None, 2);
        let (least, most) = Way::kernels(plan);
        let (memsets, least, most) = match plan.ranks {
            Some(_) => (ranks::launches(plan).0, ranks::launches(plan).1, ranks::launches(plan).1),
            None => (1, least + beside, most + beside),
        };
        let count = |n: usize, of: &str| format!("{n} {of}{}", if n == 1 { "" } else { "s" });
        let kernels = if least == most { count(most, "kernel") } else { format!("{least} to {most} kernels") };
        let launches = format!("launches of a run: {}, {kernels}", count(memsets, "memset"));
        format!("passrl plan: cuda, device {}\n{}{launches}\n", self.device.ordinal(), rest.replace(&host, &here))
    }
}

/// One call being put on its stream.
pub(super) struct Call<'a> {
    on: &'a OnDevice,
    plan: &'a Plan,
    pub(super) args: Args,
    pub(super) base: u64,
    threads: u32,
    /// Which of two does what is left to do from the sums on.
    shape: Kernel,
    rollouts: usize,
    groups: usize,
    /// Blocks beside those (kernels/parts.cuh).
    places_of_prepare: usize,
    places_of_sums: usize,
    places_of_shape: usize,
    /// Rollouts in pieces over calls: what its units are made of.
    pub(super) units: Option<UnitsStart>,
    pub(super) stream: sys::CUstream,
}

impl Call<'_> {
    /// Blocks of a kernel that has duties for rollouts and for groups; one at least, which writes the report.
    pub(super) fn items(&self) -> usize {
        self.rollouts.max(self.groups).max(1)
    }

    pub(super) fn lowest(&self, part: Stretch) -> Result<()> {
        if part.bytes == 0 {
            return Ok(());
        }
        // SAFETY: within the workspace, whose parts begin at multiples of 256.
        let outcome = unsafe { sys::cuMemsetD32Async(self.base + part.offset as u64, LOWEST, part.bytes / 4, self.stream) };
        done(outcome, format_args!("cuMemsetD32Async of {} bytes", part.bytes))
    }

    pub(super) fn zeros(&self, part: Stretch) -> Result<()> {
        // SAFETY: as above.
        let outcome = unsafe { sys::cuMemsetD8Async(self.base + part.offset as u64, 0, part.bytes, self.stream) };
        done(outcome, format_args!("cuMemsetD8Async of {} bytes", part.bytes))
    }

    /// The statistics are those of a buffer of partials; counts begin anew.
    pub(super) fn on_partials(&mut self, partials: u64, layout: StateLayout) -> Result<()> {
        self.args.work.state = partials;
        self.args.layout = layout;
        self.zeros(self.on.layout.counts)
    }

    /// Counts in a buffer of partials what comes to `phase` (kernels/phases.cuh); all of them: looks whether each has been given as much.
    pub(super) fn note_phase(&self, phase: usize, problem: &Problem, partials: u64) -> Result<()> {
        let p = &self.plan.partials;
        let note = PhaseNote {
            given: partials + p.given.offset as u64,
            counts: self.args.work.counts,
            units: problem.units() as i64,
            phase: phase as i32,
            phases: p.phases as i32,
            words: std::array::from_fn(|phase| if phase < p.phases { p.given_word(phase) as i32 } else { 0 }),
        };
        self.kernels().launch(Kernel::Phases, 1, 1, &note, self.stream)
    }

    pub(super) fn kernels(&self) -> &Kernels {
        self.on.device.kernels()
    }

    pub(super) fn launch(&mut self, kernel: Kernel, blocks: usize, mode: u32) -> Result<()> {
        self.args.mode = mode;
        self.on.device.kernels().launch(kernel, blocks, self.threads, &self.args, self.stream)
    }

    /// Blocks for the further parts that rollouts may have, where a block takes one part.
    fn places(&self, threads: u32) -> usize {
        let (limits, size, batch) = (&self.plan.limits, workspace::part(threads), &self.args.batch);
        let (rollouts, slots) = (batch.rollouts as usize, batch.slots as usize);
        let most = match batch.layout == 0 {
            true if limits.rollout_tokens <= size => 0,
            true => slots.min(limits.tokens) / size,
            false => rollouts * ((slots.max(1) - 1) / size),
        };
        most.min(workspace::parts(self.plan))
    }

    /// A block a rollout, and one for each further part.
    fn gae(&mut self) -> Result<()> {
        let threads = workspace::gae_threads(self.plan);
        let blocks = self.args.batch.rollouts as usize + self.places(threads);
        self.args.mode = mode::COUNTING;
        self.on.device.kernels().launch_with(Kernel::Gae, blocks, threads, workspace::gae_shared(threads), &self.args, self.stream)
    }

    /// A block a group; one at least, which writes the report.
    fn steps(&mut self, problem: &Problem) -> Result<()> {
        let at_hand = way::steps_at_hand(problem);
        self.args.batch.steps_at_hand = at_hand as i32;
        self.args.mode = mode::COUNTING | mode::IN_PLACE | mode::WHOLE_GROUPS;
        let threads = workspace::steps_threads(way::group_rollouts(self.plan, problem));
        self.on.device.kernels().launch_with(Kernel::Steps, self.groups.max(1), threads, way::BYTES_OF_A_STEP * at_hand as u32, &self.args, self.stream)
    }

    /// Long rollouts have several blocks, where their parts can be told apart before anything is known of them: of a signal that is looked at token by token, of
    /// results that lie by chunks; of kl of both.
    fn split(&mut self, problem: &Problem) {
        let (c, limits) = (&self.plan.config, &self.plan.limits);
        let kl = c.kind == Kind::Kl;
        if self.shape != Kernel::ShapeOnePass || c.whiten != Whiten::None || (kl && !way::has_parts_of_kl(self.plan, problem)) {
            return;
        }
        let longest = if problem.packed() { limits.rollout_tokens } else { problem.slots };
        // Blocks are of the size that most rollouts ask for.
        let threads = threads(longest.min(4 * (limits.tokens / limits.rollouts.max(1))));
        if longest <= workspace::FEWEST_PARTS * workspace::part(threads) {
            return;
        }
        let places = self.places(threads);
        let whole = problem.mask.is_none() && problem.steps.is_none() && problem.step_marks.is_none() && c.streams[0].missing == Missing::Error;
        let dense = c.kind == Kind::Prm && matches!(problem.process, Process::Signal(_)) && problem.num_process == 1;
        self.threads = threads;
        self.places_of_shape = places;
        self.places_of_prepare = if kl || (dense && whole && c.boundary_rule == BoundaryRule::Adjacent) { places } else { 0 };
        self.places_of_sums = if kl { places } else { 0 };
    }

    fn is_split(&self) -> bool {
        self.places_of_prepare + self.places_of_sums + self.places_of_shape > 0
    }

    pub(super) fn prepare(&mut self, mode: u32) -> Result<()> {
        self.launch(Kernel::Prepare, self.rollouts + self.places_of_prepare, mode)
    }

    /// Partials: are the groups that must be whole in one call whole in this one? The kernels that follow do nothing where one is not.
    fn whole_groups(&mut self) -> Result<()> {
        if self.plan.partials.claims.count == 0 { Ok(()) } else { self.launch(Kernel::Claims, 1, mode::KNOWN) }
    }

    /// Sets of steps and baselines of tokens, before any rollout is shaped.
    pub(super) fn beside(&mut self, mode: u32) -> Result<()> {
        let config = &self.plan.config;
        if config.step_sets == StepSets::StepGroup {
            self.launch(Kernel::StepSets, self.groups, mode)?;
        }
        if config.token_baseline != TokenBaseline::None {
            // The first has a thread a rollout.
            self.launch(Kernel::BaselinesLongest, self.rollouts.div_ceil(self.threads as usize), mode)?;
            self.launch(Kernel::BaselinesClear, self.rollouts, mode)?;
            self.launch(Kernel::Shape, self.rollouts, mode::WEIGH)?;
            self.launch(Kernel::BaselinesAdd, self.rollouts, mode)?;
        }
        Ok(())
    }

    /// A kernel on the rollouts for the whitening's statistics, which writes nothing.
    pub(super) fn keep(&mut self, mode: u32) -> Result<()> {
        self.launch(self.shape, self.items(), mode::KEEP | mode::DRY | mode)
    }

    /// From known statistics to the outputs. `whole`: the statistics of the whitening are still to be taken.
    pub(super) fn shape(&mut self, mode: u32, whole: bool) -> Result<()> {
        self.beside(mode)?;
        let config = &self.plan.config;
        if config.whiten == Whiten::None || !whole {
            // Of kl each part keeps its chunks at hand (kernels/shape_parts.cuh).
            let shared = if self.places_of_sums > 0 { 8 * workspace::part(self.threads) as u32 } else { 0 };
            let blocks = self.items() + self.places_of_shape;
            self.args.mode = mode;
            return self.on.device.kernels().launch_with(self.shape, blocks, self.threads, shared, &self.args, self.stream);
        }
        self.launch(self.shape, self.items(), mode | mode::KEEP)?;
        self.launch(Kernel::WhitenSums, self.rollouts, mode | mode::KEEP)?;
        self.launch(Kernel::WhitenWrite, self.items(), mode)
    }
}
