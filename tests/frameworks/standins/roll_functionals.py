"""Stand-in of roll/utils/functionals.py (alibaba/ROLL 8eb27cc2): compute_advantage of the name's contract; reinforce, with the response's shift by one."""
import torch


def compute_advantage(data, gamma, lambd, adv_estimator, advantage_clip=None, whiten_advantages=False, whiten_rewards=False, response_mask=None):
    if response_mask is None:
        response_mask = data.batch["response_mask"][:, 1:]
    assert adv_estimator in ("reinforce", "grpo")
    rewards = data.batch["token_level_rewards"] * response_mask
    carry, found = torch.zeros(len(rewards)), []
    for t in reversed(range(rewards.shape[1])):
        carry = rewards[:, t] + gamma * carry
        found.append(carry)
    returns = torch.stack(found[::-1], dim=1)
    data.batch["raw_advantages"] = returns
    data.batch["advantages"] = returns * response_mask
    data.batch["returns"] = returns
    return data
