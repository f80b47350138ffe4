"""Frames for people: the image, the mask over it, the prompts, the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from medseg_gym.display.captions import draw_line
from medseg_gym.display.palette import (
    BOX_RGB,
    MASK_RGB,
    NEGATIVE_RGB,
    POSITIVE_RGB,
    TRUTH_RGB,
)
from medseg_gym.episodes import Episode
from medseg_gym.prompts import AddBox, AddPoint

BACKGROUND = (24, 24, 24)
FRAME_SIDE = 384
"""Longer edge of the image in frames of `render`, in pixels."""
FRAME_SHAPE = (FRAME_SIDE + 38, FRAME_SIDE, 3)
"""Of every frame of `render`: the largest image, and the caption's two lines under it."""


def fit(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the longer edge `side`, aspect ratio kept."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def draw_case(
    image: np.ndarray,
    mask: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    box: AddBox | None = None,
    points: tuple[AddPoint, ...] = (),
    side: int = 384,
) -> np.ndarray:
    """Draw a mask (half transparent), the truth's outline, a box and clicks over an image.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, or None.
        truth: (H, W) bool, or None.
        box: In fractions, or None.
        points: In fractions.
        side: Longer edge of the result, in pixels.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = fit(image.shape[0], image.shape[1], side)
    size = (width, height)
    frame = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)).copy()
    if mask is not None:
        covered = _enlarge(mask, size)
        frame[covered] = (frame[covered] * 0.5 + np.array(MASK_RGB) * 0.5).astype(np.uint8)
    if truth is not None:
        inside = _enlarge(truth, size)
        shrunk = inside.copy()
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            shrunk &= np.roll(inside, shift, axis)
        frame[inside & ~shrunk] = TRUTH_RGB
    drawing = Image.fromarray(frame)
    draw = ImageDraw.Draw(drawing)
    if box is not None:
        corners = (box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height)
        draw.rectangle(corners, outline=BOX_RGB, width=max(1, side // 190))
    radius = max(4, side // 90)
    for point in points:
        x, y = point.x * width, point.y * height
        colour = POSITIVE_RGB if point.positive else NEGATIVE_RGB
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
        arm = radius - 2  # a plus or a minus, where there is room for one
        if arm > 0:
            draw.line((x - arm, y, x + arm, y), fill="white")
            if point.positive:
                draw.line((x, y - arm, x, y + arm), fill="white")
    return np.asarray(drawing).copy()


def draw_episode(episode: Episode, side: int = 384, step: int | None = None) -> np.ndarray:
    """Draw an episode with a caption under it.

    Args:
        episode: What to draw.
        side: Longer edge of the image, in pixels.
        step: After how many steps; None is now.

    Returns:
        (h, w, 3) uint8, all steps of one episode alike in size.
    """
    taken = len(episode.steps) if step is None else step
    newest = episode.steps[taken - 1] if taken else None
    state, dice = (newest.state, newest.dice) if newest else (episode.start, episode.start_dice)
    frame = draw_case(
        episode.case.image,
        state.mask.cpu().numpy(),
        episode.case.mask,
        state.box,
        state.points,
        side,
    )
    action = "start"
    if newest is not None:
        action = (newest.tool or "unreadable") + ("" if newest.valid else " (invalid)")
    synthetic = " (synthetic)" if episode.case.synthetic else ""
    lines = (
        f"{episode.case.target}{synthetic}",
        (f"{taken}/{episode.max_steps} {action}", f"Dice {dice:.3f}"),
    )
    return add_caption(frame, lines)


def draw_frame(episode: Episode) -> np.ndarray:
    """Draw an episode as it is now, centred on a canvas that is the same for every image.

    Videos need that: the slots of a batch lie side by side in one frame, and the next episode in a
    slot may have an image of another shape.

    Returns:
        `FRAME_SHAPE` uint8; even sides, as video codecs want them.
    """
    return centred(draw_episode(episode, FRAME_SIDE))


def centred(drawing: np.ndarray) -> np.ndarray:
    """Put a drawing, (h, w, 3) uint8 no larger than it, on a canvas of `FRAME_SHAPE`."""
    # The caption keeps its distance to the image, and both stand in the middle.
    canvas = np.full(FRAME_SHAPE, BACKGROUND, np.uint8)
    top, left = (
        (room - side) // 2 for room, side in zip(FRAME_SHAPE, drawing.shape[:2], strict=False)
    )
    canvas[top : top + drawing.shape[0], left : left + drawing.shape[1]] = drawing
    return canvas


def on_square(drawing: np.ndarray, side: int) -> np.ndarray:
    """Put a drawing, (h, w, 3) uint8 no larger than it, in the middle of a dark square."""
    canvas = np.full((side, side, 3), BACKGROUND, np.uint8)
    top, left = ((side - edge) // 2 for edge in drawing.shape[:2])
    canvas[top : top + drawing.shape[0], left : left + drawing.shape[1]] = drawing
    return canvas


def add_caption(frame: np.ndarray, lines: Sequence[str | tuple[str, str]]) -> np.ndarray:
    """Put lines of text under a frame; the height stays even, as video codecs want it.

    Args:
        frame: (h, w, 3) uint8.
        lines: A text that is too long is cut; of a pair the second stands at the right end, whole.
    """
    height = 16 * len(lines) + 6
    height += (frame.shape[0] + height) % 2
    strip = Image.new("RGB", (frame.shape[1], height), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        text, right = (line, "") if isinstance(line, str) else line
        draw_line(draw, (4, 3 + 16 * number), frame.shape[1] - 8, text, right)
    return np.concatenate([frame, np.asarray(strip)])


def _enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


class Window:
    """A matplotlib window; without a display it does nothing.

    Args:
        title: Of the window.
    """

    def __init__(self, title: str) -> None:
        import matplotlib.pyplot as plt
        from matplotlib.backends import BackendFilter, backend_registry

        interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
        self._plt = plt
        self._image: Any = None
        self._figure: Any = None
        try:
            if plt.get_backend().lower() in interactive:
                self._figure = plt.figure(title)
                plt.ion()
        except ImportError:  # MPLBACKEND asks for a window where there is no display for one
            self._figure = None

    def show(self, frame: np.ndarray) -> None:
        """Show (h, w, 3) uint8."""
        if self._figure is None:
            return
        if self._image is None:
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(frame)
        self._image.set_data(frame)
        self._figure.canvas.draw_idle()
        self._plt.pause(0.001)

    def close(self) -> None:
        """Close the window."""
        if self._figure is not None:
            self._plt.close(self._figure)
