import gymnasium as gym
import pytest
import torch

import medseg_gym  # noqa: F401
from medseg_gym.backbones import Embedding, Prediction
from medseg_gym.errors import BackboneError


class Reader:
    """Takes text; keeps what it was told."""

    name, device = "reader", torch.device("cpu")
    prompt_kinds = trained_kinds = frozenset({"box", "point", "text"})
    takes_mask_input = False

    def __init__(self):
        self.texts = []

    def __deepcopy__(self, file_cache):
        return self

    def encode(self, images):
        return [Embedding((), image.shape[:2], (8, 8)) for image in images]

    def decode(self, rows):
        self.texts += [row.text for row in rows]
        return Prediction(torch.ones(len(rows), 8, 8), torch.ones(len(rows)))

    def to_image(self, logits, embeddings):
        return [torch.ones(e.image_size) for e in embeddings]


@pytest.mark.parametrize("shown_text", [True, False])
def test_the_target_is_told_where_it_was_asked_for(shown_text, small_cases):
    reader = Reader()
    env = gym.make("MedSeg-v0", backbone=reader, cases=small_cases, text_prompt=shown_text)
    env.reset(options={"case": "wide"})
    env.step([0, 100, 100, 900, 900])
    assert reader.texts == ["blob" if shown_text else None]


def test_text_for_a_backbone_that_takes_none_is_refused_before_any_episode(small_cases):
    with pytest.raises(BackboneError, match="takes no text prompts"):
        gym.make("MedSeg-v0", backbone="ellipse", cases=small_cases, text_prompt=True)
