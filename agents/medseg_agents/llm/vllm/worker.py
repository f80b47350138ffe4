"""The program that runs vLLM: `python worker.py FD`, where FD is a connected socket.

It runs in an environment of its own that has vLLM, numpy and pillow, and no medseg_gym; so it
imports nothing of this project but `wire`, by its file. It ends when the other side closes the
socket, and after anything that went wrong: what is left of an engine then is not to be relied on.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# The folder of this file holds modules that must not hide others' ones.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]

import numpy as np  # noqa: E402


def _load_wire() -> Any:
    spec = importlib.util.spec_from_file_location("wire", Path(__file__).with_name("wire.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wire = _load_wire()

Reply = tuple[dict[str, Any], list[np.ndarray]]


class Worker:
    """vLLM's engine, and what it is told to do; each public method answers the message of its name.

    Args:
        arguments: Of `vllm.LLM`.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM
        from vllm.platforms import current_platform

        chosen: dict[str, Any] = {
            "logprobs_mode": "processed_logprobs",  # of the distribution that is drawn from
            "generation_config": "vllm",  # nothing that was not asked for
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "limit_mm_per_prompt": {"image": 64, "video": 0},
        }
        if current_platform.is_cpu():
            # There a request with a seed ends the engine where its prompt is cut into chunks.
            length = arguments.get("max_model_len") or 8192
            chosen |= {"enforce_eager": True, "skip_mm_profiling": True}
            chosen |= {"enable_chunked_prefill": False, "max_num_batched_tokens": 2 * length}
        elif current_platform.is_sleep_mode_available():
            chosen["enable_sleep_mode"] = True
        self.llm: Any = LLM(**{**chosen, **arguments})
        self.can_sleep = bool(self.llm.llm_engine.vllm_config.model_config.enable_sleep_mode)
        self.images: dict[str, Any] = {}
        self.adapter: Any = None
        self.version = 0

    def generate(self, message: dict[str, Any], arrays: list[np.ndarray]) -> Reply:
        """Complete prompts.

        Args:
            message: `requests`, each with the keys of its `images` and its `seed`; `sampling`;
                `images`, keys of new ones; `forget`, keys of those that are not shown again.
            arrays: Tokens of each request, one place holder an image, then the new images.

        Returns:
            `finish`, `cached` (tokens of the prompt that were known) and `version`; tokens of every
            prompt, tokens of every completion and their log-probabilities.
        """
        from PIL import Image
        from vllm import SamplingParams

        requests, sampling = message["requests"], dict(message["sampling"])
        for key in message["forget"]:
            self.images.pop(key, None)
        for key, pixels in zip(message["images"], arrays[len(requests) :], strict=True):
            self.images[key] = Image.fromarray(pixels)
        bias = {token: float("-inf") for token in sampling.pop("forbidden")}
        prompts, how = [], []
        for request, tokens in zip(requests, arrays, strict=False):
            prompt: dict[str, Any] = {"prompt_token_ids": tokens.tolist()}
            if request["images"]:
                prompt["multi_modal_data"] = {"image": [self.images[k] for k in request["images"]]}
                prompt["multi_modal_uuids"] = {"image": request["images"]}
            prompts.append(prompt)
            how.append(
                SamplingParams(
                    **sampling,
                    seed=request["seed"],
                    logprobs=0,  # of the chosen token alone
                    logit_bias=bias,
                    detokenize=bool(sampling.get("stop")),
                    ignore_eos=True,  # `stop_token_ids` are all of them
                )
            )
        outputs = self.llm.generate(prompts, how, use_tqdm=False, lora_request=self.adapter)
        completions = [output.outputs[0] for output in outputs]
        log_probs = [
            [entry[token].logprob for entry, token in zip(one.logprobs, one.token_ids, strict=True)]
            for one in completions
        ]
        reply = {
            "finish": [one.finish_reason for one in completions],
            "cached": [int(output.num_cached_tokens or 0) for output in outputs],
            "version": self.version,
        }
        return reply, [
            *(np.asarray(output.prompt_token_ids, np.int32) for output in outputs),
            *(np.asarray(one.token_ids, np.int32) for one in completions),
            *(np.asarray(values, np.float32) for values in log_probs),
        ]

    def load_weights(self, message: dict[str, Any], arrays: list[np.ndarray]) -> Reply:
        """Take up the weights in the safetensors files of a folder, by their checkpoint's names.

        Args:
            message: `path` of the folder, and their `version`.
            arrays: None.
        """
        path = message["path"]
        if self.llm.llm_engine.vllm_config.parallel_config.world_size == 1:
            given = {"weights_iterator": _tensors(path)}  # the model is in this process
        else:
            given = {"weights_path": path}
        self.llm.collective_rpc("reload_weights", kwargs=given)
        return self._renewed(message["version"])

    def load_adapter(self, message: dict[str, Any], arrays: list[np.ndarray]) -> Reply:
        """Answer with an adapter from now on.

        Args:
            message: `path` of its folder in peft's layout, and its `version`.
            arrays: None.
        """
        from vllm.lora.request import LoRARequest

        before = self.adapter
        number = 1 if before is None else before.lora_int_id + 1  # an id is read once
        self.adapter = LoRARequest(f"adapter-{number}", number, message["path"])
        if before is not None:
            self.llm.llm_engine.remove_lora(before.lora_int_id)
        self.llm.llm_engine.add_lora(self.adapter)  # now: its folder may go
        return self._renewed(message["version"])

    def _renewed(self, version: int) -> Reply:
        """Empty what was computed with weights of before: prefixes, and embeddings of images."""
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.reset_encoder_cache()
        self.llm.llm_engine.reset_mm_cache()
        self.version = version
        return {"version": version}, []

    def sleep(self, message: dict[str, Any], arrays: list[np.ndarray]) -> Reply:
        """Give the accelerator's memory back until `wake_up`; not on a CPU."""
        if self.can_sleep:
            self.llm.sleep(level=1)  # weights wait in the CPU's memory, caches are dropped
        return {"sleeps": self.can_sleep}, []

    def wake_up(self, message: dict[str, Any], arrays: list[np.ndarray]) -> Reply:
        """Take the memory again."""
        if self.can_sleep:
            self.llm.wake_up()
        return {}, []


def _tensors(path: str) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                yield name, tensors.get_tensor(name)


def main(arguments: Sequence[str]) -> int:
    """Answer messages until the other side is gone or something fails.

    Args:
        arguments: The number of the socket.
    """
    stream = socket.socket(fileno=int(arguments[0]))
    worker: Worker | None = None
    while True:
        try:
            message, arrays = wire.receive(stream)
        except (EOFError, OSError):
            return 0
        try:
            if worker is None:
                worker = Worker(message["arguments"])
                reply: Reply = {"sleeps": worker.can_sleep}, []
            else:
                reply = getattr(worker, message["do"])(message, arrays)
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            wire.send(stream, {"error": text[:2000]})
            return 1
        wire.send(stream, *reply)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
