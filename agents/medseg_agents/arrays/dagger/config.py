"""Settings of `medseg train dagger`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_agents.arrays.config import ArraySettings
from medseg_gym.errors import MedSegError


@dataclass(frozen=True, kw_only=True)
class DaggerConfig(ArraySettings):
    """Imitation of an annotator on the network's own states (DAgger)."""

    topic: ClassVar[str] = "Imitation"

    annotator: str = "box-to-point?retries=0"
    """Labels every state: a policy that sees the truth, with its options as in
    `medseg trajectories generate --annotator`. Experts stop where the click that they try gains
    less than `tau`, which looks ahead with one decoder call a step; every further try (`retries`)
    is another one.
    """

    tools: tuple[str, ...] = ("box", "positive_point", "negative_point", "stop")
    """Tools of the agent; the annotator's must be among them."""

    steps: int = 20_000
    """Environment steps in all slots together."""

    rollout: int = 16
    """Steps per slot between two rounds of gradient steps."""

    beta: float = 1.0
    """Share of steps at the start in which the annotator's action is played, not the network's;
    falls to 0 in a straight line.
    """

    beta_until: float = 0.3
    """Share of the run after which the network plays alone."""

    buffer: int = 10_000
    """States that are kept to learn from; the oldest go first. About 4 KB each at `image_size` 64
    and 16 KB at 128, beside one image per case.
    """

    updates: int = 32
    """Gradient steps after every rollout."""

    minibatch: int = 64
    """States of one gradient step, drawn from all that are kept."""

    learning_rate: float = 2e-3
    """Of Adam at the start; falls to a tenth of it in a straight line."""

    corner_blur: float = 0.7
    """Standard deviation, in cells, of the heat map round each corner of the annotator's box that
    the network is fitted to; 0 is the corner's cell alone.
    """

    click_sharpness: float = 2.0
    """The network is fitted to a click anywhere in the annotator's error region, each place
    weighed by its distance from the region's border to this power.
    """

    truth_weight: float = 1.0
    """Weight of learning to outline the target as well, from the features that places are chosen
    by, with a head that is thrown away; 0 leaves it out.
    """

    localizer_steps: int = 0
    """Gradient steps of the network's `localizer` before anything is played; it does not learn
    while the network plays. About 16 ms an image of 128 pixels at width 32 on one CPU core.
    """

    localizer_images: int = 4000
    """Images it learns from, each with all its cases, drawn from the training split and kept in
    memory: 50 KB an image of 128 pixels and 4 KB a target.
    """

    localizer_batch: int = 32
    """Images of one of its steps."""

    localizer_rate: float = 2e-3
    """Its learning rate; falls to nothing in a straight line over the last 60 % of its steps."""

    localizer_turns: bool = False
    """Show it images turned by quarters as well: where the way up says nothing."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network while it trains; weights stay float32. bfloat16 is about twice as
    fast on a CPU with AMX, and slower on one without bfloat16.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer", "updates", "localizer_images", "localizer_batch"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beta", "beta_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise MedSegError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.localizer_steps < 0:
            raise MedSegError(f"localizer_steps must be at least 0, got {self.localizer_steps}")
        if self.localizer_steps and not self.localizer:
            raise MedSegError("localizer_steps trains a localizer: give its width, localizer=32")
        for name in ("corner_blur", "click_sharpness", "truth_weight"):
            if not getattr(self, name) >= 0:
                raise MedSegError(f"{name} must be at least 0, got {getattr(self, name)}")

    @property
    def is_lower(self) -> bool:
        """Return whether networks compute in bfloat16 while they train."""
        return self.precision == "bfloat16"

    def beta_at(self, progress: float) -> float:
        """Share of the annotator's actions when `progress`, 0..1, of all steps is done."""
        if progress >= self.beta_until:
            return 0.0
        return self.beta * (1 - progress / self.beta_until)
