//! One rollout's raw input to scope, steps, values and set elements (semantics.md, rules 1 to 13), with the findings.
use super::chunks::by_value_runs;
use super::rewards;
use super::*;

/// The forms in which a process signal arrives (§2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Csr,
    DenseWithEnds,
    Dense,
    Sparse,
    /// OPD or G-OPD summed over steps.
    OpdSteps,
    /// A value a token, `kind = kl`.
    PerToken,
    /// `kind = none`.
    Nothing,
}

/// The batch decides the form: an empty rollout cannot tell.
pub fn form_of(cfg: &Config, batch: &Batch) -> Form {
    let any = |has: fn(&Rollout) -> bool| batch.rollouts.iter().any(has);
    let ends = any(|r| r.step_ends.is_some());
    match cfg.kind {
        Kind::None => Form::Nothing,
        Kind::Kl => Form::PerToken,
        Kind::Prm if any(|r| r.logp.is_some()) => Form::OpdSteps,
        Kind::Prm if any(|r| !r.signal.is_empty()) => {
            if any(|r| r.step_marks.is_some()) {
                Form::Sparse
            } else if ends {
                Form::DenseWithEnds
            } else {
                Form::Dense
            }
        }
        Kind::Prm => Form::Csr,
    }
}

/// What the pipeline needs of one rollout.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Indices of the in-scope tokens.
    pub toks: Vec<usize>,
    /// The step of each in-scope token (parallel to `toks`); all None where there are no steps.
    pub step_of: Vec<Option<usize>>,
    /// The steps are the caller's, so that they cut `by_value` chunks.
    pub caller_steps: bool,
    /// Rule 11: no step, one chunk.
    pub stepless: bool,
    pub steps_fit: bool,
    /// P x toks: the value that F takes at the token (rule 13); None is term 0.
    pub x: Vec<Vec<Option<f32>>>,
    /// The detector's u at each in-scope token.
    pub u: Vec<f32>,
    /// P: this rollout's elements of each process stream's set, each with the number of its step's set (0 where the group is the set).
    pub elements: Vec<Vec<(f32, i64)>>,
    /// Outcome, format, others: None is missing and excluded, or not given.
    pub rows: Vec<Option<f32>>,
    /// Of each in-scope token: the number of its step's set.
    pub keys: Vec<i64>,
    /// What is subtracted from the outcome under `center = given`, where the batch has baselines.
    pub baseline: Option<f64>,
    /// Steps that are elements of the process set: how often `count_by = step` counts the rollout.
    pub steps: usize,
    /// Lambda of this rollout's GAE.
    pub lam: f64,
    /// Of each in-scope token: the divergence of rule 58, before its coefficient; empty where none is asked for.
    pub kl: Vec<f32>,
    /// The same of tokens out of scope (slot, divergence) that a scan takes part with.
    pub kl_beyond: Vec<(usize, f32)>,
    /// P x len: process values of tokens out of scope that a scan takes part with (rule 59); empty where none does.
    pub beyond: Vec<Vec<Option<f32>>>,
    pub bad: bool,
}

/// Applies a stream's `missing` rule to one value; `None` is a value that is left out. A bad value is counted, flagged and replaced by
/// 0, so that what is computed beside it stays finite.
pub fn admit(v: f32, missing: Missing, bad: &mut bool, report: &mut Report) -> Option<f32> {
    if v.is_finite() {
        return Some(v);
    }
    if v.is_nan() && missing != Missing::Error {
        report.missing += 1;
        return if missing == Missing::Zero { Some(0.0) } else { None };
    }
    report.nonfinite += 1;
    *bad = true;
    Some(0.0)
}

/// Ends are exclusive, non-decreasing and at most `len`; a begin lies between the end before it and its own end (rule 6).
fn steps_fit(r: &Rollout) -> bool {
    let Some(ends) = &r.step_ends else { return true };
    let mut before = 0;
    for (j, &end) in ends.iter().enumerate() {
        if end < before || end > r.len as i64 {
            return false;
        }
        if r.step_begins.as_ref().is_some_and(|begins| begins[j] < before || begins[j] > end) {
            return false;
        }
        before = end;
    }
    true
}

/// The step of token t by ends (and begins); None is outside every step.
fn step_at(r: &Rollout, ends: &[i64], t: usize) -> Option<usize> {
    let t = t as i64;
    for j in 0..ends.len() {
        if t < ends[j] {
            return match &r.step_begins {
                Some(begins) if t < begins[j] => None,
                _ => Some(j),
            };
        }
    }
    if r.step_begins.is_none() { Some(ends.len() - 1) } else { None }
}

