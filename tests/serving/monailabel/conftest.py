"""A service with MONAI Label's routes on the loopback, and scans whose grids are not plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.monailabel import MonaiLabelExtension, MonaiLabelOptions
from medseg_gym.serving.server import make_service, running

SHAPE = (40, 48, 12)
"""Voxels along i, j, k of every scan here."""

AFFINE = np.array(
    [[-0.9, 0.05, 0.1, 31.5], [0.04, 1.1, -0.2, -17.25], [0.1, 0.2, 3.0, 5.125], [0, 0, 0, 1]]
)
"""Oblique, with unequal voxels and an axis that runs the other way."""


def voxels() -> np.ndarray:
    values = np.random.default_rng(3).integers(0, 60, SHAPE).astype(np.int16)
    values[10:26, 20:38, 3:9] += 900
    return values


def write_nifti(path: Path, affine: np.ndarray = AFFINE) -> Path:
    image = nibabel.Nifti1Image(voxels(), affine)
    image.set_qform(None, 0)
    image.set_sform(affine, 2)
    image.to_filename(path)
    return path


def write_nrrd(path: Path) -> Path:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels().T))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-11.0, 22.0, 33.5))
    turn = np.radians(20)
    image.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, -1))
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "scan.nii.gz")


def make_studies(folder: Path) -> Path:
    folder.mkdir()
    write_nifti(folder / "one.nii.gz")
    write_nrrd(folder / "two.nrrd")
    return folder


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return make_studies(tmp_path / "studies")


def start_server(
    stack: ExitStack,
    api_keys: ApiKeys | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> httpx.Client:
    extension = MonaiLabelExtension(MonaiLabelOptions(**options))
    service = make_service(
        EllipseBackbone("cpu"),
        limits=limits or Limits(max_sessions=8),
        api_keys=api_keys,
        extensions=[extension],
    )
    url = stack.enter_context(running(service))
    return stack.enter_context(httpx.Client(base_url=url, timeout=20, trust_env=False))


@pytest.fixture
def label_server() -> Iterator[Callable[..., httpx.Client]]:
    """Start a service with MONAI Label's routes; everything ends with the test."""
    with ExitStack() as stack:
        yield lambda *args, **options: start_server(stack, *args, **options)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service for tests that leave nothing behind."""
    with ExitStack() as stack:
        yield start_server(stack, studies=make_studies(tmp_path_factory.mktemp("data") / "studies"))
