"""The policy that training began with, as the reference of a KL divergence.

With all weights trained it is a frozen copy. With new adapters it is the model without them. With
adapters that were there before (of a supervised start, say) the model without them never was the
policy: a second, frozen copy of the adapters is the reference then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg_agents.llm.weights.save import ADAPTER

REFERENCE = "reference"


def keep_reference(model: Any, folder: str | Path) -> None:
    """Load the adapters that training begins with a second time, frozen.

    Args:
        model: With these adapters, by `load_for_training`.
        folder: Of the adapters.
    """
    with _same_flags(model):
        model.load_adapter(str(folder), adapter_name=REFERENCE, is_trainable=False)
        model.set_adapter(ADAPTER)
    for name, parameter in model.named_parameters():
        if f".{REFERENCE}." in name:
            parameter.requires_grad_(False)


@contextlib.contextmanager
def as_reference(model: Any) -> Iterator[Any]:
    """Give a model with adapters as it was when training began; afterwards it is as before.

    Args:
        model: See `keep_reference`, or with new adapters.
    """
    # peft lets adapters that it switches to require gradients, those of a frozen tower too.
    with _same_flags(model):
        if REFERENCE not in model.peft_config:
            with model.disable_adapter():
                yield model
            return
        model.set_adapter(REFERENCE, inference_mode=True)
        try:
            yield model
        finally:
            model.set_adapter(ADAPTER)


@contextlib.contextmanager
def _same_flags(model: Any) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
