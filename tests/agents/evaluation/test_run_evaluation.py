"""`medseg eval`: every case once, whoever plays it and however often the run is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from medseg_agents.evaluation.medsam_agent_results import results_layout
from medseg_agents.evaluation.options import EvalOptions
from medseg_agents.evaluation.run import run_evaluation

from medseg_gym.cli.main import main
from medseg_gym.errors import CaseError, MedSegError, PolicyError

OPTIONS = EvalOptions(
    cases="phantoms:abdomen", policy="random", backbone="ellipse", num_envs=4, limit=18
)


def numbers(records):
    return [replace(record, seconds=0.0) for record in records]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_evaluation(OPTIONS, tmp_path_factory.mktemp("whole"))


def test_every_case_once_in_order(whole):
    from medseg_gym.cases import load_cases

    keys = list(load_cases("phantoms:abdomen", "test").keys[:18])
    assert [record.case for record in whole.records] == keys
    assert [record.batch for record in whole.records] == [i // 4 for i in range(18)]
    assert {record.batch_size for record in whole.records} == {4, 2}
    record = whole.records[0]
    assert len(record.calls) == len(record.tools) and record.answers == ()
    assert whole.settings["threads"] == 1 and whole.settings["device"] == "cpu"


def test_it_is_what_evaluate_gives(whole):
    """One evaluation loop: the same records as one process of `evaluate`."""
    from medseg_agents import policies
    from medseg_agents.evaluation.evaluate import evaluate

    from medseg_gym.policy import make_envs

    envs = make_envs(4, cases=OPTIONS.cases, split="test", backbone="ellipse")
    policy = policies.make("random").build(envs)
    records = evaluate(envs, policy, list(envs.source.keys[:18]), keep_masks=True)
    assert numbers(records) == numbers(whole.records)


@pytest.mark.parametrize("lines", [0, 1, 3, 9.5, 12])
def test_a_torn_file_is_completed(lines, whole, tmp_path):
    run_evaluation(OPTIONS, tmp_path)
    file = tmp_path / "records.jsonl"
    kept = file.read_text().splitlines(keepends=True)
    half = kept[int(lines)][:30] if lines % 1 else ""
    file.write_text("".join(kept[: int(lines)]) + half)
    seen = []
    again = run_evaluation(OPTIONS, tmp_path, on_batch=lambda batch: seen.extend(batch))
    assert numbers(again.records) == numbers(whole.records) and len(seen) == 18


def test_a_finished_run_is_not_played_again(whole, tmp_path, monkeypatch):
    first = run_evaluation(OPTIONS, tmp_path)
    monkeypatch.setattr(
        "medseg_agents.evaluation.playing.player.outcome_of", None
    )  # playing would now fail
    assert run_evaluation(OPTIONS, tmp_path).records == first.records


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"seed": 1}, MedSegError, "holds a run with other settings"),
        ({"num_envs": 3}, MedSegError, "holds a run with other settings"),
        ({"policy": "nobody"}, PolicyError, "unknown policy 'nobody'"),
        ({"cases": "nowhere"}, CaseError, "unknown case spec 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_said(changed, error, words, tmp_path):
    run_evaluation(replace(OPTIONS, limit=4), tmp_path)
    with pytest.raises(error, match=words):
        run_evaluation(replace(OPTIONS, limit=4, **changed), tmp_path)


@pytest.mark.parametrize("name", ["num_envs", "workers", "threads", "max_steps", "limit"])
def test_options_below_one_are_refused(name):
    with pytest.raises(MedSegError, match=f"{name} must be at least 1, got 0"):
        replace(OPTIONS, **{name: 0})


def test_results_in_the_reference_layout(whole):
    result = results_layout(whole.records)
    mean = result.pop("mean")
    assert list(result) == [record.case for record in whole.records]
    for record in whole.records:
        entry = {"dice": record.dice[-1], "iou": record.iou[-1], "exp": record.target}
        assert result[record.case] == entry
    classes = {entry["exp"] for entry in result.values()}
    assert set(mean["class_dice"]) == set(mean["class_iou"]) == classes and len(classes) > 1
    for score in ("dice", "iou"):
        by_class = {
            name: [e[score] for e in result.values() if e["exp"] == name] for name in classes
        }
        means = {name: sum(values) / len(values) for name, values in by_class.items()}
        assert mean[f"class_{score}"] == pytest.approx(means)
        assert mean[f"mean_class_{score}"] == pytest.approx(sum(means.values()) / len(means))
        assert mean[f"mean_{score}"] == pytest.approx(sum(e[score] for e in result.values()) / 18)
    with pytest.raises(MedSegError, match='may not be called "mean"'):
        results_layout([replace(whole.records[0], case="mean")])


def test_workers_are_spread_over_the_gpus(monkeypatch):
    """Device of a worker; the GPUs themselves are not needed to decide it."""
    import torch

    from medseg_gym.parallel.compute import choose_gpu

    assert choose_gpu("cpu", 3) == "cpu"
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert [choose_gpu("auto", i) for i in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert taken == [0, 1, 0] and choose_gpu("cuda:1", 0) == "cuda:1"


@pytest.mark.slow
def test_two_workers_give_exactly_what_one_gives(tmp_path):
    """With a learned backbone, whose last bits depend on what is computed together."""
    options = replace(OPTIONS, policy="oracle-box-click", backbone="pocket", limit=22)
    one = run_evaluation(options, tmp_path / "one")
    two = run_evaluation(replace(options, workers=2), tmp_path / "two")
    assert numbers(one.records) == numbers(two.records)
    assert one.settings == two.settings


@pytest.mark.slow
def test_errors_of_workers_reach_the_caller(tmp_path):
    options = replace(OPTIONS, workers=2, policy="sb3:nowhere")
    with pytest.raises(MedSegError, match="nowhere"):
        run_evaluation(options, tmp_path)


def words(out, workers):
    return [
        *("eval", "--cases", "phantoms:abdomen", "--policy", "oracle-click"),
        *("--backbone", "ellipse", "--num-envs", "2", "--limit", "160"),
        *("--workers", str(workers), "--out", str(out)),
    ]


def start(out, workers, **pipes):
    """The command as a process of its own, to be killed."""
    program = [sys.executable, "-m", "medseg_gym.cli.main", *words(out, workers)]
    root = Path(__file__).parents[3]
    return subprocess.Popen(program, cwd=root, stdout=subprocess.DEVNULL, **pipes)


@pytest.fixture
def finish(monkeypatch, capsys):
    """The command in this process, to its end; what it prints."""

    def finish(out, workers):
        monkeypatch.setattr(sys, "argv", ["medseg", *words(out, workers)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    return finish


def lines_in(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.slow
def test_a_run_killed_again_and_again_gives_the_same_results(tmp_path, finish):
    printed = finish(tmp_path / "a", 1)
    assert "phantoms:abdomen" in printed and "Note: oracle, synthetic." in printed
    file = tmp_path / "b" / "records.jsonl"
    for workers, wanted in ((2, 5), (1, 41)):
        process = start(tmp_path / "b", workers)
        while process.poll() is None and lines_in(file) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert wanted <= lines_in(file) < 161
    with file.open("a") as torn:  # as a kill in the middle of a write would leave it
        torn.write('{"case": "abd')
    finish(tmp_path / "b", 2)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in "ab"]
    assert results[0] == results[1] and len(results[0]) == 161
    rows = [json.loads((tmp_path / name / "summary.json").read_text())["rows"] for name in "ab"]
    for row in (*rows[0], *rows[1]):
        row.pop("seconds")
    assert rows[0] == rows[1] and rows[0][0]["subset"] == "all" and rows[0][0]["n"] == 160
    assert (tmp_path / "b" / "summary.csv").stat().st_size > 200


@pytest.mark.slow
def test_a_killed_worker_is_replaced(tmp_path, finish):
    """Its batch is played again, and the results are those of a run without a death."""
    process = start(tmp_path / "killed", 2, stderr=subprocess.PIPE, text=True)
    file = tmp_path / "killed" / "records.jsonl"
    while process.poll() is None and lines_in(file) < 5:
        time.sleep(0.01)
    for pid in workers_of(process.pid)[:1]:
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    finish(tmp_path / "whole", 1)
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("killed", "whole")]
    for one in results:
        assert len(one) == 161
    assert results[0] == results[1]


def workers_of(parent: int) -> list[int]:
    """Processes that multiprocessing has started for a process, by /proc."""
    result = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status[1]) == parent and b"spawn_main" in words:
                result.append(int(entry.name))
    return result
