//! Groups spread over ranks: the caller's collective, and what all ranks' words came to. Every rank judges the same words and comes to the same end.
use crate::abi::constants::{PASSRL_CPU, PASSRL_CUDA, PASSRL_RANKS_CALLS, PASSRL_RANKS_GROUPS, PASSRL_RANKS_OFFSETS, PASSRL_RANKS_PHASES, PASSRL_RANKS_PLANS, PASSRL_RANKS_REFUSED};
use crate::abi::status::*;
use super::names;
use crate::abi::types::{passrl_batch, passrl_collective, passrl_config};
use crate::error::{Result, set};
use crate::model::batch::{Problem, Process};
use crate::model::config::{Choice, Config, Limits, StepSets};
use crate::model::ranks::{CREATION, Header, LIMITS, WORDS, hash};
use crate::refuse;

pub fn collective(c: &passrl_collective) -> Result<()> {
    if c.reserved0 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "collective.reserved0 is {}; it must be 0", c.reserved0);
    }
    if ![PASSRL_CPU, PASSRL_CUDA].contains(&c.device_type) {
        return refuse!(PASSRL_ERR_VALUE, "collective.device_type is {}; it is PASSRL_CPU (1) or PASSRL_CUDA (2), the memory that all_reduce takes", c.device_type);
    }
    if c.reserved1 != 0 {
        return refuse!(PASSRL_ERR_VALUE, "collective.reserved1 is {}; it must be 0", c.reserved1);
    }
    if c.all_reduce.is_none() {
        return refuse!(PASSRL_ERR_NULL, "collective.all_reduce is NULL; it must reduce a buffer over the ranks, or pass no collective");
    }
    if c.size < 1 || !(0..c.size).contains(&c.rank) {
        return refuse!(PASSRL_ERR_VALUE, "collective.rank is {} and size {}; rank is 0 to size - 1", c.rank, c.size);
    }
    Ok(())
}

/// What all ranks must have the same: size, numerics, configuration, each limit.
pub fn agreed_of(size: i32, numerics: u32, config: &Config, l: &Limits) -> [i64; 3 + LIMITS.len()] {
    let limits = [
        l.rollouts, l.groups, l.tokens, l.rollout_tokens, l.steps, l.group_rollouts, l.group_elements, l.pieces, l.rollout_pieces, l.batch_rollouts,
    ]
    .map(|x| x as i64);
    let mut all = [0; 3 + LIMITS.len()];
    // Any number but the least, of which there is no complement above it.
    all[..3].copy_from_slice(&[size as i64, numerics as i64, (hash(&format!("{config:?}")) >> 1) as i64]);
    all[3..].copy_from_slice(&limits);
    all
}

/// The words of a plan's creation after the reduction. `false`: configurations differ, and the ranks have to ask each other in which field.
pub fn creation(words: &[i64; CREATION]) -> Result<bool> {
    if words[0] != 0 {
        return refuse!(PASSRL_ERR_COLLECTIVE, "the arguments of rank {} are refused (its own error says why); no rank has a plan", words[0] - 1);
    }
    for (i, pair) in words[1..].chunks_exact(2).enumerate() {
        let (most, least) = (pair[0], !pair[1]);
        if most == least {
            continue;
        }
        return match i {
            0 => refuse!(PASSRL_ERR_COLLECTIVE, "collective.size is {least} on some rank and {most} on another; it must be the same on all"),
            1 => refuse!(PASSRL_ERR_COLLECTIVE, "numerics version is {least} on some rank and {most} on another; use the same libpassrl.so on all"),
            2 => Ok(false),
            _ => refuse!(
                PASSRL_ERR_COLLECTIVE,
                "limits.{} is {least} on some rank and {most} on another; limits must be the same on all: give the largest",
                LIMITS[i - 3]
            ),
        };
    }
    Ok(true)
}

/// What one rank says of its configuration where those of the ranks differ: each field and its complement.
pub fn fields(config: &passrl_config) -> Vec<i64> {
    names::words(config).into_iter().flat_map(|x| [x, !x]).collect()
}

/// Those words after the reduction, with this rank's configuration: the fields that differ, by name.
pub fn differing(config: &passrl_config, words: &[i64]) -> Result<()> {
    let differ: Vec<usize> = words.chunks_exact(2).enumerate().filter(|(_, pair)| pair[0] != !pair[1]).map(|(i, _)| i).collect();
    let Some(first) = differ.first().copied() else {
        return refuse!(PASSRL_ERR_COLLECTIVE, "config differs between ranks; it must be the same on all");
    };
    let (name, text) = names::word_text(config, first);
    let others: Vec<String> = differ[1..].iter().take(4).map(|i| names::word_text(config, *i).0).collect();
    let more = if others.is_empty() { String::new() } else { format!("; also {}{}", others.join(", "), if differ.len() > 5 { ", ..." } else { "" }) };
    refuse!(
        PASSRL_ERR_COLLECTIVE,
        "config.{name} differs: {} on some rank and {} on another{more}; the configuration must be the same on all ranks",
        text(!words[2 * first + 1]), text(words[2 * first])
    )
}

/// A rank's batch says its groups by numbers of the whole batch.
pub fn batch(b: &passrl_batch) -> Result<()> {
    if b.group_size > 0 && b.num_rollouts > 0 {
        return refuse!(
            PASSRL_ERR_CONFLICT,
            "batch.group_size is {} with a collective, which would number this rank's groups from 0; give group_index, numbers of the whole batch",
            b.group_size
        );
    }
    Ok(())
}

