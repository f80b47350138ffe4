"""A policy as a model that works by itself: it plays the scan, and its mask is the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from threading import Lock
from typing import Any

import numpy as np

from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.cases import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.errors import PolicyError
from medseg_gym.option_groups import AUTO_TOOLS
from medseg_gym.policy import GivenUp, close_policy, make_envs, play_or_give_up
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.batching.shared_segmenter import SharedSegmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.interactive import PIXEL_BYTES
from medseg_gym.serving.policy_to_build import PolicyToBuild

MAX_WAITING = 4
"""Scans that may wait for a policy."""

SLOTS = 8
"""Slices that a policy of images plays at a time."""


class _OneVolume(VolumeSource):
    """Source of the volume that is being segmented; its vocabulary stays the same."""

    name = "MONAI Label"

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = tuple(targets)
        self.case: VolumeCase | None = None

    @property
    def keys(self) -> Sequence[str]:
        """Key of the volume."""
        return [] if self.case is None else [self.case.key]

    @property
    def targets(self) -> tuple[str, ...]:
        """Labels of the service."""
        return self._targets

    def __getitem__(self, index: int) -> VolumeCase:
        assert self.case is not None and index == 0
        return self.case


class _ItsSlices(CaseSource):
    """Source of its slices."""

    name = "MONAI Label"

    def __init__(self, volume: _OneVolume) -> None:
        self._volume = volume

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the slices, as `VolumeCase.slice_case` makes them."""
        case = self._volume.case
        return [] if case is None else [f"{case.key}/slice-{i}" for i in range(case.depth)]

    @property
    def targets(self) -> tuple[str, ...]:
        """Labels of the service."""
        return self._volume.targets

    def __getitem__(self, index: int) -> Case:
        assert self._volume.case is not None
        return self._volume.case.slice_case(index)


class AutomaticModel:
    """A policy that segments scans, one at a time.

    Args:
        policy: To be built; at once, so that what it lacks shows when the service starts.
        segmenter: The service's.
        targets: Vocabulary of targets.
        max_steps: Actions on a volume, or on each slice.

    Raises:
        PolicyError: It is shown the truth, which nobody knows here.
        MedSegError: What the policy itself says.
    """

    def __init__(
        self, policy: PolicyToBuild, segmenter: Segmenter, targets: Sequence[str], max_steps: int
    ) -> None:
        self.name = policy.name
        self._source = _OneVolume(targets)
        self.plays_volumes = policy.env_id.startswith("MedSegVolume")
        backbone = SharedSegmenter(segmenter)
        embedding_cache(backbone).max_bytes = PIXEL_BYTES
        decode = segmenter.engine.options
        arguments: dict[str, Any] = {
            "tools": AUTO_TOOLS,
            "mask_input": decode.mask_input,
            "multimask": decode.multimask,
            "text_prompt": decode.text_prompt,
            "max_steps": max_steps,
            "backbone": backbone,
        }
        cases: VolumeSource | CaseSource = self._source
        if self.plays_volumes:
            arguments["spill_bytes"] = 0  # embeddings are the service's
        else:
            cases = _ItsSlices(self._source)
            arguments["prompt_memory"] = decode.prompt_memory
        slots = 1 if self.plays_volumes else SLOTS
        self._envs = make_envs(slots, policy.env_id, cases=cases, **{**arguments, **policy.view})
        self._policy = policy.build(self._envs)
        if self._policy.sees_truth:
            self.close()
            raise PolicyError(
                f"policy {policy.name!r} is shown the truth, which nobody knows of a scan that is "
                "to be segmented; give one that needs none"
            )
        self._keys = count()
        self._lock, self._counting = Lock(), Lock()
        self._present = 0  # playing or waiting

    def segment(self, case: VolumeCase, target: str) -> np.ndarray:
        """Play a scan; its mask, (D, H, W) bool. Others wait meanwhile.

        Args:
            case: The scan; its truth is not known, and nothing is scored.
            target: What to segment, in words.

        Raises:
            ServiceError: 503, too many wait already.
            CaseFailed: The policy gave the scan up, such as where a model's server failed.
            MedSegError: The backbone or the policy failed.
        """
        with self._turn():
            # The placeholder of an unknown truth is never scored.
            known = replace(case, key=f"scan-{next(self._keys)}", target=target, truth_known=True)
            self._source.case = known
            cases = self._source if self.plays_volumes else _ItsSlices(self._source)
            mask = np.zeros(known.mask.shape, bool)
            place = 0
            try:
                for batch in play_or_give_up(self._envs, self._policy, cases.keys):
                    for outcome in batch:
                        if isinstance(outcome, GivenUp):
                            raise outcome.error
                        episode: Any = outcome.episode
                        if self.plays_volumes:
                            mask[:] = episode.mask()
                        else:
                            mask[place] = episode.state.mask.cpu().numpy()
                        place += 1
            finally:
                self._source.case = None
            return mask

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until nobody else plays; those who wait each hold a thread of the service."""
        with self._counting:
            if self._present > MAX_WAITING:
                raise ServiceError(
                    f"{MAX_WAITING} scans wait for policy {self.name!r} already; try again later",
                    503,
                    retry_after=10,
                )
            self._present += 1
        try:
            with self._lock:
                yield
        finally:
            with self._counting:
                self._present -= 1

    def close(self) -> None:
        """Close the policy's connections and its environment."""
        close_policy(self._policy)
        self._envs.close()
