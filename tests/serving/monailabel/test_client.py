"""MONAI Label's own client class, of its package, against the service.

The package pins far more than its client needs, so it is not among this project's dependencies:
`pip install --no-deps --target FOLDER monailabel` and MEDSEG_MONAILABEL=FOLDER let these tests run,
as `.ci/run` does. The same routes are tested with plain requests in the files beside this one.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from medseg_agents import policies

from medseg_gym.serving.middleware.api_keys import ApiKeys
from tests.serving.monailabel.conftest import write_nifti
from tests.serving.monailabel.test_infer import BOX

KEY = "a key of sixteen characters".replace(" ", "-")


@pytest.fixture(scope="session")
def monailabel() -> Any:
    """The client's module alone: the package's other modules need what is not installed here."""
    folder = os.environ.get("MEDSEG_MONAILABEL", "")
    path = Path(folder) / "monailabel" / "client" / "client.py"
    if not folder or not path.is_file():
        pytest.skip("set MEDSEG_MONAILABEL to a folder with the package monailabel")
    for needed in ("requests", "cgi"):  # Python 3.13 has no cgi: pip install legacy-cgi
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pytest.importorskip(needed, reason=f"MONAI Label's client needs {needed}")
    spec = importlib.util.spec_from_file_location("monailabel_client", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        spec.loader.exec_module(module)
    return module


# The client leaves its connections and files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_3d_slicer_s_plugin_does(monailabel, label_server, studies, tmp_path) -> None:
    http = label_server(studies=studies, policies=[policies.make("middle-box")])
    client = monailabel.MONAILabelClient(str(http.base_url), str(tmp_path), "slicer")
    assert not client.auth_enabled()
    assert {"ellipse", "ellipse_2d", "middle-box"} == set(client.info()["models"])
    assert client.train_status(True) is False

    scan = write_nifti(tmp_path / "own scan.nii.gz")
    session = client.create_session(str(scan))["session_id"]
    assert client.get_session(session)["image"] == "own scan.nii.gz"
    params = {
        "label": "liver",
        "foreground": [[15, 30, 4]],
        "background": [[2, 3, 4]],
        "roi": BOX,
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
    }
    path, result = client.infer("ellipse", "own scan", dict(params), session_id=session)
    assert path.endswith(".nrrd") and result["label_names"] == {"liver": 1}
    params["result_extension"] = ".nii.gz"
    label = nibabel.load(client.infer("ellipse", "", dict(params), session_id=session)[0])
    np.testing.assert_array_equal(label.affine, nibabel.load(scan).affine)
    by_file = client.infer("ellipse", "", dict(params), file=str(scan))[0]
    assert Path(by_file).read_bytes() == Path(label.get_filename()).read_bytes()
    path, _ = client.infer("middle-box", "one", {})
    assert nibabel.load(path).shape == label.shape
    assert client.remove_session(session)["name"] == session
    with pytest.raises(monailabel.MONAILabelClientException) as caught:
        client.get_session(session)
    assert caught.value.status_code == 404

    sample = client.next_sample("first", {})
    assert sample["id"] == "one"
    assert client.save_label("one", path, params={"label_info": [{"name": "liver"}]})["label"]
    labels = client.datastore()["objects"]["one"]["labels"]
    assert labels["final"]["info"]["label_info"] == [{"name": "liver"}]
    back = client.download_label("one", "final")
    assert Path(back).read_bytes() == Path(path).read_bytes()
    assert client.upload_image(str(scan), "three") == {"image": "three"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_key_is_the_password_of_the_login(monailabel, label_server, studies) -> None:
    http = label_server(ApiKeys({"ann": KEY}), studies=studies)
    client = monailabel.MONAILabelClient(str(http.base_url))
    assert client.auth_enabled() and not client.auth_valid_token()
    with pytest.raises(monailabel.MONAILabelClientException):
        client.info()
    with pytest.raises(monailabel.MONAILabelClientException):
        client.auth_token("ann", "wrong")
    client.update_auth(client.auth_token("ann", KEY))
    assert client.auth_valid_token() and client.info()["models"]
