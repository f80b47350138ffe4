"""`pocket`: weights that come with the package, that look at the image and answer clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg_gym.annotators import next_click, tight_box
from medseg_gym.backbones import Embedding, PromptRow, load
from medseg_gym.backbones.batching import fused
from medseg_gym.backbones.batching.collate import INERT, collate
from medseg_gym.backbones.checkpoints import read_state_dict
from medseg_gym.backbones.families.pocket import WEIGHTS, PocketBackbone, build_model
from medseg_gym.backbones.families.pocket.decoder import PocketPromptEncoder, decode
from medseg_gym.backbones.families.pocket.encoder import SIDE
from medseg_gym.backbones.families.sam.prompts import gather_masks
from medseg_gym.cases import load_cases
from medseg_gym.prompts import AddBox, AddPoint


@pytest.fixture(scope="module")
def backbone():
    return load("pocket", device="cpu")


@pytest.fixture(scope="module")
def cases():
    """Twelve phantoms of the val split, two of each modality, and the first real test case."""
    source = load_cases("phantoms", "val")
    result = [source[4 * page] for page in range(12)]
    assert len({case.modality for case in result}) == 6
    return [*result, load_cases("samples", "test")[0]]


@pytest.fixture(scope="module")
def embeddings(backbone, cases):
    return backbone.encode([case.image for case in cases])


def masks_of(backbone, rows):
    logits, _ = backbone.decode(rows)
    images = backbone.to_image(logits, [row.embedding for row in rows])
    return [image.numpy() > 0 for image in images], logits


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_the_package_carries_its_weights_and_their_card(backbone):
    assert WEIGHTS.stat().st_size <= 12e6
    card = (WEIGHTS.parent / "README.md").read_text()
    for word in ("Not for clinical use", "phantoms", "LiteMedSAM", "license", "Limits"):
        assert word.lower() in card.lower()
    parameters = sum(value.numel() for value in backbone.model.parameters())
    assert 1e6 <= parameters <= 5e6
    assert set(read_state_dict(WEIGHTS)) == set(build_model().state_dict())


def test_it_is_the_default():
    from medseg_gym.envs.options import EnvOptions

    assert EnvOptions().backbone == "pocket"


def test_it_says_what_it_was_trained_for(backbone):
    assert backbone.trained_kinds == backbone.prompt_kinds == {"box", "point"}
    assert backbone.takes_mask_input and isinstance(backbone, PocketBackbone)


def test_a_box_means_the_thing_in_this_image(backbone, cases, embeddings):
    """Own image against the next one's, under the very same tight boxes."""
    phantoms = cases[:12]
    boxes = [tight_box(case.mask) for case in phantoms]

    def mean_dice(shown):
        rows = [PromptRow(e, box) for e, box in zip(shown, boxes, strict=True)]
        masks, _ = masks_of(backbone, rows)
        return np.mean([dice(m, c.mask) for m, c in zip(masks, phantoms, strict=True)])

    own = mean_dice(embeddings[:12])
    other = mean_dice([*embeddings[1:12], embeddings[0]])
    assert own > 0.7 and own > other + 0.1


def test_clicks_make_it_better(backbone, cases, embeddings):
    history = []
    clicks: list[tuple[AddPoint, ...]] = [()] * len(cases)
    masks = [np.zeros_like(case.mask) for case in cases]
    fed: list[torch.Tensor | None] = [None] * len(cases)
    for turn in range(5):
        clicks = [
            (*made, next_click(mask, case.mask) or made[-1])
            for made, mask, case in zip(clicks, masks, cases, strict=True)
        ]
        rows = [
            PromptRow(e, None, made, logits, multimask=turn == 0)
            for e, made, logits in zip(embeddings, clicks, fed, strict=True)
        ]
        masks, logits = masks_of(backbone, rows)
        fed = list(logits)
        history.append(np.mean([dice(m, c.mask) for m, c in zip(masks, cases, strict=True)]))
    assert history[4] > history[0] + 0.05 and history[4] > 0.7


