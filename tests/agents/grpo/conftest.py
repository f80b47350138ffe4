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


def dealt(algo, iteration=0):
    """Groups that an iteration of a fresh run plays."""
    choice, count = copy.deepcopy(algo._choice), algo.config.settings.groups
    choice.dealt = iteration * count
    return choice.deal(count)
