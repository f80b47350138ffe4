"""IMISNet gives what its reference gives, row by row, whatever shares the batch."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("timm", reason="IMISNet's image encoder is timm's")

from medseg_gym.backbones.checkpoints import load_weights
from medseg_gym.backbones.families.imisnet.backbone import ImisNetBackbone, build, phrase
from medseg_gym.backbones.families.imisnet.model import ImisNet, ImisNetConfig, adapt_state
from medseg_gym.backbones.protocol import PromptRow
from medseg_gym.errors import BackboneError, CheckpointError
from medseg_gym.prompts import AddBox, AddPoint

ROOT = Path(__file__).parents[2]
MINI = Path(__file__).parent / "fixtures/imisnet_mini.npz"
TINY = ROOT.parent / "shared/fixtures/imisnet_tiny.npz"

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="the text encoder needs transformers, of the extra medseg-gym[imisnet]",
)


def weights_of(fixture):
    return {k[2:]: torch.from_numpy(fixture[k]) for k in fixture.files if k.startswith("w.")}


def config_of(fixture, **changes):
    sizes = json.loads(bytes(fixture["config"]))
    sizes.pop("input_hw", None)
    return ImisNetConfig(**sizes | changes)


def model_of(fixture, text=True):
    model = ImisNet(config_of(fixture) if text else config_of(fixture, text_config=None))
    load_weights(model, adapt_state(weights_of(fixture), text), "fixture")
    return model


def spell(sentences):
    """A tokenizer for models with an end token of 3: one token a letter."""
    return {"input_ids": [[0, *(4 + ord(c) % 36 for c in s[-14:-4]), 3] for s in sentences]}


@pytest.fixture(scope="module")
def mini():
    with np.load(MINI) as fixture:
        yield fixture


@pytest.fixture(scope="module")
def mini_backbone(mini):
    tokens = {
        phrase(k.removeprefix("in.tokens.")): mini[k].tolist()
        for k in mini.files
        if k.startswith("in.tokens.")
    }
    return ImisNetBackbone(
        model_of(mini), tokenizer=lambda texts: {"input_ids": [tokens[text] for text in texts]}
    )


@pytest.fixture(scope="module")
def wordless(mini):
    return ImisNetBackbone(model_of(mini, text=False))


def prompt_row(embedding, points=(), box=None, mask=None, text=None, multimask=False):
    """A row from pixel coordinates as SAM counts them, the half not yet added."""
    height, width = embedding.image_size
    clicks = tuple(AddPoint((x + 0.5) / width, (y + 0.5) / height, bool(on)) for x, y, on in points)
    if box is not None:
        x1, y1, x2, y2 = (
            (v + 0.5) / length for v, length in zip(box, (width, height) * 2, strict=True)
        )
        box = AddBox(x1, y1, x2, y2)
    return PromptRow(embedding, box, clicks, mask, multimask, text)


def mini_rows(mini, embedding):
    rows = {}
    for name, row in json.loads(bytes(mini["rows"])).items():
        mask = row.pop("mask", None)
        if mask is not None:
            mask = torch.from_numpy(mini[f"out.{mask}.logits"])
        rows[name] = prompt_row(embedding, **row, mask=mask)
    return rows


# parity --------------------------------------------------------------------------------------
@needs_transformers
def test_one_batch_gives_what_stock_modules_give_row_by_row(mini, mini_backbone):
    rows = mini_rows(mini, mini_backbone.encode([mini["in.image"]])[0])
    result = mini_backbone.decode(list(rows.values()))
    for name, logits, iou in zip(rows, result.logits, result.iou, strict=True):
        np.testing.assert_allclose(logits, mini[f"out.{name}.logits"], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(iou, mini[f"out.{name}.iou"], atol=1e-4, err_msg=name)


def test_without_text_encoder_the_other_prompts_are_as_before(mini, wordless):
    assert wordless.prompt_kinds == {"box", "point"}
    rows = mini_rows(mini, wordless.encode([mini["in.image"]])[0])
    rows = {name: row for name, row in rows.items() if row.text is None}
    for name, logits in zip(rows, wordless.decode(list(rows.values())).logits, strict=True):
        np.testing.assert_allclose(logits, mini[f"out.{name}.logits"], atol=1e-4, err_msg=name)


@needs_transformers
def test_the_fixture_is_what_its_script_makes(mini):
    path = ROOT / "scripts/fixtures/imisnet.py"
    spec = importlib.util.spec_from_file_location("imisnet_fixture", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.make()
    assert set(made) == set(mini.files)
    for name, array in made.items():
        np.testing.assert_allclose(array, mini[name], atol=1e-4, err_msg=name)


@needs_transformers
@pytest.mark.skipif(not TINY.is_file(), reason=f"the official reference {TINY} is not here")
def test_official_reference():
    with np.load(TINY) as tiny:
        backbone = ImisNetBackbone(
            model_of(tiny), tokenizer=lambda _: {"input_ids": tiny["in.text_token_ids"].tolist()}
        )
        embedding = backbone.encode([tiny["in.image"]])[0]
        np.testing.assert_allclose(embedding.features[0], tiny["out.embedding"][0], atol=1e-4)
        points = [
            (x, y, label)
            for (x, y), label in zip(tiny["in.points_xy"], tiny["in.point_labels"], strict=True)
        ]
        box, before = tiny["in.box_xyxy"], torch.from_numpy(tiny["out.box.low_res_masks"][0, 0])
        rows = {
            "points": prompt_row(embedding, points),
            "box": prompt_row(embedding, box=box),
            "box_points": prompt_row(embedding, points[:1], box=box),  # the file's has one click
            "text": prompt_row(embedding, text="anything"),
            "points_after_box": prompt_row(embedding, points, mask=before),
        }
        result = backbone.decode(list(rows.values()))
        for name, logits, iou in zip(rows, result.logits, result.iou, strict=True):
            mask, score = tiny[f"out.{name}.low_res_masks"], tiny[f"out.{name}.iou_pred"]
            np.testing.assert_allclose(logits, mask[0, 0], atol=1e-4, err_msg=name)
            np.testing.assert_allclose(iou, score[0, 0], atol=1e-4, err_msg=name)


@needs_transformers
@pytest.mark.skipif(not TINY.is_file(), reason=f"the official reference {TINY} is not here")
def test_official_reference_of_all_masks_and_semantics():
    with np.load(TINY) as tiny, torch.inference_mode():
        model = model_of(tiny).eval()
        prompt, decoder = model.prompt_encoder, model.mask_decoder
        height, width = tiny["in.image"].shape[:2]
        scale = 256 / np.array([width, height, width, height])
        box = torch.as_tensor(tiny["in.box_xyxy"] * scale, dtype=torch.float32)[None]
        sparse, dense = prompt(None, box, None)
        out = decoder(
            torch.from_numpy(tiny["out.embedding"]) + dense,
            prompt.get_dense_pe(),
            torch.cat([decoder.output_tokens()[None], sparse], dim=1),
            None,
            None,
            None,
        )
        masks = torch.einsum("bmc,bchw->bmhw", out.kernels, out.upscaled)
        semantic = decoder.semantic_prediction_head(out.semantic_tokens)
        best = int(out.iou[0, 1:].argmax()) + 1
        np.testing.assert_allclose(masks[:, 1:], tiny["out.box.all_masks"], atol=1e-4)
        np.testing.assert_allclose(out.iou[:, 1:], tiny["out.box.all_iou"], atol=1e-4)
        np.testing.assert_allclose(
            semantic[:, best : best + 1], tiny["out.box.semantic_pred"], atol=1e-4
        )


# behaviour -----------------------------------------------------------------------------------
@needs_transformers
def test_a_row_does_not_depend_on_its_batch(mini, mini_backbone):
    other = np.random.default_rng(0).integers(0, 256, (97, 130, 3), dtype=np.uint8)
    embeddings = mini_backbone.encode([mini["in.image"], other])
    rows = [row for e in embeddings for row in mini_rows(mini, e).values()]
    order = np.random.default_rng(1).permutation(len(rows))
    together = mini_backbone.decode([rows[i] for i in order])
    for place, i in enumerate(order):
        alone = mini_backbone.decode([rows[i]])
        torch.testing.assert_close(together.logits[place], alone.logits[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(together.iou[place], alone.iou[0], atol=1e-4, rtol=0)


def test_the_best_of_three_masks_is_taken_whatever_the_row_asks(mini, wordless):
    embedding = wordless.encode([mini["in.image"]])[0]
    one, three = (
        prompt_row(embedding, [(20, 30, 1)], multimask=multimask) for multimask in (False, True)
    )
    result = wordless.decode([one, three])
    assert torch.equal(result.logits[0], result.logits[1])


def test_masks_come_back_through_the_square_input(mini, wordless):
    embedding = wordless.encode([mini["in.image"]])[0]
    logits = wordless.decode([prompt_row(embedding, box=(5, 5, 50, 60))]).logits
    square = F.interpolate(logits[:, None], (128, 128), mode="bilinear", align_corners=False)
    expected = F.interpolate(square, (96, 75), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(wordless.to_image(logits, [embedding])[0], expected)


def test_another_input_size_resamples_the_position_tables(mini, tmp_path):
    file = tmp_path / "small.pth"
    torch.save(weights_of(mini), file)
    backbone = build(file, torch.device("cpu"), config=config_of(mini), image_size=64, text=False)
    embedding = backbone.encode([mini["in.image"]])[0]
    assert embedding.features[0].shape == (32, 4, 4)
    logits = backbone.decode([prompt_row(embedding, [(20, 30, 1)])]).logits
    assert backbone.to_image(logits, [embedding])[0].shape == (96, 75)


@needs_transformers
def test_text_moves_the_mask_and_is_embedded_once(mini):
    calls = []

    def tokenizer(sentences):
        calls.extend(sentences)
        return spell(sentences)

    backbone = ImisNetBackbone(model_of(mini), tokenizer=tokenizer)
    assert backbone.prompt_kinds == {"box", "point", "text"}
    embedding = backbone.encode([mini["in.image"]])[0]
    box = (5, 5, 50, 60)
    names = (None, "spleen", "Left_Kidney", "left kidney")
    silent, spleen, kidney, again = backbone.decode(
        [prompt_row(embedding, box=box, text=name) for name in names]
    ).logits
    assert (silent - spleen).abs().max() > 1e-3
    assert (kidney - spleen).abs().max() > 1e-3
    assert torch.equal(kidney, again)
    assert calls == ["A segmentation area of a spleen.", "A segmentation area of a left kidney."]


@needs_transformers
def test_a_file_of_transformers_4_with_the_tokenizer_beside_it(mini, tmp_path):
    # One prefix more on the text encoder, and position numbers, saved before 4.31.
    state = weights_of(mini)
    for key in [key for key in state if key.startswith("text_model.")]:
        state[f"text_model.{key}"] = state.pop(key)
    state["text_model.text_model.embeddings.position_ids"] = torch.arange(12)[None]
    torch.save(state, tmp_path / "IMISNet-B.pth")
    folder = tmp_path / "clip-vit-base-patch32"
    folder.mkdir()
    letters = [c + end for c in "asegmntiorlv" for end in ("", "</w>")]
    words = ["<|startoftext|>", "!", ".</w>", "<|endoftext|>", *letters]
    words += ["ar", "ea</w>", "ment", "seg"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    backbone = build(tmp_path / "IMISNet-B.pth", torch.device("cpu"), config=config_of(mini))
    assert backbone.tokenizer(["a"])["input_ids"] == [[0, words.index("a</w>"), 3]]
    embedding = backbone.encode([mini["in.image"]])[0]
    row = mini_rows(mini, embedding)["box_clicks"]
    np.testing.assert_allclose(
        backbone.decode([row]).logits[0], mini["out.box_clicks.logits"], atol=1e-4
    )
    with pytest.raises(BackboneError, match="use a shorter name"):
        backbone.embed_texts(["a very long name of an organ"])


def test_random_weights_need_neither_file_nor_transformers(mini, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    backbone = build(
        None, torch.device("cpu"), random_weights=True, config=config_of(mini), image_size=64
    )
    assert backbone.prompt_kinds == {"box", "point"}
    assert backbone.encode([mini["in.image"]])[0].features[0].shape == (32, 4, 4)


# errors --------------------------------------------------------------------------------------
@needs_transformers
def test_text_without_a_tokenizer_says_what_to_download(mini):
    backbone = ImisNetBackbone(model_of(mini))
    embedding = backbone.encode([mini["in.image"]])[0]
    with pytest.raises(BackboneError, match=r"vocab\.json and merges\.txt.*tokenizer_path"):
        backbone.decode([prompt_row(embedding, text="liver")])


@needs_transformers
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0] * 12 + [3], "13 tokens"),
        ([0, 41, 3], "does not fit"),
        ([0, 5, 6], "end token 3"),
        ([], "0 tokens"),
    ],
)
def test_a_tokenizer_that_does_not_fit(mini, ids, message):
    backbone = ImisNetBackbone(model_of(mini), tokenizer=lambda _: {"input_ids": [ids]})
    with pytest.raises(BackboneError, match=message):
        backbone.embed_texts(["liver"])


def test_text_where_there_is_no_text_encoder(mini, wordless):
    embedding = wordless.encode([mini["in.image"]])[0]
    with pytest.raises(BackboneError, match="text=True"):
        wordless.decode([prompt_row(embedding, text="liver")])


def test_a_row_without_any_prompt(mini, wordless):
    embedding = wordless.encode([mini["in.image"]])[0]
    with pytest.raises(BackboneError, match="row 1 has no box"):
        wordless.decode([prompt_row(embedding, [(1, 1, 1)]), prompt_row(embedding)])


def test_missing_tokenizer_files(tmp_path):
    from medseg_gym.backbones.families.imisnet.backbone import read_tokenizer

    with pytest.raises(BackboneError, match=r"vocab\.json and merges\.txt"):
        read_tokenizer(tmp_path)


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"medseg-gym\[imisnet\].*text=False"):
        with torch.device("meta"):
            ImisNet()


def test_impossible_image_size():
    with pytest.raises(BackboneError, match="image_size=500"):
        ImisNetConfig(image_size=500)


def test_foreign_and_truncated_checkpoints(mini, tmp_path):
    state = {k: v for k, v in weights_of(mini).items() if not k.startswith("prompt_encoder")}
    foreign, truncated = tmp_path / "foreign.pth", tmp_path / "truncated.pth"
    torch.save(state, foreign)
    truncated.write_bytes(foreign.read_bytes()[:5000])
    small = {"config": config_of(mini), "text": False}
    with pytest.raises(CheckpointError, match="17 missing"):
        build(foreign, torch.device("cpu"), **small)
    with pytest.raises(CheckpointError, match="truncated"):
        build(truncated, torch.device("cpu"), **small)
    with pytest.raises(CheckpointError, match=r"IMISNet-B\.pth"):
        build(None, torch.device("cpu"), **small)


# the official layout -------------------------------------------------------------------------
@needs_transformers
def test_the_base_model_has_the_official_layout(mini):
    with torch.device("meta"):
        model = ImisNet()
    state = model.state_dict()
    assert sum(p.numel() for p in model.parameters()) == 182_516_560
    shapes = {
        "image_encoder.sam_encoder.pos_embed": (1, 64, 64, 768),
        "image_encoder.sam_encoder.blocks.11.attn.rel_pos_h": (127, 64),
        "image_encoder.sam_encoder.blocks.10.attn.rel_pos_h": (27, 64),
        "image_encoder.sam_encoder.neck.0.weight": (256, 768, 1, 1),
        "image_encoder.neck.2.weight": (768, 768, 3, 3),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 384),
        "mask_decoder.transformer.layers.1.mlp.lin1.weight": (2048, 768),
        "mask_decoder.semantic_tokens.weight": (4, 768),
        "mask_decoder.text_output.weight": (96, 768),
        "mask_decoder.iou_prediction_head.layers.0.weight": (256, 768),
        "mask_decoder.semantic_prediction_head.layers.2.weight": (512, 256),
        "text_model.embeddings.token_embedding.weight": (49408, 512),
        "text_model.encoder.layers.11.mlp.fc1.weight": (2048, 512),
        "text_out_dim.weight": (768, 512),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    # A deeper model repeats the blocks of a shallow one and adds no other kind of entry.
    kinds = {".".join("#" if p.isdigit() else p for p in key.split(".")) for key in state}
    expected = {".".join("#" if p.isdigit() else p for p in k.split(".")) for k in weights_of(mini)}
    assert kinds == expected
