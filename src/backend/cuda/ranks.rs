//! One rank's run on a device: its shares of the phases as partials in the workspace, the caller's all-reduce between the kernels, then its rollouts shaped. The host
//! sees nothing of what the ranks tell each other: the kernels judge it (kernels/ranks.cuh), and the report says it.
use super::args::{Announcement, mode};
use super::device::Device;
use super::driver::done;
use super::fill;
use super::launch::Kernel;
use super::plan::{Call, LOWEST, OnDevice, beside};
use super::units;
use super::workspace::{self, Stretch};
use crate::error::Result;
use crate::model::batch::Problem;
use crate::model::config::{LooUnit, Singleton, Whiten};
use crate::model::context::Memory;
use crate::model::outputs::Outputs;
use crate::model::ranks::WORDS;
use crate::plan::Plan;
use crate::plan::partials::{I64, SUM, Section};
use crate::plan::ranks::Message;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::sync::Arc;

/// Device memory of a plan over ranks: how often it has been run, and room for the messages of a call whose arguments are refused (its workspace may be what is wrong).
pub struct Seat {
    calls: sys::CUdeviceptr,
    device: Arc<Device>,
}

/// Bytes of the count; the messages' room comes after it.
const COUNT: usize = 64;

impl Drop for Seat {
    fn drop(&mut self) {
        if let Ok(_current) = self.device.enter() {
            // SAFETY: allocated once, freed once; no run is under way.
            let _ = unsafe { sys::cuMemFree_v2(self.calls) };
        }
    }
}

fn bytes(section: &Section) -> usize {
    section.count * if section.dtype == I64 { 8 } else { 4 }
}

impl Seat {
    pub fn new(device: &Arc<Device>, messages: &[Message]) -> Result<Seat> {
        let room = COUNT + messages.iter().map(|m| bytes(&m.section)).max().unwrap_or(0);
        let _current = device.enter()?;
        let mut at = 0;
        // SAFETY: writes one address.
        done(unsafe { sys::cuMemAlloc_v2(&mut at, room) }, format_args!("cuMemAlloc of {room} bytes for the messages of a plan over ranks"))?;
        // From here on whatever fails frees them.
        let seat = Seat { calls: at, device: Arc::clone(device) };
        // SAFETY: as many bytes.
        done(unsafe { sys::cuMemsetD8_v2(at, 0, room) }, format_args!("cuMemsetD8 of {room} bytes"))?;
        Ok(seat)
    }
}

/// Host words through an all-reduce of device memory on the legacy default stream: copied there and back, waited for. Gives the status of `reduce`.
pub fn staged(device: &Device, words: &mut [i64], reduce: &dyn Fn(*mut c_void) -> i32) -> Result<i32> {
    let bytes = size_of_val(words);
    let _current = device.enter()?;
    let mut at = 0;
    // SAFETY: writes one address.
    done(unsafe { sys::cuMemAlloc_v2(&mut at, bytes) }, format_args!("cuMemAlloc of {bytes} bytes for the agreement of the ranks"))?;
    // SAFETY: as many bytes on both sides.
    let sent = done(unsafe { sys::cuMemcpyHtoD_v2(at, words.as_ptr().cast(), bytes) }, format_args!("cuMemcpyHtoD of {bytes} bytes"));
    let outcome = sent.and_then(|()| match reduce(pointer(at)) {
        0 => {
            // SAFETY: as above; the copy comes after the reduction, and waits.
            let got = unsafe { sys::cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), at, bytes) };
            done(got, format_args!("cuMemcpyDtoH of {bytes} bytes")).map(|()| 0)
        }
        failed => Ok(failed),
    });
    // SAFETY: allocated above. What has failed is told by what came before.
    let _ = unsafe { sys::cuMemFree_v2(at) };
    outcome
}

fn pointer(at: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(at as usize)
}

/// Does some set refuse to be one rollout's? Whether it is follows from the sums of all ranks, so the rollouts are looked at again.
fn asks_one_rollout(plan: &Plan) -> bool {
    (0..plan.slots.sets).any(|slot| {
        let row = &plan.config.streams[plan.slots.row(slot)];
        row.leaves_out() && row.loo_unit == LooUnit::Rollout && row.singleton == Singleton::Refuse
    })
}

fn whitens(plan: &Plan) -> bool {
    plan.config.whiten != Whiten::None
}

/// Are the rollouts prepared a second time, now counting what is found? Nothing is written before the last message, and whitening's kernels pass the data by before.
fn looks_twice(plan: &Plan) -> bool {
    whitens(plan) || asks_one_rollout(plan)
}

/// Sections of keys in the statistics, which begin at the lowest.
fn keys(plan: &Plan) -> impl Iterator<Item = Stretch> {
    let p = &plan.partials;
    let whitening = if whitens(plan) { p.whiten_extremes.count * 4 } else { 0 };
    let first = Stretch { offset: p.extremes.offset, bytes: p.sums.offset - p.extremes.offset };
    let second = Stretch { offset: p.second.offset, bytes: p.second.count * 4 };
    [first, second, Stretch { offset: p.whiten_extremes.offset, bytes: whitening }].into_iter().filter(|part| part.bytes > 0)
}

/// Memsets and kernels of a run.
pub fn launches(plan: &Plan) -> (usize, usize) {
    if plan.partials.pieces.is_some() {
        return (2 + keys(plan).count() + plan.partials.phases, 1 + units::kernels(plan));
    }
    let (whitening, twice) = (usize::from(whitens(plan)), usize::from(looks_twice(plan)));
    let claims = usize::from(plan.partials.claims.count > 0);
    (2 + keys(plan).count() + twice, 4 + claims + 2 * whitening + twice + beside(plan) * (1 + whitening))
}

