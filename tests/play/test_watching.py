"""Policies beside people play through the service what they play everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from medseg_gym import annotators
from medseg_gym.errors import CaseFailed, MedSegError, PolicyError
from medseg_gym.play import BuiltIn, PageOptions
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.trajectories import TrajectoryStore, replay_store
from tests.play.conftest import BOX


@dataclass(frozen=True)
class Given:
    """A policy as another package hands it over."""

    name: str
    build: Any
    env_id: str = "MedSeg-v0"
    view: dict[str, Any] = field(default_factory=dict)


class Broken:
    name = "broken"
    sees_truth = False

    def __init__(self, error: Exception) -> None:
        self.error = error

    def reset(self, slots: Any, generators: Any) -> None:
        pass

    def act(self, observations: Any) -> np.ndarray:
        raise self.error


def test_a_policy_plays_as_it_does_in_its_own_environment(open_page, record) -> None:
    policies = [BuiltIn("hybrid"), BuiltIn("random"), BuiltIn("oracle-box-click")]
    service, client = open_page(["samples"], policies=policies, max_steps=6)
    cases = {"cases": "samples", "split": "test", "backbone": "ellipse", "device": "cpu"}
    envs = make_envs(1, max_steps=6, **cases)
    for given in policies:
        policy = annotators.make(given.name, envs.codec)
        for key in ("brain1-z017", "lung2-z015"):
            ((expected,),) = play_cases(envs, policy, [key])
            for _ in range(2):  # the second time it is not recorded again
                shown = client.watch(given.name, "c2", key)
            assert (shown["error"], shown["oracle"]) == ("", policy.sees_truth)
            assert [step["dice"] for step in shown["steps"]] == [
                step.dice for step in expected.episode.steps
            ]
            assert [step["reward"] for step in shown["steps"]] == list(expected.rewards)
    service.extensions[0].stop()
    store = TrajectoryStore(record / "policies")
    assert len(store) == 6 and store.duplicates == 0
    assert not list(store.episodes(unfinished=True))
    assert {one.facts.policy for one in store} == {policy.name for policy in policies}
    assert {one.facts.cases for one in store} == {"samples"}
    assert replay_store(store, device="cpu").mismatches == []


def test_a_policy_that_chats_plays_too(open_page) -> None:
    class Chatty:
        name = "chatty"
        sees_truth = False

        def reset(self, slots: Any, generators: Any) -> None:
            self.turn = 0

        def act(self, observations: Any) -> list[str]:
            self.turn += 1
            if self.turn == 1:
                return ["I do not know"] * len(observations["text"])
            call = '{"name": "stop_action", "arguments": {}}'
            return [f"<tool_call>{call}</tool_call>"] * len(observations["text"])

    given = Given("chatty", lambda envs: Chatty(), "MedSegChat-v0", {"image_size": 64})
    _, client = open_page(policies=[given])
    shown = client.watch("chatty", "c0", "wide")
    assert shown["error"] == ""
    assert [(step["tool"], step["valid"]) for step in shown["steps"]] == [
        ("", False),
        ("stop", True),
    ]
    recorded = client.ask("GET", "recordings")["rows"]
    assert [row["policy"] for row in recorded] == ["chatty"]
    client.ask("GET", "recording", params={"store": "policies", "id": recorded[0]["id"]})


def test_what_goes_wrong_with_a_policy_is_said(open_page) -> None:
    policies = [
        Given("known", lambda envs: Broken(PolicyError("the model's server is gone"))),
        Given("unknown", lambda envs: Broken(RuntimeError("secret detail"))),
    ]
    with pytest.raises(PolicyError, match="unknown policy"):  # before anybody asks for it
        BuiltIn("no-such-policy")
    _, client = open_page(policies=policies)
    assert client.watch("known", "c0", "wide")["error"] == "the model's server is gone"
    result = client.watch("unknown", "c0", "wide")["error"]
    assert "log" in result and "secret" not in result
    body = {"policy": "knwon", "place": "c0", "key": "wide"}
    status, words = client.refusal("POST", "watch", json=body)
    assert status == 404 and "mean 'known' or 'unknown'" in words
    assert "there are: known, unknown" in words
    body = {"policy": "known", "place": "c0", "key": "nothing"}
    assert client.refusal("POST", "watch", json=body)[0] == 404
    client.play()  # and people play on


def test_a_case_that_a_policy_gave_up_is_recorded_when_it_is_played_to_its_end(
    open_page, record
) -> None:
    class Moody:
        name = "moody"
        sees_truth = False
        begun = 0

        def reset(self, slots: Any, generators: Any) -> None:
            self.turn = 0
            Moody.begun += 1

        def act(self, observations: Any) -> list[Any]:
            self.turn += 1
            if self.turn == 1:
                return ["I do not know"]
            if Moody.begun == 1:
                return [CaseFailed("the server refused this conversation")]
            return ['<tool_call>{"name": "stop_action", "arguments": {}}</tool_call>']

    given = Given("moody", lambda envs: Moody(), "MedSegChat-v0", {"image_size": 64})
    service, client = open_page(policies=[given])
    shown = client.watch("moody", "c0", "wide")
    assert shown["done"] and shown["error"] == "the server refused this conversation"
    assert [step["valid"] for step in shown["steps"]] == [False]
    assert client.ask("GET", "recordings")["rows"] == []
    for _ in range(2):
        shown = client.watch("moody", "c0", "wide")
        assert shown["error"] == "" and len(shown["steps"]) == 2
    assert len(client.ask("GET", "recordings")["rows"]) == 1
    service.extensions[0].stop()
    store = TrajectoryStore(record / "policies")
    assert len(store) == 1 and store.duplicates == 0


def test_showings_are_their_owners_alone(open_page) -> None:
    keys = {"anna": "anna-key-0123456789", "ben": "ben-key-01234567890"}
    _, client = open_page(api_keys=ApiKeys(keys))
    anna, ben = ({"Authorization": f"Bearer {key}"} for key in keys.values())
    body = {"policy": "centre-box", "place": "c0", "key": "wide"}
    shown = client.ask("POST", "watch", json=body, headers=anna)
    assert client.refusal("GET", f"watch/{shown['watch']}", headers=ben)[0] == 404
    assert client.ask("GET", f"watch/{shown['watch']}", headers=anna)["policy"] == "centre-box"


def test_options_that_cannot_be_are_refused() -> None:
    for options, words in (
        ({"cases": ()}, "no cases"),
        ({"max_steps": 0}, "at least 1"),
        ({"policies": [BuiltIn("random"), BuiltIn("random")]}, "two policies"),
        ({"reward": "gold"}, "gold"),
    ):
        with pytest.raises(MedSegError, match=words):
            PageOptions(**options)


def test_recordings_are_listed_found_and_shown_with_their_pictures(open_page, record) -> None:
    _, client = open_page(["samples"])
    client.play(3, "c2", player="Anna")
    client.watch("oracle-box", "c2", "brain1-z017")
    assert client.ask("GET", "recordings")["total"] == 2
    (row,) = client.ask("GET", "recordings", params={"find": "ANNA"})["rows"]
    shown = client.ask("GET", "recording", params={"store": row["store"], "id": row["id"]})
    assert [step["tool"] for step in shown["steps"]] == ["box", "stop"]
    assert shown["image"] and shown["truth"] and shown["missing"] == ""

    # Cases made in memory are gone after a restart: steps and masks are shown all the same.
    _, other = open_page(archives=[record / "people"])
    other.play(at=BOX)
    rows = other.ask("GET", "recordings")["rows"]
    shown = {row["case"]: row for row in rows if row["store"] == "mine"}
    assert len([row for row in rows if row["store"] == "a0"]) >= 1
    one = other.ask("GET", "recording", params={"store": "mine", "id": shown["wide"]["id"]})
    assert one["image"] is None and "in memory" in one["missing"] and one["steps"]
