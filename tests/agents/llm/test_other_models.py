"""A model of another architecture, through the same classes: LLaVA, small and random."""

import numpy as np
import pytest
from medseg_agents import policies
from medseg_agents.llm import turn_cache
from medseg_agents.llm.tiny_model import build_tokenizer
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from medseg_gym.policy import make_envs, play_cases

_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{% if p.type == 'image' %}"
    "<|image_pad|>{% else %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def llava_path(tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("llava")
    tokenizer = build_tokenizer(["liver in abdomen CT, 5 calls."])
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_convert_rgb=True
    )
    LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<|image_pad|>",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    ).save_pretrained(path)
    token = tokenizer.convert_tokens_to_ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=CLIPVisionConfig(
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    image_size=32,
                    patch_size=8,
                ),
                text_config=LlamaConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    num_key_value_heads=2,
                    initializer_range=0.3,
                    eos_token_id=token("<|im_end|>"),
                    pad_token_id=tokenizer.pad_token_id,
                ),
                image_token_index=token("<|image_pad|>"),
                vision_feature_select_strategy="default",
                vision_feature_layer=-1,
                image_seq_length=16,
            )
        )
    model.generation_config.eos_token_id = token("<|im_end|>")
    model.save_pretrained(path)
    return path


def test_it_plays_batched_as_alone(llava_path):
    policy_spec = policies.make(
        f"llm:{llava_path}?max_new_tokens=8&texts=terse&image_size=48&temperature=1"
    )
    played = []
    for slots in (1, 3):
        envs = make_envs(
            slots,
            policy_spec.env_id,
            cases="phantoms",
            backbone="ellipse",
            max_steps=3,
            **policy_spec.view,
        )
        policy = policy_spec.build(envs)
        assert not turn_cache.can_keep(policy.engine.model)
        keys = envs.source.keys[:3]
        played.append([p.answers for batch in play_cases(envs, policy, keys) for p in batch])
        envs.close()
    assert played[0] == played[1]
    assert len({answer for answers in played[0] for answer in answers}) > 3


def test_what_ends_a_slots_turn_is_no_part_of_the_answer(llava_path):
    from medseg_agents.llm.chat_policy import ChatPolicy
    from medseg_agents.llm.engine_options import ModelOptions

    policy = ChatPolicy.load(llava_path, options=ModelOptions(temperature=1, max_new_tokens=64))
    policy.reset(range(4), [np.random.default_rng(slot) for slot in range(4)])
    images = np.zeros((4, 48, 48, 3), np.uint8)
    answers = policy.act({"text": ["go"] * 4, "image": images})
    assert not any("<|im_end|>" in answer or "<|endoftext|>" in answer for answer in answers)
