"""Volumes on disk become the cases that nibabel, pynrrd and SimpleITK say are in them."""

from __future__ import annotations

import gzip
import itertools
import json
import tempfile
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opening import open_dataset, open_healthy
from volume_writing import SPACING, chest, lungs, packaged, piece, save, save_pair

from medseg_gym.cases import CaseError, load_cases, window_to_rgb
from medseg_gym.cases.files import ByteCache, index_dataset
from medseg_gym.cases.nifti import NiftiFormat
from medseg_gym.cases.nifti.pairing import Pair, pair_volumes
from medseg_gym.cases.volumes import Volume, nifti_file, parse_window, windows
from medseg_gym.cases.volumes.slices import SliceChoice
from medseg_gym.episodes.metrics.surface import hd95

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
]
NAMES = "labels=1:right lung,2:left lung"

opened = partial(open_dataset, NiftiFormat)
healthy = partial(open_healthy, NiftiFormat)


# --- geometry -------------------------------------------------------------------------------


def test_all_48_orientations_are_there():
    assert len(set(ORIENTATIONS)) == 48


@given(image=st.sampled_from(ORIENTATIONS), label=st.sampled_from(ORIENTATIONS))
def test_the_order_of_voxel_axes_changes_nothing(image, label):
    pixels, labels = piece(slice(14, 17), step=4)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save(root / "a.nii", pixels, image)
        save(root / "a_seg.nii", lungs(labels), label)
        for axis, turn in (
            ("axial", (0, 1, 2)),
            ("coronal", (1, 0, 2)),
            ("sagittal", (2, 0, 1)),
        ):
            volume = Volume(root / "a.nii", axis)
            expected = pixels.transpose(turn)
            # Coronal and sagittal rows run to the feet, slices of `pixels` upwards.
            expected = expected if axis == "axial" else expected[:, ::-1]
            assert np.array_equal(volume.voxels(), expected)
            assert np.array_equal(volume.plane(2), expected[2])
            right, back, up = SPACING
            rows, columns = {
                "axial": (back, right),
                "coronal": (up, right),
                "sagittal": (up, back),
            }[axis]
            assert volume.spacing == pytest.approx((rows, columns))
        data = index_dataset(NiftiFormat, str(root))
        assert not data.defects and len(data.records) == 6
        for record in data.records:
            at, value = record.place["slice"], int(record.target[-1])
            assert np.array_equal(data.case(record).mask, lungs(labels)[at] == value)


REAL = [
    ("nibabel", "tests/data/anatomical.nii"),
    ("nibabel", "tests/data/functional.nii"),
    ("nibabel", "tests/data/example4d.nii.gz"),
    ("nibabel", "tests/data/example_nifti2.nii.gz"),
    ("nibabel", "tests/data/standard.nii.gz"),
    ("nibabel", "tests/data/reoriented_anat_moved.nii"),
    ("nilearn", "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz"),
]


