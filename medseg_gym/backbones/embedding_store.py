"""Embeddings on disk, shared by processes and safe to kill at any moment.

One safetensors file per image under a folder named by what made it, so that other weights, another
precision or another size never meet. A file appears whole or not at all: it is written beside its
place and renamed into it. A damaged file counts as absent and is written anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from medseg_gym.backbones.protocol import Embedding
from medseg_gym.errors import BackboneError
from medseg_gym.storage.atomic_write import atomic_path

_FORMAT = "1"


class EmbeddingStore:
    """Embeddings of one backbone in a folder.

    Args:
        folder: Created where it is missing; any number of backbones may share it.
        backbone: Whose embeddings; its name, weights, dtype and image side name a sub-folder.
    """

    def __init__(self, folder: str | Path, backbone: Any) -> None:
        self.device = backbone.device
        self.folder = Path(folder).expanduser() / fingerprint(backbone)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> Embedding | None:
        """The embedding of the image with that content hash; None if absent or damaged."""
        return read_embedding(self._path(key), self.device)

    def write(self, key: str, embedding: Embedding) -> None:
        """Keep an embedding; a file that is there is replaced by an equal one."""
        write_embedding(self._path(key), embedding)


def read_embedding(path: Path, device: torch.device) -> Embedding | None:
    """Read one file; None if it is absent or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt", device=str(device)) as file:
            facts = file.metadata() or {}
            count = int(facts["tensors"])
            # Copies: a tensor mapped from the file would change, or crash, with the file.
            tensors = tuple(file.get_tensor(str(i)).clone() for i in range(count))
        sizes = [int(facts[name]) for name in ("H", "W", "h", "w")]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return Embedding(tensors, (sizes[0], sizes[1]), (sizes[2], sizes[3]))


def write_embedding(path: Path, embedding: Embedding) -> None:
    """Write one file, whole or not at all.

    Raises:
        BackboneError: It cannot be written.
    """
    from safetensors.torch import save_file

    (height, width), (h, w) = embedding.image_size, embedding.input_size
    facts = {"tensors": len(embedding.features), "H": height, "W": width, "h": h, "w": w}
    tensors = {str(i): t.cpu().contiguous() for i, t in enumerate(embedding.features)}
    with atomic_path(path, BackboneError, durable=False) as temporary:
        save_file(tensors, temporary, {name: str(value) for name, value in facts.items()})


def fingerprint(backbone: Any) -> str:
    """Name, image side and dtype of a backbone, and a hash of its weights."""
    digest = hashlib.blake2b(_FORMAT.encode(), digest_size=8)
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    dtype = str(backbone.dtype).removeprefix("torch.")
    return f"{backbone.name}-{backbone.image_side}-{dtype}-{digest.hexdigest()}"
