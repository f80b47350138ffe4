import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from medseg_agents.evaluation.evaluate import RecordFile, evaluate, run_settings
from medseg_agents.evaluation.summary import as_tables, summarise, summarise_by, write_csv

from medseg_gym import annotators
from medseg_gym.cli.main import main
from medseg_gym.episodes import metrics
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import caveats, make_envs, play_cases


def run(cases, policy="random", num_envs=2, file=None, **options):
    envs = make_envs(num_envs, cases=cases, backbone="ellipse", max_steps=4, **options)
    actual = annotators.make(policy, envs.codec)
    keys = list(envs.source.keys)
    record_file = file and RecordFile(file, run_settings(envs, actual, keys, seed=0))
    return evaluate(envs, actual, file=record_file)


def without_time(records):
    return [replace(record, seconds=0.0) for record in records]


def test_every_case_once_with_its_facts(small_cases):
    records = run(small_cases, "oracle-box")
    assert [r.case for r in records] == [c.key for c in small_cases]
    for record, case in zip(records, small_cases, strict=True):
        assert record.group == case.group and record.area == case.area_fraction
        assert len(record.dice) == len(record.tools) + 1 == len(record.iou)
        assert record.notes[0] == "oracle" and ("synthetic" in record.notes) == case.synthetic
    assert records[-1].dice == (1.0, 1.0) and records[-1].tools == ("stop",)
    assert records[0].dice_after(0) == 0 and records[0].dice_after(9) == records[0].dice[-1]


def test_the_number_of_slots_does_not_matter(small_cases):
    one, many = run(small_cases, num_envs=1), run(small_cases, num_envs=7)
    assert [(r.case, r.dice, r.tools) for r in one] == [(r.case, r.dice, r.tools) for r in many]


@pytest.mark.parametrize("keep", [0, 1, 2.5, 3, 4.2, 99])
def test_an_interrupted_run_goes_on_and_ends_alike(keep, small_cases, tmp_path):
    whole = without_time(run(small_cases, file=tmp_path / "whole.jsonl"))
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    text = "".join(lines[: int(keep)])
    if keep % 1:  # the kill came in the middle of a line
        text += lines[int(keep)][:40]
    torn.write_text(text)
    assert without_time(run(small_cases, file=torn)) == whole
    again = torn.read_text().splitlines()
    assert len(again) == len(lines) and all(json.loads(line) for line in again)


def test_a_finished_run_is_not_played_again(small_cases, tmp_path, monkeypatch):
    first = run(small_cases, file=tmp_path / "r.jsonl")
    monkeypatch.setattr(
        "medseg_agents.evaluation.evaluate.record_of", None
    )  # playing would now fail
    assert run(small_cases, file=tmp_path / "r.jsonl") == first


def test_a_file_of_another_run_is_refused(small_cases, tmp_path):
    run(small_cases, file=tmp_path / "r.jsonl")
    with pytest.raises(MedSegError, match="other settings"):
        run(small_cases, policy="stop", file=tmp_path / "r.jsonl")
    (tmp_path / "bad.jsonl").write_text((tmp_path / "r.jsonl").read_text() + "{}\n")
    with pytest.raises(MedSegError, match=r"bad.jsonl:\d+"):
        run(small_cases, file=tmp_path / "bad.jsonl")


def test_an_environment_that_resets_itself_is_refused(small_cases):
    import gymnasium as gym

    envs = gym.make_vec("MedSeg-v0", num_envs=2, cases=small_cases, backbone="ellipse").unwrapped
    with pytest.raises(PolicyError, match="disabled"):
        next(play_cases(envs, annotators.make("stop", envs.codec), ["tall"]))


def test_untrained_clicks_are_labelled(small_cases):
    envs = make_envs(1, cases=small_cases[:1], backbone="ellipse")
    policy = annotators.make("oracle-click", envs.codec)
    ((played,),) = play_cases(envs, policy, ["wide"])

    class BoxTrained:
        trained_kinds = frozenset({"box"})

    actual = caveats(policy, BoxTrained(), [played.episode])
    assert actual == ["oracle", "synthetic", "not trained for clicks"]


def test_summaries(small_cases):
    records = run(small_cases, "oracle-box")
    row = summarise(records, 4, policy="p")
    assert row["n"] == 5 and row["groups"] == 5 and row["dice_interval"] is not None
    assert row["dice"] == pytest.approx(sum(r.dice[-1] for r in records) / 5)
    assert len(row["dice_after"]) == 5 and row["dice_after"][-1] == pytest.approx(row["dice"])
    rows = summarise_by(records, "modality", 4, policy="p")
    assert [r["subset"] for r in rows] == ["all", "CT", "unknown"]
    assert sum(r["n"] for r in rows[1:]) == 5 and rows[1]["dice_interval"] is None


def with_spacing(cases):
    """The first two cases get one; the others stay without."""
    return (*(replace(case, spacing=(0.5, 2.0)) for case in cases[:2]), *cases[2:])


