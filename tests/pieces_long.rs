//! Long rollouts in pieces: scans of many tiles, cut anywhere in a tile, in pieces of a token and of hundreds; and pieces that do not make whole rollouts.
#[path = "pieces/cut.rs"]
mod cut;
#[path = "pieces/process.rs"]
mod process;
#[path = "ranks/wire.rs"]
mod wire;
#[path = "pieces/spread.rs"]
mod spread;

use cases::{Case, Input, Rng, Spec, build};
use cut::{Call, Piece, Stage};
use harness::How;
use oracle::*;
use passrl::abi::status::*;
use testkit::{cases, harness, oracle};

/// Cuts at any token, at the edges of tiles from the end, and many in one tile.
fn cuts(batch: &Batch, rng: &mut Rng) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (rollout, r) in batch.rollouts.iter().enumerate() {
        let from = rng.below(r.len.max(1));
        let mut cuts: Vec<usize> = match rng.below(4) {
            0 => (0..rng.below(6)).map(|_| rng.below(r.len + 1)).collect(),
            1 => (0..rng.below(6)).map(|_| r.len - (32 * rng.below(20)).min(r.len)).collect(),
            2 => (0..rng.below(12)).map(|_| (from + rng.below(40)).min(r.len)).collect(),
            _ => (0..10).map(|n| (from + n).min(r.len)).collect(),
        };
        cuts.extend([0, r.len]);
        cuts.sort();
        pieces.extend(cuts.windows(2).enumerate().map(|(index, w)| Piece { rollout, begin: w[0], slots: w[1] - w[0], index }));
    }
    pieces
}

fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    let mut add = |name: &'static str, spec: Spec, edit: &dyn Fn(&mut Config)| {
        for seed in 0..3 {
            let (mut cfg, batch) = build(&Spec { seed: spec.seed + 1000 * seed, max_len: 700, sizes: vec![4, 3], ..spec.clone() });
            edit(&mut cfg);
            list.push(Case { name, cfg, batch, ..cases::all().swap_remove(0) });
        }
    };
    let of = Spec::of;
    let gae = |c: &mut Config| (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
    add("kl", of(Input::KlSignal).continuous(), &|_| ());
    add("kl repeats", of(Input::KlSignal), &|c| c.gamma = 0.97);
    add("kl gaps", of(Input::KlSignal).gaps(), &|c| c.gamma = 0.9);
    add("kl gaps bridged", of(Input::KlSignal).gaps(), &|c| (c.gamma, c.bridge_scope_gaps) = (0.9, true));
    add("kl group average", of(Input::KlSignal).holes(), &|c| c.average_over = AverageOver::Group);
    add("kl token", of(Input::KlOpd), &|c| (c.chunk, c.gamma) = (Chunk::Token, 0.999));
    add("kl steps", of(Input::KlSteps), &|c| c.chunk = Chunk::Step);
    add("kl broadcast", of(Input::KlSignal), &|c| (c.credit, c.k) = (Credit::Broadcast, 0.0));
    add("csr", of(Input::Csr), &|_| ());
    add("csr discounted", of(Input::Csr).holes(), &|c| c.gamma = 0.95);
    add("csr token", of(Input::Csr), &|c| (c.chunk, c.gamma) = (Chunk::Token, 0.95));
    add("csr broadcast", of(Input::Csr), &|c| c.credit = Credit::Broadcast);
    add("csr process part", of(Input::Csr), &|c| c.divide_scope = DivideScope::Process);
    add("csr whitened", of(Input::Csr).gaps(), &|c| c.whiten = Whiten::Tokens);
    add("csr whitened by rollouts", of(Input::Csr), &|c| c.whiten = Whiten::Rollouts);
    add("dense", of(Input::Dense), &|c| c.gamma = 0.9);
    add("dense gaps", of(Input::Dense).gaps(), &|c| c.gamma = 0.9);
    add("dense with ends", of(Input::DenseEnds).holes(), &|c| c.merge_equal_steps = true);
    add("sparse", of(Input::Sparse), &|c| c.gamma = 0.9);
    add("sparse holes", of(Input::Sparse).holes(), &|c| c.merge_equal_steps = true);
    add("gae", Spec { values: true, bootstrap: true, ..of(Input::Csr) }, &gae);
    add("gae gaps", Spec { values: true, token_rewards: true, ..of(Input::Csr).gaps() }, &gae);
    add("gae by length", Spec { values: true, bootstrap: true, ..of(Input::Csr) }, &|c| {
        gae(c);
        c.lam_length_alpha = 0.05;
    });
    add("gae lambdas", Spec { values: true, lams: true, ..of(Input::KlSignal).holes() }, &gae);
    add("gae returns apart", Spec { values: true, bootstrap: true, ..of(Input::Csr).gaps() }, &|c| {
        gae(c);
        c.lam_returns = 0.9;
    });
    for chunk in [Chunk::Step, Chunk::ByValue, Chunk::Segment, Chunk::Given] {
        let spec = |input: Input| Spec { values: true, bootstrap: true, chunk_marks: true, ..of(input).gaps() };
        for (input, returns) in [(Input::Csr, -1.0), (Input::Dense, 0.9), (Input::KlSteps, -1.0)] {
            add("gae over chunks", spec(input), &|c| {
                gae(c);
                (c.chunk, c.gae_over, c.lam_returns) = (chunk, GaeOver::Chunks, returns);
            });
        }
    }
    for (name, mask) in [("decay", ScanMask::Decay), ("every token", ScanMask::None)] {
        add(name, Spec { token_rewards: true, reference: true, ..of(Input::KlSignal).gaps() }, &|c| {
            (c.chunk, c.k, c.gamma, c.scan_mask) = (Chunk::Token, 0.0, 0.97, mask);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K3, KlPlace::Reward, 0.1);
        });
        add(name, Spec { values: true, bootstrap: true, ..of(Input::Csr).gaps() }, &|c| {
            gae(c);
            (c.scan_mask, c.lam_returns, c.outcome.place) = (mask, 1.0, Place::End);
        });
        add(name, Spec { values: true, token_rewards: true, lams: true, ..of(Input::Dense).gaps() }, &|c| {
            gae(c);
            (c.scan_mask, c.whiten) = (mask, Whiten::Tokens);
        });
    }
    add("kl in the outcome", Spec { reference: true, ..of(Input::Csr).holes() }, &|c| (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K2, KlPlace::Outcome, 0.1));
    add("kl in the sum", Spec { reference: true, others: 2, ..of(Input::KlSignal).gaps() }, &|c| {
        (c.kl_in_reward, c.kl_place, c.kl_coef, c.fusion) = (KlInReward::K1, KlPlace::Outcome, 0.1, Fusion::RewardSum);
    });
    add("means of rollouts", of(Input::KlSignal).continuous(), &|c| (c.pool, c.chunk, c.k) = (Pool::Rollouts, Chunk::Token, 0.0));
    add("means of steps", of(Input::Csr).streams(2).holes(), &|c| c.pool = Pool::Rollouts);
    add("given", Spec { chunk_marks: true, ..of(Input::Dense).gaps() }, &|c| c.chunk = Chunk::Given);
    add("turns", of(Input::Csr).gaps(), &|c| c.chunk = Chunk::Segment);
    list
}

