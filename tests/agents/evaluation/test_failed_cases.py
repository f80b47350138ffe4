"""Cases without a score: counted, said, and never part of a mean."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.evaluation.failed_cases import (
    FailedCase,
    FailureLimit,
    need_played,
    pair_by_case,
)
from medseg_agents.evaluation.medsam_agent_results import results_layout
from medseg_agents.evaluation.summary import as_tables, summarise, summarise_by, write_csv
from rich.console import Console

from medseg_gym import annotators
from medseg_gym.errors import CaseFailed, MedSegError
from medseg_gym.policy import GivenUp, Played, make_envs, play_cases, play_or_give_up


@pytest.fixture(scope="module")
def records(small_cases):
    envs = make_envs(5, cases=small_cases, backbone="ellipse", max_steps=4)
    result = evaluate(envs, annotators.make("oracle-box", envs.codec))
    envs.close()
    return result


def failing(record, reason="no"):
    return FailedCase(
        **{name: getattr(record, name) for name in ("case", "group", "modality", "target")},
        **{"failed": reason, "batch": record.batch, "batch_size": 5, "seconds": 0.1},
    )


def test_means_are_over_the_cases_that_were_played(records, tmp_path):
    played, failed = records[:3], [failing(record) for record in records[3:]]
    row = summarise(played, 4, failed, backbone="b", policy="p", subset="all")
    assert (row["n"], row["failed"]) == (3, 2) and "2 of 5 cases failed" in row["notes"]
    alone = summarise(played, 4, backbone="b", policy="p", subset="all")
    assert alone["failed"] == 0 and not any("failed" in note for note in alone["notes"])
    aside = ("failed", "notes")
    assert {k: v for k, v in row.items() if k not in aside} == {
        k: v for k, v in alone.items() if k not in aside
    }
    console = Console(width=200)
    with console.capture() as shown:
        console.print(as_tables([row], "t", 4)[0])
    assert "2 of 5 cases failed" in shown.get()
    write_csv([row], tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert line["failed"] == "2" and "2 of 5 cases failed" in line["notes"]
    assert results_layout(played, 2)["mean"]["failed_cases"] == 2
    assert "failed_cases" not in results_layout(played)["mean"]


def test_a_subset_that_failed_whole_is_named(records):
    failed = [failing(r) for r in records if r.modality == "CT"]
    played = [r for r in records if r.modality != "CT"]
    assert failed and played
    rows = summarise_by(played, "modality", 4, failed, policy="p")
    assert [row["subset"] for row in rows] == ["all", "unknown"]
    assert f"{len(failed)} of 5 cases failed" in rows[0]["notes"]
    assert "no case played of CT" in rows[0]["notes"] and rows[1]["failed"] == 0


def test_steps_lost_to_cut_answers_are_said(records):
    row = summarise([replace(records[0], cut_off=2), records[1]], 4, policy="p")
    assert row["cut_off"] == 2 and "2 answers cut off at the limit" in row["notes"]


def test_pairs_are_of_the_same_cases(records):
    one, other = records[:4], records[1:]
    kept = pair_by_case([one, other], [[failing(records[4])], [failing(records[0])]])
    assert [r.case for r in kept[0]] == [r.case for r in kept[1]]
    assert [r.case for r in kept[0]] == [r.case for r in records[1:4]]
    assert pair_by_case([records], [[]]) == [records]


def test_a_table_of_nothing_is_an_error(records):
    need_played(records, {}, "here")
    with pytest.raises(MedSegError, match=r"here: no case is left to show\. 1 failed for p: gone"):
        need_played([], {"p": [failing(records[0], "gone")], "q": []}, "here")


def test_the_limit_counts_over_batches(records):
    limit = FailureLimit(3)
    limit.add([*records[:2], failing(records[2])])
    limit.add(records[:2])
    limit.add([failing(records[3])])
    with pytest.raises(MedSegError, match=f"3 failed cases.*{records[4].case!r}: too bad"):
        limit.add([failing(records[4], "too bad"), records[0]])


class Moody:
    """Gives up the cases whose turn it is on this list; boxes, then stops in the others."""

    name, sees_truth = "moody", False

    def __init__(self, give_up):
        self.give_up, self.turns = give_up, {}

    def reset(self, slots, generators):
        self.turns |= {slot: 0 for slot in slots}

    def act(self, observations):
        answers = []
        for slot, text in enumerate(observations["text"]):
            self.turns[slot] = self.turns.get(slot, 0) + 1
            if any(word in text for word in self.give_up):
                answers.append(CaseFailed(f"no {text}"))
            else:
                call = "stop_action" if self.turns[slot] > 1 else "undo_action"
                answers.append(f'<tool_call>{{"name": "{call}", "arguments": {{}}}}</tool_call>')
        return answers


@pytest.mark.parametrize("slots", [1, 2, 5, 7])
def test_a_case_that_is_given_up_changes_nothing_for_the_others(slots, small_cases):
    envs = make_envs(slots, "MedSegChat-v0", cases=small_cases, backbone="ellipse")
    keys = [case.key for case in small_cases]
    outcomes = [one for batch in play_or_give_up(envs, Moody(["mirrored"]), keys) for one in batch]
    assert [one.key for one in outcomes] == keys
    given_up = [one for one in outcomes if isinstance(one, GivenUp)]
    assert len(given_up) == 1 and "mirrored" in str(given_up[0].error)
    assert given_up[0].episode.steps == [] and given_up[0].answers == ()
    for one in outcomes:
        if isinstance(one, Played):
            assert [step.tool for step in one.episode.steps] == ["undo", "stop"]
            assert one.episode.stopped and len(one.rewards) == 2 and np.isfinite(one.rewards).all()
    with pytest.raises(CaseFailed, match="mirrored"):
        list(play_cases(envs, Moody(["mirrored"]), keys))
    assert sum(len(batch) for batch in play_cases(envs, Moody([]), keys)) == 5
    envs.close()


def test_strict_evaluation_ends_at_the_first_failed_case(small_cases):
    envs = make_envs(2, "MedSegChat-v0", cases=small_cases, backbone="ellipse")
    with pytest.raises(MedSegError, match="1 failed case, and the run ends at max_failures=1"):
        evaluate(envs, Moody(["mirrored"]))
    envs.close()
