"""The BiomedParse format: nested data sets, sentences, names, and what a case is made of."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from defect_corpus.images import encoded, image, mask

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.biomedparse import BiomedParseFormat
from medseg_gym.cases.files import index_dataset


def write(folder: Path, split: str, annotations: list[dict], **document) -> None:
    """A data set of one split; files that annotations name are drawn."""
    for number, annotation in enumerate(annotations):
        for name, kind, pixels in (
            (annotation.get("file_name"), split, image(number)),
            (annotation.get("mask_file"), f"{split}_mask", mask()),
        ):
            if name:
                (folder / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind / name).write_bytes(encoded(pixels))
    content = {"annotations": annotations, **document}
    (folder / f"{split}.json").write_text(json.dumps(content))


def annotation(name: str, target: str, *sentences: str) -> dict:
    texts = [{"raw": text, "sent": text} for text in sentences or (f"{target} in abdomen CT",)]
    mask_file = f"{name}_{target.replace(' ', '+')}.png"
    return {"file_name": f"{name}.png", "mask_file": mask_file, "sentences": texts}


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Two data sets, one of them with sub-sets, as BiomedParse nests MSD and amos22."""
    root = tmp_path / "data"
    kidney = annotation(
        "BTCV-0-106_CT_abdomen", "right kidney", "right kidney in abdomen CT", "ren"
    )
    write(root / "BTCV", "train", [kidney, annotation("BTCV-0-107_CT_abdomen", "liver")])
    write(root / "BTCV", "test", [annotation("BTCV-9-001_CT_abdomen", "liver")])
    heart = annotation("la_003_MRI_heart", "left atrium", "left heart atrium in heart MRI")
    write(root / "MSD" / "Task02_Heart", "train", [heart])
    write(root / "MSD" / "Task03_Liver", "test", [annotation("l_1_CT_abdomen", "tumor")])
    return root


def test_nested_sets_and_every_sentence_become_cases(family):
    train, test = (load_cases(f"biomedparse:{family}", split) for split in ("train", "test"))
    assert [(case.key, case.target, case.modality) for case in train] == [
        (
            "BTCV/train/BTCV-0-106_CT_abdomen_right+kidney.png",
            "right kidney in abdomen CT",
            "CT",
        ),
        ("BTCV/train/BTCV-0-106_CT_abdomen_right+kidney.png#1", "ren", "CT"),
        ("BTCV/train/BTCV-0-107_CT_abdomen_liver.png", "liver in abdomen CT", "CT"),
        (
            "MSD/Task02_Heart/train/la_003_MRI_heart_left+atrium.png",
            "left heart atrium in heart MRI",
            "MRI",
        ),
    ]
    assert len(test) == 2 and test.targets == train.targets == tuple(sorted(train.targets))
    first = train[0]
    assert (first.image == image(0)).all() and (first.mask == (mask() > 0)).all()
    assert first.source == "biomedparse:data" and first.spacing is None
    assert train[1].image is first.image, "an image is decoded once"
    with pytest.raises(CaseError, match=r"no case in split 'val'; it has train \(4\), test \(2\)"):
        load_cases(f"biomedparse:{family}", "val")


def test_one_set_is_read_alone_and_with_one_sentence_a_mask(family):
    assert len(load_cases(f"biomedparse:{family}/BTCV", "train")) == 3
    source = load_cases(f"biomedparse:{family}/BTCV?sentences=first", "train")
    assert [case.target for case in source] == ["right kidney in abdomen CT", "liver in abdomen CT"]


def test_groups_are_images_unless_names_tell_volumes(family):
    images = load_cases(f"biomedparse:{family}/BTCV", "train")
    assert len({case.group for case in images}) == 2
    volumes = load_cases(f"biomedparse:{family}/BTCV?group=BTCV-\\d+", "train")
    assert {case.group for case in volumes} == {"BTCV-0"}


