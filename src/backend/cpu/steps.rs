//! Steps of a rollout: the units that the process signal scores, normalised to lists of those that have a token in scope.
use super::scope::Scope;
use crate::model::batch::{Extent, Problem, Process, Steps};
use crate::numerics::exact::{self, Grid, ROLLOUT_BITS, STEP_BITS};
use crate::numerics::simd::{Simd, dispatch};

/// Steps of one rollout, in the thread's scratch: `begin[j] .. end[j]` and a value a list (`value[p * stride + j]`).
pub struct StepList<'s> {
    pub begin: &'s mut [u32],
    pub end: &'s mut [u32],
    pub value: &'s mut [f32],
    pub stride: usize,
    pub count: usize,
}

impl StepList<'_> {
    pub fn push(&mut self, begin: usize, end: usize) -> usize {
        let j = self.count;
        self.begin[j] = begin as u32;
        self.end[j] = end as u32;
        self.count += 1;
        j
    }
    pub fn values(&self, p: usize) -> &[f32] {
        &self.value[p * self.stride..p * self.stride + self.count]
    }
    pub fn set(&mut self, p: usize, j: usize, value: f32) {
        self.value[p * self.stride + j] = value;
    }
    pub fn range(&self, j: usize) -> (usize, usize) {
        (self.begin[j] as usize, self.end[j] as usize)
    }
}

/// The caller's steps of rollout i: numbers `from .. to` of the CSR arrays.
pub fn numbers(steps: &Steps, i: usize) -> (usize, usize) {
    (steps.offsets.int(i) as usize, steps.offsets.int(i + 1) as usize)
}

/// Do the steps of rollout i lie in order inside its `len` tokens?
pub fn fit(steps: &Steps, i: usize, len: usize) -> bool {
    let (from, to) = numbers(steps, i);
    let mut before = 0i64;
    (from..to).all(|j| {
        let end = steps.ends.int(j);
        let begin = steps.begins.map_or(before, |b| b.int(j));
        let good = before <= begin && begin <= end && end <= len as i64;
        before = end;
        good
    })
}

/// Token range of step j of a rollout whose steps fit; without begins the last step takes the tokens that follow.
pub fn range(steps: &Steps, j: usize, from: usize, to: usize, len: usize) -> (usize, usize) {
    match steps.begins {
        Some(begins) => (begins.int(j) as usize, steps.ends.int(j) as usize),
        None => {
            let begin = if j == from { 0 } else { steps.ends.int(j - 1) as usize };
            let end = if j + 1 == to { len } else { steps.ends.int(j) as usize };
            (begin, end)
        }
    }
}

/// The range as it lies in a piece, in the piece's own tokens; empty where it lies elsewhere.
pub fn clipped((a, b): (usize, usize), at: &Extent) -> (usize, usize) {
    let local = |t: usize| t.saturating_sub(at.begin).min(at.len);
    (local(a), local(b))
}

/// Number, among its rollout's, of the step of token t of a rollout, which has one.
pub fn of_token(steps: &Steps, from: usize, to: usize, t: usize) -> usize {
    let (mut low, mut high) = (from, to - 1);
    while low < high {
        let middle = (low + high) / 2;
        (low, high) = if steps.ends.int(middle) as usize > t { (low, middle) } else { (middle + 1, high) };
    }
    low - from
}

/// Each value becomes the return from it on: s_j + gamma (s_j+1 + gamma (...)), in f64 from the last, rounded to f32. A value that is not finite (missing, or a
/// finding) stays as it is and is 0 to those before it.
pub fn returns_to_go(values: &mut [f32], gamma: f64) {
    let mut to_go = 0.0f64;
    for x in values.iter_mut().rev() {
        let own = if x.is_finite() { *x as f64 } else { 0.0 };
        to_go = own + gamma * to_go;
        if x.is_finite() {
            *x = to_go as f32;
        }
    }
}

/// Score of step j of the caller for process stream p.
pub fn score(problem: &Problem, p: usize, j: usize) -> f32 {
    match &problem.process {
        Process::Scores(scores) => scores.line(p, j, 1, problem.scores_flat).f32(0),
        _ => 0.0,
    }
}

/// Bits of the grid on which `most` values at most are summed within 64 bits.
pub fn sum_bits(most: usize) -> i32 {
    if most < 1 << 17 { ROLLOUT_BITS } else { STEP_BITS }
}

dispatch! {
    /// Sum of the values on a grid.
    pub fn sum_on(grid: &Grid, xs: &[f32]) -> i64 {
        xs.iter().fold(0, |sum: i64, x| sum.wrapping_add(grid.quantize(*x)))
    }
}

/// Exact sum of the in-scope values of a step (OPD as a PRM score): the step's own maximum sets the grid.
pub fn exact_sum(simd: Simd, values: &[f32], scope: &Scope, a: usize, b: usize) -> f32 {
    let mut most = 0;
    scope.runs(a, b, |x, y| most = most.max(exact::extremes(simd, &values[x..y]).absmax));
    if most >= exact::INFINITE {
        return if most >= exact::NAN { f32::NAN } else { f32::INFINITY };
    }
    let grid = Grid::new(sum_bits(b - a), most);
    let mut q = 0;
    scope.runs(a, b, |x, y| q += sum_on(simd, &grid, &values[x..y]));
    (q as f64 * grid.down) as f32
}
