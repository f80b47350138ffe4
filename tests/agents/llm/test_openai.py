"""Models behind servers: what is sent, what comes back, and every way in which a server fails."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from medseg_agents import policies
from medseg_agents.evaluation.evaluate import RecordFile, evaluate, run_settings
from medseg_agents.llm.openai import OpenAIOptions, OpenAIPolicy
from PIL import Image

from medseg_gym.envs.views.chat_texts import TERSE
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, Stop, encode_tool_call

BOX, STOP = encode_tool_call(AddBox(0.3, 0.2, 0.8, 0.7)), encode_tool_call(Stop())


def parts(message, kind):
    return [part for part in message["content"] if part["type"] == kind]


@pytest.mark.parametrize(("history", "images"), [("all", 3), ("2", 2), ("1", 1), ("none", 1)])
def test_what_the_model_is_shown(history, images, serve, build, small_cases):
    completions = [f"first {BOX}", "nothing", STOP]
    server = serve(lambda request, number: completions[number])
    query = f"&history={history}&image_size=32&detail=low&price_in=2&price_out=30"
    envs, policy = build(server.url, small_cases[:1], 1, query)
    (record,) = evaluate(envs, policy)
    assert record.tools == ("box", "", "stop") and record.invalid == 1 and record.stopped
    last = server.requests[-1]
    assert last["model"] == "m" and last["temperature"] == 0 and last["max_tokens"] == 512
    messages = envs.messages(0)[:-1]
    texts = [m["content"][-1]["text"] for m in messages]
    sent = last["messages"]
    urls = [part["image_url"]["url"] for m in sent for part in m["content"] if "image_url" in part]
    shown = envs.images(0)[-images:]
    for url, image in zip(urls, shown, strict=True):
        head, _, data = url.partition(",")
        assert head == "data:image/png;base64"
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image
        )
    if history == "none":
        assert [m["role"] for m in sent] == ["system", "user"]
        assert parts(sent[1], "text")[0]["text"] == f"{texts[1]}\n{texts[5]}"
    else:
        assert [m["role"] for m in sent] == [m["role"] for m in messages]
        for number, (message, text) in enumerate(zip(sent, texts, strict=True)):
            if number % 2 and number > 5 - 2 * images:
                assert [p.get("text") for p in message["content"]] == [None, text]
            else:
                assert message["content"] == text
        assert all(part["image_url"]["detail"] == "low" for part in parts(sent[-1], "image_url"))
    usage = policy.usage
    assert (usage.requests, usage.prompt_tokens, usage.answer_tokens) == (3, 300, 30)
    assert usage.cost == pytest.approx((300 * 2 + 30 * 30) / 1e6) and "$0.0015" in str(usage)


def test_slots_are_asked_at_once_and_ended_ones_not_at_all(serve, build, small_cases):
    def reply(request, number):
        until = time.monotonic() + 20
        while server.peak < 3 and time.monotonic() < until:  # however late the others come
            time.sleep(0.005)
        time.sleep(0.05)  # for a fourth, if it came
        target = request["messages"][1]["content"][1]["text"]
        return BOX if "nothing" in target and len(request["messages"]) < 4 else STOP

    server = serve(reply)
    envs, policy = build(server.url, small_cases, 5, "&concurrency=3")
    records = evaluate(envs, policy)
    assert [r.tools for r in records] == [("stop",)] * 4 + [("box", "stop")]
    assert len(server.requests) == 6 and server.peak == 3


def test_a_short_batch_asks_for_no_spare_slots(serve, build, small_cases):
    server = serve(lambda request, number: STOP)
    envs, policy = build(server.url, small_cases, 4)
    assert len(evaluate(envs, policy)) == 5 and len(server.requests) == 5


def test_seeds_depend_on_case_and_turn_alone(serve, build, small_cases):
    seeds = []
    for num_envs in (1, 3):
        server = serve(lambda request, number: BOX)
        envs, policy = build(server.url, small_cases[:3], num_envs, max_steps=2)
        evaluate(envs, policy, seed=7)
        seeds.append(
            sorted((json.dumps(r["messages"][-1])[-4000:], r["seed"]) for r in server.requests)
        )
    assert seeds[0] == seeds[1] and len({seed for _, seed in seeds[0]}) == 6


def test_keys(serve, build, small_cases, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        PolicyError, match="needs an API key in the environment variable OPENAI_API"
    ):
        OpenAIPolicy("gpt")
    with pytest.raises(PolicyError, match="variable OTHER"):
        OpenAIPolicy("gpt", options=OpenAIOptions(key_env="OTHER"))
    server = serve(lambda request, number: STOP)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    policy = OpenAIPolicy("m", over=TERSE.over)
    policy.reset([1], [np.random.default_rng(0)])
    images = np.zeros((3, 8, 8, 3), np.uint8)
    assert policy.act({"text": ("a", "b", "c"), "image": images}) == ["", STOP, ""]
    assert policy.act({"text": ("a", TERSE.over, "c"), "image": images}) == ["", "", ""]
    assert len(server.requests) == 1
    policy.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("openai:", "names nothing"),
        ("openai:m?warmth=1", "no option 'warmth'; it takes: base_url, .*thinking"),
        ("openai:m?temperature=hot", "temperature cannot be 'hot'"),
        ("openai:m?history=0", "history must be"),
        ("openai:m?concurrency=0", "concurrency"),
    ],
)
def test_names_that_cannot_be_read(text, words):
    with pytest.raises(PolicyError, match=words):
        policies.make(text)


def test_names_carry_options_of_view_and_policy():
    policy_spec = policies.make(
        "openai:org/m:8b?texts=terse&image_size=96&thinking=yes&tools=box+stop"
    )
    assert policy_spec.env_id == "MedSegChat-v0" and policy_spec.name.startswith("openai:org/m:8b")
    assert policy_spec.view == {
        **{"texts": "terse", "image_size": 96, "thinking": True, "tools": ("box", "stop")}
    }


def test_commands_take_it(serve, small_cases, tmp_path):
    from medseg_agents.commands.compare import compare_policies
    from medseg_agents.evaluation.options import CompareOptions, EvalOptions
    from medseg_agents.evaluation.run import run_evaluation
    from typer.testing import CliRunner

    from medseg_gym.cli.main import add_installed_commands, app

    server = serve(lambda request, number: STOP if len(request["messages"]) > 2 else f"So: {BOX}")
    name = f"openai:m?base_url={server.url}&image_size=64&price_out=1"
    add_installed_commands(app)
    Image.fromarray(small_cases[0].image).save(tmp_path / "scan.png")
    arguments = ["run", str(tmp_path / "scan.png"), "--target", "blob", "--backbone", "ellipse"]
    result = CliRunner().invoke(app, [*arguments, "--policy", name, "--out", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "r" / "record.json").read_text())
    assert [step["answer"] for step in record["steps"]] == [f"So: {BOX}", STOP]
    assert record["usage"]["cost"] == pytest.approx(2e-5) and record["usage"]["requests"] == 2
    assert record["options"]["view"]["image_size"] == 64

    options = EvalOptions(cases="samples", policy=name, backbone="ellipse", num_envs=3, limit=5)
    run = run_evaluation(options, tmp_path / "e")
    assert run.usage["requests"] == 10 and run.records[4].answers == (f"So: {BOX}", STOP)
    assert run.settings["policy"] == "openai:m"
    assert run.settings["policy_settings"]["url"] == server.url

    compared = CompareOptions(policies=("stop", name), backbones=("ellipse",), limit=4, num_envs=2)
    compare_policies(compared, out=tmp_path / "c")
    rows = json.loads((tmp_path / "c" / "results.json").read_text())["rows"]
    assert {row["policy"] for row in rows} == {"stop", "openai:m"}


# a real model server ----------------------------------------------------------------------------
class ModelServer:
    """`transformers serve` on loopback, with a tiny Qwen3-VL of random weights."""

    def __init__(self, checkpoint):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        program = Path(sys.executable).with_name("transformers")
        self.process = subprocess.Popen(
            [program, "serve", str(checkpoint), "--port", str(port), "--device", "cpu"],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(300):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, "transformers serve ended by itself"
            time.sleep(0.2)
        raise AssertionError("transformers serve does not answer")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory):
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny
    from transformers import AutoConfig, AutoProcessor, GenerationConfig

    path = tmp_path_factory.mktemp("tiny")
    config = TinyConfig(image_size=32, hidden=64, layers=1, vision_layers=2)
    build_tiny(path, [TERSE.opening, TERSE.turn, BOX], config)
    # Random weights say special tokens and blanks as often as any; the server leaves them out.
    tokenizer = AutoProcessor.from_pretrained(path).tokenizer
    generation = GenerationConfig.from_pretrained(path)
    vocabulary = range(AutoConfig.from_pretrained(path).text_config.vocab_size)
    shown = [tokenizer.decode([i], skip_special_tokens=True) for i in vocabulary]
    generation.suppress_tokens = [i for i in vocabulary if not shown[i].strip()]
    generation.save_pretrained(path)
    return path


@pytest.mark.slow
def test_a_model_server_answers_as_the_model_does_and_may_be_killed(
    tiny_checkpoint, small_cases, tmp_path
):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    server = ModelServer(tiny_checkpoint)
    name = f"openai:{tiny_checkpoint}?base_url={server.url}&retries=1&max_tokens=12"
    policy_spec = policies.make(f"{name}&texts=terse&image_size=32&concurrency=2")
    envs = make_envs(2, "MedSegChat-v0", cases=small_cases, backbone="ellipse", **policy_spec.view)
    policy = policy_spec.build(envs)
    keys = list(envs.source.keys)
    try:
        records = evaluate(envs, policy)
        messages, drawn = envs.messages(0), envs.images(0)
        file = RecordFile(tmp_path / "r.jsonl", run_settings(envs, policy, keys, 0))
        with pytest.raises(MedSegError, match=r"2 failed cases.*not reached"):
            evaluate(
                envs,
                policy,
                file=file,
                on_batch=lambda batch: server.kill(),
                max_failures=2,
            )
    finally:
        server.kill()
    assert len(file.records) == 2  # the batch before the kill; of the next one, nothing
    assert [(r.case, r.tools) for r in file.records] == [(r.case, r.tools) for r in records[:2]]
    assert policy.usage.requests >= 5 * 5 and policy.usage.uncounted == 0
    assert policy.usage.answer_tokens == policy.usage.cut_off * 12 > 0
    # The last batch's conversation, given to the model itself, ends in the answers it got.
    processor = AutoProcessor.from_pretrained(tiny_checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint)
    answers = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    assert len(answers) == 5 and all(answers)
    for turn, completion in enumerate(answers):
        shown = messages[: 2 * turn + 1]
        text = processor.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
        images = [Image.fromarray(image) for image in drawn[: turn + 1]]
        inputs = processor(text=text, images=images, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == completion
    policy.close()
    envs.close()
