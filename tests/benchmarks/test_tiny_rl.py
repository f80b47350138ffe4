"""The table of reinforcement learning: seeds, differences, and what is refused."""

import pytest
from medseg_agents.evaluation.case_record import CaseRecord

from benchmarks.learning.tiny_rl.__main__ import TinyRL, read_chain
from benchmarks.learning.tiny_rl.table import difference, return_regret, row_over_seeds
from benchmarks.shared.sizes import claim, read_settings
from medseg_gym.errors import MedSegError


def record(case, dice, stopped=True):
    """An episode that drew a box, clicked, and stopped."""
    steps = len(dice) - 1
    costly = steps - 1 if stopped else steps
    return CaseRecord(
        case=case, group=case, modality="CT", target="liver", synthetic=True, area=0.1,
        dice=dice, iou=dice, hd95=None, nsd=0.0, unit="px", boundary_iou=0.0,
        tools=("box",) * steps, invalid=0,
        stopped=stopped, episode_return=dice[-1] - dice[0] - 0.01 * costly, seconds=0.0,
        notes=("synthetic",), batch=0, batch_size=1,
    )  # fmt: skip


def test_regret_is_what_stopping_at_the_best_moment_would_have_added():
    assert return_regret(record("a", (0.0, 0.5, 0.5))) == pytest.approx(0)
    assert return_regret(record("a", (0.0, 0.7, 0.4, 0.4))) == pytest.approx(0.3 + 0.01)


def test_seeds_are_averaged_case_by_case_and_differences_are_paired():
    cases = [f"c{number}" for number in range(12)]
    one = [record(case, (0.0, 0.05 * i, 0.05 * i)) for i, case in enumerate(cases)]
    two = [record(case, (0.0, 0.05 * i + 0.2, 0.05 * i + 0.2)) for i, case in enumerate(cases)]
    row = row_over_seeds("both", [one, two])
    assert row["seeds"] == 2 and row["cases"] == 12
    assert row["dice"] == pytest.approx(0.275 + 0.1)
    assert row["return"] == pytest.approx(0.275 + 0.1 - 0.01)
    # Two seeds that lie 0.2 apart say little of others, however many cases there are.
    assert row["return_low"] < row["return"] - 1 < row["return"] + 1 < row["return_high"]
    assert row_over_seeds("one", [one])["return_high"] < 0.5
    assert row["return_by_seed"] == "0.265 0.465"
    result = difference("two - one", [two], [one])
    # Every case differs by as much: what cases have in common is no uncertainty.
    assert result["return_low"] == pytest.approx(0.2) == result["return_high"]


def test_what_cannot_be_gone_on_with_is_named(tmp_path):
    with pytest.raises(MedSegError, match="tiny_chain"):
        read_chain(tmp_path)
    with pytest.raises(MedSegError, match="no setting 'sizes'"):
        read_settings(TinyRL, "sizes=3")
    sizes = read_settings(TinyRL, "iterations=2,lr=0.1")
    assert sizes.iterations == 2 and sizes.lr == 0.1
    claim(tmp_path / "sizes.json", sizes)
    claim(tmp_path / "sizes.json", sizes)
    with pytest.raises(MedSegError, match="other settings"):
        claim(tmp_path / "sizes.json", read_settings(TinyRL, ""))