#[test]
fn scans_of_many_tiles_have_the_bits_of_whole_rollouts() {
    let (mut failures, mut ran, mut rng) = (Vec::new(), 0, Rng(77));
    for (n, case) in cases().iter().enumerate() {
        let how = How { threads: 1 + (n % 2) as i32, ..How::default() };
        let whole = harness::run(&case.cfg, &case.batch, &How::default());
        for way in 0..6 {
            let pieces = cuts(&case.batch, &mut rng);
            let got = match way {
                5 => spread::dealt(&case.cfg, &case.batch, &how, &pieces, 3, &mut rng),
                _ => spread::in_one_call(&case.cfg, &case.batch, &how, &pieces, &mut rng),
            };
            ran += 1;
            match got {
                Ok(got) => failures.extend(cut::difference(&whole, &got).map(|d| format!("{} way {way}: {d}", case.name))),
                Err((status, said)) => failures.push(format!("{}: {status} {said}", case.name)),
            }
        }
    }
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(20)].join("\n"));
    assert!(ran > 400, "{ran}");
}

/// A rank whose arguments are refused, one whose engine fails at any of the messages: every other is told, and no rank writes.
#[test]
fn faults_of_one_rank_are_told_to_every_rank() {
    let spec = Spec { sizes: vec![3, 2], reference: true, ..Spec::of(Input::KlSignal).continuous() };
    let (mut cfg, batch) = build(&spec);
    cfg.whiten = Whiten::Tokens;
    // As many messages as a run can have: edges, own sums, maxima, sums, chunks, tiles, whitening.
    (cfg.kl_in_reward, cfg.kl_place, cfg.kl_coef) = (KlInReward::K1, KlPlace::Outcome, 0.1);
    let ranks = cut::zigzag(&batch, 3);
    let pieces: Vec<Piece> = ranks.iter().flatten().copied().collect();
    let calls: Vec<Call> = ranks.into_iter().map(|p| Call::new(p, &batch, true, &mut Rng(1))).collect();
    type Damage = fn(&mut Stage);
    let table: [(i32, Damage); 4] = [
        (PASSRL_ERR_VALUE, |s| s.batch.layout = 9),
        (PASSRL_ERR_CONFLICT, |s| s.batch.layout = passrl::abi::constants::PASSRL_PADDED),
        (PASSRL_ERR_NULL, |s| s.batch.piece_begin = std::ptr::null()),
        (PASSRL_ERR_NULL, |s| s.batch.lengths = std::ptr::null()),
    ];
    for (at_fault, (own, damage)) in table.into_iter().enumerate().map(|(n, fault)| (n % 3, fault)) {
        let edit = |rank: usize, s: &mut Stage| if rank == at_fault { damage(s) };
        let (said, _) = spread::over_ranks(&cfg, &batch, &How::default(), &calls, &pieces, &edit);
        for (rank, (status, said)) in said.into_iter().enumerate() {
            let told = status == PASSRL_ERR_COLLECTIVE && said.contains(&format!("rank {at_fault} are refused"));
            assert!(if rank == at_fault { status == own } else { told }, "rank {rank} of fault {own}: {status} {said}");
        }
    }
    let config = harness::config(harness::library(), &cfg);
    let plan = harness::library().plan(&config, &cut::limits(&batch, &pieces, &How::default()), &How::default()).unwrap_or_else(|(_, said)| panic!("{said}"));
    let messages = plan.phases() as usize + 1;
    assert_eq!(messages, 9);
    for call in 0..messages {
        let mut wire = wire::Wire::new(3);
        wire.fails = Some((1, call));
        let (said, _) = spread::over_wire(&wire, &config, &cfg, &batch, &How::default(), &calls, &pieces, &|_, _| ());
        // The plan's creation is a call 0 too, and fails with that of the run.
        for (rank, (status, said)) in said.into_iter().enumerate() {
            assert!(status == PASSRL_ERR_COLLECTIVE && said.contains("all_reduce returned 5"), "message {call}, rank {rank}: {status} {said}");
        }
    }
}

