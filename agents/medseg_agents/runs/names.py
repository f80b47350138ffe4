"""Names in a run's settings, looked up before the run begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medseg_gym.backbones.registry import check_name
from medseg_gym.episodes import rewards


def check_names(
    load: Callable[[str, str], Any],
    cases: str,
    split: str = "train",
    backbone: str | None = None,
    checkpoint: str | None = None,
    reward: str | None = None,
) -> Any:
    """Refuse names that the run would refuse, before it claims its folder and starts Ray.

    Otherwise the folder of a misspelt name would have to be removed by hand.

    Args:
        load: Opens the cases: `load_cases`, or that of a chat environment.
        cases: Their spec.
        split: That is played.
        backbone: Name of the segmenter; None leaves it out.
        checkpoint: Its weight file.
        reward: Name of the reward; None leaves it out.

    Returns:
        The cases.

    Raises:
        MedSegError: Cases, reward or segmenter cannot be used.
    """
    source = load(cases, split)
    if reward is not None:
        rewards.make(reward)
    if backbone is not None:
        check_name(backbone, checkpoint)
    return source
