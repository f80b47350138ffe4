"""A step waits for a GPU once, when it reads the counts; seen without a GPU."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks.shared.host_waits import HostWaits, without_autocast
from medseg_gym.backbones import embedding_cache
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.families import ellipse, lite_medsam, pocket
from medseg_gym.cases import CaseList
from medseg_gym.envs.medseg_vector import MedSegVectorEnv

META = torch.device("meta")
READ = "medseg_gym/episodes/masks.py"


def build(name):
    if name == "sam":
        from segment_anything.build_sam import _build_sam

        from medseg_gym.backbones import SamBackbone

        return SamBackbone(_build_sam(64, 2, 2, [1]), device=META)
    if name == "sam2":
        pytest.importorskip("sam2")
        from medseg_gym.backbones.families.sam2 import backbone

        settings = {"config": "sam2.1_hiera_t", "name": name, "image_size": 64}
        return backbone.build(None, META, random_weights=True, **settings)
    if name == "imisnet":
        pytest.importorskip("timm")
        from medseg_gym.backbones.families.imisnet import backbone

        return backbone.build(None, META, random_weights=True, image_size=64)
    module = {"pocket": pocket, "lite_medsam": lite_medsam, "ellipse": ellipse}[name]
    return module.build(None, META)


def waits(act, *arguments, **options):
    with HostWaits() as counted:
        act(*arguments, **options)
    return dict(counted.places)


@pytest.mark.parametrize("name", ["pocket", "lite_medsam", "ellipse", "sam", "sam2", "imisnet"])
def test_a_step_waits_once_and_a_reset_to_look_at_new_embeddings(name, small_cases):
    with without_autocast():
        backbone = build(name)
        envs: MedSegVectorEnv = gym.make_vec(
            "MedSeg-v0",
            num_envs=5,
            backbone=backbone,
            cases=CaseList(small_cases),
            autoreset_mode="disabled",
        ).unwrapped
        keys = [case.key for case in small_cases]
        reset = {"case": keys}
        assert sum(waits(envs.reset, options=reset).values()) == (name != "ellipse")
        assert not waits(envs.reset, options=reset), "known images"
        box, click, undo = [0, 100, 100, 900, 900], [1, 400, 300, 0, 0], [3, 0, 0, 0, 0]
        # Rows of different length and kinds, with and without mask inputs, undo among them.
        for actions in ([box, click, box, click, box], [click] * 5, [undo, click, box, undo, box]):
            (place,) = waits(envs.step, np.array(actions)).items()
            assert place[0].startswith(READ) and place[1] == 1
        assert not waits(envs.step, np.array([undo] * 5)), "every mask is there already"


def test_waits_are_found_and_named():
    values = torch.zeros(3, device=META)
    with HostWaits() as counted:
        values.sum().item()
        values.tolist()
        bool(values.any())
        values[[0, 2]]
        torch.as_tensor([1.0], device=META)
        to_device([1.0], META)
        to_device(np.ones(3), META)
    assert counted.count == 5
    reads = "outside the package reads values", "outside the package copies and waits"
    assert counted.places == dict(zip(reads, (3, 2), strict=True))


def test_a_copy_keeps_values_and_type():
    for values in ([True, False], np.arange(3.0), torch.arange(4)):
        assert torch.equal(to_device(values, "cpu"), torch.as_tensor(values))
    assert to_device([1], "cpu", torch.float32).dtype is torch.float32


def test_a_new_image_among_known_ones_is_looked_at_once(small_cases):
    with without_autocast():
        backbone = build("pocket")
        waits(embedding_cache(backbone).get, backbone, [small_cases[0].image], ["a"])
        images = [case.image for case in small_cases[:3]]
        counts = waits(embedding_cache(backbone).get, backbone, images, ["a", "b", "c"])
    assert list(counts.values()) == [1]
