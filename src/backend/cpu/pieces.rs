//! Pieces of rollouts (context parallelism): what a piece tells of its edges, and what it learns from those of the others.
use super::chunk;
use super::scope::Scope;
use super::steps;
use super::worker::{Job, Worker};
use crate::model::batch::{Extent, Process};
use crate::model::config::*;
use crate::model::context::Memory;
use crate::model::flags;
use crate::model::pieces::{self as words, Rows, WORDS};
use crate::plan::partials::Stage;
use crate::plan::pieces::Exchange;
use crate::plan::workspace::{Rollout, state};

/// What pieces have exchanged, and how far they are.
#[derive(Clone, Copy)]
pub struct Joint {
    pub buffer: Memory,
    pub layout: Exchange,
    /// The phase that is taken; `None`: all are.
    pub stage: Option<Stage>,
}

/// What a piece says of itself before anything is known of the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edge {
    /// The detector's values at the first and last token in scope.
    pub detected: [f32; 2],
    /// Sparse steps: marks in scope, values of the first and last by stream; does the last token in scope have one?
    pub marks: usize,
    pub marked: [i64; MAX_PROCESS],
    pub marked_last: bool,
    /// Steps of the first and last token in scope before missing steps left it, plus 1.
    pub raw: [usize; 2],
}

/// Where a piece stands in its rollout. A whole rollout is its only piece.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub joint: bool,
    /// Its number in the whole batch, and the piece's among its pieces.
    pub rollout: usize,
    pub piece: usize,
    /// The piece that speaks for the rollout where something is said once.
    pub head: bool,
    /// Index in the rollout of its first token in scope; tokens in scope in all and in later pieces.
    pub first: usize,
    pub total: usize,
    pub tokens_after: usize,
    /// Is the last token of the rollout in scope?
    pub at_end: bool,
    /// Chunks in all and in later pieces, once they are counted.
    pub chunks: usize,
    pub after: usize,
    /// Flags of all pieces.
    pub flags: u32,
    /// `scan_mask` other than carry: index in the piece of its first token that takes part in the scan (its length: none does), and those of later pieces.
    pub line: usize,
    pub lines_after: usize,
}

impl Place {
    pub const WHOLE: Place = Place {
        joint: false, rollout: 0, piece: 0, head: true, first: 0, total: 0, tokens_after: 0, at_end: false, chunks: 0, after: 0, flags: 0, line: 0, lines_after: 0,
    };
}

