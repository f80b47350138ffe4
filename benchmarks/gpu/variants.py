"""Other ways to run the same model: bfloat16, TF32, a compiled encoder, a decoder in a CUDA graph.

Each is timed against float32 as it stands, and its logits are compared with those.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.gpu.rows import FAILED, MEASURED, NEEDS_CUDA, SKIPPED, Job
from benchmarks.shared.meters import forget_peak, peak_memory, synchronise
from medseg_gym import backbones
from medseg_gym.backbones import Backbone, PromptRow
from medseg_gym.backbones.batching import transfer
from medseg_gym.cases import load_cases
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint

NAMES = ("sam2.1_b+?random_weights=true", "pocket")
SMALL = ("sam2.1_t?random_weights=true&image_size=64", "pocket")


def run(job: Job) -> None:
    """Time every variant of every model."""
    rows, images, repeats = (4, 1, 1) if job.small else (64, 8, 10)
    for name in SMALL if job.small else NAMES:
        if job.late(name):
            continue
        try:
            plain = Bench(job, name, backbones.load(name, device=job.device), rows, images, repeats)
        except BackboneError as error:
            job.add(name, SKIPPED, str(error))
            continue
        plain.time("float32", plain.backbone)
        plain.tf32()
        plain.graph()
        plain.other("bfloat16", dtype="bfloat16")
        # On a CPU the program is only tried: real compilation takes minutes there.
        plain.other("compiled encoder", compile="inductor" if job.cuda else "eager")
        if job.cuda:
            plain.other("compiled encoder, bfloat16", dtype="bfloat16", compile="inductor")


class Bench:
    """One model, its images and prompt rows, and float32's own results.

    Args:
        job: Gets the rows.
        name: Of the backbone.
        backbone: In float32.
        rows: In a decode.
        images: In an encode.
        repeats: Of each timing.
    """

    def __init__(
        self, job: Job, name: str, backbone: Backbone, rows: int, images: int, repeats: int
    ) -> None:
        self.job, self.name, self.backbone = job, name, backbone
        self.rows, self.repeats = rows, repeats
        source = load_cases("samples", "test")
        self.images = [source[i % len(source)].image for i in range(images)]
        self.logits: torch.Tensor | None = None
        self.seconds: dict[str, float] = {}

    def prompts(self, backbone: Backbone) -> list[PromptRow]:
        """Boxes and clicks in turn, over the images."""
        rng = np.random.default_rng(0)
        embeddings = backbone.encode(self.images)
        rows = []
        for i in range(self.rows):
            x, y = (float(v) for v in rng.uniform(0.1, 0.4, 2))
            box, click = AddBox(x, y, x + 0.4, y + 0.5), AddPoint(x + 0.2, y + 0.2)
            embedding = embeddings[i % len(embeddings)]
            rows.append(PromptRow(embedding, box if i % 2 else None, (click,)))
        return rows

    def time(self, what: str, backbone: Backbone) -> None:
        """Time encoding and decoding, and keep the row."""
        forget_peak(backbone.device)
        with torch.inference_mode():
            encode = self._median(lambda: backbone.encode(self.images))
            rows = self.prompts(backbone)
            decode = self._median(lambda: backbone.decode(rows))
            logits = backbone.decode(rows).logits
        self._keep(what, encode, decode, logits)

    def other(self, what: str, **options: Any) -> None:
        """Time the same model with other options; a row says why where it cannot be."""
        label = f"{self.name}, {what}"
        if self.job.late(label):
            return
        try:
            self.time(what, backbones.load(self.name, device=self.job.device, **options))
        except Exception as error:  # compilers fail in ways of their own, and the others go on
            self.job.add(label, FAILED, f"{type(error).__name__}: {str(error).splitlines()[:1]}")

    def tf32(self) -> None:
        """Time products in TF32."""
        if not self.job.cuda:
            self.job.add(f"{self.name}, TF32", SKIPPED, NEEDS_CUDA)
            return
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            self.time("TF32", self.backbone)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def graph(self) -> None:
        """Time decoding in a CUDA graph: one launch instead of hundreds."""
        label = f"{self.name}, decoding in a CUDA graph"
        if not self.job.cuda:
            self.job.add(label, SKIPPED, NEEDS_CUDA)
            return
        if self.job.late(label):
            return
        rows = self.prompts(self.backbone)
        try:
            graph = Graph(self.backbone, rows)
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.job.add(label, FAILED, str(error).splitlines()[0])
            return
        decode = self._median(graph.replay)
        self._keep("decoding in a CUDA graph", None, decode, graph.logits)

    def _median(self, act: Callable[[], Any]) -> float:
        seconds = []
        act()
        for _ in range(self.repeats):
            synchronise(self.backbone.device)
            began = time.perf_counter()
            act()
            synchronise(self.backbone.device)
            seconds.append(time.perf_counter() - began)
        return median(seconds)

    def _keep(self, what: str, encode: float | None, decode: float, logits: torch.Tensor) -> None:
        numbers: dict[str, Any] = {"encode_s": encode, "decode_s": decode}
        logits = logits.float()
        if self.logits is None:
            self.logits = logits.clone()
            self.seconds = {"encode": encode or 0.0, "decode": decode}
        parts = []
        if encode is not None:
            parts.append(f"{len(self.images) / encode:.3g} images/s encoded "
                         f"({self.seconds['encode'] / encode:.2f} x)")  # fmt: skip
        parts.append(
            f"{self.rows / decode:.3g} rows/s decoded ({self.seconds['decode'] / decode:.2f} x)"
        )
        gap = float((logits - self.logits).abs().max())
        sides = float(((logits > 0) != (self.logits > 0)).float().mean())
        parts.append(f"logits within {gap:.2g}, {100 * sides:.2g} % of pixels change sides")
        peak = peak_memory(self.backbone.device)
        numbers |= {"gap": gap, "changed_sides": sides, "peak_mib": peak}
        self.job.add(f"{self.name}, {what}", MEASURED, "; ".join(parts), numbers=numbers)


class Transfers:
    """Copies to the device, made once and handed out again in the same order.

    A graph cannot hold a copy whose source is made anew in every call: its inputs must stand where
    they stood. So a decode is run once with every copy recorded, and captured with the same ones.
    """

    def __init__(self) -> None:
        self._made: list[torch.Tensor] = []
        self._again: Iterator[torch.Tensor] | None = None

    def _copy(self, *arguments: Any, **options: Any) -> torch.Tensor:
        if self._again is not None:
            return next(self._again)
        self._made.append(transfer.to_device(*arguments, **options))
        return self._made[-1]

    @contextmanager
    def used(self, again: bool) -> Iterator[None]:
        """Record copies, or hand them out again."""
        self._again = iter(self._made) if again else None
        with ExitStack() as patches:
            for name, module in list(sys.modules.items()):
                if not name.startswith("medseg_gym.") or module is transfer:
                    continue
                if vars(module).get("to_device") is transfer.to_device:
                    patches.enter_context(patch.object(module, "to_device", self._copy))
            yield


class Graph:
    """A decode captured as a CUDA graph.

    Args:
        backbone: The segmenter, on a GPU.
        rows: Decoded.

    Attributes:
        logits: What `replay` writes.
    """

    def __init__(self, backbone: Backbone, rows: Sequence[PromptRow]) -> None:
        self._inputs = Transfers()  # the graph reads them
        with torch.inference_mode():
            with self._inputs.used(again=False):
                backbone.decode(rows)
            # Capture wants everything chosen and allocated before, on another stream.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    with self._inputs.used(again=True):
                        backbone.decode(rows)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with self._inputs.used(again=True), torch.cuda.graph(self._graph):
                self.logits = backbone.decode(rows).logits
        self.replay()

    def replay(self) -> None:
        """Decode again."""
        self._graph.replay()
