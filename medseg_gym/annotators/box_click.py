"""A box first, then clicks on what it got wrong; no look-ahead, no stopping early."""

from __future__ import annotations

from collections.abc import Sequence

from medseg_gym.annotators.box import OracleBox
from medseg_gym.annotators.click import worst_error_clicks
from medseg_gym.episodes import Episode
from medseg_gym.prompts import Prompt


class OracleBoxClick(OracleBox):
    """The first turn of `OracleBox`, then clicks as `OracleClick` makes them.

    Args:
        codec: Of the view it plays through.
        loosen: Of the box, see `disturb`.
        jitter: Of the box, see `disturb`.
    """

    name = "oracle-box-click"
    needs = ("box", "positive_point", "negative_point")

    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """Box in the first turn, then clicks."""
        later = [i for i, slot in enumerate(slots) if self.turns[slot]]
        prompts = super().choose_all(slots, episodes)
        clicks = worst_error_clicks([episodes[i] for i in later], self.codec.bins)
        for i, click in zip(later, clicks, strict=True):
            prompts[i] = click
        return prompts
