//! The pipeline of §2: standardise, fuse, chunk, credit, divide, post.
use super::baselines;
use super::chunks::{chunks_of, kl_table, KlTable};
use super::credit::credit;
use super::fuse::{reward_shaping, Fuser};
use super::load::{form_of, load, Form, Loaded};
use super::post::post;
use super::sets::{is_loo, meets_singleton, stats, values_of, whole, Element, Given, Whole};
use super::*;
use std::ops::Range;

/// One group's sets, one for each row of the table; a fusion with one set for all keeps it in row 0 and leaves the others empty.
pub struct Group {
    pub sets: Vec<Vec<Element>>,
    kl: Option<KlTable>,
    /// A row's statistics that the caller gives; zeros where it gives none.
    pub given: Vec<Given>,
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
    let signals = (0..batch.num_groups).flat_map(|g| signal_set(batch, &loaded, g)).filter(|el| !loaded[el.rollout].bad);
    let signal = whole(&values_of(&signals.collect::<Vec<Element>>()), cfg.process[0].ddof);
    let mut groups: Vec<Group> = (0..batch.num_groups)
        .map(|g| {
            let rows = given_stats(cfg, batch, &given, g);
            out.bad_groups[g] |= rows.iter().any(|row| row.1 > 0);
            // A group without rollouts is not looked at.
            if batch.rollouts.iter().any(|r| r.group == g) {
                out.report.nonfinite += rows.iter().map(|row| row.1).sum::<u64>();
            }
            let given: Vec<Given> = rows.into_iter().map(|row| row.0).collect();
            Group { sets: Vec::new(), kl: kl_of(cfg, batch, &loaded, &signal, given[0], g), given }
        })
        .collect();
    if cfg.fusion == Fusion::RewardShaping {
        loaded.iter_mut().for_each(|l| reward_shaping(cfg, l));
    }
    for (g, group) in groups.iter_mut().enumerate() {
        group.sets = sets_of(cfg, batch, &loaded, g);
        out.stats.push(cfg.streams().iter().zip(&group.sets).map(|(row, set)| stats_of(row, set)).collect());
    }
    // A rollout with a finding has no part in the statistics of the whole batch (rule 48).
    let sound = |set: &[Element]| values_of(&set.iter().filter(|el| !loaded[el.rollout].bad).copied().collect::<Vec<Element>>());
    let whole_of = |s: usize| groups.iter().flat_map(|group| sound(&group.sets[s])).collect::<Vec<f64>>();
    let whole_batch: Vec<Whole> = cfg.streams().iter().enumerate().map(|(s, row)| whole(&whole_of(s), row.ddof)).collect();
    for (g, group) in groups.iter().enumerate() {
        for (s, row) in cfg.streams().into_iter().enumerate() {
            out.bad_groups[g] |= row.singleton == Singleton::Refuse && meets_singleton(row, &group.sets[s], &whole_batch[s]);
        }
    }
    for (i, r) in batch.rollouts.iter().enumerate() {
        let (l, group) = (&loaded[i], &groups[r.group]);
        let chunks = chunks_of(cfg, r, l, group.kl.as_ref());
        out.report.tokens_in_scope += l.toks.len() as u64;
        out.report.sum_chunks += chunks.len() as u64;
        let zero = r.absent || out.bad_groups[r.group] || nothing_left(cfg, r, l, &given);
        let fuser = Fuser { cfg, rollout: i, r, l, group, batch: &whole_batch, given: &given };
        out.rollouts.push(one_rollout(&fuser, &chunks, zero));
    }
    baselines::subtract(cfg, batch, &loaded, &mut out);
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
    assert!(!cfg.has_values() || cfg.k == 0.0, "gae and vtrace take no division");
    assert!(cfg.chunk_value != ChunkValue::Mean || cfg.process.iter().all(|row| row.scale != Scale::LeaveOneOut));
    if cfg.kind == Kind::Kl && cfg.chunk == Chunk::ByValue {
        let by_rollout = row.center == Center::LeaveOneOut && row.loo_unit == LooUnit::Rollout;
        assert!(row.scale != Scale::LeaveOneOut && !by_rollout, "kl edges need one scale and shift a group");
        assert!(!matches!(row.center, Center::Batch | Center::Given) || cfg.average_over == AverageOver::Live, "the shift of the average is the group's");
        assert!(cfg.pool != Pool::Rollouts, "the detector asks for a set of tokens");
    }
    let batch_wide = |row: &&StreamCfg| row.center == Center::Batch || matches!(row.scale, Scale::Batch | Scale::NonzeroShare);
    let asks_given = |row: &&StreamCfg| row.center == Center::Given || row.scale == Scale::Given;
    if matches!(cfg.fusion, Fusion::Pooled | Fusion::RewardShaping) {
        assert!(p == 1 && cfg.others.is_empty(), "this fusion takes process_0, outcome and format");
        assert!(cfg.kind != Kind::None || cfg.fusion == Fusion::Pooled);
        assert!(cfg.streams().iter().all(|row| row.place == Place::Every && row.clip_standardized == f64::INFINITY && !batch_wide(row) && !asks_given(row)));
    }
    if cfg.divide_scope == DivideScope::Process {
        assert!(cfg.streams().iter().all(|row| row.place == Place::Every), "divide_scope = process has no places");
    }
    assert!(cfg.divide_by == DivideBy::Count || cfg.k == 1.0, "discounted_count has k = 1");
    assert!(cfg.pool != Pool::Rollouts || cfg.fusion == Fusion::Advantage);
    let over_tokens = cfg.has_values() && cfg.gae_over == GaeOver::Tokens;
    let by_token = cfg.takes_kl() && cfg.kl_place != KlPlace::Outcome;
    assert!(!by_token || over_tokens || (cfg.chunk == Chunk::Token && !cfg.has_values()), "KL by token needs tokens");
    if cfg.scan_mask != ScanMask::Carry {
        assert!(over_tokens || (cfg.chunk == Chunk::Token && cfg.k == 0.0 && !cfg.has_values()), "scans over tokens alone");
        assert!(cfg.credit != Credit::Vtrace);
    }
    let over_chunks = cfg.gae_over == GaeOver::Chunks;
    let a_token = over_tokens || (cfg.chunk == Chunk::Token && !cfg.has_values());
    assert!(cfg.token_baseline == TokenBaseline::None || (a_token && cfg.k == 0.0), "a baseline a token is of returns a token");
    assert!(!over_chunks || (cfg.credit == Credit::Gae && batch.rollouts.iter().all(|r| r.token_rewards.is_none())), "rewards of chunks");
    let outcome_lost = cfg.takes_kl() && cfg.kl_place == KlPlace::Outcome;
    let rows = if cfg.fusion == Fusion::RewardSum { &given[p..] } else { &given[p..p + 1] };
    assert!(!outcome_lost || rows.contains(&true) || batch.rollouts.is_empty(), "KL in the outcome needs one");
    for row in &cfg.process {
        let own = matches!(row.center, Center::None | Center::Group | Center::LeaveOneOut | Center::Batch | Center::Given);
        assert!(row.count_by == CountBy::Rollout, "for per-rollout streams");
        assert!(own && !matches!(row.scale, Scale::NonzeroShare | Scale::Mean) && row.place == Place::Every, "for per-rollout streams");
        assert!(row.clip_value == f64::INFINITY && row.clip_standardized == f64::INFINITY, "for per-rollout streams");
        assert!(cfg.pool != Pool::Rollouts || row.scale != Scale::LeaveOneOut || row.loo_unit == LooUnit::Rollout);
        if cfg.step_sets == StepSets::StepGroup {
            assert!(row.loo_unit == LooUnit::Element || !is_loo(row));
            assert!(!batch_wide(&row) && !asks_given(&row) && row.singleton != Singleton::Refuse);
        }
    }
    for row in cfg.streams() {
        assert!(row.center != Center::RunnerUp || row.scale != Scale::LeaveOneOut);
        assert!(row.center != Center::LengthWeighted || row.scale == Scale::None);
        if row.count_by == CountBy::Step {
            assert!(cfg.kind == Kind::Prm && matches!(cfg.fusion, Fusion::Advantage | Fusion::RewardSum), "steps are of kind prm");
            assert!(!batch_wide(&row) && !is_loo(row) && row.center != Center::LengthWeighted, "sets of the group, nothing left out");
        }
    }
    if cfg.step_sets == StepSets::StepGroup {
        assert!(cfg.kind == Kind::Prm && cfg.fusion == Fusion::Advantage && cfg.pool == Pool::Steps && cfg.chunk_value == ChunkValue::Last);
    }
}

