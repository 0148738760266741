//! Rollouts in pieces (context parallelism): what is served, the pieces of a call, and whether all pieces of the batch make whole rollouts.
use super::view::{self, Want};
use crate::abi::status::*;
use crate::abi::types::passrl_batch;
use crate::error::Result;
use crate::model::batch::{Pieces, Problem, Process, Steps};
use crate::model::config::*;
use crate::model::context::Where;
use crate::model::outputs::Outputs;
use crate::model::pieces::*;
use crate::refuse;

/// Of a plan whose rollouts come in pieces: sizes, and the settings that need a rollout's tokens in one place.
pub fn limits(l: &Limits, c: &Config) -> Result<()> {
    if l.pieces == 0 {
        return Ok(());
    }
    if l.rollout_pieces >= 1 << 16 {
        return refuse!(
            PASSRL_ERR_LIMIT,
            "limits.rollout_pieces is 0, as limits.pieces, which is {}; it must be below 2^16: state the most pieces of one rollout",
            l.pieces
        );
    }
    // A table of words for each piece and each tile of each rollout: it must be countable, and no machine has this much memory.
    let table = l.batch_rollouts as u128 * (l.rollout_pieces as u128 * (WORDS as u128 + 35) + l.rollout_tokens as u128 / 16 + 11) * 8;
    if table >= 1 << 46 {
        return refuse!(
            PASSRL_ERR_LIMIT,
            "limits.batch_rollouts is {}, rollout_pieces {} and rollout_tokens {}: what the pieces exchange would take {table} bytes; state the true sizes",
            l.batch_rollouts, l.rollout_pieces, l.rollout_tokens
        );
    }
    super::estimators::in_pieces(c)?;
    let process = c.kind != Kind::None;
    let rows = &c.streams[..if process { c.num_process } else { 0 }];
    let by_step = c.streams.iter().any(|s| s.count_by == CountBy::Step);
    let shaped = c.fusion == Fusion::RewardShaping && c.asks_kl() && !c.kl_by_token();
    let long = process && c.pool == Pool::Rollouts && c.kind == Kind::Prm && l.rollout_tokens >= 1 << 17;
    // What, why it is not told by exchanges whose size the limits say, and what to do.
    let refused: [(bool, &str, &str, &str); 7] = [
        (
            process && c.boundary_rule == BoundaryRule::Anchored,
            "boundary_rule is anchored",
            "each chunk's first value, and so its end, follows from every end before it",
            "use adjacent",
        ),
        (process && c.chunk_value == ChunkValue::Mean, "chunk_value is mean", "a chunk's value is a mean over tokens of several pieces", "use last"),
        (
            c.credit == Credit::Vtrace,
            "credit is vtrace",
            "its sums run token by token from the rollout's end, each limited before the next, so that every piece would wait for the one after it",
            "use gae or return_to_go",
        ),
        (
            c.step_value == StepValue::ReturnToGo,
            "step_value is return_to_go",
            "a step's return takes in the steps of later pieces, as far as they have a token in scope",
            "form the returns first and give them as scores",
        ),
        (by_step, "count_by is step", "a value counts once for each step of all pieces that has a token in scope", "use rollout"),
        (shaped, "kl_place is outcome with fusion = reward_shaping", "every step's reward takes in the sum of the rollout's KL", "use fusion = advantage, or kl_place = reward"),
        (long, "pool is rollouts with kind = prm and limits.rollout_tokens of 2^17 or more", "the grid of a rollout's mean follows from the number of its steps, which no piece knows", "use a smaller limit"),
    ];
    for (found, what, why, mend) in refused {
        if found {
            return refuse!(
                PASSRL_ERR_CONFLICT,
                "config.{what}, with limits.pieces = {}: it is not served for rollouts in pieces ({why}); {mend}, or give whole rollouts",
                l.pieces
            );
        }
    }
    if c.pool != Pool::Rollouts && rows.iter().any(|s| s.leaves_out() && s.loo_unit == LooUnit::Rollout) {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "config.streams of the process have loo_unit = rollout, with limits.pieces = {}: it is not served for rollouts in pieces (sums of what all pieces of each rollout have would follow \
             the group's maxima); use element, or pool = rollouts, or give whole rollouts",
            l.pieces
        );
    }
    Ok(())
}

