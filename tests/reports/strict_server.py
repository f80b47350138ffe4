"""A server of OpenAI's chat completions on loopback that reads histories as strict servers do."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOX = {"name": "add_bbox", "arguments": {"bbox_2d": [200, 200, 800, 800]}}
STOP = {"name": "stop_action", "arguments": {}}


def objections_to(messages: list[dict[str, Any]]) -> list[str]:
    """Return what a strict server finds wrong in a history."""
    problems = []
    for number, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        for call in message.get("tool_calls") or []:
            problems += _not_an_object(call.get("function", {}).get("arguments"), number)
        content = message.get("content")
        if not isinstance(content, str):
            content = "".join(part.get("text", "") for part in content or [])
        for body in re.findall(r"<tool_call>(.*?)</tool_call>", content, re.DOTALL):
            arguments = json.loads(body)["arguments"]
            if not isinstance(arguments, dict):
                problems.append(f"message {number}: arguments in the text are encoded twice")
    return problems


def _not_an_object(arguments: Any, number: int) -> list[str]:
    try:
        value = json.loads(arguments)
    except (TypeError, ValueError):
        return [f"message {number}: arguments are no JSON text: {arguments!r}"]
    if isinstance(value, dict):
        return []
    return [f"message {number}: arguments decode to {type(value).__name__}: encoded twice"]


class StrictServer:
    """Answers with a box, then a stop.

    Args:
        mode: "text", "calls" (native tool calls), "cut" (the first answer ran into the limit and
            has no content), "cut_text" (the same in the middle of a call), "error_500" or
            "rate_429" (the first request fails).
    """

    def __init__(self, mode: str) -> None:
        server = self
        self.mode, self.answered = mode, 0
        self.requests: list[dict[str, Any]] = []
        self.objections: list[str] = []
        self.times: list[float] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(server.requests)
                    server.requests.append(request)
                    server.times.append(time.monotonic())
                    wrong = objections_to(request["messages"])
                    server.objections += wrong
                    status, headers, body = (
                        (400, {}, {"error": {"message": "; ".join(wrong)}})
                        if wrong
                        else server._reply(number)
                    )
                data = json.dumps(body).encode()
                self.send_response(status)
                headers = {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(data)),
                    **headers,
                }
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _reply(self, number: int) -> tuple[int, dict[str, str], dict[str, Any]]:
        if number == 0 and self.mode == "error_500":
            return 500, {}, {"error": {"message": "the worker died"}}
        if number == 0 and self.mode == "rate_429":
            return 429, {"Retry-After": "1"}, {"error": {"message": "slow down"}}
        if number == 0 and self.mode == "cut":
            return 200, {}, _completion({"content": None}, "length")
        if number == 0 and self.mode == "cut_text":
            half = '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [200, 2'
            return 200, {}, _completion({"content": half}, "length")
        call = STOP if self.answered else BOX  # a request that failed or was cut is no answer
        self.answered += 1
        if self.mode == "calls":
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
            calls = [{"id": f"call_{number}", "type": "function", "function": function}]
            return 200, {}, _completion({"content": None, "tool_calls": calls}, "tool_calls")
        text = f"<tool_call>{json.dumps(call)}</tool_call>"
        return 200, {}, _completion({"content": text}, "stop")

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _completion(message: dict[str, Any], finish: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": finish,
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
