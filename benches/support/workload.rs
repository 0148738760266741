//! Batches of the three sizes: lognormal lengths with a mean of about 40% of the longest, steps of about 60 tokens, 10% of the formats bad.

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
    pub step_offsets: Vec<i32>,
    pub step_ends: Vec<i32>,
    pub step_scores: Vec<f32>,
    /// The scores written on every token of their steps, packed.
    pub dense: Vec<f32>,
    /// A value a token, packed: log-probability differences of a distillation run.
    pub kl: Vec<f32>,
}

impl Workload {
    pub fn new(size: Size) -> Workload {
        let mut random = Random(0x9e37_79b9 + size.rollouts as u64);
        // The mean of exp(N(m, s)) is exp(m + s^2 / 2); what is cut off above `longest` is made up for by the factor.
        let (spread, mean) = (0.6f64, 0.42 * size.longest as f64);
        let mut lengths = Vec::new();
        let mut cu_seqlens = vec![0];
        let mut step_offsets = vec![0];
        let (mut step_ends, mut step_scores, mut dense) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..size.rollouts {
            let length = (mean.ln() - spread * spread / 2.0 + spread * random.normal()).exp();
            let length = (length as usize).clamp(1, size.longest);
            lengths.push(length as i32);
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
        let kl = (0..dense.len()).map(|_| (-0.1 * random.normal() * random.normal()) as f32).collect();
        let outcome = (0..size.rollouts).map(|_| random.below(2) as f32).collect();
        let format_ok: Vec<u8> = (0..size.rollouts).map(|_| u8::from(random.below(10) != 0)).collect();
        let format = format_ok.iter().map(|&ok| f32::from(ok)).collect();
        Workload { size, lengths, cu_seqlens, outcome, format, format_ok, step_offsets, step_ends, step_scores, dense, kl }
    }

    pub fn tokens(&self) -> usize {
        self.dense.len()
    }

    /// The rollouts of group g stand together.
    pub fn group_size(&self) -> usize {
        self.size.rollouts / self.size.groups
    }

    /// Token range of a rollout in the packed arrays.
    pub fn range(&self, rollout: usize) -> std::ops::Range<usize> {
        self.cu_seqlens[rollout] as usize..self.cu_seqlens[rollout + 1] as usize
    }

    /// A packed array in rows of the longest rollout, NaN where there is no token.
    pub fn padded(&self, packed: &[f32]) -> Vec<f32> {
        let row = self.size.longest;
        let mut rows = vec![f32::NAN; self.size.rollouts * row];
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