def test_records_hold_the_metrics_of_the_final_mask(small_cases):
    cases = with_spacing(small_cases)
    envs = make_envs(2, cases=cases, backbone="ellipse", max_steps=4)
    policy = annotators.make("random", envs.codec)
    played = [p for batch in play_cases(envs, policy, [c.key for c in cases]) for p in batch]
    records = evaluate(envs, policy)
    for record, case, episode in zip(records, cases, (p.episode for p in played), strict=True):
        mask = episode.state.mask.numpy()
        assert record.dice[-1] == metrics.dice(mask, case.mask)
        expected = metrics.surface_scores(mask, case.mask, case.spacing)
        distance = None if expected.hd95 == float("inf") else expected.hd95
        assert (record.hd95, record.nsd, record.unit) == (distance, *expected[1:])
        assert record.boundary_iou == metrics.boundary_iou(mask, case.mask)
    assert [record.unit for record in records] == ["mm", "mm", "px", "px", "px"]


@pytest.mark.parametrize("policy", ["stop", "oracle-box", "random"])
def test_metrics_without_a_value_are_valid_json_and_counted(policy, small_cases, tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    file = tmp_path / "r.jsonl"
    records = run(with_spacing(small_cases), policy, file=file)
    for line in file.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert run(with_spacing(small_cases), policy, file=file) == records  # read back
    row = summarise(records, 4, backbone="b", policy="p", subset="all")
    json.dumps(row, allow_nan=False)
    assert (row["cases_mm"], row["cases_px"]) == (2, 3)
    for unit in ("mm", "px"):
        actual = [r.hd95 for r in records if r.unit == unit and r.hd95 is not None]
        assert row[f"hd95_{unit}_n"] == len(actual)
        assert row[f"hd95_{unit}"] == (pytest.approx(sum(actual) / len(actual)) if actual else None)
    if policy == "stop":  # four empty masks that should not be, and one that should
        assert [r.hd95 for r in records] == [None] * 4 + [0.0]
        assert row["hd95_mm"] is None and row["nsd_mm"] == 0 and row["hd95_px"] == 0
        assert row["hd95_px_n"] == 1 and row["nsd_px"] == pytest.approx(1 / 3)
        assert row["noc80"] == pytest.approx(4 * 4 / 5) and row["failures80"] == 4
        assert row["dice_auc"] == pytest.approx(1 / 5) and row["stop_regret"] == 0
        cells = [next(iter(column.cells)) for column in as_tables([row], "t", 4)[2].columns]
        assert "- (0/2)" in cells and "0.00 (1/3)" in cells and "3.20 (4)" in cells
    write_csv([row], tmp_path / "r.csv")
    header, values = (tmp_path / "r.csv").read_text().splitlines()
    assert "hd95_mm,hd95_mm_n" in header and "nan" not in values and "inf" not in values


def test_clicks_are_counted_to_the_most_there_could_have_been(small_cases):
    record = run(small_cases[:1], "oracle-box")[0]
    curve = replace(record, iou=(0.0, 0.82, 0.95, 0.7), dice=(0.0, 0.9, 0.97, 0.8))
    early = replace(record, iou=(0.0, 0.82), dice=(0.0, 0.9))
    row = summarise([curve, early], 6, policy="p")
    assert (row["noc80"], row["failures80"]) == (1, 0)
    assert (row["noc85"], row["failures85"]) == ((2 + 6) / 2, 1)
    assert (row["noc90"], row["failures90"]) == ((2 + 6) / 2, 1)
    assert row["stop_regret"] == pytest.approx(0.17 / 2)


@pytest.mark.slow
def test_the_command_killed_half_way_gives_the_same_numbers(tmp_path, monkeypatch, capsys):
    def words(out):
        return [
            *("--cases", "phantoms", "--limit", "40", "--policies", "random,oracle-click"),
            *("--backbones", "ellipse", "--num-envs", "4", "--out", str(out)),
        ]

    def finish(out):  # as the program does, in this process
        monkeypatch.setattr(sys, "argv", ["medseg", "compare", *words(out)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code

    finish(tmp_path / "a")
    assert "synthetic" in capsys.readouterr().out
    program = [sys.executable, "-m", "medseg_gym.cli.main", "compare", *words(tmp_path / "b")]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(program, cwd=root, stdout=subprocess.DEVNULL)
    records = tmp_path / "b" / "records"
    while process.poll() is None:
        lines = sum(len(f.read_text().splitlines()) for f in records.glob("*.jsonl"))
        if lines > 12:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL
    finish(tmp_path / "b")
    numbers = []
    for folder in ("a", "b"):
        rows = json.loads((tmp_path / folder / "results.json").read_text())["rows"]
        numbers.append([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
        for name in ("results.csv", "dice_by_step.png"):
            assert (tmp_path / folder / name).stat().st_size > 200
    assert numbers[0] == numbers[1]
    assert numbers[0][0]["n"] == 40 and numbers[0][0]["dice_interval"] is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policies", "nobody"], "unknown policy 'nobody'"),
        (["--backbones", "sam_vit_b"], "sam_vit_b_01ec64.pth"),
        (["--cases", "nowhere"], "unknown case spec 'nowhere'"),
    ],
)
def test_bad_command_lines_end_in_one_line(arguments, words, tmp_path, refusal):
    common = ["--out", str(tmp_path), "--backbones", "ellipse"]
    error = refusal("compare", *common, *arguments)
    assert words in error and error.count("\n") == 1


def test_a_bad_command_line_ends_the_program_with_2(tmp_path):
    program = [sys.executable, "-m", "medseg_gym.cli.main", "compare", "--policies", "nobody"]
    result = subprocess.run(
        [*program, "--backbones", "ellipse", "--out", str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and "unknown policy 'nobody'" in result.stderr
    assert "Traceback" not in result.stderr
