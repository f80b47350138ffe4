"""Experts: a click is played only if it helps, and looking ahead leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_gym import annotators
from medseg_gym.annotators import (
    BoxToPoint,
    ErrorClicks,
    Expert,
    Hybrid,
    SequentialClick,
    tight_box,
)
from medseg_gym.annotators.box import widen
from medseg_gym.annotators.click import click_pixels, depth_bound, depth_map, masks_to_host
from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cases import Case
from medseg_gym.episodes import Episode, EpisodeEngine, EpisodeError
from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, AddPoint, ArrayCodec, Clear, Stop, Undo
from medseg_gym.prompts.grid import to_cell

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
EXPERTS = (BoxToPoint, SequentialClick, Hybrid)


class CountingBackbone(EllipseBackbone):
    """Small discs, so that several clicks help; remembers how many rows it decoded."""

    def __init__(self) -> None:
        super().__init__(radius=0.05)
        self.rows: list[int] = []

    def decode(self, rows):
        self.rows.append(len(rows))
        return super().decode(rows)


def blobs(seed: int, side: int = 40) -> Case:
    """Up to three discs, some of them cut off by the border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] + 0.5
    mask = np.zeros((side, side), bool)
    for _ in range(rng.integers(1, 4)):
        cy, cx, radius = rng.uniform([0, 0, 2], [side, side, side / 4])
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    image = np.full((side, side, 3), seed % 256, np.uint8)
    return Case(f"blobs {seed}", image, mask, target="blobs", group=f"group {seed}")


def play(name, cases, num_envs=4, max_steps=6, seed=0, backbone=None, **options):
    backbone = backbone or CountingBackbone()
    envs = make_envs(
        num_envs, cases=cases, backbone=backbone, max_steps=max_steps, image_size=16, **options
    )
    policy = annotators.make(name, envs.codec)
    keys = [case.key for case in cases]
    return policy, [p.episode for batch in play_cases(envs, policy, keys, seed) for p in batch]


# what is played -----------------------------------------------------------------------------------
@settings(max_examples=15)
@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=5, unique=True),
    name=st.sampled_from(["box-to-point", "sequential-click", "hybrid"]),
    tau=st.sampled_from([0.0, 0.01, 0.1]),
    retries=st.integers(0, 4),
    bins=st.sampled_from([16, 100, 1000]),
)
def test_every_click_after_the_first_prompt_gains_more_than_tau(seeds, name, tau, retries, bins):
    text = f"{name}?tau={tau}&retries={retries}"
    policy, episodes = play(text, [blobs(seed) for seed in seeds], bins=bins)
    assert policy.name.startswith(name)
    for episode in episodes:
        first, *others = episode.steps
        assert isinstance(first.prompt, (AddBox, AddPoint, Stop)) and first.valid
        previous = first
        for step in others:
            assert isinstance(step.prompt, (AddPoint, Stop))
            if isinstance(step.prompt, AddPoint):
                assert step.iou - previous.iou > tau
            else:
                assert step.iou == previous.iou
            previous = step
        assert episode.stopped or len(episode.steps) == 6


def test_clicks_help_and_beat_the_unchecked_ones():
    cases = [blobs(seed) for seed in range(12)]
    _, checked = play("sequential-click?tau=0", cases)
    _, unchecked = play("oracle-click", cases)
    gains = [a.dice - b.dice for a, b in zip(checked, unchecked, strict=True)]
    assert np.mean(gains) > 0.01
    assert max(len(episode.steps) for episode in checked) == 6


@pytest.mark.parametrize("name", ["box-to-point", "sequential-click", "hybrid", "noisy-hybrid"])
def test_without_a_target_it_stops_at_once(name, small_cases):
    policy, (episode,) = play(name, [small_cases[-1]])
    assert [step.prompt for step in episode.steps] == [Stop()]
    assert episode.dice == 1 and policy.accepts(episode)


def test_it_stops_when_nothing_helps_and_when_nothing_can():
    class Stubborn(CountingBackbone):
        """Answers every row with its box, whatever the clicks."""

        def decode(self, rows):
            self.rows.append(len(rows))
            boxes = [type(row)(row.embedding, row.box or AddBox(0, 0, 0.2, 0.2)) for row in rows]
            return EllipseBackbone.decode(self, boxes)

    case = blobs(3)
    backbone = Stubborn()
    policy, (episode,) = play("box-to-point?retries=2", [case], num_envs=1, backbone=backbone)
    assert [step.tool for step in episode.steps] == ["box", "stop"]
    assert backbone.rows == [1, 1, 1, 1]  # the box, then a try and two more
    assert (policy.effort.searches, policy.effort.looks, policy.effort.kept) == (1, 3, 0)
    # Where less than tau is missing, there is nothing to look for.
    backbone = Stubborn()
    policy, (episode,) = play("box-to-point?tau=0.9", [case], num_envs=1, backbone=backbone)
    assert episode.iou > 0.1 and backbone.rows == [1] and policy.effort.searches == 0


