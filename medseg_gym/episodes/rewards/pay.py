"""Ask a reward for its value, and refuse what is no finite number.

Rewards of users come in here: a NaN would pass through returns and advantages into the weights of
whatever learns from it, an infinity into every mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.protocol import Reward, RewardValue
from medseg_gym.errors import RewardError


def pay(reward: Reward, episode: Episode) -> RewardValue:
    """Value the newest step of an episode, as plain floats.

    Args:
        reward: Called with the episode.
        episode: With its newest step recorded.

    Returns:
        What the reward gave; a number alone becomes a `RewardValue` without terms.

    Raises:
        RewardError: Something else than a finite number or a `RewardValue` of finite numbers,
            naming the reward, the case and the step.
    """
    returned: Any = reward(episode)
    if isinstance(returned, Real):
        return RewardValue(_number(reward, episode, "value", returned), {})
    try:
        value, terms = returned
    except (TypeError, ValueError):
        raise _refused(
            reward,
            episode,
            f"gave {_short(returned)}; a reward returns a number or RewardValue(value, terms)",
        ) from None
    if not isinstance(terms, Mapping):
        raise _refused(
            reward,
            episode,
            f"gave the terms {_short(terms)}; they are a mapping of names to numbers",
        )
    return RewardValue(
        _number(reward, episode, "value", value),
        {name: _number(reward, episode, f"term {name!r}", term) for name, term in terms.items()},
    )


def reward_name(reward: Reward) -> str:
    """Return the name of a reward: its `name`, or that of its function or class."""
    plain = getattr(reward, "name", "") or getattr(reward, "__name__", "")
    return str(plain or type(reward).__name__)


def _number(reward: Reward, episode: Episode, what: str, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, (str, bytes)) else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):  # None, a list, a larger array
        number = math.nan
    # An array of one element would pass as a float, in shapes that depend on the batch.
    if not math.isfinite(number) or getattr(value, "ndim", None):
        raise _refused(reward, episode, f"{what} is {_short(value)}, which is no finite number")
    return number


def _refused(reward: Reward, episode: Episode, what: str) -> RewardError:
    return RewardError(
        f"reward {reward_name(reward)!r} on case {episode.case.key!r}, step "
        f"{len(episode.steps)}: {what}"
    )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
