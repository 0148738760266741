//! Groups of packed rollouts, and of padded ones that are short: what a rollout costs beside its tokens is left out. The tokens of a packed group are one line, looked
//! at once for where values change (a bit a token, with the ends of the rollouts among them) and written once, by the same bits; a padded rollout is a line of its own. Between the two
//! stand the chunks of the whole group side by side. Whatever does not fit is left to the way of `read` and `shape`, before anything is written.
use super::short_avx2::{self, Affine, HELD, WORD};
use super::terms::Eight;
use super::{Group, Ints, Lane, Source, Steps};
use crate::backend::cpu::expand::Out;
use crate::backend::cpu::lines::{self, WINDOW};
use crate::backend::cpu::members::Members;
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::standard::Apply;
use crate::backend::cpu::tile::Powers;
use crate::backend::cpu::worker::{Job, Worker};
use crate::backend::cpu::{fuse, returns, rollout_streams};
use crate::model::array::{Array, DType, Row};
use crate::model::config::*;
use crate::numerics::convert::InElem;
use crate::numerics::simd::Simd;
use crate::plan::workspace::{Rollout, SPARE};
use half::{bf16, f16};
use std::ops::Range;

/// May the groups of a call go this way?
pub fn fits(job: &Job, source: &Source) -> bool {
    let (problem, c) = (job.problem, job.config());
    let Some(o) = job.outputs else { return false };
    let alone = [&o.returns, &o.path_scores, &o.num_chunks, &o.chunk_ends, &o.chunk_values, &o.rollout_flags].iter().all(|o| o.is_none());
    let masked = problem.mask.is_none() || (!problem.packed() && !matches!(source, Source::Steps(_)));
    // Of a padded batch that passes the caches by the next rollout is asked for while one is written: that is the other way's.
    let near = problem.packed() || !job.streams;
    job.simd() >= Simd::Avx2
        && alone
        && masked
        && near
        && matches!(o.advantages.dtype, DType::F32 | DType::Bf16 | DType::F16)
        && o.advantages.stride[usize::from(!problem.packed())] == 1
        && problem.in_stats.is_none()
        && problem.absent.is_none()
        && (c.fusion == Fusion::Advantage || matches!(source, Source::Whole))
        && c.divide_scope == DivideScope::All
        && c.temperature == 1.0
        && c.clip == f64::INFINITY
        && c.whiten == Whiten::None
}

/// Tokens in scope that follow each other, in every token-shaped array alike.
#[derive(Clone, Copy)]
struct Span {
    row: usize,
    column: usize,
    n: usize,
    flat: bool,
}

impl Span {
    fn of(&self, array: &Array) -> Row {
        array.line(self.row, self.column, self.n, self.flat)
    }

    /// Words that hold a bit a cell, after as many as stand before the first in its line.
    fn words(&self, phase: usize) -> usize {
        if self.n == 0 { 0 } else { (self.n + phase).div_ceil(WORD) }
    }
}

/// A group's rollouts a .. b, in one span or in one each.
#[derive(Clone, Copy)]
struct Part {
    a: usize,
    b: usize,
    /// Packed: the one.
    whole: Option<Span>,
}

impl Part {
    /// `None`: there are more tokens than words have bits.
    fn new(lane: &Lane, a: usize, b: usize, words: usize) -> Option<Part> {
        let problem = lane.problem;
        let most = WORD * words.saturating_sub(2);
        if !problem.packed() {
            return ((b - a) * (problem.slots + WORD) <= most).then_some(Part { a, b, whole: None });
        }
        let from = lane.extent(a).column;
        let n = lane.end(b - 1).checked_sub(from).filter(|n| *n <= most)?;
        Some(Part { a, b, whole: Some(Span { row: 0, column: from, n, flat: true }) })
    }

    fn packed(&self) -> bool {
        self.whole.is_some()
    }

    fn spans(&self) -> usize {
        if self.packed() { 1 } else { self.b - self.a }
    }

    /// The rollouts of span s.
    fn rollouts(&self, s: usize) -> Range<usize> {
        if self.packed() { self.a..self.b } else { self.a + s..self.a + s + 1 }
    }

    /// Span s as it was read.
    fn span(&self, job: &Job, lane: &Lane, s: usize) -> Span {
        if let Some(span) = self.whole {
            return span;
        }
        let at = lane.extent(self.a + s);
        let (first, end) = match job.problem.mask {
            None => (0, at.len),
            Some(_) => {
                let kept = job.rollout(self.a + s);
                (kept.first as usize, kept.end as usize)
            }
        };
        Span { row: at.row, column: at.column + first, n: end - first, flat: false }
    }
}