def test_a_perfect_mask_is_left_alone():
    class Knowing(EllipseBackbone):
        def to_image(self, logits, embeddings):
            return [torch.from_numpy(case.mask * 2.0 - 1) for _ in embeddings]

    case = blobs(5)
    _, (episode,) = play("box-to-point?tau=0", [case], num_envs=1, backbone=Knowing())
    assert [step.tool for step in episode.steps] == ["box", "stop"] and episode.dice == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_turn_looks_at_most_once_and_retries_times_in_one_decode_per_try(retries):
    cases = [blobs(seed) for seed in range(8)]
    backbone = CountingBackbone()
    envs = make_envs(8, cases=cases, backbone=backbone, image_size=16, max_steps=5)
    policy = annotators.make(f"hybrid?retries={retries}", envs.codec)
    policy.use_engine(envs.engine)
    observations, _ = envs.reset(options={"case": [case.key for case in cases]})
    policy.reset(range(8), [np.random.default_rng(i) for i in range(8)])
    for _ in range(5):
        running = sum(not episode.done for episode in envs.episodes)
        backbone.rows.clear()
        before = policy.effort.looks
        actions = policy.act(observations, envs.episodes)
        assert len(backbone.rows) <= retries + 1
        assert backbone.rows == sorted(backbone.rows, reverse=True)
        assert sum(backbone.rows) == policy.effort.looks - before <= running * (retries + 1)
        observations, *_ = envs.step(actions)


@pytest.mark.parametrize("bins", [12, 1000])
def test_no_pixel_is_tried_twice(bins):
    seen: list[AddPoint] = []

    class Watching(EpisodeEngine):
        def preview(self, episodes, prompts):
            seen.extend(prompts)
            return super().preview(episodes, prompts)

    mask = np.random.default_rng(0).random((20, 20)) < 0.5
    case = Case("noise", np.zeros((20, 20, 3), np.uint8), mask, target="noise")
    engine = Watching(EllipseBackbone())
    engine.reset([0], [case])
    policy = BoxToPoint(ArrayCodec(bins), tau=0.9 * (1 - mask.mean()), retries=300)
    policy.use_engine(engine)
    policy.reset([0], [np.random.default_rng(0)])
    for _ in range(2):
        actions = policy.act({}, [engine.episode(0)])
        engine.step([0], policy.codec.decode(actions))
    cells = [(to_cell(c.x, bins), to_cell(c.y, bins)) for c in seen]
    assert engine.episode(0).stopped and len(cells) == len(set(cells)) > 80


def test_it_takes_over_from_another_agent():
    engine = EpisodeEngine(CountingBackbone(), max_steps=9)
    case = blobs(4)
    (episode,) = engine.reset([0], [case])
    engine.step([0], [AddPoint(0.02, 0.02)])
    policy = BoxToPoint(ArrayCodec(), tau=0)
    policy.use_engine(engine)
    policy.reset([0], [np.random.default_rng(0)])
    (prompt,) = policy.codec.decode(policy.act({}, [episode]))
    assert isinstance(prompt, AddPoint)  # there are prompts already
    engine.step([0], [Clear()])
    (prompt,) = policy.codec.decode(policy.act({}, [episode]))
    assert isinstance(prompt, AddBox)


# the filter, the mixture, the names ---------------------------------------------------------------
def test_the_filter_goes_by_the_final_iou():
    cases = [blobs(seed) for seed in range(10)]
    _, episodes = play("hybrid", cases)
    ious = sorted(episode.iou for episode in episodes)
    for limit in (0.0, ious[4], 1.0):
        policy = annotators.make(f"hybrid?min_iou={limit}", ArrayCodec())
        noisy = annotators.make(f"noisy-hybrid?min_iou={limit}", ArrayCodec())
        kept = [policy.accepts(episode) for episode in episodes]
        assert kept == [episode.iou >= policy.min_iou for episode in episodes]
        assert kept == [noisy.accepts(episode) for episode in episodes]
    assert all(annotators.make("oracle-box", ArrayCodec()).accepts(episode) for episode in episodes)


