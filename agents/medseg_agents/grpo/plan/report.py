"""A plan: computed from settings and a model's configuration, shown as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from medseg_agents.grpo.plan.advice import Advice, advise
from medseg_agents.grpo.plan.conversation import Conversation, conversation
from medseg_agents.grpo.plan.machine import Machine
from medseg_agents.grpo.plan.placement import Process, place, processes
from medseg_agents.grpo.plan.shape import ModelShape, read_shape
from medseg_agents.grpo.plan.time import IterationTime, iteration_time
from medseg_agents.grpo.settings import ChatRun
from medseg_gym.display.terminal import Table
from medseg_gym.errors import MedSegError

CLOSE = 0.9
"""Share of a GPU above which a run is told to be close to the limit: memory is fragmented."""


@dataclass(frozen=True)
class Plan:
    """Needs of a run on a machine.

    Args:
        shape: Of the model.
        talk: An episode that uses all its turns.
        machine: GPUs.
        gpus: Processes of each GPU.
        time: Of an iteration.
        advice: Settings with which it fits, where it does not; None where nothing was found.
    """

    shape: ModelShape
    talk: Conversation
    machine: Machine
    gpus: list[list[Process]]
    time: IterationTime
    advice: Advice | None = None

    @property
    def fullest(self) -> list[Process]:
        """The processes of the GPU that holds most."""
        return max(self.gpus, key=_bytes)

    @property
    def needed(self) -> float:
        """Bytes of that GPU."""
        return _bytes(self.fullest)

    @property
    def fits(self) -> bool:
        """True if it is enough."""
        return self.needed <= self.machine.bytes

    def as_json(self) -> dict[str, Any]:
        """Return everything for `--json`, bytes as numbers."""
        return {
            "gpus": self.machine.gpus,
            "gpu_gigabytes": self.machine.gigabytes,
            "parameters": self.shape.parameters,
            "trained": self.shape.trained,
            "tokens_of_an_episode": self.talk.tokens,
            "fits": self.fits,
            "fullest_gigabytes": self.needed / 1e9,
            "processes": [
                {
                    "name": process.name,
                    "gpu": number,
                    "gigabytes": process.bytes / 1e9,
                    "parts": [
                        {
                            "name": part.name,
                            "phases": list(part.phases),
                            "gigabytes": part.bytes / 1e9,
                            "because": part.because,
                        }
                        for part in process.parts
                    ],
                }
                for number, one in enumerate(self.gpus)
                for process in one
            ],
            "seconds_of_an_iteration": self.time.seconds,
            "seconds_of_playing": self.time.playing,
            "seconds_of_learning": self.time.learning,
            "advice": None if self.advice is None else dict(self.advice.changes),
        }


def make_plan(run: ChatRun, machine: Machine) -> Plan:
    """Compute the plan of a run.

    Args:
        run: Its settings; `model` may be a folder that holds a `config.json` and nothing else.
        machine: Where it shall run.

    Raises:
        MedSegError: The model's configuration cannot be read, or the settings ask for more GPUs
            than there are.
    """
    if not run.model:
        raise MedSegError("name the model: --model FOLDER; a folder with its config.json is enough")
    shapes: dict[Any, ModelShape] = {}

    def planned(settings: ChatRun) -> Plan:
        key = (settings.lora_rank, settings.dtype, settings.precision)
        if key not in shapes:
            shapes[key] = read_shape(
                settings.model,
                settings.lora_rank,
                base=settings.base,
                train_vision=settings.train_vision,
                dtype=settings.dtype,
                precision=settings.precision,
            )
        shape, known = shapes[key], machine.known
        talk = conversation(
            shape,
            image_size=image_size(settings),
            turns=settings.max_steps,
            completion=settings.max_completion_length,
            first_text=known.first_text,
            turn_text=known.turn_text,
        )
        gpus = place(processes(shape, settings, machine, talk), machine.gpus)
        return Plan(shape, talk, machine, gpus, iteration_time(settings, talk, machine))

    plan = planned(run)
    if plan.fits:
        return plan
    advice = advise(run, lambda other: planned(other).needed, machine.bytes, machine.gpus)
    return Plan(plan.shape, plan.talk, machine, plan.gpus, plan.time, advice)


def image_size(run: ChatRun) -> int:
    """Return the side of the images that the model is shown: the settings', else the model's."""
    if run.image_size:
        return run.image_size
    from medseg_agents.llm.checkpoint import read_view

    try:
        saved: Mapping[str, Any] = read_view(run.model).view
    except MedSegError:
        saved = {}
    return int(saved.get("image_size", 512))


def show_plan(plan: Plan, console: Console) -> None:
    """Print the processes part by part, each GPU in a line, and the time."""
    shape, machine = plan.shape, plan.machine
    console.print(
        f"{shape.family}, {shape.parameters / 1e9:.3f} B parameters, {shape.trained / 1e9:.3f} B "
        f"trained; an episode of {plan.talk.turns} turns has up to {plan.talk.tokens} tokens "
        f"({plan.talk.image} of an image)"
    )
    table = Table(title="Memory of a process of each kind", keys=2)
    for header in ("process", "part", "GB", "when", "reckoned as"):
        table.add_column(header, justify="right" if header == "GB" else "left")
    for process in {one.name: one for gpu in plan.gpus for one in gpu}.values():
        for part in process.parts:
            when = ", ".join(part.phases) or "always"
            size = f"{part.bytes / 1e9:.2f}"
            table.add_row(process.name, part.name, size, when, part.because)
        table.add_row(process.name, "at its peak", f"{process.bytes / 1e9:.2f}", "", "")
    console.print(table)
    for number, one in enumerate(plan.gpus):
        names = ", ".join(f"{process.name} {process.bytes / 1e9:.1f} GB" for process in one)
        console.print(
            f"GPU {number}: {_bytes(one) / 1e9:.1f} of {machine.gigabytes:g} GB ({names or 'idle'})"
        )
    console.print(verdict(plan))
    console.print(_time(plan.time))


def verdict(plan: Plan) -> str:
    """Return in words whether it fits, and what would make it fit."""
    room = plan.machine.gigabytes
    if plan.fits:
        close = plan.needed > CLOSE * plan.machine.bytes
        return f"It fits: {plan.needed / 1e9:.1f} of {room:g} GB." + (
            " That is close: memory is fragmented, and parts are estimates." if close else ""
        )
    short = f"It does not fit: {plan.needed / 1e9:.1f} GB of {room:g} GB."
    if plan.advice is None:
        return f"{short} No setting was found that helps."
    options = " ".join(_flag(name, value) for name, value in plan.advice.changes.items())
    then = f"{plan.advice.gigabytes:.1f} GB"
    if plan.advice.fits:
        return f"{short} With {options} it takes {then}."
    return f"{short} Even with {options} it takes {then}: more or larger GPUs, or a smaller model."


def _flag(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    return flag if value is True else f"{flag} {value}"


def _time(time: IterationTime) -> str:
    tokens = (
        f"An iteration draws about {time.sampled_tokens:.0f} tokens and learns from "
        f"{time.learned_tokens:.0f}"
    )
    if time.seconds is None:
        return (
            f"{tokens}; its time is not known: give tokens a second of one runner and one learner, "
            "as --plan '8x80?sampled=900&learned=4000', or measured=RUN_FOLDER"
        )
    return (
        f"{tokens}: {time.playing:.0f} s of playing and {time.learning:.0f} s of learning, "
        f"{time.seconds:.0f} s together, {3600 / time.seconds:.1f} an hour"
    )


def _bytes(gpu: list[Process]) -> float:
    return sum(process.bytes for process in gpu)
