//! The pipeline of §2: standardise, fuse, chunk, credit, divide, post.
use super::chunks::{chunks_of, kl_table, KlTable};
use super::load::{form_of, load, Form, Loaded};
use super::sets::{inverse, meets_singleton, stats, Element, Operator};
use super::*;
use std::ops::Range;

/// One group's sets, one for each row of the table; a fusion with one set for all keeps it in row 0 and leaves the others empty.
struct Group {
    sets: Vec<Vec<Element>>,
    kl: Option<KlTable>,
}

pub fn shape(cfg: &Config, batch: &Batch) -> Output {
    let mut out = Output::default();
    let form = form_of(cfg, batch);
    let mut loaded: Vec<Loaded> = batch.rollouts.iter().map(|r| load(cfg, form, r, &mut out.report)).collect();
    let given = given_streams(cfg, form, batch);
    check(cfg, batch, &given);
    out.bad_groups = vec![false; batch.num_groups];
    for (r, l) in batch.rollouts.iter().zip(&loaded) {
        out.bad_groups[r.group] |= l.bad;
        out.bad_steps.push(!l.steps_fit);
    }
    // The KL edges and the detector read the raw signal, so the table of averages is built before a fusion replaces it.
    let mut groups: Vec<Group> = (0..batch.num_groups).map(|g| Group { sets: Vec::new(), kl: kl_of(cfg, batch, &loaded, g) }).collect();
    if cfg.fusion == Fusion::RewardShaping {
        loaded.iter_mut().for_each(|l| reward_shaping(cfg, l));
    }
    for (g, group) in groups.iter_mut().enumerate() {
        group.sets = sets_of(cfg, batch, &loaded, g);
        for (row, set) in cfg.streams().into_iter().zip(&group.sets) {
            if row.singleton == Singleton::Refuse && meets_singleton(row, set) {
                out.bad_groups[g] = true;
            }
        }
        out.stats.push(cfg.streams().iter().zip(&group.sets).map(|(row, set)| stats_of(row, set)).collect());
    }
    for (i, r) in batch.rollouts.iter().enumerate() {
        let chunks = chunks_of(cfg, r, &loaded[i], groups[r.group].kl.as_ref());
        out.report.tokens_in_scope += loaded[i].toks.len() as u64;
        out.report.sum_chunks += chunks.len() as u64;
        let zero = r.absent || out.bad_groups[r.group] || nothing_left(cfg, r, &loaded[i], &given);
        out.rollouts.push(one_rollout(cfg, i, r, &loaded[i], &chunks, &groups[r.group], &given, zero));
    }
    post(cfg, batch, &loaded, &mut out);
    out
}

/// A stream is given when the batch holds it; its weight is in W and its statistics are taken even at weight 0 (rule 27).
fn given_streams(cfg: &Config, form: Form, batch: &Batch) -> Vec<bool> {
    let any = |has: fn(&Rollout) -> bool| batch.rollouts.iter().any(has);
    let mut given = vec![form != Form::Nothing; cfg.process.len()];
    given.push(any(|r| r.outcome.is_some()));
    given.push(any(|r| r.format.is_some()));
    given.extend(cfg.others.iter().map(|_| any(|r| !r.others.is_empty())));
    given
}

/// The combinations that the library refuses; a case that holds one is a mistake in the case.
fn check(cfg: &Config, batch: &Batch, given: &[bool]) {
    let row = &cfg.process[0];
    let p = cfg.process.len();
    assert!((0.0..=8.0).contains(&cfg.k) && cfg.temperature > 0.0 && (1..=4).contains(&p));
    assert!(batch.rollouts.iter().all(|r| r.format_ok.is_none()) || given[p + 1], "format_ok without a format stream");
    assert!(cfg.credit != Credit::Gae || cfg.k == 0.0, "gae takes no division");
    assert!(cfg.chunk_value != ChunkValue::Mean || cfg.process.iter().all(|row| row.scale != Scale::LeaveOneOut));
    if cfg.kind == Kind::Kl && cfg.chunk == Chunk::ByValue {
        let by_rollout = row.center == Center::LeaveOneOut && row.loo_unit == LooUnit::Rollout;
        assert!(row.scale != Scale::LeaveOneOut && !by_rollout, "kl edges need one scale and shift a group");
    }
    if cfg.fusion != Fusion::Advantage {
        assert!(p == 1 && cfg.others.is_empty(), "this fusion takes process_0, outcome and format");
        assert!(cfg.kind != Kind::None || cfg.fusion == Fusion::Pooled);
    }
}

