"""Write a policy and put it into a table with an oracle and a baseline.

    python examples/own_policy_compare.py
    medseg compare --policies examples/own_policy_compare.py:BrightBox,oracle-box,stop

A policy gets the observations of all slots and returns one action row per slot: tool, x1, y1,
x2, y2.
"""

from pathlib import Path

import numpy as np
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.policies import PolicySpec

from medseg_gym.display.terminal import make_console

BOX, STOP = 0, 5


class BrightBox:
    """Box whatever is brighter than the rest, then stop."""

    name, sees_truth = "bright-box", False

    def __init__(self, codec: object = None) -> None:
        """Codecs turn prompts into actions; this policy writes the numbers itself."""

    def reset(self, slots, generators):
        """Begin new episodes; this policy keeps nothing and draws nothing."""

    def act(self, observations):
        """Return (n, 5) actions for n slots."""
        images = observations["image"].mean(3)  # (n, S, S)
        actions = np.full((len(images), 5), STOP)
        for slot in np.flatnonzero(observations["steps_left"][:, 0] == 1):
            y, x = np.nonzero(images[slot] > np.percentile(images[slot], 97))
            corners = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
            actions[slot] = BOX, *(corners * 1000 // images.shape[1]).clip(0, 999)
        return actions


if __name__ == "__main__":
    options = CompareOptions(cases="samples", backbones=("ellipse",), limit=6, num_envs=6)
    specs = [
        PolicySpec("bright-box", lambda envs: BrightBox()),
        policies.make("oracle-box"),  # shown the truth; every table says so
        policies.make("stop"),
    ]
    console = make_console()
    out = Path("out/own_policy")
    comparison = compare(specs, options, out)
    comparison.write(out)  # results.json, results.csv, dice_by_step.png
    comparison.show(console)
