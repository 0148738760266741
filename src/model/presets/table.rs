//! The presets, each with what differs from the defaults of the field table (PASS) and where it comes from: repository at a commit (package version), file,
//! function; then what the batch gives beside extents and groups.
//!
//! `kl_coef` is 0 in every preset, which takes no divergence and asks for no log-probabilities; set it to the run's own coefficient, and the divergence is the framework's.
use super::super::config::*;
use super::Preset;

/// No framework knows a format reward apart: it has no weight until the user gives it one.
fn no_format(c: &mut Config) {
    c.streams[FORMAT].weight = 0.0;
}

/// One advantage a rollout: A = N(r), the same on every token.
fn broadcast(c: &mut Config) {
    (c.kind, c.chunk, c.credit, c.k) = (Kind::None, Chunk::None, Credit::Broadcast, 0.0);
    no_format(c);
}

/// Return-to-go over tokens of rewards a token and the outcome on the last one.
fn tokens(c: &mut Config) {
    (c.kind, c.chunk, c.credit, c.k) = (Kind::None, Chunk::Token, Credit::ReturnToGo, 0.0);
    no_format(c);
    rows(c, |s| s.place = Place::Last);
}

/// GAE over tokens of rewards a token, or of the outcome on the last one.
fn gae(c: &mut Config) {
    tokens(c);
    (c.chunk, c.credit) = (Chunk::None, Credit::Gae);
}

/// Rewards on the last token of the extent, lost where it is masked; discounts pass gaps.
fn roll(c: &mut Config) {
    rows(c, |s| s.place = Place::End);
    c.scan_mask = ScanMask::Decay;
    kl(c, KlInReward::K1, KlPlace::Reward, INF, INF);
}

/// Outcome plus the return of each step among the group's steps of equal state.
fn gigpo(c: &mut Config) {
    (c.chunk, c.credit, c.k) = (Chunk::Step, Credit::Broadcast, 0.0);
    no_format(c);
    (c.step_sets, c.step_value) = (StepSets::StepGroup, StepValue::ReturnToGo);
    rows(c, |s| s.count_by = CountBy::Step);
}

/// Every per-rollout stream.
fn rows(c: &mut Config, set: impl Fn(&mut Stream)) {
    c.streams[OUTCOME..].iter_mut().for_each(set);
}

/// How the per-rollout streams are standardised.
fn norm(c: &mut Config, center: Center, scale: Scale, epsilon: f64, singleton: Singleton) {
    rows(c, |s| (s.center, s.scale, s.epsilon, s.singleton) = (center, scale, epsilon, singleton));
}

/// The per-rollout streams as they are.
fn raw(c: &mut Config) {
    norm(c, Center::None, Scale::None, 1e-6, Singleton::Zero);
}

/// The process streams as they are.
fn raw_process(c: &mut Config) {
    c.streams[..MAX_PROCESS].iter_mut().for_each(|s| (s.center, s.scale) = (Center::None, Scale::None));
}

fn whiten(c: &mut Config, over: Whiten, ddof: i32, epsilon: f64, mode: EpsilonMode) {
    (c.whiten, c.whiten_ddof, c.whiten_epsilon, c.whiten_epsilon_mode) = (over, ddof, epsilon, mode);
}

/// Whitening over tokens with Bessel's correction and epsilon beside the variance.
fn whiten_bessel(c: &mut Config) {
    whiten(c, Whiten::Tokens, 1, 1e-8, EpsilonMode::AddVar);
}

/// Whitening over tokens by the population's variance, not below 1e-8.
fn whiten_floor(c: &mut Config) {
    whiten(c, Whiten::Tokens, 0, 1e-8, EpsilonMode::FloorVar);
}

fn kl(c: &mut Config, kind: KlInReward, place: KlPlace, log_ratio: f64, clamp: f64) {
    (c.kl_in_reward, c.kl_place, c.kl_log_ratio_clamp, c.kl_clamp) = (kind, place, log_ratio, clamp);
}

