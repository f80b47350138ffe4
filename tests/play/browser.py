"""A real browser for the tests: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = os.environ.get("MEDSEG_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = Path(os.environ.get("MEDSEG_SCREENSHOTS", "out/screenshots"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def require_browser() -> Any:
    """Playwright's synchronous interface; skips the test where there is no browser."""
    interface = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium, or set MEDSEG_CHROMIUM")
    return interface


class Tab:
    """The page in a tab, used as a person uses it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.asked: list[str] = []
        self.faults: list[str] = []
        page.set_default_timeout(30_000)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "console",
            lambda message: self.faults.append(message.text) if message.type == "error" else None,
        )

    def open(self, wait: bool = True) -> Tab:
        self.page.goto(self.url)
        if wait:
            self.page.locator("#task b").wait_for()
        return self

    def at(self, selector: str) -> Any:
        return self.page.locator(selector)

    def text(self, selector: str) -> str:
        return self.at(selector).inner_text()

    def choose(self, place: str, index: int = 0) -> None:
        """Pick a case by the title of its source and its number on the first page."""
        self.page.select_option("#place", label=place)
        self.wait(lambda: place in self.text("#facts"))  # its first case
        self.settled()
        entry = self.at("#case-list button").nth(index)
        key = entry.locator(".muted").inner_text()
        entry.click()
        self.settled()  # its first case may be this one: a new game replaces its game
        assert key in self.text("#facts")
        self.steps(0)

    def settled(self) -> None:
        """Wait until no other case is on its way."""
        self.at("#you-pane[aria-busy=false]").wait_for()

    def steps(self, count: int) -> None:
        """Wait until so many steps are listed."""
        if count:
            self.at("#steps li").nth(count - 1).wait_for()
        self.wait(lambda: self.at("#steps li").count() == count)

    def wait(self, true: Callable[[], bool], seconds: float = 30) -> None:
        for _ in range(int(seconds / 0.05)):
            if true():
                return
            self.page.wait_for_timeout(50)
        assert true()

    def spot(self, x: float, y: float, canvas: str = "#you-canvas") -> tuple[float, float]:
        """Place on the screen of a fraction of the image, unless it is zoomed."""
        frame = self.at(canvas).bounding_box()
        size = re.search("([0-9]+) \N{MULTIPLICATION SIGN} ([0-9]+)", self.text("#facts"))
        assert size is not None
        width, height = int(size[1]), int(size[2])
        scale = min(frame["width"] / width, frame["height"] / height)
        left = frame["x"] + (frame["width"] - width * scale) / 2
        top = frame["y"] + (frame["height"] - height * scale) / 2
        return left + x * width * scale, top + y * height * scale

    def drag(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.page.mouse.move(*self.spot(x1, y1))
        self.page.mouse.down()
        self.page.mouse.move(*self.spot(x2, y2), steps=4)
        self.page.mouse.up()

    def click(self, x: float, y: float, **extra: Any) -> None:
        self.page.mouse.click(*self.spot(x, y), **extra)

    def pixels(self, canvas: str = "#you-canvas") -> np.ndarray:
        """(H, W, 3) int as the canvas is shown, without its edge, where the focus ring is."""
        self.page.wait_for_timeout(80)  # two frames: drawing waits for the next one
        content = self.at(canvas).screenshot()
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)[8:-8, 8:-8]

    def green(self, canvas: str = "#you-canvas") -> int:
        """Pixels in the mask's colour."""
        red, green, blue = np.moveaxis(self.pixels(canvas), 2, 0)
        return int(((green > red + 40) & (green > blue + 20)).sum())

    def orange(self) -> int:
        """Pixels in the colour of the truth's outline."""
        red, green, blue = np.moveaxis(self.pixels(), 2, 0)
        return int(((red > 200) & (green > 140) & (blue < 90)).sum())

    def keep(self, name: str) -> None:
        """Keep a picture of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


class Server:
    """`medseg serve` as a process that can be killed and started again at the same address."""

    def __init__(self, record: Path, port: int) -> None:
        self.command = [
            sys.executable,
            "-m",
            "medseg_gym.cli.main",
            "serve",
            "--backbone",
            "ellipse",
        ]
        self.command += ["--port", str(port), "--record", str(record), "--log-level", "warning"]
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
