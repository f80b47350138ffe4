"""Traces of the checkout, which must not be there."""

from __future__ import annotations

import re

from workplace import HIDDEN, ROOT, Workplace, surroundings

from steps.step import step


@step("nothing of this came from the checkout")
def check_no_checkout(place: Workplace) -> None:
    assert not any(re.match(name, key) for name in HIDDEN for key in surroundings(place.folder))
    for name in ("results.json", "results.csv"):
        assert str(ROOT) not in (place.folder / "out/compare" / name).read_text(encoding="utf-8")
