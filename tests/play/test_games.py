"""A game on the page is an episode like any other, and is recorded as one."""

from __future__ import annotations

import gymnasium as gym
import httpx
import numpy as np
import pytest

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import load_cases
from medseg_gym.play.games import clean_text
from medseg_gym.prompts import AddBox, AddPoint, ArrayCodec, Stop, Undo
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.trajectories import (
    Recorder,
    TrajectoryError,
    TrajectoryStore,
    TrajectoryWriter,
    export_store,
    replay_store,
    rescore_store,
)
from tests.play.conftest import BOX
from tests.serving.conftest import noise, upload

ANNA, BEN = "anna-key-0123456789", "ben-key-01234567890"
STEPS = [
    ("box", [0.2512, 0.3, 0.5, 0.6]),
    ("positive_point", [0.4, 0.45]),
    ("negative_point", [0.9, 0.1]),
    ("undo", []),
    ("stop", []),
]


def prompt_of(tool, at):
    if tool == "box":
        return AddBox(*at)
    if tool.endswith("point"):
        return AddPoint(*at, positive=tool == "positive_point")
    return {"undo": Undo(), "stop": Stop()}[tool]


def test_a_recorded_game_is_what_an_environment_records(open_page, record, tmp_path) -> None:
    service, client = open_page(["samples"], max_steps=7)
    assert client.ask("GET", "setup")["images"]["places"][2]["title"] == "samples · test"
    game = client.begin(3, "c2", player="Anna")
    for tool, at in STEPS:
        game = client.step(game, tool, at)
    service.extensions[0].stop()  # everything recorded is on disk already; this ends the journal
    (mine,) = TrajectoryStore(record / "people")

    options = {"cases": "samples", "split": "test", "backbone": "ellipse", "device": "cpu"}
    env = Recorder(gym.make("MedSeg-v0", max_steps=7, **options), tmp_path / "env", policy="other")
    env.reset(options={"case": mine.key.case})
    codec = ArrayCodec()
    for tool, at in STEPS:
        env.step(codec.encode(prompt_of(tool, at)))
    env.close()
    (theirs,) = TrajectoryStore(tmp_path / "env")

    assert mine.steps == theirs.steps
    assert [step["reward"] for step in game["steps"]] == [mine.rewards[-1]]
    names = set(vars(mine.facts)) - {"key", "policy", "sees_truth", "options"}
    for name in names:
        assert getattr(mine.facts, name) == getattr(theirs.facts, name), name
    assert mine.facts.policy == "person:Anna" and mine.facts.sees_truth is False
    assert {**mine.facts.options} == {**theirs.facts.options, "exam": False}

    # So it replays, re-scores and exports as the environment's does.
    stores = TrajectoryStore(record / "people"), TrajectoryStore(tmp_path / "env")
    for store in stores:
        result = replay_store(store, device="cpu")
        assert (result.exact, result.mismatches) == (len(STEPS), [])
    for reward in ("dice_gain", "medsam_agent"):
        values = [[one.new.rewards for one in rescore_store(store, reward)] for store in stores]
        assert values[0] == values[1]
    files = [tmp_path / "mine.jsonl", tmp_path / "theirs.jsonl"]
    for store, path in zip(stores, files, strict=True):
        assert export_store(store, path, "jsonl").rows == 1
    rows = [path.read_text() for path in files]
    assert rows[0].split('"case"')[0] == rows[1].split('"case"')[0]  # messages and pictures


def test_every_step_is_on_disk_when_it_is_answered(open_page, record) -> None:
    _, client = open_page()
    game = client.begin()
    for number, tool in enumerate(("box", "undo", "undo"), start=1):
        game = client.step(game, tool, BOX if tool == "box" else [])
        (result,) = TrajectoryStore(record / "people").episodes(unfinished=True)
        assert len(result.steps) == number == game["recorded"]
    assert not game["steps"][0]["valid"] and "nothing to undo" in game["steps"][0]["error"]
    assert client.ask("DELETE", f"games/{game['game']}")
    status, words = client.refusal("GET", f"games/{game['game']}")
    assert status == 404 and "recorded" in words
    (result,) = TrajectoryStore(record / "people").episodes(unfinished=True)
    assert len(result.steps) == 3


def test_tries_are_counted_and_steps_run_out(open_page, record) -> None:
    _, client = open_page(max_steps=2)
    for number in (1, 2):
        game = client.step(client.begin(player="Anna"), "box", BOX)
        assert game["try"] == number
        game = client.step(game, "positive_point", [0.6, 0.4], accepted=number == 1)
        assert game["accepted"] is (number == 1) and game["dice"] > 0
        assert game["done"] and not game["stopped"] and game["truth"]
    status, words = client.refusal(
        "POST", f"games/{game['game']}/steps", json={"tool": "stop", "expected": 2}
    )
    assert status == 409 and "over" in words
    client.begin(player="Anna")  # nothing done: no try
    result = sorted(TrajectoryStore(record / "people"), key=lambda one: one.key.rollout)
    assert [(one.key.rollout, one.accepted) for one in result] == [(0, True), (1, False)]


