"""Damaged stores and folders: left out, counted, told to their owner alone, without paths."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from medseg_gym.play.stores.damage import without_folders
from medseg_gym.serving.middleware.api_keys import ApiKeys
from tests.play.conftest import BOX, scattered
from tests.serving.conftest import noise, png, upload

ANNA, BEN = "anna-key-0123456789", "ben-key-01234567890"
HEADERS = {"anna": {"Authorization": f"Bearer {ANNA}"}, "ben": {"Authorization": f"Bearer {BEN}"}}


def play(client, owner: str, index: int = 0) -> None:
    body = {"place": "c0", "index": index, "player": owner}
    game = client.ask("POST", "games", json=body, headers=HEADERS[owner])
    for number, (tool, at) in enumerate((("box", BOX), ("stop", []))):
        step = {"tool": tool, "at": at, "expected": number}
        client.ask("POST", f"games/{game['game']}/steps", json=step, headers=HEADERS[owner])


def damage(folder: Path, how: str) -> None:
    if how == "foreign":
        (folder / "notes.txt").write_text("mine")
        return
    (chunk, *_) = [path for path in sorted(folder.rglob("*.parquet"))]
    content = chunk.read_bytes()
    if how == "cut":
        chunk.write_bytes(content[: len(content) // 2])
    elif how == "noise":
        chunk.write_bytes(bytes(reversed(content)))
    else:
        chunk.unlink()
        chunk.mkdir()


@pytest.mark.parametrize("how", ["cut", "noise", "folder", "foreign"])
def test_one_owners_damaged_store_is_nobody_elses_trouble(open_page, record, how, caplog) -> None:
    api_keys = ApiKeys({"anna": ANNA, "ben": BEN})
    service, client = open_page([scattered()], api_keys=api_keys)
    for owner in ("anna", "ben"):
        play(client, owner)
    service.extensions[0].stop()  # writes the chunks
    damage(record / "people-anna", how)
    _, client = open_page([scattered()], api_keys=api_keys)
    played = {"place": "c0", "player": "ben"}
    with caplog.at_level(logging.ERROR, "medseg_gym.serving"):
        board = client.ask("GET", "board", params={"player": "ben"}, headers=HEADERS["ben"])
    players = [row["player"] for row in board["rows"]]
    assert client.ask("GET", "played", params=played, headers=HEADERS["ben"])["keys"] == ["case-0"]
    text = str(board)
    if how != "foreign":  # a foreign file in the folder need not hide the episodes
        assert players == ["ben"] and (board["left_out"], board["damaged"]) == (1, [])
        assert "damaged" in caplog.text and "anna" not in text.replace("anna-key", "")
        mine = client.ask("GET", "board", headers=HEADERS["anna"])
        assert (mine["left_out"], mine["damaged"]) == (1, ["people"])
        listed = client.ask("GET", "recordings", headers=HEADERS["anna"])
        assert listed["damaged"] == ["people"] and str(record) not in str(listed)
        status, words = client.refusal(
            "GET", "recording", params={"store": "mine", "id": "x"}, headers=HEADERS["anna"]
        )
        assert status == 422 and "damaged" in words and str(record) not in words
    assert client.ask("GET", "recordings", headers=HEADERS["ben"])["damaged"] == []
    play(client, "ben", 1)
    begin = {"place": "c0", "index": 0}
    answer = client.http.post("/api/games", json=begin, headers=HEADERS["anna"])
    assert str(record) not in answer.text and str(record.parent) not in answer.text


def test_own_images_that_cannot_be_read_do_not_shut_the_page(open_page, record) -> None:
    _, client = open_page([scattered()])
    client.ask("POST", "images", files=upload(noise()), data={"target": "kidney"})
    assert [place["own"] for place in client.ask("GET", "setup")["images"]["places"]] == [
        False,
        True,
    ]
    index = record / "images" / "images.jsonl"
    index.write_bytes(b"{broken\n" + index.read_bytes())
    assert client.ask("GET", "setup")["images"]["places"][0]["name"] == "c0"
    assert client.play(0)["done"]
    for method, path, extra in (
        ("GET", "cases", {"params": {"place": "own"}}),
        ("POST", "games", {"json": {"place": "own", "index": 0}}),
        ("POST", "images", {"files": {"image": ("a.png", png(noise(3)))}, "data": {"target": "x"}}),
    ):
        answer = client.http.request(method, f"/api/{path}", **extra)
        assert str(record) not in answer.text


def test_messages_lose_the_folders_of_the_machine(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("out/play")
    for text in (f"{tmp_path}/out/play/people/x is damaged", "out/play/people/x is damaged"):
        assert without_folders(text, [folder]) == "people/x is damaged"
    assert without_folders(f"{tmp_path}/out/play: full", [folder]) == "play: full"


def test_games_are_not_shut_out_by_programs_nor_by_closed_tabs(open_page) -> None:
    limits = {"max_sessions": 16, "max_sessions_per_client": 16, "max_games_per_client": 3}
    service, client = open_page(limits=limits)
    codes = [
        client.http.post("/session/create", files=upload(noise())).status_code for _ in range(14)
    ]
    assert codes == [200] * 12 + [503] * 2
    games = [client.begin() for _ in range(3)]
    client.ask("GET", f"games/{games[0]['game']}")  # now the second is idle for the longest
    fourth = client.step(client.begin(), "box", BOX)
    assert client.refusal("GET", f"games/{games[1]['game']}")[0] == 404
    for game in (games[0], games[2], fourth):
        assert client.ask("GET", f"games/{game['game']}")["game"] == game["game"]
    assert len(service.book) == 15
