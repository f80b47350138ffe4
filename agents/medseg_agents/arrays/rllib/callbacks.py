"""Callbacks that watch the autoreset mode and report Dice in RLlib."""

from __future__ import annotations

from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback

from medseg_gym.errors import MedSegError

DICE = "dice"
"""Metric under "env_runners": mean `EpisodeSummary.dice` of the newest episodes."""

_WINDOW = 256


def check_autoreset(mode: Any) -> None:
    """Refuse an autoreset mode with which RLlib would learn wrongly.

    RLlib takes the observation after an episode's end for its last one. Under "same_step" that is
    the next episode's image; nothing would fail, and everything learned would be wrong.

    Args:
        mode: An `AutoresetMode`, its name, or None where an environment declares none.

    Raises:
        MedSegError: It is not "next_step".
    """
    if str(getattr(mode, "name", mode)).lower() != "next_step":
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
        check_autoreset(getattr(env, "metadata", {}).get("autoreset_mode"))

    def on_episode_end(self, *, episode: Any, metrics_logger: Any = None, **_: Any) -> None:
        """Log the episode's Dice."""
        info = episode.get_infos(-1)
        if metrics_logger is not None and info and "dice" in info:
            metrics_logger.log_value(DICE, float(info["dice"]), reduce="mean", window=_WINDOW)
