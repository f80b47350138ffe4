"""The packaged real cases: what is in them, and what happens when the folder is damaged."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gym.cases import SPLITS, CaseError, load_cases
from medseg_gym.cases.samples import SamplePack, open_pack
from medseg_gym.cases.samples.pack import PACKAGED

GROUPS = {
    "train": {"CTChest4", "brain2", "img2d"},
    "val": {"lung1", "breast1"},
    "test": {"lung2", "brain1"},
}
SPECS = [("samples", s) for s in SPLITS] + [("samples:multi-part", "train")]


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A copy of the pack that a test may spoil."""
    return Path(shutil.copytree(PACKAGED, tmp_path / "pack"))


@pytest.mark.parametrize("split", SPLITS)
def test_splits_hold_exactly_their_volumes(split):
    source = load_cases("samples", split)
    assert {record.group for record in source.records} == GROUPS[split]
    assert {case.group for case in source} == GROUPS[split]
    assert len(source) == len(source.keys) == len(set(source.keys))


def test_every_labelled_slice_of_the_test_volumes_is_there():
    groups = [record.group for record in load_cases("samples", "test").records]
    assert (groups.count("lung2"), groups.count("brain1")) == (11, 7)


@pytest.mark.parametrize(("spec", "split"), SPECS)
def test_every_case_is_well_formed_and_agrees_with_the_index(spec, split):
    source = load_cases(spec, split)
    for record, case in zip(source.records, source, strict=True):
        assert case.key == record.key and case.target in source.targets
        assert case.mask.shape == case.image.shape[:2]
        assert np.count_nonzero(case.mask) == record.area >= 20
        assert case.image.std() > 1, f"{case.key} is flat"
        assert case.source == "samples" and case.synthetic is False
        assert case.modality in {"CT", "MRI", "microscopy"}
        assert (case.spacing is None) == (case.modality == "microscopy")


def test_right_lung_is_on_the_left_of_the_image():
    source = load_cases("samples", "train")

    def column(key: str) -> float:
        return float(np.nonzero(source[source.index_of(key)].mask)[1].mean())

    assert column("CTChest4-z020-right-lung") < column("CTChest4-z020-left-lung")


def test_anterior_is_up():
    source = load_cases("samples", "train")
    row = np.nonzero(source[source.index_of("CTChest4-z020-vertebra")].mask)[0].mean()
    lung = np.nonzero(source[source.index_of("CTChest4-z020-left-lung")].mask)[0].mean()
    assert row > lung
    first = source[source.index_of("brain2-z008")]  # the eyes: bright fat in the upper rows
    assert (first.image[:60] > 200).mean() > 2 * (first.image[-60:] > 200).mean()


def test_a_single_nucleus_is_alone_in_its_crop():
    crops = [c for c in load_cases("samples", "train") if c.modality == "microscopy"]
    assert len(crops) >= 10
    for case in crops:
        edges = np.concatenate([case.mask[0], case.mask[-1], case.mask[:, 0], case.mask[:, -1]])
        assert case.image.shape == (64, 64, 3) and not edges.any()


def test_targets_are_the_same_for_all_splits():
    vocabularies = {load_cases(spec, split).targets for spec, split in SPECS}
    assert len(vocabularies) == 1
    (targets,) = vocabularies
    used = {record.target for record in open_pack().records}
    assert len(targets) == len(set(targets)) and set(targets) == used


def test_multi_part_targets_are_apart():
    ordinary, apart = load_cases("samples", "train"), load_cases("samples:multi-part", "train")
    assert not set(ordinary.keys) & set(apart.keys)
    assert not {r.target for r in ordinary.records} & {r.target for r in apart.records}
    assert not any(record.single_box for record in apart.records)
    for split in ("val", "test"):
        with pytest.raises(CaseError, match=f"multi-part' has no split '{split}'; it has train"):
            load_cases("samples:multi-part", split)


def test_unknown_argument_lists_the_choices():
    with pytest.raises(CaseError, match="'samples:ribs'; use 'samples' or 'samples:multi-part'"):
        load_cases("samples:ribs", "train")


def test_licence_and_provenance_of_every_case():
    pack = open_pack()
    for name, origin in pack.index["origins"].items():
        text = (pack.path / origin["licence_file"]).read_text(encoding="utf-8")
        assert "Copyright" in text, name
    for record in pack.records:
        facts = pack.describe(record.key)
        assert facts["licence"] in {"BSD-3-Clause", "MIT"}
        assert facts["masks"] and facts["window"] and facts["package"] and facts["sha256"]
        assert facts["slice"] is not None or facts["crop"]
    with pytest.raises(CaseError, match="no case 'nobody'"):
        pack.describe("nobody")


