"""`backbones.load("nninteractive:http://HOST:1527")`: nnInteractive's model on its own server.

The client is nnInteractive's own (package `nninteractive-client`); its server is
`nninteractive-server` of the package `nnInteractive`. The model segments in 3D: points and 2D boxes
on any slice, and every one of them changes the whole mask. Predictions build on each other, so the
prompts of a mask are always given one by one, in their order, from an empty start.

Isensee, Rokuss, Krämer et al., "nnInteractive: Redefining 3D Promptable Segmentation", 2025,
arXiv:2503.08373.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from threading import RLock
from typing import NoReturn

import httpx
import numpy as np
import torch
from nnInteractive.inference.remote import SessionExpiredError

from medseg_gym.backbones.protocol import Embedding, Prediction, PromptRow
from medseg_gym.backbones.remote.nninteractive_session import CheckedSession, VolumeSession
from medseg_gym.errors import BackboneError
from medseg_gym.prompts.volumes import SlicePrompt


class NnInteractiveBackbone:
    """A `VolumeBackbone` on an nninteractive-server.

    Args:
        url: Of the server.
        key: Its bearer key; None takes NN_INTERACTIVE_API_KEY, if set.
        timeout: Seconds for one prediction.
        sessions: Sessions of the server that are held, each with one volume; a volume beyond that
            takes the place of the one that was not used for the longest.

    Raises:
        BackboneError: No such server answers there.
    """

    takes_mask_input = False

    def __init__(
        self, url: str, key: str | None = None, timeout: float = 60.0, sessions: int = 1
    ) -> None:
        if sessions < 1 or timeout <= 0:
            raise BackboneError(f"{url}: sessions and timeout must be positive")
        self.url, self._key, self._timeout, self._sessions = url, key, timeout, sessions
        self.name = "nninteractive"
        self.device = torch.device("cpu")
        self._volumes: OrderedDict[str, VolumeSession] = OrderedDict()
        self._lock = RLock()
        self._open: list[CheckedSession] = []
        # Also when the program ends: a lease that is kept counts until the server reaps it.
        weakref.finalize(self, _close_all, self._open)
        self._spare: CheckedSession | None = self._connect()
        kinds = self._spare.supported_interactions
        names = (("box", "bbox2d"), ("point", "points"))
        self.prompt_kinds = frozenset(kind for kind, theirs in names if kinds.get(theirs) is True)
        self.trained_kinds = self.prompt_kinds
        if not self.prompt_kinds:
            raise BackboneError(f"{url}: the server's model takes neither points nor boxes")

    def __deepcopy__(self, memo: dict) -> NnInteractiveBackbone:
        return self

    def _connect(self) -> CheckedSession:
        try:
            session = CheckedSession(self.url, self._key, self._timeout)
            if not isinstance(session.supported_interactions, dict):
                raise TypeError("its capabilities name no interactions")
        except _FAILURES as error:
            self._fail(error, "no session could be opened")
        self._open.append(session)
        return session

    def segment_volume(
        self, image: np.ndarray, key: str, prompts: Sequence[SlicePrompt]
    ) -> np.ndarray:
        """See `VolumeBackbone`; colours are sent as grey values.

        Raises:
            BackboneError: The server does not answer, or with what is no mask.
        """
        if not prompts:
            raise BackboneError(f"{self.name}: at least one prompt is needed")
        with self._lock:
            try:
                return self._volume(image, key).segment(prompts)
            except SessionExpiredError:
                self._drop(key)  # idle for too long, or another server: everything is sent anew
            except _FAILURES as error:
                self._drop(key)
                self._fail(error, "the volume was not segmented")
            try:
                return self._volume(image, key).segment(prompts)
            except _FAILURES as error:
                self._drop(key)
                self._fail(error, "the volume was not segmented")

    def _volume(self, image: np.ndarray, key: str) -> VolumeSession:
        if key in self._volumes:
            self._volumes.move_to_end(key)
            return self._volumes[key]
        grey = (image.mean(axis=3) if image.ndim == 4 else image).astype(np.float32)
        if len(self._volumes) >= self._sessions:
            _, volume = self._volumes.popitem(last=False)
            try:
                volume.load(key, grey)
            except BaseException:
                self._close(volume.session)
                raise
        else:
            session, self._spare = self._spare or self._connect(), None
            try:
                volume = VolumeSession(session, key, grey)
            except BaseException:
                self._close(session)
                raise
        self._volumes[key] = volume
        return volume

    def _drop(self, key: str) -> None:
        volume = self._volumes.pop(key, None)
        if volume is not None:
            self._close(volume.session)

    def _close(self, session: CheckedSession) -> None:
        _close_all([session])
        self._open[:] = [one for one in self._open if one is not session]

    def _fail(self, error: Exception, what: str) -> NoReturn:
        if isinstance(error, BackboneError):
            raise error
        detail = str(error)[:300] or type(error).__name__
        if isinstance(error, httpx.HTTPStatusError):
            detail = f"{error.response.status_code} {error.response.text[:200]}"
        silent = isinstance(error, httpx.TransportError)
        hint = "; is nninteractive-server running there?" if silent else ""
        raise BackboneError(f"nninteractive:{self.url}: {what}: {detail}{hint}") from error

    def close(self) -> None:
        """Give the server's sessions back; a second call does nothing."""
        with self._lock:
            for key in list(self._volumes):
                self._drop(key)
            if self._spare is not None:
                self._close(self._spare)
                self._spare = None

    # of single images ---------------------------------------------------------------------------
    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Refuse: the model needs whole volumes.

        Raises:
            BackboneError: Always.
        """
        raise self._no_images()

    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Refuse likewise.

        Raises:
            BackboneError: Always.
        """
        raise self._no_images()

    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Refuse likewise.

        Raises:
            BackboneError: Always.
        """
        raise self._no_images()

    def _no_images(self) -> BackboneError:
        return BackboneError(
            "nninteractive segments whole volumes: play it in MedSegVolume-v0, or by `medseg eval "
            "--protocol cvpr2025-interactive-3d`; images and the service need another backbone"
        )


_FAILURES = (
    *(httpx.HTTPError, httpx.InvalidURL, RuntimeError, ValueError, TypeError, KeyError),
    *(AttributeError, AssertionError, IndexError, OverflowError, MemoryError, BackboneError),
)
"""Failures of the network, of the server, and of a client that reads what is no answer."""


def _close_all(sessions: list[CheckedSession]) -> None:
    for session in sessions:
        with suppress(Exception):  # the server may be gone
            session.close()


def build(
    name: str,
    device: torch.device,
    *,
    key: str | None = None,
    timeout: float = 60.0,
    sessions: int = 1,
) -> NnInteractiveBackbone:
    """Connect to the server that a name gives: "nninteractive:URL".

    See `NnInteractiveBackbone` for the arguments; masks are made on the CPU.
    """
    del device
    url = name.removeprefix("nninteractive:")
    if not url.startswith(("http://", "https://")):
        raise BackboneError(f"{name!r}: write nninteractive:http://HOST:1527")
    return NnInteractiveBackbone(url.rstrip("/"), key, timeout, sessions)
