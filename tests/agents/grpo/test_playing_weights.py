import copy

import pytest

pytest.importorskip("trl")
pytest.importorskip("ray")

import torch
from medseg_agents.grpo.plan.live_bytes import LiveBytes
from medseg_agents.grpo.settings import ChatSettings
from torch import nn

from benchmarks.learning.memory import SIZES, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    build(SIZES["tiny"], path)
    return path


def make(folder, **settings):
    from dataclasses import asdict

    from medseg_agents.grpo.module import HFChatModule

    made = ChatSettings(model=str(folder), precision="bfloat16", **settings)
    return HFChatModule(model_config={"settings": asdict(made)}, inference_only=True)


def logits(module, ids):
    with torch.no_grad(), module.autocast():
        return module.lm(input_ids=ids).logits


@pytest.mark.parametrize("rank", [0, 4])
def test_rounded_weights_say_the_same_and_take_less(folder, rank):
    plain = make(folder, lora_rank=rank)
    for name, parameter in plain.lm.named_parameters():
        if "lora_B" in name:  # adapters begin with zeros, which would hide them
            nn.init.normal_(parameter, std=0.05)
    rounded = copy.deepcopy(plain)
    rounded.round_for_playing()
    ids = torch.randint(10, 200, (2, 30), generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits(plain, ids), logits(rounded, ids))
    held = [sum(p.nbytes for p in one.lm.parameters()) for one in (plain, rounded)]
    assert held[1] < 0.6 * held[0]
    peaks = []
    for module in (plain, rounded):
        with LiveBytes() as live:
            live.ignore(module.lm.parameters())
            logits(module, ids)
        peaks.append(live.peak)
    assert peaks[1] < peaks[0]  # autocast makes no copies of what is rounded already


def test_new_weights_of_the_learner_are_taken_up(folder):
    learner, player = make(folder, lora_rank=0), make(folder, lora_rank=0)
    player.round_for_playing()
    with torch.no_grad():
        for parameter in learner.trained().values():
            parameter.add_(0.01)
    player.set_state(learner.get_state())
    ids = torch.arange(10, 40)[None]
    assert torch.equal(logits(learner, ids), logits(player, ids))


def test_full_precision_stays(folder):
    from dataclasses import asdict

    from medseg_agents.grpo.module import HFChatModule

    settings = asdict(ChatSettings(model=str(folder)))
    module = HFChatModule(model_config={"settings": settings}, inference_only=True)
    module.round_for_playing()
    assert {p.dtype for p in module.lm.parameters()} == {torch.float32}
