//! A plan of one rank among several: where its statistics lie in the workspace and which messages a run sends.
use super::partials::{I32, I64, MAX, SUM, Section, Stage};
use super::Plan;
use crate::model::config::{Chunk, CountBy, Kind};
use crate::model::context::Memory;
use crate::model::ranks::WORDS;
use crate::numerics::exact::ROLLOUT_BITS;

/// The most messages of a run: header and edges of pieces, own sums of rollouts, maxima, sums, second largest values, strict, chunks and tiles of pieces, two of whitening.
const MOST: usize = 11;

/// One call of the caller's all-reduce. Offsets are those of the statistics' buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub section: Section,
    /// After which phase it goes.
    pub phase: usize,
    pub what: &'static str,
    /// `strict`: the header's words alone, said again after a look at the data.
    pub findings: bool,
    /// Left out where advantages follow from maxima alone and no rank's outputs ask for sums.
    pub optional: bool,
}

/// What a run over ranks adds to a plan.
#[derive(Clone, Copy, Debug)]
pub struct Ranks {
    pub rank: i32,
    pub size: i32,
    /// Byte of the workspace at which the statistics begin.
    offset: usize,
    messages: [Message; MOST],
    count: usize,
    /// Do all advantages follow from maxima?
    pub maxima_alone: bool,
}

impl Plan {
    /// Makes it one rank's plan: the workspace grows by the statistics. Size 0: no communicator, the phases one after the other.
    pub fn spread(&mut self, rank: i32, size: i32) {
        let offset = self.workspace.bytes.next_multiple_of(64);
        self.workspace.bytes = (offset + self.partials.bytes).next_multiple_of(64);
        let none = Message { section: Section { offset: 0, count: 0, dtype: I32, op: MAX }, phase: 0, what: "", findings: false, optional: false };
        let maxima_alone = self.maxima_alone(size as usize);
        let mut ranks = Ranks { rank, size, offset, messages: [none; MOST], count: 0, maxima_alone };
        let p = &self.partials;
        let mut add = |phase: usize, what: &'static str, section: Section| {
            if section.count > 0 {
                let findings = section.offset == 0 && phase > 0;
                ranks.messages[ranks.count] = Message { section, phase, what, findings, optional: maxima_alone && phase == 1 && !findings };
                ranks.count += 1;
            }
        };
        let header = Section { offset: 0, count: WORDS, dtype: I32, op: MAX };
        for phase in 0..p.phases {
            let (maxima, sums) = (p.joined(phase, I32, MAX), p.joined(phase, I64, SUM));
            match p.stage(phase) {
                Stage::Edges => {
                    add(phase, "header", header);
                    add(phase, "edges of pieces", sums);
                }
                Stage::Own => add(phase, "own sums of rollouts", sums),
                // The header's words stand where a buffer of partials has its fingerprint, right before the maxima.
                Stage::Maxima if phase == 0 => add(phase, "header and maxima", Section { offset: 0, count: maxima.offset / 4 + maxima.count, ..maxima }),
                Stage::Maxima => add(phase, "maxima", maxima),
                Stage::Sums => {
                    add(phase, "sums", sums);
                    add(phase, "second largest values", maxima);
                    if self.config.strict {
                        add(phase, "findings (strict)", header);
                    }
                }
                Stage::Chunks => add(phase, "chunks of pieces", sums),
                Stage::Scan => add(phase, "tiles of pieces", sums),
                Stage::WhitenMaxima => add(phase, "maxima of whitening", maxima),
                Stage::WhitenSums => add(phase, "sums of whitening", sums),
            }
        }
        self.ranks = Some(ranks);
    }

    /// Do all advantages follow from the maxima of the sets? Not where a set over all ranks could have too many elements, which only their sum tells.
    fn maxima_alone(&self, size: usize) -> bool {
        let (config, limits) = (&self.config, &self.limits);
        let by_sums = config.kind == Kind::Kl && config.chunk == Chunk::ByValue;
        // Of pieces the chunks are counted beside the sums.
        !by_sums
            && limits.pieces == 0
            && self.slots.batch == 0
            && self.partials.claims.count == 0
            && (0..self.slots.count).all(|slot| {
                let row = &config.streams[self.slots.row(slot)];
                let of_rollouts = slot >= self.slots.sets && row.count_by == CountBy::Rollout;
                let share = if of_rollouts { limits.rollouts } else { limits.tokens + 2 * limits.rollouts };
                let most = if self.bits(slot) == ROLLOUT_BITS { 1usize << 17 } else { 1 << 33 };
                row.asks_maxima_alone() && size.saturating_mul(share) < most
            })
    }
}

impl Ranks {
    pub fn messages(&self) -> &[Message] {
        &self.messages[..self.count]
    }

    /// No rank looks at what the first message came to before the next: every message goes, whatever outputs ask for.
    pub fn send_all(&mut self) {
        self.maxima_alone = false;
        self.messages.iter_mut().for_each(|m| m.optional = false);
    }

    /// The statistics' buffer within a workspace.
    pub fn buffer(&self, plan: &Plan, workspace: Memory) -> Memory {
        assert!(self.offset + plan.partials.bytes <= workspace.bytes);
        Memory { data: workspace.data.wrapping_add(self.offset), bytes: plan.partials.bytes }
    }

    /// Lines of `passrl_plan_describe`.
    pub fn describe(&self) -> String {
        use std::fmt::Write;
        let size = |s: &Section| s.count * if s.dtype == I64 { 8 } else { 4 };
        let of = |optional: bool| {
            let them = self.messages().iter().filter(move |m| m.optional == optional);
            (them.clone().count(), them.map(|m| size(&m.section)).sum::<usize>())
        };
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let ((always, bytes), (more, more_bytes)) = (of(false), of(true));
        let mut t = format!("ranks: rank {} of {}; {always} reduction{} a run, {bytes} bytes", self.rank, self.size, plural(always));
        if more > 0 {
            t += &format!("; {more} more, {more_bytes} bytes, where a rank's outputs ask for counts, means, deviations or flags of groups");
        }
        t.push('\n');
        for m in self.messages() {
            let (op, dtype) = (if m.section.op == SUM { "sum" } else { "max" }, if m.section.dtype == I64 { "i64" } else { "i32" });
            let asked = if m.optional { " (where asked for)" } else { "" };
            // Writing to a String does not fail.
            let _ = writeln!(t, "  reduction after phase {}: {op} of {} {dtype}, {} bytes: {}{asked}", m.phase, m.section.count, size(&m.section), m.what);
        }
        t
    }
}
