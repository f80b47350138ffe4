"""Answers to infer requests: the label image, the JSON beside it, or both in one body."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from fastapi import Response

from medseg_gym.cases.volumes import VolumeGeometry
from medseg_gym.cases.writers.volume_labels import write_itk_labels
from medseg_gym.cases.writers.volume_masks import write_nifti_mask
from medseg_gym.serving.monailabel.image_files import media_type
from medseg_gym.serving.monailabel.parameters import Parameters


def label_file(
    labels: np.ndarray, geometry: VolumeGeometry, parameters: Parameters
) -> tuple[str, bytes]:
    """Write a label image; what is written on the way is removed.

    Args:
        labels: (D, H, W) uint8.
        geometry: Grid of the image.
        parameters: Kind of the file.

    Returns:
        Name and content of the file.
    """
    with TemporaryDirectory(prefix="medseg-label-") as folder:
        path = Path(folder) / f"label-{secrets.token_hex(4)}{parameters.extension}"
        if parameters.extension == ".nrrd":
            write_itk_labels(path, labels, geometry, parameters.compress, parameters.dtype)
        else:
            write_nifti_mask(path, labels, geometry)
        return path.name, path.read_bytes()


def answer(output: str, name: str, content: bytes, result: dict[str, Any]) -> Response:
    """Make the answer in the form that the client asked for.

    Args:
        output: "image", "json", or "" or "all" for both.
        name: Of the label file.
        content: Of the label file.
        result: The JSON.
    """
    kind = media_type(Path(name))
    if output == "json":
        return Response(json.dumps(result), media_type="application/json")
    if output == "image":
        disposition = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type=kind, headers=disposition)
    boundary = secrets.token_hex(16)
    parts = [
        b'Content-Disposition: form-data; name="params"\r\n'
        b"Content-Type: application/json\r\n\r\n" + json.dumps(result).encode(),
        f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + content,
    ]
    mark = f"--{boundary}".encode()
    body = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
