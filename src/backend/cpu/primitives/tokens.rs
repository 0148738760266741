//! Primitives on token-shaped arrays: returns, GAE, Divide-Length, OPD signals, whitening.
use super::{Scratch, counts, scope_of, write};
use crate::backend::cpu::expand;
use crate::backend::cpu::kl_reward;
use crate::backend::cpu::returns::{divide, scan};
use crate::backend::cpu::scope::Scope;
use crate::backend::cpu::signal;
use crate::backend::cpu::whiten::Whitening;
use crate::model::array::{Array, Row};
use crate::model::batch::{Problem, Process};
use crate::model::config::{Config, Missing};
use crate::model::context::Memory;
use crate::model::primitives::{Call, Found, What};
use crate::numerics::exact::{self, Extremes, Grid, STEP_BITS, Sums};
use crate::numerics::fpmode::with_default_mode;
use crate::numerics::simd::Simd;
use crate::numerics::table::{decay_powers, power_at};
use crate::plan::primitives::Workspace;

/// In-scope values of a line rounded to f32, in order, to `to`; how many, and the offset of the first that is not finite.
fn gather(row: &Row, scope: &Scope, line: &mut [f32], to: &mut [f64]) -> (usize, Option<usize>) {
    let line = &mut line[..row.len()];
    row.read_f32(line);
    let (mut n, mut bad) = (0, None);
    scope.runs(0, row.len(), |a, b| {
        bad = bad.or((a..b).find(|t| !line[*t].is_finite()));
        to[n..n + b - a].iter_mut().zip(&line[a..b]).for_each(|(to, x)| *to = *x as f64);
        n += b - a;
    });
    (n, bad)
}

fn pad_ends(arrays: &[Option<Array>], problem: &Problem) {
    arrays.iter().flatten().for_each(|a| expand::pad_ends(a, problem));
}

/// G_t = r_t + gamma G_(t+1).
pub fn discounted_returns(simd: Simd, call: &Call<1, 1>, gamma: f64, w: &Workspace, memory: Memory) -> Found {
    let (problem, mut found) = (&call.problem, Found::default());
    let ([Some(rewards)], [Some(out)]) = (&call.inputs, &call.outputs) else { return found };
    with_default_mode(|| {
        let s = Scratch::new(w, memory);
        let powers = decay_powers(gamma);
        for i in 0..problem.rollouts {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let (n, bad) = gather(&at.of(rewards), &scope, s.line, s.wide[0]);
            let y = &mut s.wide[0][..n];
            if let Some(t) = bad {
                found.note(What::NonFinite, "rewards", i, Some(t));
                y.fill(0.0);
            } else {
                scan(simd, y, &powers);
            }
            write(simd, out, problem, &at, &scope, y, true);
        }
        pad_ends(&call.outputs, problem);
        found
    })
}

/// delta = (r + gamma V+) - V, A = delta + gamma lam A+, returns = A + V.
pub fn gae(simd: Simd, call: &Call<3, 2>, gamma: f64, lam: f64, w: &Workspace, memory: Memory) -> Found {
    let (problem, mut found) = (&call.problem, Found::default());
    let ([Some(rewards), Some(values), bootstrap], [Some(advantages), returns]) = (&call.inputs, &call.outputs) else { return found };
    with_default_mode(|| {
        let mut s = Scratch::new(w, memory);
        let powers = decay_powers(gamma * lam);
        for i in 0..problem.rollouts {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let [d, v, _] = &mut s.wide;
            let (n, bad_reward) = gather(&at.of(rewards), &scope, s.line, d);
            let (_, bad_value) = gather(&at.of(values), &scope, s.line, v);
            let (d, v) = (&mut d[..n], &mut v[..n]);
            let after = if n > 0 { bootstrap.map_or(0.0, |b| b.f32(i) as f64) } else { 0.0 };
            let bad = match (bad_reward, bad_value) {
                (Some(t), _) => Some(("rewards", Some(t))),
                (_, Some(t)) => Some(("values", Some(t))),
                _ => (!after.is_finite()).then_some(("bootstrap", None)),
            };
            if let Some((argument, token)) = bad {
                found.note(What::NonFinite, argument, i, token);
                d.fill(0.0);
                v.fill(0.0);
            } else {
                let mut next = after;
                for t in (0..n).rev() {
                    d[t] = (d[t] + gamma * next) - v[t];
                    next = v[t];
                }
                scan(simd, d, &powers);
                v.iter_mut().zip(d.iter()).for_each(|(v, a)| *v += *a);
            }
            write(simd, advantages, problem, &at, &scope, d, true);
            if let Some(returns) = returns {
                write(simd, returns, problem, &at, &scope, v, true);
            }
        }
        pad_ends(&call.outputs, problem);
        found
    })
}

