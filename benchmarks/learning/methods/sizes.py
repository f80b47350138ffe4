"""Sizes of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.learning.chain_sizes import Chain
from benchmarks.learning.methods.catalogue import DEFAULT, METHODS
from medseg_gym.errors import MedSegError


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the start, of the runs and of the comparison.

    Args:
        starts: Folders of finished chains, a plus between, of which seed n begins with the n-th,
            and with the first again behind the last; empty makes one short start for all seeds.
        scene: Case spec of everything; synthetic.
        backbone: Who segments.
        image_size: Side of the image that the model sees.
        max_steps: Calls of an episode.
        experts: Training cases that experts play for the start.
        images: Images of its first turns.
        first_steps: Optimiser steps of the start on first turns.
        mixed_steps: And on those and whole episodes.
        pool: Training cases of the methods; so few that each is met several times.
        iterations: Of a run.
        groups: Of an iteration.
        num_generations: Episodes of a group.
        minibatches: Gradient steps of an iteration: with one alone every probability ratio is 1,
            and methods that bound it would all be the same.
        lr: Of AdamW, every method but DPO.
        dpo_lr: And of DPO, whose loss counts whole answers, not tokens.
        success_dice: From which an episode of the curriculum succeeds.
        sft_steps: Optimiser steps of the fine-tuning continued, 8 conversations each.
        sft_rate: Share of the start's rates that it begins with.
        best_rounds: Rounds of best-of-n, among which its episodes are divided.
        best_epochs: Passes over the best episodes of a round.
        pairs_per_state: Pairs of one state, DPO.
        max_completion_length: Of an answer, in tokens; a call has 19 to 22.
        test: Held-out cases.
    """

    starts: str = ""
    scene: str = "phantoms:abdomen"
    backbone: str = "ellipse"
    image_size: int = 64
    max_steps: int = 4
    experts: int = 640
    images: int = 2000
    first_steps: int = 300
    mixed_steps: int = 100
    pool: int = 32
    iterations: int = 8
    groups: int = 8
    num_generations: int = 8
    minibatches: int = 4
    lr: float = 1e-3
    dpo_lr: float = 2e-4
    success_dice: float = 0.6
    sft_steps: int = 100
    sft_rate: float = 0.5
    best_rounds: int = 2
    best_epochs: float = 4.0
    pairs_per_state: int = 4
    max_completion_length: int = 32
    test: int = 192

    @property
    def episodes(self) -> int:
        """Episodes that every method may play."""
        return self.iterations * self.groups * self.num_generations

    @property
    def cases(self) -> str:
        """Spec of the training cases."""
        return f"pool:{self.pool}:{self.scene}"

    @property
    def held_out(self) -> str:
        """Spec of the cases of the comparison, drawn once for all that play them."""
        return f"pool:{self.test}:{self.scene}"

    def chain(self, overlay: Literal["fill", "outline", "none"] = "fill") -> Chain:
        """Sizes of the start that is shown the mask in a way."""
        return Chain(
            cases=self.scene,
            image_size=self.image_size,
            overlay=overlay,
            experts=self.experts,
            images=self.images,
            first_steps=self.first_steps,
            mixed_steps=self.mixed_steps,
            max_steps=self.max_steps,
            backbone=self.backbone,
        )


def chain_of(out: Path, name: str, seed: int, sizes: Sizes) -> Path:
    """Return the folder of the chain whose model a run begins from.

    Args:
        out: Folder of the comparison.
        name: Of the method.
        seed: Of the run.
        sizes: Of the comparison.

    Raises:
        MedSegError: Starts were given, and the method is shown the mask in another way than they.
    """
    overlay = METHODS[name].overlay
    given = [folder for folder in sizes.starts.split("+") if folder]
    if given and overlay != METHODS[DEFAULT].overlay:
        raise MedSegError(f"{name} needs a start of its own: leave starts= out, or the method")
    if given:
        return Path(given[seed % len(given)])
    return out / ("start" if overlay == METHODS[DEFAULT].overlay else f"start-overlay-{overlay}")


def start_of(out: Path, name: str, seed: int, sizes: Sizes) -> Path:
    """Return the folder of the model that a run begins from; see `chain_of`."""
    return chain_of(out, name, seed, sizes) / "sft" / "model"


def run_of(out: Path, method: str, seed: int) -> Path:
    """Return the folder of one run."""
    return out / "runs" / f"{method}-{seed}"
