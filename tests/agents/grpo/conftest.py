"""Algorithms on small cases with the tiny model that makes calls."""

import contextlib
import copy

import pytest

pytest.importorskip("trl")

import torch
from medseg_agents.grpo import ChatPPOConfig, GRPOConfig

from medseg_gym.cases.case_source import CaseList

from ..rllib.conftest import ray_cluster  # noqa: F401  (a fixture)


@pytest.fixture
def make(caller, small_cases, ray_cluster):  # noqa: F811
    """Builds algorithms; they are stopped when the test ends."""
    with maker(caller, small_cases) as make:
        yield make


@pytest.fixture(scope="module")
def make_once(caller, small_cases, ray_cluster):  # noqa: F811
    """Builds algorithms that the tests of a file share."""
    with maker(caller, small_cases) as make:
        yield make


@contextlib.contextmanager
def maker(caller, small_cases):
    """Builds algorithms; they are stopped at the end."""
    built = []

    def make(kind="grpo", lr=1e-3, seed=0, runners=0, learners=0, slots=0, env=None, **settings):
        config = GRPOConfig() if kind == "grpo" else ChatPPOConfig()
        options = {
            "cases": CaseList(small_cases),
            "backbone": "ellipse",
            "image_size": 64,
            "texts": "terse",
            "max_steps": 3,
        }
        config.environment(env_config={**options, **(env or {})})
        config.training(lr=lr, num_epochs=1).debugging(seed=seed, log_level="ERROR")
        config.env_runners(num_env_runners=runners).learners(num_learners=learners)
        sizes = (
            {"groups": 4, "num_generations": 4}
            if kind == "grpo"
            else {"groups": 16, "minibatches": 1}
        )
        sizes = {"micro_batch": 4, **sizes, **settings}
        defaults = {"max_completion_length": 30, "warmup": 1, "micro_batch": 4}
        config.chat(model=str(caller), **{**defaults, **sizes, **settings})
        if slots:
            config.env_runners(num_envs_per_env_runner=slots)
        algo = config.build_algo()
        built.append(algo)
        return algo

    with torch.random.fork_rng(devices=[]):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield make
        torch.set_num_threads(threads)
    for algo in built:
        algo.stop()


def learned(result):
    """Return the metrics that the learner logged."""
    return result["learners"]["default_policy"]


def weights_of(algo):
    """Trained weights of the learner in this process."""
    return algo.own_module().get_state()


def gradients_of(algo):
    """Gradient of the only step so far, by parameter, as AdamW's first moments have kept it.

    Weights after a step of Adam say less: its size is the same however small a gradient is, so that
    one that is nothing but rounding moves a weight as far as any other.
    """
    (optimiser,) = algo.learner_group._learner._named_optimizers.values()
    moments = []
    for group in optimiser.param_groups:
        for one in group["params"]:
            state = optimiser.state.get(one)
            if state:  # else the loss does not depend on it
                assert state["step"] == 1
                moments.append(state["exp_avg"] / (1 - group["betas"][0]))
    assert len(moments) > 10
    return moments


def assert_same_gradients(one, other):
    """Check that two algorithms took their only step along the same gradient, rounding apart."""
    largest = max(float(gradient.abs().max()) for gradient in gradients_of(one))
    assert largest > 1e-4
    for ours, theirs in zip(gradients_of(one), gradients_of(other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * largest)


def dealt(algo, iteration=0):
    """Groups that an iteration of a fresh run plays."""
    choice, count = copy.deepcopy(algo._choice), algo.config.settings.groups
    choice.dealt = iteration * count
    return choice.deal(count)
