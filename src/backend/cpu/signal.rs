//! Token values of a rollout: the process signal as given, or formed from log-probabilities (OPD, G-OPD), with the rule for missing values.
use super::scope::Scope;
use crate::model::array::Row;
use crate::model::batch::{Extent, Problem, Process};
use crate::model::config::Missing;
use crate::numerics::simd::{Simd, dispatch};

/// Log-probabilities below it are counted: a sign of a masked or broken softmax.
pub const LOW_LOGP: f64 = -1e4;

dispatch! {
    /// s = teacher - policy in f64, rounded once. An infinite log-probability is a finding, even where the difference is NaN.
    fn opd(policy: &[f64], teacher: &[f64], to: &mut [f32]) {
        for ((p, t), s) in policy.iter().zip(teacher).zip(to) {
            *s = if p.is_infinite() || t.is_infinite() { f32::INFINITY } else { (t - p) as f32 };
        }
    }
}

dispatch! {
    /// s = lambda (teacher - base) - (policy - base) in f64, rounded once.
    fn g_opd(lambda: f64, policy: &[f64], teacher: &[f64], base: &[f64], to: &mut [f32]) {
        for (((p, t), b), s) in policy.iter().zip(teacher).zip(base).zip(to) {
            let infinite = p.is_infinite() || t.is_infinite() || b.is_infinite();
            *s = if infinite { f32::INFINITY } else { (lambda * (t - b) - (p - b)) as f32 };
        }
    }
}

/// Where log-probabilities lie.
fn logps(problem: &Problem, at: &Extent) -> Option<(Row, Row, Option<Row>)> {
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
            if missing != Missing::Zero && row.dtype() == crate::model::array::DType::F32 {
                if let Some(slice) = row.slice::<f32>() {
                    // The caller's memory outlives the run, and is written in place only after this rollout's values have been used.
                    // SAFETY: as said; `check` has seen the extent.
                    return unsafe { std::slice::from_raw_parts(slice.as_ptr(), len) };
                }
            }
            row.read_f32(to);
        }
        Process::LogProbs { .. } => {
            let Some((policy, teacher, base)) = logps(problem, at) else { return to };
            let [a, b, c] = wide;
            let (a, b, c) = (&mut a[..len], &mut b[..len], &mut c[..len]);
            policy.read_f64(a);
            teacher.read_f64(b);
            match base {
                None => opd(simd, a, b, to),
                Some(base) => {
                    base.read_f64(c);
                    g_opd(simd, opd_lambda, a, b, c, to);
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
pub fn count_low(problem: &Problem, at: &Extent, scope: &Scope) -> i64 {
    let Some((policy, teacher, base)) = logps(problem, at) else { return 0 };
    let mut low = 0;
    scope.runs(0, at.len, |a, b| {
        for row in [Some(policy), Some(teacher), base].into_iter().flatten() {
            low += (a..b).filter(|t| row.f64(*t) < LOW_LOGP).count() as i64;
        }
    });
    low
}

/// Raw NaN values of process stream p in scope, before `missing = zero` replaces them.
pub fn count_missing(problem: &Problem, at: &Extent, p: usize, scope: &Scope) -> i64 {
    let mut missing = 0;
    let rows: [Option<Row>; 3] = match &problem.process {
        Process::Signal(arrays) => [arrays[p].as_ref().map(|a| at.of(a)), None, None],
        Process::LogProbs { .. } => logps(problem, at).map_or([None; 3], |(p, t, b)| [Some(p), Some(t), b]),
        _ => [None; 3],
    };
    scope.runs(0, at.len, |a, b| {
        missing += (a..b).filter(|t| rows.iter().flatten().any(|row| row.f64(*t).is_nan())).count() as i64;
    });
    missing
}
