//! Values of the per-rollout streams as the statistics and the fusion take them: missing values, limits, the sum of rewards.
use super::worker::Job;
use crate::model::array::DType;
use crate::model::batch::Problem;
use crate::model::config::*;
use crate::model::flags;

/// Per-rollout streams: outcome, format, further ones.
pub const COUNT: usize = MAX_EXTRA + 2;

/// x limited to [-c, c]; NaN and what is infinite in f32 stay what they are, so that they are found.
fn limited(x: f64, clip: f64) -> f64 {
    if clip == f64::INFINITY || !(x as f32).is_finite() {
        return x;
    }
    let c = clip.min(f32::MAX as f64) as f32 as f64;
    x.clamp(-c, c)
}

/// Streams given and streams with a set, a bit each.
pub fn there(config: &Config, problem: &Problem) -> (u32, u32) {
    let given = problem.rollout_streams.iter().enumerate().fold(0, |bits, (s, x)| bits | u32::from(x.is_some()) << s);
    (given, if config.fusion == Fusion::RewardSum { u32::from(given != 0) } else { given })
}

/// Places of the bits set, rising.
pub fn places(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let s = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (s < 32).then_some(s)
    })
}

impl Job<'_> {
    #[inline]
    fn sums_rewards(&self) -> bool {
        self.config().fusion == Fusion::RewardSum
    }

    /// Has per-rollout stream s (0 outcome, 1 format, ...) a set of its own?
    pub fn has_stream(&self, s: usize) -> bool {
        self.sets >> s & 1 == 1
    }

    /// Value of stream s alone, after `missing` and its limit: `None` not given or excluded. NaN and infinity come as they are.
    #[inline]
    fn limited_value(&self, s: usize, i: usize) -> Option<f64> {
        let stream = self.problem.rollout_streams[s].as_ref()?;
        let (row, i) = (&self.config().streams[OUTCOME + s], self.problem.row(i));
        let x = match (stream.f64(i), row.missing) {
            (x, Missing::Exclude) if x.is_nan() => return None,
            (x, Missing::Zero) if x.is_nan() => 0.0,
            (x, _) => x,
        };
        // Of a sum the sum is limited.
        Some(if self.sums_rewards() && s == 0 { x } else { limited(x, row.clip_value) })
    }

    /// The same, rounded to f32; the outcome is less its KL (a sum loses it as a whole).
    #[inline(always)]
    pub fn own_value(&self, s: usize, i: usize) -> Option<f32> {
        let stream = self.problem.rollout_streams[s].as_ref()?;
        if stream.dtype == DType::F32 && self.problem.reference.is_none() && self.config().streams[OUTCOME + s].clip_value == f64::INFINITY {
            // Nothing is done to most values.
            let x = stream.f32(self.problem.row(i));
            if !x.is_nan() {
                return Some(x);
            }
        }
        self.changed_value(s, i)
    }

    /// `own_value` of a value that something is done to.
    #[inline(never)]
    fn changed_value(&self, s: usize, i: usize) -> Option<f32> {
        let x = self.limited_value(s, i)?;
        Some(if s == 0 && !self.sums_rewards() { (x - self.kl_of(i)) as f32 } else { x as f32 })
    }

    /// What steps without scores have come to: the outcome, where there is one to take.
    pub fn returned_outcome(&self, i: usize) -> f32 {
        // A bad outcome is a finding of its own stream.
        self.limited_value(0, i).map(|x| x as f32).filter(|x| x.is_finite()).unwrap_or(0.0)
    }

    /// Value of stream s as its set knows it; the outcome's under `reward_sum` is R = ((w_out x_out) + w_fmt x_fmt) + ..., rounded once.
    #[inline(always)]
    pub fn rollout_value(&self, s: usize, i: usize) -> Option<f32> {
        match (self.sums_rewards(), s) {
            (false, _) => self.own_value(s, i),
            (true, 0) => self.reward_sum(i),
            (true, _) => None,
        }
    }

    #[inline(never)]
    fn reward_sum(&self, i: usize) -> Option<f32> {
        let c = self.config();
        let terms = places(self.given).filter_map(|s| Some(c.streams[OUTCOME + s].weight * self.own_value(s, i)? as f64));
        let sum = terms.reduce(|a, b| a + b)?;
        Some((limited(sum, c.streams[OUTCOME].clip_value) - self.kl_of(i)) as f32)
    }

    /// Flags of a rollout's own values, which each of its pieces has.
    pub fn flags_of_values(&self, i: usize) -> u32 {
        let (problem, c) = (self.problem, self.config());
        let missing = |s: &usize| problem.rollout_streams[*s].is_some_and(|x| x.f32(problem.row(i)).is_nan()) && c.streams[OUTCOME + s].missing != Missing::Error;
        let bad = |x: Option<f32>| x.is_some_and(|x| !x.is_finite());
        let nonfinite = places(self.given).any(|s| bad(self.own_value(s, i))) || bad(self.baseline(i)) || places(self.sets).any(|s| bad(self.rollout_value(s, i)));
        let missing = places(self.given).any(|s| missing(&s));
        u32::from(nonfinite) * flags::ROLLOUT_NONFINITE | u32::from(missing) * flags::ROLLOUT_MISSING
    }

    /// Weight of stream s in the fusion.
    pub fn stream_weight(&self, s: usize) -> f64 {
        if self.sums_rewards() { 1.0 } else { self.config().streams[OUTCOME + s].weight }
    }

    /// What `center = given` takes from the outcome.
    pub fn baseline(&self, i: usize) -> Option<f32> {
        self.problem.baselines.as_ref().map(|b| b.f32(self.problem.row(i)))
    }
}
