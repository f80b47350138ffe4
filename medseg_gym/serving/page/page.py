"""The page put together: shelf, games, policies, archive and their ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_gym.cases import Case
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.page.archive import Archive, Row, Shelfmark
from medseg_gym.serving.page.games import GameBook, Player, player_named
from medseg_gym.serving.page.leader_board import board, collect
from medseg_gym.serving.page.options import PageOptions
from medseg_gym.serving.page.recordings import Recordings
from medseg_gym.serving.page.shelf import Place, Shelf
from medseg_gym.serving.page.watching import Gallery
from medseg_gym.serving.sessions import SessionBook

OWN = "own"
"""Name of the place that holds an owner's own images."""

MINE, POLICIES = "mine", "policies"


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
        """What an owner can pick from."""
        own = self.place(owner, OWN)
        return [*self.shelf.places.values(), *([own] if len(own.source) else [])]

    def place(self, owner: str, name: str) -> Place:
        """A place by name.

        Raises:
            ServiceError: 404.
        """
        if name == OWN:
            images = self.recordings.images_of(owner)
            return Place(OWN, f"unlabelled:{images.folder}", images, own=True)
        if name not in self.shelf.places:
            raise ServiceError("there is no such case source", 404)
        return self.shelf.places[name]

    def find_case(
        self, owner: str, name: str, index: int | None, key: str | None
    ) -> tuple[Place, int, Case]:
        """A case by number or by key.

        Raises:
            ServiceError: 404, or neither is given.
            CaseError: It cannot be read.
        """
        place = self.place(owner, name)
        if index is None:
            if key is None:
                raise ServiceError("give the index or the key of a case")
            index = place.index_of(key)
        return place, index, place.case(index)

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

    def recorded(self, owner: str, find: str = "") -> list[tuple[Shelfmark, Row]]:
        """What an owner may look at, the last recorded first.

        Args:
            owner: Who asks.
            find: Part of a case's key, of a target or of a player's name.
        """
        wanted = find.casefold().strip()
        found = []
        for mark in self.marks(owner):
            for row in reversed(self.archive.rows(mark.path)):
                text = f"{row['case']} {row['target']} {row['policy']}".casefold()
                if wanted in text:
                    found.append((mark, row))
        return found

    def leader_board(
        self, owner: str, player: str, exam: bool, place: str | None
    ) -> dict[str, Any]:
        """See `leader_board.board`; everybody's scores count, whoever owns the recordings."""
        paths = [
            *self.recordings.stores(),
            self.gallery.store,
            *(Path(path) for path in self.options.archives),
        ]
        rows = [row for path in paths for row in self.archive.rows(path)]
        facts = self.games.book.segmenter.facts
        results = collect(rows, facts.name, self.games.max_steps)
        where = None
        if place is not None:
            found = self.place(owner, place)
            where = found.spec, found.split
        return board(results, Player(player_named(player), exam), where)

    def cases_of(self, player: str, exam: bool, place: str) -> list[str]:
        """Keys of the cases of a place that a player has finished."""
        found = self.shelf.places.get(place)
        if found is None:
            raise ServiceError("there is no such case source", 404)
        rows = [row for path in self.recordings.stores() for row in self.archive.rows(path)]
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
