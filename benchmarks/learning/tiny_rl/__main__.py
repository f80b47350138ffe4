"""The command: what is not trained yet, then the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.learning.chain_sizes import Chain
from benchmarks.learning.tiny_rl.runs import METHODS, folder_of
from benchmarks.shared.sizes import claim, read_settings
from benchmarks.shared.workers import worker_pool
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError


@dataclass(frozen=True, kw_only=True)
class TinyRL:
    """Sizes of the runs.

    Args:
        iterations: Of GRPO and PPO.
        groups: Cases of a GRPO iteration.
        num_generations: Episodes of each.
        ppo_cases: Episodes of a PPO iteration, one a case: its images are all different and its
            values are one more pass over them, so that half as many take as long.
        minibatches: Gradient steps of an iteration, GRPO and PPO.
        lr: Of GRPO and PPO.
        max_completion_length: Of an answer; a call has 19 to 22.
        sft_steps: Optimiser steps of the continued fine-tuning.
        sft_rate: Share of the chain's learning rates that it begins with.
        eval_every: Iterations between validations.
        eval_cases: Cases of each.
    """

    iterations: int = 40
    groups: int = 16
    num_generations: int = 8
    ppo_cases: int = 64
    minibatches: int = 1
    lr: float = 5e-4
    max_completion_length: int = 32
    sft_steps: int = 1000
    sft_rate: float = 0.5
    eval_every: int = 20
    eval_cases: int = 128


def run(
    chain: Annotated[Path, typer.Option(help="Folder of `benchmarks.learning.tiny_chain`.")] = Path(
        "runs/tiny"
    ),
    out: Annotated[Path, typer.Option(help="Folder of everything; goes on if it is there.")] = Path(
        "runs/tiny_rl"
    ),
    seeds: Annotated[str, typer.Option(help="Of cases, draws and order of rows.")] = "0",
    methods: Annotated[str, typer.Option(help="Which to train; the table needs all.")] = ",".join(
        METHODS
    ),
    workers: Annotated[int, typer.Option(help="Runs that train or play at once.")] = 2,
    threads: Annotated[int, typer.Option(help="Torch threads of each.")] = 1,
    test: Annotated[int, typer.Option(help="Held-out cases, answers greedy.")] = 1024,
    sampled: Annotated[int, typer.Option(help="Held-out cases, answers drawn.")] = 1024,
    table: Annotated[bool, typer.Option(help="Play the test cases when all is trained.")] = True,
    settings: Annotated[
        str, typer.Option(help="Other sizes than the defaults, as iterations=2,groups=8.")
    ] = "",
) -> None:
    """Train what is not trained yet, then make the table."""
    sizes, before = read_settings(TinyRL, settings), read_chain(chain)
    console = make_console()
    claim(out / "tiny_rl.json", sizes)
    numbers, chosen = [int(seed) for seed in seeds.split(",")], methods.split(",")
    unknown = set(chosen) - set(METHODS)
    if unknown:
        raise MedSegError(f"unknown methods {sorted(unknown)}; there are {', '.join(METHODS)}")
    jobs = [(method, seed) for seed in numbers for method in chosen]
    waiting = [job for job in jobs if not (folder_of(out, *job) / "model").is_dir()]
    with worker_pool(max(1, min(workers, len(waiting)))) as pool:
        running = [
            pool.submit(train, method, seed, chain, out, before, sizes, threads)
            for method, seed in waiting
        ]
        for (method, seed), one in zip(waiting, running, strict=True):
            one.result()
            console.print(f"{method}, seed {seed}: trained")
    if table:
        from benchmarks.learning.tiny_rl.table import make_table

        torch.set_num_threads(threads)
        cases = {"greedy": test, "sampled": sampled}
        make_table(chain, out, before, sizes, numbers, cases, workers, console)


def train(
    method: str, seed: int, chain: Path, out: Path, before: Chain, sizes: TinyRL, threads: int
) -> None:
    """Train one method with one seed."""
    torch.set_num_threads(threads)
    folder, start = folder_of(out, method, seed), chain / "sft" / "model"
    if method == "sft":
        from medseg_agents.sft.train import train_sft

        train_sft(sft_config(start, chain, before, sizes, seed), folder, resume=True)
    else:
        from medseg_agents.grpo.train import train_chat

        resume = (folder / "config.json").exists()
        train_chat(rl_config(method, start, before, sizes, seed), folder, resume)


def rl_config(method: str, start: Path, before: Chain, sizes: TinyRL, seed: int) -> Any:
    """Settings of GRPO or PPO."""
    from medseg_agents.grpo.settings import ChatPPORun, GRPORun

    given: dict[str, Any] = {
        "model": str(start),
        "cases": before.cases,
        "backbone": before.backbone,
        "max_steps": before.max_steps,
        "max_completion_length": sizes.max_completion_length,
        "iterations": sizes.iterations,
        "minibatches": sizes.minibatches,
        "lr": sizes.lr,
        "eval_every": sizes.eval_every,
        "eval_cases": sizes.eval_cases,
        "seed": seed,
    }
    if method == "grpo":
        return GRPORun(
            groups=sizes.groups,
            num_generations=sizes.num_generations,
            advantage="reward_to_go",
            **given,
        )
    # As the published table was made: one pass, and one rate for policy and value head.
    return ChatPPORun(groups=sizes.ppo_cases, epochs=1, value_lr=sizes.lr, **given)


def sft_config(start: Path, chain: Path, before: Chain, sizes: TinyRL, seed: int) -> Any:
    """Settings of the continued fine-tuning."""
    from medseg_agents.sft.config import SftConfig

    files = sorted((chain / "first_turns").glob("*.parquet"))
    fresh = files[1:] or files  # the chain's last stage has seen the first
    return SftConfig(
        model=str(start),
        trajectories=(str(chain / "conversations"), *map(str, fresh)),
        steps=sizes.sft_steps,
        batch_size=before.batch,
        optimiser="muon",
        lr=before.lr * sizes.sft_rate,
        muon_lr=before.muon_lr * sizes.sft_rate,
        schedule="cosine",
        log_every=min(20, max(1, sizes.sft_steps // 2)),
        save_every=100,
        seed=seed + 1,  # the chain's own order had seed 0
    )


def read_chain(folder: Path) -> Chain:
    """Settings of the chain that is gone on with.

    Raises:
        MedSegError: There is no finished one.
    """
    file = folder / "chain.json"
    if not file.exists() or not (folder / "sft" / "model").is_dir():
        raise MedSegError(
            f"{folder} holds no fine-tuned model; make it first: "
            f"python -m benchmarks.learning.tiny_chain --out {folder}"
        )
    return Chain(**json.loads(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    from medseg_gym.cli.main import run as run_command

    run_command(run)
