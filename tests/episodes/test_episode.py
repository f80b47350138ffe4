"""The rules of an episode: what is valid, what undo goes back to, and when it is over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from medseg_gym.cases import Case
from medseg_gym.episodes import Episode, EpisodeError, MaskState, metrics
from medseg_gym.errors import PromptError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo

BOX, OTHER_BOX = AddBox(0.1, 0.1, 0.6, 0.6), AddBox(0.3, 0.2, 0.9, 0.8)
CLICK, CUT = AddPoint(0.5, 0.5), AddPoint(0.2, 0.2, positive=False)
TRUTH = np.array([[1, 1, 0], [1, 0, 0]], bool)


def start(max_steps: int = 10, truth: np.ndarray = TRUTH) -> Episode:
    case = Case("c", np.zeros((*truth.shape, 3), np.uint8), truth, "blob")
    return Episode(case, torch.from_numpy(truth.copy()), max_steps)


def mask_number(number: int) -> np.ndarray:
    """One of the 64 masks of two by three pixels."""
    return np.array([number >> bit & 1 for bit in range(6)], bool).reshape(2, 3)


def take(episode: Episode, prompt, mask: int = 0):
    """Judge and record an action as the engine does; a decode answers with mask `mask`."""
    effect, error = episode.judge(prompt)
    state = None
    if effect == "decode":
        pixels = torch.from_numpy(mask_number(mask))
        both = int((pixels & episode.truth).sum())
        logits = torch.full((1, 1), float(mask))
        state = MaskState(pixels, int(pixels.sum()), both, *episode.with_prompt(prompt), logits)
    return episode.record(prompt, effect, error, state)


def in_force(episode: Episode):
    return episode.state.box, episode.state.points


def test_it_begins_with_nothing():
    episode = start()
    assert in_force(episode) == (None, ()) and episode.state.logits is None
    assert not episode.state.mask.any() and (episode.dice, episode.iou) == (0, 0)
    assert (episode.steps_left, episode.done, episode.stopped) == (10, False, False)


def test_an_absent_target_begins_perfect_and_is_spoiled_by_any_pixel():
    episode = start(truth=np.zeros((2, 3), bool))
    assert (episode.dice, episode.iou) == (1, 1)
    assert take(episode, BOX, mask=1).dice == 0
    assert take(episode, CLICK, mask=0).dice == 1


def test_a_new_box_replaces_and_clicks_accumulate():
    episode = start()
    for prompt in (BOX, CLICK, OTHER_BOX, CUT, CLICK):
        take(episode, prompt)
    assert in_force(episode) == (OTHER_BOX, (CLICK, CUT, CLICK))


def test_undo_walks_back_over_adds_and_clears():
    episode = start()
    for mask, prompt in enumerate((BOX, CLICK, Clear(), CUT), start=1):
        take(episode, prompt, mask)
    before = [(None, (), 0), (BOX, (CLICK,), 2), (BOX, (), 1), (None, (), 0)]
    for box, points, mask in before:
        step = take(episode, Undo())
        assert (step.effect, step.error, step.valid) == ("restore", "", True)
        assert in_force(episode) == (box, points)
        assert np.array_equal(episode.state.mask.numpy(), mask_number(mask))
    step = take(episode, Undo())
    assert (step.effect, step.error) == ("invalid", "there is nothing to undo")


def test_undo_restores_scores_and_logits_too():
    episode = start()
    good = take(episode, BOX, mask=0b001011)
    assert good.dice == 1
    take(episode, CLICK, mask=0b110000)
    assert episode.dice == 0
    step = take(episode, Undo())
    assert step.state is good.state and (step.dice, step.iou) == (1, 1)
    take(episode, Clear())
    assert episode.dice == 0 and episode.state.logits is None
    assert take(episode, Undo()).state is good.state


def test_undo_is_not_itself_undone():
    episode = start()
    take(episode, BOX, 1)
    take(episode, Undo())
    take(episode, Undo())
    assert in_force(episode) == (None, ()) and not episode.steps[-1].valid


def test_an_add_after_an_undo_goes_on_from_the_state_restored():
    episode = start()
    for prompt in (BOX, CLICK, Undo(), CUT):
        take(episode, prompt)
    assert in_force(episode) == (BOX, (CUT,))
    take(episode, Undo())
    assert in_force(episode) == (BOX, ())


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (None, "the action could not be read"),
        (PromptError("no <tool_call> found"), "no <tool_call> found"),
        (AddBox(0.3, 0.3, 0.3, 0.8), "the box has no area"),
        (Undo(), "there is nothing to undo"),
        (Clear(), "there is nothing to clear"),
    ],
    ids=repr,
)
def test_an_invalid_action_changes_nothing_but_uses_a_step(action, error):
    episode = start(max_steps=2)
    state = episode.state
    step = take(episode, action)
    assert not step.valid and error in step.error and step.state is state
    assert (episode.steps_left, episode.done) == (1, False)
    assert take(episode, action).state is state
    assert (episode.steps_left, episode.done, episode.stopped) == (0, True, False)


def test_what_could_not_be_read_has_no_prompt_and_no_tool():
    episode = start()
    for action in (None, PromptError("?")):
        step = take(episode, action)
        assert step.prompt is None and step.tool == ""
    assert take(episode, Undo()).tool == "undo"


def test_clear_after_clear_is_invalid_and_does_not_hide_the_first_from_undo():
    episode = start()
    for prompt in (BOX, Clear(), Clear()):
        take(episode, prompt)
    assert not episode.steps[-1].valid
    take(episode, Undo())
    assert in_force(episode) == (BOX, ())


@pytest.mark.parametrize("actions", [[Stop()], [BOX, Stop()], [BOX, CLICK, CUT]], ids=repr)
def test_nothing_happens_after_the_end(actions):
    episode = start(max_steps=3)
    for action in actions:
        assert not episode.done
        take(episode, action)
    assert episode.done and episode.steps_left == 0
    assert episode.stopped == isinstance(actions[-1], Stop)
    with pytest.raises(EpisodeError, match="case 'c' is over; reset it first"):
        episode.judge(Stop())
    with pytest.raises(EpisodeError, match="case 'c' is over; reset it first"):
        episode.record(Stop(), "stop")


def test_a_state_belongs_to_a_decode_alone():
    episode = start()
    with pytest.raises(EpisodeError, match="a state belongs to a decode"):
        episode.record(BOX, "decode")
    with pytest.raises(EpisodeError, match="a state belongs to a decode"):
        episode.record(Stop(), "stop", state=episode.start)
    assert not episode.steps


class EpisodeRules(RuleBasedStateMachine):
    """Replays a journal: undo strikes its last entry, and what is left says what is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.episode = start(max_steps=25)
        self.journal: list[tuple[object, int]] = []  # valid adds and clears that still stand
        self.taken = 0
        self.stopped = False

    def expected(self):
        box, points, mask = None, (), 0
        for prompt, made in self.journal:
            if isinstance(prompt, Clear):
                box, points, mask = None, (), 0
            elif isinstance(prompt, AddBox):
                box, mask = prompt, made
            else:
                points, mask = (*points, prompt), made
        return box, points, mask_number(mask)

    def act(self, action, valid: bool, mask: int = 0) -> None:
        step = take(self.episode, action, mask)
        self.taken += 1
        assert step.valid == valid and bool(step.error) == (not valid)

    running = precondition(lambda self: not self.stopped and self.taken < 25)

    @running
    @rule(prompt=st.from_type(AddBox) | st.from_type(AddPoint), mask=st.integers(0, 63))
    def add(self, prompt, mask):
        valid = not (isinstance(prompt, AddBox) and prompt.is_empty)
        self.act(prompt, valid, mask)
        if valid:
            self.journal.append((prompt, mask))

    @running
    @rule()
    def undo(self):
        self.act(Undo(), valid=bool(self.journal))
        self.journal[-1:] = []

    @running
    @rule()
    def clear(self):
        box, points, _ = self.expected()
        valid = box is not None or bool(points)
        self.act(Clear(), valid)
        if valid:
            self.journal.append((Clear(), 0))

    @running
    @rule(action=st.sampled_from([None, PromptError("unreadable")]))
    def mumble(self, action):
        self.act(action, valid=False)

    @running
    @precondition(lambda self: self.taken > 8)
    @rule()
    def stop(self):
        self.act(Stop(), valid=True)
        self.stopped = True

    @precondition(lambda self: self.stopped or self.taken == 25)
    @rule(action=st.sampled_from([Stop(), Undo(), BOX, None]))
    def act_after_the_end(self, action):
        with pytest.raises(EpisodeError):
            self.episode.judge(action)

    @invariant()
    def agrees_with_the_journal(self):
        episode = self.episode
        box, points, mask = self.expected()
        assert in_force(episode) == (box, points)
        assert np.array_equal(episode.state.mask.numpy(), mask)
        assert episode.dice == metrics.dice(mask, TRUTH) and episode.iou == metrics.iou(mask, TRUTH)
        assert (episode.state.logits is None) == (box is None and not points)
        over = self.stopped or self.taken == 25
        assert (episode.done, episode.stopped) == (over, self.stopped)
        assert episode.steps_left == (0 if over else 25 - self.taken)
        assert len(episode.steps) == self.taken


TestEpisodeRules = EpisodeRules.TestCase
TestEpisodeRules.settings = settings(max_examples=60, stateful_step_count=30)
