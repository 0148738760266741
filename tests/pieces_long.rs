//! Long rollouts in pieces: scans of many tiles, cut anywhere in a tile, in pieces of a token and of hundreds; and pieces that do not make whole rollouts.
mod cases;
mod harness;
mod oracle;
#[path = "pieces/cut.rs"]
mod cut;
#[path = "ranks/wire.rs"]
mod wire;
#[path = "pieces/spread.rs"]
mod spread;

use cases::{Case, Input, Rng, Spec, build};
use cut::{Call, Piece, Stage};
use harness::How;
use oracle::*;
use passrl::abi::status::*;

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
