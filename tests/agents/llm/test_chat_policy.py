import numpy as np
import pytest
import torch
from medseg_agents import policies
from medseg_agents.llm import turn_cache
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.checkpoint import load_model, load_processor, save_view
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.generation import TransformersEngine

from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs, play_cases

SIZE, TURNS = 64, 3
CASES = {"cases": "phantoms:abdomen", "split": "val", "backbone": "ellipse", "max_steps": TURNS}


@pytest.fixture(scope="module")
def parts(tiny_path):
    model = load_model(tiny_path)
    with torch.no_grad():  # a start that says something else in every place
        for parameter in model.parameters():
            parameter.mul_(3)
    return model, load_processor(tiny_path)


def policy_of(parts, **options):
    return ChatPolicy(TransformersEngine(*parts, options=ModelOptions(**options)), over="over.")


def play(parts, slots, **options):
    """Answers by slot over some turns; what is shown depends on the slot alone."""
    policy = policy_of(parts, max_new_tokens=12, **options)
    policy.reset(range(len(slots)), [np.random.default_rng(slot) for slot in slots])
    answers = []
    for turn in range(TURNS):
        texts = [f"{'x' * (slot % 3)}{turn} left." for slot in slots]
        images = [
            np.random.default_rng([slot, turn]).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
            for slot in slots
        ]
        answers.append(policy.act({"text": texts, "image": np.stack(images)}))
    return list(zip(*answers, strict=True))


SAMPLED = {"temperature": 0.8, "top_p": 0.9, "top_k": 50}


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("history", ["all", "none", 1])
def test_a_batch_answers_as_each_slot_alone_does(parts, options, history):
    together = play(parts, range(4), history=history, **options)
    alone = [play(parts, [slot], history=history, **options)[0] for slot in range(4)]
    assert together == alone
    assert play(parts, range(4), history=history, batch=3, **options) == together
    assert len({answer for slot in together for answer in slot}) > 6  # not all the same


def test_a_kept_cache_changes_no_answer(parts, monkeypatch):
    known = []

    def spy(*arguments):
        known.append(ask(*arguments))
        return known[-1]

    ask = turn_cache.known_part
    monkeypatch.setattr(turn_cache, "known_part", spy)
    for options in ({}, SAMPLED):
        assert play(parts, range(3), **options) == play(
            parts, range(3), keep_cache=False, **options
        )
    assert known[0] == 0 and known[1] > 16 and known[2] > known[1] + 16  # images are in there


def test_a_cache_of_another_conversation_is_not_used(parts):
    ids = torch.tensor([[7, 8, 9, 5, 6]])
    mask = torch.ones_like(ids)
    layers = []
    assert turn_cache.known_part([turn_cache.SlotCache([7, 8, 9], layers)], ids, mask, 1) == 3
    assert turn_cache.known_part([turn_cache.SlotCache([7, 4, 9], layers)], ids, mask, 1) == 1
    assert turn_cache.known_part([turn_cache.SlotCache([4, 8, 9], layers)], ids, mask, 1) == 0
    assert turn_cache.known_part([None], ids, mask, 1) == 0
    # never through an image
    assert turn_cache.known_part([turn_cache.SlotCache([7, 8], layers)], ids, mask, 9) == 2
    ids[0, 1:3] = 9
    assert turn_cache.known_part([turn_cache.SlotCache([7, 9], layers)], ids, mask, 9) == 0


def test_what_of_the_conversation_is_shown(parts):
    for history, count, messages in (("all", 3, 5), (2, 2, 5), (1, 1, 5), ("none", 1, 1)):
        policy = policy_of(parts, max_new_tokens=2, history=history)
        policy.reset([0], [np.random.default_rng(0)])
        for turn in range(3):
            images = np.full((1, SIZE, SIZE, 3), turn, np.uint8)
            policy.act({"text": [f"turn {turn}"], "image": images})
        shown, images = policy.conversation(0)
        assert [image.getpixel((0, 0))[0] for image in images] == list(range(3 - count, 3))
        assert len(shown) == messages
        parts_of = [part["type"] for message in shown for part in message["content"]]
        assert parts_of.count("image") == count
        assert "turn 0" in str(shown) and "turn 2" in str(shown)


def test_what_cannot_be_said_is_never_said(parts):
    policy = policy_of(parts, temperature=5.0, max_new_tokens=200)
    policy.reset(range(4), [np.random.default_rng(slot) for slot in range(4)])
    images = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    for answer in policy.act({"text": ["hm"] * 4, "image": images}):
        assert not any(word in answer for word in ("<|image_pad|>", "<|im_", "<|vision", "<|end"))


