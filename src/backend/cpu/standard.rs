//! Standardisation N(x; S) of one stream in one group (docs/formulas.md 2.2, 5.5): decided once a group, resolved once a rollout, applied to values.
use crate::model::config::*;
use crate::numerics::exact::{self, Extremes, Grid, STEP_BITS, Sums};
use std::mem::MaybeUninit;
use std::ops::Deref;

/// A stream's standardisation in a group.
#[derive(Clone, Copy, Debug)]
pub struct Standard {
    stream: Stream,
    pub grid: Grid,
    pub extremes: Extremes,
    pub sums: Sums,
    /// What the set is, before any element is looked at.
    pub set: Set,
    mean: f64,
    inv: f64,
    /// `runner_up`: the second largest value.
    second: f64,
}

/// Standardisations of a group's streams, by slot. (Only those that it has are written: all would be thousands of bytes.)
pub struct Standards {
    room: [MaybeUninit<Standard>; 16],
    count: usize,
}

impl Standards {
    #[inline(always)]
    pub fn new() -> Standards {
        Standards { room: [const { MaybeUninit::uninit() }; 16], count: 0 }
    }

    /// That of the next slot.
    pub fn push(&mut self, standard: Standard) {
        self.room[self.count].write(standard);
        self.count += 1;
    }
}

impl Deref for Standards {
    type Target = [Standard];
    fn deref(&self) -> &[Standard] {
        // SAFETY: `count` of them have been written.
        unsafe { std::slice::from_raw_parts(self.room.as_ptr().cast(), self.count) }
    }
}

/// Statistics beside the group's own set.
#[derive(Clone, Copy, Default)]
pub struct Beside<'a> {
    /// Key of the set's largest value below the maximum.
    pub second: Option<i32>,
    pub whole: Option<Whole<'a>>,
    /// Mean and standard deviation of the caller's.
    pub given: (f64, f64),
}

/// A stream's set of the whole batch, and its values other than 0.
#[derive(Clone, Copy)]
pub struct Whole<'a> {
    pub extremes: &'a Extremes,
    pub sums: &'a Sums,
    pub nonzero: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    Empty,
    /// Empty, where that of the singleton rule (the batch's, under a scale of the group's) has one element: 0, and `refuse` is met all the same.
    EmptyBesideOne,
    /// One element: the singleton rule.
    Single,
    /// All equal under a standard deviation or a mean, or max|S| = 0 under `abs_max`: 0, or the deviation undivided.
    Flat,
    Proper,
}

/// How the values of one rollout are standardised.
#[derive(Clone, Copy, Debug)]
pub enum Apply {
    Zero,
    Raw,
    /// (x - mean) * inv.
    Affine { mean: f64, inv: f64 },
    /// (x - mean) / max.
    Divide { mean: f64, max: f64 },
    /// (x - second) * inv for the one value above the second largest, 0 for others.
    Best { second: f64, inv: f64 },
    /// Element by element: each is left out.
    LeaveOut,
}

/// 1 / (std + epsilon) and its kin, from the variance in grid units.
pub fn inverse(units: f64, down: f64, epsilon: f64, mode: EpsilonMode) -> f64 {
    let std = units.sqrt() * down;
    let var = units * (down * down);
    match mode {
        EpsilonMode::AddStd => 1.0 / (std + epsilon),
        EpsilonMode::AddVar => 1.0 / (var + epsilon).sqrt(),
        EpsilonMode::FloorStd => 1.0 / std.max(epsilon),
        EpsilonMode::FloorVar => 1.0 / var.max(epsilon).sqrt(),
    }
}

impl Standard {
    /// Of a slot that the configuration does not have: 0.
    pub const NONE: Standard = Standard {
        stream: Stream {
            weight: 0.0,
            epsilon: 0.0,
            center: Center::None,
            scale: Scale::None,
            ddof: 0,
            epsilon_mode: EpsilonMode::AddStd,
            loo_unit: LooUnit::Element,
            singleton: Singleton::Zero,
            missing: Missing::Error,
            place: Place::Every,
            zero_variance: ZeroVariance::Zero,
            count_by: CountBy::Rollout,
            clip_value: f64::INFINITY,
            clip_standardized: f64::INFINITY,
        },
        grid: Grid { bits: STEP_BITS, up: 0.0, down: 0.0 },
        extremes: Extremes::EMPTY,
        sums: Sums { n: 0, q: 0, hi: 0, lo: 0, at_max: 0, at_min: 0 },
        set: Set::Empty,
        mean: 0.0,
        inv: 1.0,
        second: 0.0,
    };

