//! Token values of a rollout: the process signal as given, or formed from log-probabilities (OPD, G-OPD), with the rule for missing values.
use super::logps::{self, LOW_LOGP, Logp, by_logp};
use super::scope::Scope;
use crate::model::array::{DType, Row};
use crate::model::batch::{Extent, Problem, Process};
use crate::model::config::Missing;
use crate::numerics::simd::Simd;

/// Signals of log-probabilities that lie side by side and are all of type T; `None`: they are not.
fn form<T: Logp>(simd: Simd, lambda: f64, policy: &Row, teacher: &Row, base: Option<&Row>, to: &mut [f32]) -> Option<()> {
    let (p, t) = (logps::slice::<T>(policy)?, logps::slice::<T>(teacher)?);
    match base {
        None => T::opd(simd, p, t, to),
        Some(base) => T::g_opd(simd, lambda, p, t, logps::slice::<T>(base)?, to),
    }
    Some(())
}

/// Where log-probabilities lie.
fn rows(problem: &Problem, at: &Extent) -> Option<(Row, Row, Option<Row>)> {
    match &problem.process {
        Process::LogProbs { policy, teacher, base } => Some((at.of(policy), at.of(teacher), base.as_ref().map(|b| at.of(b)))),
        _ => None,
    }
}

/// Values of process stream p, one a token (whatever its scope): the caller's memory where that will do, else `to`.
pub fn load<'s>(
    simd: Simd,
    problem: &Problem,
    at: &Extent,
    p: usize,
    missing: Missing,
    opd_lambda: f64,
    to: &'s mut [f32],
    wide: &mut [&mut [f64]; 3],
) -> &'s [f32] {
    let len = at.len;
    let to = &mut to[..len];
    match &problem.process {
        Process::Signal(arrays) => {
            let Some(row) = arrays[p].as_ref().map(|a| at.of(a)) else {
                to.fill(0.0);
                return to;
            };
            if missing != Missing::Zero && row.dtype() == DType::F32 {
                if let Some(slice) = row.slice::<f32>() {
                    // The caller's memory outlives the run, and is written in place only after this rollout's values have been used.
                    // SAFETY: as said; `check` has seen the extent.
                    return unsafe { std::slice::from_raw_parts(slice.as_ptr(), len) };
                }
            }
            row.read_f32(to);
        }
        Process::LogProbs { .. } => {
            let Some((policy, teacher, base)) = rows(problem, at) else { return to };
            let formed = by_logp!(policy.dtype(), T => form::<T>(simd, opd_lambda, &policy, &teacher, base.as_ref(), to));
            if formed.is_none() {
                let [a, b, c] = wide;
                let (a, b, c) = (&mut a[..len], &mut b[..len], &mut c[..len]);
                policy.read_f64(a);
                teacher.read_f64(b);
                match base {
                    None => f64::opd(simd, a, b, to),
                    Some(base) => {
                        base.read_f64(c);
                        f64::g_opd(simd, opd_lambda, a, b, c, to);
                    }
                }
            }
        }
        Process::None | Process::Scores(_) | Process::Returns => to.fill(0.0),
    }
    if missing == Missing::Zero {
        to.iter_mut().for_each(|x| *x = if x.is_nan() { 0.0 } else { *x });
    }
    to
}

/// NaN and infinite values in scope.
pub fn count_bad(values: &[f32], scope: &Scope) -> (i64, i64) {
    let (mut nan, mut infinite) = (0, 0);
    scope.runs(0, values.len(), |a, b| {
        for x in &values[a..b] {
            nan += i64::from(x.is_nan());
            infinite += i64::from(x.is_infinite());
        }
    });
    (nan, infinite)
}

/// Log-probabilities in scope that are below `LOW_LOGP`.
pub fn count_low(simd: Simd, problem: &Problem, at: &Extent, scope: &Scope) -> i64 {
    let Some((policy, teacher, base)) = rows(problem, at) else { return 0 };
    let mut low = 0;
    for row in [Some(policy), Some(teacher), base].into_iter().flatten() {
        scope.runs(0, at.len, |a, b| {
            let found = by_logp!(row.dtype(), T => row.slice().map(|xs| T::low(simd, &xs[a..b])));
            low += found.unwrap_or_else(|| (a..b).filter(|t| row.f64(*t) < LOW_LOGP).count() as i64);
        });
    }
    low
}

/// Raw NaN values of process stream p in scope, before `missing = zero` replaces them.
pub fn count_missing(problem: &Problem, at: &Extent, p: usize, scope: &Scope) -> i64 {
    let mut missing = 0;
    let rows: [Option<Row>; 3] = match &problem.process {
        Process::Signal(arrays) => [arrays[p].as_ref().map(|a| at.of(a)), None, None],
        Process::LogProbs { .. } => rows(problem, at).map_or([None; 3], |(p, t, b)| [Some(p), Some(t), b]),
        _ => [None; 3],
    };
    scope.runs(0, at.len, |a, b| {
        missing += (a..b).filter(|t| rows.iter().flatten().any(|row| row.f64(*t).is_nan())).count() as i64;
    });
    missing
}
