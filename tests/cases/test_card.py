"""Cards of data sets: what they count, and what splits share."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg_gym.cases import Case
from medseg_gym.cases.card.contents import make_card
from medseg_gym.cases.card.page import as_markdown
from medseg_gym.cli.main import app
from medseg_gym.errors import CaseError


def test_a_clean_set_shares_nothing():
    card = make_card("samples")
    counts = {split: of["cases"] for split, of in card.report.splits().items()}
    assert counts == {"train": 90, "val": 6, "test": 18} and card.images["train"] == 51
    assert not card.shared_images and not card.shared_groups
    low, middle, high = card.spacing()
    assert 0 < low <= middle <= high < 20
    assert sum(map(len, card.areas.values())) == 114
    page = as_markdown(card)
    assert "| train | 90 | 51 | 3 |" in page and "pixel for pixel: none" in page
    assert "Synthetic" not in page and "Defects: none" in page


@pytest.fixture
def leaking(tmp_path, monkeypatch):
    """Cases of a user's own: an image, and a patient, in two splits; a name that needs care."""
    (tmp_path / "leaking.py").write_text(
        "import numpy as np\n"
        "from medseg_gym.cases import Case\n"
        "def cases(split):\n"
        "    rng = np.random.default_rng(0 if split != 'val' else 1)\n"
        "    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)\n"
        "    mask = np.zeros((20, 30), bool)\n"
        "    mask[:5] = split != 'test'\n"
        "    group = 'anna' if split != 'test' else 'ben'\n"
        "    return [Case(f'{split}-1', image, mask, 'lung | left', 'CT', group=group)]\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return "leaking.py:cases"


def test_images_and_groups_in_several_splits_are_told(leaking):
    card = make_card(leaking)
    (shared,) = card.shared_images
    assert shared.splits == ("train", "test") and shared.keys == ("train-1", "test-1")
    assert card.shared_groups == {"anna": ("train", "val")}
    page = as_markdown(card, ["areas.png"])
    assert "pixel for pixel: 1." in page and "train `train-1`, test `test-1`" in page
    assert "`anna`: train, val" in page and "lung \\| left" in page
    assert "![areas](areas.png)" in page and "Spacing: not known" in page


def test_the_command_writes_page_numbers_and_picture(leaking, tmp_path):
    out = tmp_path / "card"
    result = CliRunner().invoke(app, ["cases", "card", leaking, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "# Data card: leaking.py:cases" in result.output
    written = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert written["shared_groups"] == {"anna": ["train", "val"]}
    assert (out / "card.md").read_text(encoding="utf-8").count("# Data card") == 1
    with Image.open(out / "areas.png") as picture:
        assert np.asarray(picture).std() > 5


def test_defective_files_are_listed_and_the_others_counted(tmp_path):
    root = tmp_path / "data"
    for split in ("train", "test"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((16, 16), 40 * number + 9, np.uint8)
            mask = np.zeros((16, 16), np.uint8)
            mask[2:8, 2:8] = 255
            Image.fromarray(pixels).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    spec = f"folder:{root}?target=lesion"
    clean = make_card(spec)
    assert len(clean.report.seen) == 4 and len(clean.shared_images) == 2
    (root / "train" / "masks" / "1.png").write_bytes(b"torn")
    card = make_card(spec)
    assert len(card.report.bad) == 1 and "1.png" in as_markdown(card)
    assert sum(card.images.values()) == 3 and len(card.shared_images) == 1


def test_made_on_demand_a_part_is_read_and_said():
    card = make_card("phantoms:fundus?initial_mask=wrong", limit=8)
    assert card.report.not_read["train"] == 99_992
    page = as_markdown(card)
    assert "**Synthetic**: 24 of 24 cases are made-up images." in page and "99992" in page


@pytest.mark.parametrize("words", [["nowhere"], ["folder:/no/such"], ["samples", "--limit", "0"]])
def test_what_cannot_be_read_is_refused(words):
    result = CliRunner().invoke(app, ["cases", "card", *words])
    assert result.exit_code != 0 and not isinstance(result.exception, KeyError)


def test_a_case_of_ones_own_may_be_without_a_target():
    empty = Case("e", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), "x")
    assert empty.area_fraction == 0
    with pytest.raises(CaseError):
        make_card("nothing.py:here")
