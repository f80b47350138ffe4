"""The localizer: its outlines, its images, its loss, and what does not reach it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from medseg_agents.arrays.dagger import train_dagger
from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.localizer import training
from medseg_agents.arrays.localizer.images import draw_images
from medseg_agents.arrays.localizer.loss import cover_losses
from medseg_agents.arrays.localizer.network import PLANES, Localizer, outline_planes
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.arrays.sb3 import SB3PPOConfig, train_sb3
from medseg_agents.policies.network import load_network
from safetensors.torch import load_file

from medseg_gym.cases import load_cases
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.storage.line_files import read_rows

CASES = "phantoms:fundus?position=random"
TOOLS = ("box", "positive_point", "negative_point", "stop")


def settings(**changed):
    base = {
        "cases": CASES,
        "pool": 16,
        "backbone": "ellipse",
        "image_size": 32,
        "bins": 16,
        "width": 4,
        "levels": 2,
        "localizer": 4,
        "localizer_steps": 6,
        "localizer_images": 12,
        "localizer_batch": 4,
        "steps": 64,
        "rollout": 8,
        "num_envs": 8,
        "updates": 1,
        "minibatch": 4,
        "eval_every": 0,
        "eval_cases": 4,
        "test_cases": 0,
        "log_to": (),
    }
    return DaggerConfig(**{**base, **changed})


@pytest.mark.parametrize("patch, levels", [(2, 1), (2, 3), (4, 2), (8, 2)])
def test_all_targets_in_one_pass_are_each_alone(patch, levels):
    torch.manual_seed(0)
    network = Localizer(32, 5, patch, 4, levels)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    targets = torch.tensor([[1, 4], [0, 0], [2, 3]])
    together = network(images, targets)
    assert together.shape == (3, 2, 16, 16) and network.cells == 16
    for column in range(2):
        alone = network(images, targets[:, column : column + 1])
        torch.testing.assert_close(alone[:, 0], together[:, column])


def test_planes_show_the_sides_of_an_outline_everywhere():
    logits = torch.full((1, 8, 8), -20.0)
    logits[0, 2:5, 3] = 20
    shares, bounded, columns, rows = outline_planes(logits)[0]
    assert outline_planes(logits).shape == (1, PLANES, 8, 8)
    assert (columns[:, 3] > 0.99).all() and (columns[:, [2, 4]] < 0.01).all()
    assert (rows[2:5] > 0.99).all() and (rows[[1, 5]] < 0.01).all()
    assert bounded.min() == -1 and bounded.max() == 1 and shares.sum().round() == 3


def test_the_loss_is_least_where_the_covers_are_told():
    covers = torch.zeros(1, 1, 8, 8)
    covers[..., 2:5, 3:6] = 1
    right, blank = 20 * covers - 10, torch.full_like(covers, -10)
    assert cover_losses(right, covers).mean() < 0.01 < 0.9 < cover_losses(blank, covers).mean()
    assert cover_losses(blank, covers * 0).mean() < 0.01  # absent, and nothing is seen


def test_images_come_once_with_all_their_cases():
    source = load_cases(CASES, "train")
    images = draw_images(source, 6, source.targets, 32, 16, seed=1)
    assert len(images) == 6 and len({one.tobytes() for one in images.images}) == 6
    assert all(len(own) == 4 for own in images.targets)
    again = draw_images(source, 6, source.targets[1:], 32, 16, seed=1)
    np.testing.assert_array_equal(images.images, again.images)
    first = source.targets[0]
    for own, without in zip(images.targets, again.targets, strict=True):
        np.testing.assert_array_equal(np.where(own == 1, 0, own - 1), without)
    assert first == source.targets[0]


def test_batches_are_filled_up_and_turned_with_their_covers():
    source = load_cases("samples", "train")
    images = draw_images(source, 8, source.targets, 32, 16, seed=0)
    counts = [len(own) for own in images.targets]
    shown, targets, covers, real = images.batch(range(len(images)))
    assert real.sum(1).tolist() == counts and min(counts) < max(counts)
    assert (targets[~real] == 0).all() and (covers[~real] == 0).all()
    turned, same, around, _ = images.batch(range(len(images)), turns=1)
    assert (same == targets).all()
    assert (turned == torch.rot90(shown, 1, (2, 3))).all()
    assert (around == torch.rot90(covers, 1, (2, 3))).all()


def test_gradients_of_actions_do_not_reach_it():
    view = ArrayView(["a", "b"], 32, 16, TOOLS)
    network = PromptNetwork(
        view.observation_space, view.action_space, NetworkConfig(width=4, tools=TOOLS, localizer=4)
    )
    view.observation_space.seed(0)
    samples = [view.observation_space.sample() for _ in range(3)]
    batch = {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}
    inputs, values = network(batch)
    (inputs.square().sum() + values.sum()).backward()
    assert all(one.grad is None for one in network.localizer.parameters())
    assert network.outlook.weight.grad.abs().sum() > 0
    batch["image"] = 255 - batch["image"]
    assert not torch.equal(
        network._outlook(batch, batch["target"]),
        network._outlook({**batch, "image": 255 - batch["image"]}, batch["target"]),
    )


def test_a_run_learns_outlines_then_plays_and_others_start_from_it(tmp_path, monkeypatch):
    run = train_dagger(settings(localizer_turns=True), tmp_path / "first")
    rows = read_rows(run.path / "localizer" / "progress.jsonl")
    assert rows[-1]["step"] == 6 and 0 <= rows[-1]["val/localizer_iou"] <= 1
    kept = load_file(run.newest()[1] / "network.safetensors")
    state = torch.load(run.path / "localizer" / "last.pt", weights_only=True)["localizer"]
    for name, value in state.items():
        torch.testing.assert_close(kept[f"localizer.{name}"], value)  # playing left it alone

    # Killed in the middle, it goes on to the same weights.
    monkeypatch.setattr(training, "_SAVE_EVERY", 2)
    monkeypatch.setattr(training, "_LOG_EVERY", 2)
    monkeypatch.setattr(training, "watch", _die_at(4))
    with pytest.raises(KeyboardInterrupt):
        train_dagger(settings(localizer_turns=True), tmp_path / "killed")
    monkeypatch.undo()
    again = train_dagger(settings(localizer_turns=True), tmp_path / "killed", resume=True)
    for name, value in load_file(again.newest()[1] / "network.safetensors").items():
        torch.testing.assert_close(value, kept[name])

    view = ArrayView(load_cases(CASES, "train").targets, 32, 16, TOOLS)
    network = load_network(run.newest()[1], view.observation_space, view.action_space)
    assert network.localizer is not None
    names = ("cases", "pool", "backbone", "image_size", "bins", "width", "levels", "localizer")
    shared = {name: getattr(settings(), name) for name in names}
    ppo = SB3PPOConfig(
        **shared,
        tools=TOOLS,
        start=str(run.path),
        minibatch=32,
        steps=64,
        num_envs=8,
        rollout=8,
        eval_every=0,
        test_cases=0,
        log_to=(),
    )
    went_on = train_sb3(ppo, tmp_path / "ppo")
    after = load_file(went_on.newest()[1] / "network.safetensors")
    assert all(torch.equal(after[f"localizer.{n}"], kept[f"localizer.{n}"]) for n in state)
    assert any(not torch.equal(after[n], kept[n]) for n in kept if "localizer" not in n)


def _die_at(calls):
    left = iter(range(calls // 2))

    def watch(localizer, images):
        if next(left, None) == calls // 2 - 1:
            raise KeyboardInterrupt
        return {}

    return watch


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"localizer_steps": -1}, "localizer_steps must be at least 0, got -1"),
        ({"localizer": 0}, "give its width, localizer=32"),
        ({"localizer_images": 0}, "localizer_images must be at least 1, got 0"),
    ],
)
def test_settings_without_sense_are_refused(changed, told):
    with pytest.raises(MedSegError, match=told):
        settings(**changed)


def test_a_localizer_that_nothing_trains_is_refused(tmp_path: Path):
    with pytest.raises(PolicyError, match="nothing would train the localizer"):
        train_dagger(settings(localizer_steps=0), tmp_path / "run")
    assert not (tmp_path / "run").exists()
