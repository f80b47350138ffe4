"""Jobs are shared out once each, bounded, and dealt again when a worker dies."""

from __future__ import annotations

import pytest

from medseg_gym.errors import MedSegError
from medseg_gym.parallel import WorkerOptions, make_crew, share_out, sharing

from .players import Doubling, Numbers, Slow

pytestmark = pytest.mark.filterwarnings("ignore")  # the warnings are Ray's


def numbers(count):
    return Numbers([[3 * i, 3 * i + 1, 3 * i + 2] for i in range(count)])


def doubled(work):
    return sorted(one for _, result in work.results for one in result)


def test_one_process_plays_in_order():
    work = numbers(5)
    assert share_out(make_crew(Doubling, WorkerOptions(), 5), work) == {"jobs": 5}
    assert [job for job, _ in work.results] == work.jobs and work.ahead <= 2


def test_every_job_once_and_never_more_than_two_ahead(crew):
    work = numbers(40)
    assert share_out(crew(Doubling), work) == {"jobs": 40}
    assert sorted(job for job, _ in work.results) == work.jobs
    assert doubled(work) == [2 * i for i in range(120)] and work.ahead <= 4


def test_nothing_to_do(crew):
    work = numbers(0)
    share_out(crew(Doubling, jobs=0), work)
    assert work.results == []


def test_a_job_whose_worker_dies_is_dealt_again_as_it_is(crew, tmp_path):
    work = numbers(6)
    work.jobs[2].append(tmp_path / "died")
    share_out(crew(Doubling), work)
    assert sorted(job for job, _ in work.results if len(job) == 3) == work.jobs[:2] + work.jobs[3:]
    assert doubled(work) == [2 * i for i in range(18)] and work.failed == []


def test_a_case_that_kills_its_workers_is_given_up_alone(crew, monkeypatch):
    monkeypatch.setattr(sharing, "TRIES", 2)
    monkeypatch.setattr(sharing, "TRIES_ALONE", 1)
    work = numbers(4)
    work.jobs[1].insert(1, "kill")
    share_out(crew(Doubling), work)
    assert doubled(work) == [2 * i for i in range(12)]
    ((job, reason),) = work.failed
    assert job == ["kill"] and reason.startswith("1 worker died while it was played: ")


def test_an_error_ends_all_at_once_and_says_where(crew):
    work = numbers(4)
    work.jobs[0].append("raise")
    with pytest.raises(
        MedSegError,
        match=r"(?s)in play: ZeroDivisionError: of a.*in a worker on .*, on \[0, 1, 2, 'raise'\]",
    ):
        share_out(crew(Slow), work)
    assert len(work.results) < 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"gpus_per_actor": 1.0}, "gpus_per_actor is for actors on a Ray cluster; give --ray too"),
        ({"ray": "local", "cpus_per_actor": -1.0}, "cpus_per_actor must be a number of 0 or more"),
        ({"ray": " "}, "ray must be an address, auto or local"),
    ],
)
def test_options_that_cannot_be_are_refused(given, words):
    with pytest.raises(MedSegError, match=words):
        WorkerOptions(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpus_per_actor": 64.0}, "no host of the Ray cluster has room for an actor of 64 CPU"),
        ({"gpus_per_actor": 1.0}, "room for an actor of 1 CPU and 1 GPU .* has 3 CPU and 0 GPU"),
        ({"cpus_per_actor": 0.0}, "need their number: give --workers"),
    ],
)
def test_actors_without_room_are_refused(given, words, ray_cluster):
    with pytest.raises(MedSegError, match=words):
        make_crew(Doubling, WorkerOptions(ray="local", **given), 9)


def test_as_many_actors_as_there_is_room_for(ray_cluster):
    def size(jobs=9, **given):
        crew = make_crew(Doubling, WorkerOptions(ray="local", **given), jobs)
        crew.stop()
        return crew.size

    assert size() == 3 and size(threads=2) == 1 and size(cpus_per_actor=0.5) == 6
    assert size(jobs=2) == 2 and size(workers=5) == 5