/// Rule 50: what the caller gives of each row that is there, and how many of these numbers are findings: beyond f32, or a deviation below 0.
fn given_stats(cfg: &Config, batch: &Batch, there: &[bool], g: usize) -> Vec<(Given, u64)> {
    let p = cfg.process.len();
    let baselines = batch.rollouts.iter().any(|r| r.baseline.is_some());
    let asked = |s: usize| match cfg.fusion {
        // The sum has the outcome's row; the other streams have none of their own.
        Fusion::RewardSum if s >= p => s == p && there[p..].contains(&true),
        // A batch without rollouts shows no stream.
        _ => there[s] && !batch.rollouts.is_empty(),
    };
    let row = |s: usize, row: &StreamCfg| {
        let (mut given, mut bad) = (Given::default(), 0);
        let mut read = |x: f64, least: f64| {
            let sound = x >= least && x <= f32::MAX as f64;
            bad += u64::from(!sound);
            if sound { x } else { 0.0 }
        };
        if asked(s) && row.center == Center::Given && !(s == p && baselines) {
            given.mean = read(Batch::statistic(cfg, &batch.stats_mean, g, s), -f32::MAX as f64);
        }
        if asked(s) && row.scale == Scale::Given {
            given.std = read(Batch::statistic(cfg, &batch.stats_std, g, s), 0.0);
        }
        // Below the smallest f32 there is no deviation to speak of.
        if given.std < 2f64.powi(-149) {
            given.std = 0.0;
        }
        (given, bad)
    };
    cfg.streams().into_iter().enumerate().map(|(s, stream)| row(s, stream)).collect()
}

