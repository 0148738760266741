//! Groups spread over ranks: every share has the bits of one call on the whole batch; what one rank does wrong every rank is told.
#[path = "ranks/wire.rs"]
mod wire;

use cases::Case;
use harness::{Got, How, Outputs, library, run, serve};
use oracle::{Batch, Config, StepSets, TokenBaseline};
use passrl::abi::constants::*;
use passrl::abi::status::*;
use passrl::abi::types::*;
use testkit::{cases, harness, oracle};
use wire::{Seat, Wire};

fn in_pieces(cfg: &Config) -> bool {
    cfg.step_sets == StepSets::Group && cfg.token_baseline == TokenBaseline::None
}

fn all_cases() -> Vec<Case> {
    let tokens = |b: &Batch| b.rollouts.iter().map(|r| r.len).sum::<usize>();
    let table = cases::all().into_iter().filter(|c| tokens(&c.batch) < 20_000);
    let random = (0..120).map(cases::random).chain((0..80).map(cases::random_estimators));
    serve(table.chain(random).filter(|c| !c.batch.rollouts.is_empty()).collect())
}

fn sample() -> Vec<Case> {
    all_cases().into_iter().filter(|c| in_pieces(&c.cfg)).collect()
}

/// What one rank of a run over ranks gets.
struct Share {
    rows: Vec<usize>,
    status: i32,
    said: String,
    got: Option<Got>,
    /// Is every byte of the advantages what it was before?
    untouched: bool,
}

/// Runs a case over ranks as threads: `member` is each rollout's rank; `edit` damages a rank's batch, `tune` its configuration and limits.
fn over_ranks(
    wire: &Wire,
    cfg: &Config,
    batch: &Batch,
    how: &How,
    member: &[usize],
    edit: &(dyn Fn(usize, &mut passrl_batch) + Sync),
    tune: &(dyn Fn(usize, &mut passrl_config, &mut passrl_limits) + Sync),
) -> Vec<Share> {
    over_ranks_each(wire, cfg, batch, &|_| *how, !how.without_counts, member, edit, tune)
}

/// As `over_ranks`, each rank in a way of its own; `with_counts`: some rank asks for counts.
#[allow(clippy::too_many_arguments)]
fn over_ranks_each(
    wire: &Wire,
    cfg: &Config,
    batch: &Batch,
    how: &(dyn Fn(usize) -> How + Sync),
    with_counts: bool,
    member: &[usize],
    edit: &(dyn Fn(usize, &mut passrl_batch) + Sync),
    tune: &(dyn Fn(usize, &mut passrl_config, &mut passrl_limits) + Sync),
) -> Vec<Share> {
    let one = |seat: Seat| {
        let how = &how(seat.rank);
        let rows: Vec<usize> = (0..batch.rollouts.len()).filter(|i| member[*i] == seat.rank).collect();
        let part = Batch { rollouts: rows.iter().map(|i| batch.rollouts[*i].clone()).collect(), ..batch.clone() };
        let (mut config, mut limits) = (harness::config(library(), cfg), harness::limits(batch, how));
        tune(seat.rank, &mut config, &mut limits);
        let collective = seat.collective();
        let plan = match library().plan_over(&config, &limits, how, &collective) {
            Ok(plan) => plan,
            Err((status, said)) => return Share { rows, status, said, got: None, untouched: true },
        };
        seat.expect(&plan, with_counts);
        let mut placed = harness::place(cfg, &part, how);
        placed.seal();
        edit(seat.rank, &mut placed.batch);
        let mut outputs = Outputs::new(&placed, how);
        let (status, said) = plan.run(&mut placed, &mut outputs, how);
        // SAFETY: the view that `Outputs` gave it; packed and dense, f64.
        let untouched = unsafe {
            let view = &*outputs.raw().advantages;
            how.padded || std::slice::from_raw_parts(view.data.cast::<u8>(), view.shape[0] as usize * 8).iter().all(|b| *b == how.dirt)
        };
        let got = (status >= 0).then(|| outputs.collect(&placed, status, said.clone()));
        Share { rows, status, said, got, untouched }
    };
    let shares = std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..wire.size).map(|rank| scope.spawn(move || one(wire.seat(rank)))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    });
    let wrong = wire.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    shares
}

