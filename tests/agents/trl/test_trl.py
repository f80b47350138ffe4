"""TRL's GRPOTrainer really trains, through both doors; no check here uses a stand-in for TRL."""

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from medseg_agents.llm.checkpoint import load_model, load_processor
from medseg_agents.llm.sampling import forbidden_tokens
from medseg_agents.sft.trainer_arguments import checkpointing_name
from medseg_agents.trl import (
    ChatGRPOTrainer,
    ChatRollout,
    environment_rows,
    episode_return,
    make_environment,
    rollout_return,
    rollout_rows,
    show_as_conversation,
)
from medseg_agents.trl.rollout import _Slot
from PIL import Image
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer

from medseg_gym.cases.case_source import CaseList
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import chat_coordinates
from medseg_gym.envs.views.chat_texts import tool_schemas
from medseg_gym.errors import CaseError, MedSegError, PolicyError
from medseg_gym.policy import make_envs
from medseg_gym.prompts import COORDINATES

from .conftest import VIEW

BOX = {"bbox_2d": [250, 250, 750, 750]}


def arguments(tmp_path, **other):
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 200,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "seed": 0,
        checkpointing_name(): False,
    }
    return GRPOConfig(**settings | other)


def keeping(trainer_class):
    """The trainer, which also keeps every batch that its loss is made of."""

    class Keeping(trainer_class):
        kept = ()

        def _generate_and_score_completions(self, inputs):
            made = super()._generate_and_score_completions(inputs)
            self.kept = (*self.kept, made)
            return made

        def logprobs(self, made):
            """Of the completions, as the loss computes them, and where they count."""
            names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
            ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
            mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
            with torch.no_grad():
                log_probs, *_ = self._get_per_token_logps_and_entropies(
                    self.model,
                    ids,
                    mask,
                    made["completion_ids"].shape[1],
                    **{name: made[name] for name in names},
                )
            return log_probs, (made["tool_mask"] * made["completion_mask"]).bool()

    return Keeping


def text_of(processor, made, row):
    """Prompt and completions of a row, without padding."""
    parts = (("prompt_ids", "prompt_mask"), ("completion_ids", "completion_mask"))
    read = torch.cat([made[ids][row][made[mask][row].bool()] for ids, mask in parts])
    return processor.tokenizer.decode(read)


def conversation(processor, messages, shown):
    """A conversation as it is used for supervised fine-tuning, place holders of images included.

    As text, for a model may spell an answer in other tokens than the tokenizer would.
    """
    text = processor.apply_chat_template(messages, tokenize=False).removesuffix("\n")
    images = [Image.fromarray(image) for image in shown]
    ids = processor(text=[text], images=[images], return_tensors="pt")["input_ids"][0]
    return processor.tokenizer.decode(ids)


def changed(model, path):
    before = load_model(path).state_dict()
    return [n for n, w in model.state_dict().items() if not torch.equal(w, before[n])]


def logged(trainer, name):
    return [row[name] for row in trainer.state.log_history if name in row]


# the environment ------------------------------------------------------------------------------
def test_grpo_learns_in_the_environment(caller, small_cases, backbone, tmp_path):
    seen = []

    def watched(completions, environments, **options):
        values = episode_return(completions, environments, **options)
        seen.append([(e.outcome, e._env.messages(), e._env.images()) for e in environments])
        return values

    source = CaseList(small_cases)
    model, processor = load_model(caller), load_processor(caller)
    settings = {"suppress_tokens": forbidden_tokens(model, processor)}
    trainer = keeping(GRPOTrainer)(
        model=model,
        args=arguments(tmp_path, max_tool_calling_iterations=2, generation_kwargs=settings),
        train_dataset=environment_rows(source),
        processing_class=show_as_conversation(processor),
        environment_factory=make_environment(cases=source, backbone=backbone, **VIEW),
        reward_funcs=watched,
    )
    trainer.train()
    assert any("visual" in n for n in changed(trainer.model, caller))
    assert len(logged(trainer, "medseg/dice")) == 2
    assert 0 < logged(trainer, "medseg/valid_rate")[0] <= 1
    outcomes = [[outcome for outcome, *_ in batch] for batch in seen]
    for batch, total, turns in zip(
        outcomes, logged(trainer, "reward"), logged(trainer, "medseg/turns"), strict=True
    ):
        assert [o.case for o in batch[:4]] == [batch[0].case] * 4  # a group is one case
        assert np.mean([o.episode_return for o in batch]) == pytest.approx(total, abs=1e-3)
        assert np.mean([o.turns for o in batch]) == pytest.approx(turns)
    assert all(o.done or o.turns < 3 for batch in outcomes for o in batch)
    # What it was shown is what it is shown in the suite, and the images are in the loss.
    made, whole = trainer.kept[0], 0
    for row, (outcome, *context) in enumerate(seen[0]):
        read = text_of(processor, made, row)
        wanted = conversation(load_processor(caller), *context)
        shown = user_turns(read)
        assert shown == user_turns(wanted)[: len(shown)] and len(shown) >= outcome.valid
        whole += read == wanted
    assert whole >= 3
    assert int(made["image_grid_thw"].prod(-1).sum()) == made["pixel_values"].shape[0]
    assert len(made["image_grid_thw"]) == sum(made["num_images"]) > 8


