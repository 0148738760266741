//! Many virtual ranks in one process: each has copies of its own rollouts and a buffer of its own, and what it learns of others comes by the all-reduces
//! alone. The bits of one call; printed: rounds, bytes and time a rank. 64 ranks by default, 1,024 with PASSRL_RANKS=all (`make ranks`).
#[path = "ranks/micro.rs"]
mod micro;
#[path = "ranks/wire.rs"]
mod wire;

use cases::{Input, Rng, Spec, build};
use harness::{How, Outputs, library};
use passrl::abi::constants::*;
use passrl::abi::types::passrl_config;
use testkit::{cases, harness, oracle};

/// 128 groups of 16 rollouts, each rollout on a rank of its own draw.
fn simulated(name: &str, ranks: usize, input: Input, edit: impl Fn(&mut passrl_config)) {
    let spec = Spec { seed: 1024, input, sizes: vec![16; 128], interleave: true, max_len: 64, quantised: false, ..Spec::default() };
    let (cfg, batch) = build(&spec);
    let how = How::default();
    let mut config = harness::config(library(), &cfg);
    edit(&mut config);
    let plan = library().plan(&config, &harness::limits(&batch, &how), &how).unwrap_or_else(|(_, said)| panic!("{name}: {said}"));
    let mut placed = harness::place(&cfg, &batch, &how);
    let mut outputs = Outputs::new(&placed, &how);
    let (status, said) = plan.run(&mut placed, &mut outputs, &how);
    let whole = outputs.collect(&placed, status, said);

    let mut rng = Rng(ranks as u64);
    let mut parts = vec![vec![Vec::new()]; ranks];
    (0..batch.rollouts.len()).for_each(|i| parts[rng.below(ranks)][0].push(i));
    let mut all = micro::ranks(&plan, &batch, &parts);
    let (got, exchanged) = micro::run(&plan, &cfg, &batch, &how, &mut all);
    let mut times: Vec<f64> = all.iter().map(|r| r.time.as_secs_f64() * 1e6).collect();
    times.sort_by(f64::total_cmp);
    let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let differ = (0..batch.rollouts.len()).filter(|i| bits(&got.advantages[*i]) != bits(&whole.advantages[*i])).count();
    println!(
        "{name}: {ranks} ranks, {} rollouts in {} groups, {} empty ranks: {} rounds, {} bytes a rank; median {:.0} us a rank of its own work, at most {:.0}; {differ} rollouts differing",
        batch.rollouts.len(), batch.num_groups, parts.iter().filter(|p| p[0].is_empty()).count(),
        exchanged.rounds, exchanged.bytes, times[ranks / 2], times[ranks - 1]
    );
    assert_eq!(differ, 0, "{name}");
    assert!(got.bits() == whole.bits() && got.stats == whole.stats && got.group_flags == whole.group_flags, "{name}");
    assert!(whole.advantages.iter().flatten().filter(|a| **a != 0.0).count() > 10_000, "{name}: nothing to compare");
}

#[test]
fn many_virtual_ranks() {
    let ranks = if std::env::var("PASSRL_RANKS").is_ok_and(|v| v == "all") { 1024 } else { 64 };
    simulated("pass", ranks, Input::Csr, |_| ());
    simulated("pass, whitened", ranks, Input::Csr, |c| c.whiten = PASSRL_WHITEN_TOKENS);
    simulated("batch statistics", ranks, Input::Csr, |c| {
        c.streams.iter_mut().for_each(|s| (s.center, s.scale) = (PASSRL_CENTER_BATCH, PASSRL_SCALE_BATCH));
    });
    simulated("kl by value", ranks, Input::KlOpd, |_| ());
}
