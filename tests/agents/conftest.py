"""A training run that takes seconds, a tiny model that makes calls, a server of completions."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .chat_scripts import OPTIONS


@pytest.fixture(scope="session")
def small_run() -> dict:
    """Settings of a run on synthetic cases with the image-blind segmenter."""
    return {
        "cases": "phantoms:fundus",
        "pool": 8,
        "backbone": "ellipse",
        "image_size": 32,
        "bins": 16,
        "max_steps": 3,
        "num_envs": 4,
        "rollout": 16,
        "minibatch": 32,
        "epochs": 2,
        "width": 4,
        "steps": 128,
        "eval_every": 64,
        "eval_cases": 4,
        "checkpoint_every": 64,
        "test_cases": 0,
    }


def answers(turn, variant):
    """Completions to learn: a box, then a click or nothing readable, then stop."""
    from medseg_gym.prompts import AddBox, AddPoint, Stop, encode_tool_call

    box = AddBox(0.2505, 0.2505, 0.7505, 0.7505 if variant % 2 else 0.5005)
    click = AddPoint(0.5005, 0.4005, bool(variant % 3))
    words = [encode_tool_call(box), encode_tool_call(click), encode_tool_call(Stop())]
    if turn == 1 and variant % 4 == 3:
        return "Let me see."
    return words[turn]


@pytest.fixture(scope="session")
def caller(tmp_path_factory, small_cases):
    """Folder of a vision-language model that has learned in seconds to make valid calls."""
    pytest.importorskip("trl")
    from medseg_agents.llm.checkpoint import save_view
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    from medseg_gym.policy import make_envs

    view = {"image_size": 64, "texts": "terse"}
    options = {"cases": small_cases, "backbone": "ellipse", "max_steps": 3, **view}
    envs = make_envs(len(small_cases), "MedSegChat-v0", **options)
    conversations, texts = played(envs, [case.key for case in small_cases], answers)
    size = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=1)
    path = build_tiny(tmp_path_factory.mktemp("caller"), texts, size)
    teach(path, conversations)
    save_view(path, view, {})
    return path


def played(envs, keys, answers):
    """Conversations of six ways to play each case, and the texts that they show."""
    conversations, texts = [], set()
    for variant in range(6):
        observations, _ = envs.reset(options={"case": keys})
        for turn in range(3):
            texts |= set(observations["text"])
            observations, *_ = envs.step([answers(turn, variant)] * len(keys))
        conversations += [(envs.messages(s), envs.images(s)) for s in range(len(keys))]
    return conversations, sorted(texts)


def teach(path, conversations):
    """Train the model in a folder for some seconds on conversations, and save it there."""
    import torch
    from medseg_agents.llm.checkpoint import load_model, load_processor

    model, processor = load_model(path), load_processor(path)
    batches = []
    for start in range(0, len(conversations), 6):
        some = conversations[start : start + 6]
        batch = processor(
            text=processor.apply_chat_template([m for m, _ in some], tokenize=False),
            images=[list(shown) for _, shown in some],
            padding=True,
            return_tensors="pt",
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[labels == model.config.image_token_id] = -100
        batches.append({**batch, "labels": labels})
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        for step in range(80):
            loss = model(**batches[step % len(batches)]).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    assert loss.item() < 0.5, loss.item()
    model.eval().save_pretrained(path)


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
def direct():
    """Plays answers on a case in the environment itself: rewards and the last info."""
    import gymnasium as gym

    import medseg_gym  # noqa: F401  (registers the ids)

    made = []

    def play(case, answers, **options):
        env_id = options.pop("env_id", "MedSegChat-v0")
        env = gym.make(env_id, **{**OPTIONS, **options}).unwrapped
        made.append(env)
        env.reset(options={"case": case})
        rewards, info = [], {}
        for answer in answers:
            _, reward, terminated, _, info = env.step(answer)
            rewards.append(reward)
        return rewards, info, terminated

    yield play
    for env in made:
        env.close()
