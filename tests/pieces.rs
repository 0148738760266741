//! Rollouts in pieces (context parallelism): cut and spread in any way, over calls and ranks, they have the bits of whole rollouts in one call.
mod cases;
mod harness;
mod oracle;
#[path = "pieces/cut.rs"]
mod cut;
#[path = "ranks/wire.rs"]
mod wire;

use cases::{Case, Rng};
use cut::{Call, Piece, Stage};
use harness::{Got, How, library};
use oracle::{Batch, Config};
use passrl::abi::status::*;
use wire::{Seat, Wire};

fn sample() -> Vec<Case> {
    let tokens = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>();
    let table = cases::all().into_iter().filter(|c| tokens(&c.batch) < 20_000);
    let random = (0..160).map(cases::random).chain((0..160).map(cases::random_estimators));
    harness::serve(table.chain(random).filter(|c| !c.batch.rollouts.is_empty()).collect())
}

fn plan_of(cfg: &Config, batch: &Batch, how: &How, pieces: &[Piece]) -> Result<harness::Plan, (i32, String)> {
    library().plan(&harness::config(library(), cfg), &cut::limits(batch, pieces, how), how)
}

/// All pieces of a batch in one call, in any order.
fn in_one_call(cfg: &Config, batch: &Batch, how: &How, pieces: &[Piece], rng: &mut Rng) -> Result<Got, (i32, String)> {
    let plan = plan_of(cfg, batch, how, pieces)?;
    let mut pieces = pieces.to_vec();
    cut::shuffle(&mut pieces, rng);
    one_run(&plan, cfg, batch, how, &Call::new(pieces, batch, true, rng))
}

fn one_run(plan: &harness::Plan, cfg: &Config, batch: &Batch, how: &How, call: &Call) -> Result<Got, (i32, String)> {
    let of = cut::parts(batch, call);
    let mut placed = cut::place(cfg, &of, how);
    let stage = Stage::new(&mut placed, batch, call);
    let (status, said) = cut::run(plan, &stage, how);
    if status < 0 {
        return Err((status, said));
    }
    let mut all = harness::empty(batch);
    all.status = status;
    stage.gather(&mut all);
    Ok(all)
}

/// Pieces dealt out to calls; a call without any gives an empty batch. `None`: a call would not show all inputs.
fn deal(batch: &Batch, pieces: &[Piece], calls: usize, rng: &mut Rng) -> Option<Vec<Call>> {
    let mut dealt = vec![Vec::new(); calls];
    let mut pieces = pieces.to_vec();
    cut::shuffle(&mut pieces, rng);
    pieces.into_iter().for_each(|p| dealt[rng.below(calls)].push(p));
    in_calls(batch, dealt, rng)
}

fn in_calls(batch: &Batch, dealt: Vec<Vec<Piece>>, rng: &mut Rng) -> Option<Vec<Call>> {
    let calls: Vec<Call> = dealt
        .into_iter()
        .map(|pieces| {
            let all = !pieces.is_empty() && rng.below(2) == 0;
            Call::new(pieces, batch, all, rng)
        })
        .collect();
    let whole = harness::forms(&batch.rollouts);
    let shows = |c: &Call| c.rows.is_empty() || harness::forms(&c.rows.iter().map(|i| batch.rollouts[*i].clone()).collect::<Vec<_>>()) == whole;
    calls.iter().all(shows).then_some(calls)
}

/// A run over ranks as threads: what each says, and all that was written.
fn over_ranks(cfg: &Config, batch: &Batch, how: &How, calls: &[Call], pieces: &[Piece], edit: &(dyn Fn(usize, &mut Stage) + Sync)) -> (Vec<(i32, String)>, Got) {
    let wire = Wire::new(calls.len());
    let all = std::sync::Mutex::new(harness::empty(batch));
    let one = |seat: Seat| {
        let (config, limits) = (harness::config(library(), cfg), cut::limits(batch, pieces, how));
        let collective = seat.collective();
        let plan = match library().plan_over(&config, &limits, how, &collective) {
            Ok(plan) => plan,
            Err(refused) => return refused,
        };
        seat.expect(&plan);
        let call = &calls[seat.rank];
        let of = cut::parts(batch, call);
        let mut placed = cut::place(cfg, &of, how);
        let mut stage = Stage::new(&mut placed, batch, call);
        edit(seat.rank, &mut stage);
        let said = cut::run(&plan, &stage, how);
        if said.0 < 0 {
            assert!(stage.untouched(), "rank {} wrote: {}", seat.rank, said.1);
        } else {
            stage.gather(&mut all.lock().unwrap());
        }
        said
    };
    let said = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..wire.size).map(|rank| scope.spawn({ let (one, wire) = (&one, &wire); move || one(wire.seat(rank)) })).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    });
    let wrong = wire.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (said, all.into_inner().unwrap())
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
