"""Episodes that runs have played, so that each is judged after as many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.log import read_progress

from benchmarks.learning.methods.catalogue import METHODS
from benchmarks.learning.methods.sizes import Sizes, run_of, start_of
from medseg_gym.errors import MedSegError


@dataclass(frozen=True)
class Trained:
    """A run as it is judged.

    Args:
        model: Folder of the model after its episodes.
        episodes: Played until then.
        iterations: Taken until then.
    """

    model: Path
    episodes: int
    iterations: int


def trained(out: Path, name: str, seed: int, sizes: Sizes) -> Trained:
    """Return a run's model after at most the episodes that all may play.

    Dynamic sampling plays further groups in some iterations: it is judged at the last checkpoint
    before it has played more than the others.

    Args:
        out: Folder of the comparison.
        name: Of the method.
        seed: Of the run.
        sizes: Of the runs.

    Raises:
        MedSegError: Not one iteration fits.
    """
    run = RunFolder(run_of(out, name, seed))
    if METHODS[name].kind == "sft":
        return Trained(run.model, 0, sizes.sft_steps)
    if not METHODS[name].settings.get("dynamic_sampling"):
        return Trained(run.model, sizes.episodes, sizes.iterations)
    spent, folders = 0, run.checkpoints()
    last: Trained | None = None
    for row in read_progress(run.path):
        if "groups/resampled" not in row:
            continue
        spent += int(sizes.groups + row["groups/resampled"]) * sizes.num_generations
        if spent <= sizes.episodes:
            step = int(row["step"])
            last = Trained(folders[step] / "model", spent, step)
    if last is None:
        raise MedSegError(f"{run.path}: its first iteration played more than {sizes.episodes}")
    return last


def explored_returns(out: Path, name: str, seed: int, sizes: Sizes) -> list[tuple[float, float]]:
    """Return (episodes played until then, mean return of those drawn) of every iteration.

    Args:
        out: Folder of the comparison.
        name: Of the method.
        seed: Of the run.
        sizes: Of the runs.

    Returns:
        Points; none of a run whose log has no returns, as of fine-tuning.
    """
    rounds = sizes.best_rounds if METHODS[name].kind == "best-of-n" else sizes.iterations
    points, spent = [], 0.0
    for row in read_progress(run_of(out, name, seed)):
        if "return" not in row:
            continue
        spent += sizes.episodes / rounds
        spent += row.get("groups/resampled", 0) * sizes.num_generations
        points.append((spent, row["return"]))
    return points


def signs(out: Path, name: str, seed: int, iterations: int) -> dict[str, float]:
    """Return what a run's log says of whether its switch had anything to do.

    Args:
        out: Folder of the comparison.
        name: Of the method.
        seed: Of the run.
        iterations: That count.
    """
    rows = [row for row in read_progress(run_of(out, name, seed)) if 0 < row["step"] <= iterations]
    result = {}
    for title, column in (
        ("clipped", "clip_ratio/region"),
        ("flat_groups", "frac_reward_zero_std"),
        ("resampled", "groups/resampled"),
    ):
        values = [row[column] for row in rows if column in row]
        if values:
            result[title] = sum(values) / len(values)
    return result


def is_trained(out: Path, name: str, seed: int) -> bool:
    """Return whether a run is finished."""
    return (run_of(out, name, seed) / "model").is_dir()


def start_is_made(out: Path, name: str, sizes: Sizes, seeds: Sequence[int]) -> bool:
    """Return whether the models that a method's runs begin from are there.

    Raises:
        MedSegError: One that was given is not.
    """
    folders = [start_of(out, name, seed, sizes) for seed in seeds]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing and sizes.starts:
        raise MedSegError(
            f"{missing[0]} is not there: starts= names folders of finished chains "
            "(python -m benchmarks.learning.tiny_chain --out FOLDER)"
        )
    return not missing


def same_weights(one: Path, other: Path) -> bool:
    """Return whether two models are the same to the bit."""
    name = "model.safetensors"
    return (one / name).read_bytes() == (other / name).read_bytes()
