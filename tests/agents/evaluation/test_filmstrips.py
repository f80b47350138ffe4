"""Episodes drawn step by step: chosen by rule, and played as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.figures import filmstrips
from medseg_agents.evaluation.options import CompareOptions

from medseg_gym.episodes import Episode
from medseg_gym.errors import MedSegError

SPECS = ("oracle-box-click", "random", "stop")
OPTIONS = {"cases": "phantoms:abdomen", "backbones": ("ellipse",), "limit": 8, "policies": SPECS}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    specs = [policies.make(name) for name in SPECS]
    return compare(specs, CompareOptions(**OPTIONS, filmstrips=4), out), out


def test_episodes_are_played_again_as_they_were(compared, monkeypatch):
    comparison, out = compared
    drawn: dict[str, list[tuple[str, Episode]]] = {}

    def keep(episodes, path: Path) -> None:
        drawn[path.stem] = list(episodes)

    monkeypatch.setattr(filmstrips, "contact_sheet", keep)
    comparison.write(out)
    assert set(drawn) == {f"ellipse_{name}" for name in SPECS}
    for name in SPECS:
        records = {record.case: record for record in comparison.records["ellipse", name]}
        episodes = [episode for _, episode in drawn[f"ellipse_{name}"]]
        final = sorted((record.dice[-1] for record in records.values()), reverse=True)
        assert [label for label, _ in drawn[f"ellipse_{name}"]] == [
            "1 of 8", "3 of 8", "6 of 8", "8 of 8"
        ]  # fmt: skip
        for place, episode in zip((0, 2, 5, 7), episodes, strict=True):
            record = records[episode.case.key]
            assert [step.tool for step in episode.steps] == [tool or None for tool in record.tools]
            assert [step.dice for step in episode.steps] == pytest.approx(record.dice[1:], abs=0.02)
            assert record.dice[-1] == final[place]


def test_files_are_written_and_named(compared):
    comparison, out = compared
    assert "filmstrips/" in comparison.write(out)
    assert {file.name for file in (out / "filmstrips").iterdir()} == {
        f"ellipse_{name}.png" for name in SPECS
    }


def test_fewer_episodes_than_asked_for_are_all_drawn(compared):
    comparison, _ = compared
    records = comparison.records["ellipse", "stop"]
    assert [place for place, _ in filmstrips.choose_episodes(records, 100)] == list(range(1, 9))
    assert filmstrips.choose_episodes([], 6) == []


def test_a_negative_number_is_refused():
    with pytest.raises(MedSegError, match="filmstrips must be at least 0, got -1"):
        CompareOptions(**OPTIONS, filmstrips=-1)
