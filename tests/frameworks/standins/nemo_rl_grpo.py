"""Stand-in of nemo_rl/algorithms/grpo.py (NVIDIA-NeMo/RL 7ea279abf): the factory by `adv_estimator.name`, and the call of the training loop."""


def _create_advantage_estimator(master_config):
    name = master_config["grpo"]["adv_estimator"]["name"]
    raise ValueError(f"Invalid adv_estimator name: {name}")


def training_step(master_config, prompt_ids, rewards, mask, repeated_batch, logprobs_policy, logprobs_reference):
    estimator = _create_advantage_estimator(master_config)
    return estimator.compute_advantage(
        prompt_ids=prompt_ids, rewards=rewards, mask=mask, repeated_batch=repeated_batch, logprobs_policy=logprobs_policy, logprobs_reference=logprobs_reference)
