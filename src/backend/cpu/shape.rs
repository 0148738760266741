//! One rollout from its chunks to its outputs: fuse, credit, divide, post, write.
use super::chunk::KlEdges;
use super::expand::Chunks;
use super::fuse;
use super::rollout_streams;
use super::terms::Terms;
use super::token_baseline::Tail;
use super::scope::Scope;
use super::signal;
use super::standard::{Apply, Standard};
use super::whiten::Whitening;
use super::worker::Worker;
use crate::model::flags;
use crate::numerics::simd::dispatch;
use crate::model::array::Array;
use crate::model::batch::Extent;
use crate::model::config::*;
use crate::plan::partials::GroupState;
use crate::plan::workspace::{Rollout, state};

dispatch! {
    /// Sum and sum of squares, for the report (whose sums are outside the contract's bits).
    fn totals(xs: &[f64]) -> (f64, f64) {
        const LANES: usize = 8;
        let (mut sum, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
        let mut chunks = xs.chunks_exact(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                sum[lane] += chunk[lane];
                squares[lane] += chunk[lane] * chunk[lane];
            }
        }
        for x in chunks.remainder() {
            sum[0] += x;
            squares[0] += x * x;
        }
        (sum.iter().sum(), squares.iter().sum())
    }
}

/// What is decided once a group.
pub struct Group<'a> {
    pub state: &'a GroupState,
    pub standards: &'a [Standard],
    pub bad: bool,
    /// W of the batch.
    pub weight: f64,
    /// kl by value: bit t of `Worker::edges` is set where an edge stands between positions t and t + 1.
    pub edges: Option<KlEdges<'a>>,
    /// `token_baseline`: the rollout whose last tokens have none.
    pub tail: Tail,
    /// How the values of a per-rollout stream are standardised, where it is the same for all rollouts.
    pub applies: [Option<Apply>; rollout_streams::COUNT],
}

/// What to do with a rollout's advantages.
#[derive(Clone, Copy)]
pub enum Sink<'a> {
    /// Write them (whitened, where statistics are given).
    Write(Option<&'a Whitening>),
    /// Keep them, rounded to f32, for the whitening's statistics.
    Keep,
    /// Of pieces: count the chunks alone; bring the scan's tiles together.
    Chunks,
    Scan,
}

