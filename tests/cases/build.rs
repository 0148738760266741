//! Generated batches: a small description in, a ragged batch of the described kind out, always the same for the same seed.
use crate::oracle::*;

/// SplitMix64: deterministic on every machine, no dependency.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
    /// Roughly normal: the sum of twelve uniforms.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Csr,
    DenseEnds,
    Dense,
    Sparse,
    OpdSteps,
    GOpdSteps,
    KlSignal,
    KlOpd,
    KlGOpd,
    /// A signal a token and the ends of steps, without scores.
    KlSteps,
    Nothing,
    NothingSteps,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub seed: u64,
    pub input: Input,
    /// The number of rollouts of each group.
    pub sizes: Vec<usize>,
    /// Mixes the rollouts of the groups.
    pub interleave: bool,
    pub max_len: usize,
    pub streams: usize,
    pub others: usize,
    pub outcome: bool,
    pub format: bool,
    pub ok: bool,
    /// The chance of a gap at a token; what lies in it is NaN where `poison`.
    pub holes: f64,
    pub poison: bool,
    pub begins: bool,
    /// Values are multiples of 1/4 that repeat, else continuous.
    pub quantised: bool,
    pub chunk_marks: bool,
    pub values: bool,
    pub token_rewards: bool,
    pub bootstrap: bool,
    pub baselines: bool,
    /// A lambda a rollout.
    pub lams: bool,
    /// Log-probabilities of a reference, of the policy that sampled.
    pub reference: bool,
    pub behavior: bool,
    /// Numbers of the steps' sets: few, so that they repeat within and across groups.
    pub step_group: bool,
    /// Sums of squared probabilities, with importance ratios.
    pub sum_pi_squared: bool,
    pub token_ratio: bool,
    /// CSR steps without scores.
    pub unscored: bool,
    /// The chance that a rollout is empty or has no step.
    pub empty: f64,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            seed: 1,
            input: Input::Csr,
            sizes: vec![4, 4, 4],
            interleave: false,
            max_len: 40,
            streams: 1,
            others: 0,
            outcome: true,
            format: true,
            ok: true,
            holes: 0.0,
            poison: false,
            begins: false,
            quantised: true,
            chunk_marks: false,
            values: false,
            token_rewards: false,
            bootstrap: false,
            baselines: false,
            lams: false,
            reference: false,
            behavior: false,
            step_group: false,
            sum_pi_squared: false,
            token_ratio: false,
            unscored: false,
            empty: 0.0,
        }
    }
}

impl Spec {
    pub fn of(input: Input) -> Spec {
        // A seed of its own for each form, so that no two forms share a batch by accident.
        Spec { input, seed: 100 + input as u64, ..Spec::default() }
    }
    pub fn holes(mut self) -> Spec {
        (self.holes, self.poison) = (0.15, true);
        self
    }
    /// Gaps in scope with ordinary values in them.
    pub fn gaps(mut self) -> Spec {
        self.holes = 0.3;
        self
    }
    pub fn streams(mut self, streams: usize) -> Spec {
        self.streams = streams;
        self
    }
    pub fn sizes(mut self, sizes: &[usize]) -> Spec {
        self.sizes = sizes.to_vec();
        self
    }
    pub fn continuous(mut self) -> Spec {
        self.quantised = false;
        self
    }
}

pub fn score(rng: &mut Rng, quantised: bool) -> f32 {
    if quantised { (rng.below(9) as f32 - 4.0) * 0.25 } else { rng.normal() as f32 }
}

/// Ends of random steps that cover `len` or leave a tail; some are empty.
fn random_ends(rng: &mut Rng, len: usize) -> Vec<i64> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < len {
        at = (at + rng.below(8)).min(len);
        ends.push(at as i64);
        if rng.chance(0.05) {
            break;
        }
    }
    ends
}

fn begins_for(rng: &mut Rng, ends: &[i64]) -> Vec<i64> {
    let mut before = 0;
    ends.iter()
        .map(|&end| {
            let begin = before + rng.below(3).min((end - before) as usize) as i64;
            before = end;
            begin
        })
        .collect()
}

