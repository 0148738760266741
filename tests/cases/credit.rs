//! Rewards a token, scans and their lambdas, V-trace (rules 59 to 63).
use super::build::*;
use super::kl_reward::with_kl;
use super::{case, Case};
use crate::oracle::*;
use Input::*;

pub fn cases() -> Vec<Case> {
    let mut table = scans();
    table.extend(scan_values());
    table.extend(token_rewards());
    table.extend(lambdas());
    table.extend(over_chunks());
    table.extend(discounted());
    table.extend(vtrace());
    table
}

pub(super) fn rewards() -> Spec {
    Spec { format: false, ok: false, ..Spec::of(Nothing).continuous() }
}

pub(super) fn as_gae(c: &mut Config) {
    (c.credit, c.k, c.gamma, c.lam) = (Credit::Gae, 0.0, 0.99, 0.95);
}

pub(super) fn valued(input: Input) -> Spec {
    Spec { values: true, ..Spec::of(input).continuous() }
}

/// Gaps at the begin, in the middle and at the end, of several tokens, with ordinary values in them.
fn gap(b: &mut Batch, begin: bool, middle: bool, end: bool) {
    for r in &mut b.rollouts {
        let n = r.len;
        let hidden = |t: usize| (begin && t < n / 4) || (middle && (n / 2..n / 2 + n / 5).contains(&t)) || (end && t >= n - n / 4);
        r.mask = Some((0..n).map(|t| !hidden(t)).collect());
    }
}

