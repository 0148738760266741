//! Chunk-by-Value (eq. 6, Algorithm 2) and its rivals: where the chunks of a rollout end.
use super::scope::Scope;
use super::steps::StepList;
use crate::model::config::{BoundaryRule, Config, MAX_PROCESS};
use crate::numerics::simd::Simd;
use crate::numerics::wide::i128_to_f64;

/// Chunks of one rollout: the last in-scope token of each, and the values of each process list there.
pub struct ChunkList<'s> {
    pub last: &'s mut [u32],
    pub values: [&'s mut [f32]; MAX_PROCESS],
    pub lists: usize,
    pub count: usize,
}

impl ChunkList<'_> {
    fn push(&mut self, last: usize, value: impl Fn(usize) -> f32) {
        self.last[self.count] = last as u32;
        for (p, list) in self.values.iter_mut().enumerate().take(self.lists) {
            list[self.count] = value(p);
        }
        self.count += 1;
    }
}

/// Is there an edge between two values? NaN is one, so that it lands in the lists.
#[inline(always)]
pub fn edge(a: f32, b: f32, eta: f64) -> bool {
    let distance = (b as f64 - a as f64).abs();
    distance > eta || distance.is_nan()
}

/// The detector on any input: `u(step, t)` is the raw value at a token, `value(p, step, t)` that of list p.
pub struct Detector<'c> {
    pub config: &'c Config,
    /// The caller gave the steps: their ends end chunks.
    pub steps_cut: bool,
}

struct Open {
    anchor: f32,
    last_value: f32,
    last: usize,
    step: usize,
}

