"""A human hand: what an expert means to do, done with slips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medseg_gym.annotators.box import disturb, widen
from medseg_gym.annotators.click import clicked_pixels, masks_to_host, next_click
from medseg_gym.annotators.scripted import OracleScript
from medseg_gym.episodes import Episode, EpisodeEngine
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import AddBox, AddPoint, Prompt, Stop


class Noisy(OracleScript):
    """An expert whose hand slips and who stops too early or too late.

    The expert looks at the image as it is; the slips come after its quality check, so a click
    played here may well do harm. Slips draw from a generator of their own, spawned from the slot's,
    and the same number of draws in every turn: the expert draws as it would without them.
    Where there is no target it stops at once, whatever `late` says.

    Args:
        expert: Who means to do something.
        jitter: Standard deviation of a click along each axis, as a share of the square root of the
            target's area.
        loosen: Each side of a box goes outward by a uniform share up to this of the box's extent.
        wrong: Chance that a click has the wrong label.
        early: Chance, in every turn but the first, to stop although the expert would go on.
        late: Chance to click on the worst error, unchecked, where the expert would stop.

    Raises:
        PolicyError: An option out of its range.
    """

    def __init__(
        self,
        expert: OracleScript,
        jitter: float = 0.1,
        loosen: float = 0.1,
        wrong: float = 0.05,
        early: float = 0.05,
        late: float = 0.1,
    ) -> None:
        chances = {"wrong": wrong, "early": early, "late": late}
        if not (
            0 <= jitter <= 2 and 0 <= loosen <= 2 and all(0 <= p <= 1 for p in chances.values())
        ):
            raise PolicyError(
                f"noisy needs jitter and loosen in [0, 2] and chances in [0, 1], got "
                f"jitter={jitter}, loosen={loosen}, {chances}"
            )
        super().__init__(expert.codec)
        self.expert = expert
        self.jitter, self.loosen = jitter, loosen
        self.wrong, self.early, self.late = wrong, early, late
        self.name = f"noisy-{expert.name}"
        self.name = self.name_with(
            jitter=(jitter, 0.1),
            loosen=(loosen, 0.1),
            wrong=(wrong, 0.05),
            early=(early, 0.05),
            late=(late, 0.1),
        )

    def use_engine(self, engine: EpisodeEngine) -> None:
        """Hand the engine on to the expert."""
        self.expert.use_engine(engine)

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        self.expert.reset(slots, generators)
        super().reset(slots, [generator.spawn(1)[0] for generator in generators])

    def accepts(self, episode: Episode) -> bool:
        """As the expert."""
        return self.expert.accepts(episode)

    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """The next prompt of every open slot."""
        early, late, wrong = (
            dict(zip(slots, column, strict=True))
            for column in self._draw(slots) < [[self.early], [self.late], [self.wrong]]
        )
        prompts: dict[int, Prompt] = {
            slot: Stop() for slot in slots if early[slot] and self.turns[slot]
        }
        going_on = [i for i, slot in enumerate(slots) if slot not in prompts]
        meant = self.expert.choose_all(
            [slots[i] for i in going_on], [episodes[i] for i in going_on]
        )
        overdue = []
        for i, prompt in zip(going_on, meant, strict=True):
            self.expert.turns[slots[i]] += 1
            prompts[slots[i]] = prompt
            if isinstance(prompt, Stop) and late[slots[i]] and episodes[i].truth_pixels:
                overdue.append(i)
        masks = masks_to_host([episodes[i] for i in overdue])
        for i, mask in zip(overdue, masks, strict=True):
            clicked = clicked_pixels(episodes[i], self.codec.bins)
            prompts[slots[i]] = next_click(mask, episodes[i].case.mask, clicked) or Stop()
        return [
            self._slip(slot, prompts[slot], episode, bool(wrong[slot]))
            for slot, episode in zip(slots, episodes, strict=True)
        ]

    def _draw(self, slots: Sequence[int]) -> np.ndarray:
        """Uniform draws, 3 x n."""
        drawn = [self.generators[slot].random(3) for slot in slots]
        return np.array(drawn).reshape(len(slots), 3).T

    def _slip(self, slot: int, prompt: Prompt, episode: Episode, wrong: bool) -> Prompt:
        generator = self.generators[slot]
        if isinstance(prompt, AddBox):
            return widen(disturb(prompt, generator, self.loosen), self.codec.bins)
        if not isinstance(prompt, AddPoint):
            return prompt
        height, width = episode.case.mask.shape
        size = self.jitter * episode.truth_pixels**0.5
        across, down = generator.normal(0, size, 2) if size else (0.0, 0.0)
        return replace(
            prompt,
            x=min(max(prompt.x + across / width, 0.0), 1.0),
            y=min(max(prompt.y + down / height, 0.0), 1.0),
            positive=prompt.positive != wrong,
        )
