"""SAM 3's detector behind `hf:`: parity with transformers' own forward, words, refusals."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

pytest.importorskip("transformers")

from medseg_gym import backbones
from medseg_gym.backbones import PromptRow
from medseg_gym.backbones.registry import check_name
from medseg_gym.cases import load_cases
from medseg_gym.cli.main import app
from medseg_gym.errors import BackboneError, CheckpointError, MedSegError
from medseg_gym.prompts import AddBox, AddPoint
from tests.backbones.hf_models import save_tiny

SIZES = ((90, 128), (128, 60), (200, 200))
BOXES = (AddBox(0.2, 0.3, 0.7, 0.8), AddBox(0.5, 0.1, 0.9, 0.4))


@pytest.fixture(scope="module", params=["sam3", "sam3_video"])
def spec(request, tmp_path_factory):
    folder = save_tiny(request.param, tmp_path_factory.mktemp("hf") / request.param)
    return f"hf:{folder}" + ("?words=1" if request.param == "sam3_video" else "")


@pytest.fixture(scope="module")
def backbone(spec):
    return backbones.load(spec, device="cpu")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def mixed_rows(backbone, images):
    """Words, boxes and both, on three images at once."""
    rows = []
    for embedding in backbone.encode(images):
        rows += [
            PromptRow(embedding, text="liver"),
            PromptRow(embedding, BOXES[0]),
            PromptRow(embedding, BOXES[1], text="left kidney in abdominal CT"),
        ]
    order = np.random.default_rng(1).permutation(len(rows))
    return [rows[n] for n in order]


def theirs(backbone, folder, images, row):
    """The same prompt through transformers' processor and forward, as its pages show it."""
    import transformers

    images_of, words = backbone._images, backbone._tokenizer
    processor = transformers.Sam3Processor(images_of, words)
    (image,) = (i for i in images if i.shape[:2] == row.embedding.image_size)
    height, width = image.shape[:2]
    given = {} if row.text is None else {"text": row.text}
    if row.box is not None:
        box = row.box
        corners = [box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height]
        given |= {"input_boxes": [[corners]], "input_boxes_labels": [[1]]}
    inputs = processor(images=image, return_tensors="pt", **given)
    inputs.pop("original_sizes")
    with torch.no_grad():
        made = backbone.model(**inputs)
    (kept,) = processor.post_process_instance_segmentation(made)
    scores = made.pred_logits.sigmoid() * made.presence_logits.sigmoid()
    return made.pred_masks[0], scores[0], kept["masks"]


def test_it_gives_what_transformers_gives(backbone, spec, images):
    rows = mixed_rows(backbone, images)
    prediction = backbone.decode(rows)
    shown = backbone.to_image(prediction.logits, [row.embedding for row in rows])
    assert [one.shape for one in shown] == [row.embedding.image_size for row in rows]
    filled = 0
    for number, row in enumerate(rows):
        masks, scores, kept = theirs(backbone, spec, images, row)
        assert abs(float(prediction.iou[number] - scores.max())) < 1e-4
        logits = prediction.logits[number]
        if not len(kept):
            assert (logits == -32).all()
            continue
        filled += 1
        wanted = masks[scores > 0.3].amax(0)
        assert (logits - wanted).abs().max() < 1e-4 * max(1, float(wanted.std()))
        np.testing.assert_array_equal(logits > 0, kept.bool().any(0))
    assert filled >= 3  # else the comparison says nothing


def test_rows_do_not_depend_on_their_neighbours(backbone, images):
    rows = mixed_rows(backbone, images)
    together = backbone.decode(rows)
    for number, row in enumerate(rows):
        alone = backbone.decode([row])
        torch.testing.assert_close(alone.logits[0], together.logits[number], atol=1e-5, rtol=1e-5)


def test_words_and_boxes_matter(backbone, images):
    (embedding,) = backbone.encode(images[:1])
    rows = [
        PromptRow(embedding, text="liver"),
        PromptRow(embedding, text="spleen"),
        PromptRow(embedding, BOXES[0], text="spleen"),
        PromptRow(embedding, BOXES[1], text="spleen"),
    ]
    scores = backbone.decode(rows).iou
    assert len({round(float(one), 6) for one in scores}) == 4


def test_it_plays_boxes_with_words_and_is_checked_by_name(spec):
    case = replace(load_cases("samples", "test")[0], target="liver")
    options = {"cases": [case], "backbone": spec, "device": "cpu"}
    with pytest.raises(MedSegError, match="point"):
        gym.make("MedSeg-v0", **options)
    for words in (False, True):
        with gym.make("MedSeg-v0", **options, tools=["box", "stop"], text_prompt=words) as env:
            env.reset(seed=0)
            _, reward, _, _, info = env.step(np.array([0, 200, 200, 700, 700]))
            assert info["valid"] and np.isfinite(reward)
    result = CliRunner().invoke(app, ["backbones", "check", spec])
    assert result.exit_code == 0 and "Dice, tight box" in result.output
    assert "one click" not in result.output


@pytest.mark.parametrize(
    "row, told",
    [
        ({"points": (AddPoint(0.5, 0.5),)}, "row 0 has clicks; it takes boxes and words"),
        ({}, "row 0 has neither a box nor words"),
        ({"text": "a tumour " * 9}, "SAM 3 reads 32; give the target a shorter name"),
    ],
)
def test_rows_that_it_cannot_read_are_refused(backbone, images, row, told):
    (embedding,) = backbone.encode(images[:1])
    with pytest.raises(BackboneError, match=told):
        backbone.decode([PromptRow(embedding, **row)])


def test_a_checkpoint_of_both_gives_its_tracker_without_words(tmp_path):
    folder = save_tiny("sam3_video", tmp_path / "both")
    tracker = backbones.load(f"hf:{folder}", device="cpu")
    assert tracker.prompt_kinds == {"box", "point"}
    check_name(f"hf:{folder}?words=1")
    other = save_tiny("sam2", tmp_path / "sam2")
    for ask in (check_name, backbones.load):
        with pytest.raises(BackboneError, match="type 'sam2', which reads no words"):
            ask(f"hf:{other}?words=1")


def test_missing_weights_are_never_made_up(tmp_path):
    folder = save_tiny("sam3", tmp_path / "sam3")
    state = load_file(folder / "model.safetensors")
    del state[sorted(state)[0]]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 of the weights of a Sam3Model"):
        backbones.load(f"hf:{folder}", device="cpu")
