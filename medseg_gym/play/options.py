"""Options of the web page, given by the program that starts the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gym import annotators
from medseg_gym.annotators.registry import VOLUME_ANNOTATORS
from medseg_gym.cases import Case, CaseSource
from medseg_gym.cases.case_source import CASES
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VOLUMES, VolumeSource
from medseg_gym.episodes import rewards
from medseg_gym.errors import MedSegError
from medseg_gym.policy import Policy
from medseg_gym.serving.policy_to_build import PolicyToBuild as PagePolicy

DEFAULT_POLICIES = ("centre-box", "random", "oracle-box", "oracle-box-click", "hybrid")
DEFAULT_VOLUME_POLICIES = (
    "middle-box",
    "oracle-key-slice",
    "oracle-key-slice-clicks",
    "oracle-every-slice",
)

VOLUME_ENV = "MedSegVolume-v0"


@dataclass(frozen=True)
class BuiltIn:
    """An expert or a baseline by name, see `annotators.make`.

    Args:
        name: A spec, of a policy of volumes where `env_id` is an environment of volumes.
        env_id: Environment of the view.
        view: Arguments of that environment that belong to the view alone.

    Raises:
        PolicyError: There is none of that name, or it has no such option.
    """

    name: str
    env_id: str = "MedSeg-v0"
    view: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if plays_volumes(self):
            VOLUME_ANNOTATORS.find(self.name)
        else:
            annotators.check(self.name)

    def build(self, envs: Any) -> Policy:
        """Make it for a vector environment."""
        return annotators.make(self.name, envs.codec)


def default_policies() -> list[BuiltIn]:
    """Return the experts and baselines that are there where nothing else is said."""
    images = [BuiltIn(name) for name in DEFAULT_POLICIES]
    return [*images, *(BuiltIn(name, VOLUME_ENV) for name in DEFAULT_VOLUME_POLICIES)]


def plays_volumes(policy: PagePolicy) -> bool:
    """Return True for a policy of volumes."""
    return policy.env_id.startswith("MedSegVolume")


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Options of the web page.

    Raises:
        MedSegError: Nothing to play, two policies of one name, or a number out of range.
    """

    cases: Sequence[str | CaseSource | VolumeSource | Sequence[Case] | Sequence[VolumeCase]] = (
        "samples",
        "phantoms",
    )
    """Cases that can be played: sources, or specs for `load_cases`, every split of each. Specs of
    volumes ("phantoms-volume", "volume:...") and sources of volumes are played as volumes."""

    volumes: Sequence[str | VolumeSource | Sequence[VolumeCase]] | None = None
    """Volumes that can be played: sources, or specs for `load_volumes`, every split of each. None
    takes those among `cases`, or synthetic ones where there are none."""

    record: Path = Path("out/play")
    """Folder for what is recorded; made when the first game begins."""

    archives: Sequence[Path] = ()
    """More trajectory stores to browse and to compare with; nothing is written to them."""

    policies: Sequence[PagePolicy] | None = None
    """Policies that can play beside people, of images and of volumes; None takes some experts and
    baselines of both."""

    max_steps: int = 10
    """Actions in a game, of people and policies alike."""

    reward: str = "dice_gain"
    """Name for `rewards.make`; games on volumes have "dice_gain"."""

    image_bytes: int = 1 << 30
    """Most bytes of people's own images on disk, for each owner."""

    volume_steps: int = 20
    """Actions in a game on a volume, of people and policies alike."""

    scan_steps: int = 100
    """Actions in a game on an own scan, which is not recorded."""

    volume_bytes: int = 2 << 30
    """Most bytes in memory of the volumes that an owner plays, with the masks and logits of all
    steps, which undo needs. Volumes that policies have played, of all owners together, may have as
    many, and so may those of recordings that are shown."""

    scan_bytes: int = 2 << 30
    """Most bytes on disk of people's own scans while they are open, for each owner."""

    scan_files: int = 3000
    """Most files of one own scan."""

    scan_voxels: int = 1 << 28
    """Most voxels of one own scan: 512 x 512 x 1024. An owner's open scans may have twice as many
    together."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `EnvOptions` that say which backbone and weights the service runs (backbone,
    checkpoint, device, backbone_options); they are recorded, so that `medseg trajectories replay`
    can load the same.
    """

    def __post_init__(self) -> None:
        if not self.cases and not self.volumes:
            raise MedSegError("the page has no cases to show; give --cases samples, say")
        for bound in (
            "max_steps", "image_bytes", "volume_steps", "scan_steps", "volume_bytes",
            "scan_bytes", "scan_files", "scan_voxels",
        ):  # fmt: skip
            if getattr(self, bound) < 1:
                raise MedSegError(f"{bound} of the page must be at least 1")
        for policies in (self.image_policies, self.volume_policies):
            names = [policy.name for policy in policies]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise MedSegError(f"the page got two policies called {twice[0]!r}; name each once")
        rewards.make(self.reward)

    @property
    def image_cases(self) -> Sequence[str | CaseSource | Sequence[Case]]:
        """Those of `cases` that are images."""
        return [one for one in self.cases if not _is_volumes(one)]  # type: ignore[misc]

    @property
    def volume_specs(self) -> Sequence[str | VolumeSource | Sequence[VolumeCase]]:
        """Volumes that can be played."""
        among = [one for one in self.cases if _is_volumes(one)]
        given = (
            self.volumes if self.volumes is not None else (() if among else ("phantoms-volume",))
        )
        return [*among, *given]  # type: ignore[list-item]

    @property
    def image_policies(self) -> Sequence[PagePolicy]:
        """Policies that can be watched on images."""
        return [policy for policy in self._all_policies if not plays_volumes(policy)]

    @property
    def volume_policies(self) -> Sequence[PagePolicy]:
        """Policies that can be watched on volumes."""
        return [policy for policy in self._all_policies if plays_volumes(policy)]

    @property
    def _all_policies(self) -> Sequence[PagePolicy]:
        return default_policies() if self.policies is None else self.policies


_VOLUMES_ALONE = ("phantoms-volume", "volume")


def _is_volumes(entry: object) -> bool:
    """Return whether an entry of `cases` is played as volumes."""
    if not isinstance(entry, str):
        return isinstance(entry, VolumeSource) or (
            isinstance(entry, Sequence)
            and len(entry) > 0
            and all(isinstance(one, VolumeCase) for one in entry)
        )
    kind = entry.partition("?")[0].partition(":")[0]
    # A folder of scans that both can open shows its slices as cases; see `PageOptions.volumes`.
    return kind in _VOLUMES_ALONE or (kind in VOLUMES.names() and kind not in CASES.names())