def test_training_and_use_are_one_path(backbone, embeddings):
    """The training loop's four masks hold the one that the backbone computes."""
    first = backbone.decode([PromptRow(embeddings[0], AddBox(0.2, 0.2, 0.7, 0.8))])
    rows = [
        PromptRow(embeddings[0], None, (AddPoint(0.4, 0.5),), multimask=True),
        PromptRow(embeddings[1], AddBox(0.2, 0.2, 0.7, 0.8), (AddPoint(0.4, 0.5, False),),
                  first.logits[0]),
    ]  # fmt: skip
    result = backbone.decode(rows)
    with torch.no_grad():
        features = [
            torch.stack(part) for part in zip(*(r.embedding.features for r in rows), strict=True)
        ]
        batch = collate(rows, torch.device("cpu"))
        raw = decode(backbone.model, features, batch, *gather_masks(rows))
        four = backbone.model.mask_decoder.masks(raw.hyper, raw.upscaled)
    assert four.shape == (2, 4, 128, 128)
    best = int(raw.scores[0, 1:].argmax()) + 1
    for row, mask in ((0, best), (1, 0)):
        assert torch.allclose(result.logits[row], four[row, mask], atol=1e-5)
        assert torch.allclose(result.iou[row], raw.scores[row, mask], atol=1e-6)


def test_prompt_maps_lie_where_the_prompts_are():
    embedding = type("E", (), {"image_size": (256, 256), "input_size": (256, 256)})()
    rows = [
        PromptRow(embedding, AddBox(0.25, 0.5, 0.75, 1.0), (AddPoint(0.5, 0.75, True),)),
        PromptRow(embedding, None, (AddPoint(0.125, 0.25, False), AddPoint(0.5, 0.5, True))),
    ]
    batch = collate(rows, torch.device("cpu"))
    assert (batch.labels == INERT).sum() == 0
    maps = PocketPromptEncoder.maps(batch, 32)
    assert maps.shape == (2, 11, 32, 32) and maps[:, 10].max() == 0 and maps.isfinite().all()
    narrow, negative, inside, along, boxed = (maps[:, i] for i in (0, 2, 4, 5, 7))
    assert divmod(int(narrow[0].argmax()), 32) in {(23, 15), (23, 16), (24, 15), (24, 16)}
    assert divmod(int(negative[1].argmax()), 32) in {(7, 3), (7, 4), (8, 3), (8, 4)}
    assert negative[0].max() == 0 and boxed.amax((1, 2)).tolist() == [1, 0]
    assert inside[0, 24, 16] > 0.9 and inside[0, 4, 4] < 0.01 and inside[1].max() == 0
    assert along[0, 0, 9] < 0 < along[0, 0, 22]