impl OnDevice {
    /// What stands before the maxima of the first message.
    fn announce(&self, plan: &Plan, seat: &Seat, words: u64, counts: u64, header: [i32; WORDS], stream: sys::CUstream) -> Result<()> {
        let rank = plan.ranks.as_ref().map_or(0, |r| r.rank);
        let say = Announcement { words, calls: seat.calls, counts, header, rank, reserved: 0 };
        self.device().kernels().launch(Kernel::Announce, 1, 1, &say, stream)
    }

    /// Puts a rank's run on the stream. `reduce`: the caller's all-reduce of a message at an address. Nothing is written before the last message.
    #[allow(clippy::too_many_arguments)]
    pub fn run_ranks(
        &self,
        plan: &Plan,
        problem: &Problem,
        outputs: &Outputs,
        memory: Memory,
        header: [i32; WORDS],
        reduce: &dyn Fn(&Message, *mut c_void) -> Result<()>,
        stream: *mut c_void,
    ) -> Result<()> {
        let (Some(ranks), Some(seat)) = (plan.ranks.as_ref(), self.seat()) else { unreachable!("a plan over ranks") };
        let _current = self.device().enter()?;
        let mut call = self.call(plan, problem, memory, stream);
        call.args.outputs = fill::outputs(outputs);
        let shared = self.shared();
        call.zeros(shared)?;
        for part in keys(plan) {
            call.lowest(Stretch { offset: shared.offset + part.offset, ..part })?;
        }
        let statistics = call.base + shared.offset as u64;
        if plan.partials.pieces.is_some() {
            return self.run_pieces(plan, seat, problem, statistics, header, &mut call, reduce);
        }
        call.on_partials(statistics, workspace::partials(plan))?;
        let exchange = |phase: usize| {
            let all = ranks.messages().iter().filter(|m| m.phase == phase);
            all.map(|m| reduce(m, pointer(statistics + m.section.offset as u64))).collect::<Result<()>>()
        };
        let (once, known) = (if looks_twice(plan) { 0 } else { mode::COUNTING }, mode::KNOWN | mode::RANKS);
        call.prepare(once)?;
        self.announce(plan, seat, statistics, call.args.work.counts, header, call.stream)?;
        exchange(0)?;
        call.launch(Kernel::Sums, problem.rollouts, known)?;
        exchange(1)?;
        if plan.partials.claims.count > 0 {
            call.launch(Kernel::Claims, 1, known)?;
        }
        if whitens(plan) {
            call.beside(mode::RANKS)?;
            call.keep(mode::RANKS)?;
            exchange(2)?;
            call.launch(Kernel::WhitenSums, problem.rollouts, mode::KEEP | mode::DRY | known)?;
            exchange(3)?;
        }
        if looks_twice(plan) {
            call.on_partials(statistics, workspace::partials(plan))?;
            call.prepare(mode::COUNTING | mode::KNOWN)?;
        }
        call.shape(mode::COUNTING | known, false)
    }

    /// The same of rollouts in pieces: a share of each phase, and its messages.
    #[allow(clippy::too_many_arguments)]
    fn run_pieces(
        &self,
        plan: &Plan,
        seat: &Seat,
        problem: &Problem,
        statistics: u64,
        header: [i32; WORDS],
        call: &mut Call,
        reduce: &dyn Fn(&Message, *mut c_void) -> Result<()>,
    ) -> Result<()> {
        for phase in 0..plan.partials.phases {
            self.add_pieces(plan, phase, problem, statistics, call, if phase == 0 { 0 } else { mode::RANKS })?;
            if phase == 0 {
                self.announce(plan, seat, statistics, call.args.work.counts, header, call.stream)?;
            }
            for m in plan.ranks.iter().flat_map(|ranks| ranks.messages()).filter(|m| m.phase == phase) {
                reduce(m, pointer(statistics + m.section.offset as u64))?;
            }
        }
        self.shape_pieces(plan, problem, statistics, call, mode::RANKS)
    }

    /// A call whose arguments are refused: the others are told by the first message, and since none of them looks before its last, all messages are sent, with nothing
    /// to add. `reduce`: the caller's all-reduce, its status as it is; where it fails there is no one left to tell.
    pub fn run_refused(&self, plan: &Plan, header: [i32; WORDS], reduce: &dyn Fn(&Message, *mut c_void) -> i32, stream: *mut c_void) -> Result<()> {
        let (Some(ranks), Some(seat)) = (plan.ranks.as_ref(), self.seat()) else { unreachable!("a plan over ranks") };
        let _current = self.device().enter()?;
        let (room, stream) = (seat.calls + COUNT as u64, stream.cast());
        for (i, m) in ranks.messages().iter().enumerate() {
            let (words, empty) = (bytes(&m.section) / 4, if m.section.op == SUM { 0 } else { LOWEST });
            // SAFETY: the room holds the largest message.
            done(unsafe { sys::cuMemsetD32Async(room, empty, words, stream) }, format_args!("cuMemsetD32Async of {words} words"))?;
            if i == 0 {
                self.announce(plan, seat, room, 0, header, stream)?;
            }
            if reduce(m, pointer(room)) != 0 {
                break;
            }
        }
        Ok(())
    }
}