@pytest.mark.parametrize(("package", "tail"), REAL, ids=[tail for _, tail in REAL])
def test_real_nifti_has_the_geometry_that_nibabel_reports(package, tail):
    path = packaged(package, tail)
    image = nibabel.load(path)
    if image.ndim > 3:
        image = image.slicer[..., 0]
    canonical = nibabel.as_closest_canonical(image)  # right, front, up
    expected = canonical.get_fdata()[::-1, ::-1].transpose(2, 1, 0)
    x, y, z = (float(size) for size in canonical.header.get_zooms()[:3])
    volume = Volume(path, cache=ByteCache())
    assert (len(volume), *volume.plane_shape) == expected.shape
    assert volume.spacing == pytest.approx((y, x), rel=1e-5)
    for index in {0, len(volume) // 2, len(volume) - 1}:
        assert np.array_equal(volume.plane(index), expected[index])
    assert volume.view.spacing[0] == pytest.approx(z, rel=1e-5)


def test_a_real_nrrd_gives_the_packaged_samples(tmp_path):
    """Those were cut by a script of their own, with pynrrd."""
    for name in ("CTChest4.nrrd", "Segmentation.seg.nrrd"):
        (tmp_path / name).symlink_to(packaged("slicerio", f"data/{name}"))
    data = healthy(tmp_path, "window=wide")
    samples = load_cases("samples", "train")
    compared = 0
    for record in data.records:
        at = record.place["slice"]
        key = f"CTChest4-z{at:03d}-{record.target.replace(' ', '-')}"
        if key in samples.keys:
            sample, case = samples[samples.index_of(key)], data.case(record)
            assert np.array_equal(case.image, sample.image)
            assert np.array_equal(case.mask, sample.mask)
            assert case.spacing == pytest.approx(sample.spacing, abs=1e-6)
            compared += 1
    assert compared == 40
    assert "thoracic vertebral column" in data.targets  # as 3D Slicer's header names it


def test_layers_of_overlapping_segments_are_told_apart(tmp_path):
    (tmp_path / "CTChest4.nrrd").symlink_to(packaged("slicerio", "data/CTChest4.nrrd"))
    overlapping = packaged("slicerio", "data/SegmentationOverlapping.seg.nrrd")
    (tmp_path / "Segmentation.seg.nrrd").symlink_to(overlapping)
    import nrrd

    layers, _ = nrrd.read(str(overlapping))
    sphere = (layers[1] == 1)[::-1, ::-1].transpose(2, 1, 0)
    data = healthy(tmp_path)
    records = [r for r in data.records if r.target == "overlapping sphere"]
    assert records and "ribs" in data.targets
    for record in records:
        assert np.array_equal(data.case(record).mask, sphere[record.place["slice"]])


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr", "packed.mha"])
def test_metaimage_and_nrrd_lie_where_simpleitk_puts_them(tmp_path, name):
    import SimpleITK

    pixels, _ = piece()
    image = SimpleITK.GetImageFromArray(pixels[:, ::-1])  # rows to the front
    image.SetSpacing(SPACING)
    image.SetOrigin((5.0, 6.0, 7.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / name), name.startswith("packed"))
    volume = Volume(tmp_path / name)
    assert np.array_equal(volume.voxels(), pixels)
    assert volume.header.compressed == name.startswith("packed")
    for index in ((0, 0, 0), (3, 9, 2)):
        world = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert (volume.header.affine @ [*index, 1])[:3] == pytest.approx(world)


def test_units_other_than_millimetres_are_converted(tmp_path):
    pixels, _ = piece()
    path = save(tmp_path / "a.nii", pixels, spacing=(2000.0, 3000.0, 5000.0))
    image = nibabel.load(path)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "b.nii")
    assert Volume(tmp_path / "b.nii").spacing == pytest.approx((3.0, 2.0))


def test_scaled_voxels_have_the_values_that_nibabel_gives(tmp_path):
    pixels, _ = piece()
    image = nibabel.load(save(tmp_path / "a.nii", pixels))
    image.header.set_slope_inter(0.37, -3.5)
    for name in ("b.nii", "b.nii.gz"):
        nibabel.save(image, tmp_path / name)
        expected = nibabel.load(tmp_path / name).get_fdata()
        assert not np.array_equal(expected, np.rint(expected))
        volume = Volume(tmp_path / name)
        assert np.array_equal(volume.plane(1), expected[:, :, 1].T)
        assert np.array_equal(volume.voxels()[1], volume.plane(1))


def test_spacing_makes_metrics_come_in_millimetres(tmp_path):
    save_pair(tmp_path)
    data = healthy(tmp_path, "axis=coronal&" + NAMES)
    case = data.case(data.records[0])
    assert case.spacing == pytest.approx((SPACING[2], SPACING[0]))
    row = int(np.flatnonzero(case.mask.any(1))[0])
    lower = np.zeros_like(case.mask)
    upper = lower.copy()
    lower[row, 3], upper[row + 1, 3] = True, True
    assert hd95(lower, upper, case.spacing) == pytest.approx(10.0)


# --- names of files----------------------------------------------------------------------------

