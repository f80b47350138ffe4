"""Tasks and sizes of the runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.sb3.config import SB3PPOConfig

TASKS = {"abdomen": "phantoms:abdomen", "random": "phantoms:abdomen?position=random"}
"""Cases by the name in folders."""


def begun_wrong(cases: str) -> str:
    """Return the spec of the same cases, begun with a wrong mask."""
    return f"{cases}{'&' if '?' in cases else '?'}initial_mask=wrong"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the runs.

    Args:
        steps: Environment steps of imitation where organs lie in their usual place.
        random_steps: Likewise where they lie anywhere.
        updates: Gradient steps after every 256 steps of imitation in usual places.
        random_updates: Likewise in random ones.
        localizer: Width of the localizer; 0 has none.
        localizer_steps: Its gradient steps, in usual places.
        random_localizer_steps: Likewise in random ones.
        localizer_images: That it learns from, in usual places.
        random_localizer_images: Likewise in random ones.
        ppo_steps: Environment steps of PPO from there.
        repair_steps: Environment steps of imitation from there on wrong masks.
        repair_updates: Gradient steps after every 256 of them.
        repair_pool: Training cases with a wrong mask.
        pool: Training cases.
        image_size: Side of what the network sees.
        width: Of the network.
        backbone: Segmenter while training.
        played: Segmenter of the table.
        precision: Of the network while it imitates.
        test: Held-out cases of the table.
        repair_test: Held-out cases of the table of repairing.
    """

    steps: int = 2048
    random_steps: int = 4096
    updates: int = 32
    random_updates: int = 48
    localizer: int = 32
    localizer_steps: int = 1000
    random_localizer_steps: int = 2400
    localizer_images: int = 3000
    random_localizer_images: int = 8000
    ppo_steps: int = 3072
    repair_steps: int = 2560
    repair_updates: int = 40
    repair_pool: int = 1000
    pool: int = 2000
    image_size: int = 128
    width: int = 16
    backbone: str = "pocket"
    played: str = "pocket"
    precision: str = "float32"
    test: int = 200
    repair_test: int = 240

    def run(self, out: Path, method: str, task: str, seed: int) -> Path:
        """Folder of a run."""
        return out / f"{method}-{task}-{seed}"

    def dagger(self, task: str, seed: int) -> DaggerConfig:
        """Settings of an imitation."""
        anywhere = task == "random"
        steps = self.random_localizer_steps if anywhere else self.localizer_steps
        return DaggerConfig(
            **self._shared(task, seed),
            localizer_steps=steps if self.localizer else 0,
            localizer_images=(self.random_localizer_images if anywhere else self.localizer_images),
            localizer_turns=anywhere,
            steps=self.random_steps if anywhere else self.steps,
            updates=self.random_updates if anywhere else self.updates,
            eval_every=2048,
            checkpoint_every=1024,
            precision="bfloat16" if self.precision == "bfloat16" else "float32",
        )

    def repair(self, out: Path, task: str, seed: int) -> DaggerConfig:
        """Settings of an imitation that goes on with episodes that begin with a wrong mask."""
        changed = {"cases": begun_wrong(TASKS[task]), "pool": self.repair_pool}
        return DaggerConfig(
            **{**self._shared(task, seed), **changed},
            start=str(self.run(out, "dagger", task, seed)),
            annotator="oracle-box-click",
            beta=0.5,
            beta_until=0.2,
            steps=self.repair_steps,
            updates=self.repair_updates,
            learning_rate=1e-3,
            eval_every=0,
            checkpoint_every=1024,
            precision="bfloat16" if self.precision == "bfloat16" else "float32",
        )

    def ppo(self, out: Path, task: str, seed: int) -> SB3PPOConfig:
        """Settings of PPO that goes on from an imitation."""
        return SB3PPOConfig(
            **self._shared(task, seed),
            start=str(self.run(out, "dagger", task, seed)),
            tools=DaggerConfig().tools,
            steps=self.ppo_steps,
            epochs=2,
            learning_rate=1e-4,
            target_kl=0.02,
            entropy=0.0,
            final_entropy=0.0,
            eval_every=self.ppo_steps,
            checkpoint_every=1024,
        )

    def _shared(self, task: str, seed: int) -> dict[str, Any]:
        return {
            "cases": TASKS[task],
            "pool": self.pool,
            "backbone": self.backbone,
            "image_size": self.image_size,
            "bins": self.image_size // 2,
            "patch": 4,
            "levels": 4,
            "width": self.width,
            "localizer": self.localizer,
            "seed": seed,
            "eval_cases": 96,
            "test_cases": 0,
        }
