"""Trackers: TensorBoard, W&B and MLflow as they are, one of a user's own, and what is missing."""

import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
from medseg_agents.runs import trackers
from medseg_agents.runs.log import RunLog, read_progress
from medseg_agents.runs.trackers import Table
from rich.console import Console

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.errors import MedSegError

QUIET = Console(quiet=True)
IMAGE = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
TABLE = Table(
    ("case", "image", "completion", "reward"),
    (("a", IMAGE, "<tool_call>\n| `b` |", 0.5), ("b", IMAGE, "", -0.01)),
)


def write_run(folder, *log_to, step=0, rows=(1, 2)):
    """A run of two rows with a table and an alert."""
    with RunLog(folder, 9, step=step, console=QUIET, log_to=log_to) as log:
        for row in rows:
            log.write(row, {"return": float(row), "dice": float("nan"), "grad_norm": 1.0})
        log.write_table(rows[-1], "samples", TABLE)
        log.write_sheet(rows[-1], png_bytes(IMAGE))
        for _ in range(3):
            log.write(rows[-1], {"frac_reward_zero_std": 1.0})


def board_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0, "images": 0})
    board.Reload()
    return board


def test_tensorboard_shows_numbers_tables_with_images_and_alerts(tmp_path):
    write_run(tmp_path, "tensorboard")
    board = board_of(tmp_path)
    assert [(e.step, e.value) for e in board.Scalars("return")] == [(1, 1.0), (2, 2.0)]
    assert "dice" not in board.Tags()["scalars"]
    assert len(board.Images("samples/image")) == 1
    (sheet,) = board.Images("val/episodes")
    assert (sheet.step, sheet.width, sheet.height) == (2, 16, 16)
    assert (tmp_path / "samples" / "step-00002.png").stat().st_size > 100
    (text,) = board.Tensors("samples/text_summary")
    (shown,) = text.tensor_proto.string_val
    assert "| 1 | `a` | image 1 | `<tool_call> ⏎ \\| 'b' \\|` | 0.5 |" in shown.decode()
    (alert,) = board.Tensors("alert/equal_rewards/text_summary")
    assert b"all groups have equal reward" in alert.tensor_proto.string_val[0]


def test_images_of_different_sizes_are_shown_one_by_one(tmp_path):
    with RunLog(tmp_path, 1, console=QUIET) as log:
        log.write_table(1, "t", Table(("image",), ((IMAGE,), (IMAGE[:8],))))
    assert board_of(tmp_path).Tags()["images"] == ["t/image/1", "t/image/2"]


class Listing:
    """A tracker of one's own."""

    made: ClassVar[list] = []

    def __init__(self, folder, step, colour="red"):
        self.calls = [("made", folder.name, step, colour)]
        Listing.made.append(self)

    def write_metrics(self, step, metrics):
        self.calls.append(("metrics", step, sorted(metrics)))

    def write_table(self, step, name, table):
        self.calls.append(("table", step, name, len(table.rows)))

    def write_image(self, step, name, image):
        self.calls.append(("image", step, name, image.shape))

    def write_alert(self, step, name, text):
        self.calls.append(("alert", step, name))

    def close(self, failed):
        self.calls.append(("closed", failed))


def test_a_tracker_of_ones_own_is_told_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(Listing, "made", [])
    monkeypatch.setattr(trackers.registry.TRACKERS, "_kinds", {"listing": Listing})
    assert trackers.names() == ("listing",)
    write_run(tmp_path / "run", "listing?colour=blue")
    assert Listing.made[0].calls == [
        ("made", "run", 0, "blue"),
        ("metrics", 1, ["grad_norm", "return", "steps_per_second"]),
        ("metrics", 2, ["grad_norm", "return", "steps_per_second"]),
        ("table", 2, "samples", 2),
        ("image", 2, "val/episodes", (16, 16, 3)),
        *[("metrics", 2, ["frac_reward_zero_std"])] * 3,
        ("alert", 2, "equal_rewards"),
        ("closed", False),
    ]
    with pytest.raises(KeyboardInterrupt), RunLog(tmp_path / "b", 1, log_to=("listing",)):
        raise KeyboardInterrupt
    assert Listing.made[1].calls[-1] == ("closed", True)
    with pytest.raises(MedSegError, match="unknown tracker 'wandbb'"):
        RunLog(tmp_path / "c", 1, log_to=("listing", "wandbb"))
    assert Listing.made[2].calls[-1] == ("closed", True)


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_tracker_whose_package_is_missing_names_the_line_that_installs_it(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    with pytest.raises(MedSegError, match=rf'not installed: pip install "medseg-gym\[{kind}\]"'):
        RunLog(tmp_path, 1, console=QUIET, log_to=("tensorboard", kind))


def test_trackers_are_named_once_and_divided_like_every_spec(tmp_path):
    named = "tensorboard,wandb?project=a,b&mode=offline,mlflow?uri=file:/tmp/x"
    assert trackers.split(named) == [
        "tensorboard",
        "wandb?project=a,b&mode=offline",
        "mlflow?uri=file:/tmp/x",
    ]
    with pytest.raises(MedSegError, match="'tensorboard' twice"):
        RunLog(tmp_path, 1, console=QUIET, log_to=("tensorboard", "tensorboard"))


def test_importing_trackers_imports_no_package_that_was_not_asked_for():
    importlib.import_module("medseg_agents.runs.log")
    assert not {"mlflow", "wandb"} & set(sys.modules)


@pytest.mark.filterwarnings("ignore")  # of the package
def test_wandb_offline_keeps_a_run_that_is_resumed_under_one_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_run(tmp_path, "wandb?project=test")
    identity = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    write_run(tmp_path, "wandb?project=test", step=1, rows=(2, 3))
    assert json.loads((tmp_path / "trackers.json").read_text())["wandb"] == identity
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(identity) for folder in folders)
    for folder in folders:
        assert (folder / f"run-{identity}.wandb").stat().st_size > 0
        assert list(folder.rglob("samples/image_*.png"))
        assert list(folder.rglob("val/episodes_*.png"))
        assert list(folder.rglob("samples*.table.json"))