/// The signal of OPD and G-OPD, formed in f64, rounded to f32. An infinite log-probability is never a missing value, though the
/// difference of two is a NaN.
pub fn opd(cfg: &Config, logp: &LogProbs, t: usize) -> f32 {
    let (p, q) = (logp.policy[t], logp.teacher[t]);
    let base = logp.base.as_ref().map(|b| b[t]);
    if p.is_infinite() || q.is_infinite() || base.is_some_and(f64::is_infinite) {
        return f32::INFINITY;
    }
    match base {
        None => (q - p) as f32,
        Some(b) => (cfg.opd_lambda * (q - b) - (p - b)) as f32,
    }
}

/// 2^(e-1) <= m < 2^e, m > 0.
pub fn frexp_exponent(m: f64) -> i32 {
    let (mut e, mut power) = (0, 1.0f64);
    while m >= power {
        power *= 2.0;
        e += 1;
    }
    while m < power / 2.0 {
        power /= 2.0;
        e -= 1;
    }
    e
}

/// The exact sum over a step's tokens as §2.1 defines it, before it is rounded to f32.
pub fn exact_sum(values: &[f32]) -> f64 {
    let max = values.iter().fold(0.0f64, |m, &v| m.max((v as f64).abs()));
    if max == 0.0 {
        return 0.0;
    }
    let shift = (if values.len() < 1 << 17 { 46 } else { 30 }) - frexp_exponent(max);
    let mut sum: i128 = 0;
    for &v in values {
        sum += (v as f64 * 2f64.powi(shift)).round_ties_even() as i128;
    }
    sum as f64 * 2f64.powi(-shift)
}

/// Keeps the in-scope tokens for which `keep` holds.
fn retain(l: &mut Loaded, keep: &[bool]) {
    let mut at = 0..keep.len();
    l.toks.retain(|_| keep[at.next().unwrap()]);
    let mut at = 0..keep.len();
    l.step_of.retain(|_| keep[at.next().unwrap()]);
}

pub fn load(cfg: &Config, form: Form, r: &Rollout, report: &mut Report) -> Loaded {
    let streams = if form == Form::Nothing { 0 } else { cfg.process.len() };
    let mut l = Loaded { steps_fit: true, x: vec![Vec::new(); streams], elements: vec![Vec::new(); streams], ..Loaded::default() };
    l.rows = vec![None; 2 + cfg.others.len()];
    if r.absent {
        return l;
    }
    let mut bad = false;
    l.rows[0] = r.outcome.and_then(|v| admit(v, cfg.outcome.missing, &mut bad, report));
    l.rows[1] = r.format.and_then(|v| admit(v, cfg.format.missing, &mut bad, report));
    for (x, row) in cfg.others.iter().enumerate() {
        l.rows[2 + x] = r.others.get(x).and_then(|&v| admit(v, row.missing, &mut bad, report));
    }
    rewards::clip_values(cfg, &mut l.rows);
    if let (Center::Given, Some(b)) = (cfg.outcome.center, r.baseline) {
        l.baseline = admit(b, Missing::Error, &mut bad, report).map(f64::from);
    }
    for t in 0..r.len {
        if r.mask.as_ref().is_none_or(|mask| mask[t]) {
            l.toks.push(t);
        }
    }
    l.step_of = vec![None; l.toks.len()];
    if !steps_fit(r) {
        l.steps_fit = false;
        l.x = vec![vec![None; l.toks.len()]; streams];
        l.u = vec![0.0; l.toks.len()];
        // What scans would read is looked at all the same.
        rewards::load(cfg, form, r, &mut l, &mut bad, report);
        l.bad = true;
        return l;
    }
    assign_steps(form, r, &mut l);
    match form {
        Form::Nothing => l.u = vec![0.0; l.toks.len()],
        Form::PerToken => load_tokens(cfg, r, &mut l, &mut bad, report),
        _ if l.stepless => {
            l.x = vec![vec![None; l.toks.len()]; streams];
            l.u = vec![0.0; l.toks.len()];
        }
        Form::Dense | Form::DenseWithEnds => load_dense(cfg, form, r, &mut l, &mut bad, report),
        Form::Csr | Form::Sparse | Form::OpdSteps => load_steps(cfg, form, r, &mut l, &mut bad, report),
    }
    l.steps = tokens_of_steps(&l.step_of).iter().filter(|tokens| l.step_of[tokens[0]].is_some()).count();
    if let (StepSets::StepGroup, Some(numbers)) = (cfg.step_sets, &r.step_group) {
        l.keys = l.step_of.iter().map(|j| j.map_or(0, |j| numbers[j])).collect();
    }
    if cfg.pool == Pool::Rollouts {
        pool_rollouts(form, &mut l);
    }
    rewards::load(cfg, form, r, &mut l, &mut bad, report);
    l.bad = bad;
    l
}

