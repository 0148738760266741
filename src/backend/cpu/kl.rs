//! Chunks of kl signals: edges of the group's average (Algorithm 2 with u-bar), or the other chunk modes over tokens.
use super::chunk::{self, ChunkList, KlEdges};
use super::scope::Scope;
use super::pieces::Edge;
use super::steps;
use super::worker::Worker;
use crate::model::flags;
use crate::model::pieces as words;
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::plan::workspace::{Rollout, state};

impl Worker<'_> {
    /// Lists the chunks of rollout i (its last tokens), or says that every token is one.
    pub fn kl_chunks(&mut self, i: usize, at: &Extent, scope: &Scope, edges: Option<&KlEdges>, kept: &mut Rollout) {
        kept.state &= !(state::EVERY_TOKEN | state::OPEN);
        self.counted = false;
        self.kl_lists(i, at, scope, edges, kept);
        if kept.chunks > 0 && self.kl_goes_on(i, at, scope, edges) {
            kept.state |= state::OPEN;
        }
    }

    /// Does the last chunk of a piece go on in a later one?
    fn kl_goes_on(&self, i: usize, at: &Extent, scope: &Scope, edges: Option<&KlEdges>) -> bool {
        let (job, c) = (self.job, self.job.config());
        let (rollout, piece) = job.piece(i);
        let Some(rows) = job.rows(rollout) else { return false };
        let Some(next) = rows.next(piece) else { return false };
        match (c.chunk, edges) {
            (Chunk::ByValue, Some(edges)) => {
                let (last, following) = (at.begin + scope.end - 1, next[words::FIRST] as usize);
                let first = at.begin + scope.first - job.position(i, &job.rollout(i));
                let gap = following != last + 1 && !c.bridge_scope_gaps;
                !gap && !edges.between(last - first, following - first)
            }
            (Chunk::Step, _) => match self.steps_at_edge(i, at, scope, &Edge::default(), &rows) {
                Some((own, following)) => own == following,
                None => job.problem.steps.is_some(),
            },
            _ => self.chunk_goes_on(at, scope, &rows, piece),
        }
    }

    /// Lists the chunks of the rollout in work, if they have been counted alone.
    pub fn kl_listed(&mut self, at: &Extent, scope: &Scope) {
        if std::mem::take(&mut self.counted) {
            // SAFETY: the rollout's own list.
            let last = unsafe { self.job.last(at) };
            adjacent_list(&self.edges[..], at.len, scope, 0, |_, _| true, last);
        }
    }

    fn kl_lists(&mut self, i: usize, at: &Extent, scope: &Scope, edges: Option<&KlEdges>, kept: &mut Rollout) {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        if kept.flags & flags::ROLLOUT_BAD_STEPS != 0 || scope.is_empty() {
            kept.chunks = 0;
            return;
        }
        // SAFETY: the rollout's own list.
        let last = unsafe { job.last(at) };
        let mut chunks = ChunkList { last, values: Default::default(), lists: 0, count: 0 };
        let none = |_: usize, _: usize| 0.0;
        let steps_given = problem.steps.as_ref().map(|s| (s, steps::numbers(s, problem.row(i))));
        match c.chunk {
            Chunk::ByValue => {
                let Some(edges) = edges else { return chunk_all(scope, kept, &mut chunks) };
                if c.boundary_rule == BoundaryRule::Adjacent && !scope.has_holes() && job.joint.is_none() {
                    let (inner, count) = adjacent_count(&self.edges[..], scope);
                    kept.chunks = count as u32 + 1;
                    self.counted = job.by_token.counted && count < inner;
                    if count < inner && !self.counted {
                        adjacent_list(&self.edges[..], at.len, scope, 0, |_, _| true, chunks.last);
                    }
                    if kept.chunks == kept.count {
                        kept.state |= state::EVERY_TOKEN;
                    }
                    return;
                }
                if c.boundary_rule == BoundaryRule::Adjacent {
                    let apart = |a: usize, b: usize| !c.bridge_scope_gaps || edges.between(a, b);
                    chunks.count = adjacent_list(&self.edges[..], at.len, scope, job.position(i, kept), apart, chunks.last);
                    if job.joint.is_none() && chunks.count == scope.count {
                        return every(kept);
                    }
                    kept.chunks = chunks.count as u32;
                    return;
                }
                let first = scope.first;
                let position = job.position(i, kept);
                let (mut anchor, mut before) = (None::<usize>, 0usize);
                scope.runs(0, at.len, |a, b| {
                    for t in a..b {
                        let cut = anchor.is_some_and(|anchor| {
                            let gap = t - before > 1 && !c.bridge_scope_gaps;
                            gap || edges.between(position + anchor - first, position + t - first)
                        });
                        if cut {
                            chunks.last[chunks.count] = before as u32;
                            chunks.count += 1;
                        }
                        if cut || anchor.is_none() {
                            anchor = Some(t);
                        }
                        before = t;
                    }
                });
                chunks.last[chunks.count] = before as u32;
                chunks.count += 1;
            }
            Chunk::Segment => chunk::segments(scope, none, &mut chunks),
            Chunk::Token => return every(kept),
            Chunk::Step => match steps_given {
                None => return every(kept),
                Some((csr, (from, to))) if to > from => {
                    for j in from..to {
                        let (a, b) = steps::clipped(steps::range(csr, j, from, to, at.whole), at);
                        if let Some(l) = scope.last_in(a, b) {
                            chunks.last[chunks.count] = l as u32;
                            chunks.count += 1;
                        }
                    }
                }
                _ => chunk::whole(scope, none, &mut chunks),
            },
            Chunk::None => chunk::whole(scope, none, &mut chunks),
            Chunk::Given => {
                if let Some(marks) = &problem.chunk_marks {
                    let row = at.of(marks);
                    chunk::given(scope, at.len, |t| row.flag(t), none, &mut chunks);
                }
            }
        }
        kept.chunks = chunks.count as u32;
    }
}

