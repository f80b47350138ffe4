"""Recordings of people: a trajectory store and a folder of uploaded images for every owner.

Every step is on disk before its answer is sent. A store's writer belongs to one thread, so all
writing is done in one, away from the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from medseg_gym.cases import Case
from medseg_gym.cases.unlabelled import UnlabelledImages
from medseg_gym.episodes import Episode, StepResult
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import CaseError
from medseg_gym.play.stores.damage import log_damage, without_folders
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.api_keys import LOOPBACK
from medseg_gym.trajectories import EpisodeFacts, TrajectoryError, TrajectoryStore, TrajectoryWriter
from medseg_gym.trajectories.recording.step_log import step_record
from medseg_gym.trajectories.store.mask_codec import pack_mask

log = logging.getLogger("medseg_gym.serving")

R = TypeVar("R")


class Recordings:
    """Writers of people's stores.

    Args:
        folder: See `PageOptions.record`.
        image_bytes: See `PageOptions.image_bytes`.
    """

    def __init__(self, folder: Path, image_bytes: int) -> None:
        self.folder = folder
        self.image_bytes = image_bytes
        self._thread = ThreadPoolExecutor(1, "recordings")
        self._writers: dict[str, TrajectoryWriter] = {}
        self._tries: dict[str, Counter[tuple[str, str]]] = {}

    def store_of(self, owner: str) -> Path:
        """Return the folder of an owner's store; names of owners hold no path separator."""
        return self.folder / ("people" if owner == LOOPBACK else f"people-{owner}")

    def stores(self) -> list[Path]:
        """List the existing stores of all owners."""
        return sorted(path for path in self.folder.glob("people*") if path.is_dir())

    def images_of(self, owner: str) -> UnlabelledImages:
        """Return the images that an owner uploaded; the path is absolute, as recordings need it."""
        name = "images" if owner == LOOPBACK else f"images-{owner}"
        return UnlabelledImages(self.folder.resolve() / name)

    async def _do(self, work: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    # games ------------------------------------------------------------------------------------
    async def open(self, owner: str) -> None:
        """Open an owner's store, so that a game does not begin that cannot be recorded.

        Raises:
            ServiceError: It cannot be written, or is damaged.
        """
        try:
            await self._do(self._writer, owner)
        except TrajectoryError as error:
            log_damage(self.store_of(owner), error)
            raise ServiceError(self.public_message(error)) from error

    def public_message(self, error: Exception | str) -> str:
        """Return the message of an error for people, without folders of this machine."""
        return without_folders(str(error), [self.folder])

    def _writer(self, owner: str) -> TrajectoryWriter:
        if owner not in self._writers:
            path = self.store_of(owner)
            self._writers[owner] = TrajectoryWriter(path)
            store = TrajectoryStore(path)
            tries: Counter[tuple[str, str]] = Counter()
            for unfinished in (False, True):
                for one in store.episodes(unfinished):
                    name = one.facts.policy, one.key.case
                    tries[name] = max(tries[name], one.key.rollout + 1)
            self._tries[owner] = tries
        return self._writers[owner]

    async def add(
        self,
        owner: str,
        id: str | None,
        facts: EpisodeFacts,
        episode: Episode | VolumeEpisode,
        result: StepResult,
        accepted: bool | None,
    ) -> tuple[str, EpisodeFacts]:
        """Record the newest step of a game.

        Args:
            owner: Owner of the store.
            id: Id of the recording; None begins one.
            facts: Facts of the game; a new recording gets the number of the try in its key.
            episode: Episode of the game.
            result: Result of the step.
            accepted: Whether it is a good example, if the game ends here.

        Returns:
            The recording's id, and the facts as recorded.

        Raises:
            TrajectoryError: The store cannot be written.
        """
        return await self._do(self._add, owner, id, facts, episode, result, accepted)

    def _add(
        self,
        owner: str,
        id: str | None,
        facts: EpisodeFacts,
        episode: Episode | VolumeEpisode,
        result: StepResult,
        accepted: bool | None,
    ) -> tuple[str, EpisodeFacts]:
        writer = self._writer(owner)
        step = episode.steps[-1]
        if isinstance(episode, VolumeEpisode):
            pixels = episode.mask()
        else:
            pixels = episode.state.mask.cpu().numpy()
        mask = pack_mask(pixels)
        row = step_record(step, mask, result.reward, result.info, result.terminated)
        if id is None:
            name = facts.policy, facts.key.case
            facts = replace(facts, key=facts.key._replace(rollout=self._tries[owner][name]))
            id = writer.begin(facts)
            self._tries[owner][name] += 1
        writer.add([(id, row)], [accepted if result.terminated else None])
        return id, facts

    def abandon(self, owner: str, id: str) -> None:
        """Leave a recording unfinished, because its game ended early. Does not wait."""
        try:
            self._thread.submit(lambda: self._writers[owner].abandon(id))
        except RuntimeError:  # shut down: closing the writers does it
            log.debug("a game ended after its store was closed")

    # images -----------------------------------------------------------------------------------
    async def keep_image(self, owner: str, case: Case) -> None:
        """Store an uploaded image, so that episodes on it can be replayed.

        Raises:
            ServiceError: 507, the owner's images take too much space, or the folder cannot be
                written.
        """
        try:
            await self._do(self._keep_image, owner, case)
        except CaseError as error:
            log_damage(self.images_of(owner).folder, error)
            raise ServiceError(
                f"the image cannot be kept: {self.public_message(error)}", 507
            ) from error

    def _keep_image(self, owner: str, case: Case) -> None:
        images = self.images_of(owner)
        if images.nbytes() + case.image.nbytes > self.image_bytes:
            raise ServiceError(
                f"your own images take up the {self.image_bytes >> 20} MiB that they may; "
                "whoever runs the service can move some away",
                507,
            )
        images.add(case)

    def close(self) -> None:
        """Close every store; running games stay as unfinished."""

        def end() -> None:
            for writer in self._writers.values():
                writer.close()

        self._thread.submit(end).result()
        self._thread.shutdown()
