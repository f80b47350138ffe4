"""A policy."""

import numpy as np

BOX, STOP = 0, 5


class Bright:
    """Box what is brighter than a threshold, then stop."""

    name, sees_truth = "bright", False

    def __init__(self, codec: object = None, threshold: int = 120) -> None:
        self.threshold = threshold

    def reset(self, slots, generators):
        """Begin new episodes; nothing is kept or drawn."""

    def act(self, observations):
        """Return (n, 5) actions for n slots."""
        images = observations["image"].mean(3)  # (n, S, S)
        actions = np.full((len(images), 5), STOP)
        for slot in np.flatnonzero(observations["steps_left"][:, 0] == 1):
            y, x = np.nonzero(images[slot] > self.threshold)
            if len(x):
                corners = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
                actions[slot] = BOX, *(corners * 1000 // images.shape[1]).clip(0, 999)
        return actions