    /// From the group's set, and what the stream asks for beside it.
    pub fn new(stream: &Stream, bits: i32, extremes: &Extremes, sums: &Sums, beside: Beside) -> Standard {
        let grid = Grid::new(bits, extremes.absmax);
        let nothing = (Extremes::EMPTY, Sums::default());
        let whole = beside.whole.unwrap_or(Whole { extremes: &nothing.0, sums: &nothing.1, nonzero: 0 });
        let whole_grid = Grid::new(STEP_BITS, whole.extremes.absmax);
        let empty = extremes.is_bad() || (stream.asks_group() && sums.n <= 0) || (stream.asks_batch() && whole.sums.n <= 0);
        // Of length weights the rollouts are counted, in `at_max` when all are equal.
        let one = if stream.center == Center::LengthWeighted { extremes.all_equal() && sums.at_max == 1 } else { sums.n == 1 };
        let single = match (stream.center, stream.scale) {
            (Center::Group | Center::LeaveOneOut | Center::LengthWeighted | Center::RunnerUp, _) => one,
            // The others of one element are none.
            (Center::Batch, Scale::LeaveOneOut) => one || whole.sums.n == 1,
            (Center::Batch, _) | (_, Scale::Batch) => whole.sums.n == 1,
            (_, Scale::Group | Scale::LeaveOneOut) => one,
            _ => false,
        };
        let flat = match stream.scale {
            Scale::Group | Scale::Mean => extremes.all_equal(),
            Scale::Batch => whole.extremes.all_equal(),
            Scale::AbsMax => extremes.absmax == 0,
            // Below the smallest f32 there is no deviation to speak of.
            Scale::Given => beside.given.1 < f32::from_bits(1) as f64,
            _ => false,
        };
        let set = match () {
            _ if empty && single => Set::EmptyBesideOne,
            _ if empty => Set::Empty,
            _ if single => Set::Single,
            _ if flat => Set::Flat,
            _ => Set::Proper,
        };
        let (mut mean, mut inv) = (0.0, 1.0);
        if !empty {
            mean = match stream.center {
                Center::Group | Center::LengthWeighted => sums.mean(&grid),
                Center::Batch => whole.sums.mean(&whole_grid),
                Center::Given => beside.given.0,
                _ => 0.0,
            };
        }
        if set == Set::Proper || (set == Set::Single && stream.asks_batch() && !flat) {
            let deviation = |sums: &Sums, grid: &Grid| inverse(sums.variance_units(grid, stream.ddof), grid.down, stream.epsilon, stream.epsilon_mode);
            inv = match stream.scale {
                Scale::Group => deviation(sums, &grid),
                Scale::Batch => deviation(whole.sums, &whole_grid),
                Scale::Given => inverse(beside.given.1 * beside.given.1, 1.0, stream.epsilon, stream.epsilon_mode),
                Scale::NonzeroShare => whole.sums.n as f64 / whole.nonzero.max(1) as f64,
                Scale::Mean => Some(sums.mean(&grid) + stream.epsilon).filter(|m| *m != 0.0).map_or(0.0, |m| 1.0 / m),
                _ => 1.0,
            };
        }
        let second = if sums.at_max > 1 { extremes.max_value() } else { exact::value(beside.second.unwrap_or(i32::MIN)) };
        Standard { stream: *stream, grid, extremes: *extremes, sums: *sums, set, mean, inv, second: second as f64 }
    }

    /// With a centre of the rollout's own (`center = given`).
    pub fn around(self, mean: f64) -> Standard {
        Standard { mean, ..self }
    }

    /// A set of zero variance: 0, or the deviation undivided.
    fn undivided(&self, mean: f64) -> Apply {
        if self.stream.has_std() && self.stream.zero_variance == ZeroVariance::Center {
            return if self.stream.center == Center::RunnerUp { Apply::Best { second: self.second, inv: 1.0 } } else { Apply::Affine { mean, inv: 1.0 } };
        }
        Apply::Zero
    }

