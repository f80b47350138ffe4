"""Everything that an owner can play: the page's sources, own images and own scans."""

from __future__ import annotations

from medseg_gym.cases import Case, VolumeCase
from medseg_gym.errors import CaseError
from medseg_gym.play.catalog import Place, open_places
from medseg_gym.play.options import PageOptions
from medseg_gym.play.stores.damage import log_damage
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.play.volumes.own_scans import ScanBook
from medseg_gym.serving.errors import ServiceError

OWN, OWN_SCANS = "own", "own-scans"
"""Names of the places with the images that an owner uploaded, and with the scans that are open."""


class Places:
    """Places by name.

    Args:
        options: Options of the page.
        recordings: With the folders of own images.
        scans: Open scans.

    Raises:
        CaseError: A spec that cannot be used.
    """

    def __init__(self, options: PageOptions, recordings: Recordings, scans: ScanBook) -> None:
        self.catalog = open_places(options)
        self.recordings, self.scans = recordings, scans

    def of(self, owner: str) -> list[Place]:
        """List the places of an owner, without uploaded images that cannot be read."""
        places = list(self.catalog.values())
        for name in (OWN, OWN_SCANS):
            try:
                own = self.get(owner, name)
            except ServiceError:  # logged, and reported when they are asked for
                continue
            if len(own.source):
                places.append(own)
        return places

    def get(self, owner: str, name: str) -> Place:
        """Return a place by name.

        Raises:
            ServiceError: 404, or the owner's own images cannot be read.
        """
        if name == OWN_SCANS:
            return Place(OWN_SCANS, None, self.scans.of(owner), own=True)
        if name == OWN:
            images = self.recordings.images_of(owner)
            try:
                len(images)  # reads the list
            except CaseError as error:
                log_damage(images.folder, error)
                raise ServiceError(self.recordings.public_message(error)) from error
            return Place(OWN, f"unlabelled:{images.folder}", images, own=True)
        if name not in self.catalog:
            raise ServiceError("there is no such source of cases", 404)
        return self.catalog[name]

    def find(
        self, owner: str, name: str, index: int | None, key: str | None
    ) -> tuple[Place, int, Case | VolumeCase]:
        """Return a case by number or by key, with its place and number.

        Raises:
            ServiceError: 404, neither is given, or it cannot be read.
        """
        place = self.get(owner, name)
        if index is None:
            if key is None:
                raise ServiceError("give the index or the key of a case")
            index = place.index_of(key)
        try:
            return place, index, place.case(index)
        except CaseError as error:
            raise ServiceError(self.recordings.public_message(error)) from error
