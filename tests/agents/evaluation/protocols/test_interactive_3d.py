"""The published 3D protocol against its arithmetic, written again in the plainest way."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import skimage.measure
import typer
from medseg_agents.commands.entry import add_commands
from medseg_agents.evaluation.protocols.interactive_3d import (
    COLUMNS,
    SliceBySlice,
    make_boxes,
    next_click,
    play_case,
    run_protocol,
    score_labels,
    surface_dice_by_area,
)
from medseg_agents.evaluation.protocols.interactive_3d.results import ProtocolFolder
from monai.metrics.utils import _get_neighbour_code_to_normals_table
from scipy import integrate, ndimage
from typer.testing import CliRunner

from medseg_gym import backbones
from medseg_gym.cases.npz import NpzVolume, VolumeBox
from medseg_gym.cases.writers.npz import write_npz
from medseg_gym.errors import MedSegError

SYNTHETIC_MM = (3.0, 0.8, 0.9)
PROTOCOL = "cvpr2025-interactive-3d"


def plain_click(truth, prediction, limit=60_000_000):
    """The click rule as its description reads, without any saving."""
    error = truth != prediction
    if not error.any():
        return None
    parts = skimage.measure.label(error, connectivity=3)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    component = parts == sizes.argmax()
    places = np.argwhere(component)
    low, high = places.min(0), places.max(0) + 1
    padding = np.maximum(((high - low) * 0.25).astype(int), 1)
    crop = np.zeros(high - low + 2 * padding, np.uint8)
    middle = tuple(slice(p, p + n) for p, n in zip(padding, high - low, strict=True))
    crop[middle] = component[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if crop.size > limit:
        small = skimage.measure.block_reduce(crop, (2, 2, 2), np.max)
        depth = ndimage.distance_transform_edt(small)
        depth = depth.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    else:
        depth = ndimage.distance_transform_edt(crop)
    inside = depth[middle] * crop[middle]
    state = np.random.get_state()
    np.random.seed(42)
    deepest = np.argwhere(inside == inside.max())
    chosen = deepest[np.random.choice(len(deepest))] + low
    np.random.set_state(state)
    return ("fg" if truth[tuple(chosen)] else "bg"), tuple(int(one) for one in chosen)


def plain_nsd(truth, prediction, spacing):
    """DeepMind's arithmetic on whole arrays, with MONAI's copy of its table."""
    a, b, c = spacing
    normals = np.asarray(_get_neighbour_code_to_normals_table(), np.float64)
    areas = np.linalg.norm(normals * [b * c, a * c, a * b], axis=-1).sum(-1)
    bits = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])
    codes = [
        ndimage.correlate(np.pad(mask, 1).astype(np.uint8), bits, mode="constant", cval=0)
        for mask in (truth, prediction)
    ]
    borders = [(code != 0) & (code != 255) for code in codes]
    near = total = 0.0
    for here, there in ((0, 1), (1, 0)):
        area = areas[codes[here]][borders[here]]
        total += area.sum()
        if borders[there].any():
            distance = ndimage.distance_transform_edt(~borders[there], sampling=spacing)
            near += area[distance[borders[here]] <= 2.0].sum()
    return near / total


def plain_scores(truth, prediction, spacing):
    pairs = [(truth == v, prediction == v) for v in sorted(np.unique(truth))[1:]]
    dsc = np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])
    return dsc, np.mean([plain_nsd(a, b, spacing) for a, b in pairs]) if dsc > 0.2 else 0.0


def blobs(seed, shape=(12, 20, 22)):
    """A smooth synthetic mask and a damaged one."""
    draws = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(draws.random(shape), 1.5) > 0.5
    return truth, np.roll(truth, 1, seed % 3) ^ (draws.random(shape) < 0.03)


@pytest.mark.parametrize("limit", [60_000_000, 800])
def test_clicks_are_those_of_the_rule(limit):
    for seed in range(12):
        truth, prediction = blobs(seed)
        for got in (prediction, np.zeros_like(truth), ~truth):
            assert next_click(truth, got, limit) == plain_click(truth, got, limit)


def test_a_tie_goes_to_the_component_that_comes_first():
    truth = np.zeros((9, 20, 20), bool)
    truth[5:8, 2:5, 2:5] = True
    truth[1:4, 12:15, 12:15] = True  # as large, and its first voxel comes first
    assert next_click(truth, np.zeros_like(truth)) == ("fg", (2, 13, 13))
    prediction = truth.copy()
    prediction[1:4, 12:15, 12:15] = False
    prediction[5:8, 10:14, 10:14] = True  # larger, and too much
    kind, voxel = next_click(truth, prediction)
    assert kind == "bg" and prediction[voxel] and not truth[voxel]
    assert next_click(truth, truth) is None


def test_components_touch_by_corners_and_the_edge_of_the_volume_is_no_depth():
    truth = np.zeros((6, 12, 12), bool)
    truth[0:2, 0:2, 0:2] = True
    truth[2:4, 2:4, 2:4] = True  # by a corner alone: one component of 16
    truth[0:3, 7:10, 7:10] = True  # 27 voxels, at the border
    assert next_click(truth, np.zeros_like(truth)) == ("fg", (1, 8, 8))
    truth[0:3, 7:10, 7:10] = False
    kind, voxel = next_click(truth, np.zeros_like(truth))
    assert kind == "fg" and truth[voxel]
    everything = np.ones((3, 5, 5), bool)
    kind, (z, y, x) = next_click(everything, ~everything)
    assert kind == "fg" and z == 1 and y in (1, 2, 3) and x in (1, 2, 3)


@pytest.mark.slow
def test_a_component_above_60_million_voxels_is_reduced():
    side = 272  # padded 408 on each side: 68 million
    truth = np.zeros((side, side, side), bool)
    truth[:, 0, 0] = truth[0, :, 0] = truth[0, 0, :] = True
    truth[100:111, 0:11, 0:11] = True  # 11 wide: its middle would be voxel 105, 5, 5
    kind, voxel = next_click(truth, np.zeros_like(truth))
    assert kind == "fg" and truth[voxel]
    # In blocks of two that start in the padding (68 on each side, an even number), slices 100 to
    # 111 and rows and columns 0 to 11 are 6 blocks wide: two blocks in the middle are deepest.
    assert voxel[0] in range(104, 108) and {voxel[1], voxel[2]} <= set(range(4, 8))
    assert next_click(truth, np.zeros_like(truth), 10**9)[1] == (105, 5, 5)


def test_boxes_follow_the_rule():
    labels = np.zeros((10, 512, 256), np.uint8)
    labels[2:5, 100:200, 50:60] = 3
    labels[6, 100:200, 50:60] = 3  # slices 2, 3, 4 and 6: the middle one is 4
    labels[7:9, 0:20, 250:256] = 7
    draws = np.random.RandomState(2025)
    first, second = (int(draws.randint(0, 6, 1)[0]) for _ in range(2))
    assert make_boxes(labels) == (
        VolumeBox(2, 6, 4, 50 - first, 100 - 2 * first, 59 + first, 199 + 2 * first),
        VolumeBox(7, 8, 8, 250 - second, 0, 255, 19 + 2 * second),
    )


def test_surface_dice_is_that_of_the_package():
    for seed in range(8):
        truth, prediction = blobs(seed, (7, 9, 11))
        spacing = tuple(np.random.default_rng(seed).uniform(0.4, 3, 3))
        expected = plain_nsd(truth, prediction, spacing)
        assert surface_dice_by_area(truth, prediction, spacing) == pytest.approx(
            expected, abs=1e-12
        )
    empty = np.zeros_like(truth)
    assert surface_dice_by_area(truth, empty, spacing) == 0
    assert np.isnan(surface_dice_by_area(empty, empty, spacing))


def test_scores_are_means_over_classes_and_a_low_dsc_has_no_nsd():
    truth, other = blobs(1)
    labels = truth + 3 * (other & ~truth).astype(np.uint8)
    prediction = np.roll(labels, 1, 2)
    expected = plain_scores(labels, prediction, SYNTHETIC_MM)
    assert score_labels(labels, prediction, SYNTHETIC_MM) == pytest.approx(expected, abs=1e-12)
    poor = np.zeros_like(labels)
    poor[0] = labels[0]
    score = score_labels(labels, poor, SYNTHETIC_MM)
    assert 0 < score.dsc <= 0.2 and score.nsd == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real volume with two classes and boxes, and a synthetic one without boxes."""
    from importlib.metadata import files

    import nrrd

    from medseg_gym.cases.windowing import window_values

    named = {str(f).rsplit("/", 1)[-1]: f.locate() for f in files("slicerio") or ()}
    image, _ = nrrd.read(str(named["CTChest4.nrrd"]))
    labels, _ = nrrd.read(str(named["Segmentation.seg.nrrd"]))
    image, labels = (a[::-1, ::-1].transpose(2, 1, 0)[14:21, ::2, ::2] for a in (image, labels))
    lungs = ((labels == 5) + 2 * (labels == 6)).astype(np.uint8)
    root = tmp_path_factory.mktemp("npz")
    shown = window_values(image, -1000, 400)
    write_npz(root / "CT_chest.npz", shown, lungs, (10.0, 6.1, 6.1), make_boxes(lungs))
    ball = np.zeros((5, 40, 48), np.uint8)
    ball[1:4, 8:24, 10:30] = 4
    write_npz(root / "synthetic_block.npz", 40 * ball, ball, SYNTHETIC_MM, synthetic=True)
    return root


