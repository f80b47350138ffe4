"""Rejection sampling: sample with the model, keep the best, train on it, and again.

Every iteration is a folder that can be looked at: `samples/` and `best/` are trajectory stores,
`best.png` shows episodes of the second and `best.parquet` is its export, `sft/` the supervised run
on it. What is finished is not done again by a run that goes on; a store that was begun is filled
up.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from medseg_agents import policies
from medseg_agents.best_of_n.config import BestOfNError, BestOfNRun
from medseg_agents.best_of_n.selection import select_best, write_best
from medseg_agents.evaluation.validation import DRAWN
from medseg_agents.llm.checkpoint import kind_to_play, read_view
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.log import RunLog
from medseg_agents.runs.names import check_names
from medseg_agents.sft.config import SftConfig
from medseg_agents.sft.train import train_sft
from medseg_gym.episodes import Episode
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.storage.atomic_write import atomic_folder
from medseg_gym.trajectories import (
    EpisodeKey,
    TrajectoryStore,
    TrajectoryWriter,
    VectorRecorder,
    export_store,
)
from medseg_gym.trajectories.export.contact_sheet import show_store
from medseg_gym.trajectories.recording.episode_player import rollout_seed
from medseg_gym.trajectories.store.folder import make_folder
from medseg_gym.trajectories.store.recovery import recover


def train_best_of_n(
    config: BestOfNRun, out: str | Path, resume: bool = False, console: Console | None = None
) -> Path:
    """Sample and train, or go on with it.

    Args:
        config: Settings of the run.
        out: Folder of the run.
        resume: Go on with the run in `out`, further than its end if it is extended.
        console: Where progress goes.

    Returns:
        Folder of the model of the newest iteration.

    Raises:
        BestOfNError: The folder holds a run already (without `resume`) or one with other settings,
            or no episode of an iteration is worth keeping.
        PolicyError: The model cannot be loaded.
    """
    run = RunFolder(out)
    run.check(config, resume, BestOfNError)
    load = kind_to_play(config.model).load
    check_names(load, config.cases, "train", config.backbone, config.checkpoint, config.reward)
    run.start(config, None, resume, error=BestOfNError)
    model = Path(config.model)
    folders = [
        run.path / f"iteration-{i:03d}" for i in range(1, config.total(config.iterations) + 1)
    ]
    done = 0
    while done < len(folders) and (folders[done] / "sft" / "model").is_dir():
        done += 1
        model = folders[done - 1] / "sft" / "model"
    shown = ("return", "best_return", "kept")
    with RunLog(run.path, len(folders), done, console, shown, "iterations", config.log_to) as log:
        for number, folder in enumerate(folders[done:], start=done + 1):
            model, values = _iterate(config, model, folder, number)
            log.write(number, values)
            show_store(TrajectoryStore(folder / "best"), folder / "best.png", DRAWN)
            log.write_sheet(number, (folder / "best.png").read_bytes())
    with atomic_folder(run.model, BestOfNError) as unfinished:
        shutil.copytree(model, unfinished, dirs_exist_ok=True)
    return run.model


def _iterate(
    config: BestOfNRun, model: Path, folder: Path, number: int
) -> tuple[Path, dict[str, float]]:
    """Sample, select and train once; returns the new model, and the numbers of the iteration."""
    store = sample_cases(config, model, folder / "samples", number)
    selection = select_best(store, config.min_return)
    if not selection.chosen:
        raise BestOfNError(
            f"iteration {number}: of {len(store)} episodes none is kept: {selection.below} cases "
            f"whose best return is below {config.min_return}, {selection.without} without an "
            f"episode whose every action could be read; the mean return is "
            f"{selection.mean_return:.3f}"
        )
    best = write_best(store, selection.chosen, folder / "best")
    file = folder / "best.parquet"
    chat = kind_to_play(model).options.from_arguments(read_view(model).view)
    export_store(best, file, "chat-parquet", chat)
    settings = SftConfig.from_mapping(config.sft(str(model), str(file)))
    trained = train_sft(settings, folder / "sft", resume=True, quiet=True)
    return trained, {
        "return": selection.mean_return,
        "best_return": selection.best_return,
        "kept": len(selection.chosen),
        "unreadable": selection.unreadable,
        "cases_unreadable": selection.without,
        "cases_below": selection.below,
    }


def sample_cases(
    config: BestOfNRun,
    model: Path,
    path: Path,
    number: int,
    on_batch: Callable[[], None] | None = None,
) -> TrajectoryStore:
    """Play every case `num_generations` times and record what is not in the store yet.

    Args:
        config: Settings of the run.
        model: Folder of the checkpoint that plays.
        path: Folder of the store.
        number: Of the iteration; other draws in each.
        on_batch: Called after each batch of cases.
    """
    keys = list(kind_to_play(model).load(config.cases, "train").keys[: config.limit])
    make_folder(path)
    recover(path)
    recorded = set(TrajectoryStore(path).keys())
    drawn_by = f"temperature={config.temperature}&max_new_tokens={config.max_completion_length}"
    spec = policies.make(f"llm:{model}?{drawn_by}")
    envs = make_envs(
        min(config.num_envs, len(keys)),
        spec.env_id,
        cases=config.cases,
        split="train",
        **config.env_options(),
        **spec.view,
    )
    policy = spec.build(envs)
    seed = rollout_seed(config.seed, number - 1)
    batches = range(-(-len(keys) // envs.num_envs))
    rollout = 0

    def key_of(episode: Episode) -> EpisodeKey | None:
        # A slot that fills up a short batch repeats a case: the first slot with it is the real one.
        key = EpisodeKey(episode.case.key, seed, rollout)
        if key in recorded:
            return None
        recorded.add(key)
        return key

    with TrajectoryWriter(path) as writer:
        recorder = VectorRecorder(envs, writer, policy=policy, key_of=key_of)
        for rollout in range(config.num_generations):
            whole = frozenset(
                batch
                for batch in batches
                if all(
                    EpisodeKey(case, seed, rollout) in recorded
                    for case in keys[batch * envs.num_envs : (batch + 1) * envs.num_envs]
                )
            )
            drawn = rollout_seed(seed, rollout)
            for _ in play_cases(recorder, policy, keys, drawn, whole):  # type: ignore[arg-type]
                if on_batch:
                    on_batch()
        recorder.close()
    return TrajectoryStore(path)
