//! The answer by plain f64 loops: the preset `pass` on one size's batch, as the formulas are written. Slow and obvious.
use super::workload::Workload;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    Dense,
    Steps,
    Kl,
}

/// Advantages in the packed layout.
pub fn advantages(work: &Workload, input: Input) -> Vec<f64> {
    let mut out = vec![0.0; work.tokens()];
    for group in 0..work.size.groups {
        shape_group(work, input, work.group(group), &mut out);
    }
    out
}

/// The largest |got - want| over the group's largest |want|.
pub fn error(work: &Workload, got: impl Fn(usize) -> f32, want: &[f64]) -> f64 {
    let mut worst = 0.0f64;
    for group in 0..work.size.groups {
        let rollouts = work.group(group);
        let range = work.range(rollouts.start).start..work.range(rollouts.end - 1).end;
        let largest = want[range.clone()].iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for at in range {
            let gap = (f64::from(got(at)) - want[at]).abs();
            worst = if gap <= largest * f64::MAX { worst.max(gap / largest.max(1e-300)) } else { f64::INFINITY };
        }
    }
    worst
}

/// Chunks of one rollout: (end in tokens, process value).
type Chunks = Vec<(usize, f64)>;

fn shape_group(work: &Workload, input: Input, rollouts: std::ops::Range<usize>, out: &mut [f64]) {
    let chunks: Vec<Chunks> = match input {
        Input::Dense => rollouts.clone().map(|r| runs(&work.dense[work.range(r)])).collect(),
        Input::Steps => rollouts.clone().map(|r| steps(work, r)).collect(),
        Input::Kl => {
            rollouts.clone().map(|r| work.kl()[work.range(r)].iter().enumerate().map(|(t, &x)| (t + 1, f64::from(x))).collect()).collect()
        }
    };
    let process = Standard::of(chunks.iter().flatten().map(|&(_, x)| x));
    let outcome = Standard::of(rollouts.clone().map(|r| f64::from(work.outcome[r])));
    let format = Standard::of(rollouts.clone().map(|r| f64::from(work.format[r])));
    let average = if input == Input::Kl { position_means(&chunks, &process) } else { Vec::new() };
    for (rollout, chunks) in rollouts.zip(&chunks) {
        let tokens = &mut out[work.range(rollout)];
        let chunks = if input == Input::Kl { joined(chunks, &average) } else { chunks.clone() };
        let fused = |x: f64| {
            if work.format_ok[rollout] == 0 {
                return 3.0 * format.apply(f64::from(work.format[rollout]));
            }
            process.apply(x) + outcome.apply(f64::from(work.outcome[rollout])) + format.apply(f64::from(work.format[rollout]))
        };
        let mut gain = 0.0;
        for (j, &(end, x)) in chunks.iter().enumerate().rev() {
            gain += fused(x);
            let begin = if j == 0 { 0 } else { chunks[j - 1].0 };
            tokens[begin..end].fill(gain / ((chunks.len() - j) as f64).powf(0.7));
        }
    }
}

/// Maximal runs of one value.
fn runs(signal: &[f32]) -> Chunks {
    let edge = |t: usize| t + 1 == signal.len() || (f64::from(signal[t + 1]) - f64::from(signal[t])).abs() > 1e-8;
    (0..signal.len()).filter(|&t| edge(t)).map(|t| (t + 1, f64::from(signal[t]))).collect()
}

fn steps(work: &Workload, rollout: usize) -> Chunks {
    let range = work.step_offsets[rollout] as usize..work.step_offsets[rollout + 1] as usize;
    range.map(|s| (work.step_ends[s] as usize, f64::from(work.step_scores[s]))).collect()
}

/// The group's mean standardised signal at each position, over the rollouts that reach it.
fn position_means(chunks: &[Chunks], process: &Standard) -> Vec<f64> {
    let longest = chunks.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .map(|t| {
            let live: Vec<f64> = chunks.iter().filter_map(|c| c.get(t)).map(|&(_, x)| process.apply(x)).collect();
            live.iter().sum::<f64>() / live.len() as f64
        })
        .collect()
}

/// Neighbouring tokens whose averages are equal are one chunk; its value is the last token's.
fn joined(tokens: &Chunks, average: &[f64]) -> Chunks {
    (0..tokens.len()).filter(|&t| t + 1 == tokens.len() || (average[t + 1] - average[t]).abs() > 1e-8).map(|t| tokens[t]).collect()
}

/// (x - mean) / (std + 1e-6) with the divisor n - 1; 0 where all are equal.
pub struct Standard {
    mean: f64,
    inverse: f64,
}

impl Standard {
    pub fn of(values: impl Iterator<Item = f64>) -> Standard {
        let values: Vec<f64> = values.collect();
        let equal = values.iter().all(|v| *v == values[0]);
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
        Standard { mean, inverse: if equal { 0.0 } else { 1.0 / (variance.sqrt() + 1e-6) } }
    }

    pub fn apply(&self, x: f64) -> f64 {
        (x - self.mean) * self.inverse
    }
}
