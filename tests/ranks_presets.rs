//! Every preset with statistics of groups or of the batch, over 1 to 8 ranks and 1 to 17 micro-batches a rank, however the rollouts are spread: the bits of
//! one process. A sample by default, every case with PASSRL_RANKS=all (`make ranks`).
#[path = "pieces/cut.rs"]
mod cut;
#[path = "ranks/cuts.rs"]
mod cuts;
#[path = "ranks/micro.rs"]
mod micro;
#[path = "ranks/presets.rs"]
mod presets;
#[path = "pieces/spread.rs"]
mod spread;
#[path = "ranks/wire.rs"]
mod wire;

use harness::{Got, How, Outputs, library};
use oracle::Batch;
use passrl::abi::constants::*;
use passrl::abi::status::PASSRL_ERR_CONFLICT;
use passrl::abi::types::{passrl_config, passrl_limits};
use presets::Preset;
use testkit::{cases, harness, oracle};
use wire::{Seat, Wire};

/// How rollouts come to ranks and micro-batches.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Split {
    /// Each rollout anywhere.
    Rollouts,
    /// The rollouts of a group one after the other over all ranks and micro-batches.
    Scattered,
    /// Whole groups.
    Groups,
    /// Every other rank has nothing.
    EmptyRanks,
    /// One rank has everything.
    OneRank,
    /// Rollouts cut anywhere, each piece anywhere: several of one rollout on a rank, in any order.
    Pieces,
    /// Rollouts padded to a multiple of 2 cp and cut into as many pieces, of which rank r has r and 2 cp - 1 - r.
    Zigzag,
}

const SPLITS: [Split; 5] = [Split::Rollouts, Split::Scattered, Split::Groups, Split::EmptyRanks, Split::OneRank];

/// `[rank][micro-batch]` of rows.
fn spread(split: Split, batch: &Batch, ranks: usize, micro: usize, seed: u64) -> Vec<Vec<Vec<usize>>> {
    let mut rng = cases::Rng(seed);
    let mut parts = vec![vec![Vec::new(); micro]; ranks];
    for (i, rollout) in batch.rollouts.iter().enumerate() {
        let draw = rng.below(ranks);
        let (rank, at) = match split {
            Split::Rollouts => (draw, rng.below(micro)),
            Split::Scattered => (i % ranks, i / ranks % micro),
            Split::Groups => (rollout.group % ranks, rollout.group / ranks % micro),
            Split::EmptyRanks => (draw / 2 * 2, rng.below(micro)),
            Split::OneRank => (ranks / 2, rng.below(micro)),
            Split::Pieces | Split::Zigzag => unreachable!("rollouts come whole"),
        };
        parts[rank][at].push(i);
    }
    parts
}

/// Rollouts that did not get the bits of the whole batch; all of them where a rank's group statistics differ.
fn differing(whole: &Got, got: &Got) -> usize {
    if whole.stats != got.stats {
        return whole.advantages.len();
    }
    let of = |g: &Got, i: usize| {
        let bits = |line: &[f64]| line.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        (bits(&g.advantages[i]), bits(&g.returns[i]), g.path_scores[i].to_bits(), g.num_chunks[i], g.chunk_ends[i].clone(), bits(&g.chunk_values[i]), g.rollout_flags[i])
    };
    (0..whole.advantages.len()).filter(|i| of(whole, *i) != of(got, *i)).count()
}

/// One call a rank, its statistics reduced within it: ranks as threads. The wire holds every message to those that the plan has announced.
fn in_one_call(preset: &Preset, limits: &passrl_limits, how: &How, parts: &[Vec<Vec<usize>>], whole: &Got) -> usize {
    let wire = Wire::new(parts.len());
    let one = |seat: Seat| {
        let collective = seat.collective();
        let plan = library().plan_over(&preset.config, limits, how, &collective).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
        seat.expect(&plan, true);
        bounded(&preset.name, &preset.config, limits, &wire::messages(&plan, true));
        let rows = &parts[seat.rank][0];
        let part = preset.batch.with(rows.iter().map(|i| preset.batch.rollouts[*i].clone()).collect());
        let mut placed = harness::place(&preset.cfg, &part, how);
        placed.seal();
        let mut outputs = Outputs::new(&placed, how);
        let (status, said) = plan.run(&mut placed, &mut outputs, how);
        assert!(status >= 0, "{}: rank {}: {said}", preset.name, seat.rank);
        outputs.collect(&placed, status, said)
    };
    let shares: Vec<Got> = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..wire.size).map(|rank| scope.spawn({ let (wire, one) = (&wire, &one); move || one(wire.seat(rank)) })).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    });
    let wrong = wire.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}: {}", preset.name, wrong.join("\n"));
    let mut all = harness::empty(&preset.batch);
    all.stats = whole.stats.clone();
    for (share, micro) in shares.iter().zip(parts) {
        harness::gather(&mut all, &micro[0], share);
        if !micro[0].is_empty() && share.stats != whole.stats {
            return whole.advantages.len();
        }
    }
    differing(whole, &all)
}

