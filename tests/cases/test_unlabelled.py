"""Images without a truth on disk: a torn line costs its image, no more."""

import numpy as np
import pytest

from medseg_gym.cases.unlabelled import INDEX, UnlabelledImages, make_unlabelled
from medseg_gym.errors import CaseError


def image(number):
    return make_unlabelled(np.full((8, 9, 3), number, np.uint8), f"target {number}", "CT")


def test_a_torn_line_is_dropped_and_nothing_is_written_onto_it(tmp_path):
    source = UnlabelledImages(tmp_path)
    for number in range(3):
        source.add(image(number))
    whole = (tmp_path / INDEX).read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, 2, len(lines[2]) // 2, len(lines[2]) - 1):
        (tmp_path / INDEX).write_bytes(whole[:-cut])
        for opened in (UnlabelledImages(tmp_path), source):
            kept = 3 if cut == 1 else 2  # an end of a line is all that it lacks
            assert list(opened.keys) == [image(number).key for number in range(kept)]
        source.add(image(3))
        source.add(image(2))
        assert sorted(UnlabelledImages(tmp_path).keys) == sorted(image(n).key for n in range(4))
        assert all(len(case.target) for case in UnlabelledImages(tmp_path))


def test_damage_elsewhere_has_a_line(tmp_path):
    source = UnlabelledImages(tmp_path)
    source.add(image(0))
    whole = (tmp_path / INDEX).read_bytes()
    for bad, where in ((b"{torn" + whole, r":1: "), (whole + b"{}\n", r".*has no 'key'")):
        (tmp_path / INDEX).write_bytes(bad)
        with pytest.raises(CaseError, match=INDEX + where):
            UnlabelledImages(tmp_path).add(image(1))