fn scans() -> Vec<Case> {
    let mut table = Vec::new();
    // Every mask, every place of a gap, return-to-go and GAE.
    let names: [[&'static str; 8]; 2] = [
        [
            "scan_decay_begin", "scan_decay_middle", "scan_decay_end", "scan_decay_all", "scan_decay_gae_begin", "scan_decay_gae_middle",
            "scan_decay_gae_end", "scan_decay_gae_all",
        ],
        [
            "scan_none_begin", "scan_none_middle", "scan_none_end", "scan_none_all", "scan_none_gae_begin", "scan_none_gae_middle",
            "scan_none_gae_end", "scan_none_gae_all",
        ],
    ];
    for (mask, names) in [ScanMask::Decay, ScanMask::None].into_iter().zip(names) {
        for (n, name) in names.into_iter().enumerate() {
            let gae = n >= 4;
            let spec = Spec { values: gae, bootstrap: gae, token_rewards: n % 2 == 1, ..rewards() };
            table.push(case(name, spec, move |c, b| {
                gap(b, n % 4 == 0 || n % 4 == 3, n % 4 == 1 || n % 4 == 3, n % 4 >= 2);
                (c.chunk, c.k, c.gamma, c.scan_mask) = (Chunk::Token, 0.0, 0.93, mask);
                if gae {
                    as_gae(c);
                }
            }));
        }
    }
    table
}

fn scan_values() -> Vec<Case> {
    let token = |c: &mut Config, mask: ScanMask| (c.chunk, c.k, c.gamma, c.scan_mask) = (Chunk::Token, 0.0, 0.9, mask);
    let gae = |c: &mut Config, mask: ScanMask| {
        as_gae(c);
        c.scan_mask = mask;
    };
    vec![
        case("scan_carry_is_the_default", rewards().holes(), move |c, _| token(c, ScanMask::Carry)),
        case("scan_decay_process", Spec::of(KlSignal).holes().continuous(), move |c, _| token(c, ScanMask::Decay)),
        case("scan_decay_csr_begins", Spec { begins: true, ..Spec::of(Csr).holes().continuous() }, move |c, _| token(c, ScanMask::Decay)),
        case("scan_decay_behind_the_mask", Spec { values: true, bootstrap: true, token_rewards: true, ..rewards().holes() }, move |c, _| {
            gae(c, ScanMask::Decay);
        }),
        case("scan_decay_gae_chunks_by_value", valued(Csr).holes(), move |c, _| gae(c, ScanMask::Decay)),
        case("scan_decay_divide_scope_process", Spec::of(KlSignal).holes(), move |c, _| {
            token(c, ScanMask::Decay);
            c.divide_scope = DivideScope::Process;
        }),
        case("scan_decay_place_last", rewards().gaps(), move |c, b| {
            token(c, ScanMask::Decay);
            gap(b, true, true, true);
            c.outcome.place = Place::Last;
        }),
        case("scan_decay_place_end", rewards(), move |c, b| {
            token(c, ScanMask::Decay);
            gap(b, false, true, true);
            c.outcome.place = Place::End;
        }),
        case("scan_none_place_last", rewards(), move |c, b| {
            token(c, ScanMask::None);
            gap(b, true, true, true);
            c.outcome.place = Place::Last;
        }),
        case("scan_none_place_end", rewards(), move |c, b| {
            token(c, ScanMask::None);
            gap(b, true, true, true);
            c.outcome.place = Place::End;
        }),
        case("scan_none_place_end_gae", Spec { bootstrap: true, others: 1, ..valued(Nothing) }, move |c, b| {
            gae(c, ScanMask::None);
            gap(b, false, true, true);
            (c.outcome.place, c.others[0].place) = (Place::End, Place::Last);
        }),
        case("scan_none_place_end_wrong_format", Spec::of(Nothing), move |c, b| {
            token(c, ScanMask::None);
            gap(b, false, true, true);
            c.format.place = Place::End;
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("scan_none_kl_signal", Spec::of(KlSignal).gaps(), move |c, _| token(c, ScanMask::None)),
        case("scan_none_kl_opd", Spec::of(KlOpd).gaps(), move |c, _| token(c, ScanMask::None)),
        case("scan_none_dense_two_streams", Spec::of(Dense).gaps().streams(2), move |c, _| token(c, ScanMask::None)),
        case("scan_none_dense_ends_gae", valued(DenseEnds).gaps(), move |c, _| {
            gae(c, ScanMask::None);
            c.chunk = Chunk::Token;
        }),
        case("scan_none_dense_gae_coarse_chunks", valued(Dense).gaps(), move |c, _| gae(c, ScanMask::None)),
        case("scan_none_csr", Spec::of(Csr).gaps(), move |c, _| token(c, ScanMask::None)),
        case("scan_none_kl_signal_wrong_format", Spec::of(KlSignal).gaps(), move |c, b| {
            token(c, ScanMask::None);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
        case("scan_none_signal_missing_exclude", Spec::of(KlSignal).gaps(), move |c, b| {
            token(c, ScanMask::None);
            c.process[0].missing = Missing::Exclude;
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().step_by(5).for_each(|s| *s = f32::NAN));
        }),
        case("scan_none_signal_missing_zero", Spec::of(KlSignal).gaps(), move |c, b| {
            token(c, ScanMask::None);
            c.process[0].missing = Missing::Zero;
            b.rollouts.iter_mut().for_each(|r| r.signal[0].iter_mut().step_by(5).for_each(|s| *s = f32::NAN));
        }),
        case("scan_none_signal_bad_behind_the_mask", Spec::of(KlSignal), move |c, b| {
            token(c, ScanMask::None);
            gap(b, false, true, true);
            let r = b.rollouts.iter_mut().find(|r| r.len > 8).unwrap();
            let last = r.len - 1;
            r.signal[0][last] = f32::NAN;
        }),
        // The reward is one finding, not one more for each token that the scan reads behind the mask.
        case("scan_none_shaped_reward_bad", Spec { ok: false, ..Spec::of(KlSignal) }, move |c, b| {
            token(c, ScanMask::None);
            gap(b, false, true, true);
            c.fusion = Fusion::RewardShaping;
            b.rollouts.iter_mut().filter(|r| r.len > 8).take(2).for_each(|r| r.format = Some(f32::NAN));
        }),
        case("scan_none_value_bad_behind_the_mask", valued(Nothing), move |c, b| {
            gae(c, ScanMask::None);
            gap(b, true, true, false);
            let r = b.rollouts.iter_mut().find(|r| r.len > 8).unwrap();
            let middle = r.len / 2;
            r.values.as_mut().unwrap()[middle] = f32::NAN;
        }),
        case("scan_none_bad_before_the_first_token", Spec { token_rewards: true, ..valued(Nothing) }, move |c, b| {
            gae(c, ScanMask::None);
            gap(b, true, true, false);
            for r in b.rollouts.iter_mut().filter(|r| r.len > 8) {
                r.values.as_mut().unwrap()[0] = f32::NAN;
                r.token_rewards.as_mut().unwrap()[0] = f32::INFINITY;
            }
        }),
        case("scan_none_token_reward_bad_behind_the_mask", Spec { token_rewards: true, ..rewards() }, move |c, b| {
            token(c, ScanMask::None);
            gap(b, false, false, true);
            let r = b.rollouts.iter_mut().find(|r| r.len > 8).unwrap();
            let last = r.len - 1;
            r.token_rewards.as_mut().unwrap()[last] = f32::INFINITY;
        }),
        case("scan_none_no_scope_is_not_read", valued(Nothing), move |c, b| {
            gae(c, ScanMask::None);
            for r in b.rollouts.iter_mut().step_by(2) {
                r.mask = Some(vec![false; r.len]);
                r.values.as_mut().unwrap().fill(f32::NAN);
            }
        }),
        case("scan_none_kl_of_every_token", Spec { reference: true, ..rewards().gaps() }, move |c, b| {
            token(c, ScanMask::None);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K1, KlPlace::Reward, 0.1);
            // The last rollout's is bad where it is hidden, and read all the same.
            let r = b.rollouts.last_mut().unwrap();
            let mask = r.mask.clone().unwrap();
            r.logp_reference.as_mut().unwrap().iter_mut().zip(mask).for_each(|(p, seen)| *p = if seen { *p } else { f64::NAN });
        }),
        case("scan_decay_kl_of_scope_alone", Spec { reference: true, ..rewards().gaps() }, move |c, b| {
            token(c, ScanMask::Decay);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K1, KlPlace::Reward, 0.1);
            // Not read where it is hidden.
            for r in &mut b.rollouts {
                let mask = r.mask.clone().unwrap();
                r.logp_reference.as_mut().unwrap().iter_mut().zip(mask).for_each(|(p, seen)| *p = if seen { *p } else { f64::NAN });
            }
        }),
        case("scan_none_broadcast_scans_nothing", Spec { token_rewards: true, ..rewards().holes() }, move |c, _| {
            token(c, ScanMask::None);
            c.credit = Credit::Broadcast;
        }),
        case("scan_none_absent", valued(Nothing).gaps(), move |c, b| {
            gae(c, ScanMask::None);
            for r in b.rollouts.iter_mut().step_by(3) {
                r.absent = true;
                r.values.as_mut().unwrap().fill(f32::NAN);
            }
        }),
        case("scan_none_whitened", valued(Nothing).gaps(), move |c, _| {
            gae(c, ScanMask::None);
            c.whiten = Whiten::Tokens;
        }),
        case("scan_decay_long_gaps_tiles", Spec { max_len: 700, ..valued(Nothing) }, move |c, b| {
            gae(c, ScanMask::Decay);
            gap(b, true, true, true);
        }),
        case("scan_none_long_tiles", Spec { max_len: 700, token_rewards: true, ..rewards() }, move |c, b| {
            token(c, ScanMask::None);
            c.gamma = 0.999;
            gap(b, true, true, true);
        }),
    ]
}

fn token_rewards() -> Vec<Case> {
    let spec = |input: Input| Spec { token_rewards: true, ..Spec::of(input).continuous() };
    let token = |c: &mut Config, _: &mut Batch| (c.chunk, c.gamma) = (Chunk::Token, 0.95);
    vec![
        case("token_rewards", spec(Nothing).holes(), token),
        case("token_rewards_alone", Spec { outcome: false, format: false, ok: false, ..spec(Nothing) }, token),
        case("token_rewards_beside_steps", spec(Csr).holes(), token),
        case("token_rewards_beside_kl", spec(KlSignal).holes(), token),
        case("token_rewards_broadcast", spec(Csr), move |c, b| {
            token(c, b);
            (c.credit, c.k) = (Credit::Broadcast, 0.5);
        }),
        case("token_rewards_other_chunks_ignore_them", spec(Csr), |_, b| {
            b.rollouts.iter_mut().for_each(|r| r.token_rewards.as_mut().unwrap().fill(f32::NAN));
        }),
        case("token_rewards_divide_scope_process", spec(Csr), move |c, b| {
            token(c, b);
            c.divide_scope = DivideScope::Process;
        }),
        case("token_rewards_nan", spec(Csr), move |c, b| {
            token(c, b);
            b.rollouts[2].token_rewards.as_mut().unwrap()[0] = f32::NAN;
        }),
        case("token_rewards_keep_a_rollout", spec(Nothing), move |c, b| {
            token(c, b);
            c.set_missing_all(Missing::Exclude);
            b.rollouts.iter_mut().step_by(3).for_each(|r| (r.outcome, r.format) = (Some(f32::NAN), Some(f32::NAN)));
            c.whiten = Whiten::Tokens;
        }),
        case("token_rewards_wrong_format", spec(Csr), move |c, b| {
            token(c, b);
            b.rollouts.iter_mut().step_by(2).for_each(|r| (r.format, r.format_ok) = (Some(0.0), Some(false)));
        }),
    ]
}

fn lambdas() -> Vec<Case> {
    let spec = || Spec { bootstrap: true, ..valued(Csr).holes() };
    let with = |edit: fn(&mut Config)| {
        move |c: &mut Config, _: &mut Batch| {
            as_gae(c);
            edit(c);
        }
    };
    let lams = || Spec { lams: true, ..spec() };
    vec![
        case("lam_returns", spec(), with(|c| c.lam_returns = 1.0)),
        case("lam_returns_0", spec(), with(|c| c.lam_returns = 0.0)),
        case("lam_returns_as_lam", spec(), with(|c| c.lam_returns = 0.95)),
        case("lam_length", spec(), with(|c| c.lam_length_alpha = 0.1)),
        case("lam_length_large_alpha", spec(), with(|c| c.lam_length_alpha = 1e6)),
        case("lam_length_one_token", Spec { max_len: 2, ..spec() }, with(|c| c.lam_length_alpha = 0.9)),
        case("lam_length_returns", spec(), with(|c| (c.lam_length_alpha, c.lam_returns) = (0.2, 0.9))),
        case("lam_rollout", lams(), with(|_| {})),
        case("lam_rollout_over_length", lams(), with(|c| (c.lam_length_alpha, c.lam_returns) = (0.2, 0.9))),
        case("lam_rollout_0_and_1", lams(), |c, b| {
            as_gae(c);
            b.rollouts.iter_mut().enumerate().for_each(|(i, r)| r.lam = Some((i % 2) as f32));
        }),
        case("lam_rollout_nan", lams(), |c, b| {
            as_gae(c);
            b.rollouts[2].lam = Some(f32::NAN);
        }),
        case("lam_rollout_out_of_range", lams(), |c, b| {
            as_gae(c);
            (b.rollouts[2].lam, b.rollouts[5].lam) = (Some(1.5), Some(-0.1));
        }),
        case("lam_rollout_nan_without_scope", lams(), |c, b| {
            as_gae(c);
            let r = &mut b.rollouts[2];
            (r.lam, r.mask) = (Some(f32::NAN), Some(vec![false; r.len]));
        }),
        case("lam_rollout_absent", lams(), |c, b| {
            as_gae(c);
            b.rollouts.iter_mut().step_by(3).for_each(|r| (r.absent, r.lam) = (true, Some(f32::NAN)));
        }),
        case("lam_rollout_other_credit_ignores_it", Spec { lams: true, ..Spec::of(Csr) }, |_, b| {
            b.rollouts.iter_mut().for_each(|r| r.lam = Some(f32::NAN));
        }),
        case("lam_all_whitened", lams(), with(|c| (c.lam_returns, c.whiten, c.scan_mask) = (0.5, Whiten::Tokens, ScanMask::Decay))),
    ]
}

fn over_chunks() -> Vec<Case> {
    let spec = |input: Input| Spec { bootstrap: true, ..valued(input).gaps() };
    let chunks = |chunk: Chunk| {
        move |c: &mut Config, _: &mut Batch| {
            as_gae(c);
            (c.gae_over, c.chunk) = (GaeOver::Chunks, chunk);
        }
    };
    vec![
        case("gae_chunks_by_value", spec(Csr), chunks(Chunk::ByValue)),
        case("gae_chunks_step", spec(Csr), chunks(Chunk::Step)),
        case("gae_chunks_segment", spec(Nothing), chunks(Chunk::Segment)),
        case("gae_chunks_one", spec(Nothing), chunks(Chunk::None)),
        case("gae_chunks_token", spec(Csr), chunks(Chunk::Token)),
        case("gae_chunks_kl", spec(KlSignal), chunks(Chunk::ByValue)),
        case("gae_chunks_no_bootstrap", valued(Csr).holes(), chunks(Chunk::Step)),
        case("gae_chunks_given", Spec { chunk_marks: true, ..spec(Csr) }, chunks(Chunk::Given)),
        case("gae_chunks_place_last", spec(Csr), move |c, b| {
            chunks(Chunk::Step)(c, b);
            (c.outcome.place, c.format.place) = (Place::Last, Place::End);
        }),
        case("gae_chunks_lambdas", Spec { lams: true, ..spec(Csr) }, move |c, b| {
            chunks(Chunk::Step)(c, b);
            c.lam_returns = 1.0;
        }),
        case("gae_chunks_length_of_tokens", spec(Csr), move |c, b| {
            chunks(Chunk::Step)(c, b);
            c.lam_length_alpha = 0.1;
        }),
        case("gae_chunks_bad_value", spec(Csr), move |c, b| {
            chunks(Chunk::None)(c, b);
            let r = b.rollouts.iter_mut().find(|r| r.len > 3).unwrap();
            let last = r.len - 1;
            r.mask = None;
            r.values.as_mut().unwrap()[last] = f32::NAN;
        }),
        case("gae_chunks_empty_whitened", Spec { empty: 0.4, ..spec(Csr) }, move |c, b| {
            chunks(Chunk::Step)(c, b);
            c.whiten = Whiten::Tokens;
        }),
    ]
}

fn discounted() -> Vec<Case> {
    let by = |gamma: f64, chunk: Chunk| {
        move |c: &mut Config, _: &mut Batch| (c.divide_by, c.k, c.gamma, c.chunk) = (DivideBy::DiscountedCount, 1.0, gamma, chunk)
    };
    vec![
        case("discounted_count", Spec::of(Csr), by(0.9, Chunk::ByValue)),
        case("discounted_count_token", Spec { max_len: 200, ..Spec::of(KlSignal).holes() }, by(0.99, Chunk::Token)),
        case("discounted_count_gamma_1", Spec::of(Csr).continuous(), by(1.0, Chunk::Step)),
        case("discounted_count_gamma_0", Spec::of(Csr).continuous(), by(0.0, Chunk::Step)),
        case("discounted_count_near_1", Spec { max_len: 400, ..Spec::of(Csr).continuous() }, by(1.0 - 1e-9, Chunk::Token)),
        case("discounted_count_process", Spec::of(Csr), move |c, b| {
            by(0.8, Chunk::ByValue)(c, b);
            c.divide_scope = DivideScope::Process;
        }),
        case("discounted_count_broadcast", Spec::of(Csr), move |c, b| {
            by(0.8, Chunk::Step)(c, b);
            c.credit = Credit::Broadcast;
        }),
        case("discounted_count_kl_in_reward", with_kl(Csr), move |c, b| {
            by(0.95, Chunk::Token)(c, b);
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K1, KlPlace::Reward, 0.1);
        }),
        case("discounted_count_empty", Spec { empty: 0.5, ..Spec::of(Csr) }, by(0.9, Chunk::Step)),
    ]
}

fn vtrace() -> Vec<Case> {
    let spec = |input: Input| Spec { values: true, behavior: true, bootstrap: true, ..Spec::of(input).continuous() };
    let trace = |c: &mut Config| (c.credit, c.k, c.gamma, c.lam) = (Credit::Vtrace, 0.0, 0.98, 0.9);
    let with = |edit: fn(&mut Config)| {
        move |c: &mut Config, _: &mut Batch| {
            trace(c);
            edit(c);
        }
    };
    vec![
        case("vtrace", spec(Csr), with(|_| {})),
        case("vtrace_holes", spec(Csr).holes(), with(|_| {})),
        case("vtrace_no_bootstrap", Spec { bootstrap: false, ..spec(Nothing).holes() }, with(|_| {})),
        case("vtrace_clips", spec(Csr), with(|c| (c.rho_clip, c.c_clip) = (2.0, 0.5))),
        case("vtrace_unclipped", spec(Csr), with(|c| (c.rho_clip, c.c_clip) = (f64::INFINITY, f64::INFINITY))),
        case("vtrace_clips_0", spec(Csr), with(|c| (c.rho_clip, c.c_clip) = (0.0, 0.0))),
        case("vtrace_gamma_lam_1", spec(KlSignal), with(|c| (c.gamma, c.lam) = (1.0, 1.0))),
        case("vtrace_shared_policy", spec(KlOpd).holes(), with(|_| {})),
        case("vtrace_token_rewards", Spec { token_rewards: true, outcome: false, format: false, ok: false, ..spec(Nothing) }, with(|_| {})),
        case("vtrace_place_last", spec(Nothing).holes(), with(|c| (c.outcome.place, c.format.place) = (Place::Last, Place::Last))),
        case("vtrace_kl_in_reward", Spec { reference: true, ..spec(Csr).holes() }, with(|c| {
            (c.kl_in_reward, c.kl_place, c.kl_coef) = (KlInReward::K3, KlPlace::Reward, 0.1);
        })),
        case("vtrace_on_policy", spec(Csr), |c, b| {
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Vtrace, 0.0, 0.98, 0.9);
            b.rollouts.iter_mut().for_each(|r| r.logp_behavior = r.logp_policy.clone());
        }),
        case("vtrace_far_apart", spec(Csr), |c, b| {
            (c.credit, c.k, c.gamma, c.lam) = (Credit::Vtrace, 0.0, 0.98, 0.9);
            b.rollouts.iter_mut().for_each(|r| r.logp_behavior.as_mut().unwrap().iter_mut().step_by(2).for_each(|p| *p -= 900.0));
        }),
        case("vtrace_nan", spec(Csr), |c, b| {
            (c.credit, c.k) = (Credit::Vtrace, 0.0);
            b.rollouts[3].logp_behavior.as_mut().unwrap()[0] = f64::NAN;
        }),
        case("vtrace_value_nan", spec(Csr), |c, b| {
            (c.credit, c.k) = (Credit::Vtrace, 0.0);
            b.rollouts[3].values.as_mut().unwrap()[0] = f32::NAN;
        }),
        case("vtrace_lams_are_gaes", Spec { lams: true, ..spec(Csr) }, with(|_| {})),
        case("vtrace_tiles_whitened", Spec { max_len: 300, ..spec(Csr) }, with(|c| c.whiten = Whiten::Tokens)),
        case("vtrace_empty_absent", Spec { empty: 0.4, ..spec(Csr) }, |c, b| {
            (c.credit, c.k, c.gamma) = (Credit::Vtrace, 0.0, 0.9);
            b.rollouts.iter_mut().step_by(3).for_each(|r| {
                r.absent = true;
                r.logp_behavior.as_mut().unwrap().fill(f64::NAN);
            });
        }),
    ]
}
