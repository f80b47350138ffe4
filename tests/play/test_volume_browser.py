"""The page's volumes in a real browser: scrolling, prompts, propagation, own scans, downloads."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from medseg_gym import backbones
from medseg_gym.cases import VolumeCase
from medseg_gym.cases.dicom.scan import read_series
from medseg_gym.cases.windowing import window_to_rgb
from medseg_gym.cases.writers.npz import write_npz
from medseg_gym.play import PageExtension, PageOptions
from medseg_gym.serving.server import make_service, running
from tests.cases.files.dicom_writing import write_series
from tests.cases.files.volume_writing import chest, piece, save
from tests.play.browser import CHROMIUM, FLAGS, Tab, require_browser

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=window.hit=1>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with require_browser().sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def lung() -> VolumeCase:
    """The left lung in the chest CT of slicerio."""
    image, labels = chest()
    shown = window_to_rgb(image.reshape(-1, image.shape[2]), -1350, 150)[..., 0]
    return VolumeCase(
        f"chest {EVIL}", shown.reshape(image.shape).copy(), labels == 6, "left lung in chest CT",
        "CT", (10.0, 3.05, 3.05), group="chest",
    )  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    page = PageOptions(
        cases=("samples",),
        volumes=([lung()], "phantoms-volume"),
        record=tmp_path_factory.mktemp("page") / "play",
        provenance={"backbone": "pocket", "device": "cpu"},
    )
    service = make_service(backbones.load("pocket", device="cpu"), extensions=[PageExtension(page)])
    with running(service) as address:
        yield address


class VolumeTab(Tab):
    """The view of volumes, used as a person uses it."""

    def enter(self) -> VolumeTab:
        self.at("[data-view=volumes]").click()
        self.at("#vol-task b").wait_for()
        self.shown(lambda: True)
        return self

    def wait(self, true: Callable[[], bool], seconds: float = 90) -> None:
        super().wait(true, seconds)

    @property
    def slice(self) -> int:
        return int(self.at("#vol-slice").input_value())

    def shown(self, also: Callable[[], bool] = lambda: True) -> None:
        """Wait until the slice that is chosen is drawn and encoded."""
        pane = self.at("#vol-you-pane")
        self.wait(
            lambda: (
                also()
                and pane.get_attribute("data-shown") == str(self.slice)
                and pane.get_attribute("data-ready") == "true"
            )
        )

    def go(self, index: int) -> None:
        self.at("#vol-slice").fill(str(index))
        self.shown(lambda: self.slice == index)

    def taken(self, count: int) -> None:
        """Wait until so many steps are taken and the mask after them is shown."""
        self.at(f"#vol-you-pane[data-taken='{count}']").wait_for()

    def spot(self, x: float, y: float, canvas: str = "#vol-you-canvas") -> tuple[float, float]:
        frame = self.at(canvas).bounding_box()
        size = re.search("of ([0-9]+) \N{MULTIPLICATION SIGN} ([0-9]+)", self.text("#vol-facts"))
        assert size is not None
        width, height = int(size[1]), int(size[2])
        scale = min(frame["width"] / width, frame["height"] / height)
        left = frame["x"] + (frame["width"] - width * scale) / 2
        top = frame["y"] + (frame["height"] - height * scale) / 2
        return left + x * width * scale, top + y * height * scale

    def middle(self, selector: str) -> tuple[float, float]:
        frame = self.at(selector).bounding_box()
        return frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2

    def pixels(self, canvas: str = "#vol-you-canvas") -> np.ndarray:
        return super().pixels(canvas)

    def green(self, canvas: str = "#vol-you-canvas") -> int:
        return super().green(canvas)


@pytest.fixture
def tab(chromium, url) -> Iterator[Callable[..., VolumeTab]]:
    """Open tabs; afterwards nothing was asked of another machine, and no script failed."""
    contexts, tabs = [], []

    def open(**extra: Any) -> VolumeTab:
        extra.setdefault("viewport", {"width": 1280, "height": 860})
        contexts.append(chromium.new_context(accept_downloads=True, **extra))
        tabs.append(VolumeTab(contexts[-1].new_page(), url))
        tabs[-1].page.set_default_timeout(90_000)  # other tests may keep every core busy
        return tabs[-1].open().enter()  # type: ignore[attr-defined]

    yield open
    for one in tabs:
        strange = [u for u in one.asked if not u.startswith((one.url, f"blob:{one.url}"))]
        assert strange == []
        assert [fault for fault in one.faults if "Failed to load resource" not in fault] == []
    for context in contexts:
        context.close()


def box_of(mask: np.ndarray, margin: float = 0.01) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return (
        columns.min() / width - margin,
        rows.min() / height - margin,
        (columns.max() + 1) / width + margin,
        (rows.max() + 1) / height + margin,
    )


# scrolling ----------------------------------------------------------------------------------------
def test_slices_are_scrolled_by_wheel_keys_and_slider(tab) -> None:
    one = tab()
    middle = one.slice
    assert middle == 17 and one.text("#vol-you-label") == "18 / 34"
    before = one.pixels()
    one.page.mouse.move(*one.spot(0.5, 0.5))
    one.page.mouse.wheel(0, 120)
    one.shown(lambda: one.slice == middle + 1)
    assert np.abs(one.pixels() - before).mean() > 1
    one.page.mouse.wheel(0, -120)
    one.page.mouse.wheel(0, -120)
    one.shown(lambda: one.slice == middle - 1)
    one.page.keyboard.press("ArrowDown")  # the image need not have the focus
    one.shown(lambda: one.slice == middle)
    assert np.abs(one.pixels() - before).mean() < 0.5
    one.at("#vol-you-canvas").focus()
    for key, index in (
        ("ArrowUp", 16),
        ("ArrowRight", 17),
        ("PageDown", 22),
        ("Home", 0),
        ("End", 33),
    ):
        one.page.keyboard.press(key)
        one.shown(lambda index=index: one.slice == index)
    one.page.keyboard.press("ArrowDown")  # there is no further one
    assert one.slice == 33
    one.go(5)
    assert one.text("#vol-you-label") == "6 / 34"
    plain = one.pixels()
    one.page.mouse.move(*one.spot(0.5, 0.5))
    one.page.keyboard.down("Control")
    one.page.mouse.wheel(0, -300)
    one.page.keyboard.up("Control")
    assert np.abs(one.pixels() - plain).mean() > 3 and one.slice == 5
    zoomed = one.pixels()
    one.page.mouse.wheel(0, 120)  # zoom and window stay from slice to slice
    one.shown(lambda: one.slice == 6)
    one.page.mouse.wheel(0, -120)
    one.shown(lambda: one.slice == 5)
    assert np.abs(one.pixels() - zoomed).mean() < 0.5


def test_a_fast_wheel_ends_at_the_last_slice_asked_for(tab) -> None:
    one = tab()
    one.page.mouse.move(*one.spot(0.5, 0.5))
    for _ in range(12):
        one.page.mouse.wheel(0, -120)
    one.shown(lambda: one.slice == 5)
    fast = one.pixels()
    one.go(30)
    one.go(5)
    assert np.abs(one.pixels() - fast).mean() < 0.5


# prompts ------------------------------------------------------------------------------------------
def test_prompts_propagation_planes_and_the_end(tab, tmp_path) -> None:
    one = tab(color_scheme="dark")
    truth = lung().mask
    one.go(16)
    assert one.at("#vol-propagate").is_disabled() and one.green() == 0
    one.drag(*box_of(truth[16]))
    one.taken(1)
    assert one.green() > 1000 and 0 < float(one.text("#vol-dice")) < 0.3
    assert one.text("#vol-extent") == "Mask on slice 17"
    one.at("#vol-propagate").click()
    one.taken(2)
    assert float(one.text("#vol-dice")) > 0.5
    masked = one.at("#vol-strip .mask").count()
    assert masked > 8 and "slices" in one.text("#vol-extent")
    assert one.at("#vol-strip .prompted").count() == 1
    one.wait(lambda: one.green("#vol-planes canvas >> nth=0") > 50)
    one.go(18)
    carried = one.green()
    assert carried > 500
    one.page.keyboard.press("n")
    x1, _, x2, y2 = box_of(truth[18], 0)
    one.click((x1 + x2) / 2, y2 - 0.02)
    one.taken(3)
    assert one.at("#vol-strip .prompted").count() == 2
    assert one.text("#vol-steps li >> nth=2").startswith("remove, slice 19")
    one.page.keyboard.press("u")
    one.taken(4)
    assert abs(one.green() - carried) < 0.02 * carried
    one.keep("volume-dark-1280")
    one.page.keyboard.press("c")
    one.taken(5)
    assert one.green() == 0 and one.text("#vol-extent") == "No mask yet"
    one.page.keyboard.press("u")
    one.taken(6)
    plane = one.at("#vol-planes canvas").first.bounding_box()
    one.page.mouse.click(plane["x"] + plane["width"] / 2, plane["y"] + 0.9 * plane["height"])
    one.shown(lambda: one.slice == 3)  # the feet are below
    one.go(16)
    assert one.orange() < 40
    one.page.keyboard.press("s")
    one.taken(7)
    one.at("#vol-next").wait_for()
    assert one.orange() > 60 and one.at("#vol-strip .truth").count() > 10
    with one.page.expect_download() as caught:
        one.at("#vol-save-nifti").click()
    assert caught.value.suggested_filename == "mask.nii.gz"
    caught.value.save_as(tmp_path / "mask.nii.gz")
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert mask.shape == (128, 128, 34) and np.allclose(mask.header.get_zooms(), (3.05, 3.05, 10))
    assert one.page.evaluate("() => window.hit") is None
    assert EVIL in one.text("#vol-facts")
    one.page.keyboard.press(".")
    one.wait(lambda: one.at("#vol-steps li").count() == 0)


def test_a_policy_beside_you_the_recordings_and_the_board(tab) -> None:
    one = tab()
    one.at("#player").fill("Rita")
    one.at("#player").press("Enter")
    truth = lung().mask
    one.go(16)
    one.drag(*box_of(truth[16]))
    one.taken(1)
    policies = one.at("#vol-policy option").all_inner_texts()
    assert "oracle-key-slice" in policies and "oracle-box" not in policies
    one.page.select_option("#vol-policy", label="oracle-key-slice")
    one.at("#vol-watch").click()
    where = one.at("#vol-beside-player .where")
    one.wait(lambda: where.inner_text().startswith("3. done"))
    one.page.keyboard.press("j")  # to the step before
    one.wait(lambda: where.inner_text().startswith("2. propagate"))
    assert "oracle" in one.text("#vol-beside-note")
    one.wait(lambda: one.green("#vol-other-canvas") > 200)
    assert one.at("#vol-curve .line.other").count() == 1 and one.at("#vol-steps li").count() == 1
    one.page.mouse.move(*one.middle("#vol-other-canvas"))
    before = one.slice
    one.page.mouse.wheel(0, 120)  # both scroll together
    one.wait(lambda: one.slice == before + 1)
    one.keep("volume-beside-light-1280")
    one.page.keyboard.press("a")
    one.taken(2)
    one.page.keyboard.press("s")
    one.taken(3)
    assert "3 of 3 recorded" in one.text("#vol-kept")

    one.at("[data-view=recordings]").click()
    one.at("#rec-find").fill("rita")
    entry = one.at("#rec-list button")
    one.wait(lambda: entry.count() == 1)
    assert "34 slices" in entry.inner_text()
    entry.click()
    one.wait(lambda: one.text("#rec-player .where").startswith("3. done"))
    assert one.at("#rec-steps .tool-name").all_inner_texts() == [
        "box, slice 17",
        "propagate",
        "done",
    ]
    one.at("#rec-vol-pane[data-shown='16']").wait_for()
    one.wait(lambda: one.green("#rec-vol-canvas") > 500)
    assert one.at("#rec-pane").is_hidden() and one.at("#rec-vol-strip .mask").count() > 8
    one.at("#rec-vol-slice").fill("0")
    one.at("#rec-vol-pane[data-shown='0']").wait_for()
    one.wait(lambda: one.green("#rec-vol-canvas") < 100)
    one.keep("volume-recording-light-1280")

    one.at("[data-view=board]").click()
    one.page.select_option("#board-place", label="all volumes")
    one.page.select_option("#board-policy", label="middle-box")
    one.at("#catch-up").click()
    one.wait(lambda: "1 case played" in one.text("#catch-up-note"))
    rows = one.at("#board-table tbody tr").all_inner_texts()
    for name in ("Rita sees Dice", "oracle-key-slice oracle", "middle-box"):
        assert any(row.startswith(name) for row in rows), rows
    one.page.select_option("#board-place", label="all images")
    one.at("#board-table td:has-text('No finished episodes')").wait_for()


def test_an_npz_from_disk_is_scored_and_not_recorded(tab, tmp_path) -> None:
    case = lung()
    path = tmp_path / "case.npz"
    write_npz(path, case.image[12:22], case.mask[12:22] * np.uint8(3), case.spacing)
    one = tab()
    one.at("#vol-own-label").evaluate("e => { e.value = 3 }")
    choose(one, "#vol-own-file", path, "left lung")
    one.wait(lambda: "your own scans" in one.text("#vol-facts"))
    one.shown()
    assert "10 slices of 128" in one.text("#vol-facts") and "3.05 mm" in one.text("#vol-facts")
    assert one.at("#vol-example").is_hidden() and "Not recorded" in one.text("#vol-kept")
    one.go(4)
    one.drag(*box_of(case.mask[16]))
    one.taken(1)
    assert float(one.text("#vol-dice")) > 0.05 and one.at("#vol-watch").is_enabled()
    one.at("#vol-case-list .own .quiet").click()
    one.wait(lambda: "your own scans" not in one.text("#vol-facts"))


def test_the_first_drag_after_a_name_counts(tab) -> None:
    one = tab()
    one.go(16)
    one.at("#player").click()
    one.page.keyboard.type("Zoe")  # no Enter: the drag itself leaves the field
    one.drag(0.55, 0.3, 0.85, 0.7)
    one.taken(1)
    one.at("#vol-accepted").check()
    one.at("#vol-least").fill("1")
    one.at("#vol-stop").click()
    one.taken(2)
    assert "is below 1.00 no good example" in one.text("#vol-hint")
    one.at("[data-view=recordings]").click()
    one.at("#rec-list button:has-text('Zoe')").wait_for()
    assert "not an example" in one.text("#rec-list li:has-text('Zoe')")
    one.at("[data-view=play]").click()
    assert one.at("#least").input_value() == "1"  # the same for both


def test_the_keyboard_alone_prompts_a_slice(tab) -> None:
    one = tab()
    keys = one.page.keyboard
    one.go(16)
    one.page.keyboard.press("g")
    keys.press("Enter")  # the cursor comes; from here on the arrows move it
    for key in [*["ArrowLeft"] * 6, *["ArrowUp"] * 6, "Enter"]:
        keys.press(key)
    for key in [*["ArrowRight"] * 12, *["ArrowDown"] * 12, "Enter"]:
        keys.press(key)
    one.taken(1)
    assert one.slice == 16 and one.text("#vol-steps li").startswith("box, slice 17")
    keys.press("Escape")
    keys.press("ArrowDown")
    one.shown(lambda: one.slice == 17)
    keys.press("a")
    one.taken(2)
    assert "Step 2: propagate. Mask on slices" in one.at("#announcement").inner_text()


def test_the_mask_comes_at_once_where_the_slice_is_encoded(tab) -> None:
    one = tab()
    one.page.keyboard.press("p")
    seconds = []
    for number, index in enumerate((14, 15, 16, 17, 18, 19, 20), 1):
        one.go(index)
        one.page.wait_for_timeout(700)  # people look before they click
        place = one.spot(0.7, 0.5)
        began = time.perf_counter()
        one.page.mouse.click(*place)
        one.taken(number)
        seconds.append(time.perf_counter() - began)
    print("first mask after a click:", [round(s, 3) for s in seconds])
    assert statistics.median(seconds) < 3, seconds  # 0.3 alone on 2 cores; tests share theirs


def test_a_game_goes_on_after_a_reload(tab) -> None:
    one = tab()
    one.go(16)
    one.drag(0.55, 0.3, 0.85, 0.7)
    one.taken(1)
    one.open().enter()  # type: ignore[attr-defined]
    one.wait(lambda: one.at("#vol-steps li").count() == 1)
    one.shown(lambda: one.slice == 16)
    assert one.green() > 300


# own scans ----------------------------------------------------------------------------------------
def choose(one: VolumeTab, field: str, paths: Any, target: str = "right lung") -> None:
    one.at("#vol-own-open").click()
    one.at(field).set_input_files(paths)
    one.at("#vol-own-target").fill(target)
    one.at("#vol-own-begin").click()


def test_a_nifti_from_disk_and_its_mask(tab, tmp_path) -> None:
    path = save(tmp_path / "Mueller_Hans.nii.gz", piece(slice(10, 22), 1)[0], codes="RAS")
    one = tab()
    one.at("#vol-own-modality").evaluate("e => { e.value = 'CT' }")
    one.at("#vol-own-window").evaluate("e => { e.value = 'lung' }")
    choose(one, "#vol-own-file", path, EVIL)
    one.wait(lambda: "your own scans" in one.text("#vol-facts"))
    one.shown()
    assert EVIL in one.text("#vol-task") and "no truth" in one.text("#vol-dice-label")
    assert "12 slices of 128" in one.text("#vol-facts") and "Mueller" not in one.page.content()
    one.keep("volume-own-light-1280")
    one.go(6)
    one.drag(0.12, 0.25, 0.48, 0.75)
    one.taken(1)
    one.at("#vol-propagate").click()
    one.taken(2)
    assert one.at("#vol-save-seg").is_hidden()
    with one.page.expect_download() as caught:
        one.at("#vol-save-nifti").click()
    caught.value.save_as(tmp_path / "mask.nii.gz")
    mask, scan = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(path)
    assert mask.shape == scan.shape and np.abs(mask.affine - scan.affine).max() < 1e-4
    voxels = np.asarray(mask.dataobj) > 0
    assert voxels[:, :, 6].sum() > 200  # stored upwards, as it is shown
    # Right on the screen is left in the body: the box was on the image's left half.
    assert (
        np.nonzero(voxels.any(axis=(1, 2)))[0].mean() > 64
    )  # RAS: the first axis runs to the right
    one.at("#vol-case-list .own .quiet").click()
    one.wait(lambda: "your own scans" not in one.text("#vol-facts"))
    assert one.page.evaluate("() => window.hit") is None


def test_a_dicom_folder_from_disk_and_its_seg(tab, tmp_path) -> None:
    folder = tmp_path / "series"
    write_series(folder, piece(slice(10, 22), 1)[0], PatientName="Mueller^Hans")
    one = tab()
    choose(one, "#vol-own-folder", folder)
    one.wait(lambda: "your own scans" in one.text("#vol-facts"))
    one.shown()
    assert "12 slices" in one.text("#vol-facts") and "Mueller" not in one.page.content()
    one.go(6)
    one.drag(0.12, 0.25, 0.48, 0.75)
    one.taken(1)
    with one.page.expect_download() as caught:
        one.at("#vol-save-seg").click()
    assert caught.value.suggested_filename == "mask.dcm"
    caught.value.save_as(tmp_path / "mask.dcm")
    data = dcmread(tmp_path / "mask.dcm")
    assert data.Modality == "SEG" and str(data.PatientName) == ""
    case, _ = read_series(folder, "right lung", tmp_path / "mask.dcm")
    assert case.mask[6].sum() > 200 and case.mask.any(axis=(1, 2)).sum() == 1
    assert np.nonzero(case.mask[6].any(axis=0))[0].mean() < 64
    one.at("#vol-case-list .own .quiet").click()
    one.wait(lambda: "your own scans" not in one.text("#vol-facts"))


_DROP = """([name, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name));
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  const event = (kind) => new DragEvent(kind, options);
  document.body.dispatchEvent(event("dragover"));
  document.body.dispatchEvent(event("drop"));
}"""


def test_a_scan_is_dropped_onto_the_page(tab, tmp_path) -> None:
    path = save(tmp_path / "scan.nii.gz", piece()[0])
    one = tab()
    one.at("[data-view=play]").click()  # it need not be the view of volumes
    one.page.evaluate(_DROP, ["scan.nii.gz", list(path.read_bytes())])
    one.at("#vol-own").wait_for()
    assert one.text("#vol-own-chosen").startswith("scan.nii.gz")
    one.at("#vol-own-target").fill("lung")
    one.keep("volume-dialog-light-1280")
    one.at("#vol-own-begin").click()
    one.wait(lambda: "your own scans" in one.text("#vol-facts"))
    assert one.at("#volumes").is_visible()
    one.at("#vol-case-list .own .quiet").click()
    one.wait(lambda: "your own scans" not in one.text("#vol-facts"))


def test_files_that_cannot_be_used_are_refused_clearly(tab, tmp_path) -> None:
    one = tab()
    whole = save(tmp_path / "scan.nii.gz", piece()[0]).read_bytes()
    (tmp_path / "half.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photo.png").write_bytes(b"x")
    (tmp_path / "scan.mhd").write_bytes(b"x")
    (tmp_path / "thing.bin").write_bytes(b"%PDF" * 100)
    gap = tmp_path / "gap"
    write_series(gap, piece()[0])
    sorted(gap.iterdir())[2].unlink()
    for paths, field, words in (
        (
            tmp_path / "half.nii.gz",
            "#vol-own-file",
            "half.nii.gz: the compressed file ends too early",
        ),
        (tmp_path / "photo.png", "#vol-own-file", "photo.png is no scan"),
        (tmp_path / "scan.mhd", "#vol-own-file", "in another file"),
        (tmp_path / "thing.bin", "#vol-own-file", "nothing in it is a scan"),
        ([tmp_path / "scan.nii.gz", tmp_path / "half.nii.gz"], "#vol-own-file", "one volume file"),
        (gap, "#vol-own-folder", "missing"),
    ):
        choose(one, field, paths)
        one.wait(lambda words=words: words in one.text("#vol-own-error"))
        one.at("#vol-own-cancel").click()
    assert "chest" in one.text("#vol-facts")  # what was open still is