/// What needs a group whole in one call, by name, and what to set instead.
fn whole_group_setting(c: &Config) -> (String, &'static str) {
    if c.step_sets == StepSets::StepGroup {
        return ("step_sets is step_group, whose sets are the steps of a group in one state".to_string(), "step_sets = group");
    }
    (format!("token_baseline is {}, which is made of the returns of all rollouts of a group", c.token_baseline.name()), "token_baseline = none")
}

/// Of each group the ranks that have rollouts of it (times 2^32) and the rollouts: is it on one alone, where it must be?
pub fn whole_groups(c: &Config, claims: &[i64]) -> Result<()> {
    let Some((group, claim)) = claims.iter().enumerate().find(|(_, claim)| **claim >> 32 > 1) else { return Ok(()) };
    let (what, mend) = whole_group_setting(c);
    refuse!(
        PASSRL_ERR_CONFLICT,
        "group {group} (batch.group_index) has rollouts on {} ranks; config.{what}: give all rollouts of a group to one rank, or set {mend}; nothing was written on any rank",
        claim >> 32
    )
}

/// The same over micro-batches: a group of this call has `here` of `all` rollouts, which `calls` calls had.
pub fn whole_group(c: &Config, group: usize, calls: i64, here: usize, all: usize) -> Result<()> {
    let (what, mend) = whole_group_setting(c);
    refuse!(
        PASSRL_ERR_CONFLICT,
        "group {group} has {here} rollouts in this call, and {all} in {calls} call(s) of passrl_partials_add; config.{what}: give all rollouts of a group in one micro-batch, or set {mend}"
    )
}

/// Which inputs the batch gives that change what the statistics are; `None`: no rollouts.
pub fn forms(p: &Problem) -> Option<i32> {
    if p.rollouts == 0 {
        return None;
    }
    let streams = p.rollout_streams.iter().enumerate().fold(0, |bits, (i, s)| bits | i32::from(s.is_some()) << i);
    let others = [p.format_ok.is_some(), p.baselines.is_some(), matches!(p.process, Process::Returns), p.token_rewards.is_some()];
    let others = others.iter().enumerate().fold(0, |bits, (i, given)| bits | i32::from(*given) << i);
    Some(streams | others << 12 | (p.num_process as i32) << 16)
}

/// What a report says where ranks did not agree on a run (on CUDA, where the header's words are judged on the device), as the sentence of this call, and its status.
pub fn found(why: i64, rank: i64, group: i64) -> passrl_status {
    match why {
        PASSRL_RANKS_GROUPS => {
            set(format_args!(
                "group {group} (batch.group_index) has rollouts on several ranks, or in several micro-batches; with config.step_sets = step_group or a token_baseline it must be whole in one: give all rollouts of a group to one rank, in one call; nothing was written on any rank"
            ));
            return PASSRL_ERR_CONFLICT;
        }
        PASSRL_RANKS_PHASES => {
            set(format_args!(
                "micro-batches were not given once to every phase of the partials buffer, in the phases' order; give every micro-batch to a phase before the first one to the next; nothing was written"
            ));
            return PASSRL_ERR_CONFLICT;
        }
        PASSRL_RANKS_REFUSED => set(format_args!("the arguments of rank {rank} are refused (its own error says why); nothing was written on any rank")),
        PASSRL_RANKS_OFFSETS => set(format_args!(
            "cu_seqlens, lengths or group offsets of rank {rank} do not fit its arrays or the plan's limits; nothing was written on any rank"
        )),
        PASSRL_RANKS_PLANS => set(format_args!("ranks run different plans on one communicator; every rank must run the plan made with the others'")),
        PASSRL_RANKS_CALLS => set(format_args!(
            "ranks are at different calls of the plan; every rank must call passrl_plan_run (or replay its graph) as often, with an empty batch where it has no data"
        )),
        _ => set(format_args!(
            "batches of the ranks give different inputs (process streams, outcome, format, extra, format_ok, baselines, token_rewards); give the same on every rank that has rollouts"
        )),
    }
    PASSRL_ERR_COLLECTIVE
}

/// The header's words after a reduction.
pub fn header(words: &[i32; WORDS]) -> Result<()> {
    let differ = |at: usize| words[at] != !words[at + 1];
    if words[Header::REFUSED] != 0 {
        let rank = words[Header::REFUSED] - 1;
        return if words[Header::NOTE] == Header::STRICT {
            refuse!(PASSRL_ERR_COLLECTIVE, "strict: the data of rank {rank} has findings (its own error says which); nothing was written on any rank")
        } else {
            refuse!(PASSRL_ERR_COLLECTIVE, "the arguments of rank {rank} are refused (its own error says why); nothing was written on any rank")
        };
    }
    if differ(0) {
        return refuse!(PASSRL_ERR_COLLECTIVE, "ranks run different plans on one communicator; every rank must run the plan made with the others'");
    }
    if differ(2) {
        return refuse!(
            PASSRL_ERR_COLLECTIVE,
            "ranks are at different calls of the plan, {} and {}; every rank must call passrl_plan_run as often, with an empty batch where it has no data",
            !words[3], words[2]
        );
    }
    // Ranks without rollouts say the least number twice.
    if words[5] != i32::MIN && differ(5) {
        return refuse!(
            PASSRL_ERR_COLLECTIVE,
            "batches of the ranks give different inputs (process streams, outcome, format, extra, format_ok, baselines, token_rewards); give the same on every rank that has rollouts"
        );
    }
    Ok(())
}