fn kl_of(cfg: &Config, batch: &Batch, loaded: &[Loaded], g: usize) -> Option<KlTable> {
    if cfg.kind != Kind::Kl || cfg.chunk != Chunk::ByValue {
        return None;
    }
    let mut members = Vec::new();
    let mut set = Vec::new();
    for (i, r) in batch.rollouts.iter().enumerate() {
        if r.group == g && !r.absent {
            members.push((r, &loaded[i]));
            if r.in_stats {
                set.extend(loaded[i].elements[0].iter().map(|&x| Element { rollout: i, x }));
            }
        }
    }
    Some(kl_table(cfg, &set, &members))
}

/// Table 3's rival: R = ((w_prc s + w_out r_out) + w_fmt r_fmt), raw, rounded to f32 (rule 24). It takes the place of the signal.
fn reward_shaping(cfg: &Config, l: &mut Loaded) {
    let raw = |s: f32| {
        let mut sum = cfg.process[0].weight * s as f64;
        if let Some(v) = l.rows[0] {
            sum += cfg.outcome.weight * v as f64;
        }
        if let Some(v) = l.rows[1] {
            sum += cfg.format.weight * v as f64;
        }
        sum as f32
    };
    let x = l.x[0].iter().map(|v| v.map(raw)).collect();
    let elements = l.elements[0].iter().map(|&s| raw(s)).collect();
    l.x[0] = x;
    l.elements[0] = elements;
}

fn sets_of(cfg: &Config, batch: &Batch, loaded: &[Loaded], g: usize) -> Vec<Vec<Element>> {
    let p = cfg.process.len();
    let mut sets = vec![Vec::new(); p + 2 + cfg.others.len()];
    for (i, r) in batch.rollouts.iter().enumerate() {
        // Wrong format keeps a rollout in all pools (Algorithm 1, line 1); `in_stats = 0` keeps it out of all (rule 21).
        if r.group != g || r.absent || !r.in_stats {
            continue;
        }
        let l = &loaded[i];
        for (s, elements) in l.elements.iter().enumerate() {
            sets[s].extend(elements.iter().map(|&x| Element { rollout: i, x }));
        }
        for (s, value) in l.rows.iter().enumerate() {
            let Some(x) = *value else { continue };
            match cfg.fusion {
                Fusion::Advantage => sets[p + s].push(Element { rollout: i, x }),
                Fusion::Pooled => sets[0].push(Element { rollout: i, x }),
                Fusion::RewardShaping => {}
            }
        }
    }
    sets
}

fn stats_of(row: &StreamCfg, set: &[Element]) -> StreamStats {
    let values: Vec<f64> = set.iter().map(|el| el.x as f64).collect();
    let s = stats(&values, row.ddof);
    StreamStats { count: s.n as u64, mean: s.mean, std: s.var.sqrt(), absmax: s.absmax }
}

/// Rule 22: no process value in scope, and every per-rollout stream that is given is missing and excluded.
fn nothing_left(cfg: &Config, r: &Rollout, l: &Loaded, given: &[bool]) -> bool {
    if r.token_rewards.is_some() && cfg.credit == Credit::Gae {
        return false;
    }
    let rows = &given[cfg.process.len()..];
    let process = l.x.iter().flatten().any(|v| v.is_some());
    !process && rows.iter().any(|&is| is) && l.rows.iter().all(|v| v.is_none())
}

/// The fused advantage of one chunk in its two parts: what comes from the process signal, and what the whole rollout has in common.
struct Fused {
    process: f64,
    sequence: f64,
}

struct Fuser<'a> {
    cfg: &'a Config,
    rollout: usize,
    r: &'a Rollout,
    l: &'a Loaded,
    group: &'a Group,
    given: &'a [bool],
    process: Vec<Operator<'a>>,
}

