import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_gym import annotators
from medseg_gym.annotators import OracleBox, ScriptedPolicy, disturb, tight_box
from medseg_gym.annotators.registry import ANNOTATORS
from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, ArrayCodec, Stop


@given(mask=arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_the_tight_box_holds_the_mask_and_no_empty_edge(mask):
    box = tight_box(mask)
    if box is None:
        assert not mask.any()
        return
    height, width = mask.shape
    left, right = round(box.x1 * width), round(box.x2 * width)
    top, bottom = round(box.y1 * height), round(box.y2 * height)
    assert mask.sum() == mask[top:bottom, left:right].sum()
    for edge in (mask[top], mask[bottom - 1], mask[:, left], mask[:, right - 1]):
        assert edge.any()


@given(seed=st.integers(0, 1000), loosen=st.floats(0, 2), jitter=st.floats(0, 0.49))
def test_disturbed_boxes_stay_in_the_image_and_within_their_bounds(seed, loosen, jitter):
    box = AddBox(0.3, 0.4, 0.5, 0.9)
    moved = disturb(box, np.random.default_rng(seed), loosen, jitter)
    assert 0.3 - 0.2 * (loosen + jitter) - 1e-9 <= moved.x1 <= 0.3 + 0.2 * jitter + 1e-9
    assert 0.9 - 0.5 * jitter - 1e-9 <= moved.y2 <= 1
    assert not moved.is_empty
    if not jitter:
        assert moved.x1 <= box.x1 and moved.x2 >= box.x2


@pytest.mark.parametrize("name", annotators.names())
def test_every_policy_plays_every_case_and_repeats_itself(name, small_cases):
    def play(num_envs):
        envs = make_envs(num_envs, cases=small_cases, backbone="ellipse", max_steps=4)
        policy = annotators.make(name, envs.codec)
        keys = list(envs.source.keys)
        return [p for batch in play_cases(envs, policy, keys, seed=3) for p in batch]

    first, second = play(2), play(5)
    assert [p.key for p in first] == [case.key for case in small_cases]
    for a, b in zip(first, second, strict=True):
        # Another number of slots, the same prompts and, with the control, the same numbers.
        assert [s.prompt for s in a.episode.steps] == [s.prompt for s in b.episode.steps]
        assert a.rewards == b.rewards and a.episode.done
        assert sum(a.rewards) == pytest.approx(
            a.episode.dice
            - a.episode.start_dice
            - 0.01 * sum(s.tool != "stop" for s in a.episode.steps)
        )


def test_oracles_stop_at_once_where_there_is_no_target(small_cases):
    envs = make_envs(1, cases=[small_cases[-1]], backbone="ellipse")
    for name in ("oracle-box", "oracle-click"):
        policy = annotators.make(name, envs.codec)
        ((played,),) = play_cases(envs, policy, ["absent"])
        assert [s.prompt for s in played.episode.steps] == [Stop()] and played.episode.dice == 1


def test_oracle_box_beats_the_centre_box(small_cases):
    envs = make_envs(4, cases=small_cases[:3], backbone="ellipse")
    scores = {}
    for name in ("oracle-box", "centre-box"):
        policy = annotators.make(name, envs.codec)
        played = next(play_cases(envs, policy, ["wide", "tall", "sq"]))
        scores[name] = np.mean([p.episode.dice for p in played])
    assert scores["oracle-box"] > 0.9 > scores["centre-box"] > 0


def test_options_in_the_name():
    policy = annotators.make("oracle-box?loosen=0.2&jitter=0.1", ArrayCodec())
    assert isinstance(policy, OracleBox) and (policy.loosen, policy.jitter) == (0.2, 0.1)
    assert policy.name == "oracle-box?loosen=0.2&jitter=0.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody", "unknown policy 'nobody'.*; known: box-to-point, centre-box"),
        ("stop?loosen=1", "no option 'loosen'"),
        ("oracle-box:loosen=0.2", r"behind a question mark: oracle-box\?loosen=0.2"),
        ("oracle-box?loosen=wide", "loosen cannot be 'wide': a number is wanted"),
        ("oracle-box?loosen=-1", "0 <= loosen"),
        ("oracle-box?jitter=nan", "a finite number is wanted"),
    ],
)
def test_bad_names_are_refused(text, words):
    with pytest.raises(PolicyError, match=words):
        annotators.make(text, ArrayCodec())


def test_an_own_policy_by_name():
    class Corner(ScriptedPolicy):
        name = "corner"

        def choose(self, slot):
            return AddBox(0, 0, 0.1, 0.1)

    with ANNOTATORS.temporarily():
        annotators.register("corner", Corner)
        assert annotators.make("corner", ArrayCodec()).name == "corner"
        with pytest.raises(PolicyError, match="registered already"):
            annotators.register("corner", Corner)
    with pytest.raises(PolicyError, match="must not begin with 'noisy-'"):
        annotators.register("noisy-corner", Corner)


OWN = """
from medseg_gym.annotators import CentreBox, OracleBox
class Careful(OracleBox):
    def __init__(self, codec, tries: int = 1):
        super().__init__(codec)
        self.tries = tries
def centre(codec):
    return CentreBox(codec)
def of_two(codec, other):
    return CentreBox(codec)
def nothing(codec):
    return None
"""


def test_a_policy_of_a_file_by_its_path(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert annotators.make(f"{file}:Careful?tries=3", ArrayCodec()).tries == 3
    assert annotators.make(f"noisy-{file}:Careful?tries=2&wrong=0.5", ArrayCodec()).wrong == 0.5
    assert annotators.make(f"{file}:centre", ArrayCodec()).name == "centre-box"
    for text, words in (
        (f"{file}:Careful?tries=x", "a whole number is wanted"),
        (f"{file}:carefull", "has no 'carefull'.*holds"),
        (f"{file}:of_two", r"of_two\(codec, other\) cannot be called as factory\(codec, \*\*opt"),
        (f"{file}:nothing", "made a NoneType, which has no name"),
        (f"noisy-{file}:centre", "only an oracle can be noisy"),
    ):
        with pytest.raises(PolicyError, match=words):
            annotators.make(text, ArrayCodec())


def test_lists_of_policies(tmp_path):
    listed = f"random,noisy-hybrid?wrong=0.1&tau=0.02,{tmp_path}/own.py:Careful?window=0,1,stop"
    assert annotators.split(listed) == [
        "random",
        "noisy-hybrid?wrong=0.1&tau=0.02",
        f"{tmp_path}/own.py:Careful?window=0,1",
        "stop",
    ]
