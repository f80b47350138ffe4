"""Prompts as tokens: drawn completions stay as they were drawn, no text becomes a special token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medseg_agents.llm.checkpoint import load_model, load_processor
from medseg_agents.llm.engine import Conversation
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_agents.llm.prompt_tokens import MARKER, PromptTokens
from PIL import Image

from medseg_gym.envs.views.messages import text_message, user_message

SPELLED = ["<|image_pad|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|endoftext|>"]
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Co")), max_size=12)
SPELLING = st.lists(st.sampled_from([*SPELLED, MARKER, "liver", " 5 ", "\n"]), max_size=5)


@pytest.fixture(scope="module")
def processor(tiny_path):
    return load_processor(tiny_path)


@pytest.fixture(scope="module")
def model(tiny_path):
    return load_model(tiny_path)


def image(value=0):
    return Image.fromarray(np.full((64, 64, 3), value, np.uint8))


def conversation(system, task, completion, turn):
    return [
        text_message("system", system),
        user_message(task),
        text_message("assistant", completion),
        user_message(turn),
    ]


def ids_of(tokens, prompt, images):
    return tokens.read([prompt], [images])["input_ids"][0].tolist()


@settings(deadline=None, max_examples=30)
@given(WORDS, WORDS, WORDS)
def test_an_ordinary_conversation_has_the_processors_tokens(processor, task, completion, turn):
    messages = conversation("Be brief.", task, completion, turn)
    tokens, images = PromptTokens(processor), [image(1), image(2)]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = processor(text=[text], images=[images], return_tensors="pt")
    read = tokens.read([tokens.mark(messages)], [images])
    assert read["input_ids"].tolist() == expected["input_ids"].tolist()
    assert set(read) == set(expected)


@settings(deadline=None, max_examples=60)
@given(SPELLING, SPELLING, SPELLING, st.booleans())
def test_words_that_spell_special_tokens_stay_words(processor, task, completion, turn, drawn):
    tokens, images = PromptTokens(processor), [image(1), image(2)]
    task, completion, turn = ("".join(parts) for parts in (task, completion, turn))
    messages = conversation("Be brief.", task, completion, turn)
    letters = processor.tokenizer(
        completion, add_special_tokens=False, split_special_tokens=True
    ).input_ids
    prompt = tokens.mark(messages, [letters] if drawn else [])
    ids = ids_of(tokens, prompt, images)
    special = set(processor.tokenizer.all_special_ids)
    blank = ids_of(tokens, tokens.mark(conversation("Be brief.", "", "", "")), images)
    assert [t for t in ids if t in special] == [t for t in blank if t in special]
    assert max(ids) < len(processor.tokenizer)
    decoded = processor.tokenizer.decode(ids)
    for words in (task, completion, turn):
        assert words in decoded
    padded = tokens.read([prompt, tokens.mark(messages[:2])], [images, images[:1]])
    assert padded["input_ids"][0].tolist() == ids
    assert padded["attention_mask"].shape == padded["input_ids"].shape
    assert padded["attention_mask"][1].sum() < padded["attention_mask"][0].sum() == len(ids)


def test_a_completion_stays_as_it_was_drawn(processor):
    tokens = PromptTokens(processor)
    completion = "liver in abdomen"
    letters = [processor.tokenizer(c, add_special_tokens=False).input_ids[0] for c in completion]
    whole = processor.tokenizer(completion, add_special_tokens=False).input_ids
    assert letters != whole
    messages = conversation("Be brief.", "go", completion, "on")
    ids = ids_of(tokens, tokens.mark(messages, [letters]), [image(), image()])
    place = next(i for i in range(len(ids)) if ids[i : i + len(letters)] == letters)
    assert processor.tokenizer.decode(ids[:place]).endswith("assistant\n")
    assert ids[place + len(letters)] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_thoughts_that_a_template_drops_are_dropped(processor):
    import copy

    other = copy.copy(processor)
    other.chat_template = (
        "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{% if p.type == 'image' %}"
        "<|image_pad|>{% else %}{{ p.text.split('</think>')[-1] }}{% endif %}{% endfor %}\n"
        "{% endfor %}assistant:"
    )
    tokens = PromptTokens(other)
    messages = conversation("s", "go", "<think>hm</think>box", "on")
    prompt = tokens.mark(messages, [[5, 6, 7]])
    assert prompt.inserts == () and "hm" not in prompt.text and "box" in prompt.text
    spoken = tokens.mark(conversation("s", "go", "box", "on"), [[5, 6, 7]])
    assert spoken.inserts == ((5, 6, 7),)


@pytest.mark.parametrize("keep", [True, False])
def test_a_turn_that_spells_special_tokens_breaks_no_conversation(model, processor, keep):
    options = ModelOptions(max_new_tokens=4, keep_cache=keep)
    engine = TransformersEngine(model, processor, [text_message("system", "hm")], options)
    one = Conversation(np.random.default_rng(0))
    one.show("go", np.zeros((64, 64, 3), np.uint8))
    engine.generate([one])
    spelled = "<|im_end|><|image_pad|>"
    letters = processor.tokenizer(
        spelled, add_special_tokens=False, split_special_tokens=True
    ).input_ids
    one.dialogue.completions[-1], one.dialogue.tokens[-1] = spelled, letters
    one.show("<|image_pad|> on", np.ones((64, 64, 3), np.uint8))
    (second,) = engine.generate([one])
    holder = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    per_image = 64 * 64 // (16 * 16)
    assert (second.prompt == holder).sum() == 2 * per_image
    text = processor.tokenizer.decode(second.prompt)
    assert spelled in text and "<|image_pad|> on" in text


def test_prompts_go_on_with_the_tokens_that_were_drawn(model, processor):
    options = ModelOptions(max_new_tokens=12, temperature=3.0)  # babble, hardly ever canonical
    engine = TransformersEngine(model, processor, options=options)
    chats = [Conversation(np.random.default_rng(slot)) for slot in range(4)]
    before = None
    for turn in range(3):
        for one in chats:
            one.show(f"{turn}", np.full((64, 64, 3), turn, np.uint8))
        made = engine.generate(chats)
        for slot, completion in enumerate(made if before else ()):
            was = before[slot]
            ends = 0 if was.cut else 1  # the template has one way of ending a turn, models two
            drawn = [*was.prompt.tolist(), *was.tokens.tolist()[: len(was.tokens) - ends]]
            assert completion.prompt.tolist()[: len(drawn)] == drawn
        before = made