/// A value a token that is constant over blocks where quantised; `breaks` are the blocks of the whole group, so that averages repeat.
fn token_signal(rng: &mut Rng, len: usize, quantised: bool, breaks: &[bool]) -> Vec<f32> {
    let mut value = score(rng, quantised);
    (0..len)
        .map(|t| {
            if !quantised || breaks[t] {
                value = score(rng, quantised);
            }
            value
        })
        .collect()
}

fn logp_for(rng: &mut Rng, signal: &[f32], with_base: bool, lambda: f64) -> LogProbs {
    // Multiples of 1/1024 keep the differences exact, so that quantised signals stay so. With a base, the teacher is chosen so that
    // lambda (teacher - base) - (policy - base) is the signal or near it.
    let policy: Vec<f64> = signal.iter().map(|_| -(rng.below(4096) as f64) / 1024.0).collect();
    let base: Vec<f64> = policy.iter().map(|p| p - (rng.below(1024) as f64) / 1024.0).collect();
    let teacher = (0..signal.len())
        .map(|t| {
            let s = signal[t] as f64;
            if with_base { base[t] + (s + policy[t] - base[t]) / lambda } else { policy[t] + s }
        })
        .collect();
    LogProbs { policy, teacher, base: with_base.then_some(base) }
}

/// One value a token that follows the steps, changing inside one now and then.
fn dense_signal(rng: &mut Rng, len: usize, ends: &[i64], quantised: bool) -> Vec<f32> {
    let mut value = score(rng, quantised);
    (0..len)
        .map(|t| {
            if ends.contains(&(t as i64)) || rng.chance(0.05) {
                value = score(rng, quantised);
            }
            value
        })
        .collect()
}

pub fn build(spec: &Spec) -> (Config, Batch) {
    let mut rng = Rng(spec.seed);
    let mut cfg = Config::default();
    cfg.set_num_process(spec.streams);
    cfg.set_num_others(spec.others);
    cfg.kind = match spec.input {
        Input::KlSignal | Input::KlOpd | Input::KlGOpd | Input::KlSteps => Kind::Kl,
        Input::Nothing | Input::NothingSteps => Kind::None,
        _ => Kind::Prm,
    };
    let mut rollouts = Vec::new();
    for (group, &size) in spec.sizes.iter().enumerate() {
        let breaks: Vec<bool> = (0..spec.max_len + 1).map(|_| rng.chance(0.2)).collect();
        for _ in 0..size {
            rollouts.push(rollout(&mut rng, spec, &cfg, group, &breaks));
        }
    }
    if spec.interleave {
        for i in (1..rollouts.len()).rev() {
            let j = rng.below(i + 1);
            rollouts.swap(i, j);
        }
    }
    (cfg, Batch { num_groups: spec.sizes.len(), rollouts, ..Batch::default() })
}

fn rollout(rng: &mut Rng, spec: &Spec, cfg: &Config, group: usize, breaks: &[bool]) -> Rollout {
    let len = if rng.chance(spec.empty) { 0 } else { 1 + rng.below(spec.max_len) };
    let mut r = Rollout { len, group, in_stats: true, ..Rollout::default() };
    if spec.outcome {
        r.outcome = Some(if spec.quantised { rng.below(2) as f32 } else { rng.normal() as f32 });
    }
    if spec.format {
        let ok = rng.chance(0.8);
        r.format = Some(ok as u8 as f32);
        r.format_ok = spec.ok.then_some(ok);
    }
    r.others = (0..spec.others).map(|_| score(rng, spec.quantised)).collect();
    if spec.holes > 0.0 {
        r.mask = Some((0..len).map(|_| !rng.chance(spec.holes)).collect());
    }
    signals(rng, spec, cfg, &mut r, breaks);
    if spec.chunk_marks {
        r.chunk_ends = Some((0..len).map(|_| rng.chance(0.2)).collect());
    }
    let mut floats = || (0..len).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    r.values = spec.values.then(&mut floats);
    r.token_rewards = spec.token_rewards.then(&mut floats);
    r.bootstrap = spec.bootstrap.then(|| rng.normal() as f32);
    estimators(rng, spec, &mut r);
    if spec.poison {
        poison(&mut r);
    }
    r
}