fn plainly(size: usize, cfg: &Config, batch: &Batch, how: &How, member: &[usize]) -> Vec<Share> {
    over_ranks(&Wire::new(size), cfg, batch, how, member, &|_, _| (), &|_, _, _| ())
}

/// A draw of ranks for the rollouts in which every rank that has any gives the inputs that the batch gives.
fn draw(batch: &Batch, size: usize, seed: u64) -> Option<Vec<usize>> {
    let mut rng = cases::Rng(seed);
    let member: Vec<usize> = batch.rollouts.iter().map(|_| rng.below(size)).collect();
    let whole = harness::forms(&batch.rollouts);
    let of = |rank| batch.rollouts.iter().zip(&member).filter(|(_, m)| **m == rank).map(|(r, _)| r.clone()).collect::<Vec<_>>();
    (0..size).map(of).all(|part| part.is_empty() || harness::forms(&part) == whole).then_some(member)
}

fn differs(case: &Case, whole: &Got, shares: &[Share], with_counts: bool) -> Option<String> {
    let mut all = harness::empty(&case.batch);
    for (rank, share) in shares.iter().enumerate() {
        let Some(got) = &share.got else { return Some(format!("{}: rank {rank} is refused: {} {}", case.name, share.status, share.said)) };
        harness::gather(&mut all, &share.rows, got);
        if with_counts && !share.rows.is_empty() && got.stats != whole.stats {
            return Some(format!("{}: statistics of rank {rank}", case.name));
        }
    }
    (all.bits() != whole.bits()).then(|| format!("{} on {} ranks", case.name, shares.len()))
}

#[test]
fn any_split_has_the_bits_of_one_process() {
    let (mut failures, mut ran, mut left) = (Vec::new(), 0, 0);
    for (n, case) in sample().iter().enumerate() {
        let whole = run(&case.cfg, &case.batch, &How::default());
        let how = How { padded: n % 2 == 0, threads: 1 + (n % 3 == 0) as i32, ..How::default() };
        for size in [1, 2, 3, 4, 8] {
            let Some(member) = draw(&case.batch, size, (n * 31 + size) as u64) else {
                left += 1;
                continue;
            };
            ran += 1;
            failures.extend(differs(case, &whole, &plainly(size, &case.cfg, &case.batch, &how, &member), true));
        }
        // One rank with everything, between ranks without data.
        failures.extend(differs(case, &whole, &plainly(3, &case.cfg, &case.batch, &how, &vec![1; case.batch.rollouts.len()]), true));
    }
    println!("{ran} splits; {left} not run: a rank would not give all inputs");
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert!(ran > 500, "{ran}");
}

/// Steps of equal state and baselines a token: a group's rollouts on one rank, whichever, have the bits of one process; a group on two is refused on every rank, and nothing is written.
#[test]
fn whole_groups_on_each_rank_serve_what_needs_them() {
    let (mut failures, mut ran, mut refused) = (Vec::new(), 0, 0);
    for (n, case) in all_cases().iter().enumerate().filter(|(_, c)| !in_pieces(&c.cfg)) {
        let whole = run(&case.cfg, &case.batch, &How::default());
        for size in [1, 2, 3] {
            let member: Vec<usize> = case.batch.rollouts.iter().map(|r| (r.group * 5 + n) % size).collect();
            let of = |rank| case.batch.rollouts.iter().zip(&member).filter(|(_, m)| **m == rank).map(|(r, _)| r.clone()).collect::<Vec<_>>();
            if (0..size).map(of).any(|part| !part.is_empty() && harness::forms(&part) != harness::forms(&case.batch.rollouts)) {
                continue;
            }
            ran += 1;
            failures.extend(differs(case, &whole, &plainly(size, &case.cfg, &case.batch, &How { padded: n % 2 == 0, ..How::default() }, &member), true));
        }
        let Some(member) = draw(&case.batch, 2, n as u64) else { continue };
        let rank_of = |g: usize| case.batch.rollouts.iter().zip(&member).filter(move |(r, _)| r.group == g).map(|(_, m)| *m);
        if (0..case.batch.num_groups).all(|g| rank_of(g).all(|m| Some(m) == rank_of(g).next())) {
            continue;
        }
        refused += 1;
        for share in plainly(2, &case.cfg, &case.batch, &How::default(), &member) {
            let told = share.status == PASSRL_ERR_CONFLICT && share.said.contains("all rollouts of a group to one rank");
            assert!(told && share.untouched, "{}: {} {}", case.name, share.status, share.said);
        }
    }
    println!("{ran} splits of whole groups, {refused} refused");
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert!(ran > 60 && refused > 20, "{ran} {refused}");
}

