import numpy as np
import torch
from medseg_agents.llm.checkpoint import load_model, load_processor
from medseg_agents.llm.sampling import Forbid, SlotDraws, end_tokens, forbidden_tokens


def draw(scores, numbers):
    rows = torch.tensor(scores).expand(len(numbers), -1)
    ids = torch.zeros(len(numbers), 3, dtype=torch.long)
    return SlotDraws(np.array(numbers)[:, None], 3)(ids, rows).argmax(1)


def test_draws_follow_the_distribution():
    scores = torch.tensor([0.0, 2.0, -torch.inf, 1.0, -torch.inf])
    numbers = (np.arange(20000) + 0.5) / 20000
    counts = torch.bincount(draw(scores.tolist(), numbers), minlength=5) / 20000
    assert torch.allclose(counts, scores.softmax(0), atol=1e-3)


def test_an_impossible_token_is_never_drawn_not_even_at_the_ends():
    scores = [-np.inf, 0.0, -np.inf, 0.0, -np.inf]
    assert draw(scores, [0.0, np.nextafter(1.0, 0.0)]).tolist() == [1, 3]


def test_place_holders_and_padding_of_the_vocabulary_are_forbidden(tiny_path):
    model, processor = load_model(tiny_path), load_processor(tiny_path)
    forbidden = forbidden_tokens(model, processor)
    token = processor.tokenizer.convert_tokens_to_ids
    assert {token("<|image_pad|>"), token("<|vision_start|>"), token("<|im_start|>")} <= set(
        forbidden
    )
    assert len(processor.tokenizer) in forbidden  # the output is padded to a multiple of 64
    assert not {token("<|im_end|>"), token("<tool_call>"), token("<think>")} & set(forbidden)
    assert end_tokens(model, processor) == sorted([token("<|im_end|>"), token("<|endoftext|>")])
    scores = Forbid(forbidden)(
        torch.zeros(1, 1), torch.zeros(1, model.config.text_config.vocab_size)
    )
    assert torch.isinf(scores[0, forbidden]).all()
    assert int(torch.isfinite(scores).sum()) == scores.shape[1] - len(forbidden)