NAMINGS = {
    "decathlon": (["imagesTr/liver_3.nii.gz", "labelsTr/liver_3.nii.gz"], "", [(0, 1)]),
    "nnunet": (
        ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"],
        "channel=1",
        [(1, 2)],
    ),
    "nnunet-test": (
        ["imagesTs/a_0000.nii.gz", "labelsTs/a.nii.gz", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii"],
        "",
        [(2, 3), (0, 1)],
    ),
    "beside": (["b1_image.nrrd", "b1_label.nrrd", "b10_image.nrrd"], "", [(0, 1)]),
    "seg": (["x/a.nii.gz", "x/a_seg.nii.gz", "x/b.nii.gz"], "", [(0, 1)]),
    "kits": (["case_7/imaging.nii.gz", "case_7/segmentation.nii.gz"], "", [(0, 1)]),
    "lits": (["volume-12.nii", "segmentation-12.nii", "volume-1.nii"], "", [(0, 1)]),
    "organs": (["s1/ct.nii.gz", "s1/segmentations/aorta.nii.gz"], "", [(0, 1)]),
    "brats": (["B/B_t1.nii.gz", "B/B_flair.nii.gz", "B/B_seg.nii.gz"], "image=flair", [(1, 2)]),
    "numbered": (["img/img0001.nii.gz", "label/label0001.nii.gz"], "", [(0, 1)]),
    "acdc": (["p1/p1_4d.nii", "p1/p1_frame01.nii", "p1/p1_frame01_gt.nii"], "", [(1, 2)]),
    "spaces": (["Bild ä/a.nii", "Bild ä/a mask.nii"], "", [(0, 1)]),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_images_find_their_labels_by_name(naming):
    names, options, expected = NAMINGS[naming]
    chosen = dict(option.split("=") for option in options.split("&") if option)
    results = pair_volumes(sorted(names), int(chosen.get("channel", 0)), chosen.get("image", ""))
    pairs = [(p.image, p.label) for p in results if isinstance(p, Pair)]
    assert pairs == sorted(((names[i], names[j]) for i, j in expected), key=lambda p: p[1])


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_opens(tmp_path, naming):
    names, options, expected = NAMINGS[naming]
    pixels, labels = piece(step=4)
    mask_of = {j for _, j in expected}
    for i, name in enumerate(names):
        if name.endswith(".nrrd"):
            import SimpleITK

            image = SimpleITK.GetImageFromArray(lungs(labels) if i in mask_of else pixels)
            SimpleITK.WriteImage(image, str(tmp_path / name))
        else:
            save(tmp_path / name, lungs(labels) if i in mask_of else pixels)
    data = healthy(tmp_path, options)
    assert {record.files for record in data.records} == {(names[i], names[j]) for i, j in expected}
    if naming == "organs":
        assert data.targets == ("aorta",)
        assert {record.modality for record in data.records} == {"CT"}


def test_folders_named_after_splits_are_used_where_there_are_several(tmp_path):
    pixels, labels = piece(step=4)
    for folder in ("Tr", "Ts"):
        save(tmp_path / f"images{folder}/a.nii", pixels)
        save(tmp_path / f"labels{folder}/a.nii", lungs(labels))
    data = healthy(tmp_path)
    assert {(r.files[0], r.split) for r in data.records} == {
        ("imagesTr/a.nii", "train"),
        ("imagesTs/a.nii", "test"),
    }


def test_a_volume_is_a_group_and_never_torn_apart(tmp_path):
    for number in range(12):
        save_pair(tmp_path, f"case_{number}", ".nii")
    data = healthy(tmp_path)
    assert len({record.group for record in data.records}) == 12
    assert len({(record.group, record.split) for record in data.records}) == 12


OLD = {"labels": {"0": "background", "1": "right lung", "2": "left lung"}, "modality": {"0": "CT"}}
NEW = {
    "labels": {"background": 0, "lungs": [1, 2], "left lung": 2, "ignore": 3},
    "channel_names": {"0": "FLAIR"},
}


def test_names_come_from_both_forms_of_dataset_json(tmp_path):
    save_pair(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(OLD))
    data = healthy(tmp_path)
    assert data.targets == ("left lung", "right lung")
    assert {record.modality for record in data.records} == {"CT"}
    (tmp_path / "dataset.json").write_text(json.dumps(NEW))
    data = healthy(tmp_path)
    assert data.targets == ("left lung", "lungs")
    assert {record.modality for record in data.records} == {"MRI"}
    _, labels = piece()
    for record in data.records:
        values = [1, 2] if record.target == "lungs" else [2]
        truth = np.isin(lungs(labels)[record.place["slice"]], values)
        assert np.array_equal(data.case(record).mask, truth)


def test_the_list_of_dataset_json_pairs_what_names_would_not(tmp_path):
    pixels, labels = piece()
    save(tmp_path / "Task1/imagesTr/x_0000.nii.gz", pixels)
    save(tmp_path / "Task1/labelsTr/y.nii.gz", lungs(labels))
    listed = [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/y.nii.gz"}]
    (tmp_path / "Task1/dataset.json").write_text(json.dumps({**OLD, "training": listed}))
    data = healthy(tmp_path)
    assert {record.files for record in data.records} == {
        ("Task1/imagesTr/x_0000.nii.gz", "Task1/labelsTr/y.nii.gz")
    }
    assert "right lung" in data.targets


def test_names_can_be_given(tmp_path):
    save_pair(tmp_path)
    assert healthy(tmp_path).targets == ("label 1", "label 2")
    assert healthy(tmp_path, NAMES).targets == ("left lung", "right lung")
    (tmp_path / "names.json").write_text(json.dumps(["nothing", "R", "L"]))
    with pytest.raises(CaseError, match=r"labels\.0|names nothing|labels"):
        index_dataset(NiftiFormat, f"{tmp_path}?labels=missing.json")
    assert healthy(tmp_path, "labels=names.json").targets == ("L", "R")


def test_a_sidecar_tells_the_modality(tmp_path):
    save_pair(tmp_path, suffix=".nii")
    (tmp_path / "imagesTr/case_001.json").write_text('{"Modality": "MR"}')
    assert {record.modality for record in healthy(tmp_path).records} == {"MRI"}


# --- options --------------------------------------------------------------------------------


def test_slices_are_chosen_by_area(tmp_path):
    image, labels = chest()
    save_pair(tmp_path, image=image[::2], labels=lungs(labels)[::2])
    areas = {1: {}, 2: {}}
    for value, by_slice in areas.items():
        for index, plane in enumerate(lungs(labels)[::2]):
            by_slice[index] = int((plane == value).sum())

    def chosen(options: str, value: int = 1) -> list[int]:
        records = healthy(tmp_path, options).records
        return [r.place["slice"] for r in records if r.target == f"label {value}"]

    assert chosen("") == [i for i, area in areas[1].items() if area >= 20]
    assert chosen("min_area=1500") == [i for i, area in areas[1].items() if area >= 1500]
    largest = sorted(areas[2], key=lambda i: areas[2][i])[-3:]
    assert chosen("slices=top:3", 2) == sorted(largest)
    assert chosen("slices=every:4") == chosen("")[::4]


def test_a_slice_choice_refuses_what_it_cannot_read():
    for text in ("most", "top", "top:0", "every:-1", "top:x"):
        with pytest.raises(CaseError, match="top:NUMBER"):
            SliceChoice.parse(text, 1)


def test_the_fourth_axis_is_a_channel(tmp_path):
    pixels, labels = piece()
    image = nibabel.load(save(tmp_path / "one.nii", pixels))
    both = np.stack([image.dataobj[:], image.dataobj[:] + 500], axis=3)
    (tmp_path / "one.nii").unlink()
    nibabel.save(nibabel.Nifti1Image(both, image.affine), tmp_path / "a.nii.gz")
    save(tmp_path / "a_label.nii.gz", lungs(labels))
    first, second = (healthy(tmp_path, f"channel={c}&window=-1000,1500") for c in (0, 1))
    one, two = (data.case(data.records[0]).image for data in (first, second))
    window = ("window=-1500,1000", "channel=1")
    shifted = healthy(tmp_path, "&".join((window[0].replace("-1500,1000", "-500,2000"), window[1])))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, shifted.case(shifted.records[0]).image)


def test_windows_are_presets_percentiles_or_numbers(tmp_path):
    save_pair(tmp_path)
    pixels, _ = piece()
    values = pixels[pixels != 0]
    for options, (low, high) in {
        "modality=CT": (-160, 240),
        "modality=CT&window=lung": (-1350, 150),
        "window=bone": (-500, 1300),
        "window=-200,300": (-200, 300),
        "modality=MRI": np.percentile(values, [0.5, 99.5]),
        "": np.percentile(values, [0.5, 99.5]),
    }.items():
        data = healthy(tmp_path, options)
        for record in data.records:
            plane = pixels[record.place["slice"]]
            grey = np.round(np.clip((plane - low) / (high - low), 0, 1) * 255)
            assert np.array_equal(data.case(record).image[:, :, 1], grey), options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("axis=up", "axis='up'.*axial"),
        ("window=dark", "window='dark'.*lung.*percentiles"),
        ("window=5,1", "LOW,HIGH"),
        ("slices=few", "top:NUMBER"),
        ("labels=liver", "VALUE:NAME"),
        ("channel=x", "a whole number is wanted"),
        ("colour=1", "unknown option 'colour'"),
    ],
)
def test_a_wrong_option_says_what_is_right(tmp_path, options, message):
    with pytest.raises(CaseError, match=message):
        index_dataset(NiftiFormat, f"{tmp_path}?{options}")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