def test_hybrid_mixes_the_two_in_the_share_asked_for():
    cases = [blobs(seed) for seed in range(40)]
    for share in (0.0, 0.3, 1.0):
        _, episodes = play(f"hybrid?boxes={share}&retries=0", cases, max_steps=1, num_envs=40)
        boxes = np.mean([e.steps[0].tool == "box" for e in episodes])
        assert abs(boxes - share) <= (0.2 if 0 < share < 1 else 0)
    cases = cases[:8]
    _, first = play("hybrid", cases, num_envs=3)
    _, second = play("hybrid", cases, num_envs=8)
    for a, b in zip(first, second, strict=True):
        assert [s.prompt for s in a.steps] == [s.prompt for s in b.steps]
    parts = {
        "box": {e.case.key: e for e in play("box-to-point?retries=0", cases)[1]},
        "positive_point": {e.case.key: e for e in play("sequential-click?retries=0", cases)[1]},
    }
    for episode in play("hybrid?retries=0", cases)[1]:
        same = parts[episode.steps[0].tool][episode.case.key]
        assert [s.prompt for s in episode.steps] == [s.prompt for s in same.steps]


def test_names_say_what_is_not_the_default():
    codec = ArrayCodec()
    policy = annotators.make("hybrid?boxes=0.25&tau=0.02&retries=5&min_iou=0.8", codec)
    assert isinstance(policy, Hybrid) and (policy.tau, policy.retries) == (0.02, 5)
    assert (policy.boxes, policy.min_iou) == (0.25, 0.8)
    assert annotators.make(policy.name, codec).name == policy.name != "hybrid"
    assert annotators.make("hybrid?tau=0.01&retries=3", codec).name == "hybrid"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hybrid?tau=1", "0 <= tau < 1"),
        ("hybrid?tau=nan", "a finite number is wanted"),
        ("hybrid?retries=1.5", "whole number of retries"),
        ("hybrid?retries=-1", "whole number of retries"),
        ("hybrid?min_iou=2", "min_iou"),
        ("hybrid?boxes=1.5", "0 <= boxes <= 1"),
        ("box-to-point?boxes=1", "no option 'boxes'; it takes: tau, retries, min_iou"),
    ],
)
def test_options_out_of_range_are_refused(text, words):
    with pytest.raises(PolicyError, match=words):
        annotators.make(text, ArrayCodec())


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_view_without_the_tools_is_refused(expert):
    with pytest.raises(PolicyError, match=r"needs the tools \['stop'\]"):
        expert(ArrayCodec(tools=["box", "positive_point", "negative_point"]))


def test_a_record_cannot_be_looked_ahead_in():
    case = blobs(2)
    episode = Episode(case, torch.from_numpy(case.mask.copy()), max_steps=3)
    policy = SequentialClick(ArrayCodec())
    policy.reset([0], [np.random.default_rng(0)])
    engine = EpisodeEngine(EllipseBackbone())
    engine.reset([0], [case])
    engine.step([0], [AddPoint(0.1, 0.1)])
    episode.record(AddPoint(0.1, 0.1), "decode", state=engine.episode(0).state)
    with pytest.raises(PolicyError, match="is a record"):
        policy.act({}, [episode])
    assert issubclass(SequentialClick, Expert)


# looking ahead ------------------------------------------------------------------------------------
@settings(max_examples=20)
@given(
    history=st.lists(st.one_of(st.from_type(AddBox), st.from_type(AddPoint)), max_size=3),
    prompt=st.one_of(st.from_type(AddBox), st.from_type(AddPoint)),
)
def test_preview_is_what_the_step_makes_and_changes_nothing(small_cases, history, prompt):
    engine = EpisodeEngine(EllipseBackbone(), num_slots=2, max_steps=6)
    episodes = engine.reset([0, 1], small_cases[:2])
    for earlier in history:
        engine.step([0, 1], [earlier, earlier])
    before = [(e.state, list(e.steps), list(e._before)) for e in episodes]
    if isinstance(prompt, AddBox) and prompt.is_empty:
        with pytest.raises(EpisodeError, match="the box has no area"):
            engine.preview(episodes, [prompt, prompt])
        return
    # Rows of one batch do not mix, and an episode may stand there more than once.
    looked = engine.preview([*episodes, episodes[0]], [prompt, prompt, AddPoint(0.9, 0.1)])[:2]
    assert before == [(e.state, list(e.steps), list(e._before)) for e in episodes]
    engine.step([0, 1], [prompt, prompt])
    for state, episode in zip(looked, episodes, strict=True):
        made = episode.state
        assert torch.equal(state.mask, made.mask) and torch.equal(state.logits, made.logits)
        assert (state.pixels, state.intersection) == (made.pixels, made.intersection)
        assert (state.box, state.points) == (made.box, made.points)