impl Detector<'_> {
    /// Runs over the in-scope tokens of the steps in order. `uniform`: the value is the same all over a step.
    pub fn run(
        &self,
        scope: &Scope,
        steps: &[(usize, usize)],
        uniform: bool,
        u: &impl Fn(usize, usize) -> f32,
        value: &impl Fn(usize, usize, usize) -> f32,
        to: &mut ChunkList,
    ) {
        let mut open: Option<Open> = None;
        for (j, (begin, end)) in steps.iter().enumerate() {
            self.step(scope, j, *begin, *end, uniform, u, value, &mut open, to);
        }
        Self::close(open, value, to);
    }

    /// As `run`, over a list of steps.
    pub fn run_list(
        &self,
        scope: &Scope,
        steps: &StepList,
        uniform: bool,
        u: &impl Fn(usize, usize) -> f32,
        value: &impl Fn(usize, usize, usize) -> f32,
        to: &mut ChunkList,
    ) {
        let mut open: Option<Open> = None;
        for j in 0..steps.count {
            let (begin, end) = steps.range(j);
            self.step(scope, j, begin, end, uniform, u, value, &mut open, to);
        }
        Self::close(open, value, to);
    }

    fn close(open: Option<Open>, value: &impl Fn(usize, usize, usize) -> f32, to: &mut ChunkList) {
        if let Some(o) = open {
            to.push(o.last, |p| value(p, o.step, o.last));
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn step(
        &self,
        scope: &Scope,
        j: usize,
        begin: usize,
        end: usize,
        uniform: bool,
        u: &impl Fn(usize, usize) -> f32,
        value: &impl Fn(usize, usize, usize) -> f32,
        open: &mut Option<Open>,
        to: &mut ChunkList,
    ) {
        let c = self.config;
        let anchored = c.boundary_rule == BoundaryRule::Anchored;
        scope.runs(begin, end, |a, b| {
            let mut t = a;
            while t < b {
                // A span of one value: the rest of the run, or one token.
                let span_end = if uniform { b } else { t + 1 };
                let now = u(j, t);
                let cut = match open.as_ref() {
                    None => true,
                    Some(o) => {
                        let gap = t - o.last > 1 && !c.bridge_scope_gaps;
                        let step = self.steps_cut && o.step != j && !c.merge_equal_steps;
                        gap || step || edge(if anchored { o.anchor } else { o.last_value }, now, c.eta)
                    }
                };
                if cut {
                    if let Some(o) = open.take() {
                        to.push(o.last, |p| value(p, o.step, o.last));
                    }
                    *open = Some(Open { anchor: now, last_value: now, last: span_end - 1, step: j });
                } else if let Some(o) = open.as_mut() {
                    (o.last_value, o.last, o.step) = (now, span_end - 1, j);
                }
                t = span_end;
            }
        });
    }
}

/// The detector on a dense signal without holes or given steps, adjacent rule: writes the offset of each run's last token, returns how many runs.
pub fn detect(simd: Simd, xs: &[f32], eta: f64, last: &mut [u32]) -> usize {
    assert!(last.len() >= xs.len());
    let (mut count, mut t) = match simd {
        // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 => unsafe { super::tile::detect(xs, eta, last) },
        _ => (0, 1),
    };
    while t < xs.len() {
        if xs[t - 1] != xs[t] && edge(xs[t - 1], xs[t], eta) {
            last[count] = (t - 1) as u32;
            count += 1;
        }
        t += 1;
    }
    if !xs.is_empty() {
        last[count] = (xs.len() - 1) as u32;
        count += 1;
    }
    count
}

/// One chunk of all tokens in scope.
pub fn whole(scope: &Scope, value: impl Fn(usize, usize) -> f32, to: &mut ChunkList) {
    if scope.count > 0 {
        to.push(scope.end - 1, |p| value(p, scope.end - 1));
    }
}

/// A chunk a step.
pub fn by_step(scope: &Scope, steps: &StepList, value: impl Fn(usize, usize, usize) -> f32, to: &mut ChunkList) {
    for j in 0..steps.count {
        let (begin, end) = steps.range(j);
        if let Some(last) = scope.last_in(begin, end) {
            to.push(last, |p| value(p, j, last));
        }
    }
}

/// A chunk a maximal run of tokens in scope: a turn.
pub fn segments(scope: &Scope, value: impl Fn(usize, usize) -> f32, to: &mut ChunkList) {
    scope.runs(0, scope.end, |_, b| to.push(b - 1, |p| value(p, b - 1)));
}

/// A chunk a token.
pub fn every_token(scope: &Scope, value: impl Fn(usize, usize) -> f32, to: &mut ChunkList) {
    scope.runs(0, scope.end, |a, b| (a..b).for_each(|t| to.push(t, |p| value(p, t))));
}

/// The caller's chunks: a nonzero mark ends one, and so does the last token.
pub fn given(scope: &Scope, len: usize, mark: impl Fn(usize) -> bool, value: impl Fn(usize, usize) -> f32, to: &mut ChunkList) {
    let mut open = None;
    for t in 0..len {
        if scope.contains(t) {
            open = Some(t);
        }
        if mark(t) || t + 1 == len {
            if let Some(last) = open.take() {
                to.push(last, |p| value(p, last));
            }
        }
    }
}

/// The step that each token belongs to, walking forward: `step(t)` for rising t.
pub struct StepCursor<'s, 'l> {
    steps: &'s StepList<'l>,
    at: std::cell::Cell<usize>,
}

impl<'s, 'l> StepCursor<'s, 'l> {
    pub fn new(steps: &'s StepList<'l>) -> Self {
        StepCursor { steps, at: std::cell::Cell::new(0) }
    }
    pub fn step(&self, t: usize) -> usize {
        let mut j = self.at.get();
        if j < self.steps.count && self.steps.range(j).0 > t {
            j = 0;
        }
        while j + 1 < self.steps.count && self.steps.range(j).1 <= t {
            j += 1;
        }
        self.at.set(j);
        j
    }
}

/// Positions up to `end`, from the run before on, that as many rollouts reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub end: usize,
    pub live: i64,
}

/// Rollouts whose lengths may be kept as runs.
pub const RUNS: usize = crate::plan::workspace::TOGETHER;

/// Of the group in work: the runs of its rollouts; none: its counts are a table.
#[derive(Clone, Copy)]
pub struct Runs {
    pub list: [Run; RUNS],
    pub count: usize,
}

impl Runs {
    pub const NONE: Runs = Runs { list: [Run { end: 0, live: 0 }; RUNS], count: 0 };
}

