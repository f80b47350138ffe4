"""`npz:`: the challenges' and MedSAM's arrays, whole ones and broken ones."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from medseg_gym.cases import CaseError, VolumeCase, load_cases
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.npz import NpzVolume, VolumeBox
from medseg_gym.cases.npz import archive as npz_archive
from medseg_gym.cases.npz import boxes as npz_boxes
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.cases.windowing import window_values
from medseg_gym.cases.writers.npz import write_npz, write_npz_volumes

from .volume_writing import SPACING, lungs, piece

MM = SPACING[::-1]
BOX = VolumeBox(1, 3, 2, 4, 5, 20, 21)
ALL_TEST = "splits=0,0,1"


@pytest.fixture(scope="module")
def chest():
    """Real slices: (D, H, W) uint8 and both lungs."""
    image, labels = piece()
    return window_values(image, -1000, 400), lungs(labels)


def read_volumes(spec):
    """All volumes of a spec."""
    mark = "&" if "?" in str(spec) else "?"
    return load_volumes(f"npz:{spec}{mark}{ALL_TEST}", "test")


def stored(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_what_is_written_reads_back_as_slices_and_as_volumes(tmp_path, chest):
    image, labels = chest
    write_npz(tmp_path / "CT_chest.npz", image, labels, MM, [BOX, BOX])
    volumes = read_volumes(f"{tmp_path}?labels=1:right lung,2:left lung")
    assert volumes.keys == ("CT_chest.npz/right lung", "CT_chest.npz/left lung")
    for value, case in enumerate(volumes, start=1):
        assert (case.image == image).all() and (case.mask == (labels == value)).all()
        assert case.spacing == pytest.approx(MM) and case.modality == "CT"
        assert case.group == "CT_chest.npz" and not case.synthetic
    assert NpzVolume(tmp_path / "CT_chest.npz").boxes == (BOX, BOX)
    source = load_cases(f"npz:{tmp_path}?{ALL_TEST}", "test")
    for case in source:
        _, at, target = case.key.split("/")
        index, value = int(at[1:]), int(target.removeprefix("label "))
        assert (case.image[:, :, 0] == image[index]).all()
        assert (case.mask == (labels[index] == value)).all()
        assert case.spacing == pytest.approx(MM[1:])
    report = check_cases(f"npz:{tmp_path}")
    assert not report.bad and len(report.seen) == len(source)
    write_npz_volumes(tmp_path / "again.npz", list(volumes))
    assert (NpzVolume(tmp_path / "again.npz").labels() == labels).all()


def test_files_of_other_people(tmp_path, chest):
    image, labels = chest
    stored(tmp_path / "flat.npz", imgs=np.stack([image[2]] * 3, -1), gts=labels[2].astype(np.int64))
    stored(tmp_path / "grey.npz", imgs=image[2].astype(np.float32), gts=labels[2].astype(float))
    (box, numbers) = BOX.as_dict(), {k: np.int64(v) for k, v in BOX.as_dict().items()}
    stored(
        tmp_path / "MR_whole.npz", imgs=image, gts=labels, spacing=np.array([1, 2, 9]),
        boxes=[numbers, box], text_prompts=np.array({"1": "lung"}, object),
    )  # fmt: skip
    source = load_cases(f"npz:{tmp_path}?{ALL_TEST}&spacing_order=slice-last&slices=top:1", "test")
    assert {case.key for case in source} >= {"flat.npz/label 1", "grey.npz/label 2"}
    grey, flat = (source[source.index_of(f"{n}.npz/label 1")] for n in ("grey", "flat"))
    assert (grey.image == flat.image).all() and (grey.mask == flat.mask).all()
    whole = next(case for case in source if case.modality == "MRI")
    assert whole.spacing == (2.0, 1.0)
    assert NpzVolume(tmp_path / "MR_whole.npz").boxes == (BOX, BOX)


def test_truth_in_a_folder_of_its_own(tmp_path, chest):
    image, labels = chest
    for folder in ("imgs", "truth"):
        (tmp_path / folder).mkdir()
    stored(tmp_path / "imgs" / "a.npz", imgs=image, spacing=MM)
    stored(tmp_path / "truth" / "a.npz", gts=labels)
    with pytest.raises(CaseError, match=r"a\.npz.*no array 'gts'"):
        read_volumes(tmp_path / "imgs")
    (right, left) = read_volumes(f"{tmp_path}/imgs?gts=../truth")
    assert (right.mask == (labels == 1)).all() and left.mask.sum() == (labels == 2).sum()
    source = load_cases(f"npz:{tmp_path}/imgs?gts=../truth&{ALL_TEST}", "test")
    assert source[0].mask.any() and source.left_out == {}


def test_what_gives_no_case_is_counted(tmp_path, chest):
    image, labels = chest
    labels = labels.copy()
    labels[0], labels[1] = 0, 0
    labels[1, :2, :2] = 1
    stored(tmp_path / "a.npz", imgs=image, gts=labels)
    stored(tmp_path / "empty.npz", imgs=image, gts=np.zeros_like(labels))
    left_out = load_cases(f"npz:{tmp_path}?{ALL_TEST}", "test").left_out
    assert sorted(left_out.values()) == [1, 1, 1]
    assert read_volumes(tmp_path).left_out["files without a label above 0"] == 1


def test_made_up_volumes_say_so(tmp_path):
    mask = np.zeros((3, 40, 40), bool)
    mask[1, 5:20, 5:20] = True
    case = VolumeCase("p", mask * np.uint8(200), mask, "ball", spacing=(1, 1, 1), synthetic=True)
    write_npz_volumes(tmp_path / "p.npz", [case])
    assert read_volumes(tmp_path)[0].synthetic
    assert load_cases(f"npz:{tmp_path}?{ALL_TEST}", "test")[0].synthetic


def broken(kind: str, image: np.ndarray, labels: np.ndarray) -> dict:
    """Arrays of a file with one fault."""
    wrong = {
        "objects": {"imgs": np.array([{}], object)},
        "pickled labels": {"gts": np.array([[1]], object)},
        "shape": {"gts": labels[1:]},
        "four axes": {"imgs": image[None], "gts": labels[None]},
        "NaN": {"imgs": np.where(image > 250, np.nan, image)},
        "hounsfield": {"imgs": image.astype(np.int16) * 5 - 1000},
        "unit range": {"imgs": image / 255.0},
        "fractions": {"gts": labels / 2},
        "negative": {"gts": labels.astype(np.int16) - 1},
        "texts": {"gts": labels.astype(str)},
        "an image as labels": {"gts": np.arange(labels.size).reshape(labels.shape) % 5000},
        "spacing": {"spacing": np.array([1.0, 0.0, 1.0])},
        "two spacings": {"spacing": np.array([1.0, 1.0])},
    }
    return {"imgs": image, "gts": labels, "spacing": np.ones(3), **wrong[kind]}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("objects", "imgs.*never loaded"),
        ("pickled labels", "gts.*never loaded"),
        ("shape", r"imgs is \(6, 64, 64\) and gts is \(5, 64, 64\)"),
        ("four axes", "both must be"),
        ("NaN", "NaN or infinite"),
        ("hounsfield", "outside of 0..255; window="),
        ("unit range", "window=0,1"),
        ("fractions", "whole numbers"),
        ("negative", "outside of 0..65535"),
        ("texts", "instead of real numbers"),
        ("an image as labels", "not labels"),
        ("spacing", "positive numbers"),
        ("two spacings", "3 positive numbers"),
    ],
)
def test_broken_arrays_are_refused_with_file_and_array(tmp_path, chest, kind, words):
    stored(tmp_path / "bad.npz", **broken(kind, *chest))
    stored(tmp_path / "good.npz", imgs=chest[0], gts=chest[1])
    report = check_cases(f"npz:{tmp_path}")
    assert report.bad and {one.path for one in report.bad} == {"bad.npz"}
    with pytest.raises(CaseError, match=rf"(?s)bad\.npz.*{words}"):
        list(read_volumes(tmp_path / "bad.npz"))
    assert report.seen  # the good one is read all the same
    if kind in ("hounsfield", "unit range"):
        window = "-1000,275" if kind == "hounsfield" else "0,1"
        shown = read_volumes(f"{tmp_path}/bad.npz?window={window}")[0].image
        assert np.abs(shown.astype(int) - chest[0]).max() <= 1


def test_damaged_files_are_refused(tmp_path, chest, monkeypatch):
    good = stored(tmp_path / "good.npz", imgs=chest[0], gts=chest[1]).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 0xFF
    fates = {"half": good[: len(good) // 2], "text": b"hello", "none": b"", "bit": bytes(flipped)}
    for name, content in fates.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(CaseError, match=rf"{name}\.npz"):
            list(read_volumes(tmp_path / f"{name}.npz"))
    # A header that announces more than is there, and a member that unpacks to far too much.
    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        lying, {"descr": "|u1", "fortran_order": False, "shape": (10**5, 10**5, 10**5)}
    )
    with zipfile.ZipFile(tmp_path / "lying.npz", "w") as file:
        file.writestr("imgs.npy", lying.getvalue() + b"1234")
        file.writestr("gts.npy", lying.getvalue() + b"1234")
    with pytest.raises(CaseError, match="announces"):
        read_volumes(tmp_path / "lying.npz")
    zeros = np.zeros((40, 100, 100), np.uint8)
    stored(tmp_path / "bomb.npz", imgs=zeros, gts=zeros)
    monkeypatch.setattr(npz_archive, "MAX_DECODED", 1000)
    with pytest.raises(CaseError, match="GiB unpacked"):
        read_volumes(tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("imgs.npy", good)
    with pytest.raises(CaseError, match="another method"):
        read_volumes(tmp_path / "other.npz")


class Evil:
    """Runs a program when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_no_pickle_is_ever_run(tmp_path, chest):
    marker = tmp_path / "ran"
    entries = np.array([BOX.as_dict(), {"z_min": Evil(marker)}], object)
    stored(tmp_path / "a.npz", imgs=chest[0], gts=chest[1], boxes=entries)
    with pytest.raises(CaseError, match=r"boxes.*names \w+\.system"):
        _ = NpzVolume(tmp_path / "a.npz").boxes
    assert len(read_volumes(tmp_path)) == 2  # slices and volumes do without the boxes
    assert not marker.exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**BOX.as_dict(), "z_max": 6}, "leaves the volume along z"),
        ({**BOX.as_dict(), "z_mid": 0}, "leaves the volume along z"),
        ({**BOX.as_dict(), "z_min": 1.5}, "whole number"),
        ({**BOX.as_dict(), "z_min": np.float64(1)}, "whole numbers are wanted"),
        ({"z_min": 1}, "exactly"),
        ([1, 2], "exactly"),
    ],
)
def test_boxes_are_checked(tmp_path, chest, entry, words):
    boxes = np.empty(2, object)
    boxes[:] = [BOX.as_dict(), entry]
    stored(tmp_path / "a.npz", imgs=chest[0], gts=chest[1], boxes=boxes)
    with pytest.raises(CaseError, match=rf"a\.npz: boxes: .*{words}"):
        _ = NpzVolume(tmp_path / "a.npz").boxes


