"""Records on disk: torn, damaged, and wanted by two programs."""

import json

import pytest
from medseg_agents.evaluation.evaluate import RecordFile, evaluate

from medseg_gym import annotators
from medseg_gym.errors import MedSegError
from medseg_gym.policy import make_envs


def test_a_second_writer_is_noticed_and_no_case_stands_twice(small_cases, tmp_path):
    envs = make_envs(5, cases=small_cases, backbone="ellipse", max_steps=4)
    records = evaluate(envs, annotators.make("oracle-box", envs.codec))
    path, settings = tmp_path / "records.jsonl", {"seed": 0}
    first, second = RecordFile(path, settings), RecordFile(path, settings)
    first.append(records)
    with pytest.raises(MedSegError, match="another program writes"):
        second.append(records)
    kept = RecordFile(path, settings)
    assert kept.records == records and second.records == []
    kept.append(records)  # whoever opens it anew goes on


@pytest.mark.parametrize("name", ["dice", "iou", "nsd", "boundary_iou", "hd95", "episode_return"])
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "null", '"0.5"'])
def test_a_record_whose_numbers_are_none_is_named_and_not_averaged(
    name, word, small_cases, tmp_path
):
    if (name, word) == ("hd95", "null"):
        return  # one of the masks is empty: there is no distance, and tables count it so
    envs = make_envs(5, cases=small_cases, backbone="ellipse", max_steps=4)
    path = tmp_path / "records.jsonl"
    RecordFile(path, {}).append(evaluate(envs, annotators.make("oracle-box", envs.codec)))
    lines = path.read_text().splitlines()
    record = json.loads(lines[2])
    record[name] = [0.0, 123456789] if name in ("dice", "iou") else 123456789
    lines[2] = json.dumps(record).replace("123456789", word)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(MedSegError, match=rf"records.jsonl:3: .*{name} must be finite"):
        RecordFile(path, {})


def test_a_tear_anywhere_is_dropped_and_the_run_goes_on(small_cases, tmp_path):
    envs = make_envs(5, cases=small_cases, backbone="ellipse", max_steps=4)
    records = evaluate(envs, annotators.make("oracle-box", envs.codec))
    batches = {record.batch: [r for r in records if r.batch == record.batch] for record in records}
    path, settings = tmp_path / "records.jsonl", {"seed": 0}
    file = RecordFile(path, settings)
    for batch in batches.values():
        file.append(batch)
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    ends = [len(b"\n".join(lines[:n])) for n in range(1, len(lines))]
    # In the middle of every record, the first of a batch among them, and at both sides of its end.
    for end in {end + extra for end in ends for extra in (-20, 0, 1, 20)}:
        path.write_bytes(whole[:end])
        for _ in range(2):  # the file is whole again when it has been opened once
            again = RecordFile(path, settings)
            assert again.records == records[: len(again.records)]
            assert path.read_bytes().endswith(b"}\n")
        for batch in batches.values():
            if batch[0].case not in again.played:
                again.append(batch)
        assert RecordFile(path, settings).records == records and path.read_bytes() == whole


def test_damage_elsewhere_is_named_and_other_files_are_let_be(small_cases, tmp_path):
    path, settings = tmp_path / "records.jsonl", {"seed": 0}
    RecordFile(path, settings)
    header = path.read_bytes()
    path.write_bytes(header + b'{"case": "torn{"case": "next"}\n')
    with pytest.raises(MedSegError, match=r"records\.jsonl:2: no JSON object"):
        RecordFile(path, settings)
    path.write_bytes(header + json.dumps({"case": "x"}).encode() + b"\n")
    with pytest.raises(MedSegError, match=r"records\.jsonl:2: not a record"):
        RecordFile(path, settings)
    path.write_text("my notes, without an end of the line")
    with pytest.raises(MedSegError, match="something else"):
        RecordFile(path, settings)
    assert path.read_text().startswith("my notes")


def test_a_full_disk_adds_nothing(small_cases, tmp_path, monkeypatch):
    envs = make_envs(5, cases=small_cases, backbone="ellipse", max_steps=4)
    records = evaluate(envs, annotators.make("oracle-box", envs.codec))
    file = RecordFile(tmp_path / "records.jsonl", {"seed": 0})
    before = file.path.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medseg_gym.storage.line_files.os.fsync", full)
        with pytest.raises(MedSegError, match=r"records\.jsonl cannot be written.*make room"):
            file.append(records)
    assert file.path.read_bytes() == before and file.records == []
    file.append(records)
