"""Images that clients have uploaded for a while: each owner's own, in a temporary folder."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.image_files import kind_of, open_header
from medseg_gym.serving.monailabel.options import MonaiLabelOptions


@dataclass(eq=False)
class ImageSession:
    """An uploaded image.

    Args:
        id: Unguessable.
        owner: The only one who sees it.
        name: Of the file, as the client has it.
        path: Of the file here.
        nbytes: Size of the file.
        seconds: Closed when nobody has used it for so long.
    """

    id: str
    owner: str
    name: str
    path: Path
    nbytes: int
    seconds: float
    created: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.used = self.created

    def describe(self) -> dict[str, Any]:
        """Describe it with MONAI Label's fields; no path of this machine is told."""
        return {
            "name": self.id,
            "path": "",
            "image": self.name,
            "meta": {},
            "create_ts": int(self.created),
            "last_access_ts": int(self.used),
            "expiry": int(self.seconds),
        }


class ImageSessions:
    """All images of all owners; safe to use from several threads.

    Args:
        options: With the bounds.
    """

    def __init__(self, options: MonaiLabelOptions) -> None:
        self._options = options
        self._sessions: dict[str, ImageSession] = {}
        self._folder: TemporaryDirectory[str] | None = None
        self._lock = RLock()

    def folder(self) -> Path:
        """Return the folder of all files, which goes with the service."""
        with self._lock:
            if self._folder is None:
                self._folder = TemporaryDirectory(
                    prefix="medseg-monailabel-", ignore_cleanup_errors=True
                )
            return Path(self._folder.name)

    def store(self, name: str | None, content: bytes) -> Path:
        """Write an uploaded image under a name of its own, and check its header.

        Raises:
            ServiceError: 413, 415 or 422: it is no image that is read here. Nothing is left of it.
        """
        kind = kind_of(name)
        place = self.folder() / secrets.token_hex(16)
        path = place / f"image{kind}"
        try:
            place.mkdir()
            path.write_bytes(content)
            open_header(path, (name or "image")[-100:], self._options.max_voxels)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            raise ServiceError(f"the image cannot be stored: {error.strerror}", 507) from error
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return path

    @staticmethod
    def drop(path: Path) -> None:
        """Remove what `store` wrote."""
        shutil.rmtree(path.parent, ignore_errors=True)

    def open(self, owner: str, name: str | None, content: bytes, seconds: int) -> ImageSession:
        """Begin a session on an image; the owner's idlest ends where there are too many.

        Args:
            owner: The only one who sees it.
            name: Of the file.
            content: Of the file.
            seconds: Closed when idle for so long; 0 takes the service's own, the longest allowed.

        Raises:
            ServiceError: As `store`, or 503, no room.
        """
        self.close_idle()
        path = self.store(name, content)
        longest = self._options.session_seconds
        session = ImageSession(
            f"monai-{secrets.token_hex(16)}",
            owner,
            (name or path.name).replace("\\", "/").rpartition("/")[2][-100:],
            path,
            len(content),
            min(seconds, longest) if seconds > 0 else longest,
        )
        with self._lock:
            mine = sorted((s for s in self._sessions.values() if s.owner == owner), key=_used)
            while mine and (len(mine) >= self._options.max_images or self._full(session)):
                self._close(mine.pop(0))
            if self._full(session):
                self.drop(path)
                raise ServiceError("no room for further images; try again later", 503, 60)
            self._sessions[session.id] = session
        return session

    def _full(self, another: ImageSession) -> bool:
        held = sum(session.nbytes for session in self._sessions.values())
        return held + another.nbytes > self._options.image_bytes

    def get(self, owner: str, id: str, use: bool = True) -> ImageSession:
        """Return a session of an owner.

        Args:
            owner: The one who asks.
            id: Of the session.
            use: Count it as used now.

        Raises:
            ServiceError: 404.
        """
        self.close_idle()
        with self._lock:
            session = self._sessions.get(id)
            if session is None or session.owner != owner:
                raise ServiceError(
                    f"session {id[:60]!r} is not there: it never was, was deleted, or expired", 404
                )
            if use:
                session.used = time.time()
            return session

    def close(self, owner: str, id: str) -> ImageSession:
        """End a session and remove its image.

        Raises:
            ServiceError: 404.
        """
        session = self.get(owner, id)
        with self._lock:
            self._close(session)
        return session

    def _close(self, session: ImageSession) -> None:
        if self._sessions.pop(session.id, None) is not None:
            self.drop(session.path)

    def close_idle(self) -> None:
        """Close the sessions that nobody has used for long."""
        now = time.time()
        with self._lock:
            for session in list(self._sessions.values()):
                if now - session.used > session.seconds:
                    self._close(session)

    def stop(self) -> None:
        """Remove everything."""
        with self._lock:
            self._sessions.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None


def _used(session: ImageSession) -> float:
    return session.used
