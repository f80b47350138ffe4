"""The reward function for verl: the suite's own return of a rollout."""

from __future__ import annotations

from typing import Any

from medseg_agents.verl.tool import FIELD
from medseg_gym.errors import PolicyError


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    refused: float = -0.01,
    **kwargs: Any,
) -> dict[str, float]:
    """Return the score of one rollout.

    verl ends a rollout whose last answer holds no call that it can read, and answers calls of
    unknown tools by itself. Such answers never reach the environment; each costs `refused` here, as
    long as the episode had steps left.

    Args:
        data_source: Not looked at.
        solution_str: Not looked at: the standing of the episode counts.
        ground_truth: Not looked at; the truth is with the tools.
        extra_info: With `medseg`, which `MedSegTool` leaves in the rollout's `extra_fields` (absent
            where no call reached a tool), and verl's `num_turns`.
        refused: Reward of a refused answer; the default is that of the reward `dice_gain`.
        **kwargs: Whatever else verl passes; not looked at.

    Returns:
        `score`, and to be logged `dice`, `turns`, `valid_rate`, `stopped`, `called`.

    Raises:
        PolicyError: A tool failed in this rollout, so that it has no reward.
    """
    info = extra_info or {}
    standing = info.get(FIELD) or {}
    if "failure" in standing:
        raise PolicyError(
            f"a tool failed, so that this rollout has no reward: {standing['failure']}"
        )
    turns = int(standing.get("turns", 0))
    # Every answer of the model is a turn of its own, and the prompt and the tools' are the others.
    answers = int(info.get("num_turns") or 0) // 2
    lost = 0
    if not standing.get("done", False):
        lost = min(max(answers - turns, 0), int(standing.get("steps_left", answers)))
    played = turns + lost
    return {
        "score": float(standing.get("episode_return", 0.0)) + lost * refused,
        "dice": float(standing.get("dice", 0.0)),
        "turns": float(played),
        "valid_rate": float(standing.get("valid", 0)) / max(played, 1),
        "stopped": float(standing.get("stopped", False)),
        "called": float(bool(standing)),
    }
