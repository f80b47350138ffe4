"""The vision tower that learns where things are: its images, its loss, its checkpoints."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("trl")

from medseg_agents.llm.tiny_model import TinyConfig, build_tiny, place_waves

from benchmarks.learning.chain_sizes import Chain
from benchmarks.learning.tiny_chain import run_stages
from benchmarks.learning.vision.scenes import Scenes, draw_scenes, turned_boxes
from benchmarks.learning.vision.steps import LAST, drawn_order
from benchmarks.learning.vision.tower import (
    CODE,
    SUBCELLS,
    Before,
    Seeing,
    owned_tokens,
    seeing_loss,
    train_tower,
)
from medseg_gym.annotators.box import box_agreement, tight_box
from medseg_gym.backbones.checkpoints import read_torch_file
from medseg_gym.cases import load_cases
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox

SPEC, SIDE = "phantoms:fundus?position=random", 64
GRID = SUBCELLS * SIDE // (2 * TinyConfig().patch)
TOKENS = (SIDE // (2 * TinyConfig().patch)) ** 2


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    chat = ChatOptions(image_size=SIDE, texts="terse")
    files = draw_scenes(folder, SPEC, "train", range(3, 35), chat, GRID, 4, workers=1)
    assert files == draw_scenes(folder, SPEC, "train", range(3, 35), chat, GRID, 4, workers=1)
    return Scenes.read(files)


def test_scenes_are_the_cases_as_the_model_is_shown_them(scenes):
    source = load_cases(SPEC, "train")
    assert scenes.images.shape == (32, SIDE, SIDE, 3)
    for image, slot in ((0, 0), (5, 2), (31, 3)):
        case = source[(3 + image) * 4 + slot]
        assert source.targets[scenes.targets[image][slot]] == case.target
        covered = scenes.covers[image][slot].astype(float).mean() / 255
        assert covered == pytest.approx(case.area_fraction, abs=2e-3)
        left, top, right, bottom = scenes.sides[image][slot]
        if case.mask.any():
            rows = slice(round(top * case.height), round(bottom * case.height))
            columns = slice(round(left * case.width), round(right * case.width))
            assert case.mask[rows, columns].sum() == case.mask.sum()
        else:
            assert np.isnan(scenes.sides[image][slot]).all()
        assert scenes.boxes(image)[slot] == tight_box(case.mask)


def test_all_targets_of_a_scene_are_kept(scenes):
    counts = {len(targets) for targets in scenes.targets}
    assert min(counts) > 4 and len(counts) > 1  # those with too few pixels are not known
    for targets, covers, sides in zip(scenes.targets, scenes.covers, scenes.sides, strict=True):
        assert covers.shape == (len(targets), GRID, GRID) and sides.shape == (len(targets), 4)
        assert len(set(targets)) == len(targets)
    batch = scenes.batch(np.arange(32), np.zeros(32, int))
    assert batch.known.sum() == sum(map(len, scenes.targets))
    assert not batch.covers[~batch.known].any() and batch.boxes[~batch.known].isnan().all()
    assert torch.equal(batch.shown, batch.covers.flatten(2).any(-1))


@pytest.mark.parametrize("turn", range(4))
def test_image_covers_and_boxes_turn_together(scenes, turn):
    batch = scenes.batch(np.array([2]), np.array([turn]))
    assert np.array_equal(np.rot90(batch.images[0], -turn), scenes.images[2])
    again = np.rot90(batch.covers[0].numpy(), -turn, (1, 2))
    assert np.allclose(again * 255, scenes.covers[2])
    for cover, box in zip(batch.covers[0].numpy(), batch.boxes[0], strict=True):
        if cover.any():
            rows, columns = cover.any(1).nonzero()[0], cover.any(0).nonzero()[0]
            cells = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.allclose(box * GRID, cells, atol=1)  # the cells that it touches


def test_a_shrunk_batch_shows_the_same_smaller(scenes):
    batch = scenes.batch(np.arange(32), np.arange(32) % 4)
    small = batch.shrunk(SIDE // 2)
    assert small.images.shape == (32, SIDE // 2, SIDE // 2, 3) and small.images.dtype == np.uint8
    means = batch.images.reshape(32, SIDE // 2, 2, SIDE // 2, 2, 3).mean((2, 4))
    assert np.abs(means - small.images).mean() < 4  # of 255
    assert small.covers.shape == (*batch.known.shape, GRID // 2, GRID // 2)
    assert torch.allclose(small.covers.mean((2, 3)), batch.covers.mean((2, 3)), atol=1e-6)
    for same in ("targets", "known", "boxes", "places"):
        assert getattr(small, same) is getattr(batch, same)
    assert torch.equal(small.shown, batch.shown) and small.places == SIDE


@given(hnp.arrays(float, (3, 4), elements=st.floats(0, 1)), st.integers(0, 7), st.integers(0, 7))
def test_turns_of_boxes_add_up(boxes, one, other):
    assert np.allclose(
        turned_boxes(turned_boxes(boxes, one), other), turned_boxes(boxes, one + other)
    )
    assert np.allclose(turned_boxes(boxes, 4 * one), boxes)


def test_boxes():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:14] = True
    box = tight_box(mask)
    assert box is not None
    assert [box.x1, box.y1, box.x2, box.y2] == pytest.approx([0.2, 0.2, 0.7, 0.5])
    nothing = tight_box(mask & False)
    assert box_agreement(box, box) == pytest.approx(1) and box_agreement(nothing, nothing) == 1
    assert box_agreement(box, nothing) == 0 == box_agreement(nothing, box)
    aside = AddBox(box.x1 + 0.25, box.y1, box.x2 + 0.25, box.y2)
    assert box_agreement(box, aside) == pytest.approx(1 / 3)


def test_logits_lie_where_their_tokens_lie(tmp_path):
    """An image token speaks of the cells that it shows."""
    path = build_tiny(tmp_path / "m", ["a"], TinyConfig(image_size=SIDE, hidden=64))
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(path)
    seeing = Seeing(model.model.visual, AutoProcessor.from_pretrained(path).image_processor, 2)
    images = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    torch.manual_seed(0)
    changed = images.copy()
    changed[:, 16:32, 48:64] = 255  # the token in row 1, column 3
    targets = torch.tensor([[0, 1]])
    with torch.no_grad():
        before, after = seeing(images, targets)[0], seeing(changed, targets)[0]
    moved = (after - before).abs().mean(1)[0].reshape(4, 4, 4, 4).mean((1, 3))
    assert before.shape == (1, 2, 16, 16)
    assert divmod(int(moved.argmax()), 4) == (1, 3)


def test_a_box_is_read_where_the_tokens_are_looked_at():
    """Attention to one token gives its centre, moved by what the token says of the sides."""
    seeing = Seeing(SimpleNamespace(config=SimpleNamespace(out_hidden_size=2)), None, 1)
    with torch.no_grad():
        seeing.queries.copy_(torch.tensor([[1000.0, 0]]))
        seeing.sides.zero_()
        seeing.sides[0, :, 1] = torch.tensor([-0.4, -0.2, 0.4, 0.2])
        tokens = torch.zeros(1, 4, 4, 2)
        tokens[0, 1, 3] = 1  # its centre is (0.875, 0.375)
        (box,) = seeing._boxes(tokens, torch.zeros(1, 1, dtype=torch.long))[0]
    assert box.tolist() == pytest.approx([0.775, 0.325, 0.975, 0.425])


def test_loss_leaves_out_what_is_not_known(scenes):
    batch = scenes.batch(np.arange(8), np.zeros(8, int))
    torch.manual_seed(0)
    logits, boxes = torch.randn(batch.covers.shape), torch.rand(batch.boxes.shape)
    codes = torch.randn(8, TOKENS, 4, CODE)
    loss = seeing_loss(logits, boxes, codes, batch)
    assert torch.isfinite(loss)
    owned = owned_tokens(batch.covers, TOKENS).any(1)
    logits[~batch.known], boxes[~batch.shown], codes[~owned] = 9.0, 0.5, 7.0
    assert torch.equal(seeing_loss(logits, boxes, codes, batch), loss)
    right = torch.where(batch.shown[..., None], batch.boxes, boxes)
    assert seeing_loss(logits, right, codes, batch) < loss - 0.3
    assert seeing_loss(20 * (batch.covers - 0.5), right, codes, batch) < loss - 0.6
    for row, target, token in owned_tokens(batch.covers, TOKENS).nonzero():
        codes[row, token] = place_waves(batch.boxes[row, target] * SIDE, SIDE, CODE)
    told = seeing_loss(20 * (batch.covers - 0.5), right, codes, batch)
    assert told < 0.3 * loss


def test_tokens_speak_of_the_smallest_target_that_covers_a_good_part(scenes):
    batch = scenes.batch(np.arange(32), np.zeros(32, int))
    owned = owned_tokens(batch.covers, TOKENS)
    assert owned.shape == (*batch.known.shape, TOKENS)
    assert torch.equal(owned.any(2), batch.shown)  # none is left without a token
    shares = torch.nn.functional.adaptive_avg_pool2d(batch.covers, round(TOKENS**0.5)).flatten(2)
    assert (shares[owned] > 0).all()
    covers = torch.zeros(1, 3, 8, 8)
    covers[0, 0] = 1  # everywhere
    covers[0, 1, :4, :4] = 1  # the first of four tokens
    covers[0, 2, 0, 0] = 1  # a cell of it, and of nothing more
    own = owned_tokens(covers, 4)[0]
    assert own.tolist() == [
        [False, True, True, True],
        [True, False, False, False],  # lost all it had, so it shares
        [True, False, False, False],
    ]
    assert not owned_tokens(0 * covers, 4).any()


def test_reading_without_what_it_needs_is_refused(tmp_path):
    for chain in (Chain(reading_steps=1, vision_steps=1), Chain(reading_steps=1)):
        with pytest.raises(MedSegError, match="reading_steps needs vision_steps"):
            run_stages(chain, tmp_path / "out", 1, 1, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_coarse_size_that_does_not_fit_is_refused(tmp_path):
    for side in (96, 40, 16, -32):
        chain = Chain(image_size=64, vision_steps=1, coarse_size=side)
        with pytest.raises(MedSegError, match="multiple of 16 from 32 to image_size=64"):
            run_stages(chain, tmp_path / "out", 1, 1, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_small_images_are_learned_from_until_the_rate_falls(scenes, tmp_path, monkeypatch):
    start = build_tiny(tmp_path / "start", ["a"], TinyConfig(image_size=SIDE, hidden=64))
    seen: list[int] = []
    forward = Seeing.forward

    def watched(self, images, targets):
        seen.append(images.shape[1])
        return forward(self, images, targets)

    monkeypatch.setattr(Seeing, "forward", watched)
    count = len(load_cases(SPEC, "train").targets)
    train_tower(start, tmp_path / "out", scenes, scenes, count, 4, 0, SIDE // 2)
    assert seen == [SIDE // 2] * 2 + [SIDE] * 4  # four steps, and 32 images that are watched


def test_a_tower_goes_on_with_its_readings_and_the_next_images(scenes, tmp_path, monkeypatch):
    start = build_tiny(tmp_path / "start", ["a"], TinyConfig(image_size=SIDE, hidden=64))
    shown = scenes, scenes, len(load_cases(SPEC, "train").targets)
    first = tmp_path / "first"
    train_tower(start, first, *shown, 3, 0)
    known = read_torch_file(first / LAST)["weights"]
    asked: list[int] = []
    rates: list[float] = []

    def order(count, batch, step, seed):
        asked.append(step)
        return drawn_order(count, batch, step, seed)

    def rate(step, steps, warmup, falling):
        rates.append(falling)
        return 0.0  # so that the weights stay those of before

    monkeypatch.setattr("benchmarks.learning.vision.tower.drawn_order", order)
    monkeypatch.setattr("benchmarks.learning.vision.steps.steady_then_falling", rate)
    again = tmp_path / "again"
    train_tower(first / "model", again, *shown, 2, 0, before=Before(first / LAST, 3))
    kept = read_torch_file(again / LAST)["weights"]
    assert asked == [3, 4] and rates == [1.0, 1.0]
    assert all(torch.equal(kept[name], value) for name, value in known.items())


def test_it_learns_and_goes_on_to_the_same_weights(scenes, tmp_path):
    texts = ["liver", "segment"]
    start = build_tiny(tmp_path / "start", texts, TinyConfig(image_size=SIDE, hidden=64))
    count = len(load_cases(SPEC, "train").targets)
    arguments = (scenes, scenes, count, 6, 0)
    whole = train_tower(start, tmp_path / "whole", *arguments)
    rows = (tmp_path / "whole" / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"loss", "held_out/loss", "held_out/box_iou", "step"} == set(json.loads(rows[-1]))
    untrained = (start / "model.safetensors").read_bytes()
    trained = (whole / "model.safetensors").read_bytes()
    assert trained != untrained
    # Killed behind the checkpoint of its last step, before the model was written.
    parted = tmp_path / "parted"
    parted.mkdir()
    (parted / LAST).write_bytes((tmp_path / "whole" / LAST).read_bytes())
    again = train_tower(start, parted, *arguments)
    assert (again / "model.safetensors").read_bytes() == trained
    assert train_tower(start, tmp_path / "whole", *arguments) == whole