/// Hands over the rollouts of a span, and where in it each begins and ends. `None`: they do not rise, or `each` wants no more.
fn ends(lane: &Lane, part: &Part, s: usize, span: &Span, mut each: impl FnMut(usize, usize, usize) -> Option<()>) -> Option<()> {
    if !part.packed() {
        return each(part.a + s, 0, span.n);
    }
    let mut begin = 0;
    for i in part.rollouts(s) {
        let end = lane.end(i).checked_sub(span.column).filter(|end| begin <= *end && *end <= span.n)?;
        each(i, begin, end)?;
        begin = end;
    }
    Some(())
}

fn mark(words: &mut [u64], bit: usize) {
    words[bit / WORD] |= 1 << (bit % WORD);
}

impl Worker<'_> {
    /// `None`: nothing has been written.
    pub(super) fn short_group(&mut self, lane: &Lane, members: Members) -> Option<Group> {
        let Members::Range(a, b) = members else { return None };
        if a >= b || self.gappy || b - a + SPARE > self.usual_ends.len() {
            return None;
        }
        let part = Part::new(lane, a, b, self.row_marks.len() / 8)?;
        match self.job.outputs?.advantages.dtype {
            DType::F32 => self.short_typed::<f32>(lane, &part),
            DType::Bf16 => self.short_typed::<bf16>(lane, &part),
            _ => self.short_typed::<f16>(lane, &part),
        }
    }

    fn short_typed<T: Out>(&mut self, lane: &Lane, part: &Part) -> Option<Group> {
        let job = self.job;
        let (mut words, mut chunks, mut tokens) = (0, 0, 0);
        for s in 0..part.spans() {
            let span = self.short_span(lane, part, s)?;
            let phase = lines::phase::<T>(span.of(&job.outputs?.advantages).address());
            chunks = self.short_read(lane, part, s, &span, phase, words, chunks)?;
            (words, tokens) = (words + span.words(phase), tokens + span.n);
        }
        let gaps = if part.packed() { 0 } else { part.b - part.a };
        if chunks + gaps + WINDOW.max(HELD) > self.row_table.len().min(self.usual_credits.len()) {
            return None;
        }
        let violates = |i: usize| job.problem.format_ok.is_some_and(|ok| !ok.flag(i));
        let format = if (part.a..part.b).all(violates) { 1 } else { 2 };
        let group = Group { elements: chunks, all_count: true, format, in_values: true };
        self.usual_decide(lane, Members::Range(part.a, part.b), &group)?;
        // SAFETY: AVX2 is there (`fits`).
        unsafe { self.short_credits(lane, part) };
        self.short_write::<T>(lane, part, chunks + gaps);
        self.report.rollouts += (part.b - part.a) as i64;
        self.report.tokens += tokens as i64;
        self.report.chunks += if lane.tokens { tokens } else { chunks } as i64;
        Some(group)
    }

    /// Span s, its scope read where there is a mask. `None`: the scope has holes.
    fn short_span(&mut self, lane: &Lane, part: &Part, s: usize) -> Option<Span> {
        let job = self.job;
        if job.problem.mask.is_some() {
            let i = part.a + s;
            // SAFETY: the rollout's own words, which no other thread uses.
            let scope = Scope::counted(job.simd(), unsafe { job.scope_bits(i, &lane.extent(i)) });
            if scope.has_holes() {
                // So will have others, of which nothing else is read twice.
                self.gappy = true;
                return None;
            }
            let kept = Rollout { first: scope.first as u32, end: scope.end as u32, count: scope.count as u32, ..Rollout::default() };
            // SAFETY: the rollout is this thread's.
            unsafe { job.keep(i, kept) };
        }
        Some(part.span(job, lane, s))
    }

    /// Bits and chunks of a span, from word `word` and chunk `chunk` on; the chunks up to the end of each rollout go to `usual_ends`. How many there are then.
    #[allow(clippy::too_many_arguments)]
    fn short_read(&mut self, lane: &Lane, part: &Part, s: usize, span: &Span, phase: usize, word: usize, chunk: usize) -> Option<usize> {
        if span.n == 0 {
            part.rollouts(s).for_each(|i| self.usual_ends[i - part.a] = chunk as u32);
            return Some(chunk);
        }
        let (words, count) = (marks(self.row_marks), span.words(phase));
        let words = words.get_mut(word..word + count)?;
        let (listed, values) = (&mut *self.usual_ends, &mut *self.usual_values);
        match &lane.source {
            Source::Dense(signal) => {
                let (row, before) = (span.of(signal), self.usual_before.get_mut(..count)?);
                let mut typed = |simd: Simd| match row.dtype() {
                    DType::F32 => dense(simd, row.slice::<f32>()?, lane, part, s, span, phase, words, before, values, listed, chunk),
                    DType::Bf16 => dense(simd, row.slice::<bf16>()?, lane, part, s, span, phase, words, before, values, listed, chunk),
                    _ => dense(simd, row.slice::<f16>()?, lane, part, s, span, phase, words, before, values, listed, chunk),
                };
                let chunks = typed(self.job.simd())?;
                self.apart(part, s, chunk, chunks)?;
                Some(chunks)
            }
            Source::Whole => {
                words.fill(0);
                let mut chunks = chunk;
                (chunk + part.rollouts(s).len() + SPARE <= values.len()).then_some(())?;
                ends(lane, part, s, span, |i, begin, end| {
                    if begin < end {
                        mark(words, end - 1 + phase);
                        values[chunks] = 0.0;
                        chunks += 1;
                    }
                    listed[i - part.a] = chunks as u32;
                    Some(())
                })?;
                Some(chunks)
            }
            Source::Steps(steps) => {
                words.fill(0);
                let mut chunks = chunk;
                ends(lane, part, s, span, |i, begin, end| {
                    let before = chunks;
                    chunks = by_steps(steps, i, begin + phase, end - begin, words, values, chunks)?;
                    listed[i - part.a] = chunks as u32;
                    // A rollout without steps is a chunk that is no element.
                    (before < chunks || begin == end).then_some(())
                })?;
                Some(chunks)
            }
        }
    }

    /// Are the neighbouring chunks of each rollout more than eta apart? (`None`: not so.)
    fn apart(&self, part: &Part, s: usize, from: usize, to: usize) -> Option<()> {
        let (eta, values) = (self.job.config().eta, &*self.usual_values);
        // SAFETY: AVX2 is there (`fits`); the list has entries to spare, as `list` has seen.
        let near = |a: usize, b: usize| unsafe { short_avx2::near(&values[a..], b - a, eta) };
        if !near(from, to) {
            return Some(());
        }
        // Where one rollout ends and the next begins, most likely, which does not count.
        let mut begin = from;
        part.rollouts(s).all(|i| {
            let end = self.usual_ends[i - part.a] as usize;
            let all = !near(begin, end) || short_avx2::all_edges(&values[begin..end], eta);
            begin = end;
            all
        }).then_some(())
    }

    /// From chunks to what their tokens are credited, in `usual_credits`; in a padded group a 0 follows each rollout.
    #[target_feature(enable = "avx2")]
    fn short_credits(&mut self, lane: &Lane, part: &Part) {
        let job = self.job;
        let (c, plan, sets) = (job.config(), job.plan, &self.usual_sets);
        let process = !matches!(lane.source, Source::Whole);
        let affine = match (process, &sets.applies[0]) {
            (false, _) | (true, Some(Apply::Zero)) => Some(Affine::NONE),
            (true, Some(Apply::Affine { mean, inv })) => Some(Affine { mean: *mean, inv: *inv, weight: c.streams[0].weight }),
            _ => None,
        };
        let powers = (c.credit == Credit::ReturnToGo).then(|| Powers::new(plan.decay[1]));
        let divisors: &[f64] = if c.k != 0.0 { &plan.divisors } else { &[] };
        let (mut begin, mut gap, mut lost, mut eight) = (0, 0, 0, Eight::NONE);
        for i in part.a..part.b {
            let end = self.usual_ends[i - part.a] as usize;
            let (k, place) = (end - begin, (i - part.a) % 8);
            if place == 0 {
                // What `usual_decide` has listed.
                let sums = (c.fusion == Fusion::RewardSum).then(|| &self.usual_elements[i - part.a..]);
                eight.read(job, sets, lane, i, (part.b - i).min(8), sums, &mut lost);
            }
            if k > 0 {
                let (values, to) = (&self.usual_values[begin..], &mut self.usual_credits[begin + gap..]);
                let divisors = if divisors.is_empty() { divisors } else { &divisors[divisors.len() - k..] };
                // A violating rollout has its format's term alone.
                let violates = eight.violates >> place & 1 == 1;
                match affine {
                    _ if violates && k <= HELD => short_avx2::credit(values, k, &Affine::NONE, [eight.gated[place]], powers.as_ref(), divisors, to),
                    Some(affine) if k <= HELD => short_avx2::credit(values, k, &affine, eight.of(place), powers.as_ref(), divisors, to),
                    affine => {
                        let d = &mut to[..k];
                        let apply = match affine {
                            _ if violates => Apply::Zero,
                            Some(affine) if affine.weight == 0.0 => Apply::Zero,
                            _ => super::terms::usual_apply(sets, 0, true, 0.0, &mut lost),
                        };
                        fuse::add_stream(job.simd(), sets.standard(0), apply, c.streams[0].weight, &values[..k], false, true, d, &mut lost);
                        let mut terms = [eight.gated[place]; rollout_streams::COUNT];
                        let count = if violates { 1 } else { eight.count };
                        if !violates {
                            terms.iter_mut().zip(eight.of(place)).for_each(|(to, term)| *to = term);
                        }
                        fuse::add_terms(job.simd(), &terms[..count], d);
                        if powers.is_some() {
                            returns::scan(job.simd(), d, &plan.decay);
                        }
                        super::shape::multiply(job.simd(), d, divisors);
                    }
                }
            }
            if !part.packed() {
                self.usual_credits[end + gap] = 0.0;
                gap += 1;
            }
            begin = end;
        }
        self.report.lost_deviations += lost;
    }

    /// Writes the group's rows; `entries`: credits, with the gaps among them.
    fn short_write<T: Out>(&mut self, lane: &Lane, part: &Part, entries: usize) {
        let job = self.job;
        let Some(outputs) = job.outputs else { return };
        // SAFETY: numbers of any bit pattern are valid, and the table is aligned for the largest of these types.
        let table = unsafe { std::slice::from_raw_parts_mut(self.row_table.as_mut_ptr().cast::<T>(), self.row_table.len() * 4 / size_of::<T>()) };
        let over = T::store(job.simd(), &self.usual_credits[..entries], &mut table[..entries]);
        if over > 0 || outputs.report {
            self.short_sums::<T>(lane, part, outputs.report);
        }
        let (fill, slots, to) = (job.config().fill_padding, job.problem.slots, &outputs.advantages);
        let (mut word, mut entry) = (0, 0);
        for s in 0..part.spans() {
            let span = part.span(job, lane, s);
            let (row, before) = match fill {
                _ if part.packed() => (span.of(to), 0),
                true => (to.line(span.row, 0, slots, false), span.column),
                false => {
                    let at = lane.extent(part.a + s);
                    (at.of(to), span.column - at.column)
                }
            };
            // SAFETY: the rows are this group's, which is this thread's, and their input has been read.
            let Some(cells) = (unsafe { row.slice_mut::<T>() }) else { return };
            let (before, cells) = cells.split_at_mut(before);
            before.fill(T::ZERO);
            if span.n == 0 {
                cells.fill(T::ZERO);
            } else {
                let phase = lines::phase::<T>(cells.as_mut_ptr().cast());
                let marks = self.row_marks[8 * word..8 * (word + span.words(phase))].as_ptr();
                // SAFETY: AVX2 and the bit counts are there (`fits`); the words reach to the end of the last line, the table has `WINDOW` entries to spare.
                unsafe { lines::marked(cells, span.n, marks, table[entry..].as_ptr(), job.streams, &mut self.ahead) };
                word += span.words(phase);
            }
            if !part.packed() {
                entry = self.usual_ends[s] as usize + s + 1;
            }
        }
    }

    /// The report's sums over tokens, and how many tokens were beyond the type's range.
    #[cold]
    fn short_sums<T: Out>(&mut self, lane: &Lane, part: &Part, sums: bool) {
        let job = self.job;
        let (mut word, mut entry) = (0, 0);
        for s in 0..part.spans() {
            let span = part.span(job, lane, s);
            let Some(outputs) = job.outputs else { return };
            let phase = lines::phase::<T>(span.of(&outputs.advantages).address());
            let words = &marks(self.row_marks)[word..word + span.words(phase)];
            let mut begin = phase;
            for (w, bits) in words.iter().enumerate() {
                let mut bits = *bits;
                while bits != 0 {
                    let end = w * WORD + bits.trailing_zeros() as usize + 1;
                    bits &= bits - 1;
                    let (n, d, mut over) = ((end - begin) as f64, self.usual_credits[entry], 0);
                    T::from_f64(d, &mut over);
                    self.report.overflowed_tokens += over as i64 * (end - begin) as i64;
                    if sums {
                        self.report.sum_advantages += n * d;
                        self.report.sum_squares += n * d * d;
                    }
                    (begin, entry) = (end, entry + 1);
                }
            }
            word += words.len();
            entry += usize::from(!part.packed());
        }
    }
}