def test_pickles_made_to_fill_the_memory_are_refused(tmp_path, monkeypatch):
    huge = b"\x80\x04" + b"K\x01" + pickle.LONG_BINPUT + (2**31 - 1).to_bytes(4, "little") + b"."
    with pytest.raises(ValueError, match="fill the memory"):
        npz_boxes._unpickle(huge)
    with pytest.raises(ValueError):
        npz_boxes._unpickle(b"\x80\x04" + pickle.BINBYTES8 + (2**40).to_bytes(8, "little"))


def test_the_writer_refuses_what_would_not_read_back(tmp_path, chest):
    image, labels = chest
    for arguments in (
        (image.astype(float), labels),
        (image, labels / 2),
        (image, labels[1:]),
        (image, labels, (1, 1)),
        (image, labels, MM, [BOX]),
    ):
        with pytest.raises(CaseError):
            write_npz(tmp_path / "a.npz", *arguments)
    with pytest.raises(CaseError, match=r"end in \.npz"):
        write_npz(tmp_path / "a.zip", image, labels)
    whole = VolumeCase("k", image, np.ones(image.shape, bool), "all")
    with pytest.raises(CaseError, match="overlaps"):
        write_npz_volumes(tmp_path / "a.npz", [whole, whole])
    assert not list(tmp_path.iterdir())
