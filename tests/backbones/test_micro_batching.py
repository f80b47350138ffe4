"""Requests of one key are done one after the other, those of others in the meantime."""

from __future__ import annotations

import threading

from medseg_gym.backbones.remote.micro_batching import MicroBatcher


def test_requests_of_one_key_are_in_different_batches_in_their_order():
    batches: list[list[str]] = []
    begun, go = threading.Event(), threading.Event()

    def work(payloads: list[str]) -> list[str]:
        batches.append(payloads)
        begun.set()
        assert go.wait(60)
        return payloads

    batcher = MicroBatcher({"step": work}, max_batch=3, max_delay=0)
    futures = [batcher.submit("step", "first", 1)]
    assert begun.wait(60)  # the rest waits together
    for payload in ("a1", "a2", "b1", "a3", "c1", "c2"):
        futures.append(batcher.submit("step", payload, 1, key=payload[0]))
    go.set()
    assert [future.result(60) for future in futures][1:] == ["a1", "a2", "b1", "a3", "c1", "c2"]
    assert batches == [["first"], ["a1", "b1", "c1"], ["a2", "c2"], ["a3"]]
    batcher.stop()