fn assign_steps(form: Form, r: &Rollout, l: &mut Loaded) {
    let mut num_steps = 0;
    if form == Form::Sparse {
        // Marks out of scope are ignored; tokens after the last mark belong to the last step (rule 9).
        let marks = r.step_marks.as_ref().expect("sparse input has marks");
        num_steps = l.toks.iter().filter(|&&t| marks[t]).count();
        let mut j = 0;
        for (i, &t) in l.toks.iter().enumerate() {
            if num_steps > 0 {
                l.step_of[i] = Some(j.min(num_steps - 1));
            }
            if marks[t] {
                j += 1;
            }
        }
        l.caller_steps = true;
    } else if let Some(ends) = &r.step_ends {
        num_steps = ends.len();
        if num_steps > 0 {
            l.step_of = l.toks.iter().map(|&t| step_at(r, ends, t)).collect();
            let inside: Vec<bool> = l.step_of.iter().map(|s| s.is_some()).collect();
            retain(l, &inside);
        }
        l.caller_steps = true;
    }
    l.stepless = num_steps == 0 && form != Form::Dense && !(form == Form::PerToken && r.step_ends.is_none());
}

fn count_low(logp: &LogProbs, t: usize, report: &mut Report) {
    let base = logp.base.as_ref().map(|b| b[t]);
    for v in [Some(logp.policy[t]), Some(logp.teacher[t]), base].into_iter().flatten() {
        report.low_logp += u64::from(v < -1e4);
    }
}

/// The value of each in-scope token in every stream; a token whose first value is missing and excluded leaves the scope (rule 5).
fn token_values(cfg: &Config, r: &Rollout, l: &mut Loaded, bad: &mut bool, report: &mut Report) -> Vec<Vec<Option<f32>>> {
    let mut first = Vec::new();
    for &t in &l.toks {
        let raw = match &r.logp {
            Some(logp) => {
                count_low(logp, t, report);
                opd(cfg, logp, t)
            }
            None => r.signal[0][t],
        };
        first.push(admit(raw, cfg.process[0].missing, bad, report));
    }
    let keep: Vec<bool> = first.iter().map(|v| v.is_some()).collect();
    retain(l, &keep);
    first.retain(|v| v.is_some());
    let mut all = vec![first];
    for p in 1..cfg.process.len() {
        all.push(l.toks.iter().map(|&t| admit(r.signal[p][t], cfg.process[p].missing, bad, report)).collect());
    }
    all
}

/// kind = kl: each in-scope token is a step.
fn load_tokens(cfg: &Config, r: &Rollout, l: &mut Loaded, bad: &mut bool, report: &mut Report) {
    l.x = token_values(cfg, r, l, bad, report);
    l.u = l.x[0].iter().map(|v| v.unwrap()).collect();
    l.elements = l.x.iter().map(|stream| stream.iter().flatten().map(|&x| (x, 0)).collect()).collect();
}

/// Positions in `toks` of the tokens of each step that has any, in order.
fn tokens_of_steps(step_of: &[Option<usize>]) -> Vec<Vec<usize>> {
    let mut steps: Vec<Vec<usize>> = Vec::new();
    for i in 0..step_of.len() {
        if i == 0 || step_of[i] != step_of[i - 1] {
            steps.push(Vec::new());
        }
        steps.last_mut().unwrap().push(i);
    }
    steps
}

