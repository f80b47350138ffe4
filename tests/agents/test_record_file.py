"""Records on disk: two programs cannot write the same run."""

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
