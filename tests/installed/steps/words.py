"""Output of the commands: answers to wrong names, one document, nothing."""

from __future__ import annotations

import json

from workplace import Workplace

from steps.arguments import OWN, SMALL
from steps.step import step


@step("wrong names are answered with the nearest one and what is there")
def check_wrong_names(place: Workplace) -> None:
    for words, answers in (
        (("--policy", "./bright.py:Brigth"), ("bright.py", "Bright")),
        (("--policy", "my_pkg.polices:Bright"), ("my_pkg.polices",)),
        (("--policy", "oracle-clik"), ("oracle-click",)),
        (("--policy", "stop", "--cases", "./cases.py:Square"), ("Squares",)),
        (("--policy", "stop", "--reward", "./reward.py:final_io"), ("final_iou",)),
    ):
        error = place.medseg("eval", *words, *SMALL, "--out", "out/wrong", code=2).stderr
        assert all(answer in error for answer in answers), error
    assert "--limit" in place.medseg("eval", "--limitt", 3, code=2).stderr


@step("--json prints one document, --quiet nothing")
def check_output(place: Workplace) -> None:
    words = ("eval", "--policy", "stop", *OWN, *SMALL)
    json.loads(place.medseg(*words, "--out", "out/json", "--json").stdout)
    done = place.medseg(*words, "--out", "out/quiet", "--quiet")
    assert not done.stdout and not done.stderr, (done.stdout, done.stderr)
    listed = json.loads(place.medseg("cases", "list", "samples", "--json").stdout)
    assert listed
