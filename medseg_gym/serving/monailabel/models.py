"""The models of a service: the backbone in 3D and 2D, and the policies."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg_gym.errors import MedSegError, nearest
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.monailabel.answers import label_file
from medseg_gym.serving.monailabel.automatic import AutomaticModel
from medseg_gym.serving.monailabel.interactive import InteractiveModel
from medseg_gym.serving.monailabel.options import MonaiLabelOptions
from medseg_gym.serving.monailabel.parameters import Parameters, place
from medseg_gym.serving.monailabel.scans import ScanReader
from medseg_gym.serving.monailabel.studies import StudyFolder

FLAT = "_2d"
"""End of the name of the model that segments one slice."""


class Segmented(NamedTuple):
    """A label file by name, its content, and the JSON beside it."""

    name: str
    content: bytes
    result: dict[str, Any]


def plain_name(text: str) -> str:
    """Return a name that can stand in a path, of a spec that may hold colons and slashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "policy"


class Models:
    """All models.

    Args:
        segmenter: The service's.
        options: Labels, policies, bounds.

    Raises:
        MedSegError: A policy cannot be used, or two have one name.
    """

    def __init__(self, segmenter: Segmenter, options: MonaiLabelOptions) -> None:
        self.options = options
        self.backbone = segmenter.facts.name
        self._interactive = InteractiveModel(segmenter)
        self._scans = ScanReader(options.max_voxels)
        base = plain_name(self.backbone)
        self.interactive = {base: False, f"{base}{FLAT}": True}
        """Interactive models by name, and whether each segments one slice."""
        self.automatic: dict[str, AutomaticModel] = {}
        try:
            for policy in options.policies:
                name = plain_name(policy.name)
                if name in self.names:
                    raise MedSegError(f"two models are named {name!r}; give each policy once")
                model = AutomaticModel(policy, segmenter, options.labels, options.steps)
                self.automatic[name] = model
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> Sequence[str]:
        """Names of all models."""
        return [*self.interactive, *self.automatic]

    def describe(self, studies: StudyFolder) -> dict[str, Any]:
        """Describe the service with the fields of MONAI Label's `/info/`."""
        labels = list(self.options.labels)
        config = {"window": self.options.window}
        described: dict[str, Any] = {
            name: {
                "type": "deepgrow",
                "labels": [],
                "dimension": 2 if flat else 3,
                "description": f"{self.backbone} with points and a box, on "
                + ("one slice" if flat else "slices, carried through the others"),
                "config": config,
            }
            for name, flat in self.interactive.items()
        }
        for name, model in self.automatic.items():
            described[name] = {
                "type": "segmentation",
                "labels": {label: value for value, label in enumerate(labels, 1)},
                "dimension": 3,
                "description": f"policy {model.name} with {self.backbone}, playing "
                + ("the volume" if model.plays_volumes else "slice by slice"),
                "config": config,
            }
        return {
            "name": "medseg_gym",
            "description": "Backbones and policies of medseg_gym. Not for clinical use.",
            "version": version("medseg-gym"),
            "labels": labels,
            "models": described,
            "trainers": {},
            "strategies": {"first": {"description": "The first image without a final label"}},
            "scoring": {},
            "train_stats": {},
            "datastore": studies.status(),
        }

    def check(self, name: str) -> None:
        """Refuse a model that is not there.

        Raises:
            ServiceError: 404, with the names that there are.
        """
        if name not in self.names:
            raise ServiceError(
                f"there is no model {name[:60]!r}{nearest(name, self.names)}; there are: "
                f"{', '.join(self.names)}",
                404,
            )

    def infer(
        self, name: str, path: Path, shown: str, parameters: Parameters, allowance: Allowance
    ) -> Segmented:
        """Segment an image; a computation.

        Args:
            name: Of a model.
            path: The image.
            shown: Its name in messages.
            parameters: Of the request.
            allowance: Counts its voxels.

        Raises:
            ServiceError: The image or the prompts cannot be used.
            MedSegError: The backbone or the policy failed.
        """
        began = time.perf_counter()
        flat = self.interactive.get(name, False)
        window = self.options.window if parameters.window is None else parameters.window
        case = self._scans.read(path, shown, window, flat, allowance)
        assert case.geometry is not None
        read = time.perf_counter()
        result: dict[str, Any] = {}
        labels = np.zeros(case.mask.shape, np.uint8)
        if name in self.interactive:
            geometry = case.geometry
            placed = place(parameters, geometry.shape, geometry.view, flat)
            mask, note = self._interactive.segment(case, placed, flat)
            labels[mask] = 1
            result["label_names"] = {parameters.label or self.options.labels[0]: 1}
            if note:
                result["note"] = note
        else:
            for value, label in enumerate(self.options.labels, 1):
                mask = self.automatic[name].segment(case, label)
                labels[mask & (labels == 0)] = value  # of two labels on a voxel, the first has it
            result["label_names"] = {n: v for v, n in enumerate(self.options.labels, 1)}
        made = time.perf_counter()
        file, content = label_file(labels, case.geometry, parameters)
        written = time.perf_counter()
        result["voxels"] = int(np.count_nonzero(labels))
        result["latencies"] = {
            "pre": round(read - began, 3),
            "infer": round(made - read, 3),
            "write": round(written - made, 3),
            "total": round(written - began, 3),
        }
        return Segmented(file, content, result)

    def close(self) -> None:
        """Close the policies."""
        for model in self.automatic.values():
            model.close()
