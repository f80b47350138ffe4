"""Every way in which a server fails: asked again, one case given up, or the run ended."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from email.utils import formatdate

import httpx
import pytest
from medseg_agents.evaluation.evaluate import RecordFile, evaluate, run_settings
from medseg_agents.evaluation.options import EvalOptions
from medseg_agents.evaluation.run import run_evaluation
from medseg_agents.llm.openai import ServerError
from medseg_agents.llm.openai.requests import read_retry_after
from PIL import Image
from typer.testing import CliRunner

from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox, Stop, encode_tool_call

BOX, STOP = encode_tool_call(AddBox(0.3, 0.2, 0.8, 0.7)), encode_tool_call(Stop())
SOON = {"retry-after-ms": "1"}
REFUSED = (400, {}, {"error": {"message": "not this one"}})


def target_of(request):
    """The first user turn, in which the target stands."""
    return request["messages"][1]["content"][-1]["text"]


def mirrored(request):
    return "mirrored" in target_of(request)


@pytest.fixture
def records(tmp_path):
    """A file of records for environments and a policy, made anew for the same run."""

    def start(envs, policy):
        keys = list(envs.source.keys)
        return RecordFile(tmp_path / "r.jsonl", run_settings(envs, policy, keys, 0))

    return start


@pytest.fixture
def nowhere():
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


# asked again ------------------------------------------------------------------------------------
def test_busy_and_broken_servers_are_asked_again(serve, build, completion, small_cases):
    replies = [
        None,  # first: without a word from the server, each further try waits twice as long
        (429, SOON, {"error": {"message": "slow down"}}),
        (503, SOON, b"busy"),
        (500, SOON, b"oops"),
        (400, {"x-should-retry": "true", **SOON}, b"{}"),
        (200, {}, completion(STOP)),
    ]
    server = serve(lambda request, number: replies[number])
    envs, policy = build(server.url, small_cases[:1], 1)
    (record,) = evaluate(envs, policy)
    assert record.tools == ("stop",) and len(server.requests) == 6
    assert (policy.usage.requests, policy.usage.repeated, policy.usage.failed) == (1, 5, 0)
    assert all(request == server.requests[0] for request in server.requests)


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"<html>hello</html>", b"null", b"[]", b'{"choices": []}', b'{"error": "busy"}',
     b'{"choices": [{"message": null}]}', b'{"choices": NaN}', b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_answer_is_asked_for_again(body, serve, build, small_cases):
    server = serve(lambda request, number: STOP if number else (200, {}, body))
    envs, policy = build(server.url, small_cases[:1], 1)
    (record,) = evaluate(envs, policy)
    assert record.tools == ("stop",) and policy.usage.repeated == 1


def test_a_slow_answer_is_asked_for_again(serve, build, small_cases):
    server = serve(lambda request, number: STOP if number else time.sleep(1) or BOX)
    envs, policy = build(server.url, small_cases[:1], 1, "&timeout=0.3&retries=2")
    (record,) = evaluate(envs, policy)
    assert record.tools == ("stop",) and policy.usage.requests == 1


@pytest.mark.parametrize("form", ["seconds", "fraction", "date"])
def test_a_server_is_waited_for_as_long_as_it_says(form, serve, build, small_cases):
    times = []

    def reply(request, number):
        times.append(time.monotonic())
        # A date has no fractions of seconds: the wait is between one and two of them.
        wait = {"seconds": "1", "fraction": "1.2", "date": formatdate(time.time() + 2, usegmt=True)}
        return STOP if number else (429, {"Retry-After": wait[form]}, b"{}")

    envs, policy = build(serve(reply).url, small_cases[:1], 1)
    evaluate(envs, policy)
    assert 0.9 < times[1] - times[0] < 30


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "?", "retry-after": "9"}, 9),
        ({"retry-after": "Thu, 01 Jan 1970 00:17:40 GMT"}, 60),
        ({"retry-after": "Thu, 01 Jan 1970 01:17:40 +0100"}, 60),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "Thu, 99 Jan 1970 00:00:00 GMT"}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert read_retry_after(headers, now=1000.0) == seconds


def test_a_wait_beyond_the_limit_is_not_waited_for(serve, build, small_cases):
    server = serve(lambda request, number: (429, {"Retry-After": "3600"}, b"{}"))
    envs, policy = build(server.url, small_cases[:1], 1)
    with pytest.raises(MedSegError, match=r"asks to wait 3600 s, above longest_wait=120"):
        evaluate(envs, policy)
    assert len(server.requests) == 1


# one case fails ---------------------------------------------------------------------------------
def test_a_refused_conversation_fails_its_case_alone(serve, build, small_cases, records):
    def reply(request, number):
        if mirrored(request) and len(request["messages"]) > 2:
            return REFUSED
        return BOX if len(request["messages"]) == 2 else STOP

    server = serve(reply)
    envs, policy = build(server.url, small_cases, 5)
    file, seen = records(envs, policy), []
    played = evaluate(envs, policy, file=file, on_batch=seen.extend, max_failures=9)
    (failed,) = file.failed
    assert len(played) == 4 and all(one.tools == ("box", "stop") for one in played)
    assert failed.case not in {one.case for one in played} and len(seen) == 5
    assert "HTTP 400" in failed.failed and "not this one" in failed.failed
    assert server.url in failed.failed and "\n" not in failed.failed
    assert failed.answers == (BOX,) and failed.tools == ("box",)
    lines = [json.loads(line) for line in file.path.read_text().splitlines()[1:]]
    (line,) = [line for line in lines if "failed" in line]
    assert line["case"] == failed.case and not {"dice", "iou", "nsd"} & set(line)
    assert policy.usage.failed == 1 and len(server.requests) == 10


def test_a_failed_case_is_played_again_and_nothing_else(serve, build, small_cases, records):
    ill = [True]
    server = serve(lambda request, number: REFUSED if ill[0] and mirrored(request) else STOP)
    envs, policy = build(server.url, small_cases, 2)
    first = evaluate(envs, policy, file=records(envs, policy), max_failures=9)
    asked = len(server.requests)
    again = records(envs, policy)
    assert len(again.failed) == 1 and again.records == first
    evaluate(envs, policy, file=again, max_failures=9)
    assert len(server.requests) == asked + 1 and len(again.failed) == 1
    ill[0] = False
    again = records(envs, policy)
    results = evaluate(envs, policy, file=again, max_failures=9)
    assert len(server.requests) == asked + 2
    assert [one.case for one in results] == [case.key for case in small_cases]
    assert again.failed == [] and [one for one in results if one in first] == first
    whole = records(envs, policy)
    assert sorted(one.case for one in whole.records) == sorted(case.key for case in small_cases)
    assert whole.failed == [] and len(whole.path.read_text().splitlines()) == 6


def test_a_kill_while_failed_cases_are_played_again_loses_nothing(
    serve, build, small_cases, records
):
    server = serve(lambda request, number: REFUSED if mirrored(request) else STOP)
    envs, policy = build(server.url, small_cases, 3)
    evaluate(envs, policy, file=records(envs, policy), max_failures=9)
    file = records(envs, policy)
    evaluate(envs, policy, file=file, max_failures=9)
    text = file.path.read_text()
    file.path.write_text(text[:-30])  # torn in the further line of the failed case
    again = records(envs, policy)
    assert len(again.records) == 4 and len(again.failed) == 1
    assert all(json.loads(line) for line in again.path.read_text().splitlines())


def test_a_slot_that_failed_is_used_again(serve, build, small_cases, records):
    server = serve(lambda request, number: REFUSED if number == 0 else STOP)
    envs, policy = build(server.url, small_cases, 2)  # batches of 2, 2 and 1
    file = records(envs, policy)
    played = evaluate(envs, policy, file=file, max_failures=9)
    assert len(played) == 4 and len(file.failed) == 1 and len(server.requests) == 5


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((400, {}, {"error": {"message": "no images"}}), "HTTP 400: .*no images"),
        ((400, {}, b"a plain text"), "HTTP 400: .*a plain text"),
        ((403, {}, {"error": {"message": "flagged"}}), "HTTP 403: .*flagged.*OPENAI_API_KEY"),
        ((422, {}, {"detail": "no"}), "HTTP 422"),
        ((429, SOON, {"error": {"message": "quota"}}), "HTTP 429: .*quota.*concurrency"),
        ((500, SOON, b"oops"), "HTTP 500"),
        ((200, {}, b"<html>hello</html>"), "an answer without a message.*hello.*asked 2 times"),
        ((200, {}, b"{"), "is this a server of OpenAI's chat completions"),
        ((200, {}, {"choices": []}), "an answer without a message"),
        ((200, {}, {"error": "out of memory"}), "an answer without a message.*out of memory"),
        (None, "the connection broke, tried 2 times"),
    ],
    ids=["400", "text", "403", "422", "429", "500", "html", "torn", "empty", "error", "hung up"],
)
def test_reasons_of_a_failed_case(reply, words, serve, build, small_cases, records):
    server = serve(lambda request, number: reply)
    envs, policy = build(server.url, small_cases[:2], 1, "&retries=1")
    file = records(envs, policy)
    with pytest.raises(MedSegError, match=f"2 failed cases.*max_failures=2.*{words}"):
        evaluate(envs, policy, file=file, max_failures=2)
    assert file.records == [] and len(file.failed) == 2


# the run ends -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((401, {}, {"error": {"message": "bad"}}), r"HTTP 401: .*bad.*OPENAI_API_KEY right"),
        ((404, {}, {"error": {"message": "no m"}}), r"HTTP 404: .*no m.*have this model"),
        ((405, {}, b"post is not allowed"), "HTTP 405"),
    ],
    ids=["401", "404", "405"],
)
def test_what_hits_everybody_ends_the_run_at_once(reply, words, serve, build, small_cases, records):
    server = serve(lambda request, number: STOP if number == 0 else reply)
    envs, policy = build(server.url, small_cases, 1)
    file = records(envs, policy)
    with pytest.raises(ServerError, match=words) as caught:
        evaluate(envs, policy, file=file, max_failures=99)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.requests) == 2 and len(file.records) == 1 and file.failed == []


def test_nobody_there_from_the_start_ends_the_run(nowhere, build, small_cases, records):
    envs, policy = build(nowhere, small_cases, 2, "&retries=0")
    file = records(envs, policy)
    with pytest.raises(ServerError, match=rf"{nowhere}: not reached.*is the server running"):
        evaluate(envs, policy, file=file, max_failures=99)
    assert file.records == file.failed == []


@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_a_server_that_is_gone_ends_the_run_after_so_many_failed_cases(
    allowed, serve, build, small_cases, records
):
    gone = [False]

    def reply(request, number):
        return (500, SOON, b"gone") if gone[0] else BOX if number % 3 else STOP

    def lose(batch):
        gone[0] = True

    server = serve(reply)
    envs, policy = build(server.url, small_cases, 1, "&retries=1")
    with pytest.raises(MedSegError, match=rf"^{allowed} failed case.*HTTP 500: gone.*goes on"):
        evaluate(envs, policy, file=records(envs, policy), on_batch=lose, max_failures=allowed)
    gone[0] = False
    file = records(envs, policy)
    assert len(file.records) == 1 and len(file.failed) == allowed
    results = evaluate(envs, policy, file=file)
    assert [record.case for record in results] == [case.key for case in small_cases]
    assert file.failed == []


def test_a_server_that_never_answers(serve, build, small_cases):
    server = serve(lambda request, number: time.sleep(1) or STOP)
    envs, policy = build(server.url, small_cases[:1], 1, "&timeout=0.2&retries=1")
    with pytest.raises(
        MedSegError, match=r"no answer within 0.2 s, 2 times; give a longer timeout"
    ):
        evaluate(envs, policy)


# the commands -----------------------------------------------------------------------------------
@pytest.fixture
def invoke():
    add_installed_commands(app)

    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})

    return run


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_eval_goes_on_and_plays_failed_cases_again(workers, serve, tmp_path):
    ill = [True]

    def reply(request, number):
        return REFUSED if ill[0] and "body" in target_of(request) else STOP

    server = serve(reply)
    options = EvalOptions(
        cases="phantoms:abdomen",
        policy=f"openai:m?base_url={server.url}&image_size=32",
        backbone="ellipse",
        num_envs=3,
        limit=8,
        workers=workers,
    )
    first = run_evaluation(options, tmp_path)
    assert 0 < len(first.failed) < 8 and len(first.records) + len(first.failed) == 8
    assert all("body" in one.target for one in first.failed)
    assert first.usage["failed"] == len(first.failed)
    ill[0], asked = False, len(server.requests)
    again = run_evaluation(options, tmp_path)
    assert len(again.records) == 8 and again.failed == []
    assert len(server.requests) == asked + len(first.failed)
    assert [r for r in again.records if "body" not in r.target] == first.records


def test_eval_says_what_failed_and_scores_the_others(serve, invoke, tmp_path):
    server = serve(lambda request, number: REFUSED if "body" in target_of(request) else STOP)
    policy = f"openai:m?base_url={server.url}&image_size=32"
    command = ["eval", "--cases", "phantoms:abdomen", "--limit", "8", "--backbone", "ellipse"]
    command += ["--policy", policy, "--out", tmp_path]
    done = invoke(*command)
    assert done.exit_code == 0, done.output
    lines = [json.loads(x) for x in (tmp_path / "records.jsonl").read_text().splitlines()[1:]]
    failed = [line["case"] for line in lines if "failed" in line]
    count = len(failed)
    note = f"{count} of 8 cases failed"
    assert 0 < count < 8 and note in done.output and f"failed: {failed[0]}: " in done.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    whole = summary["rows"][0]
    assert (whole["subset"], whole["n"], whole["failed"]) == ("all", 8 - count, count)
    assert note in whole["notes"] and list(summary["failed"]) == failed
    assert sum(row["n"] for row in summary["rows"][1:]) == 8 - count
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["mean"]["failed_cases"] == count and not set(failed) & set(results)
    played = [line["dice"][-1] for line in lines if "dice" in line]
    assert whole["dice"] == pytest.approx(sum(played) / len(played))
    assert "failed" in (tmp_path / "summary.csv").read_text().splitlines()[0]
    # Another folder is asked for where the user says so; the same one goes on otherwise.
    assert invoke(*command, "--no-resume").exit_code != 0
    asked = len(server.requests)
    assert invoke(*command, "--resume").exit_code == 0
    assert len(server.requests) == asked + count


def test_eval_of_nothing_but_failed_cases_is_an_error(serve, invoke, tmp_path):
    server = serve(lambda request, number: REFUSED)
    policy = f"openai:m?base_url={server.url}&image_size=32"
    command = ["eval", "--cases", "phantoms:abdomen", "--backbone", "ellipse", "--policy", policy]
    done = invoke(*command, "--limit", 3, "--out", tmp_path / "a")
    assert done.exit_code and isinstance(done.exception, MedSegError)
    assert "no case is left to show" in str(done.exception) and "not this one" in str(
        done.exception
    )
    assert not (tmp_path / "a" / "results.json").exists()
    done = invoke(*command, "--num-envs", 2, "--max-failures", 4, "--out", tmp_path / "b")
    assert "4 failed cases, and the run ends at max_failures=4" in str(done.exception)
    assert len((tmp_path / "b" / "records.jsonl").read_text().splitlines()) == 5
    done = invoke(*command, "--max-failures", 0, "--out", tmp_path / "c")
    assert done.exit_code and "max_failures must be at least 1" in str(done.exception)


def test_a_comparison_leaves_failed_cases_out_on_both_sides(serve, tmp_path, capsys):
    from medseg_agents.commands.compare import compare_policies
    from medseg_agents.evaluation.options import CompareOptions

    server = serve(lambda request, number: REFUSED if "body" in target_of(request) else STOP)
    name = f"openai:m?base_url={server.url}&image_size=32"
    options = {"cases": "phantoms:abdomen", "backbones": ("ellipse",), "limit": 8, "num_envs": 4}
    compared = CompareOptions(policies=("centre-box", name), by="target", **options)
    compare_policies(compared, out=tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    count = len(results["failed"])
    assert 0 < count < 8 and all("not this one" in one["failed"] for one in results["failed"])
    whole = {row["policy"]: row for row in results["rows"] if row["subset"] == "all"}
    assert {row["n"] for row in whole.values()} == {8 - count}
    assert f"{count} of 8 cases failed" in whole["openai:m"]["notes"]
    assert f"{count} left out that failed in another row" in whole["centre-box"]["notes"]
    assert (whole["openai:m"]["failed"], whole["centre-box"]["failed"]) == (count, 0)
    subsets = [{r["subset"] for r in results["rows"] if r["policy"] == p} for p in whole]
    assert subsets[0] == subsets[1] and not any("body" in name for name in subsets[0])
    assert "Every row is of the cases that failed in none of them." in capsys.readouterr().out


def test_two_policies_of_one_name_keep_their_rows(serve, tmp_path):
    from medseg_agents.commands.compare import compare_policies
    from medseg_agents.evaluation.options import CompareOptions

    server = serve(lambda request, number: REFUSED if "body" in target_of(request) else STOP)
    names = [f"openai:m?base_url={server.url}&image_size=32&history={k}" for k in (1, 2)]
    options = {"cases": "phantoms:abdomen", "backbones": ("ellipse",), "limit": 8, "num_envs": 4}
    compare_policies(CompareOptions(policies=tuple(names), **options), out=tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["policy"] for row in rows if row["subset"] == rows[0]["subset"]] == ["openai:m"] * 2


def test_run_records_the_failure_and_leaves_no_mask(serve, invoke, small_cases, tmp_path):
    replies = [BOX, STOP, BOX, REFUSED]
    server = serve(lambda request, number: replies[number])
    Image.fromarray(small_cases[0].image).save(tmp_path / "scan.png")
    command = ["run", tmp_path / "scan.png", "--target", "blob", "--backbone", "ellipse"]
    command += ["--out", tmp_path / "r"]
    command += ["--policy", f"openai:m?base_url={server.url}&image_size=32"]
    assert invoke(*command).exit_code == 0 and (tmp_path / "r" / "mask.png").exists()
    done = invoke(*command)
    assert done.exit_code and "not this one" in str(done.exception)
    record = json.loads((tmp_path / "r" / "record.json").read_text())
    assert "not this one" in record["failed"] and len(record["steps"]) == 1
    assert record["usage"]["failed"] == 1 and "stopped" not in record
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["record.json"]


@pytest.mark.slow
def test_a_policy_on_the_page_whose_server_fails(serve, tmp_path):
    server = serve(lambda request, number: STOP if number else REFUSED)
    command = [sys.executable, "-m", "medseg_gym.cli.main", "play", "--no-browser", "--port", "0"]
    command += ["--backbone", "ellipse", "--device", "cpu", "--cases", "phantoms:abdomen"]
    command += ["--policy", f"openai:m?base_url={server.url}&image_size=32"]
    command += ["--record", str(tmp_path / "play")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())
        with httpx.Client(base_url=address[0], timeout=60, trust_env=False) as client:
            place = {"place": "c2", "count": 1}
            (case,) = client.get("/api/cases", params=place).json()["cases"]
            policy = client.get("/api/setup").json()["images"]["policies"][0]
            body = {"policy": policy, "place": "c2", "key": case["key"]}
            errors = []
            for _ in range(2):
                shown = client.post("/api/watch", json=body).json()
                while not shown["done"]:
                    time.sleep(0.05)
                    shown = client.get(f"/api/watch/{shown['watch']}").json()
                errors.append(shown["error"])
            assert "HTTP 400: not this one" in errors[0] and errors[1] == ""
            assert shown["steps"][0]["tool"] == "stop"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
