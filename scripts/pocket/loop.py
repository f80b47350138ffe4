"""The training loop: resumable at any moment, on any number of processes, CPU or GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from segment_anything.modeling import Sam
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from medseg_gym.backbones.checkpoints import load_weights, read_state_dict, read_torch_file
from medseg_gym.backbones.families.pocket.decoder import MASK_LIMIT, build_model, decode
from medseg_gym.backbones.families.pocket.encoder import DIM, PIXEL_MEAN, PIXEL_STD
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_path
from medseg_gym.storage.line_files import append_rows
from scripts.pocket.config import PocketConfig
from scripts.pocket.data.mixture import Batch, Mixture
from scripts.pocket.losses import AffinityLoss, EmbeddingLoss, choose_and_judge, iou
from scripts.pocket.simulate import Users
from scripts.pocket.validate import Validation, validate

TEACHER_CHANNELS = 256
CHECKPOINT, BEST, CURVE, SETTINGS = "last.pt", "best.safetensors", "curve.jsonl", "config.json"


class Pupil(nn.Module):
    """The model and the heads that exist in training only."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.model = build_model()
        self.model.image_encoder.to(memory_format=torch.channels_last)
        self.read = EmbeddingLoss(DIM, TEACHER_CHANNELS) if config.recipe == "distil" else None
        self.affinity = AffinityLoss(DIM)


