//! Pieces of a batch in one call, and spread over calls and ranks.
#![allow(dead_code)]
use crate::cases::Rng;
use crate::cut::{self, Call, Piece, Stage};
use crate::harness::{self, Got, How, library};
use crate::oracle::{Batch, Config};
use crate::wire::{Seat, Wire};
use passrl::abi::types::passrl_config;

pub fn plan_of(cfg: &Config, batch: &Batch, how: &How, pieces: &[Piece]) -> Result<harness::Plan, (i32, String)> {
    library().plan(&harness::config(library(), cfg), &cut::limits(batch, pieces, how), how)
}

/// All pieces of a batch in one call, in any order.
pub fn in_one_call(cfg: &Config, batch: &Batch, how: &How, pieces: &[Piece], rng: &mut Rng) -> Result<Got, (i32, String)> {
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
pub fn deal(batch: &Batch, pieces: &[Piece], calls: usize, rng: &mut Rng) -> Option<Vec<Call>> {
    let mut dealt = vec![Vec::new(); calls];
    let mut pieces = pieces.to_vec();
    cut::shuffle(&mut pieces, rng);
    pieces.into_iter().for_each(|p| dealt[rng.below(calls)].push(p));
    in_calls(batch, dealt, rng)
}

pub fn in_calls(batch: &Batch, dealt: Vec<Vec<Piece>>, rng: &mut Rng) -> Option<Vec<Call>> {
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
pub fn over_ranks(cfg: &Config, batch: &Batch, how: &How, calls: &[Call], pieces: &[Piece], edit: &(dyn Fn(usize, &mut Stage) + Sync)) -> (Vec<(i32, String)>, Got) {
    over_ranks_of(&harness::config(library(), cfg), cfg, batch, how, calls, pieces, edit)
}

/// The same by a configuration of its own; `cfg` says how the batch is placed.
pub fn over_ranks_of(config: &passrl_config, cfg: &Config, batch: &Batch, how: &How, calls: &[Call], pieces: &[Piece], edit: &(dyn Fn(usize, &mut Stage) + Sync)) -> (Vec<(i32, String)>, Got) {
    over_wire(&Wire::new(calls.len()), config, cfg, batch, how, calls, pieces, edit)
}

/// The same over a wire of the caller's.
#[allow(clippy::too_many_arguments)]
pub fn over_wire(
    wire: &Wire,
    config: &passrl_config,
    cfg: &Config,
    batch: &Batch,
    how: &How,
    calls: &[Call],
    pieces: &[Piece],
    edit: &(dyn Fn(usize, &mut Stage) + Sync),
) -> (Vec<(i32, String)>, Got) {
    let all = std::sync::Mutex::new(harness::empty(batch));
    let one = |seat: Seat| {
        let limits = cut::limits(batch, pieces, how);
        let collective = seat.collective();
        let plan = match library().plan_over(config, &limits, how, &collective) {
            Ok(plan) => plan,
            Err(refused) => return refused,
        };
        seat.expect(&plan, true);
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
        let ranks: Vec<_> = (0..wire.size).map(|rank| scope.spawn({ let one = &one; move || one(wire.seat(rank)) })).collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
    });
    let wrong = wire.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (said, all.into_inner().unwrap())
}

/// Pieces dealt out to ranks, each with all rollouts' rows.
pub fn dealt(cfg: &Config, batch: &Batch, how: &How, pieces: &[Piece], ranks: usize, rng: &mut Rng) -> Result<Got, (i32, String)> {
    let mut hands = vec![Vec::new(); ranks];
    pieces.iter().for_each(|p| hands[rng.below(ranks)].push(*p));
    let calls: Vec<Call> = hands.into_iter().map(|hand| Call::new(hand, batch, true, rng)).collect();
    let (said, got) = over_ranks(cfg, batch, how, &calls, pieces, &|_, _| ());
    match said.into_iter().find(|(status, _)| *status < 0) {
        Some(refused) => Err(refused),
        None => Ok(got),
    }
}
