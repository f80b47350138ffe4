"""The micro-batcher: together, but never at another's expense."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import numpy as np
import pytest

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.backbones.remote.ends import MissingImages
from medseg_gym.backbones.remote.wire import WireRow
from medseg_gym.cases import Case, hash_pixels
from medseg_gym.episodes import EpisodeEngine
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from tests.serving.conftest import mask_of, noise, upload


class Counting(EllipseBackbone):
    """Counts calls; may be slow, held back, or choke on a poisoned row."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("cpu")
        self.seconds = seconds
        self.decodes: list[int] = []
        self.encodes: list[int] = []
        self.free = threading.Event()
        self.free.set()

    def encode(self, images):
        self.encodes.append(len(images))
        if any(image[0, 0, 0] == 13 for image in images):
            raise BackboneError("this image is poison")
        return super().encode(images)

    def decode(self, rows):
        self.free.wait(10)
        time.sleep(self.seconds)
        self.decodes.append(len(rows))
        if any(row.box is not None and row.box.x1 == 0.125 for row in rows):
            raise RuntimeError("this row is poison")
        return super().decode(rows)


def case(seed: int) -> Case:
    image = noise(seed)
    image[0, 0, 0] = 0
    return Case(f"case{seed}", image, np.zeros(image.shape[:2], bool), "")


def make(backbone, **limits) -> Segmenter:
    segmenter = Segmenter(backbone, Limits(**{"max_sessions": 32, **limits}))
    backbone.decodes.clear()
    backbone.encodes.clear()
    return segmenter


def run(segmenter: Segmenter, work) -> list:
    try:
        return asyncio.run(asyncio.wait_for(work(), 20))
    finally:
        segmenter.stop()


def test_steps_of_all_sessions_are_one_decoder_call() -> None:
    backbone = Counting()
    segmenter = make(backbone, max_delay_ms=300, max_batch=12)

    async def work() -> list:
        begun = await asyncio.gather(*(segmenter.start(case(i % 3)) for i in range(12)))
        assert backbone.encodes == [3]  # each distinct image once, in one call
        prompts = [AddBox(i / 30, 0.1, 0.5, 0.9) for i in range(12)]
        await asyncio.gather(
            *(segmenter.step(slot, p) for (slot, _), p in zip(begun, prompts, strict=True))
        )
        return [(episode, p) for (_, episode), p in zip(begun, prompts, strict=True)]

    for episode, prompt in run(segmenter, work):
        engine = EpisodeEngine(EllipseBackbone("cpu"))
        engine.reset([0], [episode.case])
        engine.step([0], [prompt])
        expected = engine.episode(0).state.mask
        np.testing.assert_array_equal(episode.state.mask.numpy(), expected.numpy())
    assert backbone.decodes == [12]


def test_only_the_culprit_fails() -> None:
    backbone = Counting()
    segmenter = make(backbone, max_delay_ms=200, max_batch=4)

    async def work() -> list:
        begun = [await segmenter.start(case(i)) for i in range(4)]
        lefts = (0.1, 0.125, 0.2, 0.3)
        steps = [
            segmenter.step(slot, AddBox(left, 0.1, 0.5, 0.9))
            for (slot, _), left in zip(begun, lefts, strict=True)
        ]
        result = await asyncio.gather(*steps, return_exceptions=True)
        assert [len(episode.steps) for _, episode in begun] == [1, 0, 1, 1]
        return result

    result = run(segmenter, work)
    assert [isinstance(f, RuntimeError) for f in result] == [False, True, False, False]


def test_poisoned_and_missing_images_fail_alone() -> None:
    backbone = Counting()
    segmenter = make(backbone, max_delay_ms=200, max_batch=7)
    good, bad = noise(1), noise(2)
    good[0, 0, 0], bad[0, 0, 0] = 0, 13
    keys = hash_pixels(good), hash_pixels(bad)

    async def work() -> list:
        click = ((0.5, 0.5, True),)
        return await asyncio.gather(
            segmenter.decode([WireRow(keys[0], points=click)], {keys[0]: good}),
            segmenter.decode([WireRow(keys[1], points=click)], {keys[1]: bad}),
            segmenter.decode([WireRow("0" * 32, points=click)], {}),
            segmenter.encode({keys[1]: bad}),
            segmenter.known([keys[0], keys[1]]),
            return_exceptions=True,
        )

    decoded, poisoned, missing, encoded, _ = run(segmenter, work)
    assert decoded[0].shape == (1, 256, 256)
    assert isinstance(poisoned, BackboneError) and "poison" in str(poisoned)
    assert isinstance(missing, MissingImages) and missing.keys == ("0" * 32,)
    assert isinstance(encoded, BackboneError)