/// Is a group in more than one call?
fn splits_a_group(batch: &Batch, parts: &[Vec<Vec<usize>>]) -> bool {
    let of = |call: &Vec<usize>, group: usize| call.iter().any(|i| batch.rollouts[*i].group == group);
    (0..batch.num_groups).any(|group| parts.iter().flatten().filter(|call| of(call, group)).count() > 1)
}

/// Every rank refuses, and none writes.
fn split_groups_are_refused(preset: &Preset, limits: &passrl_limits, how: &How, parts: &[Vec<Vec<usize>>]) {
    let wire = Wire::new(parts.len());
    let one = |seat: Seat| {
        let collective = seat.collective();
        let plan = library().plan_over(&preset.config, limits, how, &collective).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
        seat.expect(&plan, true);
        let part = preset.batch.with(parts[seat.rank][0].iter().map(|i| preset.batch.rollouts[*i].clone()).collect());
        let mut placed = harness::place(&preset.cfg, &part, how);
        placed.seal();
        let mut outputs = Outputs::new(&placed, how);
        let (status, said) = plan.run(&mut placed, &mut outputs, how);
        assert!(status == PASSRL_ERR_CONFLICT && said.contains("all rollouts of a group to one rank"), "{}: rank {}: {status} {said}", preset.name, seat.rank);
        // SAFETY: the view that `Outputs` gave it; packed and dense, f64.
        let untouched = unsafe {
            let view = &*outputs.raw().advantages;
            how.padded || std::slice::from_raw_parts(view.data.cast::<u8>(), view.shape[0] as usize * 8).iter().all(|b| *b == how.dirt)
        };
        assert!(untouched, "{}: rank {} wrote", preset.name, seat.rank);
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..wire.size).map(|rank| scope.spawn({ let (wire, one) = (&wire, &one); move || one(wire.seat(rank)) })).collect();
        ranks.into_iter().for_each(|rank| rank.join().expect("a rank"));
    });
    assert!(wire.wrong.lock().unwrap().is_empty());
}

/// At most 64 bytes a group and set (of kl 16 more a group and position); beside them a header, and what the batch's own sets take.
fn bounded(name: &str, config: &passrl_config, limits: &passrl_limits, messages: &[wire::Message]) {
    let joint = matches!(config.fusion, PASSRL_FUSION_REWARD_SHAPING | PASSRL_FUSION_POOLED);
    let sets = config.num_process as usize + usize::from(joint) + 2 + config.num_extra as usize;
    let by_position = config.kind == PASSRL_KIND_KL && config.chunk == PASSRL_CHUNK_BY_VALUE;
    let (groups, positions) = (limits.groups as usize, if by_position { limits.rollout_tokens as usize } else { 0 });
    let bytes: usize = messages.iter().map(|(count, dtype, _)| count * if *dtype == PASSRL_I64 { 8 } else { 4 }).sum();
    let of_the_batch = 32 + 68 * sets + 4 + 60 + 32;
    assert!(bytes <= groups * (64 * sets + 16 * positions) + of_the_batch, "{name}: {bytes} bytes for {groups} groups of {sets} sets");
    let runner_up = config.streams.iter().any(|s| s.center == PASSRL_CENTER_RUNNER_UP);
    let whitens = config.whiten != PASSRL_WHITEN_NONE;
    let most = 2 + usize::from(runner_up) + 2 * usize::from(whitens);
    assert!(messages.len() <= most, "{name}: {messages:?}");
}

fn in_micro_batches(preset: &Preset, plan: &harness::Plan, how: &How, parts: &[Vec<Vec<usize>>], whole: &Got) -> usize {
    let mut ranks = micro::ranks(plan, &preset.batch, parts);
    let (mut all, _) = micro::run(plan, &preset.cfg, &preset.batch, how, &mut ranks);
    if all.stats.is_empty() {
        all.stats = whole.stats.clone();
    }
    differing(whole, &all)
}

/// Every case, or one in so many.
fn every(of: u64) -> u64 {
    if std::env::var("PASSRL_RANKS").is_ok_and(|v| v == "all") { 1 } else { of }
}

/// All of a batch in one call.
fn whole(preset: &Preset, how: &How) -> Got {
    let plan = library().plan(&preset.config, &harness::limits(&preset.batch, how), how).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
    let mut placed = harness::place(&preset.cfg, &preset.batch, how);
    let mut outputs = Outputs::new(&placed, how);
    let (status, said) = plan.run(&mut placed, &mut outputs, how);
    assert!(status >= 0, "{}: {said}", preset.name);
    let whole = outputs.collect(&placed, status, said);
    assert!(whole.advantages.iter().flatten().any(|a| *a != 0.0), "{}: nothing to compare", preset.name);
    whole
}

/// Cases, rollouts differing, what failed.
#[derive(Default)]
struct Tally {
    cases: usize,
    differ: usize,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, wrong: usize, case: impl FnOnce() -> String) {
        (self.cases, self.differ) = (self.cases + 1, self.differ + wrong);
        if wrong > 0 {
            self.failures.push(format!("{}: {wrong} rollouts", case()));
        }
    }
}

