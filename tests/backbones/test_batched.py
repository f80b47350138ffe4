import pytest
import torch

from medseg_gym.backbones import PromptRow, SamBackbone
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast_stays_close_and_gives_float32_logits(
    dtype, tiny_sam, tiny_backbone, awkward_images
):
    mixed = SamBackbone(tiny_sam, dtype=dtype)
    rows = []
    for backbone in (tiny_backbone, mixed):
        (embedding,) = backbone.encode(awkward_images[:1])
        rows.append(PromptRow(embedding, AddBox(0.2, 0.2, 0.7, 0.8)))
    assert rows[1].embedding.features[0].dtype == getattr(torch, dtype)
    assert rows[1].embedding.nbytes * 2 == rows[0].embedding.nbytes
    exact, close = tiny_backbone.decode(rows[:1]), mixed.decode(rows[1:])
    assert close.logits.dtype == close.iou.dtype == torch.float32
    spread = exact.logits.std()
    assert spread > 0 and (close.logits - exact.logits).abs().mean() < 0.2 * spread
    assert not torch.equal(close.logits, exact.logits)
    # Fed back as a mask input, its own logits are understood.
    mixed.decode([PromptRow(rows[1].embedding, rows[1].box, mask_input=close.logits[0])])


def test_a_compiled_encoder_gives_the_same(tiny_sam, tiny_backbone, awkward_images):
    compiled = SamBackbone(tiny_sam, compile="eager")
    for one, other in zip(
        tiny_backbone.encode(awkward_images[:2]), compiled.encode(awkward_images[:2]), strict=True
    ):
        torch.testing.assert_close(one.features[0], other.features[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"decode_batch": 0}, {"encode_batch": -1}])
def test_impossible_options_are_refused(options, tiny_sam):
    with pytest.raises(BackboneError, match=r"must be"):
        SamBackbone(tiny_sam, **options)