@pytest.mark.filterwarnings("ignore")  # of the package
def test_wandb_without_a_login_names_the_way_out(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(MedSegError, match=r'log to "wandb\?mode=offline"'):
        RunLog(tmp_path / "run", 1, console=QUIET, log_to=("wandb?mode=online",))


@pytest.mark.filterwarnings("ignore")  # of the package
def test_mlflow_keeps_a_run_that_is_resumed_under_one_id(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its newest versions ask for it
    mlflow = pytest.importorskip("mlflow")
    spec = f"mlflow?uri=file:{tmp_path / 'store'}"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"algorithm": "GRPORun", "lr": 1e-6}')
    write_run(tmp_path / "run", spec)
    write_run(tmp_path / "run", spec, step=1, rows=(2, 3))
    client = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path / 'store'}")
    identity = json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
    run = client.get_run(identity)
    assert run.info.status == "FINISHED" and run.data.params["lr"] == "1e-06"
    history = [(m.step, m.value) for m in client.get_metric_history(identity, "return")]
    assert history == [(1, 1.0), (2, 2.0), (2, 2.0), (3, 3.0)]
    assert "all groups have equal reward" in run.data.tags["alert.equal_rewards"]
    names = {item.path for item in client.list_artifacts(identity, "samples/step-000000003")}
    assert {name.rsplit("/")[-1] for name in names} == {
        "table.html",
        "image-001.png",
        "image-002.png",
    }
    sheets = [item.path for item in client.list_artifacts(identity, "val/episodes")]
    assert sheets == ["val/episodes/step-000000002.png", "val/episodes/step-000000003.png"]


class Leaving(Listing):
    """A tracker that does not answer after its first row."""

    def write_metrics(self, step, metrics):
        super().write_metrics(step, metrics)
        if step > 1:
            raise trackers.TrackerLost("the server is away")


def test_a_tracker_that_is_lost_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Listing, "made", [])
    kinds = {"leaving": Leaving, "listing": Listing}
    monkeypatch.setattr(trackers.registry.TRACKERS, "_kinds", kinds)
    console = Console(file=io.StringIO(), width=300)
    with RunLog(tmp_path, 4, console=console, log_to=("leaving", "listing")) as log:
        for row in (1, 2, 3):
            log.write(row, {"return": float(row)})
    lost, other = Listing.made
    assert [call[1] for call in lost.calls if call[0] == "metrics"] == [1, 2]
    assert [call[1] for call in other.calls if call[0] == "metrics"] == [1, 2, 3]
    assert ("closed", False) not in lost.calls and other.calls[-1] == ("closed", False)
    shown = console.file.getvalue()
    assert shown.count("steps 2: the server is away; the run goes on without it") == 1
    assert [row["step"] for row in read_progress(tmp_path)] == [1, 2, 3]


@pytest.fixture
def mlflow(monkeypatch):
    for name in ("MAX_RETRIES", "TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
    return pytest.importorskip("mlflow")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.filterwarnings("ignore")  # of the package
def test_an_mlflow_server_that_is_down_ends_the_run_before_it_begins(tmp_path, mlflow):
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(MedSegError, match=rf"MLflow at {uri} does not take the run: .*sqlite:"):
        RunLog(tmp_path, 1, console=QUIET, log_to=(f"mlflow?uri={uri}",))
    assert time.monotonic() - began < 15
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert not (tmp_path / "trackers.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package
def test_an_mlflow_server_that_goes_away_ends_the_tracking_alone(tmp_path, mlflow, monkeypatch):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path / 'runs.db'}",
               "--artifacts-destination", str(tmp_path / "artifacts")]  # fmt: skip
    console = Console(file=io.StringIO(), width=400)
    server = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while not _answers(port):
            assert server.poll() is None
            time.sleep(0.1)
        with RunLog(tmp_path / "run", 4, console=console, log_to=(f"mlflow?uri={uri}",)) as log:
            log.write(1, {"return": 1.0})
            identity = json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
            history = mlflow.MlflowClient(tracking_uri=uri).get_metric_history(identity, "return")
            assert [(one.step, one.value) for one in history] == [(1, 1.0)]
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # what a user sets counts
            log.write(2, {"return": 2.0})
            log.write(3, {"return": 3.0})
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert console.file.getvalue().count(f"steps 2: MLflow at {uri} does not answer: ") == 1
    assert [row["step"] for row in read_progress(tmp_path / "run")] == [1, 2, 3]


def _answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
