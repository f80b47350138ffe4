"""Labels in BIDS' derivatives find their images, subjects and names."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from opening import open_healthy
from volume_writing import lungs, piece, save, save_pair

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.files import Defect
from medseg_gym.cases.nifti import BidsFormat, NiftiFormat
from medseg_gym.cases.nifti.pairing import Pair, pair_volumes
from medseg_gym.cases.volume_source import load_volumes

RAW = [
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_T2w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
    "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz",
    "sub-03/anat/sub-03_T1w.nii.gz",
    "sub-03/anat/sub-03_acq-high_T1w.nii.gz",
    "sub-04/dwi/sub-04_dwi.nii.gz",
]
D = "derivatives"

# label -> number of its image in RAW
LABELS = {
    f"{D}/labels/sub-01/anat/sub-01_T1w_lesion-manual.nii.gz": 0,
    f"{D}/labels/sub-01/anat/sub-01_T2w_lesion-manual.nii.gz": 1,
    f"{D}/labels/sub-01/anat/sub-01_T2w_seg-manual.nii.gz": 1,
    f"{D}/labels/sub-01/anat/sub-01_T2w.nii.gz": 1,
    f"{D}/labels/sub-01/anat/sub-01_T1w_label-SC_seg.nii.gz": 0,
    f"{D}/labels/sub-02/ses-2/anat/sub-02_ses-2_T1w_seg.nii.gz": 3,
    f"{D}/manual_masks/sub-02/ses-1/anat/sub-02_ses-1_desc-lesion_mask.nii.gz": 2,
    f"{D}/lesion_masks/sub-02/ses-1/anat/sub-02_ses-1_label-lesion_roi.nii.gz": 2,
    f"{D}/pipeline/sub-02/ses-2/anat/sub-02_ses-2_desc-aseg_dseg.nii.gz": 3,
    f"{D}/pipeline/sub-01/anat/sub-01_space-T2w_dseg.nii.gz": 1,
    f"{D}/pipeline/sub-03/anat/sub-03_T1w_dseg.nii.gz": 4,
    f"{D}/pipeline/sub-03/anat/sub-03_acq-high_T1w_label-L_desc-T1lesion_mask.nii.gz": 5,
    f"{D}/pipeline/sub-03/anat/sub-03_acq-high_dseg.nii.gz": 5,
    f"{D}/pipeline/sub-01/anat/sub-01_FLAIRless_T1w_lesion-manual.nii.gz": 0,
    f"{D}/rater1/sub-04/dwi/sub-04_msk.nii.gz": 6,
    f"{D}/sub-04/sub-04_msk.nii.gz": 6,
    f"{D}/rater2/sub-04/dwi/sub-04_dwi_lesion-manual2.nii.gz": 6,
    "sub-01/anat/sub-01_T1w_seg.nii.gz": 0,
    "sub-01/anat/sub-01_T1w_dseg.nii.gz": 0,
    "labels/sub-01/anat/sub-01_T1w_lesion-manual.nii.gz": 0,
}


@pytest.mark.parametrize("above", ["", "ds000/"])
@pytest.mark.parametrize("label", LABELS)
def test_labels_find_their_image(label, above):
    names = sorted(above + name for name in (*RAW, label))
    pairs = [p for p in pair_volumes(names) if isinstance(p, Pair)]
    assert [(p.image, p.label) for p in pairs] == [(above + RAW[LABELS[label]], above + label)]
    notes = [p for p in pair_volumes(names) if isinstance(p, Defect)]
    assert all(note.note for note in notes) and sum(n.left_out for n in notes) == len(RAW) - 1


def test_all_of_them_at_once():
    pairs = [p for p in pair_volumes(sorted((*RAW, *LABELS))) if isinstance(p, Pair)]
    assert {p.label: p.image for p in pairs} == {n: RAW[i] for n, i in LABELS.items()}


@pytest.mark.parametrize("raw", ["rawdata/", "ds1/rawdata/"])
def test_raw_data_may_have_a_folder_of_their_own(raw):
    root = raw.removesuffix("rawdata/")
    images = [raw + name for name in RAW]
    for label, number in list(LABELS.items())[:10]:
        for path in (root + label, raw + label):
            pairs = [p for p in pair_volumes([*images, path]) if isinstance(p, Pair)]
            assert [p.image for p in pairs] == [images[number]], path


def test_an_image_of_the_same_pipeline_is_nearer():
    folder = f"{D}/fmriprep/sub-01/anat/sub-01"
    names = [
        f"{folder}_desc-preproc_T1w.nii.gz",
        f"{folder}_space-MNI_desc-preproc_T1w.nii.gz",
        f"{folder}_dseg.nii.gz",
        f"{folder}_space-MNI_dseg.nii.gz",
        f"{folder}_label-GM_probseg.nii.gz",
        RAW[0],
    ]
    results = list(pair_volumes(sorted(names)))
    pairs = {p.label: p.image for p in results if isinstance(p, Pair)}
    assert pairs == {names[2]: names[0], names[3]: names[1]}
    left_out = {d.reason: d.path for d in results if isinstance(d, Defect)}
    assert left_out == {
        "probability maps (threshold them first)": names[4],
        "images without labels": names[5],
    }


@pytest.mark.parametrize(
    "label",
    [
        f"{D}/labels/sub-02/ses-3/anat/sub-02_ses-3_T1w_seg.nii.gz",
        f"{D}/labels/sub-09/anat/sub-09_T1w_seg.nii.gz",
        f"{D}/labels/sub-01/anat/sub-01_acq-low_T1w_seg.nii.gz",
        f"{D}/labels/sub-01/anat/sub-01_run-2_dseg.nii.gz",
    ],
)
def test_labels_of_another_recording_have_no_image(label):
    (defect,) = (d for d in pair_volumes([*RAW, label]) if isinstance(d, Defect) and not d.note)
    assert defect.path == label and "no image belongs" in defect.cause


def test_several_images_are_a_choice():
    label = f"{D}/labels/sub-01/anat/sub-01_dseg.nii.gz"
    (defect,) = (d for d in pair_volumes([*RAW, label]) if isinstance(d, Defect) and not d.note)
    assert "2 images could belong" in defect.cause and "image=WORD" in defect.cause
    (chosen,) = (p for p in pair_volumes([*RAW, label], 0, "t2w") if isinstance(p, Pair))
    assert chosen.image == RAW[1]


def test_other_derivatives_are_no_labels():
    others = [
        f"{D}/glm/sub-01/anat/sub-01_stat-z_statmap.nii.gz",
        f"{D}/pre/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    ]
    results = list(pair_volumes([*RAW, *others]))
    assert all(isinstance(d, Defect) and d.note for d in results)


# --- on disk ------------------------------------------------------------------------------------


def dataset(root: Path, *labels: str, values: int = 2) -> Path:
    pixels, truth = piece(step=4)
    for name in RAW:
        save(root / name, pixels)
    for name in labels:
        save(root / name, lungs(truth) if values == 2 else (lungs(truth) > 0).astype(np.uint8))
    return root


healthy = partial(open_healthy, NiftiFormat)


def test_a_patient_is_a_group_whatever_the_session(tmp_path):
    names = [name for name in LABELS if "sub-02" in name and "mask" not in name]
    names += [f"{D}/labels/sub-02/ses-1/anat/sub-02_ses-1_T1w_seg.nii.gz"]
    data = healthy(dataset(tmp_path, *names))
    assert {record.group for record in data.records} == {"sub-02"}
    assert {record.files[0] for record in data.records} == {RAW[2], RAW[3]}
    assert data.left_out["images without labels"] == len(RAW) - 2
    assert {r.group for r in healthy(tmp_path, r"group=sub-\d").records} == {"sub-0"}


def test_raters_give_cases_of_their_own(tmp_path):
    names = [f"{D}/rater{n}/sub-01/anat/sub-01_T1w_lesion-manual.nii.gz" for n in (1, 2)]
    data = healthy(dataset(tmp_path, *names, values=1))
    assert data.targets == ("lesion",)
    assert {record.files[1] for record in data.records} == set(names)
    assert len({record.key for record in data.records}) == len(data.records)
    assert {record.key.partition(".nii.gz/")[0] for record in data.records} == {
        name.removesuffix(".nii.gz") for name in names
    }


@pytest.mark.parametrize(
    ("label", "targets"),
    [
        ("sub-01_T1w_lesion-manual", ("lesion",)),
        ("sub-01_T1w_label-SC_seg", ("SC",)),
        ("sub-01_T1w_desc-lesion_mask", ("lesion",)),
        ("sub-01_T1w_seg-manual", ("label 1",)),
        ("sub-01_T1w_dseg", ("label 1",)),
        ("sub-01_T1w", ("label 1",)),
    ],
)
def test_the_name_of_a_file_names_its_only_target(tmp_path, label, targets):
    dataset(tmp_path, f"{D}/labels/sub-01/anat/{label}.nii.gz", values=1)
    assert healthy(tmp_path).targets == targets
    assert healthy(tmp_path, "labels=1:mass").targets == ("mass",)


TABLE = (
    "index\tname\tcolor\n0\tbackground\t#000000\n1\tright lung\t#ff0000\n2\tleft lung\t#00ff00\n"
)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sub-01/anat/sub-01_T1w_desc-lungs_dseg.tsv", TABLE),
        ("sub-01/anat/sub-01_T1w_desc-lungs_dseg.tsv", "\ufeff" + TABLE),
        ("desc-lungs_dseg.tsv", TABLE),
        ("dseg.tsv", TABLE),
        (
            "sub-01/anat/sub-01_T1w_desc-lungs_dseg.json",
            json.dumps({"Author": "A", "LabelMap": {"right lung": 1, "left lung": 2}}),
        ),
    ],
)
def test_names_lie_beside_or_above(tmp_path, file, content):
    dataset(tmp_path, f"{D}/p/sub-01/anat/sub-01_T1w_desc-lungs_dseg.nii.gz")
    (tmp_path / D / "p/desc-other_dseg.tsv").write_text("index\tname\n1\tno\n2\tneither\n")
    (tmp_path / D / "p" / file).write_text(content)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t50\n")
    assert healthy(tmp_path).targets == ("left lung", "right lung")
    assert healthy(tmp_path, "labels=1:R,2:L").targets == ("L", "R"), "the option comes first"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("index\tname\none\tlung\n", "a whole number and a name"),
        ("index\tname\n1\tlung\n2\tlung\n", "appears twice"),
        ("index\tname\n1\tlung\n", "label 2 occurs, but derivatives/p/dseg.tsv does not name it"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, content, words):
    dataset(tmp_path, f"{D}/p/sub-01/anat/sub-01_T1w_dseg.nii.gz")
    (tmp_path / D / "p/dseg.tsv").write_text(content)
    with pytest.raises(CaseError, match=f"dseg.*{words}"):
        load_cases(f"nifti:{tmp_path}", "train")


def test_a_json_of_other_things_is_left_alone(tmp_path):
    dataset(tmp_path, f"{D}/labels/sub-01/anat/sub-01_T1w_lesion-manual.nii.gz", values=1)
    beside = tmp_path / f"{D}/labels/sub-01/anat/sub-01_T1w_lesion-manual.json"
    for text in ('{"Author": "A", "Label": "lesion-manual"}', "{broken", "[1]"):
        beside.write_text(text)
        assert healthy(tmp_path).targets == ("lesion",)


# --- the kind bids: -----------------------------------------------------------------------------


def test_labels_are_chosen_by_pipeline_and_entities(tmp_path):
    names = [f"{D}/rater{n}/sub-01/anat/sub-01_desc-lesion_mask.nii.gz" for n in (1, 2)]
    names += [f"{D}/rater1/sub-02/ses-1/anat/sub-02_ses-1_desc-tumour_mask.nii.gz"]
    dataset(tmp_path, *names, values=1)
    first = open_healthy(BidsFormat, tmp_path, "pipeline=rater2&image=T1w")
    assert {record.files[1] for record in first.records} == {names[1]}
    reason = "labels of other pipelines or entities (pipeline= and only= change that)"
    assert first.left_out[reason] == 2
    lesions = open_healthy(BidsFormat, tmp_path, "only=desc-lesion&image=T1w")
    assert {record.files[1] for record in lesions.records} == set(names[:2])
    assert {record.group for record in lesions.records} == {"sub-01"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("pipeline=gone", "no labels fit pipeline='gone'"),
        ("only=ses-9", "no labels fit .*ses-9"),
        ("only=ses", "give entities, as ses-2,space-T1w"),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused(tmp_path, options, words):
    dataset(tmp_path, f"{D}/p/sub-01/anat/sub-01_T1w_dseg.nii.gz")
    with pytest.raises(CaseError, match=words):
        load_cases(f"bids:{tmp_path}?{options}", "all")


def test_what_is_no_bids_dataset_is_refused(tmp_path):
    save_pair(tmp_path)
    with pytest.raises(CaseError, match="holds no volume of a BIDS subject, as sub-01/anat"):
        load_cases(f"bids:{tmp_path}", "all")


def test_volumes_of_a_bids_dataset(tmp_path):
    dataset(tmp_path, f"{D}/p/sub-01/anat/sub-01_T1w_lesion-manual.nii.gz", values=1)
    (volume,) = load_volumes(f"bids:{tmp_path}?splits=100,0,0", "train")
    assert volume.target == "lesion" and volume.group == "sub-01"
