"""Somebody else's store does not decide where keys and images go."""

import http.server
import json
import threading
from dataclasses import replace

import pytest

from medseg_gym.trajectories import TrajectoryError, TrajectoryStore, TrajectoryWriter, replay_store

KEY = "a-key-of-the-user-0123456789"


@pytest.fixture
def listener():
    """A server that writes down what it is sent and answers 401."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, dict(self.headers)))
            body = json.dumps({"detail": "who are you?"}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1], seen
    server.shutdown()
    thread.join()
    server.server_close()


def rewritten(path, out, backbone, **backbone_options):
    """The store, as somebody else may have written it."""
    with TrajectoryWriter(out) as writer:
        for one in TrajectoryStore(path):
            options = {**one.facts.options, "backbone_options": backbone_options}
            id = writer.begin(replace(one.facts, backbone=backbone, options=options))
            writer.add([(id, step) for step in one.steps])
    return TrajectoryStore(out)


@pytest.mark.parametrize("form", ["http:http://{}:{}", "http://{}:{}", "http:{}:{}"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_replay_sends_no_key_to_an_address_out_of_a_store(
    form, host, listener, make_store, small_cases, tmp_path, monkeypatch
):
    port, seen = listener
    monkeypatch.setenv("MEDSEG_SERVICE_KEY", KEY)
    address = form.format(host, port)
    store = rewritten(make_store(), tmp_path / "theirs", address, retries=0, key="theirs")
    with pytest.raises(TrajectoryError, match=r"401.*name the service yourself \(--backbone\)"):
        replay_store(store, cases=list(small_cases))
    assert seen and not any("Authorization" in headers for _, headers in seen)
    assert not any(KEY in str(sent) for sent in seen)
    seen.clear()
    with pytest.raises(TrajectoryError, match="401"):
        replay_store(store, address, cases=list(small_cases))
    assert seen[0][1]["Authorization"] == f"Bearer {KEY}", "the user named it"


@pytest.mark.parametrize(
    "address",
    [
        "http:http://example.invalid:80",
        "https://example.invalid",
        "http:example.invalid",
        "http://127.0.0.1.example.invalid",
        "http://127.0.0.1@example.invalid",
        "http://10.0.0.1:8265",
        "http:http://[",
    ],
)
def test_replay_asks_before_it_goes_to_another_machine(
    address, make_store, small_cases, tmp_path, monkeypatch
):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it went there"))
    store = rewritten(make_store(), tmp_path / "theirs", address)
    with pytest.raises(TrajectoryError, match="if images and your key may be sent there, name"):
        replay_store(store, cases=list(small_cases))


def test_a_store_decides_on_no_folder_of_this_machine(make_store, small_cases, tmp_path):
    store = rewritten(make_store(), tmp_path / "theirs", "ellipse", store=str(tmp_path / "planted"))
    replay_store(store, cases=list(small_cases), limit=1)
    assert not (tmp_path / "planted").exists()


def test_a_recording_tells_no_key():
    from medseg_gym.backbones.families.ellipse import EllipseBackbone
    from medseg_gym.envs.options import EnvOptions
    from medseg_gym.trajectories.recording.provenance import option_facts

    given = EnvOptions(backbone="http:http://h", backbone_options={"key": KEY, "retries": 1})
    facts = option_facts(given, "source", EllipseBackbone(), {}, "policy", False)
    assert facts["options"]["backbone_options"] == {"retries": 1} and KEY not in str(facts)