impl Fuser<'_> {
    /// N of a per-rollout stream; 0 where it is not given or missing.
    fn row(&self, s: usize) -> f64 {
        let Some(x) = self.l.rows[s] else { return 0.0 };
        let (row, set) = match self.cfg.fusion {
            Fusion::Pooled => (&self.cfg.process[0], &self.group.sets[0]),
            _ => (self.cfg.streams()[self.cfg.process.len() + s], &self.group.sets[self.cfg.process.len() + s]),
        };
        Operator::new(row, set, self.rollout, self.r.in_stats).apply(x as f64)
    }

    /// The value that stands for the chunk in stream p.
    fn x(&self, p: usize, chunk: &Range<usize>) -> Option<f64> {
        if self.cfg.chunk_value == ChunkValue::Last {
            return self.l.x[p][chunk.end - 1].map(|v| v as f64);
        }
        let (mut sum, mut tokens) = (0.0, 0);
        for i in chunk.clone() {
            if let Some(v) = self.l.x[p][i] {
                sum += v as f64;
                tokens += 1;
            }
        }
        if tokens == 0 { None } else { Some(sum / tokens as f64) }
    }

    /// Eq. 4 without the sum over the per-rollout streams.
    fn process_term(&self, chunk: &Range<usize>) -> f64 {
        let mut sum = 0.0;
        for p in 0..self.l.x.len() {
            if let Some(x) = self.x(p, chunk) {
                // Reward shaping has its weights in R already: F = N(R).
                let weight = if self.cfg.fusion == Fusion::RewardShaping { 1.0 } else { self.cfg.process[p].weight };
                sum += weight * self.process[p].apply(x);
            }
        }
        sum
    }

    fn row_terms(&self, count: usize) -> f64 {
        let rows = &self.cfg.streams()[self.cfg.process.len()..];
        (0..count).map(|s| rows[s].weight * self.row(s)).sum()
    }

    fn fuse(&self, chunks: &[Range<usize>]) -> Vec<Fused> {
        let mut all: Vec<Fused> = chunks.iter().map(|c| Fused { process: self.process_term(c), sequence: 0.0 }).collect();
        match self.cfg.fusion {
            Fusion::RewardShaping => {}
            Fusion::Pooled => {
                // §4.1: outcome and format enter once, at the rollout's last in-scope token.
                if let Some(last) = all.last_mut() {
                    last.process += self.row_terms(2);
                }
            }
            Fusion::Advantage => {
                let bad_format = self.r.format_ok == Some(false);
                let weights = self.cfg.streams().into_iter().zip(self.given).filter(|(_, given)| **given).map(|(row, _)| row.weight);
                let terms = if bad_format { weights.sum::<f64>() * self.row(1) } else { self.row_terms(self.l.rows.len()) };
                for f in &mut all {
                    f.sequence = terms;
                    if bad_format {
                        f.process = 0.0;
                    }
                }
            }
        }
        all
    }
}

/// G[i,j] by the plain recursion, or a_j itself.
fn returns_of(cfg: &Config, a: &[f64]) -> Vec<f64> {
    let mut g = a.to_vec();
    if cfg.credit == Credit::ReturnToGo {
        for j in (0..a.len().saturating_sub(1)).rev() {
            g[j] = a[j] + cfg.gamma * g[j + 1];
        }
    }
    g
}

/// GAE over the in-scope tokens, gaps skipped (rule 29): advantages and returns of each.
fn gae(cfg: &Config, r: &Rollout, l: &Loaded, chunks: &[Range<usize>], a: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = l.toks.len();
    let mut reward = vec![0.0; n];
    match &r.token_rewards {
        Some(rewards) => (0..n).for_each(|i| reward[i] = rewards[l.toks[i]] as f64),
        None => chunks.iter().zip(a).for_each(|(c, &a)| reward[c.end - 1] = a),
    }
    let values = r.values.as_ref().expect("gae needs values");
    let (mut advantage, mut result) = (vec![0.0; n], vec![0.0; n]);
    let (mut next_value, mut next_advantage) = (r.bootstrap.unwrap_or(0.0) as f64, 0.0);
    for i in (0..n).rev() {
        let v = values[l.toks[i]] as f64;
        let delta = reward[i] + cfg.gamma * next_value - v;
        advantage[i] = delta + cfg.gamma * cfg.lam * next_advantage;
        result[i] = advantage[i] + v;
        (next_value, next_advantage) = (v, advantage[i]);
    }
    (advantage, result)
}

