"""Small data sets: empty splits name the way out, all splits together, one image, no splits."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg_gym.cases import CaseList, load_cases
from medseg_gym.cases.case_source import load_splits
from medseg_gym.cases.source import EmptySplit
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.errors import CaseError

add_installed_commands(app)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images with masks and nothing that names a split."""
    path = tmp_path_factory.mktemp("small") / "mine"
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    for number in range(3):
        image = np.zeros((40, 48, 3), np.uint8)
        image[10:25, 8 + 6 * number : 28 + 6 * number] = 200
        Image.fromarray(image).save(path / "images" / f"{number}.png")
        Image.fromarray(image[:, :, 0]).save(path / "masks" / f"{number}.png")
    return path


@pytest.fixture(params=["folder", "image"])
def spec(request, folder) -> str:
    if request.param == "folder":
        return f"folder:{folder}?target=square"
    image = folder / "images" / "0.png"
    return f"image:{image}?truth={folder / 'masks' / '0.png'}&target=square"


def call(*words) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_an_empty_split_names_the_others_and_how_to_set_them(folder) -> None:
    spec = f"folder:{folder}?target=square"
    there = load_splits(spec)
    for split in {"train", "val", "test"} - set(there):
        with pytest.raises(EmptySplit) as error:
            load_cases(spec, split)
        text = str(error.value)
        for other, source in there.items():
            assert f"{other} ({len(source)})" in text and f"--split {other}" in text
        assert "--split all" in text
        as_said = text.rpartition("or '")[2].partition("'")[0]  # for all of it
        assert len(load_cases(as_said, split)) == 3
    assert set(there) != {"train", "val", "test"}


def test_data_that_name_their_splits_are_not_told_to_divide_them(folder, tmp_path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        file = folder / kind / "0.png"
        (tmp_path / "train" / kind / "0.png").write_bytes(file.read_bytes())
    with pytest.raises(
        EmptySplit, match=r"it has train \(1\)\. Take --split train, or --split all$"
    ):
        load_cases(f"folder:{tmp_path}?target=square", "test")


def test_all_splits_together_hold_every_case_once(folder, spec) -> None:
    source = load_cases(spec, "all")
    assert len(source) == (3 if spec.startswith("folder") else 1)
    for index, key in enumerate(source.keys):
        assert source[index].key == key and source.index_of(key) == index
    assert source[-1].key == source.keys[-1]
    assert pickle.loads(pickle.dumps(source)).keys == source.keys
    with pytest.raises(CaseError, match="has no case 'nobody'"):
        source.index_of("nobody")


def test_all_splits_of_what_is_drawn_and_of_volumes() -> None:
    samples = load_cases("samples", "all")
    assert len(samples) == sum(len(one) for one in load_splits("samples").values())
    assert set(samples.targets) >= {samples[i].target for i in range(len(samples))}
    volumes = load_volumes("phantoms-volume", "all")
    assert volumes.depth(len(volumes) - 1) > 1
    slices = load_cases("phantoms-volume", "all")
    place = slices.place_of(slices.keys[-1])
    assert slices.volumes is not None and place.volume in slices.volumes.keys


def test_splits_that_share_some_cases_are_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "own.py").write_text(
        "from medseg_gym.cases import load_cases\n"
        "def cases(split):\n"
        "    both = [load_cases('samples', 'train')[i] for i in range(3)]\n"
        "    return both[:2] if split == 'train' else both[1:]\n"
    )
    with pytest.raises(CaseError, match="would hold it twice"):
        load_cases(f"{tmp_path}/own.py:cases", "all")


def test_a_split_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(CaseError, match=r"'tset' \(did you mean 'test'\?\); use one of .* all"):
        load_cases("samples", "tset")
    assert isinstance(load_cases(list(load_cases("samples", "val")), "all"), CaseList)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("", "give the image and its truth"),
        ("?truth=nowhere.png", "there is no file nowhere.png"),
        ("?truth=x&targte=a", "did you mean 'target'"),
    ],
)
def test_a_wrong_image_is_named(folder, options, match) -> None:
    with pytest.raises(CaseError, match=match):
        load_cases(f"image:{folder / 'images' / '0.png'}{options}")


def test_small_data_work_in_every_command(spec, tmp_path) -> None:
    count = 3 if spec.startswith("folder") else 1
    every = ["--cases", spec, "--split", "all"]
    played = ["--backbone", "ellipse", "--max-steps", "2"]
    listed = json.loads(call("cases", "list", spec, "--json"))
    assert sum(listed["splits"].values()) == 3  # one image is in every split
    assert json.loads(call("cases", "check", spec, "--json"))["ok"]
    call("cases", "show", spec, "--split", "all", "--out", tmp_path / "sheet.png", "-q")
    demo = call("demo", *every, "--backbones", "ellipse", "--out", tmp_path / "demo", "--json")
    assert json.loads(demo)["rows"][0]["cases"] == count
    evaluated = call("eval", *every, *played, "--out", tmp_path / "eval", "--json")
    assert json.loads(evaluated)["rows"][0]["n"] == count
    options = ["--backbones", "ellipse", "--policies", "stop", "--out", tmp_path / "compare"]
    assert json.loads(call("compare", *every, *options, "--json"))["rows"][0]["n"] == count
    call("trajectories", "generate", *every, *played, "--out", tmp_path / "store", "-q")
    stored = json.loads(call("trajectories", "summary", tmp_path / "store", "--json"))
    assert stored["episodes"] == count


def test_training_says_at_once_which_cases_it_will_lack(folder, tmp_path) -> None:
    run = tmp_path / "run"
    words = ["train", "sb3-ppo", "--backbone", "ellipse", "--out", run, "--steps", "8"]
    words += "--rollout 4 --minibatch 4 --num-envs 2 --pool 1 --image-size 32".split()
    cases = f"folder:{folder}?target=square&splits=100,0,0"
    without = ["--eval-every", "0"]
    with pytest.raises(EmptySplit, match="--eval-every 0 does without val cases"):
        call(*words, "--cases", cases)
    with pytest.raises(EmptySplit, match="--test-cases 0 does without test cases"):
        call(*words, "--cases", cases, *without)
    assert not run.exists()
    call(*words, "--cases", cases, *without, "--test-cases", "0")
    assert (run / "checkpoints").is_dir()
