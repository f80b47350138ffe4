"""Sam2Backbone against sam2's own SAM2ImagePredictor, with random weights at reduced size."""

import copy
import sys
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("sam2")

from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
from sam2.sam2_image_predictor import SAM2ImagePredictor

from medseg_gym.backbones import BackboneError, CheckpointError, PromptRow, available, load
from medseg_gym.backbones.families.sam2.backbone import (
    Sam2Backbone,
    build,
    build_medsam2,
    build_model,
)
from medseg_gym.backbones.families.sam2.upscaling import to_grid
from medseg_gym.prompts import AddBox, AddPoint

CPU = torch.device("cpu")
CONFIGS = {"sam2.1_hiera_t": 128, "sam2_hiera_t": 64}
TOLERANCE = 1e-4

BOX = AddBox(0.12, 0.2, 0.61, 0.74)
CLICKS = (AddPoint(0.3, 0.4, True), AddPoint(0.8, 0.22, False), AddPoint(0.515, 0.6, True))
PROMPTS = {
    "box": (BOX, ()),
    "click": (None, CLICKS[:1]),
    "several clicks": (None, CLICKS),
    "box and clicks": (BOX, CLICKS[:2]),
}


def lively(model):
    """Scale the last layer, so that random weights draw masks of both signs, std near 5."""
    with torch.no_grad():
        for mlp in model.sam_mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(60)
        for embedding in model.sam_prompt_encoder.point_embeddings:
            embedding.weight.mul_(3)
    return model


def random_image(height, width, seed=0, grey=False):
    """Blobs and noise, (height, width, 3) uint8."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    image = generator.normal(110, 12, (height, width, 3))
    for _ in range(4):
        cx, cy, radius = generator.uniform(0.2, 0.8, 3)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < (radius / 3) ** 2
        image[inside] += generator.uniform(-80, 80, 3)
    image = image.clip(0, 255).astype(np.uint8)
    return np.repeat(image[:, :, :1], 3, axis=2) if grey else image


@pytest.fixture(scope="module", params=CONFIGS)
def backbone(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Sam2Backbone(lively(build_model(request.param, CONFIGS[request.param])))


@pytest.fixture
def dynamic(backbone, monkeypatch):
    """Set the width of the band around zero that makes a single mask unstable."""

    def set_delta(delta):
        decoder = backbone.model.sam_mask_decoder
        monkeypatch.setattr(decoder, "dynamic_multimask_stability_delta", delta)

    return set_delta


def predictor(model, image):
    with warnings.catch_warnings():
        # sam2 scripts its transforms, which torch calls deprecated.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        reference = SAM2ImagePredictor(model)
    side = model.image_size  # written out for 1024 there
    reference._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    reference.set_image(image)
    return reference


def ask(reference, image, row):
    """The predictor's mask logits, predicted IoU and low-resolution logits for a row."""
    size = np.array(image.shape[1::-1])
    prompts = {}
    if row.box is not None:
        corners = np.array([[row.box.x1, row.box.y1], [row.box.x2, row.box.y2]])
        prompts["box"] = (corners * size - 0.5).ravel()
    if row.points:
        prompts["point_coords"] = np.array([[p.x, p.y] for p in row.points]) * size - 0.5
        prompts["point_labels"] = np.array([int(p.positive) for p in row.points])
    if row.mask_input is not None:
        prompts["mask_input"] = row.mask_input.numpy()[None]
    masks, iou, low = reference.predict(
        **prompts, multimask_output=row.multimask, return_logits=True
    )
    best = iou.argmax()
    return masks[best], iou[best], low[best]


def assert_like_predictor(backbone, reference, image, row):
    prediction = backbone.decode([row])
    logits = backbone.to_image(prediction.logits, [row.embedding])[0].numpy()
    mask, iou, low = ask(reference, image, row)
    assert logits.shape == image.shape[:2]
    assert 0.02 < (mask > 0).mean() < 0.98, "degenerate random weights: nothing is compared"
    np.testing.assert_allclose(logits, mask, rtol=0, atol=TOLERANCE)
    clear = abs(mask) > TOLERANCE
    np.testing.assert_array_equal(logits[clear] > 0, mask[clear] > 0)
    assert abs(prediction.iou.item() - iou) < TOLERANCE
    np.testing.assert_allclose(prediction.logits[0].clamp(-32, 32), low, rtol=0, atol=TOLERANCE)
    return low


