//! Batches of the three sizes: lognormal lengths with a mean of about 40% of the longest, steps of about 60 tokens, 10% of the formats bad.
//!
//! Every token-sized value is one of bf16's, so that a run in bf16 has the same inputs and is held to the same answer.
use half::bf16;
use std::cell::OnceCell;

/// One size: rollouts, longest rollout, groups.
#[derive(Clone, Copy)]
pub struct Size {
    pub name: &'static str,
    pub rollouts: usize,
    pub longest: usize,
    pub groups: usize,
}

pub const SIZES: [Size; 3] = [
    Size { name: "small", rollouts: 512, longest: 1024, groups: 64 },
    Size { name: "paper", rollouts: 2048, longest: 6144, groups: 128 },
    Size { name: "large", rollouts: 8192, longest: 4096, groups: 512 },
];

pub struct Workload {
    pub size: Size,
    pub lengths: Vec<i32>,
    pub cu_seqlens: Vec<i32>,
    pub outcome: Vec<f32>,
    pub format: Vec<f32>,
    pub format_ok: Vec<u8>,
    /// Three rewards a rollout (GDPO).
    pub extra: [Vec<f32>; 3],
    pub step_offsets: Vec<i32>,
    pub step_ends: Vec<i32>,
    pub step_scores: Vec<f32>,
    /// The scores written on every token of their steps, packed.
    pub dense: Vec<f32>,
    kl: OnceCell<Vec<f32>>,
    token_rewards: OnceCell<Vec<f32>>,
    values: OnceCell<Vec<f32>>,
    mask: OnceCell<Vec<i64>>,
}

impl Workload {
    pub fn new(size: Size) -> Workload {
        let mut random = Random(0x9e37_79b9 + size.rollouts as u64);
        // The mean of exp(N(m, s)) is exp(m + s^2 / 2); what is cut off above `longest` is made up for by the factor.
        let (spread, mean) = (0.6f64, 0.42 * size.longest as f64);
        let lengths = (0..size.rollouts)
            .map(|_| ((mean.ln() - spread * spread / 2.0 + spread * random.normal()).exp() as usize).clamp(1, size.longest))
            .collect();
        Workload::of_lengths(size, lengths, random)
    }

    /// Rollouts of given lengths, for the questions that ask about lengths.
    pub fn with_lengths(size: Size, lengths: Vec<usize>) -> Workload {
        Workload::of_lengths(size, lengths, Random(size.rollouts as u64))
    }

    fn of_lengths(size: Size, all: Vec<usize>, mut random: Random) -> Workload {
        let mut cu_seqlens = vec![0];
        let mut step_offsets = vec![0];
        let (mut step_ends, mut step_scores, mut dense) = (Vec::new(), Vec::new(), Vec::with_capacity(all.iter().sum()));
        for &length in &all {
            cu_seqlens.push(cu_seqlens.last().expect("begins with 0") + length as i32);
            let mut at = 0;
            while at < length {
                let step = (60.0 * (0.4 * random.normal() - 0.08).exp()).max(1.0) as usize;
                let end = (at + step).min(length);
                let score = (random.below(512) as f32 - 256.0) / 256.0;
                step_ends.push(end as i32);
                step_scores.push(score);
                dense.resize(dense.len() + end - at, score);
                at = end;
            }
            step_offsets.push(step_ends.len() as i32);
        }
        let lengths = all.iter().map(|&n| n as i32).collect();
        let outcome = (0..size.rollouts).map(|_| random.below(2) as f32).collect();
        let format_ok: Vec<u8> = (0..size.rollouts).map(|_| u8::from(random.below(10) != 0)).collect();
        let format = format_ok.iter().map(|&ok| f32::from(ok)).collect();
        let extra = [2, 5, 9].map(|kinds| (0..size.rollouts).map(|_| random.below(kinds) as f32 / kinds as f32).collect());
        let (kl, token_rewards, values, mask) = Default::default();
        Workload {
            size,
            lengths,
            cu_seqlens,
            outcome,
            format,
            format_ok,
            extra,
            step_offsets,
            step_ends,
            step_scores,
            dense,
            kl,
            token_rewards,
            values,
            mask,
        }
    }

    pub fn tokens(&self) -> usize {
        self.dense.len()
    }

    /// The rollouts of group g stand together.
    pub fn group_size(&self) -> usize {
        self.size.rollouts / self.size.groups
    }

    pub fn group(&self, group: usize) -> std::ops::Range<usize> {
        group * self.group_size()..(group + 1) * self.group_size()
    }

    /// Token range of a rollout in the packed arrays.
    pub fn range(&self, rollout: usize) -> std::ops::Range<usize> {
        self.cu_seqlens[rollout] as usize..self.cu_seqlens[rollout + 1] as usize
    }

    fn noise(&self, seed: u64, value: impl Fn(&mut Random) -> f64) -> Vec<f32> {
        let mut random = Random(seed);
        (0..self.tokens()).map(|_| bf16::from_f64(value(&mut random)).to_f32()).collect()
    }

    /// A value a token, packed: log-probability differences of a distillation run.
    pub fn kl(&self) -> &[f32] {
        self.kl.get_or_init(|| self.noise(1, |random| -0.1 * random.normal() * random.normal()))
    }

    /// Rewards a token and a critic's values, packed.
    pub fn token_rewards(&self) -> &[f32] {
        self.token_rewards.get_or_init(|| self.noise(2, |random| 0.02 * random.normal()))
    }

    pub fn values(&self) -> &[f32] {
        self.values.get_or_init(|| self.noise(3, |random| 0.5 + 0.2 * random.normal()))
    }

    /// Rows of the longest rollout, 1 where there is a token.
    pub fn mask(&self) -> &[i64] {
        self.mask.get_or_init(|| {
            let row = self.size.longest;
            self.lengths.iter().flat_map(|&length| (0..row).map(move |t| i64::from(t < length as usize))).collect()
        })
    }

    /// A packed array in rows of the longest rollout, `outside` where there is no token.
    pub fn padded<T: Copy>(&self, packed: &[T], outside: T) -> Vec<T> {
        let row = self.size.longest;
        let mut rows = vec![outside; self.size.rollouts * row];
        for rollout in 0..self.size.rollouts {
            let range = self.range(rollout);
            rows[rollout * row..][..range.len()].copy_from_slice(&packed[range]);
        }
        rows
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.next()) * u128::from(n) >> 64) as u64
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