def test_a_table_of_values_changes_no_pixel(dtype):
    rng = np.random.default_rng(5)
    kind = np.dtype(dtype)
    low, high = (0, 255) if kind.itemsize == 1 else (0 if kind.kind == "u" else -30_000, 32_767)
    for top in (low + 40, high):
        plane = rng.integers(low, top, (50, 60)).astype(kind)
        plane[0, :2] = top, top - 1
        assert np.array_equal(windows.show(plane, -20, 300.5), window_to_rgb(plane, -20, 300.5))


def test_presets_are_level_and_width():
    assert parse_window("brain", "").limits(lambda a, b: (a, b)) == (0, 80)
    assert all(low < high for low, high in windows.CT_WINDOWS.values())


# --- laziness and memory ----------------------------------------------------------------------


def test_opening_reads_no_voxel_of_an_image(tmp_path, monkeypatch):
    save_pair(tmp_path)
    plain = nifti_file.read_volume

    def watched(header, channel):
        assert "labelsTr" in str(header.path), "opening decoded an image"
        return plain(header, channel)

    monkeypatch.setattr(nifti_file, "read_volume", watched)
    data = index_dataset(NiftiFormat, str(tmp_path))
    assert len(data.records) == 12


def test_opening_again_reads_nothing(tmp_path, monkeypatch):
    import time

    save_pair(tmp_path)
    time.sleep(0.15)  # younger files are read again: their time stamps may be too coarse
    first = index_dataset(NiftiFormat, str(tmp_path))
    for reader in ("read_volume", "read_slice", "read_header"):
        monkeypatch.setattr(nifti_file, reader, None)
    again = index_dataset(NiftiFormat, f"{tmp_path}?min_area=400&window=lung")
    assert 0 < len(again.records) < len(first.records)
    assert all(record in first.records for record in again.records)