/// out_j = x_j (K - j + 1)^-k, a value a token, unrounded.
pub fn divide_length(simd: Simd, call: &Call<1, 1>, k: f64, w: &Workspace, memory: Memory) -> Found {
    let (problem, mut found) = (&call.problem, Found::default());
    let ([Some(x)], [Some(out)]) = (&call.inputs, &call.outputs) else { return found };
    with_default_mode(|| {
        let s = Scratch::new(w, memory);
        let [line, g, d] = s.wide;
        let most = call.longest;
        // n^-k for n = most down to 1: value j of K reads entry most - K + j.
        for (i, t) in s.table[..most].iter_mut().enumerate() {
            *t = power_at(k, (most - i) as u64);
        }
        for i in 0..problem.rollouts {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let line = &mut line[..at.len];
            at.of(x).read_f64(line);
            let (mut n, mut bad) = (0, None);
            scope.runs(0, at.len, |a, b| {
                bad = bad.or((a..b).find(|t| !line[*t].is_finite()));
                g[n..n + b - a].copy_from_slice(&line[a..b]);
                n += b - a;
            });
            let d = &mut d[..n];
            if let Some(t) = bad {
                found.note(What::NonFinite, "x", i, Some(t));
                d.fill(0.0);
            } else {
                divide(simd, &g[..n], &s.table[most - n..most], d);
            }
            write(simd, out, problem, &at, &scope, d, true);
        }
        pad_ends(&call.outputs, problem);
        found
    })
}

/// teacher - policy, or lambda (teacher - base) - (policy - base): formed in f64, rounded to f32.
pub fn opd_signal(simd: Simd, call: &Call<3, 1>, lambda: f64, w: &Workspace, memory: Memory) -> Found {
    let mut found = Found::default();
    let ([Some(policy), Some(teacher), base], [Some(out)]) = (call.inputs, &call.outputs) else { return found };
    let problem = &Problem { process: Process::LogProbs { policy, teacher, base }, num_process: 1, ..call.problem };
    with_default_mode(|| {
        let s = Scratch::new(w, memory);
        let mut wide = s.wide;
        for i in 0..problem.rollouts {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let line = signal::load(simd, problem, &at, 0, Missing::Error, lambda, s.line, &mut wide);
            let to = &mut wide[0];
            let (mut n, mut bad) = (0, None);
            scope.runs(0, at.len, |a, b| {
                bad = bad.or((a..b).find(|t| !line[*t].is_finite()));
                to[n..n + b - a].iter_mut().zip(&line[a..b]).for_each(|(to, s)| *to = *s as f64);
                n += b - a;
            });
            let to = &mut to[..n];
            if let Some(t) = bad {
                found.note(What::NonFinite, "the signal", i, Some(t));
                to.fill(0.0);
            }
            write(simd, out, problem, &at, &scope, to, true);
        }
        pad_ends(&call.outputs, problem);
        found
    })
}

