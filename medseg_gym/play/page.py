"""The page's state: cases, games, policies and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from medseg_gym.cases import VolumeCase
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.play.games import Game, GameBook, Player, person_policy
from medseg_gym.play.image_games import ImageGames
from medseg_gym.play.options import PageOptions
from medseg_gym.play.places import Places
from medseg_gym.play.policies.watching import WatchedPolicies
from medseg_gym.play.stores.archive import Archive, Row, StoreRef
from medseg_gym.play.stores.damage import DamagedStore
from medseg_gym.play.stores.leader_board import Results, board, collect
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.play.volumes.games import VolumeGame, VolumeGames
from medseg_gym.play.volumes.own_scans import ScanBook
from medseg_gym.play.volumes.shelf import VolumeShelf
from medseg_gym.play.volumes.uploads import ScanLimits
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.sessions.book import SessionBook

MINE, POLICIES = "mine", "policies"


class Recorded(NamedTuple):
    """Recorded episodes with their stores, and the stores that cannot be read."""

    rows: list[tuple[StoreRef, Row]]
    damaged: list[StoreRef]


class ShownVolume(NamedTuple):
    """An episode on a volume that somebody looks at, and whether its truth may be shown."""

    episode: VolumeEpisode
    shows_truth: bool


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
        self.recordings = Recordings(options.record, options.image_bytes)
        limits = ScanLimits(options.scan_bytes, options.scan_files, options.scan_voxels)
        self.scans = ScanBook(limits, lambda case: self.volumes.playing(case))
        self.places = Places(options, self.recordings, self.scans)
        self.images = ImageGames(book, options, self.recordings)
        self.volumes = VolumeGames(book.segmenter, options, self.recordings, self._sweep)
        self.watched_policies = WatchedPolicies(self.images, self.volumes)
        self.archive = Archive()
        self.shelf = VolumeShelf(options.volume_bytes)
        self._closed = False

    def _sweep(self) -> None:
        self.volumes.close_idle()
        self.scans.close_idle()

    # games --------------------------------------------------------------------------------------
    def book(self, volumes: bool) -> GameBook[Any]:
        """Return the games on volumes, or those on images."""
        return self.volumes if volumes else self.images

    def book_of(self, game: Game) -> GameBook[Any]:
        """Return the games that a game is one of."""
        return self.book(isinstance(game, VolumeGame))

    def game(self, owner: str, id: str) -> Game:
        """Return a game of an owner.

        Raises:
            ServiceError: 404.
        """
        game = self.images.find(owner, id) or self.volumes.find(owner, id)
        if game is None:
            raise ServiceError(
                "this game is not there any more: it ended, was idle for too long, or the service "
                "was restarted. What was recorded of it is kept; begin a new game",
                404,
            )
        return game

    def volume_game(self, owner: str, id: str) -> VolumeGame:
        """Return a game on a volume.

        Raises:
            ServiceError: 404.
        """
        game = self.game(owner, id)
        if not isinstance(game, VolumeGame):
            raise ServiceError("this game is on an image, which has no slices", 404)
        return game

    def shown_volume(self, owner: str, id: str) -> ShownVolume:
        """Return the episode on a volume that a game, a policy or a recording shows.

        Raises:
            ServiceError: 404.
        """
        game = self.volumes.find(owner, id)
        if game is not None:
            return ShownVolume(game.episode, game.shows_truth)
        watched = self.watched_policies.find(owner, id)
        if watched is not None and isinstance(watched.episode, VolumeEpisode):
            return ShownVolume(watched.episode, False)
        recorded = self.shelf.find(owner, id)
        if recorded is not None:
            return ShownVolume(recorded, recorded.case.truth_known)
        raise ServiceError("this volume is not open any more; open it again", 404)

    def remove_scan(self, owner: str, key: str) -> None:
        """Close a scan of an owner with its games, and remove its files.

        Raises:
            ServiceError: 404.
        """
        case: VolumeCase = self.scans.remove(owner, key)
        self.volumes.close_those_on(case)
        self.watched_policies.forget(case)

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

    def show_recording(self, owner: str, store: str, id: str) -> dict[str, Any]:
        """Describe one recorded episode; one on a volume is held, its `volume` is the id.

        Raises:
            ServiceError: 404, or the store is damaged.
        """
        shown = self.archive.show(self.store(owner, store), id)
        description = shown.describe()
        if isinstance(shown.episode, VolumeEpisode):
            description["volume"] = self.shelf.put(owner, shown.episode)
        return description

    def leader_board(
        self, owner: str, player: str, exam: bool, place: str | None, volumes: bool = False
    ) -> dict[str, Any]:
        """Return the leader board over the recordings of all owners, see `leader_board.board`.

        Args:
            owner: The one who asks.
            player: Whom the others are compared with.
            exam: In exams.
            place: Whose cases alone count; None takes all images or all volumes.
            volumes: Which of them.

        `left_out` counts stores that cannot be read; `damaged` names those that this owner may see.
        """
        mine = self.stores(owner)
        seen = {store.path for store in mine}
        others = [store for store in self._of_people() if store.path not in seen]
        damaged: list[StoreRef] = []
        rows = [row for store in [*others, *mine] for row in self._rows(store, damaged)]
        where = None
        if place is not None:
            source = self.places.get(owner, place)
            volumes, where = source.volumes, (source.spec, source.split)
        results = self._collect(rows, volumes)
        titles = [store.title for store in damaged if store.path in seen]
        table = board(results, Player(person_policy(player), exam), where)
        return {**table, "left_out": len(damaged), "damaged": titles}

    def _of_people(self) -> list[StoreRef]:
        return [StoreRef("", "people", path) for path in self.recordings.stores()]

    def cases_of(self, player: str, exam: bool, place: str) -> list[str]:
        """Return keys of the cases of a place that a player has finished.

        Raises:
            ServiceError: 404.
        """
        source = self.places.catalog.get(place)
        if source is None:
            raise ServiceError("there is no such source of cases", 404)
        rows = [row for store in self._of_people() for row in self._rows(store, [])]
        mine = self._collect(rows, source.volumes).get(Player(person_policy(player), exam))
        if mine is None:
            return []
        where = source.spec, source.split
        return [case.key for case in mine.dice if (case.cases, case.split) == where]

    def _collect(self, rows: list[Row], volumes: bool) -> dict[Player, Results]:
        book = self.book(volumes)
        return collect(rows, book.segmenter.facts.name, book.max_steps, volumes)

    def close(self) -> None:
        """End games and policies, and close their stores; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.volumes.stop()
        self.watched_policies.close()
        self.scans.close()
        self.recordings.close()