/// A value a token; a step's value is the signal at its last in-scope token (rules 7, 8, 12, 13).
fn load_dense(cfg: &Config, form: Form, r: &Rollout, l: &mut Loaded, bad: &mut bool, report: &mut Report) {
    l.x = token_values(cfg, r, l, bad, report);
    l.u = l.x[0].iter().map(|v| v.unwrap()).collect();
    if form == Form::Dense {
        for (j, run) in by_value_runs(cfg, l).into_iter().enumerate() {
            run.for_each(|i| l.step_of[i] = Some(j));
        }
    }
    for step in tokens_of_steps(&l.step_of) {
        for p in 0..l.x.len() {
            if let Some(value) = l.x[p][*step.last().unwrap()] {
                let times = if cfg.pool == Pool::Tokens { step.len() } else { 1 };
                l.elements[p].extend(std::iter::repeat_n((value, 0), times));
            }
        }
    }
}

/// A value a step: CSR scores, sparse marks, or the sum of the step's log-probability differences (rules 6, 9, 10).
fn load_steps(cfg: &Config, form: Form, r: &Rollout, l: &mut Loaded, bad: &mut bool, report: &mut Report) {
    let streams = cfg.process.len();
    let mut sums = Vec::new();
    if form == Form::OpdSteps {
        // A token that is missing leaves its step; the sum is over the others.
        let q = token_values(cfg, r, l, bad, report);
        sums = q[0].iter().map(|v| v.unwrap()).collect();
    }
    let unscored = form == Form::Csr && r.step_scores.is_empty();
    // Of each step that keeps a token in scope: its tokens, and its value in each stream.
    let mut steps: Vec<(Vec<usize>, Vec<Option<f32>>)> = Vec::new();
    let mut keep = Vec::new();
    for tokens in tokens_of_steps(&l.step_of) {
        let j = l.step_of[tokens[0]].unwrap();
        let mut values: Vec<Option<f32>> = Vec::new();
        for p in 0..streams {
            if p > 0 && values[0].is_none() {
                break;
            }
            values.push(match form {
                Form::OpdSteps => Some(exact_sum(&sums[tokens[0]..tokens[0] + tokens.len()]) as f32),
                Form::Sparse => {
                    let marks = r.step_marks.as_ref().unwrap();
                    let end = tokens.iter().find(|&&i| marks[l.toks[i]]).unwrap();
                    admit(r.signal[p][l.toks[*end]], cfg.process[p].missing, bad, report)
                }
                _ if unscored => Some(0.0),
                _ => admit(r.step_scores[p][j], cfg.process[p].missing, bad, report),
            });
        }
        let stays = values[0].is_some();
        keep.extend(std::iter::repeat_n(stays, tokens.len()));
        if stays {
            steps.push((tokens, values));
        }
    }
    if cfg.step_value == StepValue::ReturnToGo {
        if let (true, Some(last)) = (unscored, steps.last_mut()) {
            last.1[0] = Some(l.rows[0].unwrap_or(0.0));
        }
        returns_of_steps(cfg, &mut steps);
    }
    l.x = vec![Vec::new(); streams];
    for (tokens, values) in &steps {
        let numbers = r.step_group.as_ref().filter(|_| cfg.step_sets == StepSets::StepGroup);
        let key = numbers.map_or(0, |numbers| numbers[l.step_of[tokens[0]].unwrap()]);
        for (p, value) in values.iter().enumerate() {
            l.x[p].extend(std::iter::repeat_n(*value, tokens.len()));
            let times = if cfg.pool == Pool::Tokens { tokens.len() } else { 1 };
            l.elements[p].extend(value.iter().flat_map(|&x| std::iter::repeat_n((x, key), times)));
        }
    }
    retain(l, &keep);
    l.u = l.x[0].iter().map(|v| v.unwrap()).collect();
}

/// Rule 64: each step's value becomes its return-to-go over the steps in scope.
fn returns_of_steps(cfg: &Config, steps: &mut [(Vec<usize>, Vec<Option<f32>>)]) {
    for p in 0..cfg.process.len() {
        let mut to_go = 0.0f64;
        for (_, values) in steps.iter_mut().rev() {
            to_go = values[p].unwrap_or(0.0) as f64 + cfg.step_gamma * to_go;
            values[p] = values[p].map(|_| to_go as f32);
        }
    }
}

/// Rule 57: the rollout's one element is the mean of its step values (kl: of its token values).
fn pool_rollouts(form: Form, l: &mut Loaded) {
    assert!(form != Form::Nothing || l.elements.is_empty());
    for elements in &mut l.elements {
        let values: Vec<f32> = elements.iter().map(|el| el.0).collect();
        if !values.is_empty() {
            *elements = vec![((exact_sum(&values) / values.len() as f64) as f32, 0)];
        }
    }
}