/// Every preset, those without statistics too, whose rollouts come in pieces. Packed alone: pieces have no other layout.
fn in_pieces(tally: &mut Tally) {
    let (mut n, how, mut served, mut refused) = (0u64, How::default(), 0, Vec::new());
    for preset in presets::all() {
        let preset = preset.longer();
        let sample = cut::random(&preset.batch, 6, &mut cases::Rng(1));
        match cuts::plan(&preset, &sample, &how) {
            Err((PASSRL_ERR_CONFLICT, said)) => {
                let reason = said.split("config.").nth(1).and_then(|said| said.split([',', ':']).next()).unwrap_or_default().to_string();
                assert!(!reason.is_empty(), "{}: {said}", preset.name);
                refused.push((reason, preset.name));
                continue;
            }
            Err((status, said)) => panic!("{}: {status} {said}", preset.name),
            Ok(_) => served += 1,
        }
        let whole = whole(&preset, &how);
        for ranks in [1, 2, 3, 4, 8] {
            for micro in [1, 2, 5, 17] {
                for split in [Split::Pieces, Split::Zigzag] {
                    n += 1;
                    if n % every(17) != 0 {
                        continue;
                    }
                    let (pieces, parts) = cuts::deal(split, &preset.batch, ranks, micro, &mut cases::Rng(n));
                    let got = if micro == 1 {
                        cuts::in_one_call(&preset, &how, &pieces, parts)
                    } else {
                        let plan = cuts::plan(&preset, &pieces, &how).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
                        cuts::in_micro_batches(&plan, &preset, &how, &parts)
                    };
                    let mut got = got.unwrap_or_else(|said| panic!("{}, {ranks} ranks of {micro}, {split:?}: {said}", preset.name));
                    // Lists of chunks are no output of pieces.
                    (got.chunk_ends, got.chunk_values) = (whole.chunk_ends.clone(), whole.chunk_values.clone());
                    tally.add(differing(&whole, &got), || format!("{}, {ranks} ranks of {micro}, {split:?}", preset.name));
                }
            }
        }
    }
    refused.sort();
    println!("in pieces: {} cases, {served} presets; refused, {}:", tally.cases, refused.len());
    for same in refused.chunk_by(|a, b| a.0 == b.0) {
        println!("  {}: {}", same[0].0, same.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" "));
    }
}

#[test]
fn every_preset_has_the_bits_of_one_process() {
    let every = every(11);
    let mut tally = Tally::default();
    in_pieces(&mut tally);
    let (mut n, mut plain, mut refused) = (0u64, Vec::new(), 0);
    for preset in presets::all() {
        if !presets::has_statistics(&preset.config) {
            plain.push(preset.name);
            continue;
        }
        let layouts = [How::default(), How { padded: true, spare: 2, ..How::default() }];
        let whole_groups = presets::of_whole_groups(&preset.config);
        for how in layouts {
            let limits = harness::limits(&preset.batch, &how);
            let plan = library().plan(&preset.config, &limits, &how).unwrap_or_else(|(_, said)| panic!("{}: {said}", preset.name));
            let whole = whole(&preset, &how);
            for ranks in [1, 2, 3, 4, 8] {
                for micro in [1, 2, 5, 17] {
                    for split in SPLITS {
                        n += 1;
                        if n % every != 0 {
                            continue;
                        }
                        let parts = spread(split, &preset.batch, ranks, micro, n);
                        if whole_groups && splits_a_group(&preset.batch, &parts) {
                            refused += 1;
                            match micro {
                                1 => split_groups_are_refused(&preset, &limits, &how, &parts),
                                _ => {
                                    let got = micro::try_run(&plan, &preset.cfg, &preset.batch, &how, &mut micro::ranks(&plan, &preset.batch, &parts));
                                    let (status, said) = got.err().unwrap_or_default();
                                    assert!(status == PASSRL_ERR_CONFLICT && said.contains("all rollouts of a group in one micro-batch"), "{}: {status} {said}", preset.name);
                                }
                            }
                            continue;
                        }
                        let wrong = match micro {
                            1 => in_one_call(&preset, &limits, &how, &parts, &whole),
                            _ => in_micro_batches(&preset, &plan, &how, &parts, &whole),
                        };
                        tally.add(wrong, || format!("{}, {ranks} ranks of {micro}, {split:?}, padded {}", preset.name, how.padded));
                    }
                }
            }
        }
    }
    println!("without statistics of groups or of the batch, {}: {}", plain.len(), plain.join(" "));
    println!("refused on every rank, a group on several where one must have it (step_sets, token_baseline): {refused} splits");
    let Tally { cases, differ, failures } = tally;
    println!("ranks: {cases} cases, {differ} rollouts differing");
    assert!(failures.is_empty(), "{}", failures[..failures.len().min(12)].join("\n"));
    assert!(cases > 100, "{cases}");
}