    fn singleton(&self) -> Apply {
        match self.stream.singleton {
            // Nothing is subtracted; a scale of the batch's is a scale all the same.
            Singleton::Passthrough if self.stream.asks_batch() && self.stream.center != Center::Batch => Apply::Affine { mean: 0.0, inv: self.inv },
            Singleton::Passthrough => Apply::Raw,
            _ => Apply::Zero,
        }
    }

    /// For a rollout: `own`, its elements' sums (asked for only where they are left out); `counts`: it is in the set.
    pub fn resolve(&self, counts: bool, own: impl FnOnce() -> Sums, lost: &mut i64) -> Apply {
        let s = &self.stream;
        match self.set {
            Set::Empty | Set::EmptyBesideOne => return Apply::Zero,
            Set::Single => return self.singleton(),
            Set::Flat | Set::Proper => (),
        }
        let by_element = s.loo_unit == LooUnit::Element && counts;
        let mut others = self.sums;
        if s.leaves_out() && counts && !by_element {
            others = self.sums.without(&own());
            // Tested before zero variance: nothing is left when the rollout is left out.
            if others.n <= 0 {
                return self.singleton();
            }
        }
        let (mut mean, mut inv) = (self.mean, self.inv);
        if s.leaves_out() {
            if by_element && (self.set == Set::Proper || (s.has_std() && s.zero_variance == ZeroVariance::Center)) {
                return Apply::LeaveOut;
            }
            if s.center == Center::LeaveOneOut {
                mean = others.mean(&self.grid);
            }
        }
        if s.center == Center::RunnerUp && !counts {
            return Apply::Zero;
        }
        if self.set == Set::Flat {
            return self.undivided(mean);
        }
        if s.scale == Scale::LeaveOneOut {
            match self.deviation(&others, others.at_max == others.n || others.at_min == others.n, lost) {
                Some(i) => inv = i,
                None => return self.undivided(mean),
            }
        }
        if s.center == Center::RunnerUp {
            // A maximum of the set is above 0 here: a flat set has been answered.
            let inv = if s.scale == Scale::AbsMax { 1.0 / self.extremes.absmax_value() as f64 } else { inv };
            return Apply::Best { second: self.second, inv };
        }
        if s.scale == Scale::AbsMax { Apply::Divide { mean, max: self.extremes.absmax_value() as f64 } } else { Apply::Affine { mean, inv } }
    }

    /// 1 / std of the others; `None`: they are equal (as far as their sums can tell).
    fn deviation(&self, others: &Sums, equal: bool, lost: &mut i64) -> Option<f64> {
        if equal || others.n <= 1 {
            return None;
        }
        let units = others.variance_units(&self.grid, self.stream.ddof);
        if units == 0.0 {
            *lost += 1;
            return None;
        }
        Some(inverse(units, self.grid.down, self.stream.epsilon, self.stream.epsilon_mode))
    }

    /// N(x; S \ {x}).
    fn leave_out(&self, x: f32, lost: &mut i64) -> f64 {
        let s = &self.stream;
        // A value that is no element of the set (a token's own under dense input) may lie beyond the grid.
        let q = (x as f64 * self.grid.up).round_ties_even();
        let n = self.sums.n - 1;
        let mean = match s.center {
            // A set of zeros has no grid for a value that is none of its elements.
            Center::LeaveOneOut if self.grid.up == 0.0 => -(x as f64) / n as f64,
            Center::LeaveOneOut => ((self.sums.q as i128 - q as i128) as f64 / n as f64) * self.grid.down,
            _ => self.mean,
        };
        self.scaled(x as f64, mean, x, lost, n, q)
    }