def evaluate(folder, out, *options):
    app = typer.Typer()
    add_commands(app)
    arguments = ["eval", "--protocol", PROTOCOL, "--cases", f"npz:{folder}", "--backbone"]
    return CliRunner().invoke(app, [*arguments, "ellipse", "--out", str(out), *options])


def rows_of(out):
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return {row["CaseName"]: row for row in csv.DictReader(file)}


def test_anyone_can_compute_the_table_again_from_the_stored_predictions(folder, tmp_path):
    result = evaluate(folder, tmp_path, "--save-masks")
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    assert list(rows) == ["CT_chest.npz", "synthetic_block.npz"]
    for name, row in rows.items():
        assert tuple(row) == COLUMNS
        volume, case = NpzVolume(folder / name), name.removesuffix(".npz")
        truth, classes = volume.labels(), np.unique(volume.labels())[1:]
        saved = json.loads((tmp_path / "clicks" / f"{case}.json").read_text())
        segs, dscs, nsds = np.zeros_like(truth), [], []
        clicks = [{"fg": [], "bg": []} for _ in classes]
        order = [[] for _ in classes]
        for number in range(6):
            if number:
                for value, mine, kinds in zip(classes, clicks, order, strict=True):
                    click = plain_click(truth == value, segs == value)
                    kinds.append(click and click[0])
                    if click:
                        mine[click[0]].append(list(click[1]))
            file = tmp_path / "predictions" / f"{case}_i{number}.npz"
            assert file.exists() is (number > 0 or "chest" in case)
            if file.exists():
                segs = np.load(file)["segs"]
            dsc, nsd = plain_scores(truth, segs, volume.spacing) if file.exists() else (0, 0)
            dscs.append(dsc)
            nsds.append(nsd)
        assert saved["clicks"] == clicks and saved["clicks_order"] == order
        assert (saved["boxes"] is None) is ("synthetic" in case)
        for column, values in (("DSC", dscs), ("NSD", nsds)):
            expected = {f"{column}_{n}": value for n, value in enumerate(values, start=1)}
            expected[f"{column}_Final"] = values[-1]
            expected[f"{column}_AUC"] = integrate.trapezoid(values[1:])
            for at, value in expected.items():
                assert float(row[at]) == pytest.approx(value, abs=1e-9), at
        assert int(row["num_class"]) == len(classes)
        assert int(row["runtime_upperbound"]) == 90 * len(classes)
        times = [float(row[f"RunningTime_{n}"]) for n in range(1, 7)]
        assert float(row["TotalRunningTime"]) == pytest.approx(sum(times))
        assert (times[0] == 0) is ("synthetic" in case)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["cases"] == 2 and summary["notes"]["synthetic cases"] == 1
    assert summary["notes"]["cases without a box, whose first iteration counts as 0"] == 1
    assert float(rows["CT_chest.npz"]["DSC_Final"]) > 0.5
    assert not list(tmp_path.rglob("*.part"))


