"""Curves of cost against size: for each size, a piece of work that can be done again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np

import medseg_gym  # noqa: F401  (registers the id)
from benchmarks.data.case_files import SPECS, WRITERS
from benchmarks.shared.meters import MeteredBackbone
from benchmarks.throughput.workloads import draw_cases
from medseg_gym import backbones
from medseg_gym.backbones import embedding_cache
from medseg_gym.cases import Case
from medseg_gym.cases.case_source import CaseList
from medseg_gym.cases.files import FileData
from medseg_gym.cases.files.dataset_formats import read_file_spec
from medseg_gym.envs.medseg_vector import MedSegVectorEnv

Work = Callable[[], None]

BOX, CLICK, UNDO = 0, 1, 3


@dataclass(frozen=True)
class Setting:
    """Segmenter, device and folder of a measurement.

    Args:
        backbone: Its spec.
        device: Of the backbone.
        folder: For files.
    """

    backbone: str
    device: str
    folder: Path


@dataclass(frozen=True)
class Curve:
    """One curve.

    Args:
        what: Name of the work that is timed.
        unit: Of the sizes.
        sizes: Ascending.
        prepare: Gives the work for a size, ready to be timed.
        power: Exponent that turns a size into an amount of work: 2 for the side of a square.
    """

    what: str
    unit: str
    sizes: tuple[int, ...]
    prepare: Callable[[Setting, int], Iterator[Work]]
    power: int = 1


@contextmanager
def make_envs(
    setting: Setting, slots: int, cases: list[Case], max_steps: int
) -> Iterator[tuple[MedSegVectorEnv, MeteredBackbone]]:
    """Environments over cases, whose embeddings are theirs alone."""
    with MeteredBackbone(backbones.load(setting.backbone, device=setting.device)) as metered:
        envs = gym.make_vec(
            "MedSeg-v0",
            num_envs=slots,
            backbone=metered,
            cases=CaseList(cases),
            max_steps=max_steps,
            autoreset_mode="disabled",
        ).unwrapped
        assert isinstance(envs, MedSegVectorEnv)
        yield envs, metered
        envs.close()


def actions_of(tool: int, slots: int) -> np.ndarray:
    """The same action in every slot: a box, or a click in its middle."""
    row = [tool, 200, 300, 700, 800] if tool == BOX else [tool, 450, 550, 0, 0]
    return np.tile(np.array(row, np.int64), (slots, 1))


def whole_steps(setting: Setting, slots: int, cases: list[Case]) -> Iterator[Work]:
    """A box in every slot, then undo, which costs next to nothing: the same work every time."""
    with make_envs(setting, slots, cases, max_steps=10**6) as (envs, _):
        envs.reset(options={"case": [cases[i % len(cases)].key for i in range(slots)]})

        def work() -> None:
            envs.step(actions_of(BOX, slots))
            envs.step(actions_of(UNDO, slots))

        yield work


def of_envs(setting: Setting, size: int) -> Iterator[Work]:
    """A vector step of `size` environments, images encoded before."""
    yield from whole_steps(setting, size, draw_cases("noise", "train", 4, 0))


def of_side(setting: Setting, size: int) -> Iterator[Work]:
    """A vector step of 4 environments whose images have sides of `size` pixels."""
    rng = np.random.default_rng(size)
    image = rng.integers(0, 255, (size, size, 3), np.uint8)
    mask = np.zeros((size, size), bool)
    mask[size // 4 : size // 2] = True
    yield from whole_steps(setting, 4, [Case("square", image, mask, target="band")])


def of_steps(setting: Setting, size: int) -> Iterator[Work]:
    """Episodes of `size` steps in 4 environments, a box each: a new one replaces the old."""
    cases = draw_cases("noise", "train", 4, 0)
    with make_envs(setting, 4, cases, max_steps=size) as (envs, _):
        keys = {"case": [case.key for case in cases]}
        envs.reset(options=keys)

        def work() -> None:
            envs.reset(options=keys)
            for _ in range(size):
                envs.step(actions_of(BOX, 4))

        yield work


def of_prompts(setting: Setting, size: int) -> Iterator[Work]:
    """The step that adds click number `size` in 4 environments, and undo."""
    cases = draw_cases("noise", "train", 4, 0)
    with make_envs(setting, 4, cases, max_steps=10**6) as (envs, _):
        envs.reset(options={"case": [case.key for case in cases]})
        for _ in range(size - 1):
            envs.step(actions_of(CLICK, 4))

        def work() -> None:
            envs.step(actions_of(CLICK, 4))
            envs.step(actions_of(UNDO, 4))

        yield work


def of_cases(setting: Setting, size: int) -> Iterator[Work]:
    """All of `size` new cases played for a step, 8 at a time: encoded, boxed, scored."""
    cases = draw_cases("noise", "train", size, 0)
    slots = min(8, size)
    with make_envs(setting, slots, cases, max_steps=5) as (envs, metered):

        def work() -> None:
            embedding_cache(metered).clear()
            for first in range(0, size, slots):
                envs.reset(options={"case": [case.key for case in cases[first : first + slots]]})
                envs.step(actions_of(BOX, slots))

        yield work


def of_files(setting: Setting, size: int) -> Iterator[Work]:
    """Opening a folder of `size` images whose index is cached."""
    root = setting.folder / f"files-{size}"
    if not root.exists():
        WRITERS["folder"](root, 2 * size, 16)  # an image and a mask each
    spec = read_file_spec(SPECS["folder"].format(root=root))
    assert spec is not None

    def work() -> None:
        assert len(FileData(spec[0](spec[1])).records) == size

    work()
    yield work


CURVES: dict[str, Curve] = {
    "envs": Curve("a vector step", "environments", (1, 2, 4, 8, 16, 32, 64, 128, 256), of_envs),
    "steps": Curve("an episode", "steps", (1, 2, 4, 8, 16, 32, 64), of_steps),
    "prompts": Curve("a step", "clicks in force", (1, 2, 4, 8, 16, 32, 64), of_prompts),
    "side": Curve("a step", "pixels of a side", (64, 128, 256, 512, 1024, 2048), of_side, power=2),
    "cases": Curve("cases played", "new cases", (8, 16, 32, 64), of_cases),
    "files": Curve("a source opened", "cases of a folder", (500, 1000, 2000, 4000, 8000), of_files),
}
