"""Muon in float32 takes torch's steps, but for rounding to bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
from medseg_agents.arrays import optimisers
from medseg_agents.arrays.muon import FloatMuon, orthogonalise
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_singular_values_come_near_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices, COEFFICIENTS, 10, 1e-7))
    assert values.min() > 0.6 and values.max() < 1.3


def test_a_matrix_of_zeros_stays():
    assert not orthogonalise(torch.zeros(1, 4, 4), COEFFICIENTS, 5, 1e-7).any()


def test_steps_are_those_of_torch_but_for_its_rounding(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(12, 24, bias=False), nn.Linear(24, 12, bias=False))
    layers.append(nn.Linear(12, 12, bias=False))
    other = copy.deepcopy(layers)
    options = {"lr": 0.02, "weight_decay": 0.01, "momentum": 0.95}
    own = FloatMuon(layers.parameters(), **options)
    torchs = torch.optim.Muon(other.parameters(), **options)
    x = torch.randn(16, 12)
    for _ in range(3):
        for model, optimiser in ((layers, own), (other, torchs)):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
        for mine, theirs in zip(layers.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    torchs.load_state_dict(own.state_dict())  # as a run goes on that was begun elsewhere
    own.load_state_dict(torchs.state_dict())


@pytest.mark.parametrize("fast", [True, False])
def test_the_processor_decides(monkeypatch, fast):
    monkeypatch.setattr(optimisers, "multiplies_bfloat16", lambda: fast)
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4)])})
    wrapped = nn.ModuleDict({"model": model})
    (muon,) = (
        p for p in optimisers.MuonWithAdamW(wrapped).parts if isinstance(p, torch.optim.Muon)
    )
    assert isinstance(muon, FloatMuon) is not fast