def test_without_box_and_with_made_ones(folder, tmp_path):
    assert evaluate(folder, tmp_path / "clicks", "--no-box").exit_code == 0
    for row in rows_of(tmp_path / "clicks").values():
        assert row["DSC_1"] == row["NSD_1"] == "0.0" and float(row["DSC_2"]) > 0
    assert evaluate(folder, tmp_path / "made", "--make-boxes").exit_code == 0
    assert all(float(row["DSC_1"]) > 0 for row in rows_of(tmp_path / "made").values())
    assert not (tmp_path / "made" / "predictions").exists()
    refused = evaluate(folder, tmp_path / "made")
    assert refused.exit_code != 0 and "make_boxes" in str(refused.exception or refused.output)


class Failing(SliceBySlice):
    """Ends its run in the middle of the second volume."""

    calls = 0

    def segment(self, *arguments):
        Failing.calls += 1
        if Failing.calls == 9:
            raise MedSegError("killed")
        return super().segment(*arguments)


def test_a_run_goes_on_after_the_cases_that_are_done(folder, tmp_path):
    backbone, out = backbones.load("ellipse"), ProtocolFolder(tmp_path)
    with pytest.raises(MedSegError, match="killed"):
        run_protocol(Failing(backbone), f"npz:{folder}", out, save_masks=True)
    record = tmp_path / "cases" / "CT_chest.json"
    before = record.stat().st_mtime_ns
    assert not (tmp_path / "cases" / "synthetic_block.json").exists()
    for file in tmp_path.rglob("*.npz"):
        np.load(file)["segs"].sum()  # whatever is there is whole
    summary = run_protocol(SliceBySlice(backbone), f"npz:{folder}", out, save_masks=True)
    assert record.stat().st_mtime_ns == before and summary["cases"] == 2