/// How many rollouts are live at each position: a count each; or runs of one count, rising, and none beyond them.
#[derive(Clone, Copy)]
pub enum Live<'t> {
    Each(&'t [i64]),
    Runs(&'t [Run]),
}

impl Live<'_> {
    fn at(&self, t: usize) -> i64 {
        match self {
            Live::Each(counts) => counts[t],
            Live::Runs(runs) => runs.iter().find(|run| t < run.end).map_or(0, |run| run.live),
        }
    }
}

/// Edges of kl chunks, decided on integers: sums C and live counts n of the group's positions, and the scale that makes them comparable with eta.
pub struct KlEdges<'t> {
    pub columns: &'t [i64],
    pub live: Live<'t>,
    /// 2^(e - 30) and inv (numerics contract 5.4).
    pub down: f64,
    pub inv: f64,
    pub eta: f64,
    /// `average_over = group`: its size, elements and sum; 0 elements: nothing is subtracted. `None`: live.
    pub group: Option<(i64, i64, i64)>,
    /// A degenerate set has no edges.
    pub none: bool,
}

impl KlEdges<'_> {
    /// Is there an edge between positions a and b?
    pub fn between(&self, a: usize, b: usize) -> bool {
        let (na, nb) = (self.live.at(a), self.live.at(b));
        if self.none || na == 0 || nb == 0 {
            return false;
        }
        let (ca, cb) = (self.columns[a] as i128, self.columns[b] as i128);
        match self.group {
            None => {
                let left = (cb * na as i128 - ca * nb as i128).unsigned_abs();
                i128_to_f64(left as i128) * self.down * self.inv > self.eta * nb as f64 * na as f64
            }
            Some((size, n, sum)) => {
                let (left, n) = if n == 0 { (cb - ca, 1) } else { ((cb - ca) * n as i128 - (nb - na) as i128 * sum as i128, n) };
                i128_to_f64(left.abs()) * self.down * self.inv > self.eta * size as f64 * n as f64
            }
        }
    }

    /// Bit t: an edge stands between positions t and t + 1. `most`: rollouts at a position at most.
    pub fn adjacent(&self, simd: Simd, positions: usize, most: i64, bits: &mut [u64]) {
        bits[..positions.div_ceil(64)].fill(0);
        if self.none || positions < 2 {
            return;
        }
        // |C n'| < 2^30 n^2: up to 1,024 rollouts all of it is exact in f64, difference included.
        if self.group.is_none() && most <= 1024 {
            match (self.live, simd) {
                (Live::Each(live), _) => return live_edges(simd, &self.columns[..positions], &live[..positions], self.down, self.inv, self.eta, bits),
                // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
                #[cfg(target_arch = "x86_64")]
                (Live::Runs(runs), Simd::Avx2 | Simd::Avx512) => return unsafe { super::tile::run_edges(&self.columns[..positions], runs, self.down, self.inv, self.eta, bits) },
                _ => (),
            }
        }
        for t in 0..positions - 1 {
            bits[t / 64] |= u64::from(self.between(t, t + 1)) << (t % 64);
        }
    }
}

