"""Games on volumes are recorded, replayed, compared and watched, as those on images are."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym import annotators
from medseg_gym.cases import VolumeCase
from medseg_gym.cases.npz import VolumeBox
from medseg_gym.cases.writers.npz import write_npz
from medseg_gym.episodes.volumes import PropagationOptions
from medseg_gym.play import BuiltIn
from medseg_gym.play.options import VOLUME_ENV
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, AddPoint, Stop, Undo
from medseg_gym.prompts.volumes import VOLUME_TOOLS, Propagate, SlicePrompt, VolumeCodec
from medseg_gym.trajectories import Recorder, TrajectoryStore, replay_store
from tests.play.test_volumes import BOX, Volumes, temporary, tube  # noqa: F401  (fixture)

TOOLS = tuple(tool for tool in VOLUME_TOOLS if tool != "look")
STEPS = [
    ("box", 6, [0.31, 0.4012, 0.6, 0.7]),
    ("propagate", None, []),
    ("negative_point", 9, [0.9, 0.1]),
    ("undo", None, []),
    ("stop", None, []),
]


def prompt_of(tool, index, at):
    if tool == "box":
        return SlicePrompt(index, AddBox(*at))
    if tool.endswith("point"):
        return SlicePrompt(index, AddPoint(*at, positive=tool == "positive_point"))
    return {"propagate": Propagate(), "undo": Undo(), "stop": Stop()}[tool]


def tubes(count: int = 6) -> list[VolumeCase]:
    """Tubes of as many groups, for intervals."""
    made = []
    for number in range(count):
        case = tube(5 + number)
        group = f"patient {number}"
        made.append(
            VolumeCase(
                f"tube-{number}", case.image, case.mask, "tube", "CT", (5.0, 1.0, 1.0),
                group=group, synthetic=True,
            )
        )  # fmt: skip
    return made


def play(volumes: Volumes, index: int, **extra):
    game = volumes.step(volumes.begin(index, **extra), "box", 3, BOX)
    return volumes.step(volumes.step(game, "propagate"), "stop")


def test_a_recorded_game_is_what_an_environment_records(open_page, record, tmp_path) -> None:
    service, client = open_page(volumes=["phantoms-volume"], volume_steps=7)
    volumes = Volumes(client)
    game = volumes.begin(3, player="Anna")
    assert game["kept"] and game["player"] == "Anna" and game["max_steps"] == 7
    for tool, index, at in STEPS:
        game = volumes.step(game, tool, index, at)
    assert game["recorded"] == 5 and game["try"] == 1
    service.extensions[0].stop()
    (mine,) = TrajectoryStore(record / "people")

    env = Recorder(
        gym.make(
            VOLUME_ENV, cases="phantoms-volume", backbone="ellipse", device="cpu", max_steps=7,
            tools=TOOLS, propagation=PropagationOptions(memory=False),
        ),
        tmp_path / "env",
        policy="other",
    )  # fmt: skip
    env.reset(options={"case": mine.key.case})
    codec = VolumeCodec(tools=TOOLS)
    depth = env.unwrapped.episodes[0].case.depth
    for tool, index, at in STEPS:
        env.step(codec.encode(prompt_of(tool, index, at), depth))
    env.close()
    (theirs,) = TrajectoryStore(tmp_path / "env")
    assert mine.steps == theirs.steps and game["dice"] == mine.dice
    names = set(vars(mine.facts)) - {"key", "policy", "sees_truth", "options"}
    for name in names:
        assert getattr(mine.facts, name) == getattr(theirs.facts, name), name
    assert mine.facts.policy == "person:Anna"
    assert {**mine.facts.options} == {**theirs.facts.options, "exam": False}
    result = replay_store(TrajectoryStore(record / "people"), device="cpu")
    assert (result.exact, result.mismatches) == (len(STEPS), [])


def test_every_step_is_on_disk_and_a_game_that_was_left_stays_unfinished(open_page, record) -> None:
    volumes = Volumes(open_page(volumes=[[tube()]])[1])
    game = volumes.begin()
    for number, (tool, index, at) in enumerate([STEPS[0], ("undo", None, [])], 1):
        game = volumes.step(game, tool, index and 3, at)
        (one,) = TrajectoryStore(record / "people").episodes(unfinished=True)
        assert len(one.steps) == number == game["recorded"]
    assert (
        volumes.ask("PATCH", f"games/{volumes.begin()['game']}", json={"player": "Zoe"})["player"]
        == "Zoe"
    )
    status, words = volumes.refusal("PATCH", f"games/{game['game']}", json={"player": "Zoe"})
    assert status == 409 and "from the next on" in words
    volumes.ask("DELETE", f"games/{game['game']}")
    status, words = volumes.refusal("GET", f"games/{game['game']}")
    assert status == 404 and "recorded" in words


def test_a_good_example_needs_the_least_dice(open_page, record) -> None:
    service, client = open_page(volumes=[[tube()]])
    volumes = Volumes(client)
    dice = []
    for least, accepted in ((0.0, True), (1.0, False)):
        game = volumes.step(volumes.begin(), "box", 3, BOX)
        body = {"tool": "stop", "expected": 1, "accepted": True, "least_dice": least}
        game = volumes.ask("POST", f"games/{game['game']}/steps", json=body)
        assert game["accepted"] is accepted
        dice.append(game["dice"])
    assert 0 < dice[0] == dice[1] < 1
    service.extensions[0].stop()
    assert [one.accepted for one in TrajectoryStore(record / "people")] == [True, False]


def test_a_recording_is_shown_with_its_slices(open_page, record) -> None:
    _, client = open_page(volumes=["phantoms-volume"])
    volumes = Volumes(client)
    game = volumes.begin(2, player="Anna")
    for tool, index, at in STEPS:
        game = volumes.step(game, tool, index, at)
    (row,) = client.ask("GET", "recordings", params={"find": "anna"})["rows"]
    assert row["depth"] == game["case"]["depth"] and row["dice"] == game["dice"]
    shown = client.ask("GET", "recording", params={"store": row["store"], "id": row["id"]})
    assert [step["tool"] for step in shown["steps"]] == [tool for tool, *_ in STEPS]
    assert shown["missing"] == "" and shown["truth"] == game["truth"]
    last = shown["steps"][-1]["slices"]
    assert {i: one["pixels"] for i, one in last.items()} == {
        i: one["pixels"] for i, one in game["slices"].items()
    }
    assert [step["view"] for step in shown["steps"]] == [6, 6, 9, 9, 9]
    path = f"volumes/{shown['volume']}"
    mask = volumes.pixels(f"{path}/masks/6?mask={last['6']['mask']}") > 0
    assert (mask == volumes.mask(game, 6)).all()
    assert volumes.pixels(f"{path}/slices/6").std() > 0
    assert volumes.pixels(f"{path}/truth/{shown['truth'][0]}").any()
    assert volumes.ask("GET", f"{path}/planes")["planes"]
    assert volumes.refusal("GET", f"{path}/masks/6", params={"mask": 99})[0] == 404
    assert volumes.refusal("POST", f"{path}/look", json={"slice": 1})[0] == 404

    # Volumes made in memory are gone after a restart: steps and masks are shown all the same.
    _, other = open_page(volumes=[[tube()]])
    play(Volumes(other), 0, player="Ben")
    (row,) = other.ask("GET", "recordings", params={"find": "ben"})["rows"]
    shown = other.ask("GET", "recording", params={"store": row["store"], "id": row["id"]})
    assert "in memory" in shown["missing"] and shown["steps"][0]["slices"]


# policies -----------------------------------------------------------------------------------------
def test_a_policy_plays_volumes_as_in_its_own_environment(open_page, record) -> None:
    names = ["oracle-key-slice-clicks", "middle-box"]
    policies = [BuiltIn(name, VOLUME_ENV) for name in names]
    service, client = open_page(
        volumes=["phantoms-volume"], policies=[*policies, BuiltIn("random")], volume_steps=6
    )
    volumes = Volumes(client)
    setup = client.ask("GET", "setup")
    assert setup["volumes"]["policies"] == names and setup["images"]["policies"] == ["random"]
    keys = [case["key"] for case in client.ask("GET", "cases", params={"place": "v0"})["cases"][:1]]
    envs = make_envs(
        1, VOLUME_ENV, cases="phantoms-volume", backbone="ellipse", device="cpu", max_steps=6
    )
    for name in names:
        policy = annotators.make(name, envs.codec)
        ((expected,),) = play_cases(envs, policy, keys)
        for _ in range(2):  # the second time it is not recorded again
            shown = client.watch(name, "v0", keys[0])
            assert (shown["error"], shown["oracle"]) == ("", policy.sees_truth)
            steps = expected.episode.steps
            whole = client.ask("GET", f"watch/{shown['watch']}")["steps"]
            assert [step["dice"] for step in whole] == [step.dice for step in steps]
            assert [step["reward"] for step in whole] == list(expected.rewards)
        index, one = next(iter(whole[-1]["slices"].items()))
        mask = volumes.pixels(f"volumes/{shown['watch']}/masks/{index}?mask={one['mask']}") > 0
        assert (mask == expected.episode.slice_mask(int(index))).all()
        assert volumes.refusal("GET", f"volumes/{shown['watch']}/truth/{index}")[0] == 404
    envs.close()
    service.extensions[0].stop()
    store = TrajectoryStore(record / "policies")
    assert {one.facts.policy for one in store} == set(names) and len(store) == 2
    assert replay_store(store, device="cpu").mismatches == []


def test_a_policy_of_images_is_refused_on_volumes_with_what_is_there(open_page) -> None:
    _, client = open_page(volumes=[[tube()]])
    body = {"policy": "oracle-box", "place": "v0", "key": "tube"}
    status, words = client.refusal("POST", "watch", json=body)
    assert status == 404 and "of volumes" in words and "oracle-key-slice-clicks" in words
    assert "oracle-key-slice-clicks" not in client.ask("GET", "setup")["images"]["policies"]


# the board ----------------------------------------------------------------------------------------
def test_images_and_volumes_are_compared_apart(open_page) -> None:
    _, client = open_page(volumes=[tubes()])
    volumes = Volumes(client)
    client.play(0, player="Anna")
    for index in range(6):
        play(volumes, index, player="Anna")
    keys = client.ask("GET", "played", params={"place": "v0", "player": "Anna"})["keys"]
    assert keys == [f"tube-{i}" for i in range(6)]
    for key in keys:
        assert client.watch("oracle-key-slice", "v0", key)["error"] == ""
    for query in ({"volumes": True}, {"place": "v0"}):
        table = client.ask("GET", "board", params={"player": "Anna", **query})
        rows = {row["player"]: row for row in table["rows"]}
        assert set(rows) == {"Anna", "oracle-key-slice"} and table["cases"] == 6
        assert rows["Anna"]["n"] == 6 and rows["oracle-key-slice"]["oracle"]
        assert rows["oracle-key-slice"]["difference_interval"] is not None
    (mine,) = client.ask("GET", "board", params={"player": "Anna"})["rows"]
    assert mine["n"] == 1


# own .npz -----------------------------------------------------------------------------------------
@pytest.fixture
def npz(tmp_path):
    case = tube()
    labels = case.mask.astype(np.uint8)
    labels[0, :4, :4] = 2
    boxes = [VolumeBox(1, 15, 10, 44, 29, 1, 5), VolumeBox(2, 0, 0, 3, 3, 0, 0)]
    path = tmp_path / "case.npz"
    write_npz(path, case.image, labels, case.spacing, boxes)
    return path


def test_an_npz_of_the_challenge_is_opened_played_and_watched(
    open_page,
    npz,
    record,
    temporary,  # noqa: F811
) -> None:
    service, client = open_page()
    volumes = Volumes(client)
    made = volumes.open([(".npz", npz.read_bytes())], label=1)
    game = volumes.begin(made["index"], made["place"], player="Anna")
    assert game["case"]["truth_known"] and game["case"]["spacing"] == [5.0, 1.0, 1.0]
    assert not game["kept"] and game["max_steps"] == 100
    game = volumes.step(volumes.step(game, "box", 3, BOX), "propagate")
    assert game["dice"] > 0.3
    assert (volumes.pixels(f"volumes/{game['game']}/slices/3") == tube().image[3]).all()
    shown = client.watch("oracle-key-slice", "own-scans", made["key"])
    assert shown["error"] == ""
    volumes.step(game, "stop")
    assert client.ask("GET", "recordings")["total"] == 0  # neither the game nor the policy's
    files = [path.read_bytes() for path in record.rglob("*") if path.is_file()]
    assert not [content for content in files if made["key"].encode() in content]
    volumes.ask("DELETE", f"volumes/scans/{made['key']}")
    assert volumes.refusal("GET", f"watch/{shown['watch']}")[0] == 404
    service.extensions[0].stop()


def test_an_npz_without_labels_or_with_others_is_said(open_page, npz, tmp_path, temporary) -> None:  # noqa: F811
    volumes = Volumes(open_page()[1])
    whole = npz.read_bytes()
    assert "there are: 1, 2" in volumes.unusable([(".npz", whole)], label=7)
    np.savez(tmp_path / "bare.npz", imgs=tube().image)
    bare = (tmp_path / "bare.npz").read_bytes()
    made = volumes.open([(".npz", bare)])
    game = volumes.begin(made["index"], made["place"])
    assert (
        not game["case"]["truth_known"] and game["case"]["spacing"] is None and game["ml"] is None
    )
    assert "no 'gts'" in volumes.unusable([(".npz", bare)], label=1)
    np.savez(tmp_path / "deep.npz", imgs=tube().image.astype(np.int16) * 9)
    deep = (tmp_path / "deep.npz").read_bytes()
    assert "window=" in volumes.unusable([(".npz", deep)])
    assert volumes.open([(".npz", deep)], window="0,2000")["index"] == 1
    np.savez(tmp_path / "other.npz", scan=tube().image)
    assert "no array 'imgs'" in volumes.unusable([(".npz", (tmp_path / "other.npz").read_bytes())])
    assert "npz" in volumes.unusable([(".npz", whole[:200])])