def test_names_that_the_image_list_holds_are_found(tmp_path):
    """BiomedParse's own loader takes file names from `images`, and a missing mask_file as equal."""
    named = annotation("x_1_CT_chest", "lung")
    write(tmp_path, "train", [named])
    (tmp_path / "train_mask" / "x_1_CT_chest.png").write_bytes(encoded(mask()))
    bare = {"image_id": 5, "sentences": named["sentences"]}
    images = [{"id": 5, "file_name": "x_1_CT_chest.png"}]
    document = {"annotations": [bare], "images": images}
    (tmp_path / "train.json").write_text(json.dumps(document))
    (case,) = load_cases(f"biomedparse:{tmp_path}", "train")
    assert case.key == "train/x_1_CT_chest.png" and case.mask.any()


def test_mask_values_above_zero_are_foreground(tmp_path):
    write(tmp_path, "train", [annotation("x_CT_chest", "lung")])
    (tmp_path / "train_mask" / "x_CT_chest_lung.png").write_bytes(encoded(mask() // 255))
    (case,) = load_cases(f"biomedparse:{tmp_path}", "train")
    assert (case.mask == (mask() > 0)).all()


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_pixel_type_are_read(tmp_path, mode):
    from PIL import Image

    write(tmp_path, "train", [annotation("x_CT_chest", "lung")])
    grey = Image.fromarray(mask())
    drawn = Image.fromarray(mask().astype(np.uint16)) if mode == "I;16" else grey.convert(mode)
    drawn.save(tmp_path / "train_mask" / "x_CT_chest_lung.png")
    (case,) = load_cases(f"biomedparse:{tmp_path}", "train")
    assert (case.mask == (mask() > 0)).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_images_of_every_pixel_type_become_rgb(tmp_path, mode):
    from PIL import Image

    write(tmp_path, "train", [annotation("x_CT_chest", "lung")])
    drawn = Image.fromarray(image()).convert("L" if mode == "LA" else mode).convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    drawn.save(tmp_path / "train" / "x_CT_chest.png", format=suffix.replace("tif", "tiff"))
    (case,) = load_cases(f"biomedparse:{tmp_path}", "train")
    assert (case.image == np.asarray(drawn.convert("RGB"))).all()


def test_a_source_travels_to_other_processes_and_is_shared_by_copies(family):
    source = load_cases(f"biomedparse:{family}", "train")
    assert copy.deepcopy(source) is source
    back = pickle.loads(pickle.dumps(source))
    assert list(back.keys) == list(source.keys) and (back[0].image == source[0].image).all()
    assert len(pickle.dumps(source)) < 1000


def test_new_cases_are_seen_at_the_next_opening(family):
    spec = f"{family}/BTCV"
    assert len(index_dataset(BiomedParseFormat, spec).records) == 4
    added = annotation("BTCV-5-001_CT_abdomen", "spleen")
    write(family / "BTCV", "val", [added])
    assert len(index_dataset(BiomedParseFormat, spec).split("val")) == 1
    (family / "BTCV" / "val.json").unlink()
    assert (
        index_dataset(BiomedParseFormat, spec).bad[0].cause
        == "the annotations val.json are missing"
    )


def test_what_is_no_data_set_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CaseError, match="there is no case under"):
        load_cases(f"biomedparse:{tmp_path}")
    with pytest.raises(CaseError, match="is a file; give the folder"):
        load_cases(f"biomedparse:{tmp_path / 'notes.txt'}")
    with pytest.raises(CaseError, match="does not exist; give an existing file or folder"):
        load_cases(f"biomedparse:{tmp_path / 'gone'}")


def test_modality_and_group_options_are_checked(family):
    source = load_cases(f"biomedparse:{family}/BTCV?modality=MRI", "train")
    assert {case.modality for case in source} == {"MRI"}
    with pytest.raises(CaseError, match="option group='\\(': not a regular expression"):
        load_cases(f"biomedparse:{family}?group=(")
    with pytest.raises(CaseError, match="option sentences='some': use one of all, first"):
        load_cases(f"biomedparse:{family}?sentences=some")
