"""Time of PPO by stage (environment, policy, library, update), and growth of memory.

    python -m benchmarks.learning.training_time

Trains with SB3 and with RLlib, both in this process, with the same settings. Every moment counts
for the innermost of: the environment's step, segmenting included; the network while it plays; the
update; and what is left, which is the library's. The two take turns, so that their ratio holds on
a noisy machine. Then SB3's policy plays on for `--leak-steps`, and the memory of the process is
compared before and after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from medseg_agents.arrays.networks import PromptNetwork
from medseg_agents.arrays.rllib.config import RLlibPPOConfig
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.runs.machine import describe_machine

from medseg_gym.display.terminal import Table, make_console
from medseg_gym.envs.medseg_vector import MedSegVectorEnv
from medseg_gym.storage.atomic_write import atomic_write

PARTS = ("environment", "policy", "library", "update")


class Clock:
    """Seconds by part; a part that is inside another one is not counted twice.

    Args:
        parts: Their names; what is inside "update" counts for it.

    Attributes:
        seconds: By the wall's clock.
        cpu_seconds: Of this process's CPU, which other programs on the machine do not stretch.
    """

    def __init__(self, parts: Sequence[str] = PARTS) -> None:
        self.seconds = dict.fromkeys(parts, 0.0)
        self.cpu_seconds = dict.fromkeys(parts, 0.0)
        self._stack: list[str] = []
        self._since, self._busy = 0.0, 0.0

    @contextmanager
    def inside(self, stage: str) -> Iterator[None]:
        """Count for a part; the network inside an update counts for the update."""
        if "update" in self._stack:
            yield
            return
        self._turn()
        self._stack.append(stage)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def _turn(self) -> None:
        now, busy = time.perf_counter(), time.process_time()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
            self.cpu_seconds[self._stack[-1]] += busy - self._busy
        self._since, self._busy = now, busy

    @contextmanager
    def watch(self, owner: type, method: str, stage: str) -> Iterator[None]:
        """Count all calls of a method for a part."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.inside(stage):
                return original(*args, **kwargs)

        setattr(owner, method, timed)
        try:
            yield
        finally:
            setattr(owner, method, original)


class SB3Trainer:
    """SB3's PPO, update by update."""

    name = "SB3"

    def __init__(self, config: SB3PPOConfig) -> None:
        from medseg_agents.arrays.sb3.train import make_model, make_vec_env
        from stable_baselines3 import PPO

        self.model = make_model(config, make_vec_env(config))
        self.batch, self.owner, self.method = config.batch, PPO, "train"

    def iterate(self) -> int:
        """One rollout and one update; the environment steps taken."""
        self.model.learn(self.batch, reset_num_timesteps=False)
        return self.batch


class RLlibTrainer:
    """RLlib's PPO, update by update, with runner and learner in this process."""

    name = "RLlib"

    def __init__(self, config: RLlibPPOConfig) -> None:
        from medseg_agents.arrays.rllib.ppo import ppo_config
        from medseg_agents.arrays.rllib.train import start_ray
        from ray.rllib.core.learner.learner_group import LearnerGroup

        start_ray()
        self.algo: Any = ppo_config(config).build_algo()
        self.owner, self.method, self._taken = LearnerGroup, "update", 0

    def iterate(self) -> int:
        """One rollout and one update; the environment steps taken."""
        before = self._taken
        self._taken = int(self.algo.train()["num_env_steps_sampled_lifetime"])
        return self._taken - before


def measure(
    backbone: Annotated[str, typer.Option(help="Who segments.")] = "pocket",
    cases: Annotated[str, typer.Option(help="Training cases.")] = "phantoms:abdomen",
    pool: Annotated[int, typer.Option(help="So many of them.")] = 64,
    num_envs: Annotated[int, typer.Option(help="Slots.")] = 16,
    iterations: Annotated[int, typer.Option(help="Rollouts and updates of each library.")] = 6,
    leak_steps: Annotated[int, typer.Option(help="Environment steps; 0 leaves it out.")] = 10_000,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/training_time"),
) -> None:
    """Time both libraries, print milliseconds per environment step, watch the memory."""
    shared: dict[str, Any] = {
        "backbone": backbone,
        "cases": cases,
        "pool": pool,
        "num_envs": num_envs,
        "eval_every": 0,
    }
    trainers: list[SB3Trainer | RLlibTrainer] = [
        SB3Trainer(SB3PPOConfig(**shared)),
        RLlibTrainer(RLlibPPOConfig(**shared)),
    ]
    for trainer in trainers:
        trainer.iterate()  # encodes what the pool holds
    clocks, steps = [Clock() for _ in trainers], [0 for _ in trainers]
    for _ in range(iterations):
        for number, trainer in enumerate(trainers):
            clock = clocks[number]
            with ExitStack() as stack:
                stack.enter_context(clock.watch(MedSegVectorEnv, "step", "environment"))
                stack.enter_context(clock.watch(PromptNetwork, "forward", "policy"))
                stack.enter_context(clock.watch(trainer.owner, trainer.method, "update"))
                stack.enter_context(clock.inside("library"))
                steps[number] += trainer.iterate()
    rows = [
        {
            "library": trainer.name,
            "steps": taken,
            **{f"{stage}_ms": 1e3 * clock.seconds[stage] / taken for stage in PARTS},
        }
        for trainer, clock, taken in zip(trainers, clocks, steps, strict=True)
    ]
    memory = play_on(trainers[0], leak_steps) if leak_steps else None
    console, machine = make_console(), describe_machine()
    console.print(as_table(rows, f"{backbone}, {num_envs} slots: ms per environment step"))
    if memory is not None:
        console.print(
            f"memory over {leak_steps} steps of SB3: {memory[0]:.0f} -> {memory[1]:.0f} MiB "
            f"({memory[1] / memory[0] - 1:+.1%})"
        )
    console.print(f"Measured on: {machine}")
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "settings": shared, "rows": rows, "memory_mib": memory}
    atomic_write(out / "results.json", json.dumps(results, indent=1))


def play_on(trainer: Any, steps: int) -> tuple[float, float]:
    """Resident memory in MiB before and after so many steps, from when it has settled."""
    process = psutil.Process()
    environment = trainer.model.get_env()
    observations = environment.reset()

    def play(count: int, observations: Any) -> Any:
        for _ in range(count // environment.num_envs):
            actions, _ = trainer.model.predict(observations)
            observations, *_ = environment.step(actions)
        return observations

    observations = play(min(2_000, steps), observations)
    before = process.memory_info().rss
    play(steps, observations)
    return before / 2**20, process.memory_info().rss / 2**20


def as_table(rows: list[dict[str, Any]], title: str) -> Table:
    """One row per library; shares are of the rollout and of the whole."""
    table = Table(title=title)
    headers = ("library", "environment", "policy", "library's own", "update", "steps/s")
    for header in headers:
        table.add_column(header, justify="right")
    table.add_column("environment's share: of playing, of all", justify="right")
    for row in rows:
        times = [row[f"{stage}_ms"] for stage in PARTS]
        playing, whole = sum(times[:3]), sum(times)
        table.add_row(
            row["library"],
            *(f"{value:.2f}" for value in times),
            f"{1e3 / whole:.0f}",
            f"{times[0] / playing:.0%}, {times[0] / whole:.0%}",
        )
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
