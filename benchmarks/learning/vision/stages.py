"""The stages of the tiny chain in which its model learns to see, and to read what it sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from medseg_agents.llm.checkpoint import load_processor
from medseg_agents.llm.tiny_model import TinyConfig
from medseg_agents.sft.data import load_conversations
from medseg_agents.sft.tiny_start import build_start

from benchmarks.learning.chain_sizes import Chain
from benchmarks.learning.vision.reading import Reader, train_reading
from benchmarks.learning.vision.scenes import Scenes, draw_scenes
from benchmarks.learning.vision.steps import LAST
from benchmarks.learning.vision.tower import SUBCELLS, Before, train_tower
from medseg_gym.cases import load_cases


def tower_of(chain: Chain, out: Path) -> Path:
    """Return the folder of the model that stage 4 makes."""
    return out / "vision" / ("again/model" if chain.vision_again else "model")


def train_vision(chain: Chain, out: Path, workers: int) -> None:
    """Stage 4 of the chain."""
    folder = out / "vision"
    if tower_of(chain, out).is_dir():
        return
    if not (folder / "start").is_dir():
        rows, shown = load_conversations((str(out / "first_turns"),), folder / "cache")
        build_start(folder / "start", rows, shown, chain.seed)
    targets = load_cases(chain.cases, "train").targets
    assert targets is not None  # of phantoms
    parts = {split: known_scenes(chain, out, split, workers) for split in ("train", "val")}
    scenes = parts["train"], parts["val"], len(targets)
    train_tower(
        folder / "start", folder, *scenes, chain.vision_steps, chain.seed, chain.coarse_size
    )
    if chain.vision_again:
        before = Before(folder / LAST, chain.vision_steps)
        again = folder / "again"
        train_tower(folder / "model", again, *scenes, chain.vision_again, chain.seed, before=before)


def known_scenes(chain: Chain, out: Path, split: str, workers: int) -> Scenes:
    """Draw images with all their targets, "train" those of the first turns; or read them."""
    first = -(-chain.experts // chain.per_image)
    images = range(first, first + chain.images) if split == "train" else range(chain.watched)
    return Scenes.read(
        draw_scenes(
            out / "vision" / split,
            chain.cases,
            split,
            images,
            chain.chat,
            SUBCELLS * chain.image_size // (2 * TinyConfig().patch),
            chain.per_image,
            workers,
        )
    )


def train_to_read(chain: Chain, out: Path, workers: int) -> None:
    """Stage 5 of the chain."""
    start = tower_of(chain, out)
    if (out / "reading" / "model").is_dir():
        return
    chats: list[Any] = []
    for file in sorted((out / "first_turns").glob("*.parquet")):
        chats += [row["messages"] for row in pq.read_table(file, columns=["messages"]).to_pylist()]
    targets = load_cases(chain.cases, "train").targets
    scenes = known_scenes(chain, out, "train", workers)
    reader = Reader(load_processor(start), targets, chats, scenes)
    train_reading(start, out / "reading", reader, chain.reading_steps, chain.seed)