/// A case of one kind with whole groups on both of two ranks.
fn plain_case() -> Case {
    sample().into_iter().find(|c| c.batch.rollouts.len() >= 4 && !c.cfg.is_of_the_batch() && draw(&c.batch, 2, 1).is_some()).expect("a case")
}

fn all_fail(shares: &[Share], at_fault: usize, own: i32, others: &str) {
    for (rank, share) in shares.iter().enumerate() {
        let expected = if rank == at_fault { own } else { PASSRL_ERR_COLLECTIVE };
        assert_eq!(share.status, expected, "rank {rank}: {}", share.said);
        assert!(rank == at_fault || share.said.contains(others), "rank {rank}: {}", share.said);
        assert!(share.untouched, "rank {rank} wrote");
    }
}

#[test]
fn refused_arguments_are_told_to_every_rank() {
    let case = plain_case();
    let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % 3).collect();
    let edit = |rank: usize, b: &mut passrl_batch| b.layout = if rank == 2 { 9 } else { b.layout };
    let shares = over_ranks(&Wire::new(3), &case.cfg, &case.batch, &How::default(), &member, &edit, &|_, _, _| ());
    all_fail(&shares, 2, PASSRL_ERR_VALUE, "rank 2 are refused");
    let edit = |rank: usize, b: &mut passrl_batch| {
        if rank == 0 {
            (b.group_index, b.num_groups, b.group_size) = (std::ptr::null(), 0, 1)
        }
    };
    let shares = over_ranks(&Wire::new(3), &case.cfg, &case.batch, &How::default(), &member, &edit, &|_, _, _| ());
    all_fail(&shares, 0, PASSRL_ERR_CONFLICT, "rank 0 are refused");
}

#[test]
fn a_failing_engine_fails_every_rank() {
    let case = plain_case();
    let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % 2).collect();
    // Of the run's calls (`expect` counts anew); call 0 is the plan's creation too.
    for call in 0..2 {
        let mut wire = Wire::new(2);
        wire.fails = Some((1, call));
        let shares = over_ranks(&wire, &case.cfg, &case.batch, &How::default(), &member, &|_, _| (), &|_, _, _| ());
        for share in &shares {
            assert_eq!(share.status, PASSRL_ERR_COLLECTIVE, "{}", share.said);
            assert!(share.said.contains("all_reduce returned 5") && share.untouched, "{}", share.said);
        }
    }
}

