"""The stateless part on a real local Ray cluster: several processes, one of them killed."""

from __future__ import annotations

import socket
import threading

import httpx
import numpy as np
import psutil
import pytest
import torch

from medseg_gym import backbones
from medseg_gym.backbones import PromptRow
from medseg_gym.backbones.remote.http import HttpBackbone, Patience
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox, AddPoint
from tests.serving.conftest import noise

pytest.importorskip("ray.serve", reason='needs the extra "serve-ray"', exc_type=ImportError)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    # Ray leaves sockets and subprocess pipes to the garbage collector when it shuts down.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def free_port() -> int:
    with socket.socket() as result:
        result.bind(("127.0.0.1", 0))
        return result.getsockname()[1]


def processes_of(deployment: str) -> list[psutil.Process]:
    """Replicas by the titles that Ray gives its workers; all are below this process."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if f":{deployment}" in " ".join(p.cmdline()) and p.name() != "raylet"]


def test_replicas_give_the_local_results_even_when_one_is_killed() -> None:
    import ray

    from medseg_gym.serving.ray_serve.app import RayArguments
    from medseg_gym.serving.ray_serve.server import ray_service

    ray.shutdown()  # of what another test left: the service starts and stops its own
    local = backbones.load("pocket", device="cpu")
    images = [noise(i) for i in range(6)]
    near = local.encode(images)
    key = "a-key-0123456789-secret"
    arguments = RayArguments(backbone="pocket", device="cpu", keys={"team": key})
    cluster = {"num_cpus": 4, "object_store_memory": 100 << 20}
    running = ray_service(
        arguments,
        port=free_port(),
        replicas=2,
        actor_options={"num_cpus": 1},
        ray_options=cluster,
    )
    with running as url:
        assert httpx.post(f"{url}/v1/decode", json={}, timeout=60).status_code == 401
        assert httpx.get(f"{url}/health", timeout=60).json()["model_type"] == "pocket"
        remote = HttpBackbone(url, key, patience=Patience(timeout=60, retries=8))

        def compare(rng: np.random.Generator) -> None:
            far = remote.encode(images)
            for _ in range(3):
                chosen = rng.integers(0, 6, 5)
                prompts = [
                    {"box": AddBox(0.1, 0.1, 0.9, 0.9)} if rng.random() < 0.5
                    else {"points": (AddPoint(rng.random(), rng.random()),), "multimask": True}
                    for _ in chosen
                ]  # fmt: skip
                pairs = list(zip(chosen, prompts, strict=True))
                result = remote.decode([PromptRow(far[i], **p) for i, p in pairs])
                expected = local.decode([PromptRow(near[i], **p) for i, p in pairs])
                torch.testing.assert_close(result.logits, expected.logits, atol=1e-3, rtol=0)

        compare(np.random.default_rng(0))
        replicas = processes_of("Segmenter")
        assert len(replicas) == 2

        failures: list[BaseException] = []

        def keep_on(seed: int) -> None:
            try:
                for _ in range(4):
                    compare(np.random.default_rng(seed))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=keep_on, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        replicas[0].kill()
        for thread in threads:
            thread.join(120)
        assert not failures and not any(thread.is_alive() for thread in threads)
    assert not ray.is_initialized()


def test_other_machines_need_a_key_here_too() -> None:
    from medseg_gym.serving.ray_serve.app import RayArguments
    from medseg_gym.serving.ray_serve.server import ray_service

    with pytest.raises(MedSegError, match="set a key"):
        with ray_service(RayArguments(backbone="ellipse"), host="0.0.0.0"):
            pass


def test_a_misspelt_argument_fails_before_any_replica() -> None:
    from medseg_gym.serving.ray_serve.app import RayArguments, deployment

    with pytest.raises(ValueError, match="backbon"):
        RayArguments(backbon="pocket")
    with pytest.raises(TypeError, match="max_bath"):
        deployment(RayArguments(limits={"max_bath": 3}))


def test_the_documented_configuration_is_one_that_serve_takes() -> None:
    from pathlib import Path

    import yaml
    from ray.serve.schema import ServeDeploySchema

    from medseg_gym.serving.limits import Limits
    from medseg_gym.serving.ray_serve.app import RayArguments, application

    path = Path(__file__).parents[2] / "docs" / "how-to" / "ray_serve.yaml"
    result = ServeDeploySchema.parse_obj(yaml.safe_load(path.read_text()))
    (app,) = result.applications
    arguments = RayArguments(**app.args)
    Limits(**arguments.limits)
    assert app.import_path == f"{application.__module__}:{application.__name__}"
    assert [d.name for d in app.deployments] == ["Segmenter"]
