"""Latency of the page: from the release of the mouse to the mask on the screen.

Needs playwright and Debian's chromium. Everything runs on this machine: the service, the browser,
and the real bundled cases.

    python -m benchmarks.service.page_latency --backbone pocket --cases 20
    python -m benchmarks.service.page_latency --cases 20 --volumes phantoms-volume
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from medseg_agents.runs.machine import describe_machine

from medseg_gym import backbones
from medseg_gym.cli.main import run
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import MedSegError
from medseg_gym.play import PageExtension, PageOptions
from medseg_gym.serving.server import make_service, running
from medseg_gym.storage.atomic_write import atomic_write

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

# From the event to the second frame after the step is listed: by then the mask has been painted.
_WATCH = """() => {
  window.waits = [];
  let from = 0;
  document.addEventListener("pointerup", () => { from = performance.now(); }, true);
  new MutationObserver(() => {
    if (!from || !document.querySelector("#steps li")) return;
    const began = from;
    from = 0;
    requestAnimationFrame(() => requestAnimationFrame(() =>
      window.waits.push(performance.now() - began)));
  }).observe(document.getElementById("steps"), { childList: true });
}"""

_WATCH_VOLUME = """() => {
  window.waits = [];
  let from = 0;
  document.addEventListener("pointerup", () => { from = performance.now(); }, true);
  new MutationObserver(() => {
    if (!from) return;
    const began = from;
    from = 0;
    requestAnimationFrame(() => requestAnimationFrame(() =>
      window.waits.push(performance.now() - began)));
  }).observe(document.getElementById("vol-you-pane"), { attributeFilter: ["data-taken"] });
}"""


def measure(
    backbone: Annotated[str, typer.Option(help="Who segments.")] = "pocket",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "cpu",
    cases: Annotated[int, typer.Option(help="Cases, each clicked three times.")] = 20,
    volumes: Annotated[
        str, typer.Option(help="A spec of volumes: click on slices of the first one instead.")
    ] = "",
    chromium: Annotated[str | None, typer.Option(help="The browser's program.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file.")] = None,
) -> None:
    """Click in a real browser and take the time."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MedSegError("this needs a browser: pip install playwright") from None
    program = chromium or shutil.which("chromium")
    if program is None:
        raise MedSegError("there is no chromium: apt-get install chromium, or give --chromium")
    loaded = backbones.load(backbone, device=device)
    with tempfile.TemporaryDirectory() as folder:
        page = PageOptions(
            cases=("samples",), volumes=[volumes] if volumes else None, record=Path(folder) / "play"
        )
        with (
            running(make_service(loaded, extensions=[PageExtension(page)])) as url,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            latencies = (_click_slices if volumes else _click)(tab, url, cases)
            browser.close()
    latencies["machine"] = describe_machine(device)
    latencies["backbone"] = backbone
    table = Table(title=f"{backbone}: seconds until it is on the screen")
    for header in ("", "n", "median", "longest"):
        table.add_column(header, justify="left" if not header else "right")
    for name, values in latencies.items():
        if not isinstance(values, list):
            continue
        middle, longest = statistics.median(values), max(values)
        table.add_row(name, str(len(values)), f"{middle:.3f}", f"{longest:.3f}")
    console = make_console()
    console.print(table)
    console.print(f"Measured on: {latencies['machine']}", soft_wrap=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, json.dumps(latencies, indent=1) + "\n")


def _click(tab: Any, url: str, cases: int) -> dict[str, Any]:
    opened = []
    for _ in range(3):
        tab.goto("about:blank")
        tab.goto(url)
        tab.locator("#task b").wait_for()
        opened.append(tab.evaluate("() => performance.now()") / 1000)
    tab.evaluate(_WATCH)
    tab.keyboard.press("p")
    frame = tab.locator("#you-canvas").bounding_box()
    first: list[float] = []
    later: list[float] = []
    for _ in range(cases):
        facts = tab.locator("#facts").inner_text()
        tab.keyboard.press(".")
        while tab.locator("#facts").inner_text() == facts:
            tab.wait_for_timeout(20)
        for number in range(3):
            spot = 0.45 + 0.05 * number
            before = tab.evaluate("() => window.waits.length")
            tab.mouse.click(frame["x"] + spot * frame["width"], frame["y"] + spot * frame["height"])
            while tab.evaluate("() => window.waits.length") == before:
                tab.wait_for_timeout(20)
            seconds = tab.evaluate("() => window.waits.at(-1)") / 1000
            (later if number else first).append(seconds)
    return {
        "page opened to case shown": opened,
        "first click of a case": first,
        "later clicks": later,
    }


def _click_slices(tab: Any, url: str, clicks: int) -> dict[str, Any]:
    """Click once on each of some slices, once they are encoded."""
    tab.goto(url)
    tab.locator("[data-view=volumes]").click()
    tab.locator("#vol-you-pane[data-ready=true]").wait_for()
    tab.evaluate(_WATCH_VOLUME)
    tab.keyboard.press("p")
    frame = tab.locator("#vol-you-canvas").bounding_box()
    depth = int(tab.locator("#vol-slice").get_attribute("max")) + 1
    ready: list[float] = []
    first: list[float] = []
    for number in range(min(clicks, depth)):
        index = (depth // 2 + number) % depth
        tab.locator("#vol-slice").fill(str(index))
        began = tab.evaluate("() => performance.now()")
        tab.locator(f"#vol-you-pane[data-shown='{index}'][data-ready=true]").wait_for()
        ready.append((tab.evaluate("() => performance.now()") - began) / 1000)
        before = tab.evaluate("() => window.waits.length")
        tab.mouse.click(frame["x"] + 0.6 * frame["width"], frame["y"] + 0.5 * frame["height"])
        while tab.evaluate("() => window.waits.length") == before:
            tab.wait_for_timeout(20)
        first.append(tab.evaluate("() => window.waits.at(-1)") / 1000)
    return {"slice chosen to encoded": ready, "first click of an encoded slice": first}


if __name__ == "__main__":
    run(measure)
