"""Learners that hold one model in shards, on CPUs over gloo."""

import copy
import json
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
from medseg_agents.grpo.connectors import ROWS
from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.settings import GRPORun
from medseg_agents.grpo.sharding import group as learner_group
from medseg_agents.grpo.sharding.checkpoint import save_whole_model, whole_state
from medseg_agents.llm.checkpoint import load_model
from medseg_agents.runs.algorithm_state import read_state
from ray.rllib.core import DEFAULT_MODULE_ID

from medseg_gym.errors import MedSegError

from .conftest import dealt, learned

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

SETTINGS = {"beta": 0.1, "micro_batch": 3, "groups": 2}
# A step of Adam is as large for a gradient that is nothing but rounding: at 1e-2 a second iteration
# made 1.6e-5 of that on one kind of CPU.
ADAPTERS = {"lora_rank": 4, "beta": 0.1, "lr": 2e-3, "groups": 2}


def weights(algo):
    """Return the weights that the learners train, the value head too."""
    return algo.learner_group.get_weights()[DEFAULT_MODULE_ID]


def distance(one, other):
    """Norm of the difference by norm of the reference."""
    assert one.keys() == other.keys()
    apart = sum(((one[n].double() - other[n].double()) ** 2).sum() for n in other)
    return float((apart / sum((other[n].double() ** 2).sum() for n in other)) ** 0.5)


def holds(learner):
    """Bytes of this learner's parameters and Adam's moments, and of the whole."""
    from medseg_agents.grpo.sharding.fsdp import local_bytes

    parameters = list(learner.chat_module.trained().values())
    kept = parameters + [
        value
        for optimiser in learner._named_optimizers.values()
        for p in parameters
        for value in optimiser.state.get(p, {}).values()
        if value.dim()
    ]
    return local_bytes(kept), sum(t.numel() * t.element_size() for t in kept)


@pytest.fixture(scope="module")
def pair(make_once):
    """Two sharded learners and one learner, after two iterations, and what was learned."""
    sharded = make_once(learners=2, shard=True, **SETTINGS)
    alone = make_once(**SETTINGS)
    start = weights(alone)
    results = [[learned(algo.train()) for algo in (sharded, alone)] for _ in range(2)]
    return sharded, alone, start, results


def check_one_and_two(sharded, alone, start, results):
    sharded_weights, wanted = weights(sharded), weights(alone)
    assert distance(sharded_weights, wanted) < 1e-5 < 1e-3 < distance(start, wanted)
    for two, one in results:
        name = "gradients_default_optimizer_global_norm"
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    for held, of in sharded.learner_group.call(holds):
        assert held == pytest.approx(of / 2, rel=0.01)


@pytest.mark.slow
def test_two_sharded_learners_learn_as_one_with_half_the_bytes_each(pair):
    sharded, *_ = pair
    shares = sharded.learner_group.call(lambda learner: learner.chat_module.shares_prompts)
    assert shares == [True, True]
    check_one_and_two(*pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings", "saving"),
    [
        ("grpo", ADAPTERS, {}),
        ("grpo", ADAPTERS, {"gradient_checkpointing": True, "logit_chunk": 5}),
        # One turn an episode: the value's error is a mean over a learner's own turns.
        ("ppo", {"minibatches": 2, "scale_rewards": "none", "env": {"max_steps": 1}}, {}),
    ],
    ids=["adapters", "adapters with all that saves memory", "value head"],
)
def test_adapters_and_value_heads_are_sharded_too(make, tmp_path, kind, settings, saving):
    sharded = make(kind, learners=2, shard=True, **settings, **saving)
    alone = make(kind, **settings)  # what saves memory changes no gradient
    start = weights(alone)
    results = [[learned(algo.train()) for algo in (sharded, alone)] for _ in range(2)]
    check_one_and_two(sharded, alone, start, results)
    assert any("value_head" in name for name in start) == (kind == "ppo")
    kept = weights(sharded)
    sharded.save_to_path(str(tmp_path))
    assert distance(whole_state(tmp_path), kept) == 0
    sharded.train()
    sharded.restore_from_path(str(tmp_path))
    assert distance(weights(sharded), kept) == 0


@pytest.mark.slow
def test_parts_are_read_by_any_number_of_learners(pair, make_once, tmp_path):
    sharded, alone, *_ = pair
    sharded.save_to_path(str(tmp_path))
    (parts,) = tmp_path.glob("learners-*")
    assert len(list(parts.iterdir())) == 2
    files = [file.suffix for file in tmp_path.rglob("*") if file.is_file()]
    assert set(files) == {".json", ".safetensors"}  # and no pickle
    whole = weights(sharded)
    again = make_once(**SETTINGS)
    again.restore_from_path(str(tmp_path))  # two learners' parts into one
    assert distance(weights(again), whole) == 0
    assert distance(whole_state(tmp_path), whole) == 0
    run = GRPORun(**asdict(sharded.config.settings))
    save_whole_model(tmp_path, run, tmp_path / "model")
    played = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(played[name.removeprefix("lm.")], whole[name]) for name in whole)
    for algo in (sharded, again):
        algo.train()  # Adam's moments too
    assert distance(weights(again), weights(sharded)) < 1e-5
    for _ in range(2):
        alone.train()
    alone.save_to_path(str(tmp_path / "one"))
    sharded.restore_from_path(str(tmp_path / "one"))  # one learner's whole into two
    assert distance(weights(sharded), weights(alone)) == 0
    for algo in (sharded, alone):
        algo.train()
    assert distance(weights(sharded), weights(alone)) < 1e-5