@pytest.mark.parametrize(
    ("height", "width", "grey"),
    [(93, 141, False), (93, 141, True), (128, 128, False), (301, 47, False)],
)
def test_gives_what_the_predictor_gives(backbone, height, width, grey):
    image = random_image(height, width, grey=grey)
    reference = predictor(backbone.model, image)
    [embedding] = backbone.encode([image])
    drawn = []
    for box, points in PROMPTS.values():
        for multimask in (True, False):
            row = PromptRow(embedding, box, points, multimask=multimask)
            low = assert_like_predictor(backbone, reference, image, row)
            again = PromptRow(embedding, box, points, torch.from_numpy(low), multimask)
            with_mask = assert_like_predictor(backbone, reference, image, again)
            drawn += [low, with_mask]
            assert abs(with_mask - low).mean() > 1e-2, "mask inputs make no difference"
    masks = np.array(drawn) > 0
    assert len({mask.tobytes() for mask in masks}) > len(masks) // 2


def test_encodes_what_the_predictor_encodes(backbone):
    images = [random_image(90, 133, 1), random_image(128, 128, 2), random_image(400, 300, 3)]
    alone = backbone.encode(images)
    batched = Sam2Backbone(backbone.model, encode_batch=3).encode(images)
    side = backbone.image_side
    for image, embedding, twin in zip(images, alone, batched, strict=True):
        reference = predictor(backbone.model, image)._features
        expected = [*reference["high_res_feats"], reference["image_embed"]]
        grid = (side // 16, side // 16)
        for doublings, feature, other, theirs in zip(
            (2, 1, 0), embedding.features, twin.features, expected, strict=True
        ):
            channels_first = feature.reshape(-1, feature.shape[-1]).T
            restored = to_grid(channels_first, grid, doublings)
            torch.testing.assert_close(restored, theirs[0], rtol=0, atol=TOLERANCE)
            torch.testing.assert_close(feature, other, rtol=0, atol=TOLERANCE)
            assert other.untyped_storage().nbytes() == other.numel() * other.element_size()


@pytest.mark.parametrize("delta", [0.0, 0.05, 1e3])
def test_falls_back_on_an_unstable_single_mask_as_the_predictor_does(backbone, dynamic, delta):
    dynamic(delta)
    image = random_image(93, 141)
    reference = predictor(backbone.model, image)
    [embedding] = backbone.encode([image])
    for box, points in PROMPTS.values():
        single = PromptRow(embedding, box, points)
        assert_like_predictor(backbone, reference, image, single)
        three = PromptRow(embedding, box, points, multimask=True)
        iou = backbone.decode([single, three]).iou
        if delta != 0.05:  # no pixel lies in an empty band, every one in a very wide one
            assert (abs(iou[0] - iou[1]) < 1e-6) == (delta > 1)


def test_stable_and_unstable_rows_share_a_batch(backbone, dynamic):
    image = random_image(93, 141)
    [embedding] = backbone.encode([image])
    rows = [
        PromptRow(embedding, box, points, multimask=multimask)
        for box, points in PROMPTS.values()
        for multimask in (False, True)
    ]
    dynamic(0.0)
    singles = backbone.decode(rows).logits[::2, None]
    decoder = backbone.model.sam_mask_decoder
    for delta in np.geomspace(1e-3, 10, 100):  # a band that splits the rows, none on the edge
        dynamic(float(delta))
        excess = decoder._get_stability_scores(singles) - decoder.dynamic_multimask_stability_thresh
        if (excess > 1e-3).any() and (excess < -1e-3).any() and (excess.abs() > 1e-3).all():
            break
    else:
        pytest.fail("every row takes the same way")
    reference = predictor(backbone.model, image)
    together = backbone.decode(rows)
    for row, logits, iou in zip(rows, together.logits, together.iou, strict=True):
        _, expected_iou, low = ask(reference, image, row)
        np.testing.assert_allclose(logits.clamp(-32, 32), low, rtol=0, atol=TOLERANCE)
        assert abs(iou - expected_iou) < TOLERANCE


def test_without_fall_back_a_single_mask_is_the_first(backbone, monkeypatch):
    monkeypatch.setattr(backbone.model.sam_mask_decoder, "dynamic_multimask_via_stability", False)
    image = random_image(93, 141)
    reference = predictor(backbone.model, image)
    [embedding] = backbone.encode([image])
    for multimask in (False, True):
        row = PromptRow(embedding, BOX, CLICKS[:1], multimask=multimask)
        assert_like_predictor(backbone, reference, image, row)


def test_large_logits_fed_back_are_clamped_as_the_predictor_hands_them_out(backbone):
    image = random_image(93, 141)
    reference = predictor(backbone.model, image)
    [embedding] = backbone.encode([image])
    large = backbone.decode([PromptRow(embedding, BOX)]).logits[0] * 50
    assert large.abs().max() > 100
    prediction = backbone.decode([PromptRow(embedding, None, CLICKS, large)])
    clamped = PromptRow(embedding, None, CLICKS, large.clamp(-32, 32))
    _, _, low = ask(reference, image, clamped)
    np.testing.assert_allclose(prediction.logits[0].clamp(-32, 32), low, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_a_row_depends_on_itself_alone(backbone, seed):
    generator = np.random.default_rng(seed)
    embeddings = backbone.encode(
        [random_image(60, 80, 1), random_image(90, 50, 2), random_image(64, 64, 3)]
    )
    side = backbone.image_side // 4
    rows = []
    for _ in range(9):
        points = tuple(
            AddPoint(*generator.uniform(0, 1, 2), bool(generator.integers(2)))
            for _ in range(generator.integers(0, 6))
        )
        box = BOX if not points or generator.random() < 0.4 else None
        mask = torch.tensor(generator.normal(0, 8, (side, side)), dtype=torch.float32)
        rows.append(
            PromptRow(
                embeddings[generator.integers(3)],
                box,
                points,
                mask if generator.random() < 0.5 else None,
                bool(generator.integers(2)),
            )
        )
    alone = [backbone.decode([row]) for row in rows]
    order = generator.permutation(len(rows))
    for decode_batch in (64, 4):
        batched = Sam2Backbone(backbone.model, decode_batch=decode_batch)
        together = batched.decode([rows[i] for i in order])
        for place, i in enumerate(order):
            torch.testing.assert_close(
                together.logits[place], alone[i].logits[0], rtol=0, atol=TOLERANCE
            )
            torch.testing.assert_close(together.iou[place], alone[i].iou[0], rtol=0, atol=1e-5)


def test_to_image_gives_each_row_its_own_size(backbone):
    sizes = [(93, 141), (40, 40), (93, 141)]
    embeddings = backbone.encode([random_image(*size) for size in sizes])
    logits = backbone.decode([PromptRow(e, BOX) for e in embeddings]).logits
    assert [tuple(image.shape) for image in backbone.to_image(logits, embeddings)] == sizes


def test_a_deep_copy_is_the_backbone_itself(backbone):
    assert copy.deepcopy({"backbone": backbone})["backbone"] is backbone


# building -------------------------------------------------------------------------------------


def test_medsam2_is_tiny_at_512():
    backbone = load("medsam2", device="cpu", random_weights=True)
    assert backbone.image_side == 512
    image = random_image(93, 141)
    [embedding] = backbone.encode([image])
    assert embedding.nbytes == 4 * (32 * 128**2 + 64 * 64**2 + 256 * 32**2)
    reference = predictor(backbone.model, image)
    assert_like_predictor(backbone, reference, image, PromptRow(embedding, BOX, CLICKS))
    assert build_medsam2(None, CPU, image_size=1024, random_weights=True).image_side == 1024


def test_random_weights_are_the_same_and_leave_the_callers_generator_alone():
    before = torch.get_rng_state()
    one = load("sam2.1_t", device="cpu", random_weights=True, image_size=64)
    two = load("sam2.1_t", device="cpu", random_weights=True, image_size=64, decode_batch=3)
    assert torch.equal(before, torch.get_rng_state())
    assert one is not two and two.decode_batch == 3
    assert one is load("sam2.1_t", device="cpu", random_weights=True, image_size=64)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_random_weights_and_a_checkpoint_exclude_each_other():
    with pytest.raises(BackboneError, match="random_weights"):
        load("sam2.1_t", "some.pt", device="cpu", random_weights=True)


def test_registry_names_the_official_files():
    specs = [spec for name, spec in available().items() if name.startswith("sam2")]
    ours = {(f"{dict(spec.options)['config']}.yaml", spec.checkpoint) for spec in specs}
    theirs = {(path.rpartition("/")[2], file) for path, file in HF_MODEL_ID_TO_FILENAMES.values()}
    assert ours == theirs and len(ours) == 8


@pytest.mark.parametrize("name", ["sam2.1_b+", "medsam2"])
def test_a_missing_checkpoint_is_named_with_its_page(name, monkeypatch):
    monkeypatch.delenv("MEDSEG_CHECKPOINTS", raising=False)
    spec = available()[name]
    with pytest.raises(CheckpointError) as caught:
        load(name, device="cpu")
    assert spec.checkpoint in str(caught.value) and spec.page in str(caught.value)


@pytest.fixture(scope="module")
def tiny():
    return build_model("sam2.1_hiera_t", 64)


def hollow(state):
    """The same entries, each but one number in the file."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}


def test_loads_a_checkpoint_in_the_official_layout(tiny, tmp_path):
    # The real weights would be 156 MB: filling the numbers is load_state_dict's business.
    state = hollow(tiny.state_dict())
    state["sam_mask_decoder.iou_token.weight"] = torch.full((1, 256), 0.25)
    torch.save({"model": state}, tmp_path / "sam2.1_hiera_tiny.pt")
    backbone = build(
        tmp_path / "sam2.1_hiera_tiny.pt", CPU, config="sam2.1_hiera_t", name="x", image_size=64
    )
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_refuses_a_checkpoint_that_does_not_fit(tiny, tmp_path):
    def refused(state, config="sam2.1_hiera_t"):
        path = tmp_path / "weights.pt"
        torch.save({"model": state}, path)
        with pytest.raises(CheckpointError) as caught:
            build(path, CPU, config=config, name="x", image_size=64)
        assert str(path) in str(caught.value)
        return str(caught.value)

    state = hollow(tiny.state_dict())
    # SAM 2.0 has no such weights: refused, not dropped.
    assert "unexpected (first: no_obj_embed_spatial)" in refused(state, "sam2_hiera_t")
    memory = next(key for key in state if key.startswith("memory_attention."))
    assert f"1 missing (first: {memory})" in refused(
        {key: value for key, value in state.items() if key != memory}
    )
    assert "471 missing" in refused({"layer.weight": torch.zeros(2)})


def test_refuses_a_truncated_checkpoint(tiny, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"model": hollow(tiny.state_dict())}, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        load("sam2.1_t", path, device="cpu")


def test_refuses_impossible_sizes_and_configurations():
    for size in (0, 100, -32):
        with pytest.raises(BackboneError, match=f"image_size={size} must be"):
            build_model("sam2.1_hiera_t", size)
    with pytest.raises(BackboneError, match=r"'sam3_hiera_t'; it has .*sam2\.1_hiera_l"):
        build_model("sam3_hiera_t")


def test_says_what_to_install_where_sam2_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sam2", None)
    with pytest.raises(BackboneError, match=r'pip install "medseg-gym\[sam2\]"'):
        load("sam2.1_t", device="cpu", random_weights=True, image_size=32)


def test_builds_while_hydra_is_in_other_hands(monkeypatch):
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setattr(GlobalHydra.instance(), "hydra", None)
    assert build_model("sam2.1_hiera_t", 32).image_size == 32
