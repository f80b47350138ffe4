"""The machine that a plan is for, and what is known about its speed and the conversations."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medseg_gym.errors import MedSegError
from medseg_gym.option_values import convert_options, declared_options
from medseg_gym.specs import divide_argument, read_options

_GPUS = re.compile(r"(\d+)\s*[x*]\s*(\d+(?:\.\d+)?)(?:\s*GB)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Knowledge that a plan is given besides the settings of the run.

    Raises:
        MedSegError: A number out of range.
    """

    first_text: int = 400
    """Tokens of system message and task, without the image."""

    turn_text: int = 40
    """Text tokens of a later turn, without image and completion."""

    completion: float = 0.0
    """Tokens of a completion in the mean, for times; 0 is half of `max_completion_length`."""

    segmenter: float = 1.0
    """GB of a segmenter with its cached embeddings."""

    sampled: float = 0.0
    """Completion tokens a second of one runner, environment included; 0 is not known."""

    learned: float = 0.0
    """Tokens of rows a second of one learner, gradients included; 0 is not known."""

    measured: str = ""
    """Folder of a run whose logs give both rates."""

    def __post_init__(self) -> None:
        for name in ("first_text", "turn_text", "completion", "segmenter", "sampled", "learned"):
            if getattr(self, name) < 0:
                raise MedSegError(f"--plan: {name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Machine:
    """GPUs, all alike.

    Args:
        gpus: Their number.
        gigabytes: Memory of each, 10^9 bytes.
        known: What else is known.
    """

    gpus: int
    gigabytes: float
    known: Knowledge = Knowledge()

    @property
    def bytes(self) -> float:
        """Memory of a GPU."""
        return self.gigabytes * 1e9


def read_machine(text: str) -> Machine:
    """Read a machine, as "8x80" (eight GPUs of 80 GB) or "1x24?sampled=900&learned=4000".

    Args:
        text: Number of GPUs, their memory in GB, and fields of `Knowledge`.

    Raises:
        MedSegError: Not of that form.
    """
    shape, query = divide_argument(text)
    match = _GPUS.fullmatch(shape.strip())
    if not match or int(match[1]) < 1 or not float(match[2]) > 0:
        raise MedSegError(
            f"--plan {text}: write the number of GPUs and the GB of each, as 8x80; further "
            "options behind a question mark: 8x80?sampled=900&learned=4000"
        )
    given = convert_options(
        f"--plan {text}", read_options(text, query), declared_options(Knowledge)
    )
    return Machine(int(match[1]), float(match[2]), Knowledge(**given))
