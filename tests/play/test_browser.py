"""The page in a real browser: what people see and do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from medseg_gym import annotators, backbones
from medseg_gym.cases import Case, load_cases
from medseg_gym.play import PageExtension, PageOptions
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.server import make_service, running
from medseg_gym.trajectories import TrajectoryStore, export_store, replay_store
from tests.cases.files.dicom_writing import write_series
from tests.cases.files.volume_writing import piece, save
from tests.play.browser import CHROMIUM, FLAGS, Server, Tab, require_browser
from tests.serving.conftest import noise, png

pytestmark = pytest.mark.slow

NO_SCORE = "\N{EN DASH}"
EVIL = "<img src=x onerror=window.hit=1><script>window.hit=1</script>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with require_browser().sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def evil_case() -> Case:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 15:45] = True
    image = np.where(mask[..., None], 200, 60).astype(np.uint8).repeat(3, axis=2)
    return Case(f"key {EVIL}", image, mask, f"target {EVIL}", f"CT {EVIL}", synthetic=True)


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("page") / "play"


@pytest.fixture(scope="module")
def url(record) -> Iterator[str]:
    page = PageOptions(
        cases=("samples", [evil_case()]),
        record=record,
        max_steps=8,
        provenance={"backbone": "pocket", "device": "cpu"},
    )
    with running(
        make_service(backbones.load("pocket", device="cpu"), extensions=[PageExtension(page)])
    ) as address:
        yield address


@pytest.fixture
def tab(chromium, url) -> Iterator[Callable[..., Tab]]:
    """Open tabs; afterwards nothing was asked of another machine, and no script failed."""
    contexts, tabs = [], []

    def open(context: Any = None, at: str = url, wait: bool = True, **extra: Any) -> Tab:
        if context is None:
            extra.setdefault("viewport", {"width": 1280, "height": 800})
            context = chromium.new_context(accept_downloads=True, **extra)
            contexts.append(context)
        tabs.append(Tab(context.new_page(), at))
        return tabs[-1].open(wait)

    yield open
    for one in tabs:
        strange = [u for u in one.asked if not u.startswith((one.url, f"blob:{one.url}"))]
        assert strange == []
        # Chromium reports refusals (404, 422) and lost connections here too.
        assert [fault for fault in one.faults if "Failed to load resource" not in fault] == []
    for context in contexts:
        context.close()


def truth_box(key: str, split: str = "test", margin: float = 0.01) -> tuple[float, ...]:
    source = load_cases("samples", split)
    case = source[source.index_of(key)]
    rows, columns = np.nonzero(case.mask)
    return (
        columns.min() / case.width - margin,
        rows.min() / case.height - margin,
        (columns.max() + 1) / case.width + margin,
        (rows.max() + 1) / case.height + margin,
    )


# playing ------------------------------------------------------------------------------------------
def test_a_game_with_the_mouse(tab, record, tmp_path) -> None:
    one = tab()
    one.choose("samples · test", 7)
    key = one.text("#facts").split(" · ")[3]
    assert "lung mass" in one.text("#task") and one.green() == 0
    left, top, right, bottom = truth_box(key)
    one.drag(left, top, right, bottom)
    one.steps(1)
    after_box, dice = one.green(), float(one.text("#dice"))
    assert after_box > 300 and dice > 0.5
    one.page.keyboard.press("p")
    one.click((left + right) / 2, (top + bottom) / 2)
    one.steps(2)
    one.click(0.1, 0.1, button="right")
    one.steps(3)
    assert one.at("#steps .tool-name").all_inner_texts() == ["box", "add", "remove"]
    one.at("#undo").click()
    one.steps(4)
    one.at("#clear").click()
    one.steps(5)
    assert one.green() == 0 and one.at("#clear").is_disabled()
    one.at("#undo").click()
    one.steps(6)
    assert one.green() > 300 and one.orange() < 40
    assert not one.at("#accepted").is_checked()
    one.at("#accepted").check()
    one.at("#stop").click()
    one.steps(7)
    assert one.orange() > 60  # the truth
    one.at("#next").wait_for()
    assert "return" in one.text("#score-details") and one.at("#undo").is_disabled()
    one.keep("played-light-1280")

    store = TrajectoryStore(record / "people")
    (mine,) = (episode for episode in store if episode.key.case == key)
    tools = [step.tool for step in mine.steps]
    assert tools == ["box", "positive_point", "negative_point", "undo", "clear", "undo", "stop"]
    assert replay_store(store, device="cpu").mismatches == []
    assert export_store(store, tmp_path / "chat.parquet").rows == len(store)


def test_the_first_mask_is_there_within_a_second(tab) -> None:
    one = tab()
    seconds = []
    for index in (2, 4, 9):
        one.choose("samples · test", index)
        one.page.keyboard.press("p")
        began = time.perf_counter()
        one.click(0.6, 0.55)
        one.at("#steps li").wait_for()
        seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[1] < 1, seconds


def test_zoom_pan_window_opacity_and_a_click_that_still_hits(tab) -> None:
    one = tab()
    one.choose("samples · test", 3)
    whole = one.pixels()
    one.at("#zoom-in").click(click_count=2)
    zoomed = one.pixels()
    assert np.abs(zoomed - whole).mean() > 3
    one.page.mouse.move(*one.spot(0.5, 0.5))
    one.page.mouse.down(button="middle")
    one.page.mouse.move(*one.spot(0.6, 0.5), steps=3)
    one.page.mouse.up(button="middle")
    assert np.abs(one.pixels() - zoomed).mean() > 3
    one.page.keyboard.press("f")
    assert np.abs(one.pixels() - whole).mean() < 1
    one.at("#window").fill("60")
    assert np.abs(one.pixels() - whole).mean() > 10
    one.at("#view-reset").click()
    one.page.mouse.move(*one.spot(0.5, 0.5))
    one.page.mouse.wheel(0, -300)  # without the focus the wheel scrolls the page
    one.at("#you-canvas").focus()
    assert np.abs(one.pixels() - whole).mean() < 1
    one.page.mouse.move(*one.spot(0.5, 0.5))
    one.page.mouse.wheel(0, -300)
    assert np.abs(one.pixels() - whole).mean() > 3
    one.page.keyboard.press("p")
    one.click(0.5, 0.5)  # the wheel zooms at the pointer: this is still the centre
    one.steps(1)
    one.page.keyboard.press("f")
    masked = one.green()
    one.page.keyboard.press("m")
    hidden = one.green()
    assert hidden < masked
    with one.page.expect_response(lambda r: r.url.endswith("/steps")) as caught:
        one.at("#stop").click()
    state = caught.value.json()["state"]
    assert state["points"][0][:2] == pytest.approx([0.5, 0.5], abs=0.003)


def test_the_keyboard_alone(tab) -> None:
    one = tab()
    keys = one.page.keyboard
    one.choose("samples · test", 5)

    def focus(id: str) -> None:
        for _ in range(80):
            keys.press("Tab")
            if one.page.evaluate("() => document.activeElement.id") == id:
                return
        raise AssertionError(f"#{id} cannot be reached with Tab")

    focus("you-canvas")
    for key in ["Enter", *["ArrowLeft"] * 6, *["ArrowUp"] * 6, "Enter"]:
        keys.press(key)
    for key in [*["ArrowRight"] * 12, *["ArrowDown"] * 12, "Enter"]:
        keys.press(key)
    one.steps(1)
    assert "Step 1: box" in one.at("#announcement").inner_text()
    keys.press("n")
    keys.press("Shift+ArrowRight")
    keys.press("Enter")
    one.steps(2)
    keys.press("u")
    one.steps(3)
    keys.press("c")
    one.steps(4)
    assert one.at("#steps li").all_inner_texts()[3].startswith("clear")
    keys.press("s")
    one.steps(5)
    keys.press("w")
    one.at("#other-pane").wait_for()
    one.wait(lambda: one.at("#beside-note").inner_text() == "")
    keys.press("k")
    keys.press("j")
    keys.press("j")
    keys.press("j")
    assert one.text("#beside-player .where") == "start"
    keys.press("l")
    assert one.text("#beside-player .where").startswith("1. box")
    task = one.text("#facts")
    keys.press(".")
    one.wait(lambda: one.text("#facts") != task)
    keys.press("?")
    assert one.at("#help").is_visible()
    keys.press("Escape")
    for _ in range(80):
        keys.press("Shift+Tab")
        if one.page.evaluate("() => document.activeElement.dataset.view") == "recordings":
            break
    keys.press("Enter")
    one.at("#rec-list button").first.wait_for()
    focus("rec-find")
    keys.press("Tab")
    keys.press("Enter")
    one.at("#rec-steps li").first.wait_for()


def test_a_click_while_another_case_is_on_its_way_is_no_step(tab) -> None:
    one = tab()
    one.choose("samples · test", 2)
    held: list[Any] = []
    one.page.route("**/api/games", lambda route: held.append(route))
    one.at("#case-list button").nth(4).click()
    one.wait(lambda: len(held) == 1)
    one.page.keyboard.press("p")
    one.click(0.5, 0.5)
    one.at("#stop").click()
    assert one.at("#you-pane").get_attribute("aria-busy") == "true"
    held[0].continue_()
    one.settled()
    one.steps(0)
    assert not [url for url in one.asked if url.endswith("/steps")]
    one.click(0.5, 0.5)
    one.steps(1)


def test_keys_can_be_turned_off_and_do_nothing_where_people_type(tab) -> None:
    one = tab()
    one.at("#player").fill("sub")
    assert one.at("#steps li").count() == 0 and one.at("#player").input_value() == "sub"
    one.at("#help-open").click()
    one.at("#keys-on").uncheck()
    one.at("#help-close").click()
    one.page.keyboard.press("s")
    one.page.wait_for_timeout(200)
    assert one.at("#steps li").count() == 0


def test_an_exam_shows_scores_at_the_end(tab) -> None:
    one = tab()
    one.at("#exam").check()
    one.choose("samples · test", 8)
    one.drag(0.3, 0.3, 0.6, 0.6)
    one.steps(1)
    assert one.text("#dice") == NO_SCORE and "hidden" in one.text("#dice-label")
    assert one.at("#steps .number").count() == 0 and one.at("#watch").is_disabled()
    one.at("#stop").click()
    one.steps(2)
    one.wait(lambda: one.at("#steps .number").count() == 2)
    assert float(one.text("#dice")) >= 0 and one.at("#watch").is_enabled()


# others -------------------------------------------------------------------------------------------
def test_a_policy_beside_you_recordings_and_the_board(tab) -> None:
    one = tab(color_scheme="dark")
    one.at("#player").fill("Rita")
    one.at("#player").press("Enter")
    one.choose("samples · test", 10)
    key = one.text("#facts").split(" · ")[3]
    one.drag(*truth_box(key))
    one.steps(1)
    one.page.select_option("#policy", label="oracle-box-click")
    one.at("#watch").click()
    one.at("#other-pane").wait_for()
    one.wait(lambda: one.text("#beside-player .where").startswith("3."))
    assert "oracle" in one.text("#beside-note") and one.green("#other-canvas") > 100
    assert one.at("#curve .line.other").count() == 1
    one.keep("beside-dark-1280")
    one.at("#stop").click()
    one.steps(2)

    one.at("[data-view=recordings]").click()
    one.at("#rec-find").fill("rita")
    entry = one.at("#rec-list button")
    one.wait(lambda: entry.count() == 1)
    entry.click()
    one.at("#rec-steps li").nth(1).wait_for()
    one.wait(lambda: one.text("#rec-player .where").startswith("1. box"))
    assert one.green("#rec-canvas") > 300
    one.keep("recordings-dark-1280")

    one.at("[data-view=board]").click()
    one.page.select_option("#board-policy", label="centre-box")
    one.at("#catch-up").click()
    one.wait(lambda: "played" in one.text("#catch-up-note"))
    rows = one.at("#board-table tbody tr").all_inner_texts()
    assert any(row.startswith("Rita sees Dice") for row in rows)
    assert any(row.startswith("oracle-box-click oracle") for row in rows)
    assert any(row.startswith("centre-box") for row in rows)
    one.keep("board-dark-1280")


def test_own_images_and_bad_files(tab, tmp_path, record) -> None:
    one = tab()
    bad, good = tmp_path / "bad.png", tmp_path / f"{EVIL[:10].replace('/', '')}.png"
    bad.write_bytes(b"this is no picture")
    good.write_bytes(png(noise(5, 60, 80)))
    one.at("#own-open").click()
    one.at("#own-file").set_input_files(bad)
    one.at("#own-target").fill(f"kidney {EVIL}")
    one.at("#own-form button[type=submit]").click()
    one.wait(lambda: "not an image" in one.text("#own-error"))
    one.keep("bad-file")
    one.at("#own-file").set_input_files(good)
    one.at("#own-form button[type=submit]").click()
    one.at("#task b:has-text('kidney')").wait_for()
    assert not one.at("#own").is_visible() and "no truth" in one.text("#facts")
    frame = one.at("#you-canvas").bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    one.page.mouse.move(x - 60, y - 60)
    one.page.mouse.down()
    one.page.mouse.move(x + 60, y + 60, steps=3)
    one.page.mouse.up()
    one.steps(1)
    assert one.text("#dice") == NO_SCORE and one.at("#watch").is_disabled()
    one.at("#stop").click()
    one.steps(2)
    result = [e for e in TrajectoryStore(record / "people") if not e.facts.truth_known]
    assert len(result) == 1 and result[0].facts.target.startswith("kidney <img")
    assert one.page.evaluate("() => window.hit") is None


def test_a_dicom_image_and_a_slice_of_a_nifti_and_their_masks(tab, tmp_path) -> None:
    volume, _ = piece(slice(10, 22), 1)
    scan = save(tmp_path / "Mueller_Hans.nii.gz", volume)
    write_series(tmp_path / "series", volume, PatientName="Mueller^Hans")
    frame = sorted((tmp_path / "series").iterdir())[5]
    one = tab()
    shown = []
    for path, number, target in ((scan, "6", "lung in NIfTI"), (frame, "", "lung in DICOM")):
        one.at("#own-open").click()
        one.at("#own-file").set_input_files(path)
        one.at("#own-target").fill(target)
        one.at("#own-window").fill("-1350,150")
        one.at("#own-slice").fill("99" if number else "")
        if number:
            one.at("#own-form button[type=submit]").click()
            one.wait(lambda: "it has slices 1 to 12" in one.text("#own-error"))
            one.at("#own-slice").fill(number)
        one.at("#own-form button[type=submit]").click()
        one.at(f"#task b:has-text('{target}')").wait_for()
        one.settled()
        assert "128 \N{MULTIPLICATION SIGN} 128" in one.text("#facts")
        shown.append(one.pixels())
        assert one.at("#save-png").is_disabled() and one.at("#save-seg").is_hidden()
        one.drag(0.12, 0.25, 0.48, 0.75)
        one.steps(1)
        with one.page.expect_download() as caught:
            one.at("#save-png").click()
        assert caught.value.suggested_filename == "mask.png"
        caught.value.save_as(tmp_path / "mask.png")
        mask = np.asarray(Image.open(tmp_path / "mask.png"))
        assert mask.shape == (128, 128) and set(np.unique(mask)) == {0, 255}
        assert np.nonzero(mask.any(axis=0))[0].mean() < 64  # the box was on the left half
    assert np.abs(shown[0] - shown[1]).mean() < 8  # the same slice, from two files
    assert "Mueller" not in one.page.content()


def test_a_file_dropped_onto_the_page(tab) -> None:
    one = tab()
    content = list(png(noise(6)))
    one.page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "scan.png", { type: "image/png" }));
            const dropped = { dataTransfer: data, bubbles: true };
            document.body.dispatchEvent(new DragEvent("drop", dropped));
        }""",
        content,
    )
    one.at("#own-target").fill("spleen")
    one.at("#own-target").press("Enter")
    one.at("#task b:has-text('spleen')").wait_for()


