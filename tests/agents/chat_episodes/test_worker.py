"""`EpisodeWorker.begin`; steps are tested with verl's tools, OpenEnv and verifiers."""

import asyncio

import numpy as np
import pytest
from medseg_agents.chat_episodes import EpisodeWorker

from medseg_gym.errors import BackboneError, CaseError, PolicyError

from ..chat_scripts import BOX, OPTIONS, STOP


@pytest.fixture(scope="module")
def worker():
    return EpisodeWorker(max_delay_ms=20.0, **OPTIONS)


def test_the_first_turn_is_that_of_the_environment(worker):
    import gymnasium as gym

    env = gym.make("MedSegChat-v0", **OPTIONS).unwrapped
    case = worker.core.source.keys[1]
    observation, info = env.reset(options={"case": case})
    turn = asyncio.run(worker.begin("first", case))
    assert turn.text == observation["text"] and turn.reward == 0.0 and turn.info == info
    assert np.array_equal(turn.images[0], observation["image"])
    assert turn.standing["turns"] == 0 and not turn.standing["done"]
    after = asyncio.run(worker.step("first", case, BOX))
    assert after.reward == env.step(BOX)[1]
    env.close()


def test_beginnings_and_steps_share_a_batch(worker):
    case, other = worker.core.source.keys[:2]

    async def play():
        await worker.begin("one", case)
        batches = worker.batches
        turns = await asyncio.gather(worker.step("one", case, STOP), worker.begin("two", other))
        return turns, worker.batches - batches

    (stopped, begun), batches = asyncio.run(play())
    assert batches == 1 and stopped.standing["done"] and begun.standing["case"] == other


def test_an_id_begins_once(worker):
    case = worker.core.source.keys[0]
    asyncio.run(worker.begin("twice", case))
    with pytest.raises(PolicyError, match="begun before"):
        asyncio.run(worker.begin("twice", case))


def test_what_cannot_begin_leaves_nothing(worker, monkeypatch):
    case = worker.core.source.keys[0]
    with pytest.raises(CaseError, match="nobody"):
        asyncio.run(worker.begin("lost", "nobody"))

    def failing(*arguments):
        raise BackboneError("the segmenter is gone; start it again")

    with monkeypatch.context() as broken:
        broken.setattr(worker.core, "reset", failing)
        with pytest.raises(BackboneError, match="gone"):
            asyncio.run(worker.begin("lost", case))
    assert asyncio.run(worker.begin("lost", case)).standing["turns"] == 0