impl Worker<'_> {
    pub fn shape(&mut self, i: usize, group: &Group, sink: Sink) {
        let job = self.job;
        let (problem, c) = (job.problem, job.config());
        let at = problem.extent(i);
        let mut kept = job.rollout(i);
        let scope = job.kept_scope(i, &kept, &at);
        if c.kind == Kind::Kl {
            self.kl_chunks(i, &at, &scope, group.edges.as_ref(), &mut kept);
        }
        if let Sink::Chunks = sink {
            return self.tell_chunks(i, &kept);
        }
        self.place = job.place(i, &kept, &at);
        self.tells = matches!(sink, Sink::Scan);
        let k = kept.chunks as usize;
        let zeroed = group.bad || kept.state & state::ZEROED != 0;
        if group.bad {
            kept.state |= state::ZEROED;
            kept.flags |= if kept.flags & flags::ROLLOUT_ABSENT == 0 { flags::ROLLOUT_IN_BAD_GROUP } else { 0 };
        }
        let mut path = 0.0;
        let by_token = c.credits_tokens();
        // Values a chunk: a in f, results in d. Of gae over tokens the results are values a token.
        if zeroed {
            self.kl_listed(&at, &scope);
            self.f[..k].fill(0.0);
            let n = if by_token { kept.count as usize } else { k };
            self.d[..n].fill(0.0);
            self.v[..n].fill(0.0);
        } else {
            let terms = self.terms(i, &at, &scope, &kept, group);
            // SAFETY: the rollout is this thread's.
            let last: &[u32] = unsafe { job.last(&at) };
            let chunks = if kept.state & state::EVERY_TOKEN != 0 { Chunks::EveryToken } else { Chunks::Last(&last[..k]) };
            if let Some(path) = self.by_token(i, &at, &scope, &kept, group, &terms, chunks, sink) {
                // SAFETY: as above.
                unsafe { job.keep(i, kept) };
                if let Some(outputs) = job.outputs {
                    self.side_outputs(i, &at, &scope, &kept, chunks, path, outputs);
                }
                return;
            }
            self.kl_listed(&at, &scope);
            if job.by_token.unlisted && k > 0 {
                // SAFETY: as above.
                unsafe { job.last(&at)[0] = scope.end as u32 - 1 };
            }
            self.credited(i, &at, &scope, &kept, group, &terms);
            if self.tells {
                return;
            }
            if self.place.joint {
                path = self.joint_path(by_token, &terms, &self.scan_powers(i, &kept));
            } else if (if by_token { kept.count as usize } else { k }) > 0 {
                path = self.d[0];
            }
            if problem.baseline_inputs.is_some() {
                self.take_baseline(i, &at, &scope, group.tail);
            }
            if problem.reference.is_some() && c.kl_place == KlPlace::Advantage {
                Self::take_kl(job, &at, &scope, None, self.d);
            }
        }
        // SAFETY: the rollout is this thread's.
        unsafe { job.keep(i, kept) };
        // SAFETY: as above.
        let last: &[u32] = unsafe { job.last(&at) };
        let every = kept.state & state::EVERY_TOKEN != 0;
        let chunks = if every { Chunks::EveryToken } else { Chunks::Last(&last[..k]) };
        let lines = if by_token { Chunks::EveryToken } else { chunks };
        let n = if matches!(lines, Chunks::EveryToken) { kept.count as usize } else { k };
        if c.temperature != 1.0 {
            self.d[..n].iter_mut().for_each(|d| *d /= c.temperature);
        }
        let whitening = match sink {
            Sink::Keep => {
                // SAFETY: the rollout's own slots.
                let to = unsafe { job.whitened(&at) };
                let mut over = 0;
                for (to, d) in to.iter_mut().zip(&self.d[..n]) {
                    *to = <f32 as crate::numerics::convert::OutElem>::from_f64(*d, &mut over);
                }
                // SAFETY: as above.
                unsafe { *job.path(i) = <f32 as crate::numerics::convert::OutElem>::from_f64(path / c.temperature, &mut over) };
                None
            }
            Sink::Write(whitening) => whitening,
            Sink::Chunks | Sink::Scan => return,
        };
        if let Some(outputs) = job.outputs {
            self.write_returns(&at, &scope, lines, n, outputs);
            self.side_outputs(i, &at, &scope, &kept, chunks, path, outputs);
            if let Sink::Write(_) = sink {
                self.finish(&at, &scope, lines, n, whitening.filter(|_| !zeroed), &outputs.advantages);
            }
        }
    }

    /// Chunk values in f, advantages in d, returns in v: a value a chunk (gae over tokens, vtrace: a token).
    pub fn credited(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, group: &Group, terms: &Terms) {
        let c = self.job.config();
        if c.spreads() {
            self.gap_rewards(i, at, scope, kept, group, terms);
        }
        self.fuse(i, at, scope, kept, group, terms);
        match (c.credit, c.gae_over) {
            (Credit::Gae, GaeOver::Tokens) => self.gae(i, at, scope, kept),
            (Credit::Gae, GaeOver::Chunks) => self.gae_over_chunks(i, at, scope, kept),
            (Credit::Vtrace, _) => self.vtrace(i, at, scope, kept),
            _ => self.credit(at, scope, kept, terms),
        }
    }

    /// Whitening, clip, and the advantages' memory.
    pub fn finish(&mut self, at: &Extent, scope: &Scope, lines: Chunks, n: usize, whitening: Option<&Whitening>, to: &Array) {
        let job = self.job;
        let c = job.config();
        let d = &mut self.d[..n];
        if let Some(whitening) = whitening {
            whitening.apply(d);
        }
        let clips = c.clip < f64::INFINITY;
        if clips {
            let mut clipped = 0;
            lines.counts(scope, |j, n| {
                if d[j].abs() > c.clip {
                    clipped += n as i64;
                }
            });
            d.iter_mut().for_each(|d| *d = d.clamp(-c.clip, c.clip));
            self.report.clipped_tokens += clipped;
        }
        if let Chunks::EveryToken = lines {
            let (sum, squares) = totals(job.simd(), d);
            self.report.sum_advantages += sum;
            self.report.sum_squares += squares;
        } else {
            let report = &mut self.report;
            lines.counts(scope, |j, n| {
                let n = n as f64;
                report.sum_advantages += n * d[j];
                report.sum_squares += n * d[j] * d[j];
            });
        }
        let d = std::mem::take(&mut self.d);
        // SAFETY: the rollout's slots are this thread's; what lies under them has been used.
        self.report.overflowed_tokens += unsafe { self.row(to, at, scope, lines, &d[..n]) } as i64;
        self.d = d;
    }

    /// a_j = F at the chunk's last token, in f.
    fn fuse(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, group: &Group, terms: &Terms) {
        let job = self.job;
        let (problem, c, plan) = (job.problem, job.config(), job.plan);
        // A chunk that goes on in a later piece has its value there.
        let k = kept.own_chunks();
        let ends = k > 0 && self.place.after == 0;
        let counts = kept.state & state::OUT_OF_STATS == 0;
        if let Some(gated) = terms.gated {
            self.f[..k].fill(gated.every);
            if ends {
                self.f[k - 1] = gated.last;
            }
            return;
        }
        // The rollout's last in-scope token gains the pooled outcome and format.
        let mut gains = [None; 2];
        if c.fusion == Fusion::Pooled && ends {
            let standard = &group.standards[1];
            let mut lost = 0;
            let apply = standard.resolve(counts, || self.own_sums(i, kept, 1, group.state), &mut lost);
            for (s, gain) in gains.iter_mut().enumerate() {
                *gain = job.rollout_value(s, i).map(|x| c.streams[OUTCOME + s].weight * standard.one(apply, x, &mut lost));
            }
            self.report.lost_deviations += lost;
        }
        let mut first = true;
        if kept.state & state::HAS_PROCESS != 0 && k > 0 {
            let streams = if plan.slots.joint { 1 } else { problem.num_process };
            for p in 0..streams {
                let slot = if plan.slots.joint { 1 } else { p };
                let list = if plan.slots.shaped { 1 } else { p };
                let standard = &group.standards[slot];
                if problem.step_group.is_some() {
                    // SAFETY: the rollout's own lists.
                    let (values, steps) = unsafe { (job.stepped(p, at.slot, kept.elements as usize), job.chunk_steps(at)) };
                    fuse::add_stepped(values, &steps[..k], c.streams[p].weight, first, &mut self.f[..k]);
                    first = false;
                    continue;
                }
                let mut lost = 0;
                let apply = standard.resolve(counts, || self.own_sums(i, kept, slot, group.state), &mut lost);
                // The joint set's result is not weighted again: R carries the weights (reward_shaping).
                let weight = if plan.slots.shaped { 1.0 } else { c.streams[p].weight };
                let skip = p > 0 && c.streams[p].missing == Missing::Exclude;
                if c.chunk_value == ChunkValue::Mean {
                    self.fuse_means(i, at, scope, kept, list, standard, apply, weight, first, &mut lost);
                } else {
                    self.chunk_values(i, at, scope, kept, list, |simd, xs, f| {
                        fuse::add_stream(simd, standard, apply, weight, xs, skip, first, f, &mut lost);
                    });
                }
                self.report.lost_deviations += lost;
                first = false;
            }
        }
        if first {
            self.f[..k].fill(0.0);
        }
        if c.divide_scope == DivideScope::Process {
            // The process part alone is credited and divided.
            self.d[..k].copy_from_slice(&self.f[..k]);
        }
        // The last chunk's sum runs over all terms in the table's order, those placed there alone among them.
        let at_last = (terms.placed && ends).then(|| terms.at_last().iter().fold(self.f[k - 1], |f, t| f + t));
        fuse::add_terms(job.simd(), terms.every(), &mut self.f[..k]);
        if let Some(last) = at_last {
            self.f[k - 1] = last;
        }
        if ends {
            self.f[k - 1] = gains.iter().flatten().fold(self.f[k - 1], |f, gain| f + gain);
        }
    }

    /// Hands the values of a process list at the chunks' last tokens to `each`, with f to write to.
    fn chunk_values(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, list: usize, mut each: impl FnMut(crate::numerics::simd::Simd, &[f32], &mut [f64])) {
        let job = self.job;
        let simd = job.simd();
        let k = kept.own_chunks();
        if job.config().kind != Kind::Kl {
            // SAFETY: the rollout's own lists.
            let xs = unsafe { if kept.state & state::ONE_LIST != 0 { job.elements(list, at) } else { job.values(list, at) } };
            return each(simd, &xs[..k], &mut self.f[..k]);
        }
        let shaped = job.plan.slots.shaped;
        let p = if shaped { 0 } else { list };
        let stride = job.plan.limits.rollout_tokens + 16;
        let c = job.config();
        let line = {
            let mut wide = [&mut *self.f, &mut *self.d, &mut *self.v];
            signal::load(simd, job.problem, at, p, c.streams[p].missing, c.opd_lambda, &mut self.signal[p * stride..(p + 1) * stride], &mut wide)
        };
        if kept.state & state::EVERY_TOKEN != 0 && !scope.has_holes() && !shaped {
            return each(simd, &line[scope.first..scope.end], &mut self.f[..k]);
        }
        let xs = &mut self.compressed[..k];
        if kept.state & state::EVERY_TOKEN != 0 {
            let mut n = 0;
            scope.runs(0, at.len, |a, b| {
                xs[n..n + b - a].copy_from_slice(&line[a..b]);
                n += b - a;
            });
        } else {
            // SAFETY: the rollout's own list.
            let last: &[u32] = unsafe { job.last(at) };
            xs.iter_mut().zip(last).for_each(|(x, l)| *x = line[*l as usize]);
        }
        if shaped {
            let shape = job.shaped_reward(i);
            xs.iter_mut().for_each(|x| *x = shape(*x));
        }
        each(simd, xs, &mut self.f[..k]);
    }

    /// `chunk_value = mean`: x is the mean over the chunk's tokens, from exact sums.
    #[allow(clippy::too_many_arguments)]
    fn fuse_means(&mut self, i: usize, at: &Extent, scope: &Scope, kept: &Rollout, list: usize, standard: &Standard, apply: Apply, weight: f64, first: bool, lost: &mut i64) {
        let job = self.job;
        let n = kept.count as usize;
        if job.config().kind == Kind::Kl {
            let every = Rollout { chunks: kept.count, state: kept.state | state::EVERY_TOKEN, ..*kept };
            // Token values in scope, by way of the list that chunk_values makes of them.
            let mut tokens: *const [f32] = &[];
            self.chunk_values(i, at, scope, &every, list, |_, xs, _| tokens = xs);
            // SAFETY: the list lies in this thread's scratch or in the caller's memory, and neither is written before it has been used.
            let tokens = unsafe { &*tokens };
            return self.means(at, scope, kept, tokens, standard, apply, weight, first, lost);
        }
        // SAFETY: the rollout's own list.
        let tokens = unsafe { &job.token_values(list, at)[..n] };
        self.means(at, scope, kept, tokens, standard, apply, weight, first, lost);
    }

    #[allow(clippy::too_many_arguments)]
    fn means(&mut self, at: &Extent, scope: &Scope, kept: &Rollout, tokens: &[f32], standard: &Standard, apply: Apply, weight: f64, first: bool, lost: &mut i64) {
        use crate::numerics::exact::{Extremes, Grid};
        // A rollout outside the set may hold larger values than the set: the grid takes in both.
        let mut own = Extremes::EMPTY;
        tokens.iter().filter(|x| !x.is_nan()).for_each(|x| own.push(*x));
        let grid = Grid::new(standard.grid.bits, own.absmax.max(standard.extremes.absmax));
        // SAFETY: the rollout's own list.
        let last: &[u32] = unsafe { self.job.last(at) };
        let every = kept.state & state::EVERY_TOKEN != 0;
        let mut token = 0;
        for j in 0..kept.chunks as usize {
            let count = if every {
                1
            } else {
                scope.count_in(if j == 0 { 0 } else { last[j - 1] as usize + 1 }, last[j] as usize + 1)
            };
            let (mut q, mut n) = (0i64, 0i64);
            for x in tokens[token..token + count].iter().filter(|x| !x.is_nan()) {
                q += grid.quantize(*x);
                n += 1;
            }
            token += count;
            let s = if n == 0 { 0.0 } else { standard.mean_value(apply, (q as f64 / n as f64) * grid.down, lost) };
            self.f[j] = if first { weight * s } else { self.f[j] + weight * s };
        }
    }
}
