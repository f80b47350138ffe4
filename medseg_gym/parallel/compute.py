"""Threads and GPU of a worker; sums depend on the number of threads in their last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_gpu(device: str, number: int) -> str:
    """Return the device of a worker: worker i takes GPU i where it may choose.

    Args:
        device: As the options say.
        number: Of the worker.
    """
    import torch

    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    index = number % torch.cuda.device_count()
    torch.cuda.set_device(index)  # so that the policy's model goes there too
    return f"cuda:{index}"