impl Job<'_> {
    /// The number of unit i's rollout in the whole batch, and the piece's in it.
    pub fn piece(&self, i: usize) -> (usize, usize) {
        let row = self.problem.row(i);
        self.problem.pieces.as_ref().map_or((row, 0), |p| (p.numbers.map_or(row, |n| n.int(row).max(0) as usize), p.index.int(i).max(0) as usize))
    }

    /// What is known of the pieces of a rollout, once their edges have been exchanged.
    pub fn rows(&self, rollout: usize) -> Option<Rows<'_>> {
        let joint = self.joint.filter(|j| j.stage != Some(Stage::Edges))?;
        // SAFETY: complete, and read only from here on.
        Some(unsafe { joint.layout.rows(joint.buffer, rollout) })
    }

    pub fn place(&self, i: usize, kept: &Rollout, at: &Extent) -> Place {
        let (rollout, piece) = self.piece(i);
        let whole = Place {
            joint: false,
            rollout,
            piece,
            head: true,
            first: at.begin + kept.first as usize,
            total: kept.count as usize,
            tokens_after: 0,
            at_end: kept.count > 0 && at.begin + kept.end as usize == at.whole,
            chunks: kept.chunks as usize,
            after: 0,
            flags: 0,
            line: self.line(i, kept, at),
            lines_after: 0,
        };
        let (Some(rows), Some(joint)) = (self.rows(rollout), self.joint) else { return whole };
        // SAFETY: the rollout is this thread's, or its chunks have been counted.
        let counts = unsafe { joint.layout.counts(joint.buffer, rollout) };
        let mut place = Place { joint: true, head: piece == 0, first: usize::MAX, total: 0, at_end: false, chunks: 0, ..whole };
        for j in 0..rows.count() {
            let (row, count, own) = (rows.row(j), rows.in_scope(j), counts[j].max(0) as usize);
            place.total += count;
            place.chunks += own;
            if j > piece {
                place.tokens_after += count;
                place.after += own;
            }
            if count > 0 {
                place.first = place.first.min(row[words::FIRST] as usize);
                place.at_end = row[words::LAST] + 1 == row[words::WHOLE];
            }
        }
        place.flags = rows.flags();
        place.lines_after = at.whole.saturating_sub((at.begin + at.len).max(place.first));
        place
    }

    /// Index in the piece of its first token from the rollout's first one in scope on; its length: there is none.
    pub fn line(&self, i: usize, kept: &Rollout, at: &Extent) -> usize {
        match self.rows(self.piece(i).0) {
            Some(rows) => rows.first().map_or(at.len, |first| first.saturating_sub(at.begin).min(at.len)),
            None if kept.count > 0 => kept.first as usize,
            None => at.len,
        }
    }

    /// Does a token of the piece, in scope or not, take part in the scan?
    pub fn takes_part(&self, i: usize, kept: &Rollout, at: &Extent) -> bool {
        kept.count > 0 || self.config().spreads() && self.line(i, kept, at) < at.len
    }

    /// Are values of the rollouts not complete yet, as a sum over their tokens is missing?
    pub fn sums_pending(&self) -> bool {
        self.problem.reference.is_some() && !self.config().kl_by_token() && self.joint.is_some_and(|j| matches!(j.stage, Some(Stage::Edges | Stage::Own)))
    }

    /// Numbers (among the rollout's) of the steps at the first and last token of a span in scope, plus 1; 0: none.
    pub fn span_steps(&self, i: usize, at: &Extent, scope: &Scope) -> [usize; 2] {
        let Some(csr) = self.problem.steps.as_ref().filter(|_| !scope.is_empty()) else { return [0; 2] };
        let (from, to) = steps::numbers(csr, self.problem.row(i));
        if to <= from {
            return [0; 2];
        }
        [scope.first, scope.end - 1].map(|t| steps::of_token(csr, from, to, at.begin + t) + 1)
    }

    /// Does the piece speak for its rollout where something is said once?
    pub fn is_head(&self, i: usize) -> bool {
        self.problem.pieces.is_none() || self.piece(i).1 == 0
    }

    /// Has an earlier piece of the rollout a token in scope?
    pub fn has_scope_before(&self, i: usize) -> bool {
        let (rollout, piece) = self.piece(i);
        self.rows(rollout).is_some_and(|rows| (0..piece).any(|j| rows.in_scope(j) > 0))
    }

    /// Position of unit i's first token in scope: its distance from the rollout's first one.
    pub fn position(&self, i: usize, kept: &Rollout) -> usize {
        let (rollout, piece) = self.piece(i);
        let Some(rows) = self.rows(rollout).filter(|_| kept.count > 0) else { return 0 };
        let first = (0..piece).find(|j| rows.in_scope(*j) > 0).map(|j| rows.row(j)[words::FIRST] as usize);
        let own = rows.row(piece)[words::FIRST] as usize;
        own - first.unwrap_or(own)
    }

    /// Flags that pieces of the rollout have told.
    pub fn found_in_pieces(&self, i: usize) -> u32 {
        self.rows(self.piece(i).0).map_or(0, |rows| rows.flags())
    }

    /// V at the next token of a later piece that takes part in the scan.
    pub fn next_value(&self, i: usize) -> Option<f64> {
        let (rollout, piece) = self.piece(i);
        let rows = self.rows(rollout)?;
        let next = if self.config().spreads() { rows.next_with_tokens(piece) } else { rows.next(piece) };
        next.map(|next| f32::from_bits(next[words::VALUE] as u32) as f64)
    }

    /// Tokens from the piece's last one in scope to the next in a later piece; 0: there is none.
    pub fn way_to_next(&self, i: usize, kept: &Rollout) -> usize {
        let (rollout, piece) = self.piece(i);
        let Some(rows) = self.rows(rollout).filter(|_| kept.count > 0) else { return 0 };
        rows.next(piece).map_or(0, |next| (next[words::FIRST] - rows.row(piece)[words::LAST]) as usize)
    }

    /// Does step `number` of the rollout, or what missing steps have left of it, go on in a later piece?
    pub fn step_goes_on(&self, i: usize, number: usize) -> bool {
        let (rollout, piece) = self.piece(i);
        let Some(rows) = self.rows(rollout) else { return false };
        let next = (piece + 1..rows.count()).map(|j| rows.row(j)[words::FIRST_RAW]).find(|first| *first > 0);
        next == Some(number as i64 + 1)
    }
}