#[test]
fn plans_that_differ_are_refused_by_name() {
    let case = plain_case();
    let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % 2).collect();
    type Tune = fn(usize, &mut passrl_config, &mut passrl_limits);
    let table: [(&str, Tune); 9] = [
        ("config.k differs: 0.5 on some rank and 0.75 on another; the", |rank, c, _| c.k = 0.5 + 0.25 * rank as f64),
        ("config.gamma differs: 0.5 on some rank and 1.0 on another; also k", |rank, c, _| (c.gamma, c.k) = if rank == 0 { (1.0, 0.5) } else { (0.5, 0.25) }),
        ("config.chunk differs: step on some rank and token on another", |rank, c, _| c.chunk = if rank == 0 { PASSRL_CHUNK_TOKEN } else { PASSRL_CHUNK_STEP }),
        ("config.strict differs: 0 on some rank and 1 on another", |rank, c, _| c.strict = rank as i32),
        ("config.outcome.center differs: group on some rank and leave_one_out on another", |rank, c, _| {
            c.streams[PASSRL_STREAM_OUTCOME].center = if rank == 0 { PASSRL_CENTER_LEAVE_ONE_OUT } else { PASSRL_CENTER_GROUP }
        }),
        ("config.process_0.epsilon differs: 0.0 on some rank and 1e-9 on another", |rank, c, _| c.streams[0].epsilon = rank as f64 * 1e-9),
        ("config.format.weight differs: -2.0 on some rank and -0.5 on another", |rank, c, _| {
            c.streams[PASSRL_STREAM_FORMAT].weight = [-0.5, -2.0][rank]
        }),
        ("limits.tokens is", |rank, _, l| l.tokens += rank as i64),
        ("limits.groups is", |rank, _, l| l.groups += rank as i64),
    ];
    for (sentence, tune) in table {
        for share in over_ranks(&Wire::new(2), &case.cfg, &case.batch, &How::default(), &member, &|_, _| (), &tune) {
            assert_eq!(share.status, PASSRL_ERR_COLLECTIVE, "{}", share.said);
            assert!(share.said.contains(sentence), "{}", share.said);
        }
    }
    let refused: Tune = |rank, c, _| c.kind = if rank == 1 { 77 } else { c.kind };
    let shares = over_ranks(&Wire::new(2), &case.cfg, &case.batch, &How::default(), &member, &|_, _| (), &refused);
    all_fail(&shares, 1, PASSRL_ERR_VALUE, "rank 1 are refused");
}

#[test]
fn ranks_that_give_different_inputs_are_refused() {
    let case = sample()
        .into_iter()
        .find(|c| c.batch.rollouts.len() >= 4 && c.batch.rollouts.iter().all(|r| r.outcome.is_some() && r.format.is_none() && r.format_ok.is_none()))
        .expect("a case");
    let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % 2).collect();
    let edit = |rank: usize, b: &mut passrl_batch| {
        if rank == 1 {
            b.format = b.outcome
        }
    };
    for share in over_ranks(&Wire::new(2), &case.cfg, &case.batch, &How::default(), &member, &edit, &|_, _, _| ()) {
        assert!(share.status == PASSRL_ERR_COLLECTIVE && share.said.contains("different inputs") && share.untouched, "{}", share.said);
    }
}

#[test]
fn strict_refuses_everywhere_or_changes_nothing() {
    let (mut refused, mut passed) = (0, 0);
    for (n, case) in sample().iter().enumerate() {
        let Some(member) = draw(&case.batch, 3, n as u64) else { continue };
        let whole = run(&case.cfg, &case.batch, &How::default());
        let mut cfg = case.cfg.clone();
        cfg.strict = true;
        let shares = plainly(3, &cfg, &case.batch, &How::default(), &member);
        if whole.status == 0 {
            passed += 1;
            assert_eq!(differs(case, &whole, &shares, true), None);
        } else if shares.iter().all(|s| s.status < 0) {
            refused += 1;
            assert!(shares.iter().any(|s| s.status == PASSRL_ERR_DATA), "{}", case.name);
            assert!(shares.iter().all(|s| s.untouched && [PASSRL_ERR_DATA, PASSRL_ERR_COLLECTIVE].contains(&s.status)), "{}", case.name);
        } else {
            panic!("{}: findings, and not every rank refuses: {:?}", case.name, shares.iter().map(|s| (s.status, &s.said)).collect::<Vec<_>>());
        }
    }
    println!("strict: {passed} with the same bits, {refused} refused");
    assert!(passed > 50 && refused > 3, "{passed} {refused}");
}

