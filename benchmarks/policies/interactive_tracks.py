"""Ways to prompt in the benchmark of interactive quality, and the episodes of each."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_gym.policy import Played

WAYS = {
    "clicks": "oracle-click",
    "box": "oracle-box-click",
    "loose box": "oracle-box-click?loosen=0.2",
}
STEPS = 5


@dataclass(frozen=True)
class Track:
    """One backbone prompted in one way: episodes in the order of the cases."""

    backbone: str
    way: str
    played: tuple[Played, ...]
    note: str = ""

    def dice(self, step: int) -> list[float]:
        """Dice of every case after `step` prompts; a finished episode keeps its last one."""
        return [
            [p.episode.start_dice, *(s.dice for s in p.episode.steps)][
                min(step, len(p.episode.steps))
            ]
            for p in self.played
        ]
