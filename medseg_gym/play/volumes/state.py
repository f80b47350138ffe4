"""The state behind the page's routes of volumes: places, own scans and games."""

from __future__ import annotations

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.errors import CaseError
from medseg_gym.play.options import PageOptions
from medseg_gym.play.volumes.catalog import VolumePlace, volume_places
from medseg_gym.play.volumes.games import VolumeGameBook
from medseg_gym.play.volumes.own_scans import ScanBook
from medseg_gym.play.volumes.uploads import ScanLimits
from medseg_gym.prompts.volumes import VOLUME_TOOLS
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError

OWN_SCANS = "own-scans"
"""Name of the place with the scans that an owner opened."""


class VolumePage:
    """Volumes of the page.

    Args:
        options: Options of the page.
        segmenter: The service's.

    Raises:
        MedSegError: Volumes cannot be used.
    """

    def __init__(self, options: PageOptions, segmenter: Segmenter) -> None:
        self.facts = segmenter.facts
        kinds = {"box": "box", "positive_point": "point", "negative_point": "point"}
        # A view is moved without an action here: people scroll, which costs nothing.
        self.tools = tuple(
            tool
            for tool in VOLUME_TOOLS
            if tool != "look" and kinds.get(tool, "box") in self.facts.prompt_kinds
        )
        self.catalog = volume_places(options.volume_specs)
        self.games = VolumeGameBook(
            segmenter,
            options.volume_steps,
            options.volume_bytes,
            segmenter.limits.session_idle_seconds,
            self._sweep,
        )
        limits = ScanLimits(options.scan_bytes, options.scan_files, options.scan_voxels)
        self.scans = ScanBook(limits, self.games.playing)

    def _sweep(self) -> None:
        self.games.close_idle()
        self.scans.close_idle()

    def places(self, owner: str) -> list[VolumePlace]:
        """List the places of an owner."""
        own = self.place(owner, OWN_SCANS)
        return [*self.catalog.values(), *([own] if len(own.source) else [])]

    def place(self, owner: str, name: str) -> VolumePlace:
        """Return a place by name.

        Raises:
            ServiceError: 404.
        """
        if name == OWN_SCANS:
            return VolumePlace(OWN_SCANS, self.scans.of(owner), own=True)
        if name not in self.catalog:
            raise ServiceError("there is no such source of volumes", 404)
        return self.catalog[name]

    def find(
        self, owner: str, name: str, index: int | None, key: str | None
    ) -> tuple[VolumePlace, int, VolumeCase]:
        """Return a volume by number or by key, with its place and number.

        Raises:
            ServiceError: 404, or neither is given.
        """
        place = self.place(owner, name)
        if index is None:
            if key is None:
                raise ServiceError("give the index or the key of a volume")
            try:
                index = place.source.index_of(key)
            except CaseError as error:
                raise ServiceError(str(error), 404) from None
        return place, index, place.case(index)

    def remove_scan(self, owner: str, key: str) -> None:
        """Close a scan of an owner with its games, and remove its files.

        Raises:
            ServiceError: 404.
        """
        case = self.scans.remove(owner, key)
        self.games.close_those_on(case)

    def close(self) -> None:
        """End games and remove scans; a second call does nothing."""
        self.games.stop()
        self.scans.close()
