"""Selection: which cases and which volumes of a source the policies of a run play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg_agents.policies.specs import PolicySpec
from medseg_gym.cases import CaseSource
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.errors import MedSegError

MANY_CASES = 1000
FEW_CASES = 200
"""Of a source of more than `MANY_CASES` a comparison plays the first `FEW_CASES`."""


@dataclass(frozen=True)
class Selection:
    """Cases and volumes that are played.

    Args:
        source: The cases.
        keys: Of the cases, for policies that play images or slices.
        volumes: Keys of the volumes that any of the cases is a slice of, in order.
        cut: Of them, those that a limit left slices of out.
        left_out: Counts by reason of what is in no row, see `CaseSource`.
    """

    source: CaseSource
    keys: Sequence[str]
    volumes: Sequence[str] = ()
    cut: frozenset[str] = field(default_factory=frozenset)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def keys_of(self, spec: PolicySpec) -> list[str]:
        """Return the keys of what a policy plays."""
        return list(self.volumes if spec.plays_volumes else self.keys)


def select(
    source: CaseSource,
    specs: Sequence[PolicySpec],
    limit: int | None = None,
    few_of_many: bool = False,
    min_area: float = 0.0,
) -> Selection:
    """Select the first cases of a source; where a policy plays whole volumes, the first of those.

    Args:
        source: The cases.
        specs: The policies that play.
        limit: So many at most, cases or volumes; None takes all.
        few_of_many: Without a limit, take `FEW_CASES` of more than `MANY_CASES`.
        min_area: Leave out cases whose target covers less than this share of the image.

    Raises:
        MedSegError: Nothing is left, there are no volumes for a policy that plays them, or
            `min_area` with such a policy.
    """
    whole = [spec.name for spec in specs if spec.plays_volumes]
    for name in whole:
        volumes_of(source, name)
    if whole and min_area:
        raise MedSegError(
            f"min_area leaves out slices, and policy {whole[0]!r} plays whole volumes; give the "
            "reader of the cases its own min_area=, in pixels, or leave it out"
        )
    members = by_volume(source, source.keys)
    if few_of_many and limit is None and len(members if whole else source) > MANY_CASES:
        limit = FEW_CASES
    left_out = dict(source.left_out)
    if whole:
        volumes = list(members)[:limit]
        slices = {key for volume in volumes for key in members[volume]}
        if source.volumes is not None and len(whole) == len(specs):
            left_out = dict(source.volumes.left_out)
        keys = [key for key in source.keys if key in slices]
        return Selection(source, keys, volumes, left_out=left_out)
    keys = list(source.keys[:limit])
    cut = frozenset(by_volume(source, [] if limit is None else source.keys[limit:]))
    if min_area:
        count = len(keys)
        keys = [key for i, key in enumerate(keys) if source[i].area_fraction >= min_area]
        if count > len(keys):
            reason = f"cases of this split under {min_area:.2%} of their image (--min-area)"
            left_out[reason] = count - len(keys)
        if not keys:
            raise MedSegError(f"no case of {source.name!r} covers {min_area:.2%} of its image")
    return Selection(source, keys, list(by_volume(source, keys)), cut, left_out)


def by_volume(source: CaseSource, keys: Sequence[str]) -> dict[str, set[str]]:
    """Return the keys of the slices of every volume; images of their own are in none."""
    slices: dict[str, set[str]] = {}
    if source.volumes is not None:
        for key in keys:
            if (place := source.place_of(key)) is not None:
                slices.setdefault(place.volume, set()).add(key)
    return slices


def volumes_of(source: CaseSource, policy: str) -> VolumeSource:
    """Return the volumes whose slices the cases are.

    Raises:
        MedSegError: They are images of their own, which the policy cannot play.
    """
    if source.volumes is None:
        raise MedSegError(
            f"policy {policy!r} plays whole volumes, and {source.name!r} holds images, or a part "
            "of the slices of volumes; give --cases phantoms-volume, volume:SCAN?truth=LABELS, "
            "nifti:PATH, npz:PATH or dicom:PATH (without slices=), or a policy of images"
        )
    return source.volumes


def slots(spec: PolicySpec, keys: Sequence[str], num_envs: int, volume_envs: int) -> int:
    """Return how many cases or volumes a policy plays at once: no more volumes than there are."""
    return min(volume_envs, len(keys)) if spec.plays_volumes else num_envs


def make_policy_envs(
    spec: PolicySpec,
    source: CaseSource,
    num_envs: int,
    max_steps: int,
    volume_steps: int,
    **options: Any,
) -> CoreVectorEnv:
    """Make the environment that a policy plays: of the cases, or of their volumes.

    Args:
        spec: The policy.
        source: The cases.
        num_envs: Cases or volumes at once, see `slots`.
        max_steps: Actions on a case.
        volume_steps: Actions on a volume.
        **options: Further arguments of the environment.

    Raises:
        MedSegError: See `volumes_of`; or an argument that cannot be used.
    """
    cases: CaseSource | VolumeSource = source
    if spec.plays_volumes:
        cases, max_steps = volumes_of(source, spec.name), volume_steps
    return spec.make_envs(num_envs, cases=cases, max_steps=max_steps, **options)
