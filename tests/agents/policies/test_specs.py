"""A policy that is none is refused before anything is loaded, with the names that were near."""

from __future__ import annotations

import pytest
from medseg_agents import policies

from medseg_gym import annotators
from medseg_gym.errors import PolicyError
from medseg_gym.play import BuiltIn


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "unknown policy 'nonsense'.*known: box-to-point, centre-box"),
        ("centre_box", "did you mean 'centre-box'"),
        ("center-box", "did you mean 'centre-box'"),
        ("oracle-boxx?loosen=0.2", "did you mean 'oracle-box'"),
        ("noisy-hybird", "did you mean 'noisy-hybrid'"),
        ("oracle-box?losen=0.2", "no option 'losen' .*; it takes"),
        ("oracle-box?loosen=much", "loosen cannot be 'much': a number is wanted"),
        ("sb4:runs/first", "did you mean.*sb3:|known:.*sb3:"),
        ("runs/not-there", "no such folder"),
    ],
)
def test_a_policy_that_is_none_is_refused_at_once(text, words) -> None:
    with pytest.raises(PolicyError, match=words):
        policies.make(text)


def test_names_that_there_are_pass() -> None:
    for text in ("random", "oracle-box?loosen=0.2", "noisy-hybrid?wrong=0.1&tau=0.02"):
        assert policies.make(text).name == text
        annotators.check(text)
        assert BuiltIn(text).name == text
    with pytest.raises(PolicyError, match="did you mean 'hybrid'"):
        BuiltIn("hybrit")


@pytest.mark.parametrize("command", [("play", "--no-browser"), ("eval", "--out", "x")])
def test_commands_refuse_it_before_they_load_anything(refusal, command, monkeypatch) -> None:
    from medseg_gym import backbones

    def load(*args: object, **extra: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(backbones, "load", load)
    assert "did you mean 'centre-box'" in refusal(*command, "--policy", "center-box")
