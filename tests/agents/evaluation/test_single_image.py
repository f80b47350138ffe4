"""`medseg run`: one file in, mask, pictures and record out; no score without a truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from medseg_agents.evaluation.options import RunOptions
from medseg_agents.evaluation.single_image import run_image
from PIL import Image
from typer.testing import CliRunner

from medseg_gym.cases.image_files.one_image import read_case
from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.errors import CaseError, MedSegError, PolicyError


@pytest.fixture
def files(small_cases, tmp_path):
    """Image and mask of the wide case as PNG."""
    case = small_cases[0]
    Image.fromarray(case.image).save(tmp_path / "scan.png")
    Image.fromarray(case.mask.astype(np.uint8) * 255).save(tmp_path / "truth.png")
    return tmp_path


def options(policy="centre-box", **extra):
    return RunOptions(target="blob", policy=policy, backbone="ellipse", **extra)


def words_in(value):
    """Every key of nested JSON."""
    if isinstance(value, dict):
        return {*value, *(word for item in value.values() for word in words_in(item))}
    return {word for item in value for word in words_in(item)} if isinstance(value, list) else set()


def test_without_a_truth_nothing_is_scored(files, small_cases):
    record = run_image(files / "scan.png", options(), files / "out")
    assert record == json.loads((files / "out" / "record.json").read_text())
    happened = {name: value for name, value in record.items() if name != "options"}
    assert not {"dice", "iou", "reward"} & words_in(happened)
    assert [step["tool"] for step in record["steps"]] == ["box", "stop"]
    assert record["size"] == [40, 24] and record["truth"] is None
    assert record["steps"][0]["pixels"] == [10.02, 6.01, 30.02, 18.01]
    mask = np.asarray(Image.open(files / "out" / "mask.png"))
    assert mask.shape == (24, 40) and set(np.unique(mask)) == {0, 255}
    assert (mask > 0).sum() == record["mask_pixels"] > 0
    assert sorted(p.name for p in (files / "out").glob("step_*")) == [
        f"step_{number}.png" for number in range(3)
    ]


def test_with_a_truth_it_is_scored_and_experts_may_play(files, small_cases):
    record = run_image(
        files / "scan.png", options("oracle-box"), files / "out", files / "truth.png"
    )
    assert record["oracle"] and record["dice"] > 0.8 and record["truth"].endswith("truth.png")
    mask = np.asarray(Image.open(files / "out" / "mask.png")) > 0
    truth = small_cases[0].mask
    assert record["dice"] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert record["steps"][0]["dice"] == record["dice"]


def test_experts_refuse_without_a_truth(files):
    for policy in ("oracle-box", "hybrid", "noisy-hybrid"):
        with pytest.raises(PolicyError, match="is shown the truth, and there is none; give --mask"):
            run_image(files / "scan.png", options(policy), files / "out")
    assert not (files / "out").exists()


def test_the_empty_stand_in_for_a_truth_is_not_shown(files):
    """Without a truth, pictures and captions are those of the image and the mask alone."""
    from medseg_agents.evaluation.single_image import draw_step

    from medseg_gym.policy import make_envs

    images = []
    for mask in (None, files / "truth.png"):
        case = read_case(files / "scan.png", "blob", mask, "", None)
        envs = make_envs(1, cases=[case], backbone="ellipse")
        envs.reset(options={"case": case.key})
        images.append(draw_step(envs.episodes[0], 0, 200, scored=False))
    np.testing.assert_array_equal(*images)
    assert not np.array_equal(images[0], draw_step(envs.episodes[0], 0, 200, scored=True))


@pytest.mark.parametrize("suffix", ["jpg", "tif", "bmp", "webp", "gif"])
def test_common_formats(suffix, files, small_cases):
    Image.fromarray(small_cases[0].image).save(files / f"scan.{suffix}")
    case = read_case(files / f"scan.{suffix}", "blob", None, "CT", None)
    assert case.image.shape == (24, 40, 3) and not case.mask.any()


def test_sixteen_bits_need_a_window(files):
    values = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40)
    Image.fromarray(values).save(files / "deep.png")
    with pytest.raises(CaseError, match="more than 8 bits"):
        read_case(files / "deep.png", "blob", None, "", None)
    for window in ("100,500", "percentiles", "soft"):
        image = read_case(files / "deep.png", "blob", None, "", window).image
        assert image[0, 0, 0] == (102 if window == "soft" else 0) and image[-1, -1, 0] == 255
    for window in ("100", "a,b", "file"):
        with pytest.raises(CaseError, match=r"window=.*: use one of soft"):
            read_case(files / "deep.png", "blob", None, "", window)


def test_a_dicom_image(files):
    pydicom = pytest.importorskip("pydicom")
    path = pydicom.data.get_testdata_file("CT_small.dcm")
    for window in (None, "bone"):
        case = read_case(Path(path), "spine", None, "CT", window)
        assert case.image.shape == (128, 128, 3) and case.image.std() > 10


def test_files_that_cannot_be_used(files):
    (files / "words.txt").write_text("words")
    (files / "torn.png").write_bytes((files / "scan.png").read_bytes()[:60])
    Image.new("L", (9, 9)).save(files / "small.png")
    for image, mask, words in (
        ("none.png", None, "there is no file .*none.png"),
        ("words.txt", None, r"unknown kind of image '.txt'; give one of .png"),
        ("torn.png", None, r"torn.png"),
        ("scan.png", "small.png", r"small.png is 9 x 9 pixels but .*scan.png is 40 x 24"),
        ("scan.png", "none.png", r"none.png"),
    ):
        with pytest.raises(MedSegError, match=words):
            read_case(files / image, "blob", mask and files / mask, "", None)


def test_the_command(files):
    add_installed_commands(app)
    arguments = ["run", str(files / "scan.png"), "--target", "blob", "--backbone", "ellipse"]
    arguments += ["--out", str(files / "out")]
    result = CliRunner().invoke(app, [*arguments, "--policy", "centre-box"])
    assert result.exit_code == 0 and "no truth, so no score" in result.output
    assert "Dice" not in result.output and (files / "out" / "mask.png").is_file()
    scored = [*arguments, "--policy", "oracle-box", "--mask", str(files / "truth.png")]
    assert "Dice 0." in CliRunner().invoke(app, scored).output
