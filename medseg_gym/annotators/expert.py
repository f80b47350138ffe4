"""Experts that keep a click only if it helps, as MedSAM-Agent makes its training trajectories.

arXiv 2602.03320, figure 2 (its code is not released): a box or a positive click first; then clicks
simulated from the error, each kept only if it passes a quality check and otherwise drawn again; the
end when none does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg_gym.annotators.box import tight_box, widen
from medseg_gym.annotators.click import (
    ErrorClicks,
    Pixel,
    click_pixels,
    clicked_pixels,
    masks_to_host,
    next_click,
)
from medseg_gym.annotators.scripted import OracleScript
from medseg_gym.episodes import Episode, EpisodeEngine, MaskState
from medseg_gym.episodes.metrics import iou_from_counts
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import AddPoint, ArrayCodec, Prompt, Stop


@dataclass
class Effort:
    """Counts of the quality check so far, over all slots.

    Args:
        searches: Turns in which a click was looked for.
        looks: Clicks tried by looking ahead.
        kept: Searches that ended with a click.
    """

    searches: int = 0
    looks: int = 0
    kept: int = 0


@dataclass(eq=False)
class _Search:
    """A slot's search for a click that helps, in one turn."""

    place: int
    slot: int
    episode: Episode
    error: ErrorClicks
    tried: list[Pixel]
    click: AddPoint | None = None


class Expert(OracleScript):
    """Begins with a box or a click, then clicks as long as a click helps.

    **Quality check.** A click is tried by looking ahead (`EpisodeEngine.preview`), so one that does
    not help is never played: what is played raises IoU by more than `tau`. The first prompt is
    played unseen. First the deepest pixel of the worse error is tried, then up to `retries` others
    (`ErrorClicks.draw`); no pixel twice. All slots still searching share one decode per try. When
    no click helps, and where none can any more, the expert stops. What is looked at equals what the
    step then makes up to rounding: another batch size changes a backbone's last bits.

    Whether to begin is read off the episode, so an expert can take over from another agent, or
    repair the mask that a case begins with.

    Args:
        codec: Of the view it plays through; it needs points, stop and, to begin with a box, boxes.
        tau: What a click must gain in IoU, in [0, 1). The default is what `dice_gain` charges for a
            step.
        retries: Other clicks to try in one turn.
        min_iou: `accepts` refuses episodes that end below it.

    Raises:
        PolicyError: An option out of its range, or a tool that the view does not have.
    """

    name = "expert"
    needs: tuple[str, ...] = ("positive_point", "negative_point", "stop")

    def __init__(
        self,
        codec: ArrayCodec,
        tau: float = 0.01,
        retries: float = 3,
        min_iou: float = 0.7,
    ) -> None:
        if not (0 <= tau < 1 and 0 <= min_iou <= 1 and retries in range(1000)):
            raise PolicyError(
                f"{self.name} needs 0 <= tau < 1, 0 <= min_iou <= 1 and a whole number of retries "
                f"below 1000, got {tau}, {min_iou}, {retries}"
            )
        super().__init__(codec)
        self.tau, self.retries, self.min_iou = tau, int(retries), min_iou
        self.name = self.name_with(tau=(tau, 0.01), retries=(retries, 3), min_iou=(min_iou, 0.7))
        self.engine: EpisodeEngine | None = None
        self.effort = Effort()

    def use_engine(self, engine: EpisodeEngine) -> None:
        """Preview clicks with this engine, in which the episodes run."""
        self.engine = engine

    @abstractmethod
    def begins_with_box(self, slot: int) -> bool:
        """Return True if the first prompt of a slot's episode is a box; else it is a click."""

    def accepts(self, episode: Episode) -> bool:
        """Return True if a finished episode is good enough to learn from."""
        return episode.iou >= self.min_iou

    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """The next prompt of every open slot."""
        prompts: list[Prompt] = [Stop()] * len(slots)
        searching = []
        for place, (slot, episode) in enumerate(zip(slots, episodes, strict=True)):
            if episode.state is episode.cleared:
                prompts[place] = self._first(slot, episode)
            elif 1 - episode.iou > self.tau:  # else no click can gain more than tau
                searching.append(place)
        masks = masks_to_host([episodes[place] for place in searching])
        searches = [
            _Search(
                place,
                slots[place],
                episodes[place],
                ErrorClicks(mask, episodes[place].case.mask),
                clicked_pixels(episodes[place], self.codec.bins),
            )
            for place, mask in zip(searching, masks, strict=True)
        ]
        for place, click in self._search(searches):
            prompts[place] = click
        return prompts

    def _first(self, slot: int, episode: Episode) -> Prompt:
        truth = episode.case.mask
        if self.begins_with_box(slot):
            box = tight_box(truth)
            return widen(box, self.codec.bins) if box else Stop()
        clicked = clicked_pixels(episode, self.codec.bins)
        return next_click(np.zeros_like(truth), truth, clicked) or Stop()

    def _search(self, searches: list[_Search]) -> list[tuple[int, AddPoint]]:
        """Find clicks that help: (place, click) for each search that ended with one."""
        self.effort.searches += len(searches)
        kept = []
        for attempt in range(self.retries + 1):
            for search in searches:
                self._aim(search, again=attempt > 0)
            searches = [search for search in searches if search.click is not None]
            if not searches:
                break
            states = self._look_ahead(searches)
            self.effort.looks += len(searches)
            failed = []
            for search, state in zip(searches, states, strict=True):
                assert search.click is not None
                if gain(search.episode, state) > self.tau:
                    kept.append((search.place, search.click))
                else:
                    failed.append(search)
            searches = failed
        self.effort.kept += len(kept)
        return kept

    def _aim(self, search: _Search, again: bool) -> None:
        if again:
            click = search.error.draw(self.generators[search.slot], search.tried)
        else:
            click = search.error.deepest(search.tried)
        if click is not None:
            # What is looked at is what will be played: the centre of the click's grid cell.
            (click,) = self.codec.decode(self.codec.encode(click)[None])  # type: ignore[assignment]
            assert isinstance(click, AddPoint)
            search.tried += click_pixels(click, search.episode.case.mask.shape, self.codec.bins)
        search.click = click

    def _look_ahead(self, searches: Sequence[_Search]) -> list[MaskState]:
        for search in searches:
            if search.episode.embedding is None:
                raise PolicyError(
                    f"{self.name} looks ahead, which needs episodes that run in an engine; "
                    f"that on case {search.episode.case.key!r} is a record"
                )
        if self.engine is None:
            raise PolicyError(
                f"{self.name} looks ahead, which needs the engine of its environment: "
                "call use_engine(envs.engine) first, as play_cases does"
            )
        clicks = [search.click for search in searches if search.click is not None]
        return self.engine.preview([search.episode for search in searches], clicks)


