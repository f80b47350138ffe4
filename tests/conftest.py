"""Fixtures that several rooms share: small cases, a tiny random SAM, strategies for prompts."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from medseg_gym.backbones import SamBackbone
from medseg_gym.cases import Case
from medseg_gym.prompts import AddBox, AddPoint


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal tests to processes (`pytest -n 2 --dist loadgroup`) by file, all that start Ray to one.

    A file's fixtures are then made once, and no two Ray clusters share the machine.
    """
    with_ray = {item.path for item in items if _starts_ray(item)}
    for item in items:
        if not any(item.iter_markers("xdist_group")):
            group = "ray" if item.path in with_ray else str(item.path.relative_to(_HERE))
            item.add_marker(pytest.mark.xdist_group(group))


def _starts_ray(item: pytest.Item) -> bool:
    return "ray_cluster" in getattr(item, "fixturenames", ())


_HERE = Path(__file__).parent

# The same examples on every run; `--hypothesis-profile explore` looks further.
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("suite")

# `st.from_type(AddBox)` in any test: a grid coarse enough to meet empty boxes and repeated clicks.
_fractions = st.integers(0, 20).map(lambda v: v / 20)
st.register_type_strategy(
    AddBox, st.builds(AddBox, x1=_fractions, y1=_fractions, x2=_fractions, y2=_fractions)
)
st.register_type_strategy(
    AddPoint, st.builds(AddPoint, x=_fractions, y=_fractions, positive=st.booleans())
)


def build_tiny_sam(side: int, depth: int, seed: int) -> Sam:
    """A segment_anything model of some thousand weights, drawn so that its masks vary."""
    dim, grid = 32, side // 16
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        encoder = ImageEncoderViT(
            img_size=side,
            patch_size=16,
            embed_dim=dim,
            depth=depth,
            num_heads=2,
            out_chans=dim,
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(depth - 1,),
        )
        prompts = PromptEncoder(dim, (grid, grid), (side, side), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=dim, num_heads=2, mlp_dim=64)
        decoder = MaskDecoder(
            transformer_dim=dim,
            transformer=transformer,
            iou_head_depth=2,
            iou_head_hidden_dim=32,
        )
        model = Sam(encoder, prompts, decoder)
        for weight in model.parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 25
            weight.add_(torch.randn_like(weight) * fan_in**-0.5)
    return model.eval()


# Tiny models gain nothing from a second thread and lose much on a busy machine.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was imported out of the collector's way: each `gc.collect` would go through it.

    Raises:
        UsageError: Tests are dealt to processes without regard to their groups.
    """
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("this pytest and pytest-xdist do not group tests: see pyproject")
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_sam() -> Sam:
    """A tiny random model of 64 x 64 pixels, low-resolution logits 16 x 16."""
    return build_tiny_sam(side=64, depth=1, seed=38)


@pytest.fixture(scope="session")
def larger_sam() -> Sam:
    """A tiny random model of 112 x 112 pixels with windowed attention that must be padded."""
    return build_tiny_sam(side=112, depth=2, seed=0)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_sam: Sam) -> SamBackbone:
    return SamBackbone(tiny_sam, name="tiny")


def draw_case(key: str, height: int, width: int, truth: bool = True) -> Case:
    """A bright ellipse off the centre of a noisy image; no target at all without `truth`."""
    rng = np.random.default_rng([height, width])
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    mask = ((x - 0.6) / 0.25) ** 2 + ((y - 0.4) / 0.3) ** 2 < 1
    noise = rng.integers(0, 100, (height, width, 3))
    image = (noise + 120 * mask[:, :, None]).astype(np.uint8)
    return Case(
        key,
        image,
        mask & truth,
        target="blob" if truth else "nothing",
        modality="CT",
        group=f"volume of {key}",
        source="tests",
        synthetic=True,
    )


@pytest.fixture(scope="session")
def small_cases() -> tuple[Case, ...]:
    """Five cases: three sizes, one image that two cases share, one without a target."""
    wide, tall, square = (
        draw_case("wide", 24, 40),
        draw_case("tall", 33, 17),
        draw_case("sq", 32, 32),
    )
    shared = Case("shared", wide.image, wide.mask[::-1].copy(), target="mirrored blob")
    return wide, tall, square, shared, draw_case("absent", 32, 32, truth=False)


@pytest.fixture
def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Give `medseg` arguments in this process, as its entry point does, and get the refusal."""
    from medseg_gym.cli.main import main

    def refused(*arguments: str, entry: Callable[[], None] = main) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["medseg", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return refused