def test_a_slice_of_an_uncompressed_volume_is_read_alone(tmp_path, monkeypatch):
    pixels, _ = piece()
    path = save(tmp_path / "a.nii", pixels)
    monkeypatch.setattr(nifti_file, "read_volume", None)
    for index in range(len(pixels)):
        assert np.array_equal(Volume(path).plane(index), pixels[index])


def test_a_compressed_volume_is_decoded_once_while_it_fits(tmp_path, monkeypatch):
    pixels, _ = piece()
    path = save(tmp_path / "a.nii.gz", pixels)
    calls = []
    plain = nifti_file.read_volume
    monkeypatch.setattr(nifti_file, "read_volume", lambda *a: calls.append(1) or plain(*a))
    volume = Volume(path, cache=ByteCache())
    assert all(np.array_equal(volume.plane(i), pixels[i]) for i in range(6))
    assert len(calls) == 1
    small = Volume(path, cache=ByteCache(100))  # such a volume is kept elsewhere
    assert all(np.array_equal(small.plane(i), pixels[i]) for i in range(6))
    assert len(calls) == 2


def test_what_would_fill_the_memory_is_refused_and_told_how_to_store_it(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((2000, 2000, 400))
    header.set_data_dtype(np.int16)
    noise = np.random.default_rng(0).bytes(4 << 20)  # what 3 GB could be compressed to
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=0) as file:
        file.write(header.binaryblock + bytes(4) + noise)
    with pytest.raises(CaseError, match=r"3\.0 GiB unpacked, more than 2 GiB: store it as \.nii"):
        Volume(tmp_path / "a.nii.gz")


def test_a_volume_that_changed_is_decoded_again(tmp_path):
    pixels, _ = piece()
    path = save(tmp_path / "a.nii.gz", pixels)
    assert np.array_equal(Volume(path).plane(0), pixels[0])
    save(path, pixels[::-1])
    assert np.array_equal(Volume(path).plane(0), pixels[-1])


def test_float_labels_are_taken_where_they_are_whole(tmp_path):
    _, labels = piece()
    save_pair(tmp_path, labels=lungs(labels).astype(np.float32))
    data = healthy(tmp_path, NAMES)
    for record in data.records:
        assert int(np.count_nonzero(data.case(record).mask)) == record.area
