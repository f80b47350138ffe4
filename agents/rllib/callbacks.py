"""What RLlib does not do by itself: watch the autoreset mode, and report Dice."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode
from ray.rllib.callbacks.callbacks import RLlibCallback

from medseg_gym.errors import MedSegError

DICE = "final_dice"
"""Metric under "env_runners": mean final Dice of the newest episodes."""

_WINDOW = 256


def check_autoreset(env: Any) -> None:
    """Refuse vector environments that RLlib would learn from wrongly.

    RLlib takes the observation after an episode's end for its last one. Under "same_step" that is
    the next episode's image; nothing would fail, and everything learned would be wrong.

    Raises:
        MedSegError: The autoreset mode is not "next_step".
    """
    mode = getattr(env, "metadata", {}).get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP:
        raise MedSegError(
            f"RLlib needs environments with autoreset mode next_step, got {mode}: with any other "
            "its episodes end with an observation that is not theirs; leave autoreset_mode out"
        )


class MedSegCallback(RLlibCallback):
    """Checks every environment when it is made; adds the final Dice to the metrics."""

    def on_environment_created(
        self, *, env_runner: Any, metrics_logger: Any = None, env: Any, env_context: Any, **_: Any
    ) -> None:
        """Refuse what RLlib would corrupt."""
        check_autoreset(env)

    def on_episode_end(self, *, episode: Any, metrics_logger: Any = None, **_: Any) -> None:
        """Log the episode's Dice."""
        info = episode.get_infos(-1)
        if metrics_logger is not None and info and "dice" in info:
            metrics_logger.log_value(DICE, float(info["dice"]), reduce="mean", window=_WINDOW)