def test_where_there_are_keys_the_page_asks_for_one(tab, tmp_path) -> None:
    key = "anna-key-0123456789"
    page = PageOptions(cases=([evil_case()],), record=tmp_path / "play")
    api_keys = ApiKeys({"anna": key})
    service = make_service(
        backbones.load("ellipse", device="cpu"), api_keys=api_keys, extensions=[PageExtension(page)]
    )
    with running(service) as address:
        one = tab(at=address, wait=False)
        for given in ("wrong-key-0123456789", key):
            one.at("#key").wait_for()
            one.at("#key-text").fill(given)
            one.at("#key-text").press("Enter")
        one.at("#task b").wait_for()
        one.page.reload()
        one.at("#task b").wait_for()
        assert not one.at("#key").is_visible()
        one.page.context.close()


def test_names_and_texts_are_never_markup(tab) -> None:
    one = tab()
    one.at("#player").fill(EVIL[:40])
    one.at("#player").press("Enter")
    one.choose("list", 0)
    assert EVIL in one.text("#task") and EVIL in one.text("#facts")
    one.page.keyboard.press("p")
    frame = one.at("#you-canvas").bounding_box()
    one.page.mouse.click(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    one.steps(1)
    one.at("#stop").click()
    one.steps(2)
    one.page.keyboard.press("w")
    one.at("#other-pane").wait_for()
    one.at("[data-view=recordings]").click()
    one.at("#rec-list button").first.wait_for()
    one.at("[data-view=board]").click()
    one.wait(lambda: EVIL[:40].strip() in one.text("#board-table"))
    assert one.page.evaluate("() => window.hit") is None
    assert one.at("main img[src='x'], main script").count() == 0


class EvilPolicy:
    """A policy whose name is markup."""

    name = f"policy {EVIL}"
    env_id = "MedSeg-v0"
    view: Mapping[str, Any] = MappingProxyType({})

    def build(self, envs: Any) -> Any:
        policy = annotators.make("centre-box", envs.codec)
        policy.name = self.name
        return policy


def test_markup_in_any_text_is_shown_as_text(tab, tmp_path) -> None:
    tag = "<img src=x onerror=window.hit=1>"  # may be the name of a file
    archive = tmp_path / f"store {tag}"
    record = tmp_path / f"play {tag}"
    page = PageOptions(
        cases=([evil_case()],),
        record=record,
        archives=(archive,),
        policies=(EvilPolicy(),),
        provenance={"backbone": "ellipse", "device": "cpu"},
    )
    with running(
        make_service(backbones.load("ellipse", device="cpu"), extensions=[PageExtension(page)])
    ) as address:
        one = tab(at=address)
        one.at("#player").fill(tag)
        one.at("#player").press("Enter")
        assert EVIL in one.text("#task") and EVIL in one.text("#facts")
        assert EVIL in one.at("#case-list").inner_text()
        assert EvilPolicy.name in one.at("#policy").inner_text()
        one.drag(0.2, 0.2, 0.8, 0.8)
        one.steps(1)
        one.at("#watch").click()
        one.at("#other-pane").wait_for()
        one.wait(lambda: EvilPolicy.name in one.text("#other-label"))
        one.wait(lambda: one.text("#beside-note") == "")  # it has ended: now it is recorded
        one.at("#stop").click()
        one.steps(2)
        assert tag in one.text("#kept") and tag in one.text("#foot")
        one.at("[data-view=recordings]").click()
        one.wait(lambda: one.at("#rec-list button").count() == 2)
        texts = one.at("#rec-list").inner_text()
        assert tag in texts and EvilPolicy.name in texts and f"target {EVIL}" in texts
        one.at("#rec-list button").first.click()
        one.wait(lambda: EVIL in one.text("#rec-task"))
        archive.mkdir()
        (archive / "part-0.parquet").write_bytes(b"this is none")  # damaged, and named
        (archive / "store.json").write_text("{}")
        one.at("[data-view=board]").click()
        one.wait(lambda: tag in one.text("#board-table"))
        assert EvilPolicy.name in one.at("#board-policy").inner_text()
        one.wait(lambda: "Damaged and left out" in refound(one) and tag in refound(one))

        one.at("[data-view=play]").click()
        one.at("#own-open").click()
        file = {"name": f"{tag}.png", "mimeType": "image/png", "buffer": b"none"}
        one.at("#own-file").set_input_files(file)
        one.at("#own-target").fill(f"kidney {tag}")
        one.at("#own-form button[type=submit]").click()
        one.wait(lambda: "cannot be used" in one.text("#own-error"))
        one.at("#own-file").set_input_files({**file, "buffer": png(noise(7))})
        one.at("#own-form button[type=submit]").click()
        one.wait(lambda: f"kidney {tag}" in one.text("#task"))
        assert one.page.evaluate("() => window.hit") is None
        assert one.at("img[src='x'], body script").count() == 0
        one.page.context.close()


def refound(one: Tab) -> str:
    """The list of recordings, asked for again."""
    before = int(one.at("#rec-list").get_attribute("data-listed") or 0)
    one.at("[data-view=recordings]").click()
    one.at(f"#rec-list[data-listed='{before + 1}']").wait_for(state="attached")
    return one.text("#rec-count")


def test_scripts_that_got_in_would_not_run(tab) -> None:
    one = tab()
    one.page.evaluate(
        """(evil) => {
            try { document.body.innerHTML += evil; } catch (error) { window.refused = 1; }
            const script = document.createElement("script");
            try { script.textContent = "window.hit=1"; } catch (error) { window.refused = 2; }
            document.body.append(script);
        }""",
        EVIL,
    )
    one.page.wait_for_timeout(300)
    assert one.page.evaluate("() => window.hit") is None
    assert one.page.evaluate("() => window.refused") == 2
    one.faults.clear()  # the refusals


# the first movement -------------------------------------------------------------------------------
def test_the_first_drag_after_a_name_counts(tab, record) -> None:
    one = tab()
    one.choose("samples \N{MIDDLE DOT} test", 6)
    one.at("#player").click()
    one.page.keyboard.type("Zoe")  # no Enter: the drag itself leaves the field
    one.drag(0.3, 0.3, 0.7, 0.7)
    one.steps(1)
    assert one.at("#steps .tool-name").all_inner_texts() == ["box"]
    one.page.keyboard.press("s")
    one.steps(2)
    (result,) = [e for e in TrajectoryStore(record / "people") if e.facts.policy == "person:Zoe"]
    assert [step.tool for step in result.steps] == ["box", "stop"]


@pytest.mark.parametrize("button", ["left", "right"])
def test_the_first_click_after_a_name_and_an_exam_counts(tab, record, button) -> None:
    one = tab()
    one.choose("samples \N{MIDDLE DOT} test", 4)
    one.page.keyboard.press("p")
    one.at("#exam").click()
    one.at("#player").click()
    one.page.keyboard.type(f"Yan {button}")
    one.click(0.5, 0.5, button=button)
    one.steps(1)
    assert one.text("#dice") == NO_SCORE and "hidden" in one.text("#dice-label")
    one.at("#stop").click()
    one.steps(2)
    name = f"person:Yan {button}"
    (result,) = [e for e in TrajectoryStore(record / "people") if e.facts.policy == name]
    assert result.facts.options["exam"] is True and len(result.steps) == 2


def test_a_good_example_is_one_that_was_ticked_and_met_something(tab, record) -> None:
    one = tab()
    one.at("#player").fill("Xia")
    one.at("#player").press("Enter")
    one.at("#least").fill("0.01")
    for index, box, tick in ((0, True, False), (1, True, True), (6, False, True)):
        one.choose("samples \N{MIDDLE DOT} test", index)
        assert not one.at("#accepted").is_checked()
        if box:
            one.drag(0.02, 0.02, 0.98, 0.98)
            one.steps(1)
        if tick:
            one.at("#accepted").check()
        one.at("#stop").click()
        one.steps(2 if box else 1)
    assert "Dice 0.000 is no good example" in one.text("#hint")
    one.page.reload()
    one.at("#task b").wait_for()
    assert one.at("#least").input_value() == "0.01" and not one.at("#accepted").is_checked()
    mine = [e for e in TrajectoryStore(record / "people") if e.facts.policy == "person:Xia"]
    assert [e.accepted for e in mine] == [False, True, False]


def test_a_list_that_comes_late_does_not_replace_the_case_that_was_picked(tab) -> None:
    one = tab()
    one.choose("samples \N{MIDDLE DOT} test", 0)
    held: list = []
    one.page.route("**/api/cases?*", lambda route: held.append(route))
    one.page.select_option("#place", label="samples \N{MIDDLE DOT} test")
    one.wait(lambda: bool(held))
    entry = one.at("#case-list button").nth(3)
    key = entry.locator(".muted").inner_text()
    entry.click()
    one.wait(lambda: key in one.text("#facts"))
    with one.page.expect_response("**/api/cases?*"):
        held[0].continue_()
    one.at("#case-list button").nth(3).wait_for()
    one.page.wait_for_timeout(300)  # in which the first case would begin
    one.settled()
    assert key in one.text("#facts")


# tabs and restarts --------------------------------------------------------------------------------
def test_two_tabs_at_once(tab, record) -> None:
    one = tab()
    two = tab(one.page.context)
    for each in (one, two):
        each.choose("samples · test", 11)
    one.drag(0.3, 0.3, 0.6, 0.6)
    two.drag(0.2, 0.2, 0.5, 0.5)
    one.steps(1)
    two.steps(1)
    one.click(0.5, 0.5, button="right")
    one.steps(2)
    assert two.at("#steps li").count() == 1  # games of their own

    with one.page.expect_popup() as opened:  # a copy of the tab has the same game
        one.page.evaluate("() => void window.open(location.href)")
    copy = Tab(opened.value, one.url)
    copy.steps(2)
    one.click(0.4, 0.4, button="right")
    one.steps(3)
    copy.page.keyboard.press("u")
    copy.at("#banner:has-text('another tab')").wait_for()
    copy.steps(3)
    copy.page.keyboard.press("u")
    copy.steps(4)
    copy.page.keyboard.press("s")
    copy.steps(5)
    result = [e for e in TrajectoryStore(record / "people") if len(e.steps) == 5]
    tools = [step.tool for step in result[-1].steps]
    assert tools == ["box", "negative_point", "negative_point", "undo", "stop"]


def test_the_service_is_restarted_under_an_open_page(chromium, tab, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(tmp_path / "play", port)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{server.url}/readyz", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        one = tab(at=server.url)
        one.drag(0.3, 0.3, 0.6, 0.6)
        one.steps(1)
        one.click(0.5, 0.5, button="right")
        one.steps(2)
        server.kill()
        one.page.keyboard.press("u")
        one.at("#banner:has-text('does not answer')").wait_for()
        assert "Your 2 steps are recorded" in one.text("#banner")
        assert one.at("#stop").is_disabled()
        one.keep("restart")
        (kept,) = TrajectoryStore(tmp_path / "play" / "people").episodes(unfinished=True)
        assert [step.tool for step in kept.steps] == ["box", "negative_point"]
        server.start()
        again = one.at("#banner button:has-text('Play my steps again')")
        again.wait_for(timeout=60_000)
        assert "2 steps are kept" in one.text("#banner")
        again.click()
        one.wait(lambda: one.at("#stop").is_enabled() and one.at("#steps li").count() == 2)
        one.page.keyboard.press("s")
        one.steps(3)
        (done,) = TrajectoryStore(tmp_path / "play" / "people")
        assert done.prompts[:2] == kept.prompts and done.key.rollout == 1
    finally:
        server.kill()
