"""Assignment of a run's parts to GPUs: one decision, from the settings and what there is.

RLlib puts a learner on the CPU unless it is told to ask for a GPU, and Ray waits for ever for GPUs
that it does not have. So what the settings leave open is decided here, and what cannot be, or would
train on the CPU beside an idle GPU, is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from medseg_gym.errors import MedSegError

BACKBONE_SHARE = 0.1
"""Share of a GPU that a shared segmenter asks for; a SAM of any size needs no more memory."""


@dataclass(frozen=True)
class GpuRequest:
    """Requests in the settings of a run; None leaves a number to `plan_gpus`.

    Args:
        learners: Processes that learn; 0 is the run's own process.
        env_runners: Processes that play; 0 is the run's own process.
        per_learner: GPUs of each learner.
        per_runner: GPUs of each runner.
        device: Of the segmenter, as "auto", "cpu" or "cuda"; "cpu" keeps the whole run off the
            GPUs wherever no number is given.
        shared_backbone: Whether one Ray actor serves the segmenter.
    """

    learners: int = 0
    env_runners: int = 0
    per_learner: float | None = None
    per_runner: float | None = None
    device: str = "auto"
    shared_backbone: bool = False

    @classmethod
    def of(cls, run: Any) -> GpuRequest:
        """Return the requests in the settings of a run of GRPO or turn-level PPO, a `ChatRun`."""
        return cls(
            run.learners,
            run.env_runners,
            run.gpus_per_learner,
            run.gpus_per_runner,
            run.device,
            run.shared_backbone,
        )


@dataclass(frozen=True)
class GpuPlan:
    """GPUs that the parts of a run ask for.

    Args:
        per_learner: Of each learner.
        per_runner: Of each remote runner.
        backbone: Of the shared segmenter.
        local_gpu: Number of the GPU of a learner in this process, among those it sees.
    """

    per_learner: float
    per_runner: float
    backbone: float
    local_gpu: int = 0


def plan_gpus(request: GpuRequest, here: int, cluster: float) -> GpuPlan:
    """Decide which part of a run asks for how much of a GPU.

    A learner takes a whole GPU where there is one. Remote runners divide what is left evenly, so
    that equally many share a GPU. A learner in the run's own process, of which Ray knows nothing,
    takes the last GPU, for Ray hands out the first ones first; where there is one GPU alone the
    runners share it with the learner.

    Args:
        request: What the settings say.
        here: GPUs that torch sees in this process.
        cluster: GPUs that Ray has to give.

    Raises:
        MedSegError: A part would be computed on the CPU without that being said, or more GPUs are
            asked for than there are.
    """
    on_cpu = request.device == "cpu"
    some = here > 0 or cluster > 0
    per_learner = learner_gpus(request, here, cluster)
    backbone = backbone_share(request.device, cluster) if request.shared_backbone else 0.0
    taken = request.learners * per_learner
    if request.learners == 0 and per_learner and cluster > 1:
        taken = 1.0  # which Ray does not know
    per_runner = request.per_runner
    if per_runner is None:
        per_runner = 0.0
        if request.env_runners and some and not on_cpu:
            free = math.floor(cluster - taken + 1e-9)
            if free < 1:
                raise MedSegError(
                    f"{request.learners} learners take all {cluster:g} GPUs, and "
                    f"{request.env_runners} runners would play on the CPU: fewer learners, or one "
                    "learner and its runners as shares of one GPU: --gpus-per-learner 0.5 "
                    "--gpus-per-runner 0.2"
                )
            together = math.ceil(request.env_runners / free)
            per_runner = math.floor((1 - backbone) / together * 1e4) / 1e4
    if request.learners > 1 and 0 < per_learner <= 0.5 and not on_cpu:
        raise MedSegError(
            f"{request.learners} learners with {per_learner:g} of a GPU each: Ray would put two on "
            "one GPU, which NCCL refuses. Give each a whole one: --gpus-per-learner 1"
        )
    asked = request.learners * per_learner + request.env_runners * per_runner + backbone
    if asked > cluster + 1e-6:
        raise MedSegError(
            f"{request.learners} learners with {per_learner:g} GPUs, {request.env_runners} runners "
            f"with {per_runner:g}{' and the segmenter' if backbone else ''} ask for {asked:g} GPUs "
            f"of {cluster:g}, and would be waited for for ever"
        )
    if request.env_runners == 0 and request.learners and some and not on_cpu:
        raise MedSegError(
            f"with {request.learners} learners and no runners the run's own process plays, on the "
            "CPU: give --env-runners, or --learners 0 to play and learn on one GPU, or --device "
            "cpu to want that"
        )
    apart = request.learners == 0 and per_learner and request.env_runners and here > 1
    return GpuPlan(per_learner, per_runner, backbone, here - 1 if apart else 0)


def learner_gpus(request: GpuRequest, here: int, cluster: float) -> float:
    """Return the GPUs that a learner asks for.

    Args:
        request: What the settings say.
        here: GPUs that torch sees in this process.
        cluster: GPUs that Ray has to give.

    Raises:
        MedSegError: It would be on the CPU without that being said, or there are too few.
    """
    on_cpu = request.device == "cpu"
    there = here if request.learners == 0 else cluster
    wanted = request.per_learner
    if wanted is None:
        if on_cpu or not (here or cluster):
            return 0.0
        if request.learners > there or not there:
            who = (
                f"{request.learners} learners need a GPU each"
                if request.learners
                else ("the learner is in this process, which sees no GPU")
            )
            raise MedSegError(
                f"{who}, and there are {cluster:g} in the cluster: give --learners 1 or more, as "
                "many as there are GPUs, or --device cpu to train on the CPU"
            )
        return 1.0
    if wanted == 0 and there and not on_cpu:
        raise MedSegError(
            f"gpus_per_learner is 0 and there are {there:g} GPUs: the run would train on the CPU. "
            "Leave it out, or add --device cpu to want that"
        )
    if wanted and request.learners == 0 and not here:
        raise MedSegError(
            f"gpus_per_learner is {wanted:g}, and the learner is in this process, which sees no "
            "GPU: torch.cuda finds none (a CPU build of torch, a driver, CUDA_VISIBLE_DEVICES)"
        )
    return wanted


def backbone_share(device: str, cluster: float) -> float:
    """Return the GPUs that the actor of a shared segmenter asks for.

    Args:
        device: Of the segmenter.
        cluster: GPUs that Ray has to give.
    """
    return BACKBONE_SHARE if cluster and device != "cpu" else 0.0


def count_gpus() -> tuple[int, float]:
    """Return the GPUs that torch sees in this process, and those of Ray's cluster.

    Without a running Ray the second is the first: a local one would have as many.
    """
    import torch

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        import ray
    except ImportError:
        return here, float(here)
    if not ray.is_initialized():
        return here, float(here)
    cluster: dict[str, Any] = ray.cluster_resources()
    return here, float(cluster.get("GPU", 0.0))


def find_devices(algo: Any, plan: GpuPlan) -> dict[str, list[str]]:
    """Ask every part of an algorithm where it computes.

    Args:
        algo: Of RLlib, with chat runners and learners.
        plan: What they were given.

    Returns:
        Devices of "learner", "sampler" and "segmenter", one of each process.

    Raises:
        MedSegError: A part was given a GPU and is on the CPU all the same.
    """
    learners = [str(one) for one in _of_learners(algo)]
    runners = _of_runners(algo)
    devices = {
        "learner": learners,
        "sampler": [sampler for sampler, _ in runners],
        "segmenter": [segmenter for _, segmenter in runners],
    }
    for part, asked in (("learner", plan.per_learner), ("sampler", plan.per_runner)):
        if asked and any(device.startswith("cpu") for device in devices[part]):
            raise MedSegError(
                f"the {part} was given {asked:g} of a GPU and is on the CPU: {devices[part]}; "
                "torch finds no CUDA where it runs"
            )
    return devices


def describe_devices(devices: dict[str, list[str]], plan: GpuPlan) -> str:
    """Return the devices of a run in one line.

    Args:
        devices: By `find_devices`.
        plan: What the parts were given.
    """
    shares = {"learner": plan.per_learner, "sampler": plan.per_runner, "segmenter": plan.backbone}
    parts = []
    for part, used in devices.items():
        kinds = [f"{used.count(d)} x {d}" if len(used) > 1 else d for d in sorted(set(used))]
        share = f" ({shares[part]:g} of a GPU each)" if 0 < shares[part] < 1 else ""
        parts.append(f"{part} on {', '.join(kinds)}{share}")
    return "; ".join(parts)


def _of_learners(algo: Any) -> list[Any]:
    group = algo.learner_group
    if algo.config.num_learners == 0:
        return [group._learner._device]
    return [result.get() for result in group.foreach_learner(lambda learner, **_: learner._device)]


def _of_runners(algo: Any) -> list[tuple[str, str]]:
    def places(runner: Any) -> tuple[str, str]:
        segmenter = getattr(runner.env.engine.backbone, "device", "unknown")
        return str(runner.module.lm.device), str(segmenter)

    group = algo.env_runner_group
    remote = group.num_remote_workers() > 0
    devices: list[tuple[str, str]] = group.foreach_env_runner(places, local_env_runner=not remote)
    return devices
