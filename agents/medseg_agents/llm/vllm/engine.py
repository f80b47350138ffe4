"""VLLMEngine: the generation engine whose model is in vLLM's process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg_agents.llm.engine import Completion, Conversation, EngineError
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.prompt_tokens import PromptTokens
from medseg_agents.llm.vllm.model_facts import ModelFacts
from medseg_agents.llm.vllm.process import VLLMProcess
from medseg_agents.llm.vllm.prompts import SentImages, prompts_of
from medseg_gym.envs.views.messages import Message


class Sampler:
    """A worker with what its engines need to know of the model in it.

    Args:
        process: Of vLLM.
        processor: Of the model.
        facts: Of the model.
        dtype: That it computes in.
    """

    def __init__(self, process: VLLMProcess, processor: Any, facts: ModelFacts, dtype: str) -> None:
        self.process, self.processor, self.facts, self.dtype = process, processor, facts, dtype
        self.prompt_tokens = PromptTokens(processor)
        self.images = SentImages()
        self.version = 0
        """Of the weights that it was given; 0 is the checkpoint's own."""

    def close(self) -> None:
        """End the process."""
        self.process.close()


class VLLMEngine:
    """Completes many conversations at once with vLLM.

    What a conversation draws depends on its own generator and its own tokens, alone and in a batch,
    up to the last bits of floating point. Prompts of earlier turns are known to vLLM
    (its prefix cache), and an image is sent once.

    Args:
        sampler: With the model.
        system: Messages that every conversation begins with (`envs.system_messages`).
        options: See `ModelOptions`; `batch` is the caller's to heed.
    """

    def __init__(
        self,
        sampler: Sampler,
        system: Sequence[Message] = (),
        options: ModelOptions | None = None,
    ) -> None:
        self.sampler, self.system = sampler, list(system)
        self.options = options or ModelOptions(engine="vllm")
        self.cached_tokens = 0
        """Tokens of all prompts that were known from an earlier turn."""

    @property
    def dtype(self) -> str:
        """Type of the weights."""
        return f"torch.{self.sampler.dtype}"

    def close(self) -> None:
        """End vLLM's process."""
        self.sampler.close()

    def generate(self, conversations: Sequence[Conversation]) -> list[Completion]:
        """Complete the newest user turn of each, and add the completion to its dialogue.

        Raises:
            EngineError: vLLM failed, died, was late, or gave no whole completions. No
                dialogue has been added to then.
        """
        if not conversations:
            return []
        sampler, options = self.sampler, self.options
        facts, processor = sampler.facts, sampler.processor
        prompts = prompts_of(
            sampler.prompt_tokens, conversations, self.system, options.history, facts.image_token
        )
        keys, new, forgotten = sampler.images.deal(prompts)
        # A seed for each conversation and turn: its own, whoever else is asked.
        seeds = [int(one.generator.integers(2**31)) for one in conversations]
        message = {
            "requests": [
                {"images": names, "seed": seed} for names, seed in zip(keys, seeds, strict=True)
            ],
            "images": list(new),
            "forget": forgotten,
            "sampling": self._sampling(),
        }
        arrays = [*(prompt.tokens for prompt in prompts), *new.values()]
        reply, results = sampler.process.ask("generate", message, arrays)
        count = len(prompts)
        self._check(reply, results, count)
        self.cached_tokens += sum(reply["cached"])
        completions = []
        for number, prompt in enumerate(prompts):
            read, chosen, log_probs = (results[number + count * part] for part in range(3))
            ended = len(chosen) > 0 and int(chosen[-1]) in facts.end_tokens
            text = processor.tokenizer.decode(
                chosen[: len(chosen) - ended].tolist(), skip_special_tokens=False
            )
            completions.append(
                Completion(
                    text,
                    read,
                    chosen,
                    np.zeros(0, np.float32) if options.temperature == 0 else log_probs,
                    len(prompt.images),
                    reply["finish"][number] == "length",
                )
            )
        for one, completion in zip(conversations, completions, strict=True):
            ended = len(completion.tokens) > 0 and int(completion.tokens[-1]) in facts.end_tokens
            one.dialogue.completions.append(completion.text)
            one.dialogue.tokens.append(completion.tokens[: len(completion.tokens) - ended].tolist())
        return completions

    def _sampling(self) -> dict[str, Any]:
        options, facts = self.options, self.sampler.facts
        return {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": options.top_k,
            "max_tokens": options.max_new_tokens,
            "stop_token_ids": facts.end_tokens,
            "stop": list(options.stop_strings),
            "include_stop_str_in_output": True,
            "forbidden": facts.forbidden,
        }

    def _check(self, reply: dict[str, Any], results: Sequence[np.ndarray], count: int) -> None:
        """Refuse completions that are not whole, rather than have an episode scored with them."""
        problem = ""
        if len(reply["finish"]) != count or len(results) != 3 * count:
            problem = f"{len(reply['finish'])} completions of {count} conversations"
        elif reply["version"] != self.sampler.version:
            problem = (
                f"completions of weights number {reply['version']}, not "
                f"number {self.sampler.version}"
            )
        for number, finish in enumerate([] if problem else reply["finish"]):
            tokens, log_probs = results[number + count], results[number + 2 * count]
            if finish not in ("stop", "length"):
                problem = f"a completion that ended by {finish!r}"
            elif finish == "length" and len(tokens) < self.options.max_new_tokens:
                problem = (
                    f"a completion cut at {len(tokens)} tokens: the conversation is as long as "
                    'max_model_len; raise it, vllm_options="max_model_len=16384"'
                )
            elif not len(tokens) or len(tokens) != len(log_probs):
                problem = f"{len(tokens)} tokens with {len(log_probs)} log-probabilities"
            elif not np.isfinite(log_probs).all():
                problem = "log-probabilities that are not finite"
            if problem:
                break
        if problem:
            self.sampler.close()
            raise EngineError(f"vLLM ({self.sampler.process.model}) gave {problem}")
