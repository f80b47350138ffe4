"""OME-Zarr and OME-TIFF: planes with a label are cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from defect_corpus.ome_defects import (
    AXES,
    IMAGE,
    LABEL,
    group,
    pixels,
    save,
    store,
    write,
    write_tiff,
)
from opening import open_dataset, open_healthy

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.ome import OmeFormat
from medseg_gym.cases.writers import convert_cases


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder beside which the index lies."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    "version",
    [
        "0.4",
        pytest.param(
            "0.5", marks=pytest.mark.skipif(zarr.__version__ < "3", reason="needs Python 3.11")
        ),
    ],
)
def test_both_versions_give_planes(root, version):
    write(root, version)
    image, labels = pixels()
    data = open_healthy(OmeFormat, root)
    keys = [record.key for record in data.records]
    assert keys[:2] == [f"{LABEL}#z0/nuclei", f"{LABEL}#z1/nuclei"] and len(keys) == 4
    case = data.case(data.records[1])
    assert np.array_equal(case.mask, labels[1] > 0) and case.group == IMAGE
    assert np.array_equal(case.image[:, :, 0], image[0, 1])


def test_values_have_names_or_are_cases_of_their_own(root):
    write(root)
    named = open_healthy(OmeFormat, root, "labels=1:nucleus,2:ignore")
    assert named.targets == ("nucleus",) and len(named.records) == 4
    assert named.case(named.records[1]).mask.sum() == 80
    apart = open_healthy(OmeFormat, root, "instances=apart")
    assert len(apart.records) == 6
    large = open_healthy(OmeFormat, root, "instances=apart&min_area=50")
    assert len(large.records) == 4 and sum(large.left_out.values()) == 2
    rows = [{"label-value": 1, "class": "nucleus"}, {"label-value": 2, "class": "cyst"}]
    for name in ("a", "b"):
        own = {"image-label": {"properties": rows}}
        store(root / f"{name}.zarr/labels/nuclei", pixels()[1], AXES[1:], **own)
    assert open_healthy(OmeFormat, root).targets == ("cyst", "nucleus")


def test_windows_channels_and_spacing_come_from_the_file(root):
    write(root)
    window = {"window": {"start": 100, "end": 1100, "min": 0, "max": 65535}}
    axes = [AXES[0], *({**axis, "unit": "micrometer"} for axis in AXES[1:])]
    deep = np.repeat(pixels()[0].astype(np.uint16) * 9, 2, axis=0)
    deep[1] = 600
    store(root / IMAGE, deep, axes, omero={"channels": [window, window]})
    data = open_healthy(OmeFormat, root, "channel=0")
    case = data.case(data.records[0])
    assert case.spacing == (0.0005, 0.0005)
    shown = np.round(np.clip((deep[0, 0] - 100.0) / 1000, 0, 1) * 255)
    assert np.array_equal(case.image[:, :, 0], shown)
    second = open_dataset(OmeFormat, root, "channel=1&window=0,1200")
    assert set(np.unique(second.case(second.records[0]).image)) == {128}


def test_a_lower_resolution_can_be_taken(root):
    write(root)
    for folder, array in ((root / IMAGE, pixels()[0]), (root / LABEL, pixels()[1])):
        half = array[..., ::2, ::2]
        save(folder / "1", half)
        meta = json.loads((folder / ".zattrs").read_text())
        meta["multiscales"][0]["datasets"].append({"path": "1"})
        (folder / ".zattrs").write_text(json.dumps(meta))
    data = open_dataset(OmeFormat, root / IMAGE, "level=1")
    assert data.case(data.records[0]).mask.shape == (10, 12) and not data.bad


def test_a_changed_chunk_is_noticed(root):
    write(root)
    assert len(open_healthy(OmeFormat, root).records) == 4
    array = zarr.open_array(str(root / LABEL / "0"), mode="r+")
    array[0] = np.zeros((20, 24))
    assert len(open_healthy(OmeFormat, root).records) == 3


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"bigtiff": True}])
def test_planes_of_ome_tiff(root, options):
    write_tiff(root, **options)
    image, labels = pixels()
    data = open_healthy(OmeFormat, root, "target=nucleus")
    own = [record for record in data.records if record.files[0] == "t.ome.tif"]
    assert [record.key for record in own] == [f"t_mask.ome.tif#z{z}/nucleus" for z in (0, 1)]
    case = data.case(own[1])
    assert np.array_equal(case.mask, labels[1] > 0)
    assert np.array_equal(case.image[:, :, 2], image[0, 1])


def test_ome_tiff_in_colour_with_a_physical_size(root):
    (root / "labels").mkdir()
    (root / "images").mkdir()
    colour = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    meta = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(root / "images/a.ome.tif", colour, photometric="rgb", metadata=meta)
    tifffile.imwrite(root / "labels/a.ome.tif", pixels()[1][0], metadata={"axes": "YX"})
    data = open_healthy(OmeFormat, root, "target=nucleus")
    case = data.case(data.records[0])
    assert np.array_equal(case.image, colour) and case.spacing == (0.0005, 0.00025)


def test_what_is_written_has_the_metadata_of_ngff(tmp_path):
    convert_cases("samples", "ome", tmp_path / "out")
    one = sorted((tmp_path / "out/test").glob("*.zarr"))[0]
    (scale,) = json.loads((one / ".zattrs").read_text())["multiscales"]
    assert [axis["name"] for axis in scale["axes"]] == ["c", "y", "x"]
    names = json.loads((one / "labels/.zattrs").read_text())["labels"]
    own = json.loads((one / "labels" / names[0] / ".zattrs").read_text())
    assert own["image-label"]["source"]["image"] == "../../"
    assert zarr.open_group(str(one), mode="r")["labels"][names[0]]["0"].dtype == np.uint8


def test_without_zarr_the_line_to_install_it_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(CaseError, match=r"needs zarr; pip install 'medseg-gym\[ome\]'"):
        load_cases(f"ome:{root}", "train")


def test_an_image_that_is_the_path_itself(root):
    write(root)
    group(root / "b.zarr/labels", {"labels": []})
    data = open_healthy(OmeFormat, root / IMAGE)
    assert [record.key for record in data.records] == [f"labels/nuclei#z{z}/nuclei" for z in (0, 1)]