def user_turns(text):
    """Turns of the user, but what TRL's tools alone say: that the episode is over."""
    turns = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", text, re.DOTALL)
    return [turn for turn in turns if turn != "over."]


def test_tools_are_those_of_the_suite(small_cases):
    made = make_environment(cases=small_cases, backbone="ellipse", **VIEW)()
    for schema in tool_schemas():
        function = schema["function"]
        ours = get_json_schema(getattr(made, function["name"]))["function"]
        assert ours["description"] == function["description"]
        assert list(ours["parameters"]["properties"]) == function["parameters"]["required"]
    for kind in COORDINATES:
        other = make_environment(cases=small_cases, backbone="ellipse", coordinates=kind, **VIEW)()
        coordinates = chat_coordinates(
            ChatOptions(coordinates=kind, image_size=other._env.view.side)
        )
        for schema in tool_schemas(coordinates=coordinates)[:2]:
            place = schema["function"]["parameters"]["required"][0]
            ours = get_json_schema(getattr(other, schema["function"]["name"]))["function"]
            ours, asked = (
                one["parameters"]["properties"][place] for one in (ours, schema["function"])
            )
            assert ours["description"].rstrip(".") == asked["description"]
            assert ours["items"]["type"] == asked["items"]["type"]
    fewer = make_environment(cases=small_cases, backbone="ellipse", tools=("box", "stop"), **VIEW)
    public = {name for name in dir(fewer) if not name.startswith("_")}
    assert public == {"add_bbox", "stop_action", "reset", "outcome", "over"}
    # TRL before 1.15 reads every attribute of an environment that has no episode yet.
    assert "outcome" not in dict(inspect.getmembers(fewer()))


def test_a_call_does_what_it_does_in_the_suite(small_cases):
    made = make_environment(cases=small_cases, backbone="ellipse", **VIEW)()
    envs = make_envs(1, "MedSegChat-v0", cases=small_cases, backbone="ellipse", **VIEW)
    shown, _ = envs.reset(options={"case": "wide"})
    first = made.reset(case="wide", prompt=[], other=1)
    assert first[1]["text"] == shown["text"][0]
    image, text = made.add_bbox(**BOX)
    call = '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [250, 250, 750, 750]}}'
    shown, rewards, *_ = envs.step([call + "</tool_call>"])
    assert np.array_equal(np.asarray(image["image"]), shown["image"][0])
    assert text["text"] == shown["text"][0]
    assert made.outcome.episode_return == pytest.approx(rewards[0])
    assert made.add_bbox(corner=3)[1]["text"] == "no change, 1 left."  # costs a step
    assert made.stop_action() == "over." and made.add_bbox(**BOX) == "over."
    outcome = made.outcome
    assert (outcome.turns, outcome.valid, outcome.stopped, outcome.done) == (3, 2, True, True)
    with pytest.raises(CaseError):
        made.reset(case="no such case")


def answer(*calls):
    message = {"role": "assistant", "content": ""}
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]
    return message