/// FNV-1a over words.
fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
}

impl Worker<'_> {
    /// Hash of what every piece of a rollout must be given alike.
    fn inputs_hash(&self, row: usize) -> i64 {
        let p = self.job.problem;
        let mut hash = mix(0xcbf2_9ce4_8422_2325, p.group(row) as u64);
        for (s, stream) in p.rollout_streams.iter().enumerate() {
            hash = mix(hash, stream.as_ref().map_or(s as u64, |a| a.f64(row).to_bits()));
        }
        for number in [&p.baselines, &p.bootstrap, &p.rollout_lam] {
            hash = mix(hash, number.as_ref().map_or(0, |a| a.f64(row).to_bits()));
        }
        for (mask, not_given) in [(&p.format_ok, true), (&p.in_stats, true), (&p.absent, false)] {
            hash = mix(hash, u64::from(mask.as_ref().map_or(not_given, |a| a.flag(row))));
        }
        let Some(csr) = &p.steps else { return hash as i64 };
        let (from, to) = steps::numbers(csr, row);
        for j in from..to {
            hash = mix(hash, csr.ends.int(j) as u64);
            hash = mix(hash, csr.begins.map_or(3, |b| b.int(j) as u64));
            if let Process::Scores(_) = p.process {
                (0..p.num_process).for_each(|s| hash = mix(hash, steps::score(p, s, j).to_bits() as u64));
            }
        }
        mix(hash, (to - from) as u64) as i64
    }

    /// Adds the piece's row to the table.
    fn tell(&mut self, i: usize, joint: &Joint, at: &Extent, scope: &Scope, edge: &Edge, kept: &Rollout) {
        let (job, problem) = (self.job, self.job.problem);
        let (rollout, piece) = job.piece(i);
        let mut row = [0i64; WORDS];
        row[words::TIMES] = 1;
        row[words::BEGIN] = at.begin as i64;
        row[words::SLOTS] = (at.len + at.tail) as i64;
        row[words::WHOLE] = at.whole as i64;
        row[words::INPUTS] = self.inputs_hash(problem.row(i));
        row[words::COUNT] = scope.count as i64;
        if kept.state & state::HAS_PROCESS != 0 || edge.marks > 0 {
            row[words::FLAGS] |= words::HAS_PROCESS;
        }
        if let Some(marks) = problem.chunk_marks.as_ref().map(|m| at.of(m)) {
            let any = |a: usize, b: usize| (a..b).any(|t| marks.flag(t));
            let before = if scope.is_empty() { at.len } else { scope.first };
            row[words::FLAGS] |= if any(0, before) { words::MARK_BEFORE } else { 0 };
            row[words::FLAGS] |= if !scope.is_empty() && any(scope.end - 1, at.len) { words::MARK_AFTER } else { 0 };
        }
        if !scope.is_empty() {
            row[words::FIRST] = (at.begin + scope.first) as i64;
            row[words::LAST] = (at.begin + scope.end - 1) as i64;
            row[words::DETECTED] = words::pair(edge.detected[0], edge.detected[1]);
            // (Steps that do not fit have no numbers.)
            let steps = if kept.flags & flags::ROLLOUT_BAD_STEPS == 0 { self.job.span_steps(i, at, scope) } else { [0; 2] };
            (row[words::FIRST_STEP], row[words::LAST_STEP]) = (steps[0] as i64, steps[1] as i64);
        }
        if let Some(values) = &problem.values {
            let c = job.config();
            let own = match c.scan_mask {
                _ if !c.spreads() => (!scope.is_empty()).then_some(scope.first),
                ScanMask::Decay => scope.contains(0).then_some(0),
                _ => (at.len > 0).then_some(0),
            };
            row[words::VALUE] = own.map_or(0, |t| at.of(values).f32(t).to_bits() as i64);
        }
        (row[words::FIRST_RAW], row[words::LAST_RAW]) = (edge.raw[0] as i64, edge.raw[1] as i64);
        row[words::MARKS] = edge.marks as i64;
        row[words::MARKED..words::MOST].copy_from_slice(&edge.marked);
        // SAFETY: the piece's group is this thread's.
        let to = unsafe { joint.layout.row(joint.buffer, rollout, piece) };
        to.iter_mut().zip(row).for_each(|(to, word)| *to = to.wrapping_add(word));
    }

    /// Adds what has been found in the piece to its row, and the largest values of the lists that are summed over the rollout.
    pub fn tell_flags(&mut self, i: usize) {
        let Some(joint) = self.job.joint else { return };
        let kept = self.job.rollout(i);
        let found = kept.flags & (flags::ROLLOUT_NONFINITE | flags::ROLLOUT_MISSING | flags::ROLLOUT_BAD_STEPS);
        let found = found as i64 | if self.bad_before(i, &kept) { words::BAD_BEFORE } else { 0 };
        let (rollout, piece) = self.job.piece(i);
        // SAFETY: the piece's group is this thread's.
        let row = unsafe { joint.layout.row(joint.buffer, rollout, piece) };
        row[words::FLAGS] = row[words::FLAGS].wrapping_add(found);
        if self.job.config().pool == Pool::Rollouts && kept.state & state::HAS_PROCESS != 0 {
            for list in 0..self.job.problem.num_process {
                row[words::MOST + 1 + list] = row[words::MOST + 1 + list].wrapping_add(self.own_extremes(i, &kept, list).absmax as i64);
            }
        }
    }

    /// Adds the piece's share of its rollout's sums of the process lists, on the grids that all pieces' largest values set.
    pub fn tell_sums(&mut self, i: usize) {
        let Some(joint) = self.job.joint else { return };
        let (kept, rollout) = (self.job.rollout(i), self.job.piece(i).0);
        if self.job.config().pool != Pool::Rollouts || kept.state & state::HAS_PROCESS == 0 {
            return;
        }
        for list in 0..self.job.problem.num_process {
            let Some((q, n)) = self.own_list_sum(i, &kept, list) else { continue };
            // SAFETY: the rollout's group is this thread's.
            let sum = unsafe { joint.layout.own_list(joint.buffer, rollout, list) };
            (sum[0], sum[1]) = (sum[0].wrapping_add(q), sum[1].wrapping_add(n));
        }
    }

    /// Adds the number of chunks that end in the piece.
    pub fn tell_chunks(&mut self, i: usize, kept: &Rollout) {
        let Some(joint) = self.job.joint else { return };
        let (rollout, piece) = self.job.piece(i);
        // SAFETY: the piece's group is this thread's.
        let count = unsafe { &mut joint.layout.counts(joint.buffer, rollout)[piece] };
        *count = count.wrapping_add(kept.own_chunks() as i64);
        // SAFETY: as above.
        let (Some(begins), Some(values)) = (unsafe { joint.layout.begins(joint.buffer, rollout) }, &self.job.problem.values) else { return };
        let at = self.job.problem.extent(i);
        let scope = self.job.kept_scope(i, kept, &at);
        // SAFETY: the piece's own list.
        let last: &[u32] = unsafe { self.job.last(&at) };
        let begin = match (kept.chunks as usize).checked_sub(2) {
            _ if scope.is_empty() => return,
            _ if kept.state & state::EVERY_TOKEN != 0 => Some(scope.end - 1),
            Some(before) => scope.first_in(last[before] as usize + 1, at.len),
            None => Some(scope.first),
        };
        let open = i64::from(kept.state & state::OPEN != 0) << 32;
        begins[piece] = begins[piece].wrapping_add(begin.map_or(0, |t| at.of(values).f32(t).to_bits() as i64) | open);
    }

    /// gae over chunks: V at the first token of the chunk that goes on into this piece; `None`: the first chunk begins here.
    pub fn value_before(&self) -> Option<f64> {
        let (joint, Place { rollout, piece, .. }) = (self.job.joint?, self.place);
        let rows = self.job.rows(rollout)?;
        // SAFETY: the chunks have been counted, and are read only from then on.
        let (counts, begins) = unsafe { (&*joint.layout.counts(joint.buffer, rollout), &*joint.layout.begins(joint.buffer, rollout)?) };
        let mut value = None;
        for j in (0..piece).rev().filter(|j| rows.in_scope(*j) > 0) {
            if begins[j] >> 32 & 1 == 0 {
                break;
            }
            value = Some(f32::from_bits(begins[j] as u32) as f64);
            // With a chunk that ends in it the last one begins in it.
            if counts[j] > 0 {
                break;
            }
        }
        value
    }

    /// Tells the piece's edges, or learns from the others' what is the rollout's, and what of it goes on in a later piece. `dense`: steps are runs of the detector;
    /// `stepped`: the rollout has steps; `uniform`: all tokens of a step have its value.
    pub fn join(&mut self, i: usize, at: &Extent, scope: &Scope, edge: &Edge, dense: bool, stepped: bool, uniform: bool, kept: &mut Rollout) {
        kept.total = kept.count;
        let job = self.job;
        let Some(joint) = &job.joint else { return };
        let (rollout, piece) = job.piece(i);
        let Some(rows) = job.rows(rollout) else { return self.tell(i, joint, at, scope, edge, kept) };
        let (mut total, mut process) = (0, false);
        for j in 0..rows.count() {
            total += rows.in_scope(j);
            process |= rows.row(j)[words::FLAGS] & words::HAS_PROCESS != 0;
        }
        kept.total = total as u32;
        if total > 0 {
            kept.flags &= !flags::ROLLOUT_NO_SCOPE;
        }
        kept.state |= if process { state::HAS_PROCESS } else { 0 };
        let c = job.config();
        if c.kind == Kind::Kl || scope.is_empty() || kept.chunks == 0 {
            return;
        }
        let Some(next) = rows.next(piece) else { return };
        let same_step = self.steps_at_edge(i, at, scope, edge, &rows).is_some_and(|(a, b)| a == b);
        let detected = self.next_detected(&rows, piece, next);
        let adjacent = next[words::FIRST] as usize == at.begin + scope.end;
        // Inside a step nothing is compared (an infinity is no edge to itself).
        let within = uniform && same_step && adjacent;
        let same_run = within || ((adjacent || c.bridge_scope_gaps) && !chunk::edge(edge.detected[1], detected, c.eta));
        // An element that goes on is counted where it ends.
        if kept.elements > 0 && if dense { same_run } else { stepped && same_step } {
            if c.pool == Pool::Tokens {
                kept.state |= state::OPEN_STEP;
            } else {
                kept.elements -= 1;
            }
        }
        let scored = kept.state & state::HAS_PROCESS != 0;
        let open = match c.chunk {
            Chunk::ByValue | Chunk::Step if dense && scored => same_run,
            Chunk::ByValue if scored => same_run && (same_step || c.merge_equal_steps),
            Chunk::Step if stepped => same_step,
            _ => self.chunk_goes_on(at, scope, &rows, piece),
        };
        kept.state |= if open { state::OPEN } else { 0 };
    }

    /// Does the piece's last chunk go on, by the rules that know no values and no steps?
    pub fn chunk_goes_on(&self, at: &Extent, scope: &Scope, rows: &Rows, piece: usize) -> bool {
        let Some(next) = rows.next(piece) else { return false };
        match self.job.config().chunk {
            Chunk::Token => false,
            Chunk::Segment => next[words::FIRST] as usize == at.begin + scope.end,
            Chunk::Given => {
                let marked = |j: usize, bit: i64| rows.row(j)[words::FLAGS] & bit != 0;
                let following = (piece + 1..rows.count()).find(|j| rows.in_scope(*j) > 0).unwrap_or(piece);
                !marked(piece, words::MARK_AFTER) && !(piece + 1..=following).any(|j| marked(j, words::MARK_BEFORE))
            }
            _ => true,
        }
    }

    /// Steps of the piece's last token in scope and of the next one in a later piece.
    pub fn steps_at_edge(&self, i: usize, at: &Extent, scope: &Scope, edge: &Edge, rows: &Rows) -> Option<(usize, usize)> {
        let piece = self.job.piece(i).1;
        let next = rows.next(piece)?;
        if self.job.problem.step_marks.is_none() {
            return Some((self.job.span_steps(i, at, scope)[1], next[words::FIRST_STEP] as usize)).filter(|(a, b)| *a > 0 && *b > 0);
        }
        // A token's step is the number of marks before it; tokens after the last mark are of the last step.
        let marks = |to: usize| (0..to).map(|j| rows.row(j)[words::MARKS] as usize).sum::<usize>();
        let most = marks(rows.count()).checked_sub(1)?;
        let following = (piece + 1..rows.count()).find(|j| rows.in_scope(*j) > 0)?;
        let own = marks(piece) + edge.marks - usize::from(edge.marked_last);
        Some((own.min(most), marks(following).min(most)))
    }

    /// The detector's value at the next token in scope of a later piece.
    fn next_detected(&self, rows: &Rows, piece: usize, next: &[i64]) -> f32 {
        if self.job.problem.step_marks.is_none() {
            return words::first(next[words::DETECTED]);
        }
        let following = (piece + 1..rows.count()).find(|j| rows.in_scope(*j) > 0).unwrap_or(piece);
        rows.marked(following, 0)
    }
}
