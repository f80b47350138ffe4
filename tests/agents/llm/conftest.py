"""A tiny model, and a server of OpenAI's chat completions on loopback that says what it is told."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from medseg_agents import policies

from medseg_gym.policy import make_envs

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    path = tmp_path_factory.mktemp("tiny")
    texts = ["liver in abdomen CT, 5 calls.", "3 left.", "no change, 2 left."]
    return build_tiny(path, texts, TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=2))


class Server:
    """A real server on loopback that says what `reply(request, number)` returns.

    `reply` gives (status, headers, body), an answer's text, or None to hang up in the middle of an
    answer; it may take its time.
    """

    def __init__(self, reply):
        server = self
        self.requests, self.busy, self.peak = [], 0, 0
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(server.requests)
                    server.requests.append(request)
                    server.busy += 1
                    server.peak = max(server.peak, server.busy)
                outcome = reply(request, number)
                if outcome is None:
                    with lock:
                        server.busy -= 1
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
                    self.close_connection = True
                    return
                status, headers, body = (
                    outcome if isinstance(outcome, tuple) else (200, {}, answer(outcome))
                )
                with lock:
                    server.busy -= 1
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def answer(text, finish="stop", **message):
    """A completion as OpenAI's API sends it."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    whole = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": whole, "finish_reason": finish}
    return {
        **{"id": "x", "object": "chat.completion", "created": 1, "model": "m"},
        **{"choices": [choice], "usage": usage},
    }


@pytest.fixture
def serve():
    servers = []

    def start(reply):
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def completion():
    """Makes a completion: `completion(text, finish_reason, **message)`."""
    return answer


@pytest.fixture
def build():
    """Makes environments and the policy of a server; closes both."""
    made = []

    def start(server_url, cases, num_envs=2, query="", **options):
        if "image_size" not in query:
            query += "&image_size=32"  # images take the time here
        policy_spec = policies.make(f"openai:m?base_url={server_url}{query}")
        envs = make_envs(
            num_envs,
            policy_spec.env_id,
            cases=cases,
            backbone="ellipse",
            **policy_spec.view,
            **options,
        )
        made.append((envs, policy_spec.build(envs)))
        return made[-1]

    yield start
    for envs, policy in made:
        policy.close()
        envs.close()
