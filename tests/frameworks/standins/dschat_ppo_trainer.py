"""Stand-in of dschat/rlhf/ppo_trainer.py (deepspeedai/DeepSpeedExamples 45b4b715): rewards, advantages and how train_rlhf joins them."""
import torch


class DeepSpeedPPOTrainer:
    def __init__(self):
        self.kl_ctl, self.clip_reward_value, self.gamma, self.lam = 0.1, 5.0, 1.0, 0.95

    def compute_rewards(self, prompts, log_probs, ref_log_probs, reward_score, action_mask):
        rewards = -self.kl_ctl * (log_probs - ref_log_probs)
        start = prompts.shape[1] - 1
        ends = start + action_mask[:, start:].sum(1) + 1
        score = reward_score.clamp(-self.clip_reward_value, self.clip_reward_value)
        for row in range(len(rewards)):
            rewards[row, start : ends[row]][-1] += score[row]
        return rewards

    def get_advantages_and_returns(self, values, rewards, start):
        carry, found = 0.0, []
        for t in reversed(range(start, rewards.shape[1])):
            following = values[:, t + 1] if t < rewards.shape[1] - 1 else 0.0
            carry = rewards[:, t] + self.gamma * following - values[:, t] + self.gamma * self.lam * carry
            found.append(carry)
        advantages = torch.stack(found[::-1], dim=1)
        return advantages, advantages + values[:, start:]

    def train_rlhf(self, inputs):
        prompts, start = inputs["prompts"], inputs["prompts"].shape[1] - 1
        action_mask = inputs["attention_mask"][:, 1:]
        old_values = inputs["value"].clone()
        rewards = self.compute_rewards(prompts, inputs["logprobs"], inputs["ref_logprobs"], inputs["rewards"], action_mask)
        ends = start + action_mask[:, start:].sum(1) + 1
        for row in range(len(rewards)):
            rewards[row, ends[row] :] = 0
            old_values[row, ends[row] :] = 0
        return self.get_advantages_and_returns(old_values, rewards, start)
