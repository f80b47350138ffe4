"""Learners that hold one model in shards, on CPUs over gloo."""

import pytest
import torch

from .conftest import learned, weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def distance(one, other):
    """Norm of the difference by norm of the reference."""
    assert one.keys() == other.keys()
    apart = sum(((one[n].double() - other[n].double()) ** 2).sum() for n in other)
    return float((apart / sum((other[n].double() ** 2).sum() for n in other)) ** 0.5)


def holds(learner):
    """Bytes of this learner's parameters and Adam's moments, and of the whole."""
    from medseg_agents.grpo.sharding.fsdp import local_bytes

    parameters = list(learner.chat_module.trained().values())
    (optimiser,) = learner._named_optimizers.values()
    kept = parameters + [
        value for p in parameters for value in optimiser.state[p].values() if value.dim()
    ]
    return local_bytes(kept), sum(t.numel() * t.element_size() for t in kept)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("grpo", {"beta": 0.1, "micro_batch": 3}),
        pytest.param("grpo", {"lora_rank": 4, "beta": 0.1, "lr": 1e-2}, marks=pytest.mark.slow),
        pytest.param("ppo", {"minibatches": 2, "entropy": 0.01}, marks=pytest.mark.slow),
    ],
    ids=["all weights", "adapters", "value head"],
)
def test_two_sharded_learners_learn_as_one(make, kind, settings):
    sharded, alone = make(kind, learners=2, shard=True, **settings), make(kind, **settings)
    start = weights_of(alone)
    for _ in range(2):
        results = [learned(algo.train()) for algo in (sharded, alone)]
    found, wanted = weights_of(sharded), weights_of(alone)
    assert distance(found, wanted) < 1e-5 < 1e-3 < distance(start, wanted)
    norms = [result["gradients_default_optimizer_global_norm"] for result in results]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    print(distance(found, wanted), distance(start, wanted), norms)
    for held, of in sharded.learner_group.call(holds):
        print(held, of)
        assert held < 0.52 * of
