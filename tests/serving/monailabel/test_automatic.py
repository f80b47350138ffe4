"""A policy appears as a model that works by itself, with the mask of the suite's own run."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
from medseg_agents import policies

from medseg_gym.cases import CaseList
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.policy import make_envs, play_cases
from tests.serving.monailabel.test_infer import label_of


class Broken:
    """A policy that fails."""

    name = "broken"
    env_id = "MedSegVolume-v0"
    view: ClassVar[dict[str, Any]] = {}
    sees_truth = False

    def build(self, envs: Any) -> Broken:
        return self

    def reset(self, slots: Any, generators: Any) -> None:
        pass

    def act(self, observations: Observations) -> Any:
        raise RuntimeError("no answer")


def segment(client, model: str, tmp_path, **params: Any) -> np.ndarray:
    data = {"params": json.dumps(params)}
    answer = client.post(f"/infer/{model}?image=one&output=image", data=data)
    return label_of(answer, tmp_path / "label.nii.gz")


def test_policies_of_volumes_and_of_images_segment_scans(label_server, studies, tmp_path) -> None:
    from dataclasses import replace

    specs = [policies.make(text) for text in ("middle-box", "centre-box", "stop")]
    client = label_server(studies=studies, policies=specs, labels=("liver",))
    models = client.get("/info/").json()["models"]
    assert {n: m["type"] for n, m in models.items() if n in ("middle-box", "centre-box")} == {
        "middle-box": "segmentation",
        "centre-box": "segmentation",
    }
    assert models["middle-box"]["labels"] == {"liver": 1}
    case = replace(read_volume_file(studies / "one.nii.gz", "liver"), truth_known=True)
    slices = [case.slice_case(i) for i in range(case.depth)]
    envs = make_envs(1, cases=CaseList(slices), backbone="ellipse", device="cpu")
    policy = policies.make("centre-box").build(envs)
    played = [one for batch in play_cases(envs, policy, [s.key for s in slices]) for one in batch]
    expected = np.stack([one.episode.state.mask.numpy() for one in played])
    envs.close()
    first = segment(client, "centre-box", tmp_path)
    np.testing.assert_array_equal(first > 0, case.geometry.stored(expected))
    np.testing.assert_array_equal(segment(client, "centre-box", tmp_path), first)
    assert segment(client, "middle-box", tmp_path).any()
    assert not segment(client, "stop", tmp_path).any()


def test_each_label_is_asked_for_and_the_first_keeps_its_voxels(
    label_server, studies, tmp_path
) -> None:
    client = label_server(
        studies=studies, policies=[policies.make("middle-box")], labels=("liver", "spleen")
    )
    assert set(np.unique(segment(client, "middle-box", tmp_path))) == {0, 1}


def test_a_policy_that_fails_gives_no_mask(label_server, studies) -> None:
    client = label_server(studies=studies, policies=[Broken()])
    answer = client.post("/infer/broken?image=one", data={"params": "{}"})
    assert answer.status_code == 500 and "its log tells the cause" in answer.json()["detail"]
    assert client.post("/infer/ellipse?image=one", data={"params": "{}"}).status_code == 422


class Slow(Broken):
    """A policy that waits for a sign."""

    name = "slow"
    sign = threading.Event()

    def act(self, observations: Observations) -> Any:
        self.sign.wait(20)
        return np.array([[7, 0, 0, 0, 0, 0]])  # stop


def test_few_scans_wait_for_a_policy(label_server, studies) -> None:
    client = label_server(studies=studies, policies=[Slow()])

    def ask(_: int) -> int:
        return client.post("/infer/slow?image=one&output=json", data={"params": "{}"}).status_code

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, i) for i in range(8)]
        deadline = time.monotonic() + 15
        while sum(one.done() for one in asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        Slow.sign.set()
        statuses = sorted(one.result() for one in asked)
    assert statuses == [200] * 5 + [503] * 3


@pytest.mark.parametrize(
    ("text", "name"), [("volume:random", "volume-random"), ("volume:stop?slices=8", None)]
)
def test_names_of_models_stand_in_a_path(label_server, studies, text, name) -> None:
    client = label_server(studies=studies, policies=[policies.make(text)])
    (model,) = set(client.get("/info/").json()["models"]) - {"ellipse", "ellipse_2d"}
    assert (name is None or model == name) and not set(model) & set(":/?=")
    answer = client.post(f"/infer/{model}?image=one&output=json", data={"params": "{}"})
    assert answer.status_code == 200, answer.text
