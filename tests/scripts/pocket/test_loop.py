"""The training loop: it learns, it survives a kill, several processes agree."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from medseg_gym.backbones.checkpoints import read_state_dict
from medseg_gym.errors import MedSegError
from scripts.pocket import loop
from scripts.pocket.config import PocketConfig
from scripts.pocket.curve import plot_curve
from scripts.pocket.losses import choose_and_judge

SMALL = {"images": 1, "targets": 1, "rounds": 2, "validate_every": 100, "save_every": 2}


@pytest.fixture
def no_validation(monkeypatch):
    """Validation plays 102 cases; the loop's own laws need none of it."""
    result = loop.Validation(0.5, 0.5, (0.1,) * 5, 0.5, (0.1,) * 5)
    monkeypatch.setattr(loop, "validate", lambda model, device: result)


def run(folder, teaching, steps, stop_after=None, **options):
    folder.mkdir(exist_ok=True)
    training = loop.Run(PocketConfig(steps=steps, **{**SMALL, **options}), teaching, folder)
    numbers = []
    for result in training.train():
        numbers.append(result)
        if result["step"] == stop_after:
            break
    return training, numbers


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["distil", "scratch"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, teaching, no_validation, recipe):
    whole, numbers = run(tmp_path / "whole", teaching, steps=5, recipe=recipe)
    run(tmp_path / "killed", teaching, steps=5, stop_after=3, recipe=recipe)  # saved after 2
    resumed, rest = run(tmp_path / "killed", teaching, steps=5, recipe=recipe)
    assert [n["step"] for n in rest] == [3, 4, 5]
    wanted = whole.averaged.module.state_dict()
    for name, value in resumed.averaged.module.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert rest[-1]["affinity"] == numbers[-1]["affinity"]
    best = read_state_dict(tmp_path / "whole" / loop.BEST)
    assert all(torch.equal(value, best[name]) for name, value in wanted.items())


@pytest.mark.slow
def test_the_loss_goes_down_on_images_it_has_seen(teaching, tmp_path, no_validation):
    options = {"images": 2, "rounds": 1, "save_every": 100}
    training, _ = run(tmp_path / "run", teaching, steps=31, stop_after=16, **options)
    batch = training.loader.dataset[5]
    begun = loop.Run(
        PocketConfig(steps=31, **{**SMALL, "images": 2, "rounds": 1}), teaching, tmp_path / "new"
    )
    after, before = training._train_step(batch), begun._train_step(batch)
    assert after["affinity"] < before["affinity"]


@pytest.mark.slow
def test_two_processes_hold_the_same_weights(tmp_path, teaching):
    """Each draws its own images; gradients are averaged, so weights stay equal."""
    config = PocketConfig(steps=2, **SMALL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_train_and_keep, (config, teaching, tmp_path, port), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    other = loop.Run(config, teaching, tmp_path / "alone").pupil.state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def _train_and_keep(rank, config, teaching, folder, port):
    import torch.distributed as dist

    torch.set_num_threads(1)
    where = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    out = folder / f"run{rank}"
    out.mkdir()
    training = loop.Run(config, teaching, out, rank, 2)
    for batch in training.loader:
        training._train_step(batch)
        training.step += 1
    torch.save(training.pupil.state_dict(), folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_the_mask_that_goes_on_is_the_one_that_use_would_choose():
    logits = torch.stack([torch.full((8, 8), float(k)) for k in (-1, 1, -2, 2)])[None].repeat(
        2, 1, 1, 1
    )
    scores = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.9, 0.1, 0.2, 0.3]])
    truth = torch.ones(2, 8, 8)
    loss, chosen = choose_and_judge(logits, scores, truth, torch.tensor([True, False]))
    assert torch.equal(chosen[0], logits[0, 3]) and torch.equal(chosen[1], logits[1, 0])
    assert loss[0] > loss[1] > 0


def test_a_run_starts_from_given_weights(tmp_path, teaching, no_validation):
    first, _ = run(tmp_path / "first", teaching, steps=1)
    start = str(tmp_path / "first" / loop.BEST)
    second = loop.Run(PocketConfig(steps=1, start=start, **SMALL), teaching, tmp_path / "second")
    wanted = first.averaged.module.state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in second.pupil.model.state_dict().items())


def test_weights_are_written_in_half_precision(tmp_path):
    model = loop.build_model()
    loop.save_weights(model, tmp_path / "half.safetensors", torch.float16)
    state = read_state_dict(tmp_path / "half.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert (tmp_path / "half.safetensors").stat().st_size < 12e6


def test_the_curve_is_drawn(tmp_path):
    result = loop.Validation(0.5, 0.4, (0.1, 0.2, 0.3, 0.4, 0.5), 0.5, (0.1,) * 5)
    lines = [{"step": s, "iou_first": 0.1, "iou_last": 0.2} for s in range(1, 50)]
    lines[-1]["validation"] = result.as_dict()
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_curve(tmp_path / "curve.jsonl", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert result.score == pytest.approx((0.45 + 0.3 + 0.15) / 2.5)


def test_settings_survive_a_file_and_are_checked(tmp_path):
    config = PocketConfig(recipe="scratch", steps=7)
    config.write(tmp_path / "config.json")
    assert PocketConfig.read(tmp_path / "config.json") == config
    (tmp_path / "config.json").write_text('{"stpes": 7}')
    with pytest.raises(MedSegError, match=r"config\.json.*stpes"):
        PocketConfig.read(tmp_path / "config.json")
    with pytest.raises(MedSegError, match="recipe must be one of"):
        PocketConfig(recipe="magic")
    with pytest.raises(MedSegError, match="rounds must be at least 1"):
        PocketConfig(rounds=0)
