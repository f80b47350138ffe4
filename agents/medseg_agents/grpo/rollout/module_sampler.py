"""ModuleSampler: vLLM with the weights of a module that learns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from medseg_agents.llm.checkpoint import adapter_base
from medseg_gym.envs.views.messages import Message

if TYPE_CHECKING:
    from medseg_agents.grpo.module import HFChatModule
    from medseg_agents.llm.vllm.engine import Sampler, VLLMEngine


class ModuleSampler:
    """The vLLM of one runner. It starts when it is first asked, and anew after it has died.

    Attributes:
        stale: The module has other weights than the sampler.
        seconds: That the newest `engine` took for weights; 0 where it gave none.
    """

    def __init__(self) -> None:
        self.stale = True
        self.seconds = 0.0
        self._sampler: Sampler | None = None
        self._asleep = False

    def engine(
        self, module: HFChatModule, system: list[Message], temperature: float | None = None
    ) -> VLLMEngine:
        """Return an engine that has the module's weights.

        Args:
            module: As it is now.
            system: Messages that conversations begin with.
            temperature: None is that of training, 0 takes the likeliest tokens.

        Raises:
            EngineError: vLLM does not start, or does not take the weights.
        """
        from medseg_agents.llm.vllm.engine import VLLMEngine
        from medseg_agents.llm.vllm.weights import adapters_travel, give_weights

        self.seconds = 0.0
        new = self._sampler is None or not self._sampler.process.alive
        if new:
            self.close()
            self._sampler = self._start(module)
        assert self._sampler is not None
        if self._asleep:
            self._sampler.process.ask("wake_up")
            self._asleep = False
        if new or self.stale:
            before = time.perf_counter()
            # A new one has the checkpoint's weights, of which the module may train a part.
            everything = new and not adapters_travel(module.lm)
            give_weights(self._sampler, module.lm, everything)
            self.seconds = time.perf_counter() - before
            self.stale = False
        return VLLMEngine(self._sampler, system, module.generation_options(temperature))

    def _start(self, module: HFChatModule) -> Sampler:
        from medseg_agents.llm.vllm.start import model_folder, start_sampler
        from medseg_agents.llm.vllm.weights import adapters_travel, base_weights, write_weights

        settings, base = module.settings, module.base
        half = settings.precision == "bfloat16"
        options: dict[str, Any] = {
            "options": settings,
            "dtype": "bfloat16" if half else str(base.dtype),
        }
        if adapters_travel(module.lm):
            options["lora_rank"] = max(one.r for one in module.lm.peft_config.values())
        under = adapter_base(settings.model)
        if under is None or "lora_rank" not in options:
            return start_sampler(under or settings.model, **options)
        # Adapters on what a checkpoint of adapters made of its base: that is in no folder yet.
        folder = model_folder()
        base.config.save_pretrained(folder)
        base.generation_config.save_pretrained(folder)
        module.processor.save_pretrained(folder)
        write_weights(base_weights(module.lm), folder)
        return start_sampler(folder, owned=True, **options)

    def sleep(self) -> None:
        """Let it give its GPU memory back until it is asked again."""
        if self._sampler is not None and self._sampler.process.can_sleep:
            self._sampler.process.ask("sleep")
            self._asleep = True

    def close(self) -> None:
        """End vLLM."""
        if self._sampler is not None:
            self._sampler.close()
        self._sampler, self._asleep = None, False