@pytest.mark.slow
def test_parts_of_an_unfinished_checkpoint_are_never_taken_up(pair, tmp_path, monkeypatch):
    sharded, *_ = pair
    sharded.save_to_path(str(tmp_path))
    before = weights(sharded)
    sharded.train()
    from medseg_agents.grpo import algorithm

    def killed(state, folder):
        state.get_state()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sharded.learner_group, "call", lambda *given: None)
        with pytest.raises(MedSegError, match="a path that all hosts see"):
            sharded.save_to_path(str(tmp_path))
        assert distance(whole_state(tmp_path), before) == 0
    with monkeypatch.context() as patch:
        patch.setattr(algorithm, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            sharded.save_to_path(str(tmp_path))
    assert len(list(tmp_path.glob("learners-*"))) == 3
    assert distance(whole_state(tmp_path), before) == 0
    sharded.save_to_path(str(tmp_path))
    (parts,) = tmp_path.glob("learners-*")
    assert distance(whole_state(tmp_path), weights(sharded)) == 0
    state = json.loads((tmp_path / "state.json").read_text())
    assert read_state(tmp_path)["learner_parts"]["folder"] == parts.name
    (tmp_path / "state.json").write_text(json.dumps(state).replace(parts.name, "../elsewhere"))
    with pytest.raises(MedSegError, match="outside"):
        whole_state(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps(state))
    second = sorted(parts.iterdir())[1]
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(MedSegError, match="damaged"):
        sharded.restore_from_path(str(tmp_path))
    second.unlink()
    with pytest.raises(MedSegError, match="missing"):
        whole_state(tmp_path)


def rows_of(algo):
    """Rows of an iteration, with advantages."""
    learner = algo.learner_group._learner
    learner.before_gradient_based_update(timesteps={})
    batch = learner._learner_connector(
        rl_module=learner.module,
        batch={},
        episodes=algo.env_runner.sample(groups=dealt(algo)),
        shared_data={},
        metrics=learner.metrics,
    )
    return batch[DEFAULT_MODULE_ID][ROWS]


def without_images(row, token):
    """A row that shows nothing."""
    kept = row.tokens != token
    row = copy.copy(row)
    places = np.cumsum(kept) - 1
    for name in ("tokens", "completion_mask", "log_probs", "turns", "advantages"):
        setattr(row, name, getattr(row, name)[kept])
    row.prompt_ends = {turn: int(places[end]) for turn, end in row.prompt_ends.items()}
    row.images, row.num_prompt_images = [], 0
    return row


def step(learner, shares, steps_taken=1):
    """One gradient step on this learner's share of the rows."""
    rank = torch.distributed.get_rank() if len(shares) > 1 else 0
    learner.before_gradient_based_update(timesteps={})
    learner._steps_taken = steps_taken  # 1: the sampler read other rows than these
    learner._update({DEFAULT_MODULE_ID: {ROWS: shares[rank]}})


@pytest.mark.slow
def test_learners_may_have_unequal_rows_and_images(pair, tmp_path):
    sharded, alone, *_ = pair
    alone.save_to_path(str(tmp_path))
    sharded.restore_from_path(str(tmp_path))  # an earlier state, and still it is taken
    assert distance(weights(sharded), weights(alone)) == 0
    rows = rows_of(alone)
    token = alone.own_module().base.config.image_token_id
    first = [row for row in rows if row.episode < 4]
    second = [without_images(row, token) for row in rows if row.episode in (4, 5)]
    sharded.learner_group.call(step, [first, second])
    alone.learner_group.call(step, [first + second])
    assert distance(weights(sharded), weights(alone)) < 1e-5


@pytest.mark.slow
def test_an_error_on_one_learner_is_raised_on_all(pair, monkeypatch):
    sharded, alone, *_ = pair
    rows = rows_of(alone)
    first, second = ([row for row in rows if row.episode // 4 == n] for n in range(2))
    wrong = [copy.copy(row) for row in second]
    for row in wrong:
        row.log_probs = row.log_probs - 1
    before = weights(sharded)
    with pytest.raises(LogProbMismatch, match="sampler and learner"):
        sharded.learner_group.call(step, [first, wrong], 0)
    assert distance(weights(sharded), before) == 0  # all are there, and nothing was learned
    monkeypatch.setattr(learner_group, "GRACE", 1.0)

    def leaves(learner):
        if torch.distributed.get_rank() == 1:
            raise ZeroDivisionError("on one learner alone")
        torch.distributed.barrier()

    with pytest.raises(ZeroDivisionError, match="on one learner alone"):
        sharded.learner_group.call(leaves)


@pytest.mark.slow
def test_a_learner_that_dies_ends_the_run_with_an_error(make, monkeypatch):
    algo = make(learners=2, groups=2)
    monkeypatch.setattr(learner_group, "GRACE", 1.0)

    def dies(learner):
        if torch.distributed.get_rank() == 1:
            os._exit(1)
        torch.distributed.barrier()

    with pytest.raises(Exception, match="died"):
        algo.learner_group.call(dies)
