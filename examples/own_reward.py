"""Reward something else: the sharpness of the outline, counted once at the end.

A reward is a function of the episode. It returns a value and the terms that `info` reports.

    python examples/own_reward.py
"""

import gymnasium as gym
import numpy as np

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.episodes import Episode
from medseg_gym.episodes.metrics import boundary_iou
from medseg_gym.episodes.rewards import RewardValue

CLICK_PRICE = 0.02


def sharp_outline(episode: Episode) -> RewardValue:
    """Boundary IoU of the final mask, less a price for every action."""
    outline = boundary_iou(episode.state.mask, episode.case.mask) if episode.done else 0.0
    return RewardValue(outline - CLICK_PRICE, {"outline": outline, "price": -CLICK_PRICE})


# The same actions under both rewards: only the reward differs.
actions = [[0, 130, 180, 480, 710], [5, 0, 0, 0, 0]]  # a box, then stop
for reward in ("dice_gain", sharp_outline):
    env = gym.make("MedSeg-v0", reward=reward)
    env.reset(seed=0)
    returns, info = [], {}
    for action in actions:
        _, value, _, _, info = env.step(action)
        returns.append(value)
    print(getattr(reward, "__name__", reward), "->", np.round(returns, 3).tolist())
    print("  terms of the last step:", {k: info[k] for k in ("outline", "price") if k in info})
    env.close()

# A formula of rewards that have a name needs no function at all.
env = gym.make("MedSeg-v0", reward="dice_gain - 0.5 * stop_regret")
env.reset(seed=0)
returns = [env.step(action)[1] for action in actions]
print("dice_gain - 0.5 * stop_regret ->", np.round(returns, 3).tolist())
env.close()
