"""`nninteractive:URL` with nnInteractive's own client, and a server that speaks its protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import typer

import medseg_gym  # noqa: F401  (registers the environments)
from medseg_gym import backbones
from medseg_gym.backbones.volumes import VolumeBackbone
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.writers.npz import write_npz
from medseg_gym.episodes.volumes import VolumeEngine
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Undo
from medseg_gym.prompts.volumes import Propagate, SlicePrompt

pytest.importorskip("blosc2", reason='pip install "medseg-gym[nninteractive]"')
pytest.importorskip("nnInteractive.inference.remote", reason="nninteractive-client is missing")

from medseg_gym.backbones.remote.nninteractive import NnInteractiveBackbone
from tests.backbones.nninteractive.server import Server, serving

SHAPE = (10, 32, 40)


def volume(key: str = "two blocks", shift: int = 0) -> VolumeCase:
    """Two bright blocks, of which one is the target."""
    image, mask = np.full(SHAPE, 20, np.uint8), np.zeros(SHAPE, bool)
    mask[2:7, 5 + shift : 15 + shift, 6:18] = True
    image[mask] = 200
    image[3:9, 20:28, 25:36] = 180
    return VolumeCase(key, image, mask, "block", spacing=(3.0, 1.0, 1.0))


def click(index: int, row: int, column: int, positive: bool = True) -> SlicePrompt:
    return SlicePrompt(index, AddPoint((column + 0.5) / 40, (row + 0.5) / 32, positive))


ON, OTHER = click(4, 8, 10), click(6, 24, 30)
BOX = SlicePrompt(4, AddBox(6 / 40, 5 / 32, 18 / 40, 15 / 32))


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def backbone(server: Server) -> Iterator[NnInteractiveBackbone]:
    made = NnInteractiveBackbone(server.url)
    yield made
    made.close()


def test_a_click_or_a_box_gives_the_whole_target(backbone, server) -> None:
    case = volume()
    assert isinstance(backbone, VolumeBackbone)
    for prompt in (ON, BOX):
        mask = backbone.segment_volume(case.image, case.content_hash, [prompt])
        np.testing.assert_array_equal(mask, case.mask)
    assert server.images == [(1, *SHAPE)]  # sent once


def test_a_mask_depends_on_its_prompts_and_their_order_alone(backbone, server) -> None:
    case = volume()

    def segment(*prompts: SlicePrompt) -> np.ndarray:
        return backbone.segment_volume(case.image, case.content_hash, prompts)

    both = segment(ON, OTHER)
    server.calls.clear()
    less = segment(ON, OTHER, click(4, 9, 11, False))
    assert server.calls == ["add_point_interaction"]  # only what is new is sent
    assert both.sum() > less.sum() > 0
    np.testing.assert_array_equal(segment(ON), case.mask)
    np.testing.assert_array_equal(segment(ON, OTHER), both)
    assert segment(click(4, 9, 11, False), ON).sum() == case.mask.sum()


def test_volumes_take_turns_in_the_sessions_there_are(server) -> None:
    first, second = volume(), volume("other", shift=3)
    for sessions, images in ((1, 4), (2, 2)):
        server.images.clear()
        backbone = NnInteractiveBackbone(server.url, sessions=sessions)
        for case in (first, second, first, second):
            mask = backbone.segment_volume(case.image, case.content_hash, [ON])
            np.testing.assert_array_equal(mask, case.mask)
        assert len(server.images) == images and len(server.sessions) == sessions
        backbone.close()
        assert not server.sessions


def test_the_engine_undoes_clears_and_propagates(backbone) -> None:
    case = volume()
    engine = VolumeEngine(backbone, max_steps=12)
    (episode,) = engine.reset([0], [case])

    def step(prompt) -> tuple[float, bool]:
        (result,) = engine.step([0], [prompt])
        return round(episode.dice, 6), result.info["valid"]

    assert step(ON) == (1.0, True)
    np.testing.assert_array_equal(episode.mask(), case.mask)
    assert episode.state.prompted == [4] and len(episode.state.slices) == 5
    (lower, _) = step(OTHER)
    assert lower < 1
    assert step(Propagate()) == (lower, True)
    assert step(Undo()) == (lower, True) and step(Undo()) == (1.0, True)
    assert step(click(6, 24, 30, False)) == (1.0, True)
    assert step(Clear()) == (0.0, True) and step(Propagate()) == (0.0, False)
    assert step(BOX) == (1.0, True)
    moved = SlicePrompt(4, AddBox(25 / 40, 20 / 32, 36 / 40, 28 / 32))
    assert step(moved) == (0.0, True)  # a box takes the place of the one on its slice
    assert episode.state.slices[4].box == moved.prompt


def test_the_volume_environment_plays_it(server) -> None:
    case = volume()
    name = f"nninteractive:{server.url}"
    env = gym.make("MedSegVolume-v0", cases=[case], backbone=name, slices=10)
    env.reset(options={"case": case.key})
    bins = 1000
    box = [int(v * bins) for v in (6.5 / 40, 5.5 / 32, 17.5 / 40, 14.5 / 32)]
    _, reward, _, _, info = env.step([0, 4, *box])
    assert info["dice"] == 1.0 and info["mask_slices"] == 5 and reward == pytest.approx(0.99)
    _, _, terminated, _, info = env.step([7, 0, 0, 0, 0, 0])
    assert terminated and info["stopped"]
    env.close()
    envs = gym.make_vec(
        "MedSegVolume-v0",
        num_envs=2,
        cases=[case, volume("other", shift=3)],
        backbone=name,
        slices=10,
    )
    envs.reset(options={"case": [case.key, "other"]})
    _, _, _, _, infos = envs.step(np.array([[0, 4, *box], [0, 4, *box]]))
    assert infos["dice"].tolist() == [1.0, 1.0]
    envs.close()
    env.unwrapped.backbone.close()


def test_the_3d_protocol_plays_it(server, tmp_path) -> None:
    from medseg_agents.commands.entry import add_commands
    from typer.testing import CliRunner

    app = typer.Typer()
    add_commands(app)
    case, labels = volume(), np.zeros(SHAPE, np.uint8)
    labels[case.mask], labels[3:9, 20:28, 25:36] = 1, 2
    write_npz(tmp_path / "data" / "CT_blocks.npz", case.image, labels, spacing=(3.0, 1.0, 1.0))
    result = CliRunner().invoke(
        app,
        [
            *("eval", "--protocol", "cvpr2025-interactive-3d", "--make-boxes"),
            *("--cases", f"npz:{tmp_path / 'data'}", "--out", str(tmp_path / "out")),
            *("--backbone", f"nninteractive:{server.url}"),
        ],
    )
    backbones.load(f"nninteractive:{server.url}").close()
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["means"]["DSC_Final"] == 1.0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("500", "CUDA out of memory"),
        ("html", "no prediction"),
        ("no prediction", "no prediction"),
        ("no JSON", "not segmented"),
        ("outside", "does not fit"),
        ("one voxel", "does not fit"),
        ("floats", "no mask"),
        ("labels", "no mask"),
        ("garbage", "not segmented"),
        ("empty", "too short"),
        ("image", "for one of"),
    ],
)
def test_nonsense_raises_and_is_never_a_step(backbone, server, fault, words) -> None:
    case = volume()
    engine = VolumeEngine(backbone, max_steps=5)
    (episode,) = engine.reset([0], [case])
    server.fault = fault
    with pytest.raises(BackboneError, match=words) as caught:
        engine.step([0], [ON])
    assert server.url in str(caught.value) and not episode.steps
    server.fault = ""
    engine.step([0], [ON])  # and goes on afterwards
    assert episode.dice == 1.0


def test_a_server_that_dies_raises(backbone, server) -> None:
    case = volume()
    engine = VolumeEngine(backbone, max_steps=5)
    (episode,) = engine.reset([0], [case])
    engine.step([0], [ON])
    server.stop()
    with pytest.raises(BackboneError, match="is nninteractive-server running there"):
        engine.step([0], [OTHER])
    assert len(episode.steps) == 1 and episode.dice == 1.0
    with pytest.raises(BackboneError, match="no session could be opened"):
        NnInteractiveBackbone(server.url)


def test_a_lease_that_ended_is_taken_anew(backbone, server) -> None:
    case = volume()
    before = backbone.segment_volume(case.image, case.content_hash, [ON, OTHER])
    server.sessions.clear()
    prompts = [ON, OTHER, click(4, 9, 11, False)]
    mask = backbone.segment_volume(case.image, case.content_hash, prompts)
    assert 0 < mask.sum() < before.sum() and len(server.images) == 2


def test_keys_capacity_and_addresses(server) -> None:
    with serving(max_sessions=1, api_key="secret") as closed:
        with pytest.raises(BackboneError, match="401"):
            NnInteractiveBackbone(closed.url)
        with pytest.raises(BackboneError, match="key= or in NN_INTERACTIVE_API_KEY"):
            backbones.load(f"nninteractive:{closed.url}?key=secret")
        held = backbones.load(f"nninteractive:{closed.url}", key="secret")
        assert held.prompt_kinds == {"box", "point"}
        with pytest.raises(BackboneError, match="at capacity"):
            NnInteractiveBackbone(closed.url, "secret")
        held.close()
    server.fault = "claim"
    with pytest.raises(BackboneError, match="no session could be opened"):
        NnInteractiveBackbone(server.url)
    for name in (
        "nninteractive:here",
        "nninteractive:ftp://x",
        f"nninteractive:{server.url}?sessions=0",
    ):
        with pytest.raises(BackboneError, match=r"write nninteractive:http|must be positive"):
            backbones.load(name)


def test_a_program_that_ends_gives_its_sessions_back(server) -> None:
    code = f"from medseg_gym import backbones; backbones.load('nninteractive:{server.url}')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert server.calls == [] and not server.sessions


def test_images_alone_are_refused(backbone, server) -> None:
    with pytest.raises(BackboneError, match="segments whole volumes"):
        backbone.encode([np.zeros((8, 8, 3), np.uint8)])
    case = volume()
    with pytest.raises(BackboneError, match="at least one prompt"):
        backbone.segment_volume(case.image, case.content_hash, [])
    with pytest.raises(BackboneError, match="there is no 10"):
        backbone.segment_volume(case.image, case.content_hash, [click(10, 0, 0)])
