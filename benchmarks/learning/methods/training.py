"""Train one method with one seed, with the number of episodes that all may play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.learning.methods.catalogue import METHODS, Method
from benchmarks.learning.methods.sizes import Sizes, chain_of, run_of, start_of
from benchmarks.learning.tiny_chain import (
    draw_first_turns,
    export_experts,
    first_tuning,
    mixed_tuning,
    play_experts,
)
from benchmarks.learning.tiny_rl.__main__ import TinyRL, read_chain, sft_config


def make_start(sizes: Sizes, name: str, out: Path) -> None:
    """Make the model that a method begins from: a short `benchmarks.learning.tiny_chain`."""
    chain, folder = sizes.chain(METHODS[name].overlay), chain_of(out, name, 0, sizes)
    play_experts(chain, folder, workers=1)
    export_experts(chain, folder)
    draw_first_turns(chain, folder, workers=1)
    first_tuning(chain, folder)
    mixed_tuning(chain, folder)


def train(name: str, seed: int, sizes: Sizes, out: Path) -> None:
    """Train one method with one seed, or go on with it.

    Args:
        name: Of the method.
        seed: Of cases, draws and order of rows.
        sizes: Of the run.
        out: Folder of the comparison.
    """
    method, folder = METHODS[name], run_of(out, name, seed)
    start = start_of(out, name, seed, sizes)
    if method.kind == "grpo":
        _train_grpo(method, seed, sizes, folder, start)
    elif method.kind == "best-of-n":
        _train_best_of_n(method, seed, sizes, folder, start)
    elif method.kind == "sft":
        _continue_tuning(chain_of(out, name, seed, sizes), seed, sizes, folder)
    else:
        _train_dpo(method, seed, sizes, folder, start)


def grpo_settings(method: Method, seed: int, sizes: Sizes, start: Path) -> Any:
    """Settings of a method of `medseg train grpo`."""
    from medseg_agents.grpo.settings import GRPORun

    generations = method.settings.get("num_generations", sizes.num_generations)
    given: dict[str, Any] = {
        "groups": sizes.groups * sizes.num_generations // generations,
        "num_generations": generations,
        "iterations": sizes.iterations,
        "minibatches": sizes.minibatches,
        "lr": sizes.lr,
        "warmup": 2,
        "success_dice": sizes.success_dice,
        "eval_every": 0,
        "checkpoint_every": sizes.iterations,
        "log_samples_every": 0,
    }
    # The checkpoint is found afterwards at which the episodes were spent, see `budget`.
    if method.settings.get("dynamic_sampling"):
        given |= {"checkpoint_every": 1, "keep": sizes.iterations}
    return GRPORun(**(given | _shared(sizes, seed, start) | method.settings))


def _train_grpo(method: Method, seed: int, sizes: Sizes, folder: Path, start: Path) -> None:
    from medseg_agents.grpo.train import train_chat

    resume = (folder / "config.json").exists()
    train_chat(grpo_settings(method, seed, sizes, start), folder, resume)


def sampling_settings(seed: int, sizes: Sizes, start: Path, rounds: int, **settings: Any) -> Any:
    """Settings of `medseg train best-of-n`, whose episodes are all that may be played.

    Args:
        seed: Of the run.
        sizes: Of the runs.
        start: The model that it begins from.
        rounds: Among which the episodes are divided.
        **settings: Others.
    """
    from medseg_agents.best_of_n.config import BestOfNRun

    cases = min(sizes.pool, sizes.episodes // (rounds * sizes.num_generations))
    given: dict[str, Any] = {
        "limit": cases,
        "num_generations": sizes.episodes // (rounds * cases),
        "num_envs": min(cases, sizes.groups * sizes.num_generations),
        "iterations": rounds,
        "epochs": sizes.best_epochs,
        "lr": sizes.lr,
        "warmup": 2,
        "weight_decay": 0.0,
        "log_every": 5,
    }
    return BestOfNRun(**(given | _shared(sizes, seed, start) | settings))


def _train_best_of_n(method: Method, seed: int, sizes: Sizes, folder: Path, start: Path) -> None:
    from medseg_agents.best_of_n.train import train_best_of_n

    settings = sampling_settings(seed, sizes, start, sizes.best_rounds, **method.settings)
    train_best_of_n(settings, folder, (folder / "config.json").exists())


def _train_dpo(method: Method, seed: int, sizes: Sizes, folder: Path, start: Path) -> None:
    """Sample with the start, pair what differs in worth, and learn from the pairs."""
    from medseg_agents.best_of_n.train import sample_cases
    from medseg_agents.dpo.config import DpoConfig
    from medseg_agents.dpo.train import train_dpo
    from medseg_agents.llm.checkpoint import read_view

    from medseg_gym.envs.chat_options import ChatOptions
    from medseg_gym.trajectories import export_pairs

    file = folder / "pairs.parquet"
    if not file.exists():
        sampling = sampling_settings(seed, sizes, start, rounds=1)
        store = sample_cases(sampling, start, folder / "samples", number=1)
        view = ChatOptions.from_arguments(read_view(start)[0])
        export_pairs(store, file, per_state=sizes.pairs_per_state, chat=view)
    given: dict[str, Any] = {
        "model": str(start),
        "pairs": (str(file),),
        "lr": sizes.dpo_lr,
        "warmup": 2,
        "log_every": 5,
        "seed": seed,
    }
    train_dpo(DpoConfig(**(given | method.settings)), folder, resume=True, quiet=True)


def _continue_tuning(chain: Path, seed: int, sizes: Sizes, folder: Path) -> None:
    """Go on with what the start was fine-tuned on; its own order had seed 0."""
    from medseg_agents.sft.train import train_sft

    continued = TinyRL(sft_steps=sizes.sft_steps, sft_rate=sizes.sft_rate)
    before = read_chain(chain) if (chain / "chain.json").exists() else sizes.chain()
    train_sft(sft_config(chain / "sft" / "model", chain, before, continued, seed), folder, True)


def _shared(sizes: Sizes, seed: int, start: Path) -> dict[str, Any]:
    return {
        "model": str(start),
        "cases": sizes.cases,
        "backbone": sizes.backbone,
        "max_steps": sizes.max_steps,
        "max_completion_length": sizes.max_completion_length,
        "seed": seed,
    }
