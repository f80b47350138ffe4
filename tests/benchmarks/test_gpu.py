"""The GPU program on a CPU: parts by themselves, its table, and the whole on few packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from itertools import count
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import parity, rows, speed, variants, waits, wheels
from benchmarks.gpu.parts import PARTS, Part, choose
from benchmarks.gpu.rl import CHUNKED, Size, Variant
from benchmarks.gpu.rl import variants as ways_to_train
from benchmarks.gpu.rows import Job, Row
from medseg_gym.backbones import PromptRow, load
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox, AddPoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path):
    return Job("part", "cpu", True, time.monotonic() + 600, tmp_path / "rows.jsonl")


# rows -----------------------------------------------------------------------------------------
def test_rows_are_there_once_they_are_said(job, capsys):
    job.add("one", rows.MEASURED, "3 s", numbers={"s": 3})
    assert "part: one: 3 s: measured" in capsys.readouterr().out
    with job.file.open("a") as file:
        file.write('{"part": "torn')  # the process was killed as it wrote
    assert rows.read(job.file) == [
        Row(part="part", what="one", verdict="measured", value="3 s", numbers={"s": 3})
    ]


@pytest.mark.parametrize(
    ("value", "at_most", "verdict"),
    [(1.0, True, "passed"), (1.1, True, "missed"), (1.0, False, "passed"), (0.9, False, "missed"),
     (float("nan"), True, "missed"), (float("nan"), False, "missed")],
)  # fmt: skip
def test_floors_bind_a_gpu_alone(tmp_path, job, value, at_most, verdict):
    real = Job("part", "cuda", False, 0.0, tmp_path / "rows.jsonl")
    assert real.compare("x", value, 1, at_most=at_most, shown="").verdict == verdict
    assert job.compare("x", value, 1, at_most=at_most, shown="").verdict == "measured"


def test_what_there_was_no_time_for_is_a_row(tmp_path):
    late = Job("part", "cpu", True, time.monotonic(), tmp_path / "rows.jsonl")
    assert late.late("the rest")
    assert rows.read(late.file)[0].verdict == rows.LATE
    assert not rows.is_fine(rows.read(late.file))


# the program ----------------------------------------------------------------------------------
def test_time_that_a_part_leaves_over_goes_to_the_next(monkeypatch):
    clock = count(0, 10)  # every look at it is ten seconds later
    monkeypatch.setattr(program.time, "monotonic", lambda: next(clock))
    parts = {name: Part("", "", share) for name, share in (("a", 1), ("b", 3))}
    assert dict(program.shares(parts, 100)) == {"a": 90 / 4, "b": 80}


def test_unknown_parts_are_refused():
    assert list(choose("waits,parity")) == ["parity", "waits"]
    assert list(choose("")) == list(PARTS)
    with pytest.raises(MedSegError, match="no part waitz; known: parity"):
        choose("waitz")


def run(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_part_that_fails_or_hangs_is_a_row(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "def fail(job):\n    raise RuntimeError('no such kernel')\n"
        "def hang(job):\n    job.add('begun', 'measured')\n    import time\n    time.sleep(600)\n"
        "for name, run in (('parity', fail), ('waits', hang)):\n"
        "    sys.modules[f'benchmarks.gpu.{name}'] = types.ModuleType(name)\n"
        "    sys.modules[f'benchmarks.gpu.{name}'].run = run\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT), *sys.path]))
    file, log = tmp_path / "rows.jsonl", tmp_path / "log"
    program.run_apart("parity", file, 60, ["--device", "cpu"], log)
    program.run_apart("waits", file, 10, ["--device", "cpu"], log)
    kept = rows.read(file)
    assert [(row.part, row.verdict) for row in kept] == [
        ("parity", "failed"),
        ("waits", "measured"),
        ("waits", "out of time"),
    ]
    assert "no such kernel" in kept[0].value and "ended after 10 s" in kept[2].value
    assert not rows.is_fine(kept)


def test_a_program_that_is_told_to_end_still_prints_its_table(tmp_path):
    process = run("--parts", "parity", "--out", str(tmp_path))
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("parity: pocket"):
            process.send_signal(signal.SIGTERM)
            break
    rest, _ = process.communicate(timeout=60)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["verdict"] for row in results["rows"]][::-1][0] == "out of time"
    assert "ended by SIGTERM" in rest and "pocket" in rest
    assert process.returncode == 1


def test_a_machine_without_a_gpu_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MedSegError, match="no GPU that torch can use"):
        program.measure(device="cuda", small=False, parts="", seconds=1, out=tmp_path)


# parts ----------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:pocket.dtype=bfloat16:UserWarning")  # slow on some CPUs
def test_a_difference_between_devices_is_seen(job):
    here, there = load("pocket", device="cpu"), load("pocket", device="cpu", dtype="bfloat16")
    cases = parity.different_cases()
    assert cases[0].image.shape != cases[1].image.shape
    parity.compare(job, "same", here, here, cases)
    parity.compare(job, "rounded", here, there, cases)
    same, rounded = (row.numbers for row in rows.read(job.file))
    assert same["value"] == same["pixels"] == 0
    assert rounded["value"] > parity.LIMIT and rounded["spread"] > 1


def test_waits_are_counted_on_any_machine(job):
    waits.run(job)
    kept = rows.read(job.file)
    assert [row.numbers["value"] for row in kept if row.verdict == "measured"] == [1, 1]
    skipped = [row for row in kept if row.verdict == "skipped"]
    assert len(skipped) == len(waits.BACKBONES) and skipped[0].value == "needs CUDA"


def test_a_step_is_timed_beside_the_call_that_it_made():
    ratio, step, bare = speed.step_and_decode(load("ellipse", device="cpu"), 3, 1)
    assert ratio > 1 and step > bare > 0


def test_copies_handed_out_again_decode_the_same(tiny_backbone, small_cases):
    embeddings = tiny_backbone.encode([case.image for case in small_cases[:2]])
    asked = [
        PromptRow(embeddings[0], AddBox(0.1, 0.2, 0.8, 0.9)),
        PromptRow(embeddings[1], None, (AddPoint(0.4, 0.4), AddPoint(0.2, 0.7, False)), None, True),
    ]
    with torch.inference_mode():
        plain = tiny_backbone.decode(asked).logits
        inputs = variants.Transfers()
        with inputs.used(again=False):
            recorded = tiny_backbone.decode(asked).logits
        assert len(inputs._made) >= 3  # places, labels, and which rows want one mask
        inputs._made[0].add_(7)  # what a graph would read anew
        with inputs.used(again=True):
            moved = tiny_backbone.decode(asked).logits
        inputs._made[0].sub_(7)
        with inputs.used(again=True):
            again = tiny_backbone.decode(asked).logits
        assert torch.equal(tiny_backbone.decode(asked).logits, plain)
    assert torch.equal(plain, recorded) and torch.equal(plain, again)
    assert not torch.equal(plain, moved)


def test_chunks_are_measured_where_this_version_has_them():
    plain, chunked = ways_to_train(set()), ways_to_train({CHUNKED})
    assert {v.trained for v in plain} == {"all", "adapters"}
    assert [v.shared for v in plain[:2]] == [True, False]
    assert [v.chunked for v in chunked if v.chunked is not None] == [0, 256]
    assert len({v.name for v in chunked}) == len(chunked) == len(plain) + 2


def test_the_large_model_has_a_real_vocabulary_and_300_million_parameters():
    size = Size()
    # Attention (q, o whole; k, v half) and a gated MLP of three times the width, a layer.
    layer = (3 + 9) * size.hidden**2
    assert size.layers * layer + size.vocabulary * size.hidden >= 300e6


# wheels ---------------------------------------------------------------------------------------
def make_wheel(path, members):
    with zipfile.ZipFile(path, "w") as written:
        for name, text in members.items():
            written.writestr(name, text)
    return path


def test_wheels_lose_what_nothing_reads(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    info = "ray-1.0.dist-info"
    members = {
        "ray/_raylet.so": "machine code",
        "ray/jars/ray.jar": "java" * 1000,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: cp312-cp312-any\n",
        f"{info}/RECORD": f"ray/_raylet.so,,\nray/jars/ray.jar,,\n{info}/RECORD,,\n",
    }
    made = wheels.slim(make_wheel(tmp_path / "ray-1.0-cp312-cp312-any.whl", members), out)
    assert made.name == "ray-1.0-cp312-cp312-any.whl"
    with zipfile.ZipFile(made) as read:
        assert set(read.namelist()) == set(members) - {"ray/jars/ray.jar"}
        assert read.read(f"{info}/RECORD").decode() == f"ray/_raylet.so,,\n{info}/RECORD,,\n"


def test_a_wheel_of_pure_python_fits_every_python(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    members = {"sam2/a.py": "", "sam2-1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: cp311-x-y\n"}
    made = wheels.slim(make_wheel(tmp_path / "sam2-1-cp311-cp311-linux.whl", members), out)
    assert made.name == "sam2-1-py3-none-any.whl"
    with zipfile.ZipFile(made) as read:
        text = read.read("sam2-1.dist-info/WHEEL").decode()
    assert text == "Wheel-Version: 1.0\nTag: py3-none-any\n"


# the whole ------------------------------------------------------------------------------------
def run_on(packages, tmp_path, *arguments):
    """Run the script where no other packages are to be seen."""
    (tmp_path / "sitecustomize.py").write_bytes(
        (Path(__file__).parent / "only_packages.py").read_bytes()
    )
    ran = subprocess.run(
        [ROOT / "benchmarks/gpu/run.sh", "--device", "cpu", "--small", "--out", tmp_path / "out",
         *arguments],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(tmp_path),
            "ONLY_PACKAGES": ",".join(packages),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    results = json.loads((tmp_path / "out/gpu.json").read_text())
    table = ran.stdout.rpartition("small models")[2]
    for row in results["rows"]:
        assert row["verdict"] in ("measured", "skipped"), row
    assert table.strip().splitlines()[-1].endswith(" skipped")
    return {part: [r for r in results["rows"] if r["part"] == part] for part in PARTS}


BARE = ("torch", "torchvision", "timm", "transformers")


def plain(requirements):
    return [text.partition("=")[0].partition("<")[0] for text in requirements]


@pytest.mark.slow
def test_the_whole_runs_on_four_packages_and_the_wheels(tmp_path):
    pytest.importorskip("sam2")
    pytest.importorskip("timm")
    kept = run_on([*BARE, *plain(wheels.CORE)], tmp_path)
    compared = [row for row in kept["parity"] if row["verdict"] == "measured"]
    assert len(compared) == len(parity.SMALL)
    assert all(row["numbers"]["value"] == 0 for row in compared)
    assert {row["value"] for row in kept["waits"]} == {"1 a step", "needs CUDA"}
    assert len([row for row in kept["speed"] if "envs" in row["what"]]) == 2 + 2 * 4
    assert "ray" in kept["grpo"][0]["value"] and kept["grpo"][0]["verdict"] == "skipped"


@pytest.mark.slow
def test_grpo_runs_on_the_wheels_and_the_larger_packages(tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("ray")
    from medseg_agents.grpo.settings import ChatSettings

    larger = ("peft", "accelerate", "pandas", "pyarrow", "scipy")
    packages = [*BARE, *larger, *plain((*wheels.CORE, *wheels.LEARNING))]
    kept = run_on(packages, tmp_path, "--parts", "waits,grpo")["grpo"]
    ways = ways_to_train(set(ChatSettings.__dataclass_fields__))
    assert [row["numbers"]["variant"] for row in kept] == [way.name for way in ways]
    numbers = {row["numbers"]["variant"]: row["numbers"] for row in kept}
    exact = numbers[Variant(trained="all", precision="float32").name]
    assert exact["sampling/max_ratio_deviation"] < 1e-3
    rounded = numbers[Variant(trained="all").name]
    assert exact["sampling/max_ratio_deviation"] < rounded["sampling/max_ratio_deviation"]
    assert all(row["learned_tokens_per_second"] > 0 for row in numbers.values())