#[allow(clippy::too_many_arguments)]
fn one_rollout(
    cfg: &Config,
    rollout: usize,
    r: &Rollout,
    l: &Loaded,
    chunks: &[Range<usize>],
    group: &Group,
    given: &[bool],
    zero: bool,
) -> RolloutOutput {
    let mut out = RolloutOutput {
        advantages: vec![0.0; r.len],
        returns: vec![0.0; r.len],
        scope: vec![false; r.len],
        num_chunks: chunks.len(),
        chunk_ends: chunks.iter().map(|c| l.toks[c.end - 1] as i64 + 1).collect(),
        chunk_values: vec![0.0; chunks.len()],
        forced_zero: zero,
        ..RolloutOutput::default()
    };
    l.toks.iter().for_each(|&t| out.scope[t] = true);
    if zero || !l.steps_fit {
        return out;
    }
    let process = (0..l.x.len()).map(|p| Operator::new(&cfg.process[p], &group.sets[p], rollout, r.in_stats)).collect();
    let fused = Fuser { cfg, rollout, r, l, group, given, process }.fuse(chunks);
    out.chunk_values = fused.iter().map(|f| f.process + f.sequence).collect();
    if cfg.credit == Credit::Gae {
        let (advantage, result) = gae(cfg, r, l, chunks, &out.chunk_values);
        for (i, &t) in l.toks.iter().enumerate() {
            out.advantages[t] = advantage[i];
            out.returns[t] = result[i];
        }
        out.path_score = advantage.first().copied().unwrap_or(0.0);
        return out;
    }
    // `divide_scope = process` keeps what the whole rollout has in common out of the sum and of the division.
    let outside = cfg.divide_scope == DivideScope::Process && cfg.fusion == Fusion::Advantage;
    let a: Vec<f64> = fused.iter().map(|f| if outside { f.process } else { f.process + f.sequence }).collect();
    let g = returns_of(cfg, &a);
    for (j, chunk) in chunks.iter().enumerate() {
        let beside = if outside { fused[j].sequence } else { 0.0 };
        // Eq. 7; j counts from 0 here, so that K - j chunks are left.
        let d = g[j] / ((chunks.len() - j) as f64).powf(cfg.k) + beside;
        for i in chunk.clone() {
            out.advantages[l.toks[i]] = d;
            out.returns[l.toks[i]] = g[j] + beside;
        }
        if j == 0 {
            out.path_score = d;
        }
    }
    out
}

/// §2.6: temperature, whitening, clip, on the in-scope tokens of rollouts that are not forced to 0.
fn post(cfg: &Config, batch: &Batch, loaded: &[Loaded], out: &mut Output) {
    let live: Vec<usize> = (0..out.rollouts.len()).filter(|&i| !out.rollouts[i].forced_zero).collect();
    for &i in &live {
        for &t in &loaded[i].toks {
            out.rollouts[i].advantages[t] /= cfg.temperature;
        }
    }
    let mut set = Vec::new();
    for &i in live.iter().filter(|&&i| batch.rollouts[i].in_stats) {
        match cfg.whiten {
            Whiten::None => {}
            Whiten::Tokens => set.extend(loaded[i].toks.iter().map(|&t| out.rollouts[i].advantages[t] as f32 as f64)),
            Whiten::Rollouts => set.push((out.rollouts[i].path_score / cfg.temperature) as f32 as f64),
        }
    }
    let s = stats(&set, cfg.whiten_ddof);
    for &i in &live {
        for &t in &loaded[i].toks {
            let a = &mut out.rollouts[i].advantages[t];
            if s.n > 0 {
                // The one admitted intermediate rounding: whitening reads A as f32.
                let from_mean = if s.max == s.min { 0.0 } else { *a as f32 as f64 - s.mean };
                *a = from_mean * inverse(s.var, cfg.whiten_epsilon, cfg.whiten_epsilon_mode);
                if !cfg.whiten_shift {
                    *a += s.mean;
                }
            }
            let clipped = a.clamp(-cfg.clip, cfg.clip);
            out.report.clipped += u64::from(clipped != *a);
            *a = clipped;
        }
    }
}
