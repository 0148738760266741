//! Rollouts in pieces (context parallelism): cut and spread in any way, over calls and ranks, they have the bits of whole rollouts in one call.
#[path = "pieces/cut.rs"]
mod cut;
#[path = "pieces/spread.rs"]
mod spread;
#[path = "ranks/wire.rs"]
mod wire;

use cases::{Case, Rng};
use cut::Piece;
use harness::How;
use oracle::Batch;
use passrl::abi::status::*;
use spread::{deal, in_calls, in_one_call, over_ranks, plan_of};
use testkit::{cases, harness, oracle};

fn sample() -> Vec<Case> {
    let tokens = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>();
    let table = cases::all().into_iter().filter(|c| tokens(&c.batch) < 20_000);
    let random = (0..160).map(cases::random).chain((0..160).map(cases::random_estimators));
    harness::serve(table.chain(random).filter(|c| !c.batch.rollouts.is_empty()).collect())
}

/// Why a case is not served in pieces, if it says so; anything else is a failure.
fn refused(status: i32, said: &str) -> bool {
    status == PASSRL_ERR_CONFLICT && (said.contains("rollouts in pieces") || said.contains("whole groups"))
}

/// The setting that a refusal names.
fn reason(said: &str) -> String {
    let words: Vec<&str> = said.split([':', ',']).collect();
    words[1].trim().to_string()
}

fn tally(mut left: Vec<String>) -> Vec<String> {
    left.sort();
    left.chunk_by(|a, b| a == b).map(|same| format!("{:5} {}", same.len(), same[0])).collect()
}

#[test]
fn any_cut_in_one_call_has_the_bits_of_whole_rollouts() {
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, Vec::<String>::new());
    let mut rng = Rng(5);
    for (n, case) in sample().iter().enumerate() {
        let how = How { threads: 1 + (n % 3 == 0) as i32, ..How::default() };
        let whole = match harness::try_run(&case.cfg, &case.batch, &How::default()) {
            Ok(whole) => whole,
            Err(_) => continue,
        };
        for most in [1, 3, 7] {
            let pieces = cut::random(&case.batch, most, &mut rng);
            match in_one_call(&case.cfg, &case.batch, &how, &pieces, &mut rng) {
                Ok(got) => {
                    ran += 1;
                    failures.extend(cut::difference(&whole, &got).map(|d| format!("{} in up to {most}: {d}", case.name)));
                }
                Err((status, said)) if refused(status, &said) => left.push(reason(&said)),
                Err((status, said)) => failures.push(format!("{}: {status} {said}", case.name)),
            }
        }
    }
    println!("{ran} cuts; {} refused:\n{}", left.len(), tally(left).join("\n"));
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert!(ran > 500, "{ran}");
}

/// Cases that are served in pieces.
fn served() -> Vec<Case> {
    let whole = |b: &Batch| (0..b.rollouts.len()).map(|i| Piece { rollout: i, begin: 0, slots: b.rollouts[i].len, index: 0 }).collect::<Vec<_>>();
    sample().into_iter().filter(|c| in_one_call(&c.cfg, &c.batch, &How::default(), &whole(&c.batch), &mut Rng(1)).is_ok()).collect()
}

#[test]
fn pieces_over_calls_and_ranks_have_the_bits_of_whole_rollouts() {
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, 0);
    let mut rng = Rng(9);
    for (n, case) in served().iter().enumerate() {
        let how = How { threads: 1 + (n % 3 == 0) as i32, ..How::default() };
        let whole = harness::run(&case.cfg, &case.batch, &How::default());
        let cp = [2, 3, 4][n % 3];
        let ranks = cut::zigzag(&case.batch, cp);
        let zigzag: Vec<Piece> = ranks.iter().flatten().copied().collect();
        let random = cut::random(&case.batch, 6, &mut rng);
        let ways = [
            ("zigzag over ranks", true, &zigzag, in_calls(&case.batch, ranks.clone(), &mut rng)),
            ("random over ranks", true, &random, deal(&case.batch, &random, 1 + n % 4, &mut rng)),
            ("zigzag over time", false, &zigzag, in_calls(&case.batch, ranks, &mut rng)),
            ("random over time", false, &random, deal(&case.batch, &random, 1 + n % 5, &mut rng)),
        ];
        for (name, ranks, pieces, calls) in ways {
            let Some(calls) = calls else {
                left += 1;
                continue;
            };
            ran += 1;
            let got = if ranks {
                let (said, got) = over_ranks(&case.cfg, &case.batch, &how, &calls, pieces, &|_, _| ());
                match said.iter().find(|(status, _)| *status < 0) {
                    Some(refused) => Err(refused.clone()),
                    None => Ok(got),
                }
            } else {
                // Of the calls that have pieces: an empty batch adds nothing.
                let plan = plan_of(&case.cfg, &case.batch, &how, pieces).unwrap_or_else(|(_, said)| panic!("{said}"));
                cut::over_time(&plan, &case.cfg, &case.batch, &calls, &how, &mut rng)
            };
            match got {
                Ok(mut got) => {
                    // Numbers of a group count in each call that sees the group.
                    if case.batch.stats_mean.is_some() || case.batch.stats_std.is_some() {
                        got.report.nonfinite_values = whole.report.nonfinite_values;
                    }
                    failures.extend(cut::difference(&whole, &got).map(|d| format!("{} {name}: {d}", case.name)))
                }
                Err((status, said)) => failures.push(format!("{} {name}: {status} {said}", case.name)),
            }
        }
    }
    println!("{ran} splits; {left} not run: a call would not give all inputs");
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert!(ran > 500, "{ran}");
}
