from __future__ import annotations

import base64

import numpy as np
import pytest
from httpx import URL

from benchmarks.service import baseline as service_baseline
from benchmarks.service import load as service_load
from benchmarks.service.clients import Answers, Script, judge, play, write_scripts
from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cases import load_cases
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.errors import MedSegError
from medseg_gym.serving.app import Service
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.server import running


@pytest.fixture(scope="module")
def scripts() -> list[Script]:
    cases = service_load.distinct_images(load_cases("samples", "test"), 2)
    assert len({case.content_hash for case in cases}) == 2
    return write_scripts(cases, count=6, group=3, clicks=2)


def test_sessions_of_a_group_share_an_image_and_nothing_else(scripts) -> None:
    assert [s.case is scripts[0].case for s in scripts] == [True] * 3 + [False] * 3
    assert len({(*s.box, *s.clicks) for s in scripts}) == 6
    for script in scripts:
        for x, y, positive in script.clicks:
            assert bool(script.case.mask[y, x]) is positive


def test_the_service_is_played_and_judged(scripts) -> None:
    service = Service(EllipseBackbone("cpu"), Limits(max_sessions=8), local_only=True)
    with running(service) as url:
        port = URL(url).port
        with service_load.Memory(port) as memory:
            answers = play(port, scripts, clients=4)
            counters = service_load.read_counters(port)
            memory._over.wait(0.7)
    assert not answers.failures and len(answers.seconds) == 18 and answers.rate > 0
    verdict = judge(EllipseBackbone("cpu"), scripts, answers)
    assert (verdict.identical, verdict.wrong) == (18, 0)
    assert counters['medseg_batch_rows_sum{kind="step"}'] == 18
    assert memory.between(0.0, 1.0) > 0
    memory.samples = [(6, 100.0)]
    with pytest.raises(MedSegError, match="too short"):
        memory.between(0.4, 0.6)
    memory.samples = [(done, 100.0 + done) for done in range(1, 11)]

    result = service_load.summarise([answers], answers, ([verdict], verdict), memory, counters)
    assert result["ratio"] == pytest.approx(1.0)
    assert result["memory_growth"] == pytest.approx(109 / 105 - 1)
    assert service_load.broken_floors(result) == ["ratio 1.00 is below 3.0"]
    service_load.report(result | {"clients": 4, "sessions": 6, "group": 3, "machine": "m"})
    assert service_load.broken_floors(result | {"ratio": 4, "memory_growth": 0.06})
    assert service_load.broken_floors(result | {"ratio": 4, "failures": ["x"]})
    assert not service_load.broken_floors(result | {"ratio": 4, "memory_growth": 0.04})


def test_a_wrong_or_missing_mask_is_found(scripts) -> None:
    empty = base64.b64encode(png_bytes(np.zeros(scripts[0].case.mask.shape, bool))).decode()
    answers = Answers(masks={0: [empty] * 3})
    verdict = judge(EllipseBackbone("cpu"), scripts[:2], answers)
    assert verdict.wrong == 6 and verdict.identical == 0 and verdict.worst > 1e-3


def test_the_baseline_makes_the_same_masks_one_at_a_time(scripts) -> None:
    import threading
    import time

    import uvicorn

    backbone = EllipseBackbone("cpu")
    encoded: list[int] = []
    plain = backbone.encode
    backbone.encode = lambda images: encoded.append(len(images)) or plain(images)  # type: ignore
    config = uvicorn.Config(service_baseline.build(backbone), port=0, log_config=None)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    while not server.started:  # the socket is bound, but nobody listens before
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        answers = play(socket.getsockname()[1], scripts, clients=3)
    finally:
        server.should_exit = True
        thread.join(20)
        socket.close()
    assert not answers.failures
    assert judge(EllipseBackbone("cpu"), scripts, answers).identical == 18
    assert encoded == [1] * 18  # the image again at every click
