"""Records on disk: two programs cannot write the same run."""

import json

import pytest

from agents.evaluation import RecordFile, evaluate
from medseg_gym.annotators import make_policy
from medseg_gym.errors import MedSegError
from medseg_gym.policy import make_envs


def test_a_second_writer_is_noticed_and_no_case_stands_twice(small_cases, tmp_path):
    envs = make_envs(5, cases=small_cases, backbone="ellipse", max_steps=4)
    records = evaluate(envs, make_policy("oracle-box", envs.stage.view.codec))
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
    RecordFile(path, {}).append(evaluate(envs, make_policy("oracle-box", envs.stage.view.codec)))
    lines = path.read_text().splitlines()
    record = json.loads(lines[2])
    record[name] = [0.0, 123456789] if name in ("dice", "iou") else 123456789
    lines[2] = json.dumps(record).replace("123456789", word)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(MedSegError, match=rf"records.jsonl:3: .*{name} must be finite"):
        RecordFile(path, {})