/// A rank whose process ends at any of a run's messages: the others' engines have lost it, they return an error and have written nothing.
#[test]
fn a_rank_that_dies_fails_the_others() {
    let (cfg, batch) = build(&Spec { sizes: vec![3, 2], ..Spec::of(Input::Csr).continuous() });
    if std::env::var(process::RANK).is_ok() {
        return process::rank(&cfg, &batch);
    }
    // Message 0 is of the plan's creation; header, edges, maxima, sums and tiles follow, and then nothing that a rank could end at.
    for last in 0..=6 {
        let said = process::ranks("a_rank_that_dies_fails_the_others", last);
        for rank in [0, 2] {
            let told = said[rank].lines().find(|line| line.starts_with("TOLD")).unwrap_or_else(|| panic!("rank {rank}, message {last}: {}", said[rank]));
            let expected = if last < 6 { format!("TOLD {PASSRL_ERR_COLLECTIVE} true passrl_plan_") } else { "TOLD 0 false".to_string() };
            assert!(told.starts_with(&expected) && (last == 6 || told.contains("all_reduce returned 7")), "rank {rank}, message {last}: {told}");
        }
        assert_eq!(said[1].contains("TOLD"), last == 6, "rank 1 of message {last}: {}", said[1]);
    }
}

/// Two ranks, of which one damages its pieces: every rank is refused alike, and nothing is written.
#[test]
fn pieces_that_make_no_whole_rollouts_are_refused_on_every_rank() {
    let (cfg, batch) = build(&Spec { sizes: vec![3, 2], ..Spec::of(Input::Csr).continuous() });
    let ranks = cut::zigzag(&batch, 2);
    let pieces: Vec<Piece> = ranks.iter().flatten().copied().collect();
    type Damage = fn(&mut Vec<Piece>);
    let table: [(&str, Damage); 6] = [
        ("every piece must come", |p| p.truncate(p.len() - 1)),
        ("has 2 pieces with batch.piece_index", |p| p[0].index = 0),
        ("they overlap", |p| p[1].begin -= 1),
        ("they leave tokens out", |p| p[1].begin += 1),
        ("they leave tokens out", |p| p[0].begin += 3),
        ("has a piece with batch.piece_index 3 and none with 1", |p| p[0].rollout = 1),
    ];
    for (sentence, damage) in table {
        let mut damaged = ranks.clone();
        damage(&mut damaged[1]);
        let calls: Vec<Call> = damaged.into_iter().map(|p| Call::new(p, &batch, true, &mut Rng(1))).collect();
        let limits = [pieces.clone(), pieces.clone()].concat();
        let (said, _) = spread::over_ranks(&cfg, &batch, &How::default(), &calls, &limits, &|_, _| ());
        for (status, said) in said {
            assert!(status == PASSRL_ERR_OFFSETS && said.contains(sentence), "{status} {said}, not {sentence}");
        }
    }
    // Other rewards of a rollout on one rank than on the other.
    let calls: Vec<Call> = ranks.into_iter().map(|p| Call::new(p, &batch, true, &mut Rng(1))).collect();
    let edit = |rank: usize, s: &mut Stage| {
        if rank == 1 {
            s.batch.outcome = s.batch.format;
        }
    };
    let (said, _) = spread::over_ranks(&cfg, &batch, &How::default(), &calls, &pieces, &edit);
    for (status, said) in said {
        assert!(status == PASSRL_ERR_OFFSETS && said.contains("other per-rollout inputs"), "{status} {said}");
    }
}
