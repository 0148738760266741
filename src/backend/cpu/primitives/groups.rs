//! Primitives on per-rollout values: statistics and standardisation by group, and the flags of the groups.
use super::{Scratch, absent, counts, each_group};
use crate::backend::cpu::members::Members;
use crate::backend::cpu::outputs::{put_float, put_int};
use crate::backend::cpu::standard::{Beside, Set, Standard};
use crate::model::array::{Array, DType};
use crate::model::batch::Problem;
use crate::model::config::{Config, FORMAT, Kind, MAX_STREAMS, Missing, OUTCOME, Singleton, Stream};
use crate::model::context::Memory;
use crate::model::flags;
use crate::model::primitives::Call;
use crate::model::report::{self, Report};
use crate::numerics::convert::OutElem;
use crate::numerics::exact::{self, Extremes, Grid, ROLLOUT_BITS, Sums};
use crate::numerics::fpmode::with_default_mode;
use crate::plan::primitives::Workspace;
use half::{bf16, f16};

/// Elements that exact sums allow.
const MOST: i64 = 1 << 17;

/// Value of rollout i: `None` where it is missing and left out. NaN and infinity come as they are.
fn value(x: &Array, i: usize, missing: Missing) -> Option<f32> {
    let x = x.f32(i);
    match missing {
        Missing::Zero if x.is_nan() => Some(0.0),
        Missing::Exclude if x.is_nan() => None,
        _ => Some(x),
    }
}

/// One stream in one group.
struct Statistics {
    standard: Standard,
    finding: Option<i64>,
    /// A value is missing and allowed to be.
    missing: i64,
    nonfinite: i64,
    /// First rollout with a finding of its own, and what.
    first: Option<(usize, i64)>,
}

fn statistics(problem: &Problem, x: &Array, stream: &Stream, members: Members) -> Statistics {
    let (mut extremes, mut sums) = (Extremes::EMPTY, Sums::default());
    let (mut missing, mut nonfinite, mut first, mut worst, mut n) = (0, 0, None, 0, 0);
    for i in members.iter().filter(|i| !absent(problem, *i)) {
        missing += i64::from(x.f32(i).is_nan() && stream.missing != Missing::Error);
        let Some(v) = value(x, i, stream.missing) else { continue };
        let mut one = Extremes::EMPTY;
        one.push(v);
        if one.is_bad() {
            nonfinite += 1;
            worst = worst.max(one.absmax);
            first.get_or_insert((i, if v.is_nan() { report::MISSING } else { report::NONFINITE }));
        } else if counts(problem, i) {
            extremes.add(&one);
            n += 1;
        }
    }
    extremes.absmax = extremes.absmax.max(worst);
    let grid = Grid::new(ROLLOUT_BITS, extremes.absmax);
    if n < MOST {
        for i in members.iter().filter(|i| counts(problem, *i)) {
            if let Some(v) = value(x, i, stream.missing).filter(|v| v.is_finite()) {
                exact::sums_wide(&grid, &[v], None, &extremes, &mut sums);
            }
        }
    }
    let standard = Standard::new(stream, ROLLOUT_BITS, &extremes, &sums, Beside::default());
    let finding = if extremes.absmax >= exact::INFINITE {
        Some(if extremes.absmax >= exact::NAN { report::MISSING } else { report::NONFINITE })
    } else if n >= MOST {
        Some(report::TOO_LARGE)
    } else {
        (stream.singleton == Singleton::Refuse && standard.set == Set::Single).then_some(report::SINGLETON)
    };
    Statistics { standard, finding, missing, nonfinite, first }
}

/// Writes one float of any output type.
///
/// # Safety
/// The slot is this thread's.
unsafe fn put(to: &Array, i: usize, x: f64) {
    let (row, mut over) = (to.whole(), 0);
    // SAFETY: by the caller's word.
    unsafe {
        match row.dtype() {
            DType::F32 => row.put(i, f32::from_f64(x, &mut over)),
            DType::Bf16 => row.put(i, <bf16 as OutElem>::from_f64(x, &mut over)),
            DType::F16 => row.put(i, <f16 as OutElem>::from_f64(x, &mut over)),
            _ => row.put(i, f64::from_f64(x, &mut over)),
        }
    }
}

/// Inputs: x. Outputs: N(x; S) a rollout; count, mean, std, absmax a group.
pub fn group_standardize(call: &Call<1, 5>, stream: &Stream, w: &Workspace, memory: Memory) -> Report {
    let (problem, mut found) = (&call.problem, Report::default());
    let ([Some(x)], [out, count, mean, std, absmax]) = (&call.inputs, &call.outputs) else { return found };
    with_default_mode(|| {
        let s = Scratch::new(w, memory);
        each_group(problem, s.order, s.starts, |g, members| {
            let set = statistics(problem, x, stream, members);
            let standard = &set.standard;
            if let Some(finding) = set.finding {
                found.bad_groups += 1;
                let (rollout, finding) = set.first.map_or((None, finding), |(i, finding)| (Some(i), finding));
                found.find(finding, g, rollout, OUTCOME);
            }
            // SAFETY: one thread; x of a rollout is read before its result is written (in place), the sums were taken before.
            unsafe {
                for i in members.iter() {
                    let mut lost = 0;
                    let r = match value(x, i, stream.missing) {
                        Some(v) if set.finding.is_none() && !absent(problem, i) => {
                            let own = || {
                                let mut own = Sums::default();
                                exact::sums_wide(&standard.grid, &[v], None, &standard.extremes, &mut own);
                                own
                            };
                            let apply = standard.resolve(counts(problem, i), own, &mut lost);
                            standard.one(apply, v, &mut lost)
                        }
                        _ => 0.0,
                    };
                    if let Some(out) = out {
                        put(out, i, r);
                    }
                }
                let known = !standard.extremes.is_bad() && standard.sums.n > 0;
                let (m, d) = if known { standard.reported() } else { (0.0, 0.0) };
                let largest = if known { standard.extremes.absmax_value() as f64 } else { 0.0 };
                if let Some(count) = count {
                    put_int(&count.whole(), g, if known { standard.sums.n } else { 0 });
                }
                for (to, x) in [(mean, m), (std, d), (absmax, largest)] {
                    if let Some(to) = to {
                        put_float(&to.whole(), g, x);
                    }
                }
            }
        });
        found
    })
}