/// Inputs of the estimators, drawn after all others: batches without them stay what they were.
fn estimators(rng: &mut Rng, spec: &Spec, r: &mut Rollout) {
    r.baseline = spec.baselines.then(|| score(rng, spec.quantised));
    r.lam = spec.lams.then(|| rng.unit() as f32);
    if (spec.reference || spec.behavior || spec.sum_pi_squared) && r.logp.is_none() {
        r.logp_policy = Some((0..r.len).map(|_| -(rng.below(4096) as f64) / 1024.0).collect());
    }
    let mut beside = |there: bool| {
        there.then(|| r.policy().iter().map(|p| p + (rng.below(2048) as f64 - 1024.0) / 1024.0).collect::<Vec<f64>>())
    };
    (r.logp_reference, r.logp_behavior) = (beside(spec.reference), beside(spec.behavior));
    if spec.step_group {
        r.step_group = r.step_ends.as_ref().map(|ends| ends.iter().map(|_| rng.below(5) as i64 - 2).collect());
    }
    if spec.unscored {
        r.step_scores.clear();
    }
    probabilities(rng, spec, r);
}

/// What baselines a token are weighted by: squares of probabilities that go with the policy's own, and ratios about 1.
fn probabilities(rng: &mut Rng, spec: &Spec, r: &mut Rollout) {
    if spec.sum_pi_squared {
        let squared = r.policy().iter().map(|logp| logp.exp()).map(|p| p * p + rng.unit() * (1.0 - p) * (1.0 - p)).collect();
        r.sum_pi_squared = Some(squared);
    }
    if spec.token_ratio {
        r.token_ratio = Some((0..r.len).map(|_| (0.3 * rng.normal()).exp()).collect());
    }
}

fn signals(rng: &mut Rng, spec: &Spec, cfg: &Config, r: &mut Rollout, breaks: &[bool]) {
    use Input::*;
    let len = r.len;
    if matches!(spec.input, Csr | DenseEnds | OpdSteps | GOpdSteps | KlSteps | NothingSteps) {
        // For kl, a rollout with ends has at least one step.
        let none = spec.input != KlSteps && rng.chance(spec.empty);
        let ends = if none { Vec::new() } else { random_ends(rng, len) };
        r.step_begins = spec.begins.then(|| begins_for(rng, &ends));
        r.step_ends = Some(ends);
    }
    match spec.input {
        Nothing | NothingSteps => {}
        Csr => {
            let steps = r.step_ends.as_ref().unwrap().len();
            r.step_scores = (0..spec.streams).map(|_| (0..steps).map(|_| score(rng, spec.quantised)).collect()).collect();
        }
        DenseEnds | Dense => {
            let ends = r.step_ends.clone().unwrap_or_else(|| random_ends(rng, len));
            r.signal = (0..spec.streams).map(|_| dense_signal(rng, len, &ends, spec.quantised)).collect();
        }
        Sparse => {
            let none = rng.chance(spec.empty);
            r.step_marks = Some((0..len).map(|_| !none && rng.chance(0.25)).collect());
            r.signal = (0..spec.streams).map(|_| (0..len).map(|_| score(rng, spec.quantised)).collect()).collect();
        }
        KlSignal | KlSteps => {
            r.signal = (0..spec.streams).map(|_| token_signal(rng, len, spec.quantised, breaks)).collect();
        }
        OpdSteps | KlOpd | GOpdSteps | KlGOpd => {
            let s = token_signal(rng, len, spec.quantised, breaks);
            r.logp = Some(logp_for(rng, &s, matches!(spec.input, GOpdSteps | KlGOpd), cfg.opd_lambda));
        }
    }
}

/// NaN wherever the mask hides a token: nothing of it may be seen.
fn poison(r: &mut Rollout) {
    let Some(mask) = &r.mask else { return };
    for t in (0..r.len).filter(|&t| !mask[t]) {
        r.signal.iter_mut().for_each(|s| s[t] = f32::NAN);
        for row in [&mut r.values, &mut r.token_rewards].into_iter().flatten() {
            row[t] = f32::NAN;
        }
        for row in [&mut r.logp_policy, &mut r.logp_reference, &mut r.logp_behavior, &mut r.sum_pi_squared, &mut r.token_ratio].into_iter().flatten() {
            row[t] = f64::NAN;
        }
        if let Some(logp) = &mut r.logp {
            logp.policy[t] = f64::NAN;
            logp.teacher[t] = f64::NAN;
            logp.base.iter_mut().for_each(|b| b[t] = f64::NAN);
        }
    }
}
