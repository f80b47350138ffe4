"""One backbone for all workers: results, batching, restarts, deaths."""

import logging

import numpy as np
import pytest
import torch

from medseg_gym import backbones
from medseg_gym.backbones.protocol import PromptRow
from medseg_gym.errors import BackboneError
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, AddPoint

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # the warnings are Ray's
]


@pytest.fixture(scope="module")
def cluster():
    if ray.is_initialized():
        ray.shutdown()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def served(cluster):
    from medseg_gym.backbones.remote.ray import serve

    return serve("pocket-of-all", "pocket", device="cpu")


def forget():
    """Clients are shared by name: a test that kills an actor must not leave its client behind."""
    from medseg_gym.backbones import registry

    for key in [key for key in registry._LOADED if str(key[0]).startswith("ray:")]:
        del registry._LOADED[key]


def test_masks_are_those_of_the_local_backbone(served, small_cases):
    local, remote = backbones.load("pocket"), backbones.load("ray:pocket-of-all")
    assert remote.name == local.name and remote.prompt_kinds == local.prompt_kinds
    images = [case.image for case in small_cases[:3]]
    box, click = AddBox(0.2, 0.2, 0.8, 0.7), AddPoint(0.5, 0.5, positive=True)

    def decode(backbone):
        embeddings = backbone.encode(images)
        first = backbone.decode([PromptRow(e, box) for e in embeddings])
        rows = [
            PromptRow(e, box, (click,), mask)
            for e, mask in zip(embeddings, first.logits, strict=True)
        ]
        second = backbone.decode(rows)
        return backbone.to_image(second.logits, embeddings), second.iou

    (ours, iou), (theirs, their_iou) = decode(local), decode(remote)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou, their_iou, atol=1e-5, rtol=1e-4)


def test_episodes_score_as_they_do_locally(served):
    result = []
    for name in ("pocket", "ray:pocket-of-all"):
        envs = make_envs(2, cases="samples", split="test", backbone=name, max_steps=2)
        from medseg_gym import annotators

        policy = annotators.make("oracle-click", envs.codec)
        keys = list(envs.source.keys[:4])
        result.append([p.episode.dice for batch in play_cases(envs, policy, keys) for p in batch])
    np.testing.assert_allclose(result[0], result[1], atol=1e-3)


def test_rows_of_many_callers_share_a_decode_and_do_not_cross(served):
    before = ray.get(served.counts.remote())

    @ray.remote(num_cpus=0)
    def click(seed):
        import time

        import numpy as np

        from medseg_gym import backbones
        from medseg_gym.backbones.protocol import PromptRow
        from medseg_gym.prompts import AddPoint

        def joined():  # by now, of any callers
            now = ray.get(served.counts.remote())
            return now["calls"] - before["calls"] > now["decodes"] - before["decodes"]

        backbone = backbones.load("ray:pocket-of-all")
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        (embedding,) = backbone.encode([image])
        x, y = rng.random(2)
        rows = [PromptRow(embedding, points=(AddPoint(x, y, positive=True),))] * 3
        answers, until = [], time.monotonic() + 100
        # Callers may come up long after one another: each goes on until some have met.
        while len(answers) < 4 or not joined():
            assert time.monotonic() < until, "no two calls were decoded together"
            answers.append(backbone.decode(rows).logits.numpy())
        return np.stack(answers)

    answers = ray.get([click.remote(seed) for seed in range(4)])
    after = ray.get(served.counts.remote())
    calls = sum(len(answer) for answer in answers)
    assert after["calls"] - before["calls"] == calls and after["rows"] - before["rows"] == calls * 3
    assert after["decodes"] - before["decodes"] < calls  # some were joined
    assert after["encodes"] - before["encodes"] == 4  # one for each distinct image
    local = backbones.load("pocket")
    for seed, answer in enumerate(answers):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        (embedding,) = local.encode([image])
        x, y = rng.random(2)
        row = PromptRow(embedding, points=(AddPoint(x, y, positive=True),))
        expected = local.decode([row]).logits.numpy()[0]
        np.testing.assert_allclose(answer, np.broadcast_to(expected, answer.shape), atol=1e-4)


def test_a_bad_row_fails_alone_and_says_why(served, small_cases):
    backbone = backbones.load("ray:pocket-of-all")
    (embedding,) = backbone.encode([small_cases[0].image])
    bad = PromptRow(embedding, AddBox(0, 0, 1, 1), mask_input=torch.zeros(3, 3))
    with pytest.raises(BackboneError, match=r"ray:pocket-of-all.*mask_input"):
        backbone.decode([bad])
    assert backbone.decode([PromptRow(embedding, AddBox(0, 0, 1, 1))]).logits.shape[0] == 1


def test_a_restarted_actor_is_given_its_images_again(cluster, small_cases):
    from medseg_gym.backbones.remote.ray import serve

    handle = serve("reborn", "ellipse", max_restarts=2)
    backbone = backbones.load("ray:reborn")
    (embedding,) = backbone.encode([small_cases[0].image])
    row = PromptRow(embedding, AddBox(0.2, 0.2, 0.8, 0.8))
    before = backbone.decode([row])
    ray.kill(handle, no_restart=False)
    after = backbone.decode([row])
    assert torch.equal(before.logits, after.logits)
    forget()


def test_a_dead_actor_raises_and_no_episode_is_scored(cluster):
    from medseg_gym import annotators
    from medseg_gym.backbones.remote.ray import serve

    handle = serve("mortal", "ellipse", max_restarts=0)
    envs = make_envs(2, cases="samples", split="test", backbone="ray:mortal", max_steps=2)
    policy = annotators.make("oracle-click", envs.codec)
    keys = list(envs.source.keys[:4])
    played = play_cases(envs, policy, keys)
    assert len(next(played)) == 2
    ray.kill(handle)
    with pytest.raises(BackboneError, match=r"ray:mortal: the actor is dead.*serve"):
        next(played)
    forget()


def test_names_that_are_not_there_or_taken_say_so(served):
    from medseg_gym.backbones.remote.ray import serve

    with pytest.raises(BackboneError, match="no such actor"):
        backbones.load("ray:nobody")
    with pytest.raises(BackboneError, match="give another name"):
        serve("pocket-of-all", "ellipse")
    with pytest.raises(BackboneError, match="cannot be served"):
        serve("broken", "no-such-backbone")
