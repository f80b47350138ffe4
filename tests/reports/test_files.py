"""Files that people really have: the right truth, or a refusal that names the way out."""

import json

import numpy as np
import pytest
from report_rows import assert_says, located, rows_of, unpack

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.source import SPLITS
from medseg_gym.cli.main import main


def all_cases(spec):
    """Cases of all splits; what every split refuses is one error."""
    cases, errors = [], []
    for split in SPLITS:
        try:
            cases += list(load_cases(located(spec), split))
        except CaseError as error:
            errors.append(str(error))
    if len(errors) == len(SPLITS):
        raise CaseError(" | ".join(dict.fromkeys(errors)))
    return cases


def same_mask(case, expected):
    mask = unpack(expected)
    return case.mask.shape == mask.shape and np.array_equal(case.mask, mask)


@pytest.mark.parametrize("row", rows_of("cases"))
def test_it_gives_the_right_cases(row):
    cases = all_cases(row["spec"])
    if "only_target" in row:
        cases = [case for case in cases if case.target == row["only_target"]]
    assert len(cases) == len(row["cases"])
    for expected in row["cases"]:
        matching = [case for case in cases if same_mask(case, expected)]
        assert matching, (expected, [int(case.mask.sum()) for case in cases])
        case = matching[0]
        cases.remove(case)
        for field in ("target", "group", "modality"):
            assert field not in expected or getattr(case, field) == expected[field]
        for pixel in expected.get("image", ()):
            value = case.image[tuple(pixel["at"])].astype(int)
            assert np.abs(value - pixel["rgb"]).max() <= expected.get("tolerance", 0), pixel


@pytest.mark.parametrize("row", rows_of("refused"))
def test_it_is_refused_with_the_way_out(row):
    with pytest.raises(CaseError) as error:
        all_cases(row["spec"])
    assert_says(str(error.value), row)


@pytest.mark.parametrize("row", rows_of("check"))
def test_checking_it_says_what_matters(row, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("sys.argv", ["medseg", "cases", "check", located(row["spec"]), "--json"])
    with pytest.raises(SystemExit):
        main()
    printed, failed = capsys.readouterr()
    report = json.loads(printed) if printed else {"cases": 0, "defects": [], "notes": []}
    assert report["cases"] == row["number"]
    assert not (row.get("clean") and report["defects"])
    causes = [line["cause"] for line in [*report["defects"], *report["notes"]]]
    assert_says(" | ".join(causes) or " ".join(failed.split()), row)