def test_pack_is_small_complete_and_free_of_strays():
    pack = open_pack()
    files = {p.relative_to(PACKAGED).as_posix(): p for p in PACKAGED.rglob("*") if p.is_file()}
    assert sum(p.stat().st_size for p in files.values()) <= 8e6
    named = {record.image for record in pack.records} | {record.mask for record in pack.records}
    assert named == {name for name in files if name.endswith(".png")}
    for name in ("index.json", "README.md"):
        text = files[name].read_text(encoding="utf-8")
        assert "http" not in text and "/home/" not in text and "/root/" not in text


def test_opening_decodes_nothing(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(Image, "open", refuse)
    source = SamplePack(PACKAGED).source("train")
    assert len(source) and source.keys[0] and source.targets


def test_each_file_is_decoded_once_and_images_are_shared(monkeypatch):
    opened: list[str] = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda p, **kw: opened.append(str(p)) or original(p, **kw))
    source = SamplePack(PACKAGED).source("train")
    keys = ["CTChest4-z020-right-lung", "CTChest4-z020-left-lung", "CTChest4-z020-vertebra"]
    cases = [source[source.index_of(key)] for key in keys * 2]
    assert len(opened) == len(set(opened)) == 4
    assert cases[0] is cases[3]
    assert cases[0].image is cases[1].image is cases[2].image
    assert not cases[0].image.flags.writeable


def test_copies_share_pixels_and_pickles_leave_them_behind():
    source = load_cases("samples", "val")
    case = source[0]
    assert copy.deepcopy(source)[0] is case
    wire = pickle.dumps(source)
    assert len(wire) < 20_000
    again = pickle.loads(wire)
    assert again.keys == source.keys and again.pack is source.pack


@pytest.mark.parametrize("size", [0, 5, 30, 200, 5000])
def test_truncated_image(damaged, size):
    source = SamplePack(damaged).source("test")
    file = damaged / source.records[0].image
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(CaseError, match=rf"{source.records[0].image}: .*scripts\.samples\.build"):
        source[0]


def test_garbled_image(damaged):
    source = SamplePack(damaged).source("test")
    file = damaged / source.records[0].image
    content = bytearray(file.read_bytes())
    content[1000:1100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(CaseError, match=source.records[0].image):
        source[0]


def test_missing_mask(damaged):
    source = SamplePack(damaged).source("test")
    (damaged / source.records[3].mask).unlink()
    assert source[0].key == source.keys[0]  # the others still load
    with pytest.raises(CaseError, match=rf"{source.records[3].mask}: .*No such file.*reinstall"):
        source[3]


def test_mask_of_another_size(damaged):
    source = SamplePack(damaged).source("val")
    Image.new("1", (7, 9), 1).save(damaged / source.records[0].mask)
    with pytest.raises(CaseError, match=r"the mask is \(9, 7\) but its image .* is \(512, 512\)"):
        source[0]


def test_mask_with_other_pixels(damaged):
    source = SamplePack(damaged).source("val")
    Image.new("1", (512, 512), 0).save(damaged / source.records[0].mask)
    with pytest.raises(CaseError, match=r"the mask has 0 pixels, index\.json says \d+"):
        source[0]


def test_mask_that_is_no_mask(damaged):
    source = SamplePack(damaged).source("val")
    shutil.copy(damaged / source.records[0].image, damaged / source.records[0].mask)
    with pytest.raises(CaseError, match=rf"{source.records[0].mask}: PNG mode is 'L', expected 1"):
        source[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 99}', "\ud800"])
def test_unreadable_index(damaged, text):
    (damaged / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CaseError, match=r"index\.json: .*reinstall medseg-gym"):
        SamplePack(damaged)


def test_missing_index(tmp_path):
    with pytest.raises(CaseError, match=r"index\.json: .*No such file"):
        SamplePack(tmp_path)


def _drop_mask(index):
    del index["cases"][5]["mask"]


def _repeat_key(index):
    index["cases"][5]["key"] = index["cases"][4]["key"]


def _foreign_group(index):
    index["cases"][5]["group"] = "nobody"


def _foreign_target(index):
    index["cases"][5]["target"] = "spleen"


def _no_number(index):
    index["cases"][5]["area"] = None


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (_drop_mask, "'mask' is missing"),
        (_repeat_key, "appears twice"),
        (_foreign_group, "'nobody' is missing"),
        (_foreign_target, "'spleen' is not listed"),
        (_no_number, "int"),
    ],
)
def test_inconsistent_index_names_the_line(damaged, spoil, cause):
    file = damaged / "index.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    spoil(index)
    file.write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CaseError, match=rf"index\.json: cases\[5\]: .*{cause}"):
        SamplePack(damaged)
