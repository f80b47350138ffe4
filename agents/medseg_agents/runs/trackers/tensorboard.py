"""TensorBoard: scalars, tables as Markdown beside strips of their images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from medseg_agents.runs.trackers.protocol import Table
from medseg_gym.storage.atomic_write import named_failures


class TensorBoardTracker:
    """Writes `tensorboard/` in the folder of the run.

    Args:
        folder: Of the run.
        step: That it goes on from; what lies behind it in older files is not shown.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder / "tensorboard"
        self._board = SummaryWriter(str(self.folder), purge_step=step + 1)

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add scalars."""
        with named_failures(self.folder):
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)

    def write_table(self, step: int, name: str, table: Table) -> None:
        """Add the table as a text, and each column of images as one strip, numbered by row."""
        images = {
            number
            for number in range(len(table.columns))
            if any(isinstance(row[number], np.ndarray) for row in table.rows)
        }
        with named_failures(self.folder):
            self._board.add_text(name, _markdown(table, images), step)
            for number in sorted(images):
                strip = [row[number] for row in table.rows]
                if len({image.shape for image in strip}) == 1:
                    tag = f"{name}/{table.columns[number]}"
                    self._board.add_images(tag, np.stack(strip), step, dataformats="NHWC")
                else:
                    for place, image in enumerate(strip, 1):
                        tag = f"{name}/{table.columns[number]}/{place}"
                        self._board.add_image(tag, image, step, dataformats="HWC")

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Add an image."""
        with named_failures(self.folder):
            self._board.add_image(name, image, step, dataformats="HWC")

    def write_alert(self, step: int, name: str, text: str) -> None:
        """Add a text."""
        with named_failures(self.folder):
            self._board.add_text(f"alert/{name}", text, step)

    def close(self, failed: bool) -> None:
        """Close the file."""
        self._board.close()


def _markdown(table: Table, images: set[int]) -> str:
    """A table of Markdown; an image is named by its place in the strip."""
    lines = [["row", *table.columns], ["---"] * (len(table.columns) + 1)]
    for place, row in enumerate(table.rows, 1):
        cells = [f"image {place}" if n in images else _cell(v) for n, v in enumerate(row)]
        lines.append([str(place), *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    # As code: what a model wrote may look like Markdown or HTML.
    text = str(value).replace("`", "'").replace("|", "\\|").replace("\n", " ⏎ ")
    return f"`{text}`" if text else ""
