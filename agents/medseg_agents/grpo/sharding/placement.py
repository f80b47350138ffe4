"""Check that a cluster can hold the processes of a configuration, before they are waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg_gym.errors import MedSegError

Request = Mapping[str, float]
"""CPUs, GPUs and custom resources of one process, by name."""


def requests_of(config: Any) -> list[tuple[str, int, dict[str, float]]]:
    """Return what a configuration asks Ray for.

    Args:
        config: An `AlgorithmConfig`.

    Returns:
        Name, number and resources of each kind of remote process.
    """
    cpus = config.num_cpus_per_learner
    if cpus == "auto":
        cpus = 0 if config.num_gpus_per_learner else 1
    kinds: list[tuple[str, int, dict[str, float]]] = [
        (
            "learner",
            int(config.num_learners),
            {
                "CPU": float(cpus),
                "GPU": float(config.num_gpus_per_learner),
                **(config.custom_resources_per_learner or {}),
            },
        ),
        (
            "runner",
            int(config.num_env_runners),
            {
                "CPU": float(config.num_cpus_per_env_runner),
                "GPU": float(config.num_gpus_per_env_runner),
                **(config.custom_resources_per_env_runner or {}),
            },
        ),
    ]
    return [
        (name, count, {kind: value for kind, value in needs.items() if value})
        for name, count, needs in kinds
        if count
    ]


def check_placement(
    kinds: Sequence[tuple[str, int, Mapping[str, float]]], nodes: Sequence[Mapping[str, float]]
) -> None:
    """Refuse processes that Ray would wait for for ever.

    Args:
        kinds: Name, number and resources of each kind of process.
        nodes: Resources of each host.

    Raises:
        MedSegError: They do not fit, even if nothing else runs.
    """
    wanted = [(name, needs) for name, count, needs in kinds for _ in range(count)]
    # Large ones first: a greedy packing then fails only where little or nothing could do better.
    wanted.sort(key=lambda one: (-one[1].get("GPU", 0), -one[1].get("CPU", 0)))
    free = [_Host(node) for node in nodes]
    for name, needs in wanted:
        if not any(host.take(needs) for host in free):
            asked = " and ".join(
                f"{count} {name}{'s' if count > 1 else ''} of {_words(needs)}"
                for name, count, needs in kinds
            )
            there = "; ".join(_words(node) for node in nodes) or "no host"
            raise MedSegError(
                f"the {name}s can never start: the run asks for {asked}, and Ray has {there}. Ask "
                "for fewer (--learners, --env-runners, --gpus-per-learner, --gpus-per-runner), "
                "start more hosts (`ray start`) before the run, or say that a host has more CPUs "
                "(`ray start --num-cpus`)"
            )


class _Host:
    def __init__(self, node: Mapping[str, float]) -> None:
        self._free = dict(node)
        # A part of a GPU is a part of one GPU; whole GPUs may be any.
        self._gpus = [1.0] * int(node.get("GPU", 0))

    def take(self, needs: Mapping[str, float]) -> bool:
        rest = {name: value for name, value in needs.items() if name != "GPU"}
        if any(self._free.get(name, 0.0) < value - 1e-6 for name, value in rest.items()):
            return False
        gpus = needs.get("GPU", 0.0)
        if gpus >= 1:
            whole = [i for i, left in enumerate(self._gpus) if left >= 1 - 1e-6]
            if len(whole) < gpus:
                return False
            for i in whole[: int(gpus)]:
                self._gpus[i] = 0.0
        elif gpus:
            place = next((i for i, left in enumerate(self._gpus) if left >= gpus - 1e-6), None)
            if place is None:
                return False
            self._gpus[place] -= gpus
        for name, value in rest.items():
            self._free[name] -= value
        return True


def _words(resources: Mapping[str, float]) -> str:
    shown = [
        f"{value:g} {name}"
        for name, value in sorted(resources.items())
        if name in ("CPU", "GPU") or not name.startswith(("node:", "memory", "object_store"))
    ]
    return ", ".join(shown) or "nothing"


def check_cluster(config: Any) -> None:
    """Refuse a configuration whose processes this cluster can never hold.

    Args:
        config: An `AlgorithmConfig`.

    Raises:
        MedSegError: See `check_placement`.
    """
    kinds = requests_of(config)
    if not kinds:
        return
    import ray

    from medseg_agents.arrays.rllib.train import start_ray

    start_ray()
    if ray.util.get_current_placement_group() is not None:
        return  # a trial of Tune: its resources are reserved already
    check_placement(kinds, [node["Resources"] for node in ray.nodes() if node["Alive"]])
