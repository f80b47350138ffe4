"""The work that a throughput measurement does, written down before anybody does it.

A `Plan` says which slot segments which image with which prompts. The environment and the baselines
play the same plan, so their times compare.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg_gym.cases import Case, load_cases
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox, AddPoint, Prompt, Stop, Undo
from medseg_gym.prompts.grid import TOOL_CALL_BINS, to_fraction

WORKLOADS = {
    "fresh": "every episode a new image",
    "group": "8 episodes share an image, as GRPO groups do",
    "cached": "all images seen before",
    "mixed": "random boxes, clicks, undo and stops; a new image every fourth episode or so",
}
STEPS = 5
GROUP = 8
_POOL = 16  # images of `cached`
_SIDE = 512  # pixels of a synthetic image


@dataclass(frozen=True)
class PlannedEpisode:
    """One episode: the number of its image and its actions in order, at most `STEPS`."""

    image: int
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Plan:
    """Every action of a measurement.

    Args:
        workload: Its name.
        steps: Vector steps; in each of them every slot acts.
        images: Distinct images; episodes name them by number.
        slots: Per slot its episodes in order, `steps` actions in all.
    """

    workload: str
    steps: int
    images: int
    slots: tuple[tuple[PlannedEpisode, ...], ...]

    @property
    def warm(self) -> bool:
        """True if the images are to be encoded before the clock starts."""
        return self.workload == "cached"

    @property
    def episodes(self) -> int:
        """Episodes begun."""
        return sum(map(len, self.slots))

    @property
    def decodes(self) -> int:
        """Actions that need a mask."""
        return sum(is_decode(p) for slot in self.slots for e in slot for p in e.prompts)

    @property
    def images_used(self) -> int:
        """Distinct images that occur."""
        return len({episode.image for slot in self.slots for episode in slot})

    def turns(self, slot: int) -> Iterator[tuple[PlannedEpisode, bool, Prompt]]:
        """A slot's actions in order, each with its episode and whether it is the first."""
        for episode in self.slots[slot]:
            for number, prompt in enumerate(episode.prompts):
                yield episode, number == 0, prompt


def is_decode(prompt: Prompt) -> bool:
    """True for an action that needs a mask, False for undo and stop."""
    return isinstance(prompt, AddBox | AddPoint)


