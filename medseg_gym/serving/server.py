"""Run a service in this process until a signal ends it, or in a thread beside a program."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from medseg_gym.backbones import Backbone
from medseg_gym.backbones.remote.http import KEY_VARIABLE
from medseg_gym.episodes import DecodeOptions
from medseg_gym.errors import MedSegError
from medseg_gym.serving.app import Service
from medseg_gym.serving.extensions import Extension
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.middleware.http_protocol import limited_protocol
from medseg_gym.serving.middleware.local_only import is_loopback

log = logging.getLogger("medseg_gym.serving")

DEFAULT_PORT = 8265


def make_service(
    backbone: Backbone,
    host: str = "127.0.0.1",
    limits: Limits | None = None,
    api_keys: ApiKeys | None = None,
    options: DecodeOptions | None = None,
    extensions: Sequence[Extension] = (),
    origins: Sequence[str] = (),
) -> Service:
    """Make a service for an address.

    Args:
        backbone: Predicts the masks.
        host: Address that the service will be bound to; one other than loopback needs API keys.
        limits: Bounds of everything that is accepted and held.
        api_keys: Keys of which requests must carry one; without any, no key is asked for.
        options: How prompts of a session become decoder rows.
        extensions: Further routes, such as the web page of `medseg_gym.play`.
        origins: Of web pages elsewhere that may use the service, see `check_origins`.

    Raises:
        MedSegError: An address that other machines reach, without any key.
    """
    api_keys = api_keys or ApiKeys()
    if not api_keys.required and not is_loopback(host):
        raise MedSegError(
            f"{host} can be reached from other machines: set a key in {KEY_VARIABLE} or give "
            "--keys-file FILE with lines owner:key; or bind to 127.0.0.1"
        )
    local_only = not api_keys.required
    return Service(backbone, limits, api_keys, options, local_only, extensions, origins)


def make_server(service: Service, host: str, port: int) -> uvicorn.Server:
    """Make a uvicorn server for a service; logging is left to the caller."""
    config = uvicorn.Config(
        service.asgi,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        http=limited_protocol(service.limits),
        h11_max_incomplete_event_size=service.limits.max_header_bytes,  # where h11 reads headers
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(service.limits.drain_seconds)),
        backlog=2048,
    )
    return uvicorn.Server(config)


def serve(
    service: Service,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests that were accepted are finished first.

    Args:
        service: A service that has not run yet.
        host: Address to bind.
        port: 0 takes a free one.
        on_start: Called with the URL, in a thread, when it listens.

    Raises:
        MedSegError: The address cannot be bound.
    """
    server = make_server(service, host, port)
    try:
        socket = server.config.bind_socket()
    except SystemExit:
        service.segmenter.stop()
        raise MedSegError(
            f"{host}:{port} cannot be bound: is another service running there? choose --port"
        ) from None
    # uvicorn only binds: until it listens, a request would be refused, not kept waiting.
    socket.listen(server.config.backlog)
    bound = socket.getsockname()
    url = f"http://{bound[0]}:{bound[1]}"
    log.info(
        "listening",
        extra={
            "url": url,
            "backbone": service.segmenter.facts.fingerprint,
            "keys": service.api_keys.required,
        },
    )
    if on_start is not None:
        threading.Thread(target=on_start, args=(url,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Uvicorn stops gracefully and then raises the signal again, which would end in an error.
        signal.signal(number, lambda *_: None)
    server.run(sockets=[socket])
    log.info("stopped")


@contextmanager
def running(service: Service, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve in a thread of this process while the context lasts; yields the URL.

    Args:
        service: A service that has not run yet; it ends with the context.
        host: A loopback address.

    Raises:
        MedSegError: It did not start.
    """
    server = make_server(service, host, 0)
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise MedSegError("the service did not start; its log tells why")
            time.sleep(0.01)
        yield f"http://{host}:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(service.limits.drain_seconds + 30)
        socket.close()
