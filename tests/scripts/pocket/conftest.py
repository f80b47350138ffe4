from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medseg_gym.cases import load_cases


def draw_view(seed: int, synthetic: bool):
    """Image, labels and regions of a view; a phantom's own, or two squares on noise."""
    if synthetic:
        source = load_cases("phantoms", "train")
        cases = [source[4 * seed + i] for i in range(4)]
        bits = sum(case.mask.astype(np.int16) << i for i, case in enumerate(cases))
        return cases[0].image, bits, bits
    rng = np.random.default_rng(seed)
    labels = np.zeros((256, 256), np.int16)
    labels[40:120, 30:140], labels[150:220, 100:220] = 1, 2
    image = rng.integers(0, 60, (256, 256, 3)) + 60 * labels[:, :, None]
    return image.astype(np.uint8), labels, labels + 1


@pytest.fixture(scope="session")
def teaching(tmp_path_factory):
    """A teaching set of four views, as the teacher would write it, with made-up embeddings."""
    folder = tmp_path_factory.mktemp("teaching")
    views = [draw_view(seed, synthetic=seed % 2 == 1) for seed in range(4)]
    mask = np.packbits(views[0][1] == 1)
    tensors = {
        "image": torch.from_numpy(np.stack([view[0] for view in views])),
        "labels": torch.from_numpy(np.stack([view[1] for view in views])),
        "regions": torch.from_numpy(np.stack([view[2] for view in views])),
        "embedding": torch.randn(4, 256, 32, 32, generator=torch.manual_seed(0)).half(),
        "mask": torch.from_numpy(mask[None]),
        "owner": torch.tensor([0]),
        "synthetic": torch.tensor([False, True, False, True]),
    }
    save_file(tensors, folder / "teacher-0000.safetensors")
    return folder