def test_a_game_that_meets_nothing_is_no_good_example(open_page, record, tmp_path) -> None:
    _, client = open_page(["samples"])
    game = client.step(client.begin(0, "c2"), "stop", accepted=True)
    assert game["dice"] == 0 and game["accepted"] is False
    game = client.step(client.begin(0, "c2"), "box", [0.02, 0.02, 0.98, 0.98], accepted=True)
    assert game["accepted"] is None  # not over
    assert client.step(game, "stop", accepted=True)["dice"] > 0
    result = export_store(TrajectoryStore(record / "people"), tmp_path / "chat.jsonl", "jsonl")
    assert (result.rows, result.filtered) == (1, 1)


def test_a_game_takes_another_name_until_something_has_happened(open_page, record) -> None:
    _, client = open_page()
    game = client.begin(player="", exam=False)
    path, named = f"games/{game['game']}", {"player": "Anna <b>", "exam": True}
    renamed = client.ask("PATCH", path, json=named)
    assert renamed["player"] == "Anna <b>" and "dice" not in renamed and renamed["exam"]
    client.step(game, "box", BOX)
    status, words = client.refusal("PATCH", path, json={"player": "Ben"})
    assert status == 409 and "has begun" in words
    client.step({**game, "recorded": 1}, "stop")
    (result,) = TrajectoryStore(record / "people")
    assert result.facts.policy == "person:Anna <b>" and result.facts.options["exam"] is True


def test_an_exam_tells_no_score_and_nobody_is_told_the_truth_before_the_end(open_page) -> None:
    _, client = open_page()
    for exam in (False, True):
        game = client.step(client.begin(exam=exam), "box", BOX)
        text = str(client.ask("GET", f"games/{game['game']}"))
        assert "truth'" not in text
        assert ("dice" in text, "reward" in text) == (not exam, not exam)
        client.step(game, "stop")
        game = client.ask("GET", f"games/{game['game']}")
        assert [len(str(step["dice"])) > 2 for step in game["steps"]] == [True, True]
        assert game["truth"]


def test_a_second_tab_does_not_act_unawares(open_page) -> None:
    _, client = open_page()
    game = client.begin()
    client.step(game, "box", BOX)
    status, words = client.refusal(
        "POST", f"games/{game['game']}/steps", json={"tool": "stop", "expected": 0}
    )
    assert status == 409 and "another tab" in words
    assert len(client.ask("GET", f"games/{game['game']}")["steps"]) == 1


def test_games_are_their_owners_alone_and_no_sessions(open_page, record) -> None:
    api_keys = ApiKeys({"anna": ANNA, "ben": BEN})
    _, client = open_page(api_keys=api_keys)
    anna, ben = ({"Authorization": f"Bearer {key}"} for key in (ANNA, BEN))
    game = client.ask("POST", "games", json={"place": "c0", "index": 0}, headers=anna)
    path = f"games/{game['game']}"
    assert client.refusal("GET", path, headers=ben)[0] == 404
    assert client.refusal("GET", path)[0] == 401
    box = {"tool": "box", "at": BOX, "expected": 0}
    assert client.refusal("POST", f"{path}/steps", json=box, headers=ben)[0] == 404
    client.ask("POST", f"{path}/steps", json=box, headers=anna)
    stop = {"tool": "stop", "expected": 1}
    client.ask("POST", f"{path}/steps", json=stop, headers=anna)

    # What session routes did would not be recorded, so they do not see it.
    id = game["game"]
    click = {"session_id": id, "point_x": 1, "point_y": 1}
    assert client.http.post("/session/add_click", data=click, headers=anna).status_code == 404
    assert client.http.get("/sessions", headers=anna).json()["total_sessions"] == 0
    # Nor are sessions games.
    made = client.http.post("/session/create", files=upload(noise()), headers=anna).json()
    assert client.refusal("GET", f"games/{made['session_id']}", headers=anna)[0] == 404

    rows = client.ask("GET", "recordings", headers=anna)["rows"]
    assert [row["store"] for row in rows] == ["mine"]
    assert client.ask("GET", "recordings", headers=ben)["rows"] == []
    wanted = {"store": "mine", "id": rows[0]["id"]}
    assert client.ask("GET", "recording", params=wanted, headers=anna)["steps"]
    assert client.refusal("GET", "recording", params=wanted, headers=ben)[0] == 404
    assert (record / "people-anna").is_dir()