    fn scaled(&self, x: f64, mean: f64, element: f32, lost: &mut i64, n: i64, q: f64) -> f64 {
        match self.stream.scale {
            Scale::AbsMax => (x - mean) / self.extremes.absmax_value() as f64,
            Scale::LeaveOneOut => {
                let mut own = Sums::default();
                own.push(&self.grid, q as i64, 1);
                let others = self.sums.without(&own);
                let (max, min) = (self.extremes.max_value(), self.extremes.min_value());
                let equal = max == min
                    || (self.sums.at_max == n && self.sums.at_min == 1 && element == min)
                    || (self.sums.at_min == n && self.sums.at_max == 1 && element == max);
                match self.deviation(&others, equal, lost) {
                    Some(inv) => (x - mean) * inv,
                    None if self.stream.zero_variance == ZeroVariance::Center => x - mean,
                    None => 0.0,
                }
            }
            // `zero_variance = center` of a set that is flat: inv is 1.
            _ => (x - mean) * self.inv,
        }
    }

    /// N of a mean over tokens (`chunk_value = mean`), whose own q need not be an integer.
    fn leave_out_mean(&self, x: f64, lost: &mut i64) -> f64 {
        let n = self.sums.n - 1;
        let mean = match self.stream.center {
            Center::LeaveOneOut if self.grid.up == 0.0 => -x / n as f64,
            Center::LeaveOneOut => ((self.sums.q as f64 - x * self.grid.up) / n as f64) * self.grid.down,
            _ => self.mean,
        };
        self.scaled(x, mean, 0.0, lost, n, 0.0)
    }

    /// N of one value.
    pub fn one(&self, apply: Apply, x: f32, lost: &mut i64) -> f64 {
        match apply {
            Apply::LeaveOut => self.leave_out(x, lost),
            _ => plain(apply, x as f64),
        }
    }

    /// N of a chunk's mean.
    pub fn mean_value(&self, apply: Apply, x: f64, lost: &mut i64) -> f64 {
        match apply {
            Apply::LeaveOut => self.leave_out_mean(x, lost),
            _ => plain(apply, x),
        }
    }

    /// (mean, std) as reported: of the whole set, whatever the operator.
    pub fn reported(&self) -> (f64, f64) {
        if self.sums.n <= 0 || self.extremes.is_bad() {
            return (0.0, 0.0);
        }
        let ddof = self.stream.ddof;
        let std = if self.sums.n > ddof as i64 && !self.extremes.all_equal() {
            self.sums.variance_units(&self.grid, ddof).sqrt() * self.grid.down
        } else {
            0.0
        };
        (self.sums.mean(&self.grid), std)
    }

    /// Scale that makes KL position averages comparable with eta (contract 5.4); `None`: the set is degenerate and has no edges.
    pub fn edge_scale(&self) -> Option<f64> {
        if self.set != Set::Proper || self.extremes.absmax == 0 {
            return None;
        }
        let s = &self.stream;
        let scale = if s.scale == Scale::AbsMax { 1.0 / self.extremes.absmax_value() as f64 } else { self.inv };
        Some(if s.center == Center::LeaveOneOut { scale * (self.sums.n as f64 / (self.sums.n - 1) as f64) } else { scale })
    }
}

/// `Standard::new` and then `resolve`, of a stream that takes its group's mean and deviation: the usual case, without the rest.
pub fn usual(stream: &Stream, bits: i32, extremes: &Extremes, sums: &Sums) -> Option<Apply> {
    let group = stream.center == Center::Group && stream.scale == Scale::Group && sums.n > 1 && !extremes.is_bad();
    if !group || (extremes.all_equal() && stream.zero_variance == ZeroVariance::Center) {
        return None;
    }
    if extremes.all_equal() {
        return Some(Apply::Zero);
    }
    let grid = Grid::new(bits, extremes.absmax);
    let inv = inverse(sums.variance_units(&grid, stream.ddof), grid.down, stream.epsilon, stream.epsilon_mode);
    Some(Apply::Affine { mean: sums.mean(&grid), inv })
}

/// N without leaving anything out.
#[inline(always)]
pub fn plain(apply: Apply, x: f64) -> f64 {
    match apply {
        Apply::Zero | Apply::LeaveOut => 0.0,
        Apply::Raw => x,
        Apply::Affine { mean, inv } => (x - mean) * inv,
        Apply::Divide { mean, max } => (x - mean) / max,
        Apply::Best { second, inv } => if x > second { (x - second) * inv } else { 0.0 },
    }
}