fn live_edges(simd: Simd, columns: &[i64], live: &[i64], down: f64, inv: f64, eta: f64, bits: &mut [u64]) {
    match simd {
        // SAFETY: `Simd::Avx2` is only made where the processor has AVX2.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 | Simd::Avx512 => unsafe { super::tile::live_edges(columns, live, down, inv, eta, bits) },
        _ => {
            for t in 0..columns.len() - 1 {
                let (ca, cb, na, nb) = (columns[t] as f64, columns[t + 1] as f64, live[t] as f64, live[t + 1] as f64);
                // With a count of 0 on either side both sides are 0 and there is no edge.
                let there = (cb * na - ca * nb).abs() * down * inv > eta * nb * na;
                bits[t / 64] |= u64::from(there && na * nb > 0.0) << (t % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detect_is_the_plain_loop() {
        let mut seed = 7u64;
        for case in 0..200usize {
            let mut value = 0.0f32;
            let xs: Vec<f32> = (0..case)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    if seed >> 59 == 0 {
                        value = [1.0, 1.0 + 1e-7, f32::NAN, 1e-9, 2e-9, -0.0, 0.0][(seed >> 40) as usize % 7];
                    }
                    value
                })
                .collect();
            let mut plain: Vec<u32> =
                (1..xs.len()).filter(|t| !((xs[*t] as f64 - xs[*t - 1] as f64).abs() <= 1e-8)).map(|t| t as u32 - 1).collect();
            if !xs.is_empty() {
                plain.push(xs.len() as u32 - 1);
            }
            let mut last = vec![0; xs.len() + 1];
            let count = detect(Simd::best(), &xs, 1e-8, &mut last);
            assert_eq!(&last[..count], &plain[..]);
        }
    }

    #[test]
    fn edges_in_f64_are_those_in_integers() {
        let mut seed = 3u64;
        let mut next = |bound: i64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 20) as i64 % bound
        };
        for most in [1i64, 2, 16, 1024] {
            let live: Vec<i64> = (0..500).map(|_| next(most + 1)).collect();
            let columns: Vec<i64> = live.iter().map(|n| if next(3) == 0 { n * (1 << 28) } else { n * (next(1 << 31) - (1 << 30)) }).collect();
            let edges = KlEdges { columns: &columns, live: Live::Each(&live), down: 2f64.powi(-30), inv: 1.7, eta: 1e-8, group: None, none: false };
            let mut bits = [0u64; 8];
            edges.adjacent(Simd::best(), 500, most, &mut bits);
            for t in 0..499 {
                assert_eq!(bits[t / 64] >> (t % 64) & 1 == 1, edges.between(t, t + 1), "most {most}, position {t}");
            }
        }
    }

    #[test]
    fn edges_by_runs_are_those_position_by_position() {
        let mut seed = 11u64;
        let mut next = |bound: i64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 20) as i64 % bound
        };
        for case in 0..400 {
            // Runs of 1 to 150 positions, the counts falling; what lies beyond the last has no rollout.
            let mut runs = Vec::new();
            let mut live = Vec::new();
            for n in (1..=1 + case % 32).rev() {
                live.resize(live.len() + 1 + next(if case % 2 == 0 { 150 } else { 9 }) as usize, n);
                runs.push(Run { end: live.len(), live: n });
            }
            live.resize(live.len() + next(70) as usize, 0);
            let positions = live.len();
            let mut last = 0;
            // Neighbours now and then equal, or as near as eta lets pass or not: n n eta / (2^-30 inv) is 6.3 n n.
            let columns: Vec<i64> = live
                .iter()
                .map(|n| {
                    last = match next(4) {
                        0 => last,
                        1 => last + next(20 * n + 1) - 10 * n,
                        2 => last + (6 * n).clamp(0, 1 << 30) + next(3),
                        _ => n * (next(1 << 31) - (1 << 30)),
                    };
                    last = last.clamp(-n << 30, n << 30);
                    last
                })
                .collect();
            // Bounds that none and that all of what is not equal reach among them.
            let (eta, inv) = [(1e-8, 1.7), (1e-8, 1.7), (0.0, 1.7), (1e-8, 0.3), (3e-9, 1e-3), (1e300, 1.7), (1e-300, 1e300), (0.0, 1e-320)][case as usize / 2 % 8];
            let of = |live| KlEdges { columns: &columns, live, down: 2f64.powi(-30), inv, eta, group: None, none: false };
            let (mut got, mut wanted) = (vec![!0u64; positions.div_ceil(64)], vec![0u64; positions.div_ceil(64)]);
            of(Live::Runs(&runs)).adjacent(Simd::best(), positions, 32, &mut got);
            (0..positions - 1).for_each(|t| wanted[t / 64] |= u64::from(of(Live::Each(&live)).between(t, t + 1)) << (t % 64));
            assert_eq!(got, wanted, "case {case}");
            got.fill(!0);
            of(Live::Runs(&runs)).adjacent(Simd::Baseline, positions, 32, &mut got);
            assert_eq!(got, wanted, "case {case}, baseline");
        }
    }
}