def test_what_trl_leaves_undone_is_made_good(small_cases):
    factory = make_environment(cases=small_cases, backbone="ellipse", **VIEW)
    undone, mute, over, cut = factory(), factory(), factory(), factory()
    for environment in (undone, mute, over, cut):
        environment.reset(case="sq")
    mute.add_bbox(**BOX)
    over.stop_action()
    metrics = {}
    values = episode_return(
        completions=[
            [answer(("add_bbox", BOX))],
            [answer(("add_bbox", BOX)), {"role": "tool", "content": "x"}, answer()],
            [answer(("stop_action", {})), {"role": "tool", "content": "over."}, answer()],
            [answer(("add_bbox", BOX)), {"role": "tool", "content": "x"}],
        ],
        environments=[undone, mute, over, cut],
        log_metric=metrics.__setitem__,
    )
    box = mute.outcome.episode_return + 0.01
    assert values == pytest.approx([box, box - 0.01, 0.0, 0.0])
    assert [e.outcome.turns for e in (undone, mute, over, cut)] == [1, 2, 1, 0]
    assert metrics["medseg/turns"] == 1 and metrics["medseg/valid_rate"] == 0.75
    assert metrics["medseg/return"] == pytest.approx(np.mean(values))


def test_a_failing_segmenter_is_no_score(small_cases, backbone):
    made = make_environment(cases=small_cases, backbone=backbone, **VIEW)()
    made.reset(case="sq")
    backbone.broken = True
    with pytest.raises(MedSegError, match="gone"):
        made.add_bbox(**BOX)
    backbone.broken = False
    with pytest.raises(MedSegError, match="gone"):  # TRL would have gone on
        made.add_bbox(**BOX)
    with pytest.raises(PolicyError, match="no reward: BackboneError"):
        episode_return([[answer(("add_bbox", BOX)), {"role": "tool", "content": ""}]], [made])
    made.reset(case="sq")
    assert made.outcome.episode_return == 0


# the rollout ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def rolled(caller, small_cases, tmp_path_factory):
    """A short run with `ChatRollout`, and what its rollouts returned."""
    from .conftest import Counting

    returned, counts = [], []
    backbone, source = Counting(), CaseList(small_cases)

    class Watched(ChatRollout):
        def __call__(self, prompts, trainer):
            before = backbone.calls
            made = super().__call__(prompts, trainer)
            counts.append(backbone.calls - before)
            envs = self.envs(len(prompts))
            context = [(envs.messages(s), envs.images(s)) for s in range(len(prompts))]
            returned.append((dict(made), context))
            return made

    trainer = keeping(ChatGRPOTrainer)(
        model=load_model(caller),
        args=arguments(tmp_path_factory.mktemp("rolled")),
        train_dataset=rollout_rows(source),
        processing_class=load_processor(caller),
        rollout_func=Watched(40, cases=source, backbone=backbone, **VIEW),
        reward_funcs=rollout_return,
    )
    start = trainer.logprobs
    first = []
    compute = trainer._compute_loss

    def compute_loss(model, inputs):
        if not first:  # before the first update
            first.append((start(inputs), inputs))
        return compute(model, inputs)

    trainer._compute_loss = compute_loss
    trainer.train()
    return trainer, returned, counts, first[0]


def test_grpo_learns_from_the_rollout(rolled, caller):
    trainer, returned, counts, _ = rolled
    assert any("visual" in name for name in changed(trainer.model, caller))
    assert len(logged(trainer, "medseg/dice")) == 2
    assert counts and max(counts) <= 3  # a decoder call a turn, for all slots
    for made, _ in returned:
        cases = [outcome.case for outcome in made["outcome"]]
        assert cases[:4] == cases[:1] * 4 and cases[4:] == cases[4:5] * 4
        assert all(o.done for o in made["outcome"])
    total = np.mean([o.episode_return for o in returned[0][0]["outcome"]])
    assert logged(trainer, "reward")[0] == pytest.approx(total, abs=1e-3)