class Odd:
    """Returns what it was told to."""

    name = "odd"

    def __init__(self, answer):
        self.answer = answer

    def segment(self, *_):
        return self.answer


def test_wrong_predictions_and_cases_are_refused(folder, tmp_path):
    truth = np.zeros((4, 8, 8), np.uint8)
    truth[1:3, 2:5, 2:5] = 9
    for answer in (None, truth / 2, truth[1:], truth):
        with pytest.raises(MedSegError, match="odd"):
            play_case(Odd(answer), truth, truth, (1, 1, 1), None)
    played = play_case(Odd((truth > 0).astype(int)), truth, truth, (1, 1, 1), None)
    assert played.scores[-1] == (1, 1) and played.clicks[0].order == ["fg", *[None] * 4]
    for cases, options in (
        (folder / "no", ()),
        (f"{folder}?labels=1:a", ()),
        (folder, ("--seed=3",)),
    ):
        assert evaluate(cases, tmp_path / "x", *options).exit_code != 0
    empty = np.zeros((3, 9, 9), np.uint8)
    write_npz(tmp_path / "in" / "empty.npz", empty, empty, (1, 1, 1))
    write_npz(tmp_path / "in" / "flat.npz", truth[1], truth[1], (1, 1))
    refused = evaluate(tmp_path / "in", tmp_path / "y")
    assert refused.exit_code != 0 and "no volume" in str(refused.exception or refused.output)
    write_npz(tmp_path / "in" / "no_spacing.npz", truth, truth)
    refused = evaluate(tmp_path / "in", tmp_path / "z")
    assert refused.exit_code != 0 and "spacing" in str(refused.exception or refused.output)