const INF: f64 = f64::INFINITY;

macro_rules! presets {
    ($($name:literal $source:literal $fill:expr;)*) => { &[$(Preset { name: $name, source: $source, fill: $fill }),*] };
}

pub(super) static PRESETS: &[Preset] = presets! {
    c"pass"
    c"arXiv 2606.29296, Algorithms 1-3, eqs. 4, 6, 7: Advantage Fusion, Chunk-by-Value, Divide-Length (k = 0.7); process signal, outcome, format, format_ok"
    |_| ();
    c"grpo_process"
    c"arXiv 2606.29296, eqs. 1-3: process-supervised GRPO; process reward alone, a chunk a step, cumulative; process signal"
    |c| {
        // Process only, ungated: reward shaping with weights 1, 0, 0 is the raw process reward, so a batch that carries outcome, format
        // and indicator can be given to this preset as it is.
        (c.fusion, c.chunk, c.k) = (Fusion::RewardShaping, Chunk::Step, 0.0);
        c.streams[OUTCOME].weight = 0.0;
        c.streams[FORMAT].weight = 0.0;
    };
    c"grpo_pooled"
    c"arXiv 2606.29296, section 4.1: baseline that pools step, outcome and format rewards in one set; process signal, outcome, format"
    |c| (c.fusion, c.chunk, c.k) = (Fusion::Pooled, Chunk::Step, 0.0);
    c"verl.grpo"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_grpo_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Passthrough); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.grpo_vectorized"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_grpo_vectorized_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Passthrough); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.dr_grpo"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_grpo_outcome_advantage with norm_adv_by_std_in_grpo = False; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::None, 1e-6, Singleton::Passthrough); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.grpo_passk"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_grpo_passk_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::RunnerUp, Scale::Group, 1e-6, Singleton::Refuse); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.gdpo"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_gdpo_outcome_advantage; a further stream a reward key"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Passthrough); whiten_bessel(c); };
    c"verl.rloo"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_rloo_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::LeaveOneOut, Scale::None, 1e-6, Singleton::Passthrough); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.rloo_vectorized"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_rloo_vectorized_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::LeaveOneOut, Scale::None, 1e-6, Singleton::Zero); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.opo"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_opo_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::LengthWeighted, Scale::None, 1e-6, Singleton::Passthrough); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.reinforce_plus_plus"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_reinforce_plus_plus_outcome_advantage; outcome or token_rewards"
    |c| { tokens(c); raw(c); whiten_bessel(c); kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"verl.reinforce_plus_plus_baseline"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_reinforce_plus_plus_baseline_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::None, 1e-6, Singleton::Passthrough); whiten_bessel(c); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.remax"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_remax_outcome_advantage; outcome (or token_rewards beside it), baselines"
    |c| { tokens(c); raw(c); c.streams[OUTCOME].center = Center::Given; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"verl.gpg"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_gpg_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::NonzeroShare, 1e-6, Singleton::Passthrough); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF); };
    c"verl.gae"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_gae_advantage_return; outcome or token_rewards, values"
    |c| { gae(c); raw(c); whiten_bessel(c); kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"verl.optimal_token_baseline"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_optimal_token_baseline_advantage; outcome or token_rewards, logp_policy, sum_pi_squared (and token_ratio)"
    |c| { tokens(c); raw(c); c.token_baseline = TokenBaseline::Position; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"verl.tir_optimal_token_baseline"
    c"verl-project/verl 1dda039b9 (0.9.1), verl/trainer/ppo/core_algos.py, compute_multi_turn_optimal_token_baseline_advantage; as verl.optimal_token_baseline"
    |c| { tokens(c); raw(c); c.token_baseline = TokenBaseline::Token; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"verl.prime"
    c"verl-project/verl-recipe, prime/prime_core_algos.py at 15510e8, compute_rloo_advantage_return; signal (the implicit reward a token), outcome"
    |c| {
        tokens(c); (c.kind, c.pool) = (Kind::Kl, Pool::Rollouts); c.streams.iter_mut().for_each(|s| (s.center, s.scale) = (Center::LeaveOneOut, Scale::None));
        whiten_bessel(c);
    };
    c"trl.grpo"
    c"huggingface/trl f2cd57710 (1.16.0), trl/trainer/grpo_trainer.py, _generate_and_score_completions (scale_rewards = group); outcome and further streams (reward functions, NaN where one does not apply)"
    |c| { broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::Group, Scale::Group, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Exclude); };
    c"trl.grpo_batch"
    c"huggingface/trl f2cd57710 (1.16.0), trl/trainer/grpo_trainer.py, _generate_and_score_completions (scale_rewards = batch); as trl.grpo"
    |c| { broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::Group, Scale::Batch, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Exclude); };
    c"trl.dr_grpo"
    c"huggingface/trl f2cd57710 (1.16.0), trl/trainer/grpo_trainer.py, _generate_and_score_completions (scale_rewards = none); as trl.grpo"
    |c| { broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::Group, Scale::None, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Exclude); };
    c"trl.gdpo"
    c"huggingface/trl f2cd57710 (1.16.0), trl/trainer/grpo_trainer.py, _generate_and_score_completions (multi_objective_aggregation = normalize_then_sum); as trl.grpo"
    |c| {
        broadcast(c); norm(c, Center::Group, Scale::Group, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Exclude);
        whiten(c, Whiten::Rollouts, 1, 1e-4, EpsilonMode::AddStd);
    };
    c"trl.rloo"
    c"huggingface/trl f2cd57710 (1.16.0), trl/trainer/rloo_trainer.py, _generate_and_score_completions; as trl.grpo"
    |c| {
        broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::LeaveOneOut, Scale::None, 1e-4, Singleton::Zero);
        rows(c, |s| s.missing = Missing::Exclude); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF);
    };
    c"trl.rloo_normalized"
    c"huggingface/trl f2cd57710 (1.16.0), trl/trainer/rloo_trainer.py, _generate_and_score_completions (normalize_advantages); as trl.grpo"
    |c| {
        broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::LeaveOneOut, Scale::None, 1e-4, Singleton::Zero);
        rows(c, |s| s.missing = Missing::Exclude); kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF);
        whiten(c, Whiten::Rollouts, 1, 1e-4, EpsilonMode::AddStd);
    };
    c"trl.ppo"
    c"huggingface/trl 1.12.0, trl/experimental/ppo/ppo_trainer.py, train; outcome, values, and in rows shorter than the response a slot after the last token, out of scope, which takes the score"
    |c| {
        gae(c); raw(c); rows(c, |s| s.place = Place::End); (c.lam, c.scan_mask) = (0.95, ScanMask::None); whiten_bessel(c);
        kl(c, KlInReward::K1, KlPlace::Reward, INF, INF);
    };
    c"trl.minillm"
    c"huggingface/trl 1.14.2, trl/experimental/minillm/minillm_trainer.py, _compute_advantage (length_normalization); logp_policy, logp_teacher"
    |c| { (c.kind, c.chunk, c.k, c.divide_by) = (Kind::Kl, Chunk::Token, 1.0, DivideBy::DiscountedCount); raw_process(c); no_format(c); };
    c"openrlhf.reinforce"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (advantage_estimator = reinforce); outcome"
    |c| {
        tokens(c); raw(c); rows(c, |s| s.clip_standardized = 10.0); c.scan_mask = ScanMask::Decay; whiten_floor(c);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"openrlhf.reinforce_baseline"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (reinforce_baseline); outcome"
    |c| {
        tokens(c); norm(c, Center::Group, Scale::None, 1e-9, Singleton::Zero); rows(c, |s| s.clip_standardized = 10.0); whiten_floor(c);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"openrlhf.rloo"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (rloo); outcome"
    |c| {
        tokens(c); norm(c, Center::LeaveOneOut, Scale::None, 1e-9, Singleton::Zero); rows(c, |s| s.clip_standardized = 10.0);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"openrlhf.group_norm"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (group_norm); outcome"
    |c| {
        tokens(c); norm(c, Center::Group, Scale::Group, 1e-9, Singleton::Zero); rows(c, |s| s.clip_standardized = 10.0);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"openrlhf.dr_grpo"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (dr_grpo); outcome"
    |c| {
        tokens(c); norm(c, Center::Group, Scale::None, 1e-9, Singleton::Zero); rows(c, |s| s.clip_standardized = 10.0);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"openrlhf.flash_reinforce"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (flash_reinforce); outcome"
    |c| {
        tokens(c); norm(c, Center::Batch, Scale::None, 1e-9, Singleton::Zero); rows(c, |s| s.clip_standardized = 10.0);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"openrlhf.gae"
    c"OpenRLHF/OpenRLHF 3c3be623 (0.11.2), openrlhf/trainer/ppo_utils/experience_maker.py, compute_advantages_and_returns (gae); outcome, values"
    |c| {
        gae(c); raw(c); rows(c, |s| s.clip_standardized = 10.0); c.scan_mask = ScanMask::Decay; whiten_floor(c);
        kl(c, KlInReward::K1, KlPlace::Reward, 10.0, 10.0);
    };
    c"nemo_rl.grpo"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, GRPOAdvantageEstimator (use_leave_one_out_baseline); outcome"
    |c| { broadcast(c); norm(c, Center::LeaveOneOut, Scale::LeaveOneOut, 1e-6, Singleton::Zero); rows(c, |s| s.zero_variance = ZeroVariance::Center); };
    c"nemo_rl.grpo_no_loo"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, GRPOAdvantageEstimator (use_leave_one_out_baseline = false); outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Zero); rows(c, |s| s.zero_variance = ZeroVariance::Center); };
    c"nemo_rl.gdpo"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, GDPOAdvantageEstimator; a further stream a reward"
    |c| {
        broadcast(c); norm(c, Center::LeaveOneOut, Scale::LeaveOneOut, 1e-6, Singleton::Zero); rows(c, |s| s.zero_variance = ZeroVariance::Center);
        whiten(c, Whiten::Rollouts, 1, 0.0, EpsilonMode::AddStd);
    };
    c"nemo_rl.reinforce_plus_plus"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, ReinforcePlusPlusAdvantageEstimator (minus_baseline); outcome"
    |c| {
        broadcast(c); c.chunk = Chunk::Token; norm(c, Center::Group, Scale::None, 1e-6, Singleton::Zero);
        kl(c, KlInReward::K3, KlPlace::Advantage, 20.0, 10.0); whiten_floor(c);
    };
    c"nemo_rl.gae"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, GeneralizedAdvantageEstimator; outcome, values"
    |c| { gae(c); raw(c); c.lam = 0.95; whiten_bessel(c); kl(c, KlInReward::K3, KlPlace::Reward, 20.0, 10.0); };
    c"nemo_rl.gae_length_adaptive"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, GeneralizedAdvantageEstimator (length-adaptive lambda of the policy, lambda of the values 1: VAPO); outcome, values"
    |c| { gae(c); raw(c); (c.lam_length_alpha, c.lam_returns) = (0.05, 1.0); whiten_bessel(c); kl(c, KlInReward::K3, KlPlace::Reward, 20.0, 10.0); };
    c"nemo_rl.opd"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, on-policy distillation; logp_policy, logp_teacher"
    |c| { broadcast(c); (c.kind, c.chunk) = (Kind::Kl, Chunk::Token); raw_process(c); };
    c"nemo_rl.raw_reward"
    c"NVIDIA-NeMo/RL 7ea279abf, nemo_rl/algorithms/advantage_estimator.py, RawRewardAdvantageEstimator (normalize_advantages); outcome"
    |c| { broadcast(c); raw(c); whiten_floor(c); };
    c"slime.grpo"
    c"THUDM/slime 624b824a8, slime/ray/rollout.py, _post_process_rewards, and backends/megatron_utils/loss.py; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Zero); };
    c"slime.dr_grpo"
    c"THUDM/slime 624b824a8, slime/ray/rollout.py, _post_process_rewards (disable_grpo_std_normalization); outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::None, 1e-6, Singleton::Zero); };
    c"slime.ppo"
    c"THUDM/slime 624b824a8, slime/backends/megatron_utils/loss.py, compute_advantages_and_returns (ppo); outcome, values"
    |c| { gae(c); raw(c); rows(c, |s| s.place = Place::End); c.scan_mask = ScanMask::None; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"slime.reinforce_plus_plus"
    c"THUDM/slime 624b824a8, slime/backends/megatron_utils/loss.py, compute_advantages_and_returns (reinforce_plus_plus); outcome"
    |c| { tokens(c); raw(c); c.scan_mask = ScanMask::Decay; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"slime.reinforce_plus_plus_baseline"
    c"THUDM/slime 624b824a8, slime/backends/megatron_utils/loss.py, compute_advantages_and_returns (reinforce_plus_plus_baseline); outcome"
    |c| { broadcast(c); c.chunk = Chunk::Token; norm(c, Center::Group, Scale::None, 1e-6, Singleton::Zero); kl(c, KlInReward::K1, KlPlace::Advantage, INF, INF); };
    c"slime.opd"
    c"THUDM/slime 624b824a8, slime/backends/megatron_utils/loss.py, compute_advantages_and_returns with on-policy distillation (process weight: opd_kl_coef); outcome, logp_policy, logp_teacher"
    |c| { broadcast(c); (c.kind, c.chunk) = (Kind::Kl, Chunk::Token); raw_process(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Zero); };
    c"miles.grpo"
    c"radixark/miles 31f1ca961, miles/ray/rollout/train_data_conversion.py; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Zero); };
    c"miles.ppo"
    c"radixark/miles (miles-rl 0.0.2), miles/backends/training_utils/loss.py, compute_advantages_and_returns (ppo); outcome, values"
    |c| {
        gae(c); raw(c); rows(c, |s| s.place = Place::End);
        c.scan_mask = ScanMask::None; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF);
    };
    c"miles.reinforce_plus_plus"
    c"radixark/miles (miles-rl 0.0.2), miles/backends/training_utils/loss.py, compute_advantages_and_returns (reinforce_plus_plus); outcome"
    |c| { tokens(c); raw(c); c.scan_mask = ScanMask::None; kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"miles.reinforce_plus_plus_baseline"
    c"radixark/miles (miles-rl 0.0.2), miles/backends/training_utils/loss.py, compute_advantages_and_returns (reinforce_plus_plus_baseline); outcome"
    |c| {
        broadcast(c); c.chunk = Chunk::Token; norm(c, Center::Group, Scale::None, 1e-6, Singleton::Zero);
        kl(c, KlInReward::K1, KlPlace::Advantage, INF, INF);
    };
    c"miles.opd"
    c"radixark/miles (miles-rl 0.0.2), miles/backends/training_utils/loss.py, compute_advantages_and_returns (on_policy_distillation); logp_policy, logp_teacher"
    |c| { broadcast(c); (c.kind, c.chunk) = (Kind::Kl, Chunk::Token); raw_process(c); };
    c"miles.gae"
    c"radixark/miles 31f1ca961, miles/backends/training_utils/loss_hub/advantages.py (ppo); outcome, values"
    |c| { gae(c); raw(c); kl(c, KlInReward::K1, KlPlace::Reward, INF, INF); };
    c"areal.grpo"
    c"areal-project/AReaL cbff54d64 (1.0.4), areal/trainer/ppo/actor.py, PPOActor._compute_advantages (reward_norm group, adv_norm batch); outcome"
    |c| {
        tokens(c); norm(c, Center::Group, Scale::Group, 1e-5, Singleton::Zero); rows(c, |s| (s.clip_value, s.place) = (20.0, Place::End));
        whiten(c, Whiten::Tokens, 1, 1e-5, EpsilonMode::AddStd); kl(c, KlInReward::K1, KlPlace::Reward, INF, 10.0);
    };
    c"areal.dr_grpo"
    c"areal-project/AReaL cbff54d64 (1.0.4), areal/trainer/ppo/actor.py, PPOActor._compute_advantages (reward_norm mean of the group, no std, no adv_norm); outcome"
    |c| {
        tokens(c); norm(c, Center::Group, Scale::None, 1e-5, Singleton::Zero); rows(c, |s| (s.clip_value, s.place) = (20.0, Place::End));
        kl(c, KlInReward::K1, KlPlace::Reward, INF, 10.0);
    };
    c"areal.rloo"
    c"areal-project/AReaL cbff54d64 (1.0.4), areal/trainer/ppo/actor.py, PPOActor._compute_advantages (reward_norm mean_leave1out, no std); outcome"
    |c| {
        tokens(c); norm(c, Center::LeaveOneOut, Scale::None, 1e-5, Singleton::Zero); rows(c, |s| (s.clip_value, s.place) = (20.0, Place::End));
        kl(c, KlInReward::K1, KlPlace::Reward, INF, 10.0);
    };
    c"areal.reinforce_plus_plus"
    c"areal-project/AReaL cbff54d64 (1.0.4), areal/trainer/ppo/actor.py, PPOActor._compute_advantages (no reward_norm, adv_norm batch); outcome"
    |c| {
        tokens(c); raw(c); rows(c, |s| (s.clip_value, s.place) = (20.0, Place::End)); whiten(c, Whiten::Tokens, 1, 1e-5, EpsilonMode::AddStd);
        kl(c, KlInReward::K1, KlPlace::Reward, INF, 10.0);
    };
    c"areal.ppo"
    c"areal-project/AReaL cbff54d64 (1.0.4), areal/trainer/ppo/actor.py, PPOActor._compute_advantages (critic, adv_norm batch); outcome, values"
    |c| {
        gae(c); raw(c); rows(c, |s| (s.clip_value, s.place) = (20.0, Place::End)); whiten(c, Whiten::Tokens, 1, 1e-5, EpsilonMode::AddStd);
        kl(c, KlInReward::K1, KlPlace::Reward, INF, 10.0);
    };
    c"roll.grpo"
    c"alibaba/ROLL 8eb27cc2, roll/utils/functionals.py, reward_postprocess, compute_advantage (reward_norm group); outcome"
    |c| { tokens(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Zero); roll(c); };
    c"roll.reinforce"
    c"alibaba/ROLL 8eb27cc2, roll/utils/functionals.py, compute_reinforce_return; outcome"
    |c| { tokens(c); raw(c); roll(c); };
    c"roll.gae"
    c"alibaba/ROLL 8eb27cc2, roll/utils/functionals.py, compute_gae_advantage_return; outcome, values"
    |c| { gae(c); raw(c); roll(c); c.lam = 0.95; };
    c"roll.agentic_reinforce"
    c"alibaba/ROLL 8eb27cc2, roll/pipeline/agentic/utils.py, agentic_reinforce; signal (a reward on the last token of each turn)"
    |c| { (c.kind, c.chunk, c.k) = (Kind::Kl, Chunk::Segment, 0.0); raw_process(c); no_format(c); };
    c"roll.gigpo"
    c"alibaba/ROLL 090ac94, roll/pipeline/agentic/utils.py, gigpo (step sets within the group); steps without scores but with step_group, outcome"
    |c| { gigpo(c); c.step_gamma = 0.95; norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Zero); };
    c"megatron.grpo"
    c"NVIDIA/Megatron-LM d98e8a64, megatron/rl/rl_utils.py, calculate_grpo_advantages; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-4, Singleton::Zero); rows(c, |s| s.ddof = 0); };
    c"deepspeed_chat.ppo"
    c"deepspeedai/DeepSpeedExamples 45b4b715, applications/DeepSpeed-Chat/dschat/rlhf/ppo_trainer.py, compute_rewards, get_advantages_and_returns; outcome, values, and as with trl.ppo a slot after the last token"
    |c| {
        gae(c); raw(c); rows(c, |s| (s.place, s.clip_value) = (Place::End, 5.0)); (c.lam, c.scan_mask) = (0.95, ScanMask::None);
        kl(c, KlInReward::K1, KlPlace::Reward, INF, INF);
    };
    c"skyrl.grpo"
    c"NovaSky-AI/SkyRL a9564572e (0.4.0), skyrl_train/utils/ppo_utils.py, compute_grpo_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Passthrough); };
    c"skyrl.rloo"
    c"NovaSky-AI/SkyRL a9564572e (0.4.0), skyrl_train/utils/ppo_utils.py, compute_rloo_outcome_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::LeaveOneOut, Scale::None, 1e-6, Singleton::Zero); };
    c"skyrl.maxrl"
    c"NovaSky-AI/SkyRL a9564572e (0.4.0), skyrl_train/utils/ppo_utils.py, compute_maxrl_advantage; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Mean, 1e-6, Singleton::Passthrough); };
    c"skyrl.gae"
    c"NovaSky-AI/SkyRL a9564572e (0.4.0), skyrl_train/utils/ppo_utils.py, compute_gae_advantage_return; outcome or token_rewards, values"
    |c| { gae(c); raw(c); c.scan_mask = ScanMask::None; whiten_bessel(c); };
    c"ms_swift.grpo"
    c"modelscope/ms-swift 3602360a5 (4.6.0), swift/rl_core/advantage.py, grpo (scale_rewards = group); outcome and further streams"
    |c| {
        broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::Group, Scale::Group, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Zero);
        kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF);
    };
    c"ms_swift.grpo_batch"
    c"modelscope/ms-swift 3602360a5 (4.6.0), swift/rl_core/advantage.py, grpo (scale_rewards = batch); outcome and further streams"
    |c| {
        broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::Group, Scale::Batch, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Zero);
        kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF);
    };
    c"ms_swift.gdpo"
    c"modelscope/ms-swift 3602360a5 (4.6.0), swift/rl_core/advantage.py, grpo (scale_rewards = gdpo); outcome and further streams"
    |c| {
        broadcast(c); norm(c, Center::Group, Scale::Group, 1e-8, Singleton::Zero); rows(c, |s| s.missing = Missing::Exclude);
        whiten(c, Whiten::Rollouts, 1, 1e-8, EpsilonMode::AddStd);
    };
    c"ms_swift.rloo"
    c"modelscope/ms-swift 3602360a5 (4.6.0), swift/rl_core/advantage.py, rloo (scale_rewards = group); outcome and further streams"
    |c| {
        broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::LeaveOneOut, Scale::Group, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Zero);
        kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF);
    };
    c"ms_swift.reinforce_plus_plus"
    c"modelscope/ms-swift 3602360a5 (4.6.0), swift/rl_core/advantage.py, reinforce_plus_plus (scale_rewards = batch); outcome and further streams"
    |c| {
        broadcast(c); c.fusion = Fusion::RewardSum; norm(c, Center::Group, Scale::None, 1e-4, Singleton::Zero); rows(c, |s| s.missing = Missing::Zero);
        whiten(c, Whiten::Rollouts, 1, 1e-4, EpsilonMode::AddStd); c.whiten_shift = false; kl(c, KlInReward::K1, KlPlace::Outcome, INF, INF);
    };
    c"torchrl.mc_advantage"
    c"pytorch/rl ae9719f17 (0.14.1), torchrl/data/llm (MCAdvantage, a reward a step); signal"
    |c| { broadcast(c); (c.kind, c.chunk) = (Kind::Kl, Chunk::Token); c.streams[..MAX_PROCESS].iter_mut().for_each(|s| s.epsilon_mode = EpsilonMode::FloorStd); };
    c"torchrl.mc_advantage_trajectory"
    c"pytorch/rl ae9719f17 (0.14.1), torchrl/data/llm (MCAdvantage, trajectory_return = sum); outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Refuse); rows(c, |s| s.epsilon_mode = EpsilonMode::FloorStd); };
    c"torchrl.gae"
    c"pytorch/rl ae9719f17 (0.14.1), torchrl/objectives/value/functional.py, generalized_advantage_estimate; token_rewards or outcome, values, bootstrap"
    |c| { gae(c); raw(c); c.lam = 0.95; };
    c"torchrl.vtrace"
    c"pytorch/rl ae9719f17 (0.14.1), torchrl/objectives/value/functional.py, vtrace_advantage_estimate; token_rewards or outcome, values, bootstrap, logp_policy, logp_behavior"
    |c| { gae(c); raw(c); c.credit = Credit::Vtrace; };
    c"torchrl.reward_to_go"
    c"pytorch/rl ae9719f17 (0.14.1), torchrl/objectives/value/functional.py, reward2go; token_rewards or outcome"
    |c| { tokens(c); raw(c); };
    c"prime_rl.grpo"
    c"PrimeIntellect-ai/prime-rl 559b44772, src/prime_rl/orchestrator/algo, grpo; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::None, 1e-6, Singleton::Zero); };
    c"prime_rl.max_rl"
    c"PrimeIntellect-ai/prime-rl 559b44772, src/prime_rl/orchestrator/algo, max_rl; outcome (0 or more)"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Mean, 0.0, Singleton::Zero); };
    c"rllm.grpo"
    c"rllm-org/rllm 9beb6e0f, rllm/trainer/algorithms, grpo; outcome"
    |c| { broadcast(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Passthrough); rows(c, |s| s.ddof = 0); };
    c"rllm.rloo"
    c"rllm-org/rllm 9beb6e0f, rllm/trainer/algorithms, rloo; outcome"
    |c| { broadcast(c); norm(c, Center::LeaveOneOut, Scale::None, 1e-6, Singleton::Passthrough); };
    c"rllm.reinforce_plus_plus_baseline"
    c"rllm-org/rllm 9beb6e0f, rllm/trainer/algorithms/rl_algo.py, calculate_reinforce_plus_plus_baseline_advantages; outcome"
    |c| {
        broadcast(c); norm(c, Center::Group, Scale::None, 1e-6, Singleton::Zero);
        whiten(c, Whiten::Rollouts, 0, 1e-6, EpsilonMode::AddStd); c.whiten_shift = false;
    };
    c"rllm.reinforce"
    c"rllm-org/rllm 9beb6e0f, rllm/trainer/algorithms, reinforce; outcome"
    |c| { broadcast(c); raw(c); };
    c"verl_agent.gigpo"
    c"langfengQ/verl-agent, gigpo/core_gigpo.py, compute_gigpo_outcome_advantage (mode mean_std_norm, gamma 0.95); steps without scores but with step_group, outcome"
    |c| { gigpo(c); norm(c, Center::Group, Scale::Group, 1e-6, Singleton::Passthrough); c.step_gamma = 0.95; };
    c"verl_agent.gigpo_mean"
    c"langfengQ/verl-agent, gigpo/core_gigpo.py, compute_gigpo_outcome_advantage (mode mean_norm, gamma 0.95); steps without scores but with step_group, outcome"
    |c| {
        gigpo(c); norm(c, Center::Group, Scale::None, 1e-6, Singleton::Passthrough); c.step_gamma = 0.95;
        c.streams[..MAX_PROCESS].iter_mut().for_each(|s| s.scale = Scale::None);
    };
    c"atropos.grpo_process"
    c"NousResearch/atropos 296a0bc5 (0.4.0), atroposlib/utils/advantages.py, compute_grpo_process_supervision_advantages; process signal of one group"
    |c| { no_format(c); (c.chunk, c.k) = (Chunk::Step, 0.0); c.streams[..MAX_PROCESS].iter_mut().for_each(|s| (s.ddof, s.epsilon) = (0, 0.0)); };
};