def test_a_target_that_spells_special_tokens_stays_text(caller, small_cases):
    processor = load_processor(caller)
    case = replace(small_cases[0], target="blob<|im_end|><|image_pad|>")
    rollout = ChatRollout(cases=CaseList([case]), backbone="ellipse", **VIEW)
    envs = rollout.envs(1)
    observations, _ = envs.reset()
    slots = [_Slot([])]
    rollout._show(slots, [0], observations, processor, envs)
    slots[0].add([5, processor.tokenizer.eos_token_id], [0.0, 0.0])
    first = len(slots[0].completion)
    rollout._show(slots, [0], observations, processor, envs)
    for ids in (slots[0].prompt, slots[0].completion[first:]):
        assert "blob<|im_end|><|image_pad|>" in processor.tokenizer.decode(ids)
        assert ids.count(processor.tokenizer.eos_token_id) == 1
        assert ids.count(processor.image_token_id) == 16


def test_its_tokens_are_the_conversation(rolled, caller):
    _, returned, *_ = rolled
    processor = load_processor(caller)
    end = processor.tokenizer.eos_token
    for made, context in returned:
        for row, (messages, images) in enumerate(context):
            read = made["prompt_ids"][row] + made["completion_ids"][row]
            read = processor.tokenizer.decode(read).removesuffix(end)  # may be cut off at the end
            assert read + end == conversation(processor, messages, images)
            mask = made["env_mask"][row]
            assert len(mask) == len(made["logprobs"][row]) == len(made["completion_ids"][row])
            mine = [t for t, m in zip(made["completion_ids"][row], mask, strict=True) if m]
            spoken = "".join(m["content"][0]["text"] for m in messages if m["role"] == "assistant")
            heard = processor.tokenizer.decode(mine).replace(end, "")
            assert heard == spoken
            assert processor.image_token_id not in mine


def test_the_loss_sees_the_images(rolled):
    """At the first update the loss's log-probabilities are the sampler's; else they are not."""
    trainer, _, _, ((learned, counted), inputs) = rolled
    sampled = inputs["sampling_per_token_logps"]
    assert counted.sum() > 20
    assert (learned - sampled)[counted].abs().max() < 1e-3
    load = trainer.model.state_dict()
    assert load
    rows = inputs["image_grid_thw"].prod(-1).tolist()
    parts = torch.split(inputs["pixel_values"], rows)
    wrong = {**inputs, "pixel_values": torch.cat([*parts[1:], parts[0]])}
    after, _ = trainer.logprobs(inputs)
    swapped, _ = trainer.logprobs(wrong)
    assert (after - swapped)[counted].abs().max() > 1e-3


def test_images_never_get_lost_silently(caller, small_cases, tmp_path):
    source = CaseList(small_cases)
    rollout = ChatRollout(40, cases=source, backbone="ellipse", **VIEW)
    shared = {
        "model": load_model(caller),
        "args": arguments(tmp_path),
        "train_dataset": rollout_rows(source),
        "processing_class": load_processor(caller),
        "reward_funcs": rollout_return,
    }
    stock = GRPOTrainer(rollout_func=rollout, **shared)
    with pytest.raises(PolicyError, match="ChatGRPOTrainer"):
        stock.train()
    with pytest.raises(PolicyError, match="rollout_func"):
        ChatGRPOTrainer(**shared)
    ours = ChatGRPOTrainer(rollout_func=lambda prompts, trainer: {}, **shared)
    with pytest.raises(PolicyError, match="rollout_rows"):
        rollout([[{"role": "user", "content": "hi"}]], ours)
    with pytest.raises(PolicyError, match="max_new_tokens"):
        ChatRollout(0)


# cases and templates --------------------------------------------------------------------------
def test_rows_name_cases(small_cases):
    source = CaseList(small_cases)
    assert rollout_rows(source)["prompt"] == [case.key for case in small_cases]
    drawn = environment_rows(source, limit=3, seed=1)
    assert len(set(drawn["case"])) == 3 and drawn["case"] == environment_rows(source, 3, 1)["case"]
    assert drawn["prompt"][0][-1]["role"] == "user"
    with pytest.raises(PolicyError, match="1 to 5"):
        rollout_rows(source, limit=6)


def test_a_template_that_trl_does_not_know_is_refused(caller):
    processor = load_processor(caller)
    processor.chat_template = "{{ messages }}"
    with pytest.raises(PolicyError, match="response_template"):
        show_as_conversation(processor)
    processor = load_processor(caller)
    once = show_as_conversation(processor).chat_template
    assert show_as_conversation(processor).chat_template == once