def test_preview_agrees_with_a_network_s_step(tiny_backbone, small_cases):
    engine = EpisodeEngine(tiny_backbone, num_slots=3)
    episodes = engine.reset([0, 1, 2], small_cases[:3])
    engine.step([0, 1, 2], [AddBox(0.2, 0.2, 0.8, 0.7)] * 3)
    clicks = [AddPoint(0.4, 0.4), AddPoint(0.6, 0.3, False), AddPoint(0.1, 0.9)]
    looked = engine.preview(episodes[:1], clicks[:1]) + engine.preview(episodes[1:], clicks[1:])
    engine.step([0, 1, 2], clicks)
    for state, episode in zip(looked, episodes, strict=True):
        torch.testing.assert_close(state.logits, episode.state.logits, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("prompt", [Stop(), Undo(), Clear()])
def test_only_what_makes_a_mask_can_be_previewed(prompt, small_cases):
    engine = EpisodeEngine(EllipseBackbone())
    episodes = engine.reset([0], small_cases[:1])
    engine.step([0], [AddPoint(0.5, 0.5)])
    with pytest.raises(EpisodeError, match="only a valid box or click can be previewed"):
        engine.preview(episodes, [prompt])
    engine.step([0], [Stop()])
    with pytest.raises(EpisodeError, match="is over"):
        engine.preview(episodes, [AddPoint(0.5, 0.5)])


# where clicks go ----------------------------------------------------------------------------------
@given(error=masks)
def test_no_pixel_is_deeper_than_the_bound(error):
    assert depth_map(error).max() <= depth_bound(error) + 1e-9


@given(data=st.data(), seed=st.integers(0, 1000))
def test_drawn_clicks_lie_on_the_error_until_it_is_used_up(data, seed):
    truth = data.draw(masks)
    mask = data.draw(arrays(bool, truth.shape))
    error, generator = ErrorClicks(mask, truth), np.random.default_rng(seed)
    tried: list[tuple[int, int]] = []
    while (click := error.draw(generator, tried)) is not None:
        row, column = int(click.y * truth.shape[0]), int(click.x * truth.shape[1])
        assert (row, column) not in tried
        assert truth[row, column] == click.positive and mask[row, column] != click.positive
        tried.append((row, column))
    assert len(tried) == (mask ^ truth).sum()
    assert error.deepest(tried) is None


def test_deep_pixels_are_drawn_more_often():
    truth = np.zeros((11, 11), bool)
    truth[1:10, 1:10] = True
    generator = np.random.default_rng(0)
    drawn = [ErrorClicks(~truth & False, truth).draw(generator, []) for _ in range(2000)]
    depth = [
        min(int(c.x * 11), 10 - int(c.x * 11), int(c.y * 11), 10 - int(c.y * 11)) for c in drawn
    ]
    counts = np.bincount(depth, minlength=6)[1:]
    pixels = np.array([32, 24, 16, 8, 1])
    weights = pixels * np.arange(1, 6)
    assert np.allclose(counts / 2000, weights / weights.sum(), atol=0.04)


@given(
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    bins=st.sampled_from([2, 16, 40, 1000]),
)
def test_click_pixels_are_those_of_its_cell_and_its_own(x, y, shape, bins):
    result = click_pixels(AddPoint(x, y), shape, bins)
    own = min(int(y * shape[0]), shape[0] - 1), min(int(x * shape[1]), shape[1] - 1)
    rows = {r for r in range(shape[0]) if to_cell((r + 0.5) / shape[0], bins) == to_cell(y, bins)}
    columns = {
        c for c in range(shape[1]) if to_cell((c + 0.5) / shape[1], bins) == to_cell(x, bins)
    }
    expected = {(r, c) for r in rows | {own[0]} for c in columns | {own[1]}}
    assert set(result) == expected and len(result) == len(expected)


@given(mask=masks, bins=st.sampled_from([2, 5, 1000]))
def test_widened_boxes_survive_the_grid(mask, bins):
    box = tight_box(mask)
    if box is None:
        return
    codec = ArrayCodec(bins)
    (played,) = codec.decode(codec.encode(widen(box, bins))[None])
    assert isinstance(played, AddBox) and not played.is_empty
    plain = codec.decode(codec.encode(box)[None])[0]
    assert plain.is_empty or played == plain


def test_masks_come_to_the_host_as_they_are(small_cases):
    engine = EpisodeEngine(EllipseBackbone(), num_slots=5)
    episodes = engine.reset(range(5), small_cases)
    engine.step(range(5), [AddBox(0.1, 0.2, 0.7, 0.9)] * 5)
    for mask, episode in zip(masks_to_host(episodes), episodes, strict=True):
        assert mask.dtype == bool and (mask == episode.state.mask.numpy()).all()
    assert masks_to_host([]) == []
