"""The benchmark of volumes runs on what is installed, and says what is not there."""

from __future__ import annotations

import json

import pytest
import typer

from benchmarks.policies.volumes import measure, spec_of


@pytest.mark.slow
def test_it_prints_a_table_and_keeps_all_numbers(tmp_path, capsys):
    out = tmp_path / "volumes.json"
    measure("phantoms-volume,chest", "ellipse", 1, 2, 2, None, out)
    text = capsys.readouterr().out
    assert "| mean 3D Dice | phantoms-volume | chest |" in text
    assert text.count("(oracle)") == 5 and "control" in text and "usual box" in text
    rows = json.loads(out.read_text())["rows"]["phantoms-volume"]
    assert len(rows["every slice"]) == 2
    assert len(rows["location-prior"]) == len(rows["clicks"]) == 2
    for row in rows["boxes"]:
        assert row["prompts"] == [1, 1, 2, 2] and all(0 <= dice <= 1 for dice in row["dice"])


def test_volumes_that_are_not_there_name_the_way_out():
    with pytest.raises(typer.BadParameter, match="--pyradiomics"):
        spec_of("lung2", None)
