"""The buffer: what comes out is what went in, and the oldest go first."""

import numpy as np
import torch
from medseg_agents.arrays.dagger.state_buffer import LabelledState, StateBuffer

from medseg_gym.policy import make_envs


def fill(size, steps=6):
    envs = make_envs(2, cases="phantoms:fundus", backbone="ellipse", image_size=40, bins=20)
    buffer, shown = StateBuffer(size), []
    seen, _ = envs.reset(seed=1)
    for step in range(steps):
        for slot in range(2):
            number = 2 * step + slot
            one = {name: values[slot].copy() for name, values in seen.items()}
            cells = np.full((20, 20), number, np.uint8)
            key = f"{slot}/{step // 3}"  # two cases a slot
            buffer.add(LabelledState(key, one, np.full(5, number), cells, cells), float(number))
            shown.append((key, one))
        actions = envs.action_space.sample()
        seen, *_ = envs.step(actions)
    return buffer, shown


def test_minibatches_hold_what_was_seen():
    buffer, shown = fill(100)
    batch = buffer.draw(64, np.random.default_rng(0))
    first = {}
    for key, one in shown:
        first.setdefault(key, one["image"])
    for row, number in enumerate(batch["actions"][:, 0].tolist()):
        key, one = shown[number]
        assert batch["returns"][row] == number
        assert (batch["clicks"][row] == number).all() and (batch["truth"][row] == number).all()
        for name, value in one.items():
            value = first[key] if name == "image" else value
            assert torch.equal(batch["observation"][name][row], torch.as_tensor(value)), name
    assert len(set(batch["actions"][:, 0].tolist())) > 8


def test_the_oldest_go_first_and_their_images_with_them():
    buffer, _ = fill(4)
    assert len(buffer) == 4
    drawn = set(buffer.draw(64, np.random.default_rng(0))["returns"].tolist())
    assert drawn == {8.0, 9.0, 10.0, 11.0}
    assert set(buffer._images) == {"0/1", "1/1"}
