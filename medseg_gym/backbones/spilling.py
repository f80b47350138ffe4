"""Embeddings that memory has no room for, in a temporary folder that is bounded in bytes too."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from pathlib import Path

import torch

from medseg_gym.backbones.embedding_store import read_embedding, write_embedding
from medseg_gym.backbones.protocol import Embedding
from medseg_gym.errors import BackboneError


class SpillFolder:
    """Embeddings of one cache, the oldest out first; gone with the process.

    Args:
        max_bytes: Of all files together.
        parent: Folder to make it in; None takes the system's temporary one.
    """

    def __init__(self, max_bytes: int, parent: str | Path | None = None) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._parent = parent
        self._folder: Path | None = None
        self._made_in = os.getpid()
        self._sizes: OrderedDict[str, tuple[int, torch.device]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sizes)

    def read(self, key: str) -> Embedding | None:
        """The embedding of a key; None if it is not there."""
        self._leave_to_parent()
        if key not in self._sizes:
            return None
        return read_embedding(self._path(key), self._sizes[key][1])

    def write(self, key: str, embedding: Embedding) -> None:
        """Keep an embedding, unless it is there or larger than the folder may be.

        A full disk keeps nothing more: what is not there is encoded again.
        """
        self._leave_to_parent()
        size = embedding.nbytes
        if key in self._sizes or not 0 < size <= self.max_bytes:
            return
        while self.nbytes + size > self.max_bytes:
            oldest, (freed, _) = self._sizes.popitem(last=False)
            self._path(oldest).unlink(missing_ok=True)
            self.nbytes -= freed
        try:
            write_embedding(self._path(key), embedding)
        except BackboneError:
            self.max_bytes = self.nbytes
            return
        self._sizes[key] = size, embedding.features[0].device
        self.nbytes += size

    def _leave_to_parent(self) -> None:
        """Begin anew in a forked process: the files are those of the one that it came from."""
        if os.getpid() != self._made_in:
            self._made_in, self._folder, self.nbytes = os.getpid(), None, 0
            self._sizes.clear()

    def _path(self, key: str) -> Path:
        if self._folder is None:
            made = tempfile.mkdtemp(prefix="medseg-embeddings-", dir=self._parent)
            self._folder = Path(made)
            weakref.finalize(self, _remove, made, os.getpid())
        return self._folder / f"{key}.safetensors"


def _remove(folder: str, made_in: int) -> None:
    if os.getpid() == made_in:
        shutil.rmtree(folder, ignore_errors=True)
