//! A plan of one rank among several: where its statistics lie in the workspace and which messages a run sends.
use super::partials::{I32, I64, MAX, SUM, Section, Stage};
use super::Plan;
use crate::model::context::Memory;
use crate::model::ranks::WORDS;

/// The most messages of a run: header and edges of pieces, maxima, sums, second largest values, strict, chunks and tiles of pieces, two of whitening.
const MOST: usize = 10;

/// One call of the caller's all-reduce. Offsets are those of the statistics' buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub section: Section,
    /// After which phase it goes.
    pub phase: usize,
    pub what: &'static str,
    /// `strict`: the header's words alone, said again after a look at the data.
    pub findings: bool,
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
}

impl Plan {
    /// Makes it one rank's plan: the workspace grows by the statistics. Size 0: no communicator, the phases one after the other.
    pub fn spread(&mut self, rank: i32, size: i32) {
        let offset = self.workspace.bytes.next_multiple_of(64);
        self.workspace.bytes = (offset + self.partials.bytes).next_multiple_of(64);
        let none = Message { section: Section { offset: 0, count: 0, dtype: I32, op: MAX }, phase: 0, what: "", findings: false };
        let mut ranks = Ranks { rank, size, offset, messages: [none; MOST], count: 0 };
        let p = &self.partials;
        let mut add = |phase: usize, what: &'static str, section: Section| {
            if section.count > 0 {
                ranks.messages[ranks.count] = Message { section, phase, what, findings: section.offset == 0 && phase > 0 };
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
}

impl Ranks {
    pub fn messages(&self) -> &[Message] {
        &self.messages[..self.count]
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
        let bytes: usize = self.messages().iter().map(|m| size(&m.section)).sum();
        let mut t = format!("ranks: rank {} of {}; {} reductions a run, {bytes} bytes\n", self.rank, self.size, self.count);
        for m in self.messages() {
            let (op, dtype) = (if m.section.op == SUM { "sum" } else { "max" }, if m.section.dtype == I64 { "i64" } else { "i32" });
            // Writing to a String does not fail.
            let _ = writeln!(t, "  reduction after phase {}: {op} of {} {dtype}, {} bytes: {}", m.phase, m.section.count, size(&m.section), m.what);
        }
        t
    }
}
