//! Reports: from the backend's counts, their status, their sum.
use crate::abi::constants::PASSRL_MAX_STREAMS;
use crate::abi::status::*;
use crate::abi::types::passrl_report;
use crate::error::{self, Result};
use crate::model::config::OUTCOME;
use crate::model::names::StreamNames;
use crate::model::report::{self, Report};
use crate::refuse;

pub fn from_model(r: &Report) -> passrl_report {
    let (finding, rollout, group, stream) = r.first.map_or((0, -1, -1, -1), |f| (f.finding, f.rollout, f.group, f.stream));
    passrl_report {
        struct_size: size_of::<passrl_report>() as u32,
        reserved0: 0,
        findings: r.findings,
        first_finding: finding,
        first_rollout: rollout,
        first_group: group,
        first_stream: stream,
        rollouts: r.rollouts,
        tokens: r.tokens,
        chunks: r.chunks,
        degenerate_groups: r.degenerate_groups,
        bad_groups: r.bad_groups,
        violating_groups: r.violating_groups,
        missing_values: r.missing_values,
        nonfinite_values: r.nonfinite_values,
        low_logps: r.low_logps,
        clipped_tokens: r.clipped_tokens,
        overflowed_tokens: r.overflowed_tokens,
        bad_steps: r.bad_steps,
        lost_deviations: r.lost_deviations,
        sum_advantages: r.sum_advantages,
        sum_squares: r.sum_squares,
    }
}

/// What a finding is, in words, and its status.
pub(super) fn kind(finding: i64) -> (passrl_status, &'static str) {
    match finding {
        report::NONFINITE => (PASSRL_FINDING_NONFINITE, "has a value that is not finite"),
        report::MISSING => (PASSRL_FINDING_MISSING, "has a NaN where missing = error (set missing = zero or exclude to allow it)"),
        report::BAD_STEPS => (PASSRL_FINDING_BAD_STEPS, "has steps that do not fit (ends decrease, or lie outside the rollout)"),
        report::SINGLETON => (PASSRL_FINDING_SINGLETON, "has a single element where singleton = refuse"),
        report::BAD_OFFSETS => (
            PASSRL_FINDING_BAD_OFFSETS,
            "has offsets, lengths or a group index in device memory that do not fit the arrays or the plan's limits",
        ),
        report::COLLECTIVE => (PASSRL_ERR_COLLECTIVE, "is of a run on which the ranks did not agree"),
        _ => (PASSRL_FINDING_TOO_LARGE, "has more elements than exact sums allow"),
    }
}

/// The same of the finding of a group of which no rollout is at fault here.
fn of_group(finding: i64) -> &'static str {
    match finding {
        report::NONFINITE => "has a value that is not finite, or is given a mean or deviation that is not finite or a deviation below 0",
        _ => kind(finding).1,
    }
}

/// Inputs of a rollout that are no streams: a value of theirs that is not finite is told of the stream that they stand beside.
fn beside(finding: i64, stream: i64) -> &'static str {
    match (finding, stream) {
        (report::NONFINITE, 0) => " (or values, rewards, probabilities of its tokens, its bootstrap or lambda)",
        (report::NONFINITE, stream) if stream == OUTCOME as i64 => " (or its baseline)",
        _ => "",
    }
}

/// Status of a report; its sentence goes to the last error and calls streams by the table's names.
pub fn status(r: &passrl_report) -> passrl_status {
    status_of(r, &StreamNames::TABLE)
}

/// Likewise, with the names of a plan.
pub fn status_of(r: &passrl_report, names: &StreamNames) -> passrl_status {
    if r.first_finding == 0 {
        return PASSRL_OK;
    }
    if r.first_finding == report::COLLECTIVE {
        return super::ranks::found(r.first_stream, r.first_rollout, r.first_group);
    }
    let (status, words) = kind(r.first_finding);
    let row = usize::try_from(r.first_stream).ok().filter(|s| *s < PASSRL_MAX_STREAMS).map(|row| names.of(row));
    let stream: &dyn std::fmt::Display = row.as_ref().map_or(&"?", |name| name);
    if r.first_finding == report::BAD_OFFSETS && r.first_group < 0 {
        error::set(format_args!(
            "done, with findings: cu_seqlens, lengths or group indices in device memory do not fit the arrays or the plan's limits; the rollouts concerned (of offsets: all) have advantage 0"
        ));
    } else if r.first_rollout >= 0 {
        error::set(format_args!(
            "done, with findings: rollout {} of group {} {words}, stream {stream}{}; {} group(s) have advantage 0",
            r.first_rollout,
            r.first_group,
            beside(r.first_finding, r.first_stream),
            r.bad_groups
        ));
    } else {
        error::set(format_args!("done, with findings: group {} {}, stream {stream}; {} group(s) have advantage 0", r.first_group, of_group(r.first_finding), r.bad_groups));
    }
    status
}

/// `strict`: findings refuse the run.
pub fn strict(r: &Report) -> Result<()> {
    let found = from_model(r);
    if status(&found) == PASSRL_OK {
        return Ok(());
    }
    let (_, words) = kind(found.first_finding);
    let (rollout, group, bad) = (found.first_rollout, found.first_group, found.bad_groups);
    if rollout < 0 {
        let words = of_group(found.first_finding);
        return refuse!(PASSRL_ERR_DATA, "strict: group {group} {words}; {bad} group(s) have findings, nothing was written");
    }
    refuse!(PASSRL_ERR_DATA, "strict: rollout {rollout} of group {group} {words}; {bad} group(s) have findings, nothing was written")
}

/// `into` += `other`; the first finding of `into` stays.
pub fn merge(into: &mut passrl_report, other: &passrl_report) {
    into.findings |= other.findings;
    if into.first_finding == 0 {
        into.first_finding = other.first_finding;
        into.first_rollout = other.first_rollout;
        into.first_group = other.first_group;
        into.first_stream = other.first_stream;
    }
    macro_rules! add {
        // Counts are the caller's memory: a damaged one must not stop the process.
        ($($field:ident)*) => {$(into.$field = into.$field.saturating_add(other.$field);)*};
    }
    add!(rollouts tokens chunks degenerate_groups bad_groups violating_groups missing_values nonfinite_values low_logps);
    add!(clipped_tokens overflowed_tokens bad_steps lost_deviations);
    into.sum_advantages += other.sum_advantages;
    into.sum_squares += other.sum_squares;
}