/// Statistics that are maxima alone take one reduction, unless a rank's outputs ask for counts; the bits are the same.
#[test]
fn maxima_alone_take_one_reduction() {
    let (mut failures, mut ran) = (Vec::new(), 0);
    for (n, case) in sample().iter().enumerate().filter(|(_, c)| c.cfg.kind == oracle::Kind::Prm && c.cfg.whiten == oracle::Whiten::None) {
        let mut case = case.clone();
        let mut rng = cases::Rng(n as u64);
        for row in case.cfg.streams_mut() {
            let given = row.center == oracle::Center::Given;
            (row.center, row.scale) = (if given { row.center } else { oracle::Center::None }, if rng.chance(0.2) { oracle::Scale::None } else { oracle::Scale::AbsMax });
        }
        let size = 1 + n % 4;
        let Some(member) = draw(&case.batch, size, n as u64) else { continue };
        let Ok(whole) = harness::try_run(&case.cfg, &case.batch, &How::default()) else { continue };
        ran += 1;
        // With `strict` the ranks ask each other for findings before they write, and for nothing more.
        case.cfg.strict = n % 3 == 0 && whole.status == 0;
        for without_counts in [true, false] {
            let shares = plainly(size, &case.cfg, &case.batch, &How { without_counts, ..How::default() }, &member);
            failures.extend(differs(&case, &whole, &shares, !without_counts));
        }
        // One rank asks for them: every rank takes part.
        let wire = Wire::new(2);
        let mixed = |rank: usize| How { without_counts: rank == 0, ..How::default() };
        let member: Vec<usize> = (0..case.batch.rollouts.len()).map(|i| i % 2).collect();
        if draw(&case.batch, 2, 0).is_some() {
            let shares = over_ranks_each(&wire, &case.cfg, &case.batch, &mixed, true, &member, &|_, _| (), &|_, _, _| ());
            failures.extend(differs(&case, &whole, &shares, false));
        }
    }
    assert!(failures.is_empty(), "{} of {ran} differ:\n{}", failures.len(), failures[..failures.len().min(12)].join("\n"));
    assert!(ran > 60, "{ran}");
}

#[test]
fn what_a_plan_over_ranks_says_and_refuses() {
    let case = plain_case();
    let how = How::default();
    let wire = Wire::new(1);
    let seat = wire.seat(0);
    let collective = seat.collective();
    let (config, limits) = (harness::config(library(), &case.cfg), harness::limits(&case.batch, &how));
    let plan = library().plan_over(&config, &limits, &how, &collective).unwrap_or_else(|(_, said)| panic!("{said}"));
    let text = wire::describe(&plan);
    assert!(text.contains("ranks: rank 0 of 1; 2 reductions a run"), "{text}");
    let whitened = passrl_config { whiten: PASSRL_WHITEN_TOKENS, ..config };
    let whitened = library().plan_over(&whitened, &limits, &how, &seat.collective_anew()).unwrap_or_else(|(_, said)| panic!("{said}"));
    assert!(wire::describe(&whitened).contains("4 reductions a run"), "{}", wire::describe(&whitened));
    let mut maxima = config;
    maxima.streams.iter_mut().for_each(|s| (s.center, s.scale) = (PASSRL_CENTER_NONE, PASSRL_SCALE_ABS_MAX));
    let maxima = library().plan_over(&maxima, &limits, &how, &seat.collective_anew()).unwrap_or_else(|(_, said)| panic!("{said}"));
    assert!(wire::describe(&maxima).contains("1 reduction a run, ") && wire::describe(&maxima).contains("; 1 more, "), "{}", wire::describe(&maxima));
    let alone = library().plan(&config, &limits, &how).unwrap_or_else(|(_, said)| panic!("{said}"));
    assert!(plan.size("passrl_plan_workspace_size") > alone.size("passrl_plan_workspace_size"));
    for name in ["passrl_partials_size", "passrl_plan_phases"] {
        assert_eq!(wire::ask(&plan, name), PASSRL_ERR_CONFLICT, "{}", library().last_error());
    }
    seat.expect(&plan, true);
    assert_eq!(wire::run_without_batch(&plan, &how).0, PASSRL_ERR_NULL);
    assert_eq!(seat.calls.load(std::sync::atomic::Ordering::SeqCst), 1, "a refused call takes part in the first message");

    let mut bad = collective;
    bad.rank = 1;
    let refusal = |c: &passrl_collective| library().plan_over(&config, &limits, &how, c).err().map_or((0, String::new()), |e| e);
    assert!(refusal(&bad).1.contains("collective.rank is 1 and size 1"));
    bad = collective;
    bad.all_reduce = None;
    assert_eq!(refusal(&bad).0, PASSRL_ERR_NULL);
    let unknown = passrl_config { kind: 77, ..config };
    *seat.expected.lock().unwrap() = vec![wire::CREATION];
    assert!(library().plan_over(&unknown, &limits, &how, &collective).is_err());
}