/// The scratch for marks, as words.
fn marks(bytes: &mut [u8]) -> &mut [u64] {
    // SAFETY: any bits are a word's; `align_to` sees to the rest (parts of the workspace begin in lines of the cache).
    unsafe { bytes.align_to_mut::<u64>() }.1
}

/// Runs of equal values of a span, and where the rollouts end among them.
#[allow(clippy::too_many_arguments)]
fn dense<T: InElem + Default>(
    simd: Simd,
    xs: &[T],
    lane: &Lane,
    part: &Part,
    s: usize,
    span: &Span,
    phase: usize,
    words: &mut [u64],
    before: &mut [u32],
    values: &mut [f32],
    listed: &mut [u32],
    chunk: usize,
) -> Option<usize> {
    debug_assert!(simd >= Simd::Avx2);
    // SAFETY: AVX2 and the bit counts are there (`fits`).
    unsafe { short_avx2::edges(xs, phase, words) };
    ends(lane, part, s, span, |i, begin, end| {
        if begin < end {
            mark(words, end - 1 + phase);
        }
        listed[i - part.a] = (end + phase) as u32;
        Some(())
    })?;
    // SAFETY: as above.
    let chunks = unsafe { short_avx2::list(xs, phase, words, before, values, chunk) }?;
    let rollouts = part.rollouts(s);
    // From where a rollout ends to the chunks up to there.
    for end in &mut listed[rollouts.start - part.a..rollouts.end - part.a] {
        let (word, bit) = (*end as usize / WORD, *end % WORD as u32);
        *end = match words.get(word) {
            Some(bits) => before[word] + (bits & ((1 << bit) - 1)).count_ones(),
            None => chunks as u32,
        };
    }
    Some(chunks)
}