fn kl_of(cfg: &Config, batch: &Batch, loaded: &[Loaded], whole: &Whole, given: Given, g: usize) -> Option<KlTable> {
    if cfg.kind != Kind::Kl || cfg.chunk != Chunk::ByValue {
        return None;
    }
    let members: Vec<(&Rollout, &Loaded)> = batch.rollouts.iter().zip(loaded).filter(|(r, _)| r.group == g && !r.absent).collect();
    Some(kl_table(cfg, &signal_set(batch, loaded, g), whole, given, &members))
}

/// A group's elements of the first process stream; none where nothing is given.
fn signal_set(batch: &Batch, loaded: &[Loaded], g: usize) -> Vec<Element> {
    let counted = |i: &usize| batch.rollouts[*i].group == g && batch.rollouts[*i].in_stats && !loaded[*i].elements.is_empty();
    (0..loaded.len()).filter(counted).flat_map(|i| elements_of(i, &loaded[i], 0)).collect()
}

fn elements_of(i: usize, l: &Loaded, p: usize) -> impl Iterator<Item = Element> {
    l.elements[p].iter().map(move |&(x, key)| Element { rollout: i, x, tokens: l.toks.len(), key })
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
        for s in 0..l.elements.len() {
            sets[s].extend(elements_of(i, l, s));
        }
        for (s, value) in l.rows.iter().enumerate() {
            let Some(x) = *value else { continue };
            let element = Element { rollout: i, x, tokens: l.toks.len(), key: 0 };
            let times = if cfg.streams()[p + s].count_by == CountBy::Step { l.steps } else { 1 };
            match cfg.fusion {
                Fusion::Advantage | Fusion::RewardSum => sets[p + s].extend(std::iter::repeat_n(element, times)),
                Fusion::Pooled => sets[0].push(element),
                Fusion::RewardShaping => {}
            }
        }
    }
    sets
}

fn stats_of(row: &StreamCfg, set: &[Element]) -> StreamStats {
    // Under `length_weighted` a rollout counts as often as it has tokens in scope.
    let times = |el: &Element| if row.center == Center::LengthWeighted { el.tokens } else { 1 };
    let values: Vec<f64> = set.iter().flat_map(|el| std::iter::repeat_n(el.x as f64, times(el))).collect();
    let s = stats(&values, row.ddof);
    StreamStats { count: s.n as u64, mean: s.mean, std: s.var.sqrt(), absmax: s.absmax }
}

/// Rule 22: no process value in scope, and every per-rollout stream that is given is missing and excluded.
fn nothing_left(cfg: &Config, r: &Rollout, l: &Loaded, given: &[bool]) -> bool {
    if r.token_rewards.is_some() && cfg.takes_token_rewards() {
        return false;
    }
    let rows = &given[cfg.process.len()..];
    let process = l.x.iter().flatten().any(|v| v.is_some());
    !process && rows.iter().any(|&is| is) && l.rows.iter().all(|v| v.is_none())
}

fn one_rollout(fuser: &Fuser, chunks: &[Range<usize>], zero: bool) -> RolloutOutput {
    let (cfg, r, l) = (fuser.cfg, fuser.r, fuser.l);
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
    let fused = fuser.fuse(chunks);
    out.chunk_values = fused.process.iter().zip(&fused.sequence).map(|(p, s)| p + s).collect();
    let credited = credit(cfg, r, l, chunks, &fused);
    for (i, &t) in l.toks.iter().enumerate() {
        out.advantages[t] = credited.advantages[i];
        out.returns[t] = credited.returns[i];
    }
    out.path_score = credited.path_score;
    out
}