/// The chunks of neighbours compared: lists their last tokens, by the group's edge bits within a run in scope, by `apart` of two positions where a gap is between
/// them; how many they are. `position`: of the first token in scope.
fn adjacent_list(edges: &[u64], len: usize, scope: &Scope, position: usize, apart: impl Fn(usize, usize) -> bool, last: &mut [u32]) -> usize {
    let (first, mut count, mut before) = (scope.first, 0, None);
    scope.runs(0, len, |a, b| {
        if let Some(before) = before {
            if apart(position + before - first, position + a - first) {
                last[count] = before as u32;
                count += 1;
            }
        }
        count += list_edges(edges, position + a - first, a, b - a - 1, &mut last[count..]);
        before = Some(b - 1);
    });
    if let Some(before) = before {
        last[count] = before as u32;
        count += 1;
    }
    count
}

fn every(kept: &mut Rollout) {
    kept.state |= state::EVERY_TOKEN;
    kept.chunks = kept.count;
}

fn chunk_all(scope: &Scope, kept: &mut Rollout, chunks: &mut ChunkList) {
    chunk::whole(scope, |_, _| 0.0, chunks);
    kept.chunks = chunks.count as u32;
}

/// Positions of a scope without holes that another follows, and how many of them end a chunk by the group's edge bits.
fn adjacent_count(edges: &[u64], scope: &Scope) -> (usize, usize) {
    let inner = scope.count - 1;
    let (whole, rest) = (inner / 64, inner % 64);
    let last = if rest > 0 { edges[whole] & ((1u64 << rest) - 1) } else { 0 };
    (inner, edges[..whole].iter().map(|word| word.count_ones() as usize).sum::<usize>() + last.count_ones() as usize)
}

/// Lists those of the `count` tokens from `first` on whose bit is set, from bit `position` on; how many they are.
fn list_edges(edges: &[u64], position: usize, first: usize, count: usize, last: &mut [u32]) -> usize {
    let (word, shift) = (position / 64, position % 64);
    let mut k = 0;
    for w in 0..count.div_ceil(64) {
        let rest = count - w * 64;
        let mut bits = edges[word + w] >> shift;
        if shift > 0 && 64 - shift < rest {
            bits |= edges[word + w + 1] << (64 - shift);
        }
        bits &= if rest >= 64 { !0 } else { (1u64 << rest) - 1 };
        if bits == !0 {
            // Most words: no two neighbours of 65 are equal.
            let first = (first + w * 64) as u32;
            last[k..k + 64].iter_mut().zip(first..).for_each(|(last, t)| *last = t);
            k += 64;
            continue;
        }
        while bits != 0 {
            last[k] = (first + w * 64 + bits.trailing_zeros() as usize) as u32;
            k += 1;
            bits &= bits - 1;
        }
    }
    k
}

#[cfg(test)]
mod tests {
    use super::list_edges;

    #[test]
    fn edges_are_listed_bit_by_bit() {
        let mut seed = 5u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 20
        };
        for case in 0..2000 {
            let edges: [u64; 8] = std::array::from_fn(|_| if next() % 3 == 0 { !0 } else { next() << 30 ^ next() });
            let (position, first) = (next() as usize % 200, case % 7);
            let count = next() as usize % (8 * 64 - 200);
            let wanted: Vec<u32> = (0..count).filter(|t| edges[(position + t) / 64] >> ((position + t) % 64) & 1 == 1).map(|t| (first + t) as u32).collect();
            let mut last = [0; 512];
            let k = list_edges(&edges, position, first, count, &mut last);
            assert_eq!(&last[..k], &wanted[..], "case {case}");
        }
    }
}
