"""Segmenters that take no clicks, or read words, in every command that plays policies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers")

from medseg_agents.evaluation.figures import filmstrips
from medseg_agents.policies.specs import PolicySpec

from medseg_gym import annotators, backbones
from medseg_gym.backbones import PromptRow
from medseg_gym.cases import load_cases
from medseg_gym.episodes.metrics import dice
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.trajectories import TrajectoryStore
from tests.backbones.hf_models import save_tiny

CASES = ["--cases", "phantoms:abdomen", "--split", "test", "--limit", "8", "--num-envs", "4"]


@pytest.fixture(scope="module")
def sam3(tmp_path_factory) -> str:
    """SAM 3's detector with random weights: words and boxes, no clicks."""
    return f"hf:{save_tiny('sam3', tmp_path_factory.mktemp('hf') / 'sam3')}"


@pytest.fixture
def by_words(sam3) -> dict[str, np.ndarray]:
    """Masks that the targets' names alone make, by case."""
    backbone = backbones.load(sam3, device="cpu")
    source, masks = load_cases("phantoms:abdomen", "test"), {}
    for case in (source[i] for i in range(8)):
        (embedding,) = backbone.encode([case.image])
        made = backbone.decode([PromptRow(embedding, text=case.target)])
        masks[case.key] = (backbone.to_image(made.logits, [embedding])[0] > 0).numpy()
    assert sum(mask.any() for mask in masks.values()) > 1  # else the test says nothing
    return masks


def test_words_are_scored_alone(medseg, sam3, by_words) -> None:
    medseg("eval", *CASES, "--backbone", sam3, "--policy", "stop", "--text-start", "--out", "e")
    first, *records = map(json.loads, Path("e/records.jsonl").read_text().splitlines())
    assert first["settings"]["text_start"] and "text_prompt" not in first["settings"]
    assert first["settings"]["tools"] == ["box", "undo", "clear", "stop"]
    source = load_cases("phantoms:abdomen", "test")
    for record in records:
        truth = source[source.index_of(record["case"])].mask
        assert record["dice"] == pytest.approx(
            [dice(by_words[record["case"]], truth)] * 2, abs=1e-4
        )
    with pytest.raises(MedSegError, match="other settings"):
        medseg("eval", *CASES, "--backbone", sam3, "--policy", "stop", "--out", "e", "--resume")


def test_boxes_with_words_are_compared_with_boxes_alone(medseg, sam3):
    dices = []
    for words in ([], ["--text-prompt"]):
        out = f"c{len(words)}"
        medseg("compare", *CASES, "--backbones", sam3, "--policies", "oracle-box,random",
               *words, "--out", out)  # fmt: skip
        (file,) = Path(out, "records").glob("*oracle-box*")
        dices.append([json.loads(line)["dice"] for line in file.read_text().splitlines()[1:]])
    assert dices[0] != dices[1]


def test_an_image_is_segmented_by_words(medseg, sam3, by_words) -> None:
    source = load_cases("phantoms:abdomen", "test")
    case = next(c for c in (source[i] for i in range(8)) if by_words[c.key].any())
    Image.fromarray(case.image).save("scan.png")
    medseg("run", "scan.png", "--target", case.target, "--backbone", sam3, "--policy", "stop",
           "--text-start", "--out", "r")  # fmt: skip
    mask = np.asarray(Image.open("r/mask.png")) > 0
    assert mask.any() and (mask != by_words[case.key]).sum() < 9


def test_recordings_keep_words_and_replay_with_them(medseg, sam3, by_words):
    medseg("trajectories", "generate", *CASES, "--backbone", sam3, "--annotator", "oracle-box",
           "--text-start", "--text-prompt", "--out", "t")  # fmt: skip
    for one in TrajectoryStore("t"):
        # Another batch rounds otherwise: a pixel whose logit is 0 may go either way.
        assert (one.initial_mask != by_words[one.key.case]).sum() < 9
        assert one.facts.options["text_prompt"] and one.facts.options["text_start"]
    medseg("trajectories", "replay", "t", "--backbone", sam3)  # fails where masks differ


def test_filmstrips_are_played_with_the_words(medseg, sam3, monkeypatch):
    drawn: list = []
    monkeypatch.setattr(filmstrips, "contact_sheet", lambda rows, path: drawn.extend(rows))
    medseg("eval", *CASES, "--backbone", sam3, "--policy", "oracle-box", "--text-start",
           "--text-prompt", "--filmstrips", "8", "--out", "e")  # fmt: skip
    records = map(json.loads, Path("e/records.jsonl").read_text().splitlines()[1:])
    dices = {record["case"]: record["dice"] for record in records}
    assert len(drawn) == 8 and any(dice[0] > 0 for dice in dices.values())
    for _, episode in drawn:
        played = [episode.start_dice, *(step.dice for step in episode.steps)]
        assert played == pytest.approx(dices[episode.case.key], abs=0.02)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--policy", "oracle-click"], r"policy 'oracle-click' needs the tools \['positive_point'"),
        (["--policy", "hybrid"], r"needs the tools \['positive_point', 'negative_point'\]"),
        (["--policy", "stop", "--tools", "box"], r"needs the tools \['stop'\], .*given \['box'\]"),
        (["--policy", "stop", "--tools", "positive_point,stop"], r"'hf:sam3' cannot answer"),
        (["--policy", "stop", "--tools", "bx"], "tools must be distinct names out of"),
        (["--policy", "stop", "--text-prompt", "--backbone", "pocket"], "takes no text prompts"),
    ],
)
def test_tools_that_do_not_fit_are_named(medseg, sam3, words, told) -> None:
    with pytest.raises(MedSegError, match=told):
        medseg("eval", *CASES, "--backbone", sam3, *words, "--out", "e")


@pytest.mark.parametrize(
    "tools, told",
    [
        ("auto", r"'trained' was made for the tools positive_point, stop: .* cannot answer the"),
        (["box", "stop"], "made for the tools positive_point, stop, and is to use box, stop"),
    ],
)
def test_a_policy_that_was_made_for_other_tools_says_so(sam3, tools, told) -> None:
    spec = PolicySpec(
        "trained",
        lambda envs: annotators.make("random", envs.codec),
        view={"tools": ["positive_point", "stop"]},
    )
    with pytest.raises(PolicyError, match=told):
        spec.make_envs(1, tools=tools, backbone=sam3, device="cpu")
