"""`hf:FOLDER`: parity with transformers' own forward, for every family; what is refused."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers")
pytest.importorskip("timm")

from medseg_gym import backbones
from medseg_gym.backbones import PromptRow
from medseg_gym.backbones.families.hf.families import FAMILIES
from medseg_gym.backbones.registry import check_name
from medseg_gym.cli.main import app
from medseg_gym.errors import BackboneError, CheckpointError
from medseg_gym.prompts import AddBox, AddPoint
from tests.backbones.hf_models import save_tiny

SIZES = ((90, 128), (128, 60), (200, 200))
BOX = AddBox(0.2, 0.3, 0.7, 0.8)
CLICKS = (AddPoint(0.4, 0.5), AddPoint(0.8, 0.2, positive=False), AddPoint(0.1, 0.9))


CLICKED = [kind for kind, family in FAMILIES.items() if not family.words]


@pytest.fixture(scope="module", params=CLICKED)
def folder(request, tmp_path_factory):
    return save_tiny(request.param, tmp_path_factory.mktemp("hf") / request.param)


@pytest.fixture(scope="module")
def backbone(folder):
    return backbones.load(f"hf:{folder}", device="cpu")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def mixed_rows(backbone, images):
    """Boxes, clicks, both, with and without a mask, on three images at once."""
    embeddings = backbone.encode(images)
    rows = []
    for number, embedding in enumerate(embeddings):
        rows += [
            PromptRow(embedding, BOX, ()),
            PromptRow(embedding, None, CLICKS[:1], multimask=True),
            PromptRow(embedding, None, CLICKS[: 2 + number % 2]),
            PromptRow(embedding, BOX, CLICKS[:1]),
        ]
    fed = backbone.decode(rows[:1]).logits[0]
    rows += [PromptRow(e, None, CLICKS[:2], mask_input=fed) for e in embeddings]
    order = np.random.default_rng(1).permutation(len(rows))
    return [rows[n] for n in order]


def theirs(backbone, folder, images, row):
    """The same prompt through transformers' processor and forward, as its pages show it."""
    import transformers

    processor = transformers.AutoProcessor.from_pretrained(folder)
    if isinstance(processor, transformers.Sam3VideoProcessor):  # of videos and words
        processor = transformers.Sam3TrackerProcessor(processor.image_processor)
    (image,) = (i for i in images if i.shape[:2] == row.embedding.image_size)
    height, width = image.shape[:2]
    given = {}
    if row.points:
        places = [[p.x * width - 0.5, p.y * height - 0.5] for p in row.points]
        given["input_points"] = [[places]]
        given["input_labels"] = [[[int(p.positive) for p in row.points]]]
    if row.box is not None:
        corners = (row.box.x1 * width, row.box.y1 * height, row.box.x2 * width, row.box.y2 * height)
        given["input_boxes"] = [[[corner - 0.5 for corner in corners]]]
    inputs = processor(images=image, return_tensors="pt", **given)
    sizes = {n: inputs.pop(n) for n in ("original_sizes", "reshaped_input_sizes") if n in inputs}
    if row.mask_input is not None:
        inputs["input_masks"] = row.mask_input[None, None]
    with torch.no_grad():
        made = backbone.model(**inputs, multimask_output=row.multimask)
    best = made.iou_scores[0, 0].argmax()
    logits = made.pred_masks[0, 0, best]
    (whole,) = processor.post_process_masks(logits[None, None, None], **sizes, binarize=False)
    return logits, made.iou_scores[0, 0, best], whole.reshape(height, width)


def test_it_gives_what_transformers_gives(backbone, folder, images):
    rows = mixed_rows(backbone, images)
    prediction = backbone.decode(rows)
    shown = backbone.to_image(prediction.logits, [row.embedding for row in rows])
    spread = prediction.logits.std()
    for number, row in enumerate(rows):
        logits, iou, whole = theirs(backbone, folder, images, row)
        assert (prediction.logits[number] - logits).abs().max() < 1e-4 * max(1, float(spread))
        assert abs(float(prediction.iou[number] - iou)) < 1e-4
        assert (shown[number] - whole).abs().max() < 1e-4 * max(1, float(spread))