@pytest.mark.parametrize("shape", [(64, 256), (300, 100)])
def test_padding_is_black_and_outside_the_mask(backbone, shape):
    image = np.full((*shape, 3), 40, np.uint8)
    image[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 200
    (embedding,) = backbone.encode([image])
    height, width = embedding.input_size
    assert max(height, width) == SIDE
    pixels = torch.nn.functional.pad(backbone._input(image), (0, SIDE - width, 0, SIDE - height))
    assert (pixels[:, height:].abs().sum() + pixels[:, :, width:].abs().sum()) == 0
    (mask,), _ = masks_of(backbone, [PromptRow(embedding, AddBox(0.25, 0.25, 0.5, 0.5))])
    truth = image[:, :, 0] > 100
    assert mask.shape == shape and dice(mask, truth) > 0.6


@pytest.mark.filterwarnings("ignore:pocket.dtype=bfloat16:UserWarning")  # slow on some CPUs
def test_bfloat16_changes_little(backbone, cases, embeddings):
    """Dice as in float32, and no pixel changes sides whose logit is not near 0."""
    half = load("pocket", device="cpu", dtype="bfloat16")
    encoded = half.encode([case.image for case in cases])
    boxes = [tight_box(case.mask) for case in cases]
    click = (AddPoint(0.5, 0.5, False),)
    fed = backbone.decode([PromptRow(e, b) for e, b in zip(embeddings, boxes, strict=True)]).logits
    for points, memory in (((), [None] * len(cases)), (click, list(fed))):
        scores = []
        for segmenter, those in ((half, encoded), (backbone, embeddings)):
            rows = [
                PromptRow(e, b, points, m) for e, b, m in zip(those, boxes, memory, strict=True)
            ]
            masks, logits = masks_of(segmenter, rows)
            assert logits.dtype == torch.float32
            scores.append((np.mean([dice(m, c.mask) for m, c in zip(masks, cases, strict=True)]),
                           logits))  # fmt: skip
        (mine, moved), (exact, logits) = scores
        assert abs(mine - exact) < 2e-3 and (moved - logits).abs().max() < 0.5
        assert not ((moved > 0) != (logits > 0))[logits.abs() > 0.1].any()


def test_bfloat16_is_said_to_be_slow_where_it_is(monkeypatch):
    name = "medseg_gym.backbones.families.pocket.backbone.multiplies_bfloat16"
    monkeypatch.setattr(name, lambda: False)
    with pytest.warns(UserWarning, match="float32 is faster here"):
        PocketBackbone(build_model(), dtype="bfloat16")


def test_stored_embeddings_and_stacked_ones_are_the_same(backbone, embeddings):
    """Embeddings lie pixel by pixel in memory; from a file they come plane by plane."""
    stored = [
        Embedding(tuple(f.contiguous() for f in e.features), e.image_size, e.input_size)
        for e in embeddings[:3]
    ]
    box = AddBox(0.2, 0.3, 0.7, 0.8)
    one, other = (
        backbone.decode([PromptRow(e, box) for e in some]).logits
        for some in (embeddings[:3], stored)
    )
    assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_layers_do_what_ordinary_ones_do(dtype, monkeypatch):
    conv, flat = torch.nn.Conv2d(24, 40, 3, padding=2, dilation=2), torch.nn.Conv2d(24, 40, 1)
    conv, flat = conv.to(dtype), flat.to(dtype)
    x, to = torch.randn(2, 9, 7, 24).to(dtype), torch.randn(2, 9, 7, 40).to(dtype)
    planes, beside = x.permute(0, 3, 1, 2), to.permute(0, 3, 1, 2)

    def layers():
        yield fused.conv_gelu(conv, planes)
        yield fused.linear_add_(flat, x, to.clone())
        yield fused.conv_add_(conv, planes, beside.clone())
        yield fused.conv_add_(conv, planes.contiguous(), beside.contiguous())

    with torch.inference_mode():
        quick = list(layers())
        monkeypatch.setattr(fused, "has_fused", lambda dtype: False)
        plain = list(layers())
    close = 1e-5 if dtype == torch.float32 else 5e-2
    for one, other in zip(quick, plain, strict=True):
        assert one.dtype == dtype and torch.allclose(one, other, atol=close)


def test_without_fused_layers_logits_are_the_same(backbone, embeddings, monkeypatch):
    rows = [PromptRow(embeddings[0], AddBox(0.2, 0.2, 0.7, 0.8))]
    quick = backbone.decode(rows).logits
    monkeypatch.setattr(fused, "has_fused", lambda dtype: False)
    assert torch.allclose(backbone.decode(rows).logits, quick, atol=1e-4)


def test_what_is_kept_of_the_weights_is_made_anew_when_they_change(backbone, embeddings):
    model = build_model()
    model.load_state_dict(read_state_dict(WEIGHTS))
    other = PocketBackbone(model)
    rows = [PromptRow(embeddings[0], AddBox(0.2, 0.2, 0.7, 0.8))]
    assert torch.equal(other.decode(rows).logits, backbone.decode(rows).logits)
    changed = {name: value * 0.9 for name, value in read_state_dict(WEIGHTS).items()}
    model.load_state_dict(changed)
    fresh = build_model()
    fresh.load_state_dict(changed)
    assert torch.equal(other.decode(rows).logits, PocketBackbone(fresh).decode(rows).logits)