def test_no_request_names_a_path(open_page) -> None:
    _, client = open_page(["samples"])
    for store in ("../..", "/etc", "people", "mine/../.."):
        assert client.refusal("GET", "recording", params={"store": store, "id": "x"})[0] == 404
    for place in ("folder:/etc", "../c0", "c9"):
        assert client.refusal("GET", "cases", params={"place": place})[0] == 404
        body = {"place": place, "index": 0}
        assert client.refusal("POST", "games", json=body)[0] == 404
    assert client.refusal("POST", "games", json={"place": "c0", "key": "../../etc"})[0] == 404
    assert client.refusal("POST", "games", json={"place": "c0", "index": 10**9})[0] == 404
    assert client.refusal("POST", "games", json={"place": "own", "index": 0})[0] == 404
    for name in ("..%2foptions.py", "%2e%2e/games.py", "options.py"):
        assert client.http.get(f"/page/{name}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"tool": "box", "at": [0.1, 0.2], "expected": 0},
        {"tool": "box", "at": [0.1, 0.2, 0.3, 1.5], "expected": 0},
        {"tool": "positive_point", "at": [], "expected": 0},
        {"tool": "paint", "expected": 0},
        {"tool": "stop", "expected": "many"},
        {"tool": "stop", "expected": 0, "more": 1},
        {"tool": "stop"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(open_page, body) -> None:
    _, client = open_page()
    game = client.begin()
    assert client.refusal("POST", f"games/{game['game']}/steps", json=body)[0] == 422
    assert client.ask("GET", f"games/{game['game']}")["steps"] == []


def test_games_count_among_sessions_and_expire(open_page, record) -> None:
    service, client = open_page(limits={"max_sessions": 2, "session_idle_seconds": 0.3})
    first = client.step(client.begin(), "box", BOX)
    client.begin()
    assert client.refusal("POST", "games", json={"place": "c0", "index": 0})[0] == 503
    status = 503
    while status == 503:
        status = client.http.post("/api/games", json={"place": "c0", "index": 0}).status_code
    assert client.refusal("GET", f"games/{first['game']}")[0] == 404
    (kept,) = TrajectoryStore(record / "people").episodes(unfinished=True)
    assert len(kept.steps) == 1
    assert len(service.book) <= 2


def test_a_step_that_cannot_be_recorded_ends_the_game(open_page, record, monkeypatch) -> None:
    _, client = open_page()
    game = client.step(client.begin(), "box", BOX)

    def full(*args: object) -> None:
        raise TrajectoryError("no room on the disk")

    monkeypatch.setattr(TrajectoryWriter, "add", full)
    body = {"tool": "stop", "expected": 1}
    status, words = client.refusal("POST", f"games/{game['game']}/steps", json=body)
    assert status == 507 and "no room on the disk" in words
    assert client.refusal("GET", f"games/{game['game']}")[0] == 404
    (kept,) = TrajectoryStore(record / "people").episodes(unfinished=True)
    assert [step.tool for step in kept.steps] == ["box"]


def test_a_store_that_is_none_is_named_before_a_game_begins(open_page, record) -> None:
    (record / "people").mkdir(parents=True)
    (record / "people" / "notes.txt").write_text("mine")
    _, client = open_page()
    status, words = client.refusal("POST", "games", json={"place": "c0", "index": 0})
    assert status == 422 and "holds other files" in words


def test_names_are_kept_plain(open_page, record) -> None:
    assert clean_text("  Anna\u0000\n <b> \u202e", 40, "x") == "Anna <b>"
    assert clean_text("\u200b \t", 40, "anonymous") == "anonymous"
    assert len(clean_text("a" * 500, 40)) == 40
    _, client = open_page()
    game = client.play(player="oracle-box\n")
    assert game["player"] == "oracle-box"
    (result,) = TrajectoryStore(record / "people")
    assert result.facts.policy == "person:oracle-box"


def test_a_restart_forgets_games_but_nothing_recorded(open_page, record) -> None:
    service, client = open_page()
    game = client.step(client.begin(player="Anna"), "box", BOX)
    service.extensions[0].stop()
    with pytest.raises(httpx.HTTPStatusError):  # the store is closed: no step goes unrecorded
        client.http.post(
            f"/api/games/{game['game']}/steps", json={"tool": "stop", "expected": 1}
        ).raise_for_status()
    _, again = open_page()
    assert again.refusal("GET", f"games/{game['game']}")[0] == 404
    game = again.step(again.begin(player="Anna"), "box", BOX)
    assert game["try"] == 2  # the one that broke off counts
    assert len(list(TrajectoryStore(record / "people").episodes(unfinished=True))) == 2


def test_the_shelf_lists_finds_and_shows(open_page) -> None:
    _, client = open_page(["samples", "phantoms:brain"])
    result = client.ask("GET", "cases", params={"place": "c2", "find": "BRAIN1", "count": 5})
    assert result["total"] is None and len(result["cases"]) == 5
    assert {case["target"] for case in result["cases"]} == {"enhancing brain tumour in T1 MRI"}
    result = client.ask("GET", "cases", params={"place": "c2", "find": "brain1", "start": 5})
    assert result["total"] == 7 and len(result["cases"]) == 2
    result = client.ask("GET", "cases", params={"place": "c3", "start": 99_998})
    assert result["total"] == 100_000 and len(result["cases"]) == 2
    assert result["cases"][0]["synthetic"]
    small = client.http.get("/api/thumbnail", params={"place": "c3", "index": 7})
    assert small.headers["content-type"] == "image/jpeg" and small.content[:2] == b"\xff\xd8"
    case = load_cases("samples", "test")[0]
    game = client.begin(0, "c2")
    picture = client.http.get(f"/api/games/{game['game']}/image").content
    from medseg_gym.cases.image_files.images import read_image

    assert np.array_equal(read_image(picture, "image"), case.image)
