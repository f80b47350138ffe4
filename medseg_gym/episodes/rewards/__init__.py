"""Rewards: small objects called with the Episode after every step.

| name | when it pays | what |
|---|---|---|
| `dice_gain` | every step | gain in Dice less a step penalty; telescopes (the default) |
| `medsam_agent` | last step | MedSAM-Agent's episode reward |
| `ibis_agent` | every step | IBISAgent's mean of five terms |
| `format` | last step | a prompt was given and Stop ended it |
| `stop_regret` | last step | minus the Dice given away since the best mask |

Mixtures need no class: `make("dice_gain + 0.2 * format")` or `DiceGain() + 0.2 * Format()`. A
reward for the last step is paid when the episode is over (Stop, or the last of `max_steps`); an
outer time limit that truncates it pays nothing.
"""

from medseg_gym.episodes.rewards.composition import ComposableReward, Mixture
from medseg_gym.episodes.rewards.dice_gain import DiceGain
from medseg_gym.episodes.rewards.format import Format
from medseg_gym.episodes.rewards.ibis_agent import IbisAgent
from medseg_gym.episodes.rewards.medsam_agent import MedSamAgent
from medseg_gym.episodes.rewards.pay import pay
from medseg_gym.episodes.rewards.protocol import Reward, RewardValue
from medseg_gym.episodes.rewards.registry import make, names, register
from medseg_gym.episodes.rewards.scoring import score_episode
from medseg_gym.episodes.rewards.stop_regret import StopRegret

__all__ = [
    "ComposableReward",
    "DiceGain",
    "Format",
    "IbisAgent",
    "MedSamAgent",
    "Mixture",
    "Reward",
    "RewardValue",
    "StopRegret",
    "make",
    "names",
    "pay",
    "register",
    "score_episode",
]
