"""GPUs that each part of a run asks for; a table, for there is none here."""

import pytest
from medseg_agents.runs.gpus import (
    GpuPlan,
    GpuRequest,
    count_gpus,
    describe_devices,
    learner_gpus,
    plan_gpus,
)

from medseg_gym.errors import MedSegError


@pytest.mark.parametrize(
    ("request_", "here", "cluster", "plan"),
    [
        # A machine without GPUs.
        (GpuRequest(), 0, 0, GpuPlan(0, 0, 0)),
        (GpuRequest(learners=2, env_runners=2, shared_backbone=True), 0, 0, GpuPlan(0, 0, 0)),
        (GpuRequest(per_learner=0, per_runner=0), 0, 0, GpuPlan(0, 0, 0)),
        # One GPU: the learner of this process has it, runners share it.
        (GpuRequest(), 1, 1, GpuPlan(1, 0, 0)),
        (GpuRequest(device="cuda"), 1, 1, GpuPlan(1, 0, 0)),
        (GpuRequest(shared_backbone=True), 1, 1, GpuPlan(1, 0, 0.1)),
        (GpuRequest(env_runners=2), 1, 1, GpuPlan(1, 0.5, 0)),
        (GpuRequest(env_runners=2, shared_backbone=True), 1, 1, GpuPlan(1, 0.45, 0.1)),
        # On purpose on the CPU.
        (GpuRequest(device="cpu"), 1, 1, GpuPlan(0, 0, 0)),
        (GpuRequest(device="cpu", per_learner=0), 1, 1, GpuPlan(0, 0, 0)),
        (GpuRequest(device="cpu", env_runners=2, shared_backbone=True), 4, 4, GpuPlan(0, 0, 0)),
        (GpuRequest(device="cpu", per_learner=1), 1, 1, GpuPlan(1, 0, 0)),
        # Several: Ray hands out the first ones, a learner of this process takes the last.
        (GpuRequest(env_runners=3), 4, 4, GpuPlan(1, 1, 0, 3)),
        (GpuRequest(env_runners=6), 4, 4, GpuPlan(1, 0.5, 0, 3)),
        (GpuRequest(learners=2, env_runners=6), 8, 8, GpuPlan(1, 1, 0)),
        (GpuRequest(learners=2, env_runners=6, shared_backbone=True), 8, 8, GpuPlan(1, 0.9, 0.1)),
        (GpuRequest(learners=2, env_runners=13), 8, 8, GpuPlan(1, 0.3333, 0)),
        # A head node without GPUs.
        (GpuRequest(learners=1, env_runners=3), 0, 4, GpuPlan(1, 1, 0)),
        # What is said is done.
        (GpuRequest(env_runners=2, per_runner=0.25), 1, 1, GpuPlan(1, 0.25, 0)),
        (GpuRequest(learners=1, env_runners=2, per_learner=0.5, per_runner=0.25), 1, 1,
         GpuPlan(0.5, 0.25, 0)),
        (GpuRequest(env_runners=2, per_runner=0), 1, 1, GpuPlan(1, 0, 0)),
    ],
)  # fmt: skip
def test_what_is_left_open_is_decided(request_, here, cluster, plan):
    assert plan_gpus(request_, here, cluster) == plan


@pytest.mark.parametrize(
    ("request_", "here", "cluster", "message"),
    [
        (GpuRequest(per_learner=0), 1, 1, "would train on the CPU.*--device cpu"),
        (GpuRequest(learners=2, env_runners=2, per_learner=0), 0, 4, "would train on the CPU"),
        (GpuRequest(per_learner=1), 0, 0, "this process, which sees no GPU"),
        (GpuRequest(), 0, 4, "this process, which sees no GPU.*--learners 1"),
        (GpuRequest(learners=2, env_runners=1), 1, 1, "2 learners need a GPU each.*1 in the"),
        (GpuRequest(learners=4, env_runners=1), 4, 4, "learners take all 4 GPUs"),
        (GpuRequest(learners=2, env_runners=2, per_learner=0.5, per_runner=0.5), 2, 2, "NCCL"),
        (GpuRequest(learners=1, per_learner=1), 2, 2, "own process plays, on the CPU"),
        (GpuRequest(env_runners=3, per_runner=1), 2, 2, "ask for 3 GPUs of 2.*waited for"),
        (GpuRequest(env_runners=1, per_runner=1), 0, 0, "ask for 1 GPUs of 0"),
        (GpuRequest(learners=1, env_runners=1, per_runner=1, shared_backbone=True), 2, 2, "2.1"),
    ],
)
def test_what_would_be_slow_or_wait_for_ever_is_refused(request_, here, cluster, message):
    with pytest.raises(MedSegError, match=message):
        plan_gpus(request_, here, cluster)


def test_a_configuration_of_your_own_is_refused_too(monkeypatch):
    pytest.importorskip("ray")
    from medseg_agents.grpo import GRPOConfig, algorithm

    assert GRPOConfig().num_gpus_per_learner == (1 if count_gpus()[0] else 0)
    monkeypatch.setattr(algorithm, "count_gpus", lambda: (1, 1.0))
    config = GRPOConfig().chat(model="any")
    assert config.num_gpus_per_learner == 1
    config.learners(num_gpus_per_learner=0)
    with pytest.raises(MedSegError, match="--device cpu"):
        config.validate()
    assert learner_gpus(GpuRequest(per_learner=0, device="cpu"), 1, 1.0) == 0


def test_devices_are_one_line():
    devices = {
        "learner": ["cuda:0", "cuda:1"],
        "sampler": ["cuda:0"] * 3,
        "segmenter": ["cpu"],
    }
    line = describe_devices(devices, GpuPlan(1, 0.5, 0))
    assert line == (
        "learner on 1 x cuda:0, 1 x cuda:1; sampler on 3 x cuda:0 (0.5 of a GPU each); "
        "segmenter on cpu"
    )