/// `PASSRL_ROLLOUT_*` bits that the per-rollout streams tell, but that of the group.
fn rollout_bits(problem: &Problem, config: &Config, i: usize) -> u32 {
    if absent(problem, i) {
        return flags::ROLLOUT_ABSENT | flags::ROLLOUT_NO_SCOPE;
    }
    let mut bits = 0;
    let mut there = false;
    for (s, x) in problem.rollout_streams.iter().enumerate() {
        let Some(x) = x else { continue };
        let missing = config.streams[OUTCOME + s].missing;
        bits |= if x.f32(i).is_nan() && missing != Missing::Error { flags::ROLLOUT_MISSING } else { 0 };
        if let Some(v) = value(x, i, missing) {
            there = true;
            bits |= if v.is_finite() { 0 } else { flags::ROLLOUT_NONFINITE };
        }
    }
    if problem.format_ok.is_some_and(|ok| !ok.flag(i)) {
        bits |= flags::ROLLOUT_FORMAT_VIOLATING;
    }
    // With a process signal to come the rollout may still have a value.
    bits | if config.kind == Kind::None && !there { flags::ROLLOUT_NO_STREAM } else { 0 }
}

/// Outputs: flags of each group and stream, flags of each rollout.
pub fn group_flags(call: &Call<0, 2>, config: &Config, w: &Workspace, memory: Memory) -> Report {
    let (problem, mut r) = (&call.problem, Report::default());
    with_default_mode(|| {
        let s = Scratch::new(w, memory);
        each_group(problem, s.order, s.starts, |g, members| {
            let mut found = [0i32; MAX_STREAMS];
            let (mut bad, mut own, mut of_group) = (false, None, None);
            for (s, x) in problem.rollout_streams.iter().enumerate() {
                let Some(x) = x else { continue };
                let row = OUTCOME + s;
                let set = statistics(problem, x, &config.streams[row], members);
                let (standard, flag) = (&set.standard, &mut found[row]);
                let broken = matches!(set.finding, Some(report::MISSING | report::NONFINITE));
                let large = set.finding == Some(report::TOO_LARGE);
                *flag |= if broken { flags::GROUP_NONFINITE } else { 0 };
                *flag |= if set.missing > 0 { flags::GROUP_MISSING } else { 0 };
                *flag |= if large { flags::GROUP_TOO_LARGE } else { 0 };
                if !broken && !large {
                    let n = standard.sums.n;
                    let degenerate = match n {
                        0 => flags::GROUP_EMPTY,
                        1 => flags::GROUP_SINGLE,
                        _ if standard.extremes.all_equal() => flags::GROUP_ZERO_VARIANCE,
                        _ => 0,
                    };
                    *flag |= degenerate;
                    r.degenerate_groups += i64::from(degenerate != 0 && !members.is_empty());
                }
                r.missing_values += set.missing;
                r.nonfinite_values += set.nonfinite;
                bad |= set.finding.is_some();
                if let Some((i, finding)) = set.first {
                    r.findings |= finding;
                    // The first rollout, not the first stream, is the group's first finding.
                    let new = (i, row, finding);
                    own = Some(own.map_or(new, |old: (usize, usize, i64)| old.min(new)));
                } else if let Some(finding) = set.finding {
                    of_group = of_group.or(Some((row, finding)));
                }
            }
            match (own, of_group) {
                (Some((i, row, finding)), _) => r.find(finding, g, Some(i), row),
                (None, Some((row, finding))) if !members.is_empty() => r.find(finding, g, None, row),
                _ => (),
            }
            let present = || members.iter().filter(|i| !absent(problem, *i));
            let violating = |i: usize| problem.format_ok.is_some_and(|ok| !ok.flag(i));
            let all_violating = present().next().is_some() && present().all(violating);
            found[FORMAT] |= if all_violating { flags::GROUP_ALL_VIOLATING } else { 0 };
            r.violating_groups += i64::from(all_violating);
            r.bad_groups += i64::from(bad && !members.is_empty());
            r.rollouts += present().count() as i64;
            if bad {
                found.iter_mut().for_each(|f| *f |= flags::GROUP_BAD);
            }
            // SAFETY: one thread; the outputs lie over no input.
            unsafe {
                if let Some(to) = &call.outputs[0] {
                    let line = to.line(g, 0, MAX_STREAMS, false);
                    found.iter().enumerate().for_each(|(s, f)| put_int(&line, s, *f as i64));
                }
                if let Some(to) = &call.outputs[1] {
                    for i in members.iter() {
                        let bits = rollout_bits(problem, config, i);
                        let with = if bad && bits & flags::ROLLOUT_ABSENT == 0 { flags::ROLLOUT_IN_BAD_GROUP } else { 0 };
                        put_int(&to.whole(), i, (bits | with) as i64);
                    }
                }
            }
        });
        r
    })
}