/// The pieces of a call. Every number is seen to be in range; whether they make whole rollouts is known once all have come (`table`).
///
/// # Safety
/// The batch's views are NULL or `passrl_view`s.
pub(super) unsafe fn pieces(place: Where, b: &passrl_batch, rollouts: usize, packed: bool, limits: &Limits) -> Result<Option<Pieces>> {
    // SAFETY: by the contract.
    let (rollout, numbers) = unsafe {
        (
            view::optional(place, b.piece_rollout, "batch.piece_rollout", view::INTS, Want::AnyLine)?,
            view::optional(place, b.rollout_index, "batch.rollout_index", view::INTS, Want::Line(rollouts))?,
        )
    };
    let Some(rollout) = rollout else {
        for (given, name) in [(!b.piece_begin.is_null(), "piece_begin"), (!b.piece_index.is_null(), "piece_index"), (numbers.is_some(), "rollout_index")] {
            if given {
                return refuse!(PASSRL_ERR_NULL, "batch.piece_rollout is NULL while batch.{name} is given; pieces need piece_rollout, piece_begin and piece_index");
            }
        }
        if limits.pieces > 0 && rollouts > 0 {
            return refuse!(
                PASSRL_ERR_NULL,
                "batch.piece_rollout is NULL; the plan's limits.pieces is {}, so its rollouts come in pieces (one piece may be all of a rollout)",
                limits.pieces
            );
        }
        return Ok(None);
    };
    let count = rollout.shape[0];
    if limits.pieces == 0 {
        return refuse!(PASSRL_ERR_LIMIT, "batch.piece_rollout has {count} pieces; the plan's limits.pieces is 0: state the most pieces of a call in the limits");
    }
    if count > limits.pieces {
        return refuse!(PASSRL_ERR_LIMIT, "batch.piece_rollout has {count} pieces; the plan's limits.pieces allows {}", limits.pieces);
    }
    if !packed {
        return refuse!(PASSRL_ERR_CONFLICT, "batch.piece_rollout is given in the padded layout; pieces are packed: use layout PASSRL_PACKED with cu_seqlens [{}]", count + 1);
    }
    // SAFETY: by the contract.
    let (begin, index, lengths) = unsafe {
        (
            view::optional(place, b.piece_begin, "batch.piece_begin", view::INTS, Want::Line(count))?,
            view::optional(place, b.piece_index, "batch.piece_index", view::INTS, Want::Line(count))?,
            view::optional(place, b.lengths, "batch.lengths", view::INTS, Want::Line(rollouts))?,
        )
    };
    let (Some(begin), Some(index), Some(lengths)) = (begin, index, lengths) else {
        let name = if begin.is_none() { "piece_begin" } else if index.is_none() { "piece_index" } else { "lengths" };
        return refuse!(PASSRL_ERR_NULL, "batch.{name} is NULL; pieces need piece_rollout, piece_begin, piece_index and lengths (tokens of the whole rollouts)");
    };
    if rollouts > limits.batch_rollouts && numbers.is_none() {
        return refuse!(
            PASSRL_ERR_OFFSETS,
            "batch.num_rollouts is {rollouts} without rollout_index; the plan's limits.batch_rollouts is {}: give the rollouts' numbers in the whole batch",
            limits.batch_rollouts
        );
    }
    let pieces = Pieces { count, rollout, begin, index, lengths, numbers };
    if place != Where::Host {
        // What device memory says of them the kernels see.
        return Ok(Some(pieces));
    }
    for r in 0..rollouts {
        let (len, number) = (lengths.int(r), numbers.map_or(r as i64, |n| n.int(r)));
        if len < 0 || len as u64 > limits.rollout_tokens as u64 {
            return refuse!(PASSRL_ERR_LIMIT, "batch.lengths[{r}] is {len}; the plan's limits.rollout_tokens allows 0 to {}", limits.rollout_tokens);
        }
        if number < 0 || number as u64 >= limits.batch_rollouts as u64 {
            return refuse!(PASSRL_ERR_OFFSETS, "batch.rollout_index[{r}] is {number}; the plan's limits.batch_rollouts is {}", limits.batch_rollouts);
        }
    }
    for p in 0..count {
        let (row, first, number) = (rollout.int(p), begin.int(p), index.int(p));
        if row < 0 || row as u64 >= rollouts as u64 {
            return refuse!(PASSRL_ERR_OFFSETS, "batch.piece_rollout[{p}] is {row}; the call has {rollouts} rollouts");
        }
        if !(0..1 << 31).contains(&first) {
            return refuse!(PASSRL_ERR_OFFSETS, "batch.piece_begin[{p}] is {first}; it is an index in the rollout, 0 to 2^31 - 1");
        }
        if number < 0 || number as u64 >= limits.rollout_pieces as u64 {
            return refuse!(
                PASSRL_ERR_OFFSETS,
                "batch.piece_index[{p}] is {number}; the plan's limits.rollout_pieces is {}, the pieces of a rollout are numbered from 0",
                limits.rollout_pieces
            );
        }
    }
    Ok(Some(pieces))
}