def test_slots_that_have_ended_are_not_asked(parts):
    policy = policy_of(parts, max_new_tokens=2)
    policy.reset([0, 1], [np.random.default_rng(0)] * 2)
    images = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    answers = policy.act({"text": ["go", "over.", "never reset"], "image": images})
    assert answers[0] and answers[1:] == ["", ""]


def test_an_answer_that_runs_into_the_limit_says_so(parts):
    policy = policy_of(parts, max_new_tokens=2)  # babble never stops
    envs = make_envs(2, "MedSegChat-v0", **CASES, image_size=SIZE)
    observations, _ = envs.reset(options={"case": envs.source.keys[:2]})
    policy.reset(range(2), [np.random.default_rng(slot) for slot in range(2)])
    *_, info = envs.step(policy.act(observations))
    assert all("limit of 2 tokens" in error for error in info["error"])
    assert all("max_new_tokens" in error for error in info["error"])
    ((played, _),) = play_cases(envs, policy, envs.source.keys[:2])
    assert played.cut_off == TURNS == len(played.answers)
    envs.close()


def test_cases_are_played_alike_in_any_number_of_slots(tiny_path):
    save_view(tiny_path, {"image_size": SIZE, "texts": "terse"}, {"max_new_tokens": 8})
    policy_spec = policies.make(f"llm:{tiny_path}?temperature=1&history=2")
    assert policy_spec.view == {"image_size": SIZE, "texts": "terse"}
    played = []
    for slots in (1, 3):
        envs = make_envs(slots, policy_spec.env_id, **CASES, **policy_spec.view)
        policy = policy_spec.build(envs)
        assert policy.options.max_new_tokens == 8 and policy.options.temperature == 1
        assert policy.settings["checkpoint"] and policy.settings["history"] == 2
        keys = envs.source.keys[:4]
        played.append([p.answers for batch in play_cases(envs, policy, keys) for p in batch])
        envs.close()
    assert played[0] == played[1]
    assert all(len(answers) == TURNS for answers in played[0])  # babble never stops


def test_shuffled_images_are_those_of_another_slot(tiny_path):
    save_view(tiny_path, {"image_size": SIZE, "texts": "terse"}, {"max_new_tokens": 8})
    policy_spec = policies.make(f"shuffled-images:llm:{tiny_path}")
    envs = make_envs(8, policy_spec.env_id, **CASES, **policy_spec.view)
    policy = policy_spec.build(envs)
    keys = list(envs.source.keys[:8])  # two images with four targets each
    observations, _ = envs.reset(options={"case": keys})
    policy.reset(range(8), [np.random.default_rng(0)] * 8)
    policy.act(observations)
    for slot in range(8):
        messages, (image,) = policy.policy.conversation(slot)
        other = observations["image"][(slot + 4) % 8]
        assert np.array_equal(np.asarray(image), other)
        assert not np.array_equal(other, observations["image"][slot])
        assert observations["text"][slot] in str(messages)
    envs.close()
    with pytest.raises(PolicyError, match="shown the truth"):
        shuffled = policies.make("shuffled-images:oracle-box")
        shuffled.build(make_envs(2, backbone="ellipse", cases="phantoms"))


def test_adapters_play_on_their_base_model(tiny_path, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = load_model(tiny_path)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    answers = []
    for path, merge in ((tiny_path, True), (tmp_path, True), (tmp_path, False)):
        options = ModelOptions(max_new_tokens=12, merge=merge)
        policy = ChatPolicy.load(path, options=options)
        policy.reset([0, 1], [np.random.default_rng(0)] * 2)
        completions = policy.act({"text": ["a", "b"], "image": images})
        completions += policy.act({"text": ["c", "dd"], "image": images})
        answers.append(completions)
    assert answers[1] == answers[2] != answers[0]


def test_what_is_no_such_checkpoint_is_said(tmp_path):
    with pytest.raises(PolicyError, match="no such folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(PolicyError, match="no vision-language model"):
        load_model(tmp_path)
    with pytest.raises(PolicyError, match="no processor"):
        load_processor(tmp_path)
    (tmp_path / "medseg_view.json").write_text("[]")
    with pytest.raises(PolicyError, match=r"medseg_view\.json"):
        policies.make(f"llm:{tmp_path}")


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 0}, {"history": "some"}, {"max_new_tokens": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(PolicyError, match=next(iter(options))):
        ModelOptions(**options)