class Run:
    """One training run in one process of several.

    Args:
        config: Settings.
        teaching: Folder of the teaching set.
        out: Folder of the run.
        rank: Of this process.
        processes: How many there are.
        device: Where the model lives.
        workers: Processes that draw images, per training process.
    """

    def __init__(
        self,
        config: PocketConfig,
        teaching: Path,
        out: Path,
        rank: int = 0,
        processes: int = 1,
        device: str = "cpu",
        workers: int = 0,
    ) -> None:
        self.config, self.out, self.rank, self.processes = config, out, rank, processes
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.pupil = Pupil(config).to(self.device)
        if config.start is not None:
            load_weights(self.pupil.model, read_state_dict(config.start), config.start)
        average = get_ema_multi_avg_fn(config.ema)
        self.averaged = AveragedModel(self.pupil.model, multi_avg_fn=average, use_buffers=False)
        self.optimizer = torch.optim.AdamW(
            self.pupil.parameters(), lr=config.rate, betas=(0.9, 0.95), weight_decay=0.01
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self._resume()
        mixture = Mixture(config, teaching, rank)
        self.loader: DataLoader = DataLoader(
            mixture,
            batch_size=None,
            sampler=range(self.step, config.steps),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )

    # rates and checkpoints ---------------------------------------------------------------------
    def _rate(self, step: int) -> float:
        """Warm up, stay, then fall to nothing."""
        rising = min(1.0, (step + 1) / self.config.warmup)
        left = (self.config.steps - step) / (self.config.decay * self.config.steps)
        return rising * min(1.0, max(left, 0.01))

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        state = read_torch_file(path, self.device)
        try:
            self.pupil.load_state_dict(state["pupil"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise MedSegError(
                f"{path} is no checkpoint of this run ({error}); move it away to begin anew"
            ) from error

    def _save(self) -> None:
        state = {
            "pupil": self.pupil.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "best": self.best,
            "seconds": self.seconds,
        }
        with atomic_path(self.out / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    # the loop ----------------------------------------------------------------------------------
    def train(self) -> Iterator[dict[str, Any]]:
        """Train to the end; yields the numbers of every step, validations among them."""
        began = time.perf_counter() - self.seconds
        for batch in self.loader:
            numbers: dict[str, Any] = self._train_step(batch)
            self.step += 1
            self.seconds = time.perf_counter() - began
            numbers |= {"step": self.step, "seconds": round(self.seconds, 1)}
            if self.rank == 0:
                last = self.step == self.config.steps
                if last or self.step % self.config.validate_every == 0:
                    scores = self._validate()
                    numbers |= {"validation": scores.as_dict()}
                if last or self.step % self.config.save_every == 0:
                    self._save()
                self._log(numbers)
                yield numbers

    def _validate(self) -> Validation:
        scores = validate(self.averaged.module, self.device)
        if scores.score > self.best:
            self.best = scores.score
            save_weights(self.averaged.module, self.out / BEST)
        return scores

    def _log(self, numbers: dict[str, Any]) -> None:
        if "validation" in numbers or self.step % 10 == 0:
            append_rows(self.out / CURVE, [numbers])

    def _train_step(self, batch: Batch) -> dict[str, Any]:
        config = self.config
        done = self.step / config.steps
        rounds = int(np.random.default_rng((config.seed, self.step)).integers(1, config.rounds + 1))
        self.pupil.train()
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16)
        pixels = (batch.pixels.to(self.device).float() - PIXEL_MEAN) / PIXEL_STD
        with mixed:
            features = [f.float() for f in self.pupil.model.image_encoder(pixels)]
        # The rounds' gradients meet here, and go through the encoder once.
        leaves = [f.detach().requires_grad_() for f in features]
        numbers = self._teach_rounds(leaves, batch, rounds, mixed)
        extra = self._auxiliary(features[0], batch, done, numbers)
        met = [leaf.grad for leaf in leaves]
        torch.autograd.backward([*features, extra], [*met, None])
        self._average_gradients()
        nn.utils.clip_grad_norm_(self.pupil.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.averaged.update_parameters(self.pupil.model)
        return numbers

    def _teach_rounds(
        self, leaves: list[torch.Tensor], batch: Batch, rounds: int, mixed: Any
    ) -> dict[str, float]:
        targets = len(batch.truths) // len(leaves[0])
        half = torch.nn.functional.avg_pool2d(batch.truths[:, None].float(), 2)[:, 0]
        truth = half.to(self.device)
        solid = (half >= 0.5).numpy()
        empty = ~solid.any((1, 2))  # too thin for the coarser grid
        solid[empty] = (half > 0).numpy()[empty]
        users = Users(solid, np.random.default_rng(batch.seed))
        users.begin()
        mask_input: torch.Tensor | None = None
        total, first = 0.0, 0.0
        for turn in range(rounds):
            single = torch.from_numpy(users.single_click).to(self.device)
            with mixed:
                rows = [leaf.repeat_interleave(targets, 0) for leaf in leaves]
                decoded = decode(self.pupil.model, rows, users.batch(self.device), mask_input)
                logits = self.pupil.model.mask_decoder.masks(decoded.hyper, decoded.upscaled)
            logits, scores = logits.float(), decoded.scores.float()
            loss, chosen = choose_and_judge(logits, scores, truth, single)
            (loss.mean() / rounds).backward()
            mask_input = chosen.clamp(-MASK_LIMIT, MASK_LIMIT)
            quality = float(iou(chosen, truth).mean())
            total, first = quality, first if turn else quality
            if turn + 1 < rounds:
                users.correct((chosen > 0).cpu().numpy())
        return {"rounds": rounds, "iou_first": first, "iou_last": total}

    def _auxiliary(
        self, embedding: torch.Tensor, batch: Batch, done: float, numbers: dict[str, float]
    ) -> torch.Tensor:
        affinity = self.pupil.affinity(embedding, batch.regions.to(self.device))
        numbers["affinity"] = float(affinity.detach())
        extra: torch.Tensor = self.config.auxiliary_weight * affinity
        if self.pupil.read is not None and len(batch.taught):
            seen = embedding[batch.taught.to(self.device)]
            distil = self.pupil.read(seen, batch.embeddings.to(self.device))
            numbers["distil"] = float(distil.detach())
            share = len(batch.taught) / len(embedding)
            extra = extra + self.config.distil_weight * (1 - 0.9 * done) * share * distil
        return extra

    def _average_gradients(self) -> None:
        if self.processes == 1:
            return
        held = [p for p in self.pupil.parameters()]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in held]
        )
        dist.all_reduce(flat)
        flat /= self.processes
        for p, gradient in zip(held, flat.split([p.numel() for p in held]), strict=True):
            p.grad = gradient.view_as(p)


def save_weights(model: Sam, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model's weights as safetensors."""
    from safetensors.torch import save_file

    state = {
        name: value.detach().to(dtype).contiguous() for name, value in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary)
