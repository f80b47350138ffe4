"""`medseg doctor`: what is installed, where things are, and whether an episode can be played."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import typer
from rich.markup import escape

import medseg_gym
from medseg_gym.cli.extras import install_line, missing_packages, requirements_by_extra
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import CheckpointError
from medseg_gym.option_groups import SegmenterOptions
from medseg_gym.thread_waiting import SPINS, VARIABLE

_PACKAGES = (
    *("torch", "gymnasium", "numpy", "ray", "stable-baselines3", "transformers", "trl", "peft"),
    *("vllm", "fastapi", "pyarrow", "nibabel", "pydicom", "SimpleITK", "sam2", "wandb", "mlflow"),
)
_VARIABLES = ("OMP_NUM_THREADS", VARIABLE, SPINS, "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_GOOD = 0.5
"""Dice that a box around a large target must reach."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(SegmenterOptions):
    """Options of `medseg doctor`."""

    topic: ClassVar[str] = "Self test"

    self_test: bool = True
    """Play one bundled case with the segmenter."""


def doctor(options: DoctorOptions) -> None:
    """Say what is installed and where things are, and play one case; exit code 1 if that fails."""
    result: dict[str, Any] = {
        "versions": find_versions(),
        "devices": find_devices(),
        "threads": find_threads(),
        "extras": find_extras(),
        "caches": find_caches(),
        "checkpoints": find_checkpoints(),
        "self_test": play_case(options) if options.self_test else None,
    }
    print_result(result)
    console = make_console()
    for title, rows in _tables(result):
        table = Table(title=title, show_header=False)
        for name, text in rows:
            table.add_row(escape(name), escape(text))
        console.print(table)
    tested = result["self_test"]
    if tested is not None:
        style = "green" if tested["ok"] else "red"
        console.print(f"self test: {tested['message']}", style=style, markup=False, soft_wrap=True)
        if not tested["ok"]:
            raise typer.Exit(1)


def find_versions() -> dict[str, str | None]:
    """Return versions by name; None of what is not installed."""
    results: dict[str, str | None] = {
        "medseg-gym": medseg_gym.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in _PACKAGES:
        try:
            results[name] = version(name)
        except PackageNotFoundError:
            results[name] = None
    return results


def find_devices() -> list[dict[str, Any]]:
    """Return the devices that torch can compute on, with their memory in bytes where known."""
    import torch

    from medseg_gym.backbones.batching.fused import has_fused, multiplies_bfloat16

    name = platform.processor() or platform.machine()
    name += ", fast in bfloat16" if multiplies_bfloat16() else ", slow in bfloat16"
    name += "" if has_fused(torch.float32) else ", no fused layers in this torch"
    results: list[dict[str, Any]] = [{"device": "cpu", "name": name, "memory": None}]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        results.append(
            {"device": f"cuda:{number}", "name": about.name, "memory": about.total_memory}
        )
    if torch.backends.mps.is_available():
        results.append({"device": "mps", "name": "Apple GPU", "memory": None})
    return results


def find_threads() -> dict[str, Any]:
    """Return the cores that this process may use, torch's threads, and variables that set them."""
    import torch

    usable = getattr(os, "sched_getaffinity", None)
    return {
        "cores": os.cpu_count(),
        "usable_cores": len(usable(0)) if usable else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        **{name: os.environ.get(name) for name in _VARIABLES},
    }


def find_extras() -> dict[str, dict[str, Any]]:
    """Return for each extra what is missing of it, and the line that installs it."""
    results = {}
    for extra in requirements_by_extra():
        missing = missing_packages(extra)
        results[extra] = {"missing": missing, "install": install_line(extra) if missing else None}
    return results


def find_caches() -> list[dict[str, Any]]:
    """Return the folders of the cache with their files and bytes."""
    from medseg_gym.storage.cache_folder import cache_folder

    root = cache_folder("checkpoints").parent
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    return [{"folder": str(root / one.name), **_count(one)} for one in folders]


def find_checkpoints() -> dict[str, str | None]:
    """Return the weight file of every backbone that needs one; None where it is not found."""
    from medseg_gym.backbones import available
    from medseg_gym.backbones.checkpoint_files import find_checkpoint

    results: dict[str, str | None] = {}
    for spec in available().values():
        if spec.checkpoint is not None:
            try:
                results[spec.name] = str(find_checkpoint(spec, None))
            except CheckpointError:
                results[spec.name] = None
    return results


def play_case(options: SegmenterOptions) -> dict[str, Any]:
    """Play one bundled case with a box that knows the truth.

    Args:
        options: The segmenter.

    Returns:
        Whether the mask is a good one ("ok"), its Dice and the time, and a sentence ("message").
    """
    from medseg_gym import annotators
    from medseg_gym.cases import load_cases
    from medseg_gym.policy import make_envs, play_cases

    began = time.perf_counter()
    source = load_cases("samples", "test")
    largest = max(range(len(source)), key=lambda index: source[index].area_fraction)
    try:
        envs = make_envs(
            1,
            cases=source,
            backbone=options.backbone,
            checkpoint=options.checkpoint,
            device=options.device,
        )
        policy = annotators.make("oracle-box", envs.codec)
        ((played,),) = play_cases(envs, policy, [source.keys[largest]])
        envs.close()
    except Exception as error:  # whatever it is, it is what the test is there to show
        return {"ok": False, "message": f"{type(error).__name__}: {error}"}
    dice, seconds = played.episode.dice, time.perf_counter() - began
    message = (
        f"{options.backbone} on {source.keys[largest]}: Dice {dice:.3f} with one box, "
        f"{seconds:.1f} s"
    )
    if dice < _GOOD:
        message += f"; at least {_GOOD} was expected"
    return {"ok": dice >= _GOOD, "dice": dice, "seconds": seconds, "message": message}


def _count(folder: Path) -> dict[str, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _tables(result: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Titles and rows for people."""
    versions = {name: text or "not installed" for name, text in result["versions"].items()}
    yield "versions", [*versions.items(), ("interpreter", sys.executable)]
    threads = {name: "not set" if v is None else str(v) for name, v in result["threads"].items()}
    yield "threads", [*threads.items(), ("note", _waiting(result["threads"]))]
    yield (
        "devices",
        [
            (one["device"], one["name"] + (f", {_size(one['memory'])}" if one["memory"] else ""))
            for one in result["devices"]
        ],
    )
    yield (
        "extras",
        [
            (name, f"missing {', '.join(one['missing'])}: {one['install']}")
            if one["missing"]
            else (name, "complete")
            for name, one in result["extras"].items()
        ],
    )
    caches = [(c["folder"], f"{c['files']} files, {_size(c['bytes'])}") for c in result["caches"]]
    yield "caches", caches or [("none", "")]
    files = result["checkpoints"]
    yield "weight files", [(name, file or "not found") for name, file in files.items()]


def _waiting(threads: dict[str, Any]) -> str:
    """Say what OpenMP's threads do while they wait."""
    if (threads[VARIABLE] or "").upper() == "PASSIVE":
        spins = threads[SPINS] or "0"
        soon = "" if spins == "0" else f" after {spins} turns of a loop"
        return f"threads that wait sleep{soon}, and leave the cores to other programs"
    spinning = "threads that wait may spin, which slows other programs on these cores"
    return f"{spinning}; {VARIABLE}=PASSIVE lets them sleep"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


doctor_command = with_options(DoctorOptions, doctor)
