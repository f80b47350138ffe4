"""Set-ups that Ray would wait for for ever are refused before they are."""

import pytest
from medseg_agents.grpo import GRPOConfig
from medseg_agents.grpo.sharding.placement import check_placement, requests_of

from medseg_gym.cases.case_source import CaseList
from medseg_gym.errors import MedSegError

CPU1, GPU1, HALF = {"CPU": 1.0}, {"GPU": 1.0}, {"CPU": 1.0, "GPU": 0.6}


@pytest.mark.parametrize(
    ("kinds", "nodes", "fits"),
    [
        ([("learner", 2, CPU1), ("runner", 1, CPU1)], [{"CPU": 2.0}], False),
        ([("learner", 2, CPU1), ("runner", 1, CPU1)], [{"CPU": 2.0}, {"CPU": 1.0}], True),
        ([("learner", 1, {"CPU": 2.0})], [{"CPU": 1.0}, {"CPU": 1.0}], False),  # no host has two
        ([("learner", 2, GPU1)], [{"CPU": 8.0}], False),
        ([("learner", 2, GPU1), ("runner", 6, GPU1)], [{"CPU": 8.0, "GPU": 8.0}], True),
        ([("runner", 3, HALF)], [{"CPU": 8.0, "GPU": 2.0}], False),  # 1.8 GPUs, but 0.6 of each
        ([("runner", 2, HALF)], [{"CPU": 8.0, "GPU": 2.0}], True),
        ([("learner", 1, {"GPU": 2.0})], [{"GPU": 1.0}, {"GPU": 2.0}], True),
        ([("runner", 1, {"CPU": 1.0, "scanner": 1.0})], [{"CPU": 4.0}], False),
    ],
)
def test_processes_are_packed_onto_hosts(kinds, nodes, fits):
    if fits:
        check_placement(kinds, nodes)
    else:
        with pytest.raises(MedSegError, match=f"{kinds[-1][0]}s can never start|learners can"):
            check_placement(kinds, nodes)


def test_a_refusal_says_what_is_asked_and_what_is_there():
    kinds = [("learner", 2, CPU1), ("runner", 1, CPU1)]
    words = "2 learners of 1 CPU and 1 runner of 1 CPU, and Ray has 2 CPU"
    with pytest.raises(MedSegError, match=words):
        check_placement(kinds, [{"CPU": 2.0, "memory": 1e9, "node:10.0.0.1": 1.0}])


def test_what_a_configuration_asks_for():
    config = GRPOConfig().env_runners(num_env_runners=6, num_gpus_per_env_runner=1)
    config.learners(num_learners=2, num_gpus_per_learner=1)
    assert requests_of(config) == [
        ("learner", 2, {"GPU": 1.0}),
        ("runner", 6, {"CPU": 1.0, "GPU": 1.0}),
    ]
    assert requests_of(GRPOConfig()) == []


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_more_processes_than_the_cluster_holds_are_refused_at_once(make):
    with pytest.raises(MedSegError, match="can never start"):  # the cluster has four cores
        make(learners=2, runners=3)


def test_one_learner_has_nothing_to_shard_with(caller, small_cases):
    config = GRPOConfig().environment(env_config={"cases": CaseList(small_cases)})
    config.chat(model=str(caller), shard=True)
    for learners in (0, 1):
        with pytest.raises(MedSegError, match="at least two"):
            config.learners(num_learners=learners).validate()
