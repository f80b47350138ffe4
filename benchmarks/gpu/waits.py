"""Waits of the host for the device in a step: one, when it reads the counts of Dice.

On a GPU torch itself says where the host waited. On any machine the same step is also taken on
tensors without memory, where every wait is seen (`benchmarks.shared.host_waits`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import torch

import medseg_gym  # noqa: F401  (registers the id)
from benchmarks.gpu.rows import NEEDS_CUDA, SKIPPED, Job
from benchmarks.shared.host_waits import HostWaits, without_autocast
from medseg_gym import backbones
from medseg_gym.backbones.families import ellipse, pocket
from medseg_gym.envs.medseg_vector import MedSegVectorEnv
from medseg_gym.errors import BackboneError

BACKBONES = (
    "pocket",
    "pocket?dtype=bfloat16",
    "sam2.1_t?random_weights=true",
    "imisnet?random_weights=true&image_size=256",
)
ENVS = 16
STEPS = 4


def run(job: Job) -> None:
    """Count the waits of steps."""
    for name, module in (("pocket", pocket), ("ellipse", ellipse)):
        with without_autocast():
            envs = make_envs(module.build(None, torch.device("meta")), ENVS)
            with HostWaits():
                envs.reset(seed=0)
            waits, places = 0, Counter[str]()
            for actions in plan(ENVS):
                with HostWaits() as counted:
                    envs.step(actions)
                waits, places = max(waits, counted.count), places + counted.places
        job.compare(f"{name}, on tensors without memory", waits, 1, at_most=True,
                    shown=f"{waits} a step", places=dict(places))  # fmt: skip
    for name in BACKBONES:
        what = f"{name}, seen by torch"
        if not job.cuda:
            job.add(what, SKIPPED, NEEDS_CUDA)
        elif not job.late(what):
            count_on_gpu(job, what, name)


def count_on_gpu(job: Job, what: str, name: str) -> None:
    """Count what `torch.cuda.set_sync_debug_mode` warns about."""
    try:
        backbone = backbones.load(name, device=job.device)
    except BackboneError as error:
        job.add(what, SKIPPED, str(error))
        return
    envs = make_envs(backbone, ENVS)
    waits, places = 0, Counter[str]()
    for warm in (True, False):  # the first steps allocate, and choose kernels
        envs.reset(seed=0)
        for actions in plan(ENVS):
            torch.cuda.synchronize()
            with warned() as caught:
                envs.step(actions)
            if not warm:
                waits = max(waits, len(caught))
                places.update(caught)
    job.compare(what, waits, 1, at_most=True, shown=f"{waits} a step", places=dict(places))


@contextmanager
def warned() -> Iterator[list[str]]:
    """Collect where the host waited, as "file:line"."""
    places: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places += [
        f"{one.filename}:{one.lineno}" for one in caught if "synchronizing" in str(one.message)
    ]


def make_envs(backbone: backbones.Backbone, count: int) -> MedSegVectorEnv:
    """Environments over real images, without resets inside steps."""
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=count,
        backbone=backbone,
        cases="samples",
        split="train",
        autoreset_mode="disabled",
    ).unwrapped
    assert isinstance(envs, MedSegVectorEnv)
    return envs


def plan(count: int) -> Iterator[np.ndarray]:
    """Actions of `STEPS` steps: boxes and clicks beside each other, and undo among them."""
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        actions = np.zeros((count, 5), np.int64)
        actions[:, 0] = rng.integers(0, 4 if step else 2, count)
        actions[:, 1:3], actions[:, 3:] = rng.integers(50, 450, (count, 2)), 800
        yield actions
