"""`medseg serve --ray`: the Ray Serve application on a cluster, or on a local one started here."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve

from medseg_gym.backbones.remote.http import KEY_VARIABLE
from medseg_gym.errors import MedSegError
from medseg_gym.parallel.ray_address import check_address
from medseg_gym.serving.middleware.local_only import is_loopback
from medseg_gym.serving.ray_serve.app import RayArguments, deployment

APPLICATION = "medseg"


@contextmanager
def ray_service(
    args: RayArguments,
    host: str = "127.0.0.1",
    port: int = 8265,
    address: str | None = None,
    replicas: int = 1,
    max_replicas: int | None = None,
    actor_options: dict[str, Any] | None = None,
    ray_options: dict[str, Any] | None = None,
) -> Iterator[str]:
    """Run the application while the context lasts; yields the URL.

    Args:
        args: Backbone, keys and limits of every replica.
        host: Address on which Serve's proxies listen.
        port: Port on which they listen.
        address: Address of a running cluster; None starts one on this machine and stops it at the
            end.
        replicas: Number of replicas, or the least number where `max_replicas` is given.
        max_replicas: Scale up to this number by requests in progress.
        actor_options: `ray_actor_options` of a replica, such as {"num_gpus": 1}.
        ray_options: More arguments of `ray.init` where a cluster is started.

    Raises:
        MedSegError: An address that other machines reach, without any key; or no cluster is at
            `address`.
    """
    if not (args.keys or args.keys_file) and not is_loopback(host):
        raise MedSegError(
            f"{host} can be reached from other machines: set a key in {KEY_VARIABLE} or give "
            "--keys-file FILE with lines owner:key; or bind to 127.0.0.1"
        )
    options: dict[str, Any] = {"ray_actor_options": actor_options or {}}
    if max_replicas is None:
        options["num_replicas"] = replicas
    else:
        options["autoscaling_config"] = {
            "min_replicas": replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": 16,
        }
    mine = not ray.is_initialized()
    if mine:
        # Serve kills a proxy that is not ready in 5 s, which a busy machine cannot promise.
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S", "60")
        check_address(address)
        cluster = {"include_dashboard": False, **(ray_options or {})} if address is None else {}
        ray.init(address=address, log_to_driver=False, **cluster)
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(
            deployment(args, **options).bind(), name=APPLICATION, route_prefix="/", blocking=False
        )
        yield f"http://{host}:{port}"
    finally:
        serve.delete(APPLICATION)
        serve.shutdown()
        if mine:
            ray.shutdown()


def wait_for_signal() -> None:
    """Return on SIGINT or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(1):
        pass
