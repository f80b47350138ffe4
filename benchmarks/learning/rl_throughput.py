"""Episodes per second of GRPO: this project's on RLlib against TRL's `environment_factory`.

    python -m benchmarks.learning.rl_throughput --model runs/tiny/sft/model

Both train the same checkpoint on the same cases with the same segmenter, in this process, one
iteration each in turn, so that their ratio holds on a noisy machine. An iteration is `--groups`
cases with `--num-generations` episodes each, played, scored and learned from in one gradient step
of AdamW over micro-batches of `--micro-batch` episodes. Both show the whole conversation with all
its images, draw at temperature 1, and use the DAPO loss without a reference. Images are embedded
before the clock starts.

TRL generates for all rollouts at once, keeps keys and values within an answer, computes no old
log-probabilities (one gradient step needs none), logs nothing, and is shown tools as the suite
shows turns (`show_as_conversation`), so that it reads the same tokens. Its limit of tool calls is
one below the environment's, which saves it an answer.

What differs is what the two do: TRL calls tools one by one, reads the whole conversation with all
its images again for every answer, and asks once more after a stop, which its loss counts as
said. RLlib's runner steps all slots with one decoder call, keeps keys and values between turns,
and its loss computes what a group's episodes begin with, and an image that several rows share,
once. The gradient step is otherwise the same work, which bounds the ratio. TRL bounds tokens of a
whole rollout, RLlib those of an answer; a model that has learned to call rarely meets either.

Every moment counts for the innermost of: generation (the model answers), environment (steps,
segmenting and images included), update (loss, gradients, optimiser), and library (the rest:
templates, tokens, reading of answers, bookkeeping). Tokenizing belongs to generation in RLlib's
runner, where it cannot be told apart. Padding is the share of places in the learner's tables that
hold no token, counted in RLlib's.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.learning.rl_parties import (
    PARTS,
    Plan,
    Timed,
    make_rllib,
    make_trl,
    rllib_watches,
    trl_watches,
)
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.cases import load_cases
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write


def take_turns(trainer: Any, ours: Timed, theirs: Timed, iterate: Callable[[], None]) -> None:
    """Let TRL train; after each of its iterations RLlib has one. The first ones are not timed.

    Args:
        trainer: Of TRL.
        ours: Gets RLlib's times.
        theirs: Gets TRL's.
        iterate: One iteration of RLlib.
    """
    from transformers import TrainerCallback

    iterate()
    watched = ExitStack()
    state: dict[str, Any] = {"began": None}

    class Alternate(TrainerCallback):
        def on_step_end(self, *args: Any, **options: Any) -> None:
            now, busy = time.perf_counter(), time.process_time()
            watched.close()
            if state["began"] is not None:
                theirs.seconds.append(now - state["began"])
                theirs.cpu_seconds.append(busy - state["busy"])
                with ExitStack() as stack:
                    for watch in rllib_watches(ours):
                        stack.enter_context(watch)
                    before, busy = time.perf_counter(), time.process_time()
                    with ours.clock.inside("library"):
                        iterate()
                    ours.seconds.append(time.perf_counter() - before)
                    ours.cpu_seconds.append(time.process_time() - busy)
            else:  # TRL's first iteration made its environments and buffers
                for values in (theirs.turns, theirs.tokens, theirs.dice, theirs.returns):
                    values.clear()
            for watch in trl_watches(theirs.clock):
                watched.enter_context(watch)
            watched.enter_context(theirs.clock.inside("library"))
            state["began"], state["busy"] = time.perf_counter(), time.process_time()

    trainer.add_callback(Alternate())
    trainer.train()
    watched.close()


def compare(plan: Plan) -> list[Timed]:
    """Time both.

    Raises:
        MedSegError: Numbers that do not fit, or a checkpoint that cannot be loaded.
    """
    from medseg_agents.llm.checkpoint import read_view

    from medseg_gym import backbones

    if plan.episodes % plan.micro_batch or plan.iterations < 1 or plan.max_steps < 2:
        raise MedSegError(
            f"need iterations >= 1, max_steps >= 2 and groups * num_generations ({plan.episodes}) "
            f"a multiple of micro_batch ({plan.micro_batch})"
        )
    if not Path(plan.model).is_dir():
        raise MedSegError(f"{plan.model}: no such checkpoint; 'make sft-tiny' makes one")
    view = {"image_size": 512, **read_view(plan.model)[0]}
    source = load_cases(f"pool:{plan.groups}:{plan.cases}", "train")
    backbone = backbones.load(plan.backbone)
    cases = [source[i] for i in range(len(source))]
    embedding_cache(backbone).get(
        backbone, [case.image for case in cases], [case.content_hash for case in cases]
    )
    ours, theirs = Timed("RLlib"), Timed("TRL environment_factory")
    algo = make_rllib(plan, source, view)

    def iterate() -> None:
        metrics = algo.train()["env_runners"]
        if ours.seconds or ours.clock.seconds["generation"]:
            ours.turns.append(float(metrics["turns"]))
            ours.tokens.append(float(metrics["tokens"]) / plan.episodes)
            ours.dice.append(float(metrics["dice"]))
            ours.returns.append(float(metrics["episode_return_mean"]))

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trl(plan, source, view, theirs, folder)
        take_turns(trainer, ours, theirs, iterate)
    algo.stop()
    return [ours, theirs]


def measure(
    model: Annotated[str, typer.Option(help="Folder of the checkpoint.")] = "runs/tiny/sft/model",
    cases: Annotated[str, typer.Option(help="Training cases.")] = "phantoms:abdomen",
    backbone: Annotated[str, typer.Option(help="Who segments.")] = "pocket",
    groups: Annotated[int, typer.Option(help="Cases of an iteration.")] = 8,
    num_generations: Annotated[int, typer.Option(help="Episodes of a case.")] = 8,
    max_steps: Annotated[int, typer.Option(help="Calls of an episode.")] = 5,
    micro_batch: Annotated[int, typer.Option(help="Episodes computed at once.")] = 16,
    iterations: Annotated[int, typer.Option(help="Timed iterations of each.")] = 6,
    seed: Annotated[int, typer.Option(help="Of draws.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/rl_throughput"),
) -> None:
    """Time both libraries in turn and print episodes per second, their ratio and shares of time."""
    import torch

    torch.set_num_threads(threads)
    plan = Plan(
        model=model,
        cases=cases,
        backbone=backbone,
        groups=groups,
        num_generations=num_generations,
        max_steps=max_steps,
        micro_batch=micro_batch,
        iterations=iterations,
        seed=seed,
    )
    ours, theirs = compare(plan)
    rows = [one.row(plan.episodes) for one in (ours, theirs)]
    ratios = [t / o for o, t in zip(ours.seconds, theirs.seconds, strict=True)]
    ratio = sum(theirs.seconds) / sum(ours.seconds)
    console, machine = make_console(), describe_machine()
    console.print(as_table(rows, plan))
    cpu_ratio = sum(theirs.cpu_seconds) / sum(ours.cpu_seconds)
    console.print(
        f"RLlib plays and learns from {ratio:.2f} times as many episodes a second; pair by pair "
        f"{min(ratios):.2f} to {max(ratios):.2f}; by seconds of this process's CPU, which other "
        f"programs on the machine do not stretch, {cpu_ratio:.2f}"
    )
    for row in rows:
        whole = row["cpu_seconds_per_iteration"]
        shares = ", ".join(f"{part} {row[f'{part}_cpu_seconds'] / whole:.1%}" for part in PARTS)
        console.print(f"{row['library']}, of its CPU seconds: {shares}")
    console.print(f"Measured on: {machine}")
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": machine,
        "plan": asdict(plan),
        "rows": rows,
        "ratio": ratio,
        "ratios": ratios,
        "cpu_ratio": cpu_ratio,
        "seconds": {one.library: one.seconds for one in (ours, theirs)},
    }
    atomic_write(out / "results.json", json.dumps(results, indent=1))


def as_table(rows: list[dict[str, Any]], plan: Plan) -> Table:
    """One row a library: speed, what was played, seconds of an iteration by part."""
    table = Table(
        title=f"{plan.groups} groups of {plan.num_generations}, at most {plan.max_steps} turns, "
        f"{plan.backbone}, {plan.iterations} iterations each"
    )
    headers = ("library", "episodes/s", "s/iteration", "CPU s", "turns", "tokens", "Dice")
    for header in (*headers, "padding", *PARTS):
        table.add_column(header, justify="right")
    for row in rows:
        whole = row["seconds_per_iteration"]
        table.add_row(
            row["library"],
            f"{row['episodes_per_second']:.2f}",
            f"{whole:.2f}",
            f"{row['cpu_seconds_per_iteration']:.2f}",
            f"{row['turns']:.2f}",
            f"{row['tokens']:.1f}",
            f"{row['dice']:.3f}",
            "-" if row["padding"] is None else f"{row['padding']:.1%}",
            *(
                f"{row[f'{stage}_seconds']:.2f} ({row[f'{stage}_seconds'] / whole:.0%})"
                for stage in PARTS
            ),
        )
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
