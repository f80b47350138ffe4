"""The page's state: cases, games, policies and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from medseg_gym.cases import Case
from medseg_gym.errors import CaseError
from medseg_gym.play.catalog import CaseCatalog, Place
from medseg_gym.play.games import GameBook, Player, person_policy
from medseg_gym.play.options import PageOptions
from medseg_gym.play.stores.archive import Archive, Row, StoreRef
from medseg_gym.play.stores.damage import DamagedStore, log_damage
from medseg_gym.play.stores.leader_board import board, collect
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.play.volumes import VolumePage
from medseg_gym.play.watching import WatchedPolicies
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.sessions.book import SessionBook

OWN = "own"
"""Name of the place with the images that an owner uploaded."""

MINE, POLICIES = "mine", "policies"


class Recorded(NamedTuple):
    """Recorded episodes with their stores, and the stores that cannot be read."""

    rows: list[tuple[StoreRef, Row]]
    damaged: list[StoreRef]


class Page:
    """The state behind the page's routes.

    Args:
        options: Options of the page.
        book: Sessions of the service.

    Raises:
        MedSegError: Cases or policies cannot be used.
    """

    def __init__(self, options: PageOptions, book: SessionBook) -> None:
        self.options = options
        self.catalog = CaseCatalog(options.image_cases)
        self.recordings = Recordings(options.record, options.image_bytes)
        self.games = GameBook(book, options, self.recordings)
        self.watched_policies = WatchedPolicies(self.games)
        self.archive = Archive()
        self.volumes = VolumePage(options, book.segmenter)
        self._closed = False

    # cases --------------------------------------------------------------------------------------
    def places(self, owner: str) -> list[Place]:
        """List the places of an owner, without uploaded images that cannot be read."""
        places = list(self.catalog.places.values())
        try:
            own = self.place(owner, OWN)
        except ServiceError:  # logged, and reported when they are asked for
            return places
        return [*places, *([own] if len(own.source) else [])]

    def place(self, owner: str, name: str) -> Place:
        """Return a place by name.

        Raises:
            ServiceError: 404, or the owner's own images cannot be read.
        """
        if name == OWN:
            images = self.recordings.images_of(owner)
            try:
                len(images)  # reads the list
            except CaseError as error:
                log_damage(images.folder, error)
                raise ServiceError(self.recordings.public_message(error)) from error
            return Place(OWN, f"unlabelled:{images.folder}", images, own=True)
        if name not in self.catalog.places:
            raise ServiceError("there is no such case source", 404)
        return self.catalog.places[name]

    def find_case(
        self, owner: str, name: str, index: int | None, key: str | None
    ) -> tuple[Place, int, Case]:
        """Return a case by number or by key, with its place and number.

        Raises:
            ServiceError: 404, neither is given, or it cannot be read.
        """
        place = self.place(owner, name)
        if index is None:
            if key is None:
                raise ServiceError("give the index or the key of a case")
            index = place.index_of(key)
        try:
            return place, index, place.case(index)
        except CaseError as error:
            raise ServiceError(self.recordings.public_message(error)) from error

    # recordings ---------------------------------------------------------------------------------
    def stores(self, owner: str) -> list[StoreRef]:
        """List the stores whose episodes an owner may see: never another owner's."""
        archives = [
            StoreRef(f"a{i}", f"store {path.name}", Path(path))
            for i, path in enumerate(self.options.archives)
        ]
        return [
            StoreRef(MINE, "people", self.recordings.store_of(owner)),
            StoreRef(POLICIES, "policies", self.watched_policies.store),
            *archives,
        ]

    def store(self, owner: str, name: str) -> StoreRef:
        """Return a store by name.

        Raises:
            ServiceError: 404.
        """
        for store in self.stores(owner):
            if store.name == name:
                return store
        raise ServiceError("there is no such store", 404)

    def recorded(self, owner: str, find: str = "") -> Recorded:
        """Return the episodes that an owner may see, the last recorded first.

        Args:
            owner: The one who asks.
            find: Substring of a case's key, of a target or of a player's name.
        """
        wanted = find.casefold().strip()
        recorded = Recorded([], [])
        for store in self.stores(owner):
            for row in reversed(self._rows(store, recorded.damaged)):
                text = f"{row['case']} {row['target']} {row['policy']}".casefold()
                if wanted in text:
                    recorded.rows.append((store, row))
        return recorded

    def _rows(self, store: StoreRef, damaged: list[StoreRef]) -> list[Row]:
        """Return the rows of a store; add it to `damaged` if it cannot be read."""
        try:
            return self.archive.rows(store)
        except DamagedStore:
            damaged.append(store)
            return []

    def leader_board(
        self, owner: str, player: str, exam: bool, place: str | None
    ) -> dict[str, Any]:
        """Return the leader board over the recordings of all owners, see `leader_board.board`.

        `left_out` counts stores that cannot be read; `damaged` names those that this owner may see.
        """
        mine = self.stores(owner)
        seen = {store.path for store in mine}
        others = [store for store in self._of_people() if store.path not in seen]
        damaged: list[StoreRef] = []
        rows = [row for store in [*others, *mine] for row in self._rows(store, damaged)]
        facts = self.games.book.segmenter.facts
        results = collect(rows, facts.name, self.games.max_steps)
        where = None
        if place is not None:
            source = self.place(owner, place)
            where = source.spec, source.split
        titles = [store.title for store in damaged if store.path in seen]
        table = board(results, Player(person_policy(player), exam), where)
        return {**table, "left_out": len(damaged), "damaged": titles}

    def _of_people(self) -> list[StoreRef]:
        return [StoreRef("", "people", path) for path in self.recordings.stores()]

    def cases_of(self, player: str, exam: bool, place: str) -> list[str]:
        """Return keys of the cases of a place that a player has finished."""
        source = self.catalog.places.get(place)
        if source is None:
            raise ServiceError("there is no such case source", 404)
        rows = [row for store in self._of_people() for row in self._rows(store, [])]
        facts = self.games.book.segmenter.facts
        results = collect(rows, facts.name, self.games.max_steps)
        mine = results.get(Player(person_policy(player), exam))
        if mine is None:
            return []
        where = source.spec, source.split
        return [case.key for case in mine.dice if (case.cases, case.split) == where]

    def close(self) -> None:
        """End games and policies, and close their stores; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.volumes.close()
        self.watched_policies.close()
        self.recordings.close()
