"""The page put together: shelf, games, policies, archive and their ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from medseg_gym.cases import Case
from medseg_gym.errors import CaseError
from medseg_gym.play.archive import Archive, Row, Shelfmark
from medseg_gym.play.damage import DamagedStore, log_damage
from medseg_gym.play.games import GameBook, Player, player_named
from medseg_gym.play.leader_board import board, collect
from medseg_gym.play.options import PageOptions
from medseg_gym.play.recordings import Recordings
from medseg_gym.play.shelf import Place, Shelf
from medseg_gym.play.watching import Gallery
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.sessions.book import SessionBook

OWN = "own"
"""Name of the place that holds an owner's own images."""

MINE, POLICIES = "mine", "policies"


class Recorded(NamedTuple):
    """Recorded episodes with the stores they are from, and the stores that cannot be read."""

    rows: list[tuple[Shelfmark, Row]]
    damaged: list[Shelfmark]


class Page:
    """Everything behind the page's routes.

    Args:
        options: What the starting program handed over.
        book: Sessions of the service.

    Raises:
        MedSegError: Cases or policies cannot be used.
    """

    def __init__(self, options: PageOptions, book: SessionBook) -> None:
        self.options = options
        self.shelf = Shelf(options.cases)
        self.recordings = Recordings(options.record, options.picture_bytes)
        self.games = GameBook(book, options, self.recordings)
        self.gallery = Gallery(self.games)
        self.archive = Archive()
        self._closed = False

    # cases --------------------------------------------------------------------------------------
    def places(self, owner: str) -> list[Place]:
        """What an owner can pick from; own images that cannot be read are left out."""
        places = list(self.shelf.places.values())
        try:
            own = self.place(owner, OWN)
        except ServiceError:  # logged; it is told where they are asked for
            return places
        return [*places, *([own] if len(own.source) else [])]

    def place(self, owner: str, name: str) -> Place:
        """A place by name.

        Raises:
            ServiceError: 404, or the owner's own images cannot be read.
        """
        if name == OWN:
            images = self.recordings.images_of(owner)
            try:
                len(images)  # reads the list
            except CaseError as error:
                log_damage(images.folder, error)
                raise ServiceError(self.recordings.words(error)) from error
            return Place(OWN, f"unlabelled:{images.folder}", images, own=True)
        if name not in self.shelf.places:
            raise ServiceError("there is no such case source", 404)
        return self.shelf.places[name]

    def find_case(
        self, owner: str, name: str, index: int | None, key: str | None
    ) -> tuple[Place, int, Case]:
        """A case by number or by key.

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
            raise ServiceError(self.recordings.words(error)) from error

    # recordings ---------------------------------------------------------------------------------
    def marks(self, owner: str) -> list[Shelfmark]:
        """Stores whose episodes an owner may look at: never another owner's."""
        given = [
            Shelfmark(f"a{i}", f"store {path.name}", Path(path))
            for i, path in enumerate(self.options.archives)
        ]
        return [
            Shelfmark(MINE, "people", self.recordings.store_of(owner)),
            Shelfmark(POLICIES, "policies", self.gallery.store),
            *given,
        ]

    def mark(self, owner: str, name: str) -> Shelfmark:
        """A store by name.

        Raises:
            ServiceError: 404.
        """
        for mark in self.marks(owner):
            if mark.name == name:
                return mark
        raise ServiceError("there is no such store", 404)

    def recorded(self, owner: str, find: str = "") -> Recorded:
        """What an owner may look at, the last recorded first.

        Args:
            owner: Who asks.
            find: Part of a case's key, of a target or of a player's name.
        """
        wanted = find.casefold().strip()
        found = Recorded([], [])
        for mark in self.marks(owner):
            for row in reversed(self._rows(mark, found.damaged)):
                text = f"{row['case']} {row['target']} {row['policy']}".casefold()
                if wanted in text:
                    found.rows.append((mark, row))
        return found

    def _rows(self, mark: Shelfmark, damaged: list[Shelfmark]) -> list[Row]:
        """Rows of a store; one that cannot be read is left out and told in `damaged`."""
        try:
            return self.archive.rows(mark)
        except DamagedStore:
            damaged.append(mark)
            return []

    def leader_board(
        self, owner: str, player: str, exam: bool, place: str | None
    ) -> dict[str, Any]:
        """See `leader_board.board`; everybody's scores count, whoever owns the recordings.

        `left_out` counts stores that cannot be read; `damaged` names those that this owner may see.
        """
        mine = self.marks(owner)
        seen = {mark.path for mark in mine}
        others = [mark for mark in self._of_people() if mark.path not in seen]
        damaged: list[Shelfmark] = []
        rows = [row for mark in [*others, *mine] for row in self._rows(mark, damaged)]
        facts = self.games.book.segmenter.facts
        results = collect(rows, facts.name, self.games.max_steps)
        where = None
        if place is not None:
            found = self.place(owner, place)
            where = found.spec, found.split
        told = [mark.title for mark in damaged if mark.path in seen]
        table = board(results, Player(player_named(player), exam), where)
        return {**table, "left_out": len(damaged), "damaged": told}

    def _of_people(self) -> list[Shelfmark]:
        return [Shelfmark("", "people", path) for path in self.recordings.stores()]

    def cases_of(self, player: str, exam: bool, place: str) -> list[str]:
        """Keys of the cases of a place that a player has finished."""
        found = self.shelf.places.get(place)
        if found is None:
            raise ServiceError("there is no such case source", 404)
        rows = [row for mark in self._of_people() for row in self._rows(mark, [])]
        facts = self.games.book.segmenter.facts
        results = collect(rows, facts.name, self.games.max_steps)
        mine = results.get(Player(player_named(player), exam))
        if mine is None:
            return []
        where = found.spec, found.split
        return [case.key for case in mine.dice if (case.cases, case.split) == where]

    def close(self) -> None:
        """End games and policies, and every journal with them; twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.gallery.close()
        self.recordings.close()
