"""A small server that speaks the protocol of nninteractive-server 2.6, without its model.

Paths, headers, leases and packed arrays are those of `nnInteractive/inference/server/app.py`;
nninteractive-client itself packs the arrays. In place of the network it takes the connected region
of bright voxels at a positive click, or inside of a box, and takes away that of a negative click:
masks in 3D that depend on all prompts and their order. It has no weights, and tells nothing about
how good the real model is.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from nnInteractive.inference.remote.serialization import pack_array, unpack_array
from scipy import ndimage

THRESHOLD = 128


class Session:
    """State of one lease."""

    def __init__(self) -> None:
        self.regions = np.zeros((0, 0, 0), int)
        self.mask = np.zeros((0, 0, 0), np.uint8)


class Server:
    """The server's state; `fault` makes it answer prompts with nonsense."""

    def __init__(self, max_sessions: int = 3, api_key: str = "") -> None:
        self.max_sessions, self.api_key = max_sessions, api_key
        self.sessions: dict[str, Session] = {}
        self.calls: list[str] = []
        self.images: list[tuple[int, ...]] = []
        self.fault = ""
        self.url = ""
        self.stop: Any = None
        self.app = self._make_app()

    def _make_app(self) -> FastAPI:
        app = FastAPI()

        def session_of(request: Request) -> Session:
            name = request.url.path.strip("/")
            self.calls.append(name)
            self._check_key(request)
            session = self.sessions.get(request.headers.get("x-lease-token", ""))
            if session is None:
                raise HTTPException(410, "lease expired or unknown")
            return session

        @app.post("/claim")
        def claim(request: Request) -> dict[str, Any]:
            self._check_key(request)
            if self.fault == "claim":
                return {"hello": "world"}
            if len(self.sessions) >= self.max_sessions:
                raise HTTPException(503, f"server is at capacity ({self.max_sessions} sessions)")
            token = uuid.uuid4().hex
            self.sessions[token] = Session()
            timeouts = {"idle_timeout_seconds": 600.0, "liveness_timeout_seconds": 0.0}
            return {"lease_token": token, "max_sessions": self.max_sessions, **timeouts}

        @app.post("/release")
        def release(request: Request) -> dict[str, bool]:
            self.sessions.pop(request.headers.get("x-lease-token", ""), None)
            return {"released": True}

        @app.get("/capabilities")
        def capabilities() -> dict[str, Any]:
            return {
                "supported_interactions": {
                    "points": True,
                    "bbox2d": True,
                    "bbox3d": False,
                    "scribble": True,
                    "lasso": True,
                },
                "channel_mapping": {"prev_seg": 0, "bbox2d": [1, 2], "points": [3, 4]},
                "num_interaction_channels": 7,
                "supports_initial_label": True,
                "supports_zero_shot_label_refinement": True,
                "preferred_scribble_thickness": 2,
                "interaction_decay": 0.98,
                "inference_session_version": 2,
                "license": "none: there is no model",
                "supports_undo": False,
                "do_autozoom": True,
            }

        @app.post("/set_image")
        async def set_image(request: Request) -> dict[str, Any]:
            session = session_of(request)
            image = unpack_array(await request.body())
            assert image.ndim == 4 and image.dtype == np.float32
            session.regions, _ = ndimage.label(image[0] >= THRESHOLD)
            self.images.append(image.shape)
            shape = (9, 9, 9) if self.fault == "image" else image.shape
            return {"original_image_shape": list(shape)}

        @app.post("/set_target_buffer")
        async def set_target_buffer(request: Request) -> dict[str, Any]:
            session, payload = session_of(request), await request.json()
            session.mask = np.zeros(payload["shape"], payload["dtype"])
            return {}

        @app.post("/reset_interactions")
        def reset_interactions(request: Request) -> dict[str, Any]:
            session_of(request).mask[:] = 0
            return {}

        @app.post("/add_point_interaction")
        async def add_point(request: Request) -> Response:
            session, payload = session_of(request), await request.json()
            region = session.regions == session.regions[tuple(payload["coordinates"])]
            region &= session.regions > 0
            session.mask[region] = payload["include_interaction"]
            return self._answer(session)

        @app.post("/add_bbox_interaction")
        async def add_bbox(request: Request) -> Response:
            session, payload = session_of(request), await request.json()
            place = tuple(slice(*span) for span in payload["bbox_coords"])
            if 1 not in [span[1] - span[0] for span in payload["bbox_coords"]]:
                raise HTTPException(400, "3D boxes are not supported by the loaded model")
            inside = np.unique(session.regions[place])
            session.mask[np.isin(session.regions, inside[inside > 0])] = 1
            return self._answer(session)

        return app

    def _check_key(self, request: Request) -> None:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise HTTPException(401, "Invalid bearer token")

    def _answer(self, session: Session) -> Response:
        region = [[0, int(n)] for n in session.mask.shape]
        changed = session.mask.copy()
        meta: dict[str, Any] | None = {"ran_prediction": True}
        content = None
        match self.fault:
            case "500":
                raise HTTPException(500, "CUDA out of memory")
            case "html":
                return Response("<html>proxy</html>", media_type="text/html")
            case "no prediction":
                meta = {"ran_prediction": False}
            case "no JSON":
                return Response(b"", headers={"X-Meta": "{"})
            case "outside":
                region[0] = [0, 10**6]
            case "one voxel":
                changed = np.ones((1, 1, 1), np.uint8)
            case "floats":
                changed = np.full(changed.shape, np.nan, np.float32)
            case "labels":
                changed = changed * 7 + 2
            case "garbage":
                content = b"NNIA" + b"\x01" * 60
            case "empty":
                content = b""
        meta |= {"bbox": region, "dtype": str(changed.dtype), "shape": list(changed.shape)}
        headers = {"X-Meta": json.dumps(meta)}
        return Response(pack_array(changed) if content is None else content, headers=headers)


@contextmanager
def serving(**options: Any) -> Iterator[Server]:
    """Serve on the loopback while the context lasts."""
    state = Server(**options)
    config = uvicorn.Config(state.app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(20)
        socket.close()

    state.url, state.stop = f"http://127.0.0.1:{socket.getsockname()[1]}", stop
    try:
        while not server.started:
            time.sleep(0.01)
        yield state
    finally:
        stop()


if __name__ == "__main__":
    with serving() as running:
        print(f"nninteractive:{running.url}")
        threading.Event().wait()