def test_prompts_matter(backbone, images):
    (embedding,) = backbone.encode(images[:1])
    rows = [
        PromptRow(embedding, BOX, ()),
        PromptRow(embedding, AddBox(0.5, 0.5, 0.9, 0.9), ()),
        PromptRow(embedding, None, CLICKS[:1]),
        PromptRow(embedding, None, CLICKS[1:2]),
    ]
    logits = backbone.decode(rows).logits
    for one in range(4):
        for other in range(one):
            assert (logits[one] - logits[other]).abs().max() > 1e-2 * logits.std()


def test_a_step_costs_one_call_per_combination(backbone, images, monkeypatch):
    embeddings = backbone.encode(images)
    calls = []
    run = type(backbone)._run
    monkeypatch.setattr(
        type(backbone), "_run", lambda self, rows: calls.append(len(rows)) or run(self, rows)
    )
    rows = [PromptRow(e, BOX, ()) for e in embeddings] * 2
    rows += [PromptRow(embeddings[0], BOX, CLICKS[:1])]
    backbone.decode(rows)
    assert sorted(calls) == [1, 6]


def test_it_plays_and_is_checked_by_name(folder):
    with gym.make("MedSeg-v0", cases="samples", backbone=f"hf:{folder}", device="cpu") as env:
        env.reset(seed=0)
        for action in ([0, 200, 200, 700, 700], [1, 500, 500, 0, 0], [2, 300, 300, 0, 0]):
            _, reward, _, _, info = env.step(np.array(action))
            assert info["valid"] and np.isfinite(reward)
    result = CliRunner().invoke(app, ["backbones", "check", f"hf:{folder}"])
    assert result.exit_code == 0 and "Dice, one click" in result.output


def test_in_bfloat16_embeddings_take_half_the_room(folder, images):
    half = backbones.load(f"hf:{folder}?dtype=bfloat16", device="cpu")
    (embedding,) = half.encode(images[:1])
    assert {level.dtype for level in embedding.features} == {torch.bfloat16}
    prediction = half.decode([PromptRow(embedding, BOX, ())])
    assert prediction.logits.dtype is torch.float32 and prediction.logits.isfinite().all()


# what is refused ----------------------------------------------------------------------------------
@pytest.fixture
def config(tmp_path):
    def write(content: str):
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        return tmp_path

    return write


def test_another_kind_of_model_is_named(config):
    path = config(json.dumps({"model_type": "bert"}))
    for ask in (check_name, backbones.load):
        with pytest.raises(BackboneError, match=r"type 'bert'.*sam_hq"):
            ask(f"hf:{path}")


def test_what_is_not_here_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for ask in (check_name, backbones.load):
        with pytest.raises(CheckpointError, match=r"hf download nobody/sam.*gated"):
            ask("hf:nobody/sam-of-nobody")
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            ask(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hf", "write hf:FOLDER"),
        ("hf:", "write hf:FOLDER"),
        ("hf:{}?dtyp=float32", "dtyp"),
        ("hf:{}?dtype=float8", "dtype must be"),
    ],
)
def test_wrong_specs(text, problem, tmp_path):
    folder = save_tiny("sam", tmp_path / "sam") if "{}" in text else ""
    with pytest.raises(BackboneError, match=problem):
        backbones.load(text.format(folder), device="cpu")


def test_damaged_checkpoints(tmp_path):
    folder = save_tiny("sam", tmp_path / "sam")
    with pytest.raises(BackboneError, match="leave checkpoint= out"):
        backbones.load(f"hf:{folder}", checkpoint="x.pt")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        backbones.load(f"hf:{folder}", device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        backbones.load(f"hf:{folder}", device="cpu")
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError):
        backbones.load(f"hf:{folder}", device="cpu")


def test_a_folder_without_a_processor(tmp_path):
    folder = save_tiny("sam", tmp_path / "sam")
    for file in folder.iterdir():
        if "processor" in file.name or "preprocessor" in file.name:
            file.unlink()
    with pytest.raises(CheckpointError, match="save_pretrained of model and processor"):
        backbones.load(f"hf:{folder}", device="cpu")
