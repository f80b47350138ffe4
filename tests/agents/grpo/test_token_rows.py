"""Rows of tokens: as few as are exact."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from medseg_agents.grpo.rollout.token_rows import HashedImage, TurnTokens, rows_of

IMAGES = [HashedImage.of(np.full((2, 2, 3), value, np.uint8)) for value in range(4)]


def turn(prompt, completion, images=1):
    return TurnTokens(
        np.array(prompt, np.int32),
        np.array(completion, np.int32),
        np.arange(len(completion), dtype=np.float32) - 5,
        tuple(IMAGES[:images]),
    )


def test_a_conversation_that_grows_is_one_row():
    rows = rows_of([turn([1, 2], [3, 4]), turn([1, 2, 3, 4, 5], [6], 2)], episode=7)
    (row,) = rows
    assert row.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert row.completion_mask.tolist() == [False, False, True, True, False, True]
    assert row.turns.tolist() == [-1, -1, 0, 0, -1, 1]
    assert row.log_probs.tolist() == [0, 0, -5, -4, 0, -5]
    assert row.prompt_ends == {0: 1, 1: 4} and row.episode == 7
    assert row.images == IMAGES[:2]
    row.set_advantages([0.5, -2])
    assert row.advantages.tolist() == [0, 0, 0.5, 0.5, 0, -2]


def test_what_was_shown_otherwise_begins_a_new_row():
    # An answer that tokenizes otherwise than it was generated, and an image that is gone.
    first, second = rows_of([turn([1, 2], [3, 4]), turn([1, 2, 9, 5], [6], 2)], 0)
    assert first.tokens.tolist() == [1, 2, 3, 4] and second.tokens.tolist() == [1, 2, 9, 5, 6]
    assert second.prompt_ends == {1: 3} and second.turns.tolist() == [-1, -1, -1, -1, 1]
    other = TurnTokens(*vars(turn([1, 2, 3, 5], [6])).values())
    other = TurnTokens(other.prompt, other.tokens, other.log_probs, (IMAGES[3],))
    assert len(rows_of([turn([1, 2], [3]), other], 0)) == 2


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=3),
            st.lists(st.integers(0, 3), min_size=1, max_size=3),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_said_token_stands_after_what_was_read_before_it(turns):
    context, given_turns = [], []
    for new, completion, forgets in turns:
        prompt = (new if forgets else context + new) or [0]
        given_turns.append(turn(prompt, completion))
        context = prompt + completion
    rows = rows_of(given_turns, 0)
    numbers = []
    for row in rows:
        for number, end in row.prompt_ends.items():
            places = np.flatnonzero(row.turns == number)
            assert places[0] == end + 1 and row.completion_mask[places].all()
            assert row.tokens[: end + 1].tolist() == given_turns[number].prompt.tolist()
            assert row.tokens[places].tolist() == given_turns[number].tokens.tolist()
            numbers.append(number)
    assert sorted(numbers) == list(range(len(turns)))
    assert sum(row.completion_mask.sum() for row in rows) == sum(
        len(completion) for _, completion, _ in turns
    )