/// Process inputs of which a step's value needs tokens of several pieces.
pub(super) fn forms(process: &Process, steps: &Option<Steps>, marks: bool, c: &Config) -> Result<()> {
    let prm = c.kind == Kind::Prm;
    let refused: [(bool, &str, &str); 3] = [
        (
            prm && matches!(process, Process::LogProbs { .. }),
            "batch.logp_teacher is given with steps, whose scores are sums over a step's tokens",
            "give the sums as step_scores, or use kind = kl",
        ),
        (
            prm && matches!(process, Process::Signal(_)) && c.pool == Pool::Tokens,
            "config.pool is tokens and batch.signal[0] is given, whose steps' values lie at their last tokens",
            "give step_scores, or use pool = steps",
        ),
        (
            prm && marks && steps.is_none() && c.streams[..c.num_process].iter().any(|s| s.missing == Missing::Exclude),
            "batch.step_marks is given with missing = exclude, whose steps leave the scope as a whole",
            "give step_scores, or use missing = zero",
        ),
    ];
    for (found, what, mend) in refused {
        if found {
            return refuse!(PASSRL_ERR_CONFLICT, "{what}: it is not served for rollouts in pieces; {mend}, or give whole rollouts");
        }
    }
    Ok(())
}

/// Lists of chunks have no place in a piece.
pub(super) fn outputs(o: &Outputs) -> Result<()> {
    for (given, name) in [(o.chunk_ends.is_some(), "chunk_ends"), (o.chunk_values.is_some(), "chunk_values")] {
        if given {
            return refuse!(PASSRL_ERR_CONFLICT, "outputs.{name} is given and rollouts come in pieces, where a chunk may have tokens in several calls; pass NULL");
        }
    }
    Ok(())
}

/// All pieces of the batch: does every rollout that has a piece have all its tokens, once, from pieces that were given the same rollout? `rows` are those of rollout 0, 1, ...
pub fn table(rows: &[i64], limits: &Limits) -> Result<()> {
    for (number, rows) in rows.chunks_exact(limits.rollout_pieces * WORDS).enumerate() {
        rollout(number, Rows(rows))?;
    }
    Ok(())
}

/// Are the pieces of a call among those that the table was made from?
pub fn known(rows: &[i64], problem: &Problem, limits: &Limits) -> Result<()> {
    let Some(pieces) = &problem.pieces else { return Ok(()) };
    let each = limits.rollout_pieces * WORDS;
    for i in 0..pieces.count {
        let (at, row, index) = (problem.extent(i), problem.row(i), pieces.index.int(i).max(0) as usize);
        let number = pieces.numbers.map_or(row, |n| n.int(row).max(0) as usize);
        let found = rows.chunks_exact(each.max(1)).nth(number).filter(|_| index < limits.rollout_pieces).map(|rows| Rows(rows).row(index));
        let own = [1, at.begin as i64, (at.len + at.tail) as i64, at.whole as i64];
        if found.is_none_or(|found| found[..own.len()] != own) {
            return refuse!(
                PASSRL_ERR_OFFSETS,
                "piece {i} of the call (batch.piece_index {index} of rollout {number} of the batch, {} slots from {}) was not in phase 0 as it is here; the pieces of every phase and of \
                 passrl_plan_apply are those of phase 0",
                at.len + at.tail, at.begin
            );
        }
    }
    Ok(())
}

fn rollout(number: usize, rows: Rows) -> Result<()> {
    let there = |j: usize| rows.row(j)[TIMES] != 0;
    let Some(any) = (0..rows.len()).rev().find(|j| there(*j)) else { return Ok(()) };
    let mut end = 0;
    let first = rows.row(0);
    for j in 0..=any {
        let row = rows.row(j);
        match row[TIMES] {
            1 => (),
            0 => {
                return refuse!(
                    PASSRL_ERR_OFFSETS,
                    "rollout {number} of the batch (batch.rollout_index) has a piece with batch.piece_index {any} and none with {j}; every piece must come, from some call or rank"
                );
            }
            times => {
                return refuse!(
                    PASSRL_ERR_OFFSETS,
                    "rollout {number} of the batch (batch.rollout_index) has {times} pieces with batch.piece_index {j}; each piece must come once, over all calls and ranks"
                );
            }
        }
        if row[WHOLE] != first[WHOLE] {
            return refuse!(PASSRL_ERR_OFFSETS, "batch.lengths of rollout {number} of the batch is {} with piece 0 and {} with piece {j}; it is the whole rollout's", first[WHOLE], row[WHOLE]);
        }
        if row[INPUTS] != first[INPUTS] {
            return refuse!(
                PASSRL_ERR_OFFSETS,
                "rollout {number} of the batch has other per-rollout inputs (group, rewards, flags, number of steps) with piece {j} than with piece 0; give the same with every piece"
            );
        }
        if row[BEGIN] != end {
            let what = if row[BEGIN] < end { "overlap" } else { "leave tokens out" };
            return refuse!(
                PASSRL_ERR_OFFSETS,
                "batch.piece_begin of piece {j} of rollout {number} of the batch is {}; the pieces before it end at {end}: they {what}",
                row[BEGIN]
            );
        }
        end = end.saturating_add(row[SLOTS]);
    }
    if end < first[WHOLE] {
        return refuse!(
            PASSRL_ERR_OFFSETS,
            "rollout {number} of the batch has {} tokens (batch.lengths) and its {} piece(s) end at {end}; every piece must come, from some call or rank",
            first[WHOLE], any + 1
        );
    }
    Ok(())
}
