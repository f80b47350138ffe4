"""Every defect of the corpus is named with its path and cause, and takes nothing else with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from defect_corpus import Expected, load_corpus

from medseg_gym.cases import SPLITS, CaseError, load_cases
from medseg_gym.cases.files import FileData, index_dataset
from medseg_gym.cases.files.dataset_formats import dataset_format_of

CORPUS = load_corpus()
NOBODY = 65534
MEGABYTES = 800
SECONDS = 30  # on a busy machine; a hang is what this is after


@contextmanager
def rights(unprivileged: bool) -> Iterator[None]:
    """Give up root's rights for a while: it may read anything."""
    if not unprivileged or os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter (pytest's own ones are private)."""
    with tempfile.TemporaryDirectory(prefix="medseg-defect-") as name:
        os.chmod(name, 0o777)
        (Path(name) / "cache").mkdir(mode=0o777)
        os.chmod(Path(name) / "cache", 0o777)
        monkeypatch.setenv("XDG_CACHE_HOME", str(Path(name) / "cache"))
        yield Path(name)
        for folder, _, _ in os.walk(name):
            os.chmod(folder, 0o700)


def read_all(spec: str) -> int:
    """Read every case of every split; how many there are."""
    count = 0
    for split in SPLITS:
        try:
            source = load_cases(spec, split)
        except CaseError as error:
            if "has no case in split" not in str(error):
                raise
            continue
        for index, case in enumerate(source):
            assert case.key == source.keys[index] and case.target in source.targets
            count += 1
    return count


@pytest.mark.parametrize(("format", "name"), CORPUS, ids=[f"{a}-{b}" for a, b in CORPUS])
def test_the_defect_is_named_and_the_rest_stays_usable(format, name, open_folder):
    folder = open_folder / "data"
    folder.mkdir()
    expected = CORPUS[format, name](folder)
    root = folder / expected.root
    spec = f"{format}:{root}{expected.options}"
    with rights(expected.unprivileged):
        begin = time.monotonic()
        data = index_dataset(dataset_format_of(format), spec.partition(":")[2])
        data.examine()
        assert_named(data, expected)
        assert len(data.records) == expected.healthy, [str(d) for d in data.defects]
        again = index_dataset(dataset_format_of(format), spec.partition(":")[2])
        again.examine()
        assert (again.defects, again.records) == (data.defects, data.records), "from the index"
        assert_refused_or_read(spec, expected)
        between = "&" if expected.options else "?"
        assert read_all(f"{spec}{between}skip_bad=1") == expected.healthy
        assert time.monotonic() - begin < SECONDS


def assert_named(data: FileData, expected: Expected) -> None:
    named = [d for d in data.defects if d.path == expected.path and d.note == expected.note]
    texts = [f"{d.place}: {d.cause}" for d in named]
    assert any(re.search(expected.cause, text) for text in texts), [str(d) for d in data.defects]


def assert_refused_or_read(spec: str, expected: Expected) -> None:
    if expected.note:
        assert read_all(spec) == expected.healthy
        return
    with pytest.raises(CaseError) as caught:
        read_all(spec)
    assert expected.path in str(caught.value) and "skip_bad=1" in str(caught.value)


def test_the_corpus_is_as_large_as_promised():
    assert len(CORPUS) >= 60


READ_ALL = """
import json, re, sys
from medseg_gym.cases.files import index_dataset
from medseg_gym.cases.files.dataset_formats import dataset_format_of
peaks = {}
for name, argument in json.load(sys.stdin):
    index_dataset(dataset_format_of(name), argument).examine()
    # Not ru_maxrss: that begins with the memory of the process that started this one.
    status = open("/proc/self/status").read()
    peaks[argument] = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1024
json.dump(peaks, sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's own counts")
def test_no_defect_fills_the_memory(open_folder):
    made = []
    for number, ((format, _), make) in enumerate(CORPUS.items()):
        folder = open_folder / f"{number:03d}"
        folder.mkdir()
        expected = make(folder)
        made.append((format, f"{folder / expected.root}{expected.options}"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ_ALL],
        input=json.dumps(made),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    assert max(peaks.values()) < MEGABYTES, sorted(peaks.items(), key=lambda item: item[1])[-5:]