def test_stopping_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    backbone = Counting(0.05)
    segmenter = make(backbone, max_batch=1)

    async def work() -> list:
        begun = [await segmenter.start(case(i)) for i in range(6)]
        steps = [
            asyncio.ensure_future(segmenter.step(slot, AddPoint(0.5, 0.5))) for slot, _ in begun
        ]
        await asyncio.sleep(0)
        stopped = asyncio.get_running_loop().run_in_executor(None, segmenter.stop)
        await asyncio.gather(*steps)
        await stopped
        with pytest.raises(ServiceError, match="shutting down") as refusal:
            await segmenter.step(begun[0][0], AddPoint(0.5, 0.5))
        assert refusal.value.status == 503 and refusal.value.retry_after
        return [len(episode.steps) for _, episode in begun]

    assert run(segmenter, work) == [1] * 6


def test_a_caller_that_goes_away_leaves_no_slot_behind() -> None:
    backbone = Counting()
    segmenter = make(backbone, max_sessions=2, max_delay_ms=500)

    async def work() -> list:
        for i in range(6):
            task = asyncio.ensure_future(segmenter.start(case(i)))
            await asyncio.sleep(0.001 * (i % 3))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(1.2)
        return [await segmenter.start(case(9)), await segmenter.start(case(8))]

    assert {slot for slot, _ in run(segmenter, work)} == {0, 1}


def test_the_event_loop_is_never_blocked(serve) -> None:
    backbone = Counting()
    service, client = serve(backbone)
    session = client.post("/session/create", files=upload(noise())).json()["session_id"]
    backbone.free.clear()  # the next decode takes as long as this test wants
    answers: list = []
    click = {"session_id": session, "point_x": 5, "point_y": 5}
    asking = threading.Thread(
        target=lambda: answers.append(client.post("/session/add_click", data=click))
    )
    asking.start()
    try:
        deadline = time.monotonic() + 10
        while service.asgi._requests == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(5):
            assert client.get("/health").status_code == 200
            assert client.get(f"/session/{session}/status").json()["round_number"] == 0
            image = {"hashes": ["0" * 32]}
            assert client.post("/v1/encode", json=image | {"oops": 1}).status_code == 422
        assert not answers
    finally:
        backbone.free.set()
        asking.join(10)
    assert answers[0].status_code == 200


def test_many_clients_get_their_own_results(serve) -> None:
    backbone = Counting()
    service, client = serve(backbone, max_sessions=16, max_delay_ms=20)
    errors: list = []

    def play(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            with httpx.Client(base_url=client.base_url, trust_env=False, timeout=30) as own:
                for _ in range(3):
                    image = noise(int(rng.integers(4)))
                    made = own.post("/session/create", files=upload(image)).json()
                    engine = EpisodeEngine(EllipseBackbone("cpu"))
                    empty = np.zeros(image.shape[:2], bool)
                    engine.reset([0], [Case("x", image, empty, "")])
                    for _ in range(3):
                        x, y = int(rng.integers(64)), int(rng.integers(48))
                        fields = {"session_id": made["session_id"], "point_x": x, "point_y": y}
                        answer = own.post("/session/add_click", data=fields)
                        engine.step([0], [AddPoint((x + 0.5) / 64, (y + 0.5) / 48)])
                        expected = engine.episode(0).state.mask.numpy()
                        np.testing.assert_array_equal(mask_of(answer), expected)
                    own.delete(f"/session/{made['session_id']}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and not any(thread.is_alive() for thread in threads)
    assert sum(backbone.decodes) >= 72 and len(backbone.decodes) < 72  # calls were shared
    assert len(service.book) == 0
    deadline = time.monotonic() + 5
    while len(service.segmenter._free_slots) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(service.segmenter._free_slots) == 16