def make_plan(
    workload: str, num_envs: int, episodes: int, kinds: Collection[str], seed: int = 0
) -> Plan:
    """Write a plan.

    Args:
        workload: Of `WORKLOADS`.
        num_envs: Slots.
        episodes: At least so many episodes of five prompts; rounded up to fill all slots evenly
            and, for `group`, all groups. `mixed` takes twice as many steps, in shorter episodes.
        kinds: Prompt kinds to use, out of "box" and "point".
        seed: Of the plan.

    Raises:
        MedSegError: Unknown workload, no usable kind of prompt, or a number below 1.
    """
    if workload not in WORKLOADS:
        raise MedSegError(f"unknown workload {workload!r}; known: {', '.join(WORKLOADS)}")
    if num_envs < 1 or episodes < 1 or not {"box", "point"} & set(kinds):
        raise MedSegError(
            f"need num_envs, episodes >= 1 and boxes or clicks, got {num_envs}, {episodes}, {kinds}"
        )
    rng = np.random.default_rng([seed, num_envs, *workload.encode()])
    each = -(-episodes // num_envs)
    if workload == "group":
        while each * num_envs % GROUP:
            each += 1
    if workload == "mixed":
        return _mixed(num_envs, 2 * each * STEPS, kinds, rng)
    image_of: Callable[[int], int] = {
        "fresh": lambda number: number,
        "group": lambda number: number // GROUP,
        "cached": lambda number: number % min(_POOL, num_envs),
    }[workload]
    slots = tuple(
        tuple(
            PlannedEpisode(image_of(wave * num_envs + slot), _five_prompts(kinds, rng))
            for wave in range(each)
        )
        for slot in range(num_envs)
    )
    images = 1 + max(episode.image for slot in slots for episode in slot)
    return Plan(workload, each * STEPS, images, slots)


def _five_prompts(kinds: Collection[str], rng: np.random.Generator) -> tuple[Prompt, ...]:
    """A box or a click, then clicks; only boxes where clicks are of no use."""
    if "point" not in kinds:
        return tuple(_box(rng) for _ in range(STEPS))
    first = _box(rng) if "box" in kinds and rng.random() < 0.5 else _click(rng, True)
    return (first, *(_click(rng) for _ in range(STEPS - 1)))


def _mixed(num_envs: int, steps: int, kinds: Collection[str], rng: np.random.Generator) -> Plan:
    actions: list[list[tuple[Prompt, ...]]] = []
    for _ in range(num_envs):
        episodes: list[tuple[Prompt, ...]] = []
        left = steps
        while left:
            prompts = _mixed_episode(kinds, rng)[:left]
            episodes.append(prompts)
            left -= len(prompts)
        actions.append(episodes)
    images = max(1, sum(map(len, actions)) // 4)
    slots = tuple(
        tuple(PlannedEpisode(int(rng.integers(images)), prompts) for prompts in episodes)
        for episodes in actions
    )
    return Plan("mixed", steps, images, slots)


def _mixed_episode(kinds: Collection[str], rng: np.random.Generator) -> tuple[Prompt, ...]:
    prompts: list[Prompt] = []
    undoable = 0
    while len(prompts) < STEPS:
        draw = rng.random() if prompts else 1.0
        if draw < 0.15:
            prompts.append(Stop())
            break
        if draw < 0.35 and undoable:
            prompts.append(Undo())
            undoable -= 1
            continue
        box = "point" not in kinds or ("box" in kinds and rng.random() < 0.4)
        prompts.append(_box(rng) if box else _click(rng))
        undoable += 1
    return tuple(prompts)


def _box(rng: np.random.Generator) -> AddBox:
    (x1, x2), (y1, y2) = (rng.choice(TOOL_CALL_BINS, 2, replace=False) for _ in "xy")
    return AddBox(*(to_fraction(int(v), TOOL_CALL_BINS) for v in (x1, y1, x2, y2)))


def _click(rng: np.random.Generator, positive: bool | None = None) -> AddPoint:
    x, y = (to_fraction(int(v), TOOL_CALL_BINS) for v in rng.integers(TOOL_CALL_BINS, size=2))
    return AddPoint(x, y, bool(rng.integers(2)) if positive is None else positive)


# images ---------------------------------------------------------------------------------------
def draw_cases(spec: str, split: str, count: int, seed: int) -> list[Case]:
    """Cases with distinct images, none of whose derived data are computed yet.

    Args:
        spec: "noise" for synthetic 512 x 512 textures, else a case spec.
        split: "train", "val" or "test".
        count: How many.
        seed: Of the textures: other seeds give other images.

    Raises:
        MedSegError: The source has fewer distinct images.
    """
    if spec == "noise":
        return [_texture(seed, number) for number in range(count)]
    cases: dict[str, Case] = {}
    source = load_cases(spec, split)
    for case in source:
        if len(cases) == count:
            break
        cases.setdefault(case.content_hash, case)
    if len(cases) < count:
        raise MedSegError(
            f"{spec!r}, split {split!r}, has {len(cases)} distinct images, this workload needs "
            f"{count}; use --cases noise or phantoms, or fewer episodes"
        )
    return [replace(case) for case in cases.values()]


def _texture(seed: int, number: int) -> Case:
    rng = np.random.default_rng([seed, number])
    coarse = rng.integers(0, 160, (_SIDE // 16, _SIDE // 16, 3), dtype=np.uint8)
    image = coarse.repeat(16, axis=0).repeat(16, axis=1)
    image += rng.integers(0, 96, image.shape, dtype=np.uint8)
    y, x = (np.mgrid[:_SIDE, :_SIDE] + 0.5) / _SIDE
    (cx, cy), (rx, ry) = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.3, 2)
    mask = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    key = f"noise {seed}/{number}"
    return Case(key, image, mask, target="ellipse", source="noise", synthetic=True)


def actions_by_step(plan: Plan, encode: Callable[[Prompt], np.ndarray]) -> np.ndarray:
    """All actions as an array, steps x slots x 5 int64."""
    rows: Sequence[Sequence[np.ndarray]] = [
        [encode(prompt) for _, _, prompt in plan.turns(slot)] for slot in range(len(plan.slots))
    ]
    return np.array(rows).swapaxes(0, 1)
