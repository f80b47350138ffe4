"""Validation of the pupil by the same engine and oracles as everywhere else."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
from segment_anything.modeling import Sam

from medseg_gym import annotators
from medseg_gym.backbones.families.pocket import PocketBackbone
from medseg_gym.cases import CaseList, load_cases
from medseg_gym.policy import make_envs, play_cases

PHANTOMS = 96  # cases of the phantoms' val split
SLOTS = 16


@dataclass(frozen=True)
class Validation:
    """Mean Dice on phantoms (val) and on real lesions (val), after a box and after clicks."""

    phantoms_box: float
    phantoms_loose_box: float
    phantoms_clicks: tuple[float, ...]
    samples_box: float
    samples_clicks: tuple[float, ...]

    @property
    def score(self) -> float:
        """Return the number to maximise: phantoms, and the few real cases at a quarter's weight."""
        phantoms = (self.phantoms_box + self.phantoms_loose_box) / 2
        clicks = (self.phantoms_clicks[0] + self.phantoms_clicks[-1]) / 2
        samples = (self.samples_box + self.samples_clicks[-1]) / 2
        return (phantoms + clicks + samples / 2) / 2.5

    def as_dict(self) -> dict:
        """For the curve."""
        rounded = {
            name: [round(v, 4) for v in value] if isinstance(value, tuple) else round(value, 4)
            for name, value in asdict(self).items()
        }
        return {**rounded, "score": round(self.score, 4)}


def validate(model: Sam, device: torch.device) -> Validation:
    """Play the validation cases with oracles."""
    backbone = PocketBackbone(copy.deepcopy(model), device=device)
    phantoms = load_cases("phantoms", "val")
    scores = {}
    for name, source in (
        ("phantoms", CaseList([phantoms[i] for i in range(PHANTOMS)])),
        ("samples", load_cases("samples", "val")),
    ):
        envs = make_envs(SLOTS, cases=source, backbone=backbone, max_steps=5, device=str(device))
        for policy in ("oracle-box", "oracle-box?loosen=0.2", "oracle-click"):
            played = [
                p.episode
                for batch in play_cases(envs, annotators.make(policy, envs.codec), source.keys)
                for p in batch
            ]
            steps = [
                sum(e.steps[min(k, len(e.steps) - 1)].dice for e in played) / len(played)
                for k in range(5)
            ]
            scores[name, policy] = tuple(steps)
        envs.close()
    return Validation(
        scores["phantoms", "oracle-box"][0],
        scores["phantoms", "oracle-box?loosen=0.2"][0],
        scores["phantoms", "oracle-click"],
        scores["samples", "oracle-box"][0],
        scores["samples", "oracle-click"],
    )