def gain(episode: Episode, state: MaskState) -> float:
    """Return what an episode's IoU would gain by going on to a state."""
    counts = state.intersection, state.pixels, episode.truth_pixels
    return iou_from_counts(*counts) - episode.iou


class BoxToPoint(Expert):
    """A tight box first, then clicks; see `Expert`."""

    name = "box-to-point"
    needs = ("box", *Expert.needs)

    def begins_with_box(self, slot: int) -> bool:
        """Always."""
        return True


class SequentialClick(Expert):
    """A positive click first, then clicks; see `Expert`."""

    name = "sequential-click"

    def begins_with_box(self, slot: int) -> bool:
        """Never."""
        return False


class Hybrid(Expert):
    """In each episode one of the two, drawn from the slot's generator; see `Expert`.

    Args:
        codec: See `Expert`.
        tau: See `Expert`.
        retries: See `Expert`.
        min_iou: See `Expert`.
        boxes: Share of episodes that begin with a box, in [0, 1].
    """

    name = "hybrid"
    needs = BoxToPoint.needs

    def __init__(
        self,
        codec: ArrayCodec,
        tau: float = 0.01,
        retries: float = 3,
        min_iou: float = 0.7,
        boxes: float = 0.5,
    ) -> None:
        if not 0 <= boxes <= 1:
            raise PolicyError(f"hybrid needs 0 <= boxes <= 1, got {boxes}")
        super().__init__(codec, tau, retries, min_iou)
        self.boxes = boxes
        self.name = self.name_with(boxes=(boxes, 0.5))
        self._with_box: dict[int, bool] = {}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        super().reset(slots, generators)
        for slot, generator in zip(slots, generators, strict=True):
            self._with_box[slot] = bool(generator.random() < self.boxes)

    def begins_with_box(self, slot: int) -> bool:
        """As drawn."""
        return self._with_box[slot]
