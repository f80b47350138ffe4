"""Folders of images and masks: usual names, patterns, and the four kinds of masks."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from defect_corpus.images import encoded, image, mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medseg_gym.cases import Case, CaseError, load_cases
from medseg_gym.cases.files import index_dataset
from medseg_gym.cases.folder import FolderFormat
from medseg_gym.cases.folder.pairing import Patterns, UsualNames


def write(root: Path, files: dict[str, np.ndarray]) -> None:
    for name, pixels in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        format = "JPEG" if name.endswith(".jpg") else "TIFF" if name.endswith(".tif") else "PNG"
        (root / name).write_bytes(encoded(pixels, format))


def cases(root: Path, options: str) -> list[Case]:
    """All cases of all splits, in order."""
    data = index_dataset(FolderFormat, f"{root}{options}")
    assert not data.bad, data.bad
    return [data.case(record) for record in data.records]


@pytest.mark.parametrize(
    ("of_image", "of_mask"),
    [
        ("images/a 1.jpg", "masks/a 1.png"),  # Kvasir-SEG, CVC-ClinicDB
        ("ISIC_0000001.jpg", "ISIC_0000001_segmentation.png"),  # ISIC
        ("benign (1).png", "benign (1)_mask.png"),  # BUSI
        ("benign (4).png", "benign (4)_mask_1.png"),  # BUSI, a second lesion
        ("train/x.png", "train_mask/x.png"),
        ("train/images/x.png", "train/labels/x.png"),
        ("imagesTr/x.png", "labelsTr/x.png"),
        ("P1/images/x.png", "P1/GT/x_mask.png"),
        ("Images/00.png", "Annotation/00.png"),
        ("imgs/deep/er/x.png", "ground_truth/deep/er/x.png"),
    ],
)
def test_usual_names_find_each_other(tmp_path, of_image, of_mask):
    write(tmp_path, {of_image: image(), of_mask: mask()})
    (case,) = cases(tmp_path, "?target=polyp in endoscopy")
    assert case.target == "polyp in endoscopy" and case.modality == "endoscopy"
    assert case.key == of_mask and case.group == of_image
    assert (case.mask == (mask() > 0)).all()


def test_folders_called_after_splits_are_those_splits(tmp_path):
    for split in ("train", "valid", "test"):
        write(tmp_path, {f"{split}/images/x.png": image(), f"{split}/masks/x.png": mask()})
    spec = f"folder:{tmp_path}?target=polyp"
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        assert list(load_cases(spec, split).keys) == [f"{folder}/masks/x.png"]


def test_patterns_tell_targets_splits_and_patients(tmp_path):
    write(
        tmp_path,
        {
            "training/p01/img_3.jpg": image(),
            "training/p01/gt_3_optic+disc.png": mask(),
            "training/p01/gt_3_optic_cup.png": mask(),
            "testing/p02/img_3.jpg": image(),
            "testing/p02/gt_3_optic_cup.png": mask(),
        },
    )
    options = (
        "?images={split}/{group}/img_{name}.jpg&masks={split}/{group}/gt_{name}_{target}.png"
        "&modality=fundus"
    )
    train = load_cases(f"folder:{tmp_path}{options}", "train")
    assert [(c.target, c.group, c.modality) for c in train] == [
        ("optic disc", "p01", "fundus"),
        ("optic cup", "p01", "fundus"),
    ]
    assert [case.group for case in load_cases(f"folder:{tmp_path}{options}", "test")] == ["p02"]


def test_index_masks_give_a_case_for_each_named_value(tmp_path):
    drawn = np.zeros((20, 24), np.uint8)
    drawn[:5], drawn[10:], drawn[7, 7] = 1, 2, 255
    write(tmp_path, {"images/a.png": image(), "masks/a.png": drawn})
    read = cases(tmp_path, "?kind=index&labels=1:liver,2:left kidney,255:-")
    assert [(case.key, case.target) for case in read] == [
        ("masks/a.png#1", "liver"),
        ("masks/a.png#2", "left kidney"),
    ]
    assert (read[0].mask == (drawn == 1)).all() and (read[1].mask == (drawn == 2)).all()
    names = {"1": "liver", "2": "left kidney", "255": "-"}
    (tmp_path / "labels.json").write_text(json.dumps(names))
    again = cases(tmp_path, "?kind=index&labels=labels.json")
    assert [case.target for case in again] == ["liver", "left kidney"]


def test_palette_and_sixteen_bit_masks_are_index_masks(tmp_path):
    drawn = np.zeros((20, 24), np.uint8)
    drawn[:5] = 3
    paletted = Image.fromarray(drawn)
    paletted.putpalette([0, 0, 0, 9, 9, 9, 50, 60, 70, 200, 0, 0] + [0] * 756)
    (tmp_path / "masks").mkdir()
    paletted.save(tmp_path / "masks" / "a.png")
    write(tmp_path, {"images/a.png": image(), "images/b.png": image()})
    write(tmp_path, {"masks/b.png": drawn.astype(np.uint16) * 1000})
    read = cases(tmp_path, "?kind=index&labels=3:tool,3000:tool")
    assert [(case.key, case.target) for case in read] == [
        ("masks/a.png#3", "tool"),
        ("masks/b.png#3000", "tool"),
    ]
    assert (read[0].mask == (drawn == 3)).all() and (read[1].mask == (drawn == 3)).all()


def test_instance_masks_give_a_case_for_each_object(tmp_path):
    drawn = np.zeros((20, 24), np.uint16)
    drawn[2:5, 2:5], drawn[9:12, 9:12] = 7, 300
    write(tmp_path, {"images/a.png": image(), "masks/a.tif": drawn})
    read = cases(tmp_path, "?kind=instance&target=cell nucleus")
    assert [case.key for case in read] == ["masks/a.tif#7", "masks/a.tif#300"]
    assert {case.target for case in read} == {"cell nucleus"}
    assert [int(case.mask.sum()) for case in read] == [9, 9]
    assert read[0].image is read[1].image


def test_colour_masks_give_a_case_for_each_named_colour(tmp_path):
    drawn = np.zeros((20, 24, 3), np.uint8)
    drawn[:5], drawn[10:] = (255, 0, 0), (0, 255, 0)
    write(tmp_path, {"images/a.jpg": image(), "masks/a.png": drawn})
    read = cases(tmp_path, "?kind=color&labels=ff0000:neoplastic polyp,%2300ff00:other polyp")
    assert [case.target for case in read] == ["other polyp", "neoplastic polyp"]
    assert (read[1].mask == (drawn[:, :, 0] == 255)).all()


def test_jpeg_masks_are_cut_in_the_middle_and_thresholds_are_kept(tmp_path):
    blurred = np.repeat(np.linspace(0, 255, 24).astype(np.uint8)[None], 20, 0)
    write(tmp_path, {"images/a.png": image(), "masks/a.jpg": mask()})
    (case,) = cases(tmp_path, "?target=polyp")
    assert (case.mask == (mask() > 0)).mean() > 0.97
    write(tmp_path, {"images/b.png": image(), "masks/b.png": blurred})
    (_, case) = cases(tmp_path, "?target=polyp&threshold=99")
    assert (case.mask == (blurred > 99)).all()


def test_deep_images_are_windowed_and_spacing_is_kept(tmp_path):
    deep = np.linspace(0, 4000, 480).reshape(20, 24).astype(np.uint16)
    write(tmp_path, {"images/a.tif": deep, "masks/a.png": mask()})
    (case,) = cases(tmp_path, "?target=nucleus&window=0,2000&spacing=0.5,0.25")
    assert case.image[0, 0, 0] == 0 and case.image[-1, -1, 0] == 255
    assert case.spacing == (0.5, 0.25)
    assert abs(int(case.image[5, 0, 0]) - round(deep[5, 0] / 2000 * 255)) <= 1


def test_real_fluorescence_nuclei_load_as_instances(tmp_path):
    """The DSB 2018 image inside the stardist package, where that is installed."""
    try:
        files = metadata.files("stardist") or []
    except metadata.PackageNotFoundError:
        pytest.skip("stardist is not installed")
    for file in files:
        if file.name in ("img2d.tif", "mask2d.tif"):
            folder = "images" if file.name.startswith("img") else "masks"
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "dsb.tif").write_bytes(Path(file.locate()).read_bytes())
    read = cases(tmp_path, "?kind=instance&target=cell nucleus&window=0,235&modality=microscopy")
    assert len(read) == 125 and read[0].image.shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "nothing says what the masks show; give target=polyp"),
        ("?target=x&kind=both", "use one of binary, index, instance, color"),
        ("?kind=index", "kind=index needs names for the values"),
        ("?kind=index&labels=1", "not VALUE:NAME"),
        ("?kind=index&labels=1:a,1:b", "named twice"),
        ("?kind=index&labels=x:a", "not VALUE:NAME"),
        ("?kind=color&labels=f00:a", "not VALUE:NAME"),
        ("?kind=index&labels=gone.json", "the file is missing"),
        ("?target=x&images={name}.png", "the option masks is missing"),
        ("?target=x&images=a.png&masks={name}.png", "has no {name}"),
        ("?target=x&images={nome}.png&masks={name}.png", "unknown {nome}"),
        ("?target=x&window=1", "two numbers"),
        ("?target=x&window=5,1", "LOW must be below HIGH"),
        ("?target=x&spacing=0,1", "positive"),
        ("?target=x&threshold=-1", "from 0 to 65535"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, words):
    write(tmp_path, {"images/a.png": image(), "masks/a.png": mask()})
    with pytest.raises(CaseError, match=words.replace("{", r"\{").replace("}", r"\}")):
        load_cases(f"folder:{tmp_path}{options}")


WORDS = st.text("abcXYZ09 é-", min_size=1, max_size=6).filter(str.strip)


@given(name=WORDS, target=WORDS, split=st.sampled_from(["train", "test"]))
def test_patterns_read_what_they_would_write(name, target, split):
    images, masks = "{split}/img/{name}.png", "{split}/gt/{name}_{target}.png"
    rule = Patterns(images, masks)
    of_image = rule.role(images.format(split=split, name=name))
    of_mask = rule.role(masks.format(split=split, name=name, target=target))
    assert of_image is not None and of_mask is not None
    assert of_image.identity == of_mask.identity and of_mask.mask and not of_image.mask
    assert (of_mask.target, of_mask.split) == (target, split)


@given(st.lists(st.text("ab_/.m", min_size=1, max_size=8), min_size=1, max_size=4))
def test_usual_names_take_any_name(parts):
    role = UsualNames().role("/".join(parts))
    assert role is None or isinstance(role.identity, str)
