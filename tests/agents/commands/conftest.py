"""A folder as a user has one: own policies, cases and rewards, and nothing of this repository."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

FILES = {
    "my_pkg/__init__.py": "",
    "my_pkg/tools.py": """
import numpy as np

def corners_of(mask):
    y, x = np.nonzero(mask)
    corners = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) if len(x) else np.zeros(4)
    return (corners * 1000 // mask.shape[0]).clip(0, 999)
""",
    "my_pkg/policies.py": """
import numpy as np
from my_pkg.tools import corners_of

class Bright:
    name, sees_truth = "bright", False

    def __init__(self, codec, threshold: float = 120):
        self.threshold = threshold

    def reset(self, slots, generators):
        pass

    def act(self, observations):
        images = observations["image"].mean(3)
        actions = np.full((len(images), 5), 5)
        for slot in np.flatnonzero(observations["steps_left"][:, 0] == 1):
            actions[slot] = 0, *corners_of(images[slot] > self.threshold)
        return actions
""",
    "bright.py": """
from my_pkg.policies import Bright as _Bright

class Bright(_Bright):
    name = "bright-of-a-file"

def no_codec():
    return None

NUMBER = 3
""",
    "cases.py": """
import numpy as np
from medseg_gym.cases import Case, CaseSource

class Squares(CaseSource):
    targets = ("bright square",)
    keys = tuple(f"square-{i}" for i in range(6))

    def __init__(self, level: int = 120):
        self.level = level

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 90, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), bool)
        mask[index : index + 12, 10:22] = True
        image[mask] += np.uint8(self.level)
        return Case(self.keys[index], image, mask, "bright square", synthetic=True)

def squares(split):
    return Squares()

class Keyless(CaseSource):
    targets = ()

    def __getitem__(self, index):
        raise IndexError(index)

def failing(split):
    return Squares()[0].nothing
""",
    "rewarding.py": """
from medseg_gym.episodes.rewards import RewardValue

def final_iou(episode, weight: float = 1.0):
    value = weight * episode.iou if episode.done else 0.0
    return RewardValue(value, {"final_iou": value})

def plain_iou(episode):
    return episode.iou if episode.done else 0

def no_episode():
    return 0.0
""",
    "failing.py": """
from cases import Squares as _Squares
from my_pkg.policies import Bright

class Act(Bright):
    def act(self, observations):
        return divide(observations)

def divide(observations):
    return 1 / 0

class Short(Bright):
    def act(self, observations):
        return []

class Reset(Bright):
    def reset(self, slots):
        pass

class Nameless:
    def __init__(self, codec):
        pass

def reward(episode):
    return term(episode)

def term(episode):
    return episode.nothing

def nan(episode):
    return float("nan")

class Uncalled:
    pass

class BadCall:
    def __call__(self):
        return 1.0

class Torn(_Squares):
    def __getitem__(self, index):
        return open(f"gone-{index}.png")

class Other(_Squares):
    def __getitem__(self, index):
        return super().__getitem__(0)

class NoCase(_Squares):
    def __getitem__(self, index):
        return None

class NoKeys(_Squares):
    keys = None

def in_validation(split):
    return Torn() if split == "val" else _Squares()
""",
    "broken.py": "import nothing_of_that_name\n",
}


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """The current folder, with the user's files; imports of it are forgotten afterwards."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    mask = np.zeros((32, 32), np.uint8)
    mask[4:16, 10:22] = 255
    Image.fromarray(np.stack([40 + mask // 2] * 3, -1)).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and tmp_path in Path(file).parents:
            del sys.modules[name]


@pytest.fixture
def medseg(own_folder):
    """Give `medseg` arguments in this process; it must end well."""
    from medseg_gym.cli.main import add_installed_commands, app

    add_installed_commands(app)

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(one) for one in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run
