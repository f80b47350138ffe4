"""Policies of language models read both images of a turn: the slice, then the overview."""

from __future__ import annotations

import numpy as np
import pytest
from medseg_agents import policies
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.checkpoint import (
    kind_to_play,
    load_model,
    load_processor,
    read_view,
    save_view,
)
from medseg_agents.llm.engine import Conversation
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_agents.llm.history import Dialogue
from medseg_agents.llm.openai.messages import as_openai
from medseg_agents.llm.prompt_tokens import PromptTokens
from medseg_agents.llm.vllm.prompts import prompts_of
from medseg_agents.policies.shuffled_images import ShuffledImages

from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import make_envs, play_cases

from .conftest import ENV, IMAGE_TOKENS, VIEW, options, volumes

KEYS = [case.key for case in volumes()]


@pytest.fixture(scope="module")
def parts(volume_caller):
    return load_model(volume_caller), load_processor(volume_caller)


def make_policy(parts, envs, **chosen):
    engine = TransformersEngine(
        *parts, envs.system_messages, ModelOptions(max_new_tokens=30, **chosen)
    )
    return ChatPolicy(engine, envs.view.texts.over, image_keys=envs.view.image_keys)


def play(parts, **chosen):
    """Answers of every volume, with the conversation of each slot as the policy kept it."""
    envs = make_envs(4, ENV, **options())
    policy = make_policy(parts, envs, **chosen)
    (batch,) = play_cases(envs, policy, KEYS, 0)
    return [one.answers for one in batch], [policy.conversation(slot) for slot in range(4)], envs


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_policy_is_shown_what_the_environment_shows(parts, temperature):
    answers, conversations, envs = play(parts, temperature=temperature)
    for slot, (messages, images) in enumerate(conversations):
        whole, shown = envs.messages(slot), envs.images(slot)
        assert whole[-1]["content"][0]["text"] == answers[slot][-1]
        assert messages == whole[:-1]  # the newest answer came after it
        assert len(images) == len(shown) == 2 * len(answers[slot])
        assert all(np.array_equal(a, b) for a, b in zip(images, shown, strict=True))
        assert shown[0].shape == (64, 64, 3) and shown[1].shape == (32, 96, 3)
    anew, _, _ = play(parts, temperature=temperature, keep_cache=False)
    assert anew == answers  # a kept cache changes none


@pytest.mark.parametrize("history, turns", [("all", 3), ("none", 1), (1, 1), (2, 2)])
def test_a_history_keeps_or_drops_both_images_of_a_turn(parts, history, turns):
    envs = make_envs(1, ENV, **options())
    policy = make_policy(parts, envs, history=history)
    observations, _ = envs.reset(options={"case": KEYS[:1]})
    policy.reset([0], [np.random.default_rng(0)])
    calls = ['<tool_call>{"name": "look_action", "arguments": {"slice": 1}}</tool_call>'] * 2
    one = policy._slots[0]
    for call in calls:
        one.show(observations["text"][0], observations["image"][0], observations["overview"][0])
        one.dialogue.completions.append(call)
        one.dialogue.tokens.append(parts[1].tokenizer(call).input_ids)
        observations, *_ = envs.step([call])
    one.show(observations["text"][0], observations["image"][0], observations["overview"][0])
    (completion,) = policy.engine.generate([one])
    assert completion.num_images == 2 * turns
    image = parts[0].config.image_token_id
    assert (completion.prompt == image).sum() == sum(IMAGE_TOKENS) * turns
    newest = policy.conversation(0)[1] if history != "all" else one.dialogue.all_images()
    assert np.array_equal(newest[-1], observations["overview"][0])
    assert np.array_equal(newest[-2], observations["image"][0])


def test_both_images_reach_the_model(parts):
    """A changed pixel in either of them changes what is likely."""
    envs = make_envs(1, ENV, **options())
    observations, _ = envs.reset(options={"case": KEYS[:1]})

    def likelihood(name=None):
        shown = {key: observations[key][0].copy() for key in envs.view.image_keys}
        if name:
            shown[name][8:24, 8:24] = 255
        policy = make_policy(parts, envs, temperature=1.0)
        conversation = Conversation(np.random.default_rng(0))
        conversation.show(observations["text"][0], *shown.values())
        return policy.engine.generate([conversation])[0].log_probs[:3]

    plain = likelihood()
    assert np.array_equal(plain, likelihood())
    for name in ("image", "overview"):
        assert not np.array_equal(plain, likelihood(name))


def test_vllm_and_servers_are_sent_both_images(parts):
    model, processor = parts
    conversation = Conversation(np.random.default_rng(0))
    slice_image, overview = np.zeros((64, 64, 3), np.uint8), np.ones((32, 96, 3), np.uint8)
    conversation.show("go", slice_image, overview)
    (prompt,) = prompts_of(
        PromptTokens(processor), [conversation], [], "all", model.config.image_token_id
    )
    assert (prompt.tokens == model.config.image_token_id).sum() == 2  # vLLM repeats them itself
    assert [image.size for image in prompt.images] == [(64, 64), (96, 32)]
    messages, images = Dialogue(["go"], [("a", "b")]).shown([], "all")
    (message,) = as_openai(messages, images)
    assert [part["type"] for part in message["content"]] == ["image_url", "image_url", "text"]
    assert [part["image_url"]["url"] for part in message["content"][:2]] == ["a", "b"]


def test_a_spec_plays_what_the_checkpoint_was_trained_for(volume_caller, caller, tmp_path):
    spec = policies.make(f"llm:{volume_caller}?max_new_tokens=30")
    assert spec.env_id == ENV and spec.view == VIEW
    envs = make_envs(2, spec.env_id, **{**options(), **spec.view})
    policy = spec.build(envs)
    assert policy.image_keys == ("image", "overview")
    (batch,) = play_cases(envs, policy, KEYS[:2])
    assert all(one.answers for one in batch)
    with pytest.raises(PolicyError, match=r"trained for MedSegVolumeChat-v0.*MedSegChat-v0"):
        policies.make(f"llm:{volume_caller}?env=MedSegChat-v0")
    with pytest.raises(PolicyError, match=r"trained for MedSegChat-v0"):
        policies.make(f"llm:{caller}?env={ENV}")
    with pytest.raises(PolicyError, match="has no overview_size"):
        policies.make(f"llm:{caller}?overview_size=32")
    server = policies.make(f"openai:m?env={ENV}&overview_size=32")
    assert server.env_id == ENV and server.view == {"overview_size": 32}
    with pytest.raises(MedSegError, match="no environment that chats"):
        policies.make("openai:m?env=MedSeg-v0")
    assert read_view(tmp_path).env_id is None and kind_to_play(tmp_path, ENV).env_id == ENV
    save_view(tmp_path, {}, {}, "MedSegPong-v0")
    with pytest.raises(PolicyError, match="MedSegPong-v0"):
        read_view(tmp_path)


def test_the_control_exchanges_both_images():
    seen = {}

    class Watching:
        name, sees_truth = "watching", False

        def act(self, observations):
            seen.update(observations)
            return []

    envs = make_envs(4, ENV, **options())
    observations, _ = envs.reset(options={"case": KEYS})
    ShuffledImages(Watching(), envs.view.image_keys).act(observations)
    assert seen["text"] == observations["text"]
    for key in ("image", "overview"):
        for slot in range(4):
            assert np.array_equal(seen[key][slot], observations[key][(slot + 2) % 4])
