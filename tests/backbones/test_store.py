import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medseg_gym import backbones
from medseg_gym.backbones import EmbeddingCache, SamBackbone
from medseg_gym.backbones.embedding_store import EmbeddingStore, fingerprint
from medseg_gym.errors import BackboneError


class Counting(SamBackbone):
    encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)


def hashes(images):
    return [str(i) for i in range(len(images))]


def test_a_second_process_reads_what_the_first_encoded(tiny_sam, awkward_images, tmp_path):
    first, second = Counting(tiny_sam), Counting(tiny_sam)
    made = EmbeddingCache(store=EmbeddingStore(tmp_path, first)).get(
        first, awkward_images, hashes(awkward_images)
    )
    cache = EmbeddingCache(store=EmbeddingStore(tmp_path, second))
    read = cache.get(second, awkward_images, hashes(awkward_images))
    assert (first.encoded, second.encoded) == (len(awkward_images), 0)
    assert cache.counters.reads == len(awkward_images) and cache.counters.encodes == 0
    for a, b in zip(made, read, strict=True):
        assert (a.image_size, a.input_size) == (b.image_size, b.input_size)
        assert all(torch.equal(x, y) for x, y in zip(a.features, b.features, strict=True))


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty"])
def test_a_damaged_file_is_encoded_again(damage, tiny_sam, awkward_images, tmp_path):
    backbone = Counting(tiny_sam)
    store = EmbeddingStore(tmp_path, backbone)
    EmbeddingCache(store=store).get(backbone, awkward_images[:2], hashes(awkward_images[:2]))
    victim = store.folder / "1.safetensors"
    whole = victim.read_bytes()
    before = store.read("1")
    victim.write_bytes({"truncate": whole[:-40], "garbage": os.urandom(200), "empty": b""}[damage])
    assert store.read("1") is None
    cache = EmbeddingCache(store=store)
    cache.get(backbone, awkward_images[:2], hashes(awkward_images[:2]))
    assert cache.counters.reads == 1 and cache.counters.encodes == 1
    assert torch.equal(store.read("1").features[0], before.features[0])


def test_other_weights_never_meet(tiny_sam, larger_sam):
    name = fingerprint(SamBackbone(tiny_sam, "a"))
    assert name == fingerprint(SamBackbone(tiny_sam, "a"))
    others = [
        SamBackbone(tiny_sam, "b"),
        SamBackbone(larger_sam, "a"),
        SamBackbone(tiny_sam, "a", dtype="bfloat16"),
    ]
    assert len({name, *map(fingerprint, others)}) == 4


WRITER = """
import sys, torch
from medseg_gym.backbones import Embedding
from medseg_gym.backbones.embedding_store import EmbeddingStore
class Fake:
    device, dtype, image_side, name = torch.device("cpu"), torch.float32, 64, "fake"
    model = torch.nn.Linear(2, 2)
    model.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
store = EmbeddingStore(sys.argv[1], Fake())
print(store.folder, flush=True)
for i in range(10**6):
    value = torch.full((64, 64, 64), float(i % 20))
    store.write(str(i % 20), Embedding((value,), (5, 7), (3, 4)))
"""


def test_writers_killed_at_any_moment_leave_whole_files(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    folder = next(iter({Path(writer.stdout.readline().strip()) for writer in writers}))
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.safetensors"))) <= 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.4)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    from safetensors import safe_open

    files = list(folder.glob("*.safetensors"))
    assert len(files) > 3
    for path in files:
        with safe_open(path, "pt") as file:
            assert file.get_tensor("0").unique().tolist() == [float(path.stem)]


def test_load_takes_a_store_and_a_budget(tmp_path, fresh_registry):
    backbone = backbones.load(
        "sam2.1_t", random_weights=True, image_size=64, store=tmp_path, cache_bytes=12345
    )
    cache = backbones.embedding_cache(backbone)
    assert cache.max_bytes == 12345 and cache.store.folder.parent == tmp_path
    again = backbones.load(
        "sam2.1_t", random_weights=True, image_size=64, store=tmp_path, cache_bytes=12345
    )
    assert again is backbone
    with pytest.raises(BackboneError, match="cannot keep embeddings"):
        backbones.load("ellipse", store=tmp_path)
    with pytest.raises(BackboneError, match="an instance was given"):
        backbones.load(backbone, store=tmp_path)