/// Marks the ends of the steps of rollout i, whose `len` tokens begin at bit `bit`, and lists their scores. `None`: they do not fit, or there is no room.
fn by_steps(steps: &Steps, i: usize, bit: usize, len: usize, words: &mut [u64], values: &mut [f32], chunk: usize) -> Option<usize> {
    let (from, to) = (steps.offsets.at(i), steps.offsets.at(i + 1));
    let scores = steps.scores.get(from..to)?;
    (chunk + scores.len() + SPARE <= values.len()).then_some(())?;
    match steps.ends {
        Ints::I32(ends) => marked_steps(ends.get(from..to)?, scores, bit, len, words, values, chunk),
        Ints::I64(ends) => marked_steps(ends.get(from..to)?, scores, bit, len, words, values, chunk),
    }
}

fn marked_steps<T: Copy + Into<i64>>(ends: &[T], scores: &[f32], bit: usize, len: usize, words: &mut [u64], values: &mut [f32], chunk: usize) -> Option<usize> {
    let n = ends.len();
    if len == 0 {
        return ends.iter().all(|end| (*end).into() == 0).then_some(chunk);
    }
    // Room for all, whether they have tokens or not; bits of all the tokens.
    let to = values.get_mut(chunk..chunk + n + 1)?;
    (bit + len <= words.len() * WORD && scores.len() == n).then_some(())?;
    let (mut before, mut count) = (0i64, 0);
    let mut mark = |end: i64, score: f32| {
        // A step without tokens marks nothing, and is written over by the next.
        let (token, some) = (bit + (end - 1).max(0) as usize, end > before);
        // SAFETY: bit <= token < bit + len, as 0 <= end <= len and len > 0; count is at most the steps so far.
        unsafe {
            *words.get_unchecked_mut(token / WORD) |= u64::from(some) << (token % WORD);
            *to.get_unchecked_mut(count) = score;
        }
        count += usize::from(some);
        before = end;
    };
    let Some((last, others)) = ends.split_last() else { return Some(chunk) };
    let mut least = 0;
    for (end, score) in others.iter().zip(scores) {
        let end: i64 = (*end).into();
        if least > end || end > len as i64 {
            return None;
        }
        least = end;
        mark(end, *score);
    }
    let end: i64 = (*last).into();
    // The last step takes the tokens that follow.
    (least <= end && end <= len as i64).then(|| mark(len as i64, scores[n - 1]))?;
    Some(chunk + count)
}
