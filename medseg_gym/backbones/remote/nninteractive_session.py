"""A session of nnInteractive's server, with one volume and the prompts that it was given."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import httpx
import numpy as np
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession
from nnInteractive.inference.remote.serialization import unpack_array

from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import SlicePrompt

_META = "X-Meta"  # header of the server's answers
_EDGE = 1e-6  # share of a pixel that a box's edge may be off by the arithmetic of fractions


class CheckedSession(nnInteractiveRemoteInferenceSession):
    """The client, with answers that it would pass over in silence refused.

    Args:
        url: Of the server.
        key: Its bearer key, or None.
        timeout: Seconds for one prediction.
    """

    answered = False

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        try:
            super().__init__(url, key, read_timeout=timeout)
        except BaseException:
            connection = getattr(self, "_http", None)  # the client leaves it open
            if connection is not None:
                connection.close()
            raise

    def _apply_prediction_response(self, resp: httpx.Response) -> bool:
        """Refuse an answer without a prediction, or with another region than it names."""
        meta = json.loads(resp.headers.get(_META, "null"))
        if not isinstance(meta, dict) or meta.get("ran_prediction") is not True:
            raise ValueError("the answer says of no prediction")
        region = meta.get("bbox")
        if region is not None:
            assert self.target_buffer is not None
            size = [int(end) - int(start) for start, end in region]
            inside = len(size) == 3 and all(
                0 <= start < end <= n
                for (start, end), n in zip(region, self.target_buffer.shape, strict=True)
            )
            diff = unpack_array(resp.content)  # the client would repeat one voxel over a region
            if not inside or list(diff.shape) != size:
                raise ValueError(f"the answer's region {region} does not fit {diff.shape} voxels")
            if diff.dtype.kind not in "bu" or diff.max(initial=0) > 1:
                raise ValueError(f"the answer holds {diff.dtype} beyond 0 and 1, which is no mask")
        applied = bool(super()._apply_prediction_response(resp))
        self.answered = True
        return applied


class VolumeSession:
    """A session of the server with an image, and the prompts that it was given.

    Args:
        session: Of the server.
        key: Of the image.
        image: (D, H, W) float32.
    """

    def __init__(self, session: CheckedSession, key: str, image: np.ndarray) -> None:
        self.session = session
        self.given: tuple[SlicePrompt, ...] = ()
        self.load(key, image)

    def load(self, key: str, image: np.ndarray) -> None:
        """Send another image."""
        self.key = ""
        self.session.set_image(image[None])
        got = self.session.original_image_shape
        if tuple(got or ())[-3:] != image.shape:
            raise ValueError(f"the server took the image for one of {got}")
        self.mask: np.ndarray = np.zeros(image.shape, np.uint8)
        self.session.set_target_buffer(self.mask)
        self.given = ()
        self.key = key

    def segment(self, prompts: Sequence[SlicePrompt]) -> np.ndarray:
        """Give the prompts that the server does not have yet; the mask."""
        wanted = tuple(prompts)
        if wanted[: len(self.given)] != self.given:
            self.session.reset_interactions()
            self.mask[:] = 0
            self.given = ()
        for prompt in wanted[len(self.given) :]:
            self._add(prompt)
            self.given = (*self.given, prompt)
        return self.mask.astype(bool)

    def _add(self, prompt: SlicePrompt) -> None:
        depth, height, width = self.mask.shape
        if not 0 <= prompt.slice < depth:
            raise ValueError(f"the volume has {depth} slices, there is no {prompt.slice}")
        self.session.answered = False
        one = prompt.prompt
        if isinstance(one, AddBox):
            rows, columns = _span(one.y1, one.y2, height), _span(one.x1, one.x2, width)
            place = [[prompt.slice, prompt.slice + 1], rows, columns]
            self.session.add_bbox_interaction(place, include_interaction=True)
        else:
            voxel = [prompt.slice, _voxel(one.y, height), _voxel(one.x, width)]
            self.session.add_point_interaction(voxel, include_interaction=one.positive)
        if not self.session.answered:
            raise ValueError("nninteractive-client has another interface than that of 2.6")


def _voxel(fraction: float, side: int) -> int:
    return min(max(math.floor(fraction * side), 0), side - 1)


def _span(low: float, high: float, side: int) -> list[int]:
    """Return first pixel and the one after the last that a box covers."""
    start = min(max(math.floor(low * side + _EDGE), 0), side - 1)
    return [start, max(min(math.ceil(high * side - _EDGE), side), start + 1)]
