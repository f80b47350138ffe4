"""Clients of a segmentation server: sessions with a box and clicks, each answer kept and timed."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import numpy as np
import torch
from PIL import Image

from medseg_gym.backbones import Backbone
from medseg_gym.cases import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.episodes import EpisodeEngine
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.serving.routes.images import box_at, point_at

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Script:
    """Script of one session.

    Args:
        case: Its image; several sessions share one.
        box: [x1, y1, x2, y2] in pixels.
        clicks: (x, y, positive) in pixels.
    """

    case: Case
    box: list[int]
    clicks: list[tuple[int, int, bool]]

    def prompts(self) -> list[AddBox | AddPoint]:
        """The same as prompts."""
        width, height = self.case.width, self.case.height
        clicks = [point_at(x, y, positive, width, height) for x, y, positive in self.clicks]
        return [box_at(self.box, width, height), *clicks]


def write_scripts(cases: Sequence[Case], count: int, group: int, clicks: int) -> list[Script]:
    """Sessions in groups on one image, as rollouts of one prompt are: box and clicks differ.

    Args:
        cases: One per group.
        count: Sessions.
        group: Sessions on one image.
        clicks: After the box.
    """
    scripts = []
    for i in range(count):
        case = cases[i // group]
        rng = np.random.default_rng(i)
        ys, xs = np.nonzero(case.mask)
        jitter = rng.integers(0, 9, 4)
        low = np.maximum(np.array([xs.min(), ys.min()]) - jitter[:2], 0)
        edge = np.array([xs.max(), ys.max()]) + 1 + jitter[2:]
        high = np.minimum(edge, [case.width, case.height])
        box = [int(v) for v in (*low, *high)]
        made = []
        for _ in range(clicks):
            x, y = int(rng.integers(case.width)), int(rng.integers(case.height))
            if rng.random() < 0.6:
                at = int(rng.integers(len(xs)))
                x, y = int(xs[at]), int(ys[at])
            made.append((x, y, bool(case.mask[y, x])))
        scripts.append(Script(case, box, made))
    return scripts


@dataclass
class Answers:
    """Answers of the service.

    Args:
        masks: By session, one base64 PNG per prompt.
        seconds: Of every request that made a mask.
        create_seconds: Of every session's beginning.
        failures: What went wrong, in words.
        elapsed: Seconds from the first request to the last answer.
    """

    masks: dict[int, list[str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    create_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        """Masks a second."""
        return len(self.seconds) / self.elapsed

    def percentiles(self) -> list[float]:
        """50th, 95th and 99th of the time to a mask, in milliseconds."""
        return [float(v) * 1000 for v in np.percentile(self.seconds, [50, 95, 99])]


def play(port: int, scripts: Sequence[Script], clients: int) -> Answers:
    """Run sessions against a server on this machine.

    Args:
        port: Of a server on 127.0.0.1; no other address is ever asked.
        scripts: Taken in order by whichever client is free.
        clients: Threads, each with a connection of its own.
    """
    answers = Answers()
    waiting = iter(enumerate(scripts))
    lock = threading.Lock()
    uploads = {id(s.case): png_bytes(s.case.image) for s in scripts}

    def client() -> None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=300)
        while True:
            with lock:
                number, script = next(waiting, (-1, None))
            if script is None:
                break
            try:
                _play_one(connection, number, script, uploads[id(script.case)], answers, lock)
            except Exception as error:
                with lock:
                    answers.failures.append(f"session {number}: {type(error).__name__}: {error}")
                connection.close()
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.elapsed = time.perf_counter() - began
    return answers


def _play_one(
    connection: http.client.HTTPConnection,
    number: int,
    script: Script,
    upload: bytes,
    answers: Answers,
    lock: threading.Lock,
) -> None:
    began = time.perf_counter()
    session = _post_file(connection, upload)["session_id"]
    create = time.perf_counter() - began
    masks, seconds = [], []
    fields: list[tuple[str, dict[str, Any]]] = [("add_bbox", {"bbox": json.dumps(script.box)})]
    for x, y, positive in script.clicks:
        fields.append(("add_click", {"point_x": x, "point_y": y, "is_positive": positive}))
    for turn, (route, given) in enumerate(fields, 1):
        began = time.perf_counter()
        body = urlencode({"session_id": session, **given})
        answer = _ask(connection, "POST", f"/session/{route}", body, _FORM)
        seconds.append(time.perf_counter() - began)
        if answer["session_id"] != session or answer["round_number"] != turn:
            raise RuntimeError(f"crossed answer: {answer['session_id']} {answer['round_number']}")
        masks.append(answer["masks"][0])
    _ask(connection, "DELETE", f"/session/{session}")
    with lock:
        answers.masks[number] = masks
        answers.seconds += seconds
        answers.create_seconds.append(create)


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _post_file(connection: http.client.HTTPConnection, content: bytes) -> dict[str, Any]:
    mark = uuid.uuid4().hex
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="i.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body = head + content + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    return _ask(connection, "POST", "/session/create", body, kind)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: str | bytes | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path.split('/')[1]}: {answer.status} {content[:200]!r}")
    message: dict[str, Any] = json.loads(content)
    return message


@dataclass
class Verdict:
    """Agreement of answers with the same prompts given to the backbone here.

    Args:
        identical: Masks equal in every pixel.
        close: Masks that differ only where the local logit is within 0.001 of zero.
        wrong: All others, and missing ones.
        worst: Largest |logit| of a pixel that differs.
    """

    identical: int = 0
    close: int = 0
    wrong: int = 0
    worst: float = 0.0


def judge(backbone: Backbone, scripts: Sequence[Script], answers: Answers) -> Verdict:
    """Play every session again, alone and in this process, and compare each mask."""
    verdict = Verdict()
    engine = EpisodeEngine(backbone, max_steps=100)
    for number, script in enumerate(scripts):
        masks = answers.masks.get(number)
        prompts = script.prompts()
        if masks is None:
            verdict.wrong += len(prompts)
            continue
        engine.reset([0], [script.case])
        episode = engine.episode(0)
        assert episode.embedding is not None
        for prompt, text in zip(prompts, masks, strict=True):
            engine.step([0], [prompt])
            state = episode.state
            got = np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) > 0
            differs = torch.from_numpy(got) != state.mask.cpu()
            if not bool(differs.any()):
                verdict.identical += 1
                continue
            assert state.logits is not None
            logits = backbone.to_image(state.logits[None], [episode.embedding])[0].cpu()
            worst = float(logits[differs].abs().max())
            verdict.worst = max(verdict.worst, worst)
            if worst <= 1e-3:
                verdict.close += 1
            else:
                verdict.wrong += 1
    return verdict