/// Rewards less `kl_coef` times the divergence of policy and reference.
pub fn kl_in_reward(simd: Simd, call: &Call<3, 1>, config: &Config, w: &Workspace, memory: Memory) -> Found {
    let mut found = Found::default();
    let ([Some(policy), Some(reference), rewards], [Some(out)]) = (call.inputs, &call.outputs) else { return found };
    let problem = &call.problem;
    with_default_mode(|| {
        let s = Scratch::new(w, memory);
        let [p, r, to] = s.wide;
        for i in 0..problem.rollouts {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let (first, end) = (scope.first, scope.end);
            let (p, r, kl) = (&mut p[first..end], &mut r[first..end], &mut s.line[..at.len]);
            let own = at.part(first, end);
            own.of(&policy).read_f64(p);
            own.of(&reference).read_f64(r);
            kl_reward::divergence(simd, config.kl_in_reward, -config.kl_log_ratio_clamp, config.kl_clamp, p, r, &mut kl[first..end]);
            let row = rewards.as_ref().map(|rewards| at.of(rewards));
            let (mut n, mut bad) = (0, None);
            scope.runs(0, at.len, |a, b| {
                for t in a..b {
                    let reward = row.as_ref().map_or(0.0, |row| row.f32(t));
                    bad = bad.or((!reward.is_finite() || !kl[t].is_finite()).then_some(t));
                    to[n] = reward as f64 - config.kl_coef * kl[t] as f64;
                    n += 1;
                }
            });
            let to = &mut to[..n];
            if let Some(t) = bad {
                found.note(What::NonFinite, "a log-probability or reward", i, Some(t));
                to.fill(0.0);
            }
            write(simd, out, problem, &at, &scope, to, true);
        }
        pad_ends(&call.outputs, problem);
        found
    })
}

/// (x - mean) inv over the in-scope tokens of the batch, x rounded to f32.
pub fn whiten(simd: Simd, call: &Call<1, 1>, config: &Config, w: &Workspace, memory: Memory) -> Found {
    let (problem, mut found) = (&call.problem, Found::default());
    let ([Some(x)], [Some(out)]) = (&call.inputs, &call.outputs) else { return found };
    with_default_mode(|| {
        let mut s = Scratch::new(w, memory);
        // The line of rollout i is read in each pass: the workspace does not grow with the batch.
        let load = |i: usize, s: &mut Scratch, each: &mut dyn FnMut(&[f32])| -> Extremes {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let line = &mut s.line[..at.len];
            at.of(x).read_f32(line);
            let mut own = Extremes::EMPTY;
            scope.runs(0, at.len, |a, b| own.add(&exact::extremes(simd, &line[a..b])));
            if !own.is_bad() {
                scope.runs(0, at.len, |a, b| each(&line[a..b]));
            }
            own
        };
        let (mut extremes, mut sums) = (Extremes::EMPTY, Sums::default());
        for i in (0..problem.rollouts).filter(|i| counts(problem, *i)) {
            let own = load(i, &mut s, &mut |_| ());
            if !own.is_bad() {
                extremes.add(&own);
            }
        }
        let grid = Grid::new(STEP_BITS, extremes.absmax);
        for i in (0..problem.rollouts).filter(|i| counts(problem, *i)) {
            load(i, &mut s, &mut |run| exact::sums_narrow(simd, &grid, run, &mut [], &mut sums));
        }
        let whitening = Whitening::new(config, &extremes, &sums);
        for i in 0..problem.rollouts {
            let at = problem.extent(i);
            let scope = scope_of(simd, problem, i, &at, s.bits);
            let (n, bad) = gather(&at.of(x), &scope, s.line, s.wide[0]);
            let values = &mut s.wide[0][..n];
            if let Some(t) = bad {
                found.note(What::NonFinite, "x", i, Some(t));
                values.fill(0.0);
            } else {
                whitening.apply(values);
            }
            write(simd, out, problem, &at, &scope, values, config.fill_padding);
        }
        if config.fill_padding {
            pad_ends(&call.outputs, problem);
        }
        found
    })
}
