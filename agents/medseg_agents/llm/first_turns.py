"""Chats of many first turns on one image: a cheap start for a model that has never seen anything.

An exported episode shows a new image every turn, and images are what costs. Here one image is
asked about every target in it, in the words of the environment's first turn, and the answers are
what an expert that begins with a box answers first: the tight box. Of a volume it is the box on the
slice that shows most of the target, and what a first turn shows is the middle slice and the
overview. The files are like those of `medseg trajectories export --format chat-parquet`, so that
the same training takes both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.annotators.box import tight_box, widen
from medseg_gym.cases import Case, CaseSource, VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.chat_kinds import kind_of
from medseg_gym.envs.views.messages import text_message
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import GRID, AddBox, Coordinates, Stop, encode_tool_call
from medseg_gym.prompts.volumes import SlicePrompt, encode_volume_call
from medseg_gym.trajectories.export.chat_format import png
from medseg_gym.trajectories.export.export import write_chats


def write_first_turns(
    path: str | Path,
    cases: str | CaseSource | VolumeSource,
    images: range,
    chat: ChatOptions,
    split: str = "train",
    per_image: int = 4,
    questions: int = 0,
    on_image: Callable[[], None] | None = None,
) -> None:
    """Write one chat per image.

    Args:
        path: Of the parquet file; it appears when it is whole.
        cases: Spec or source whose cases come image by image (or volume by volume), `per_image` of
            each.
        images: Numbers; image i holds the cases from i * `per_image` on.
        chat: How they are shown, and for how many steps (`max_steps`); `VolumeChatOptions` for
            volumes.
        split: "train" or "val", for a spec. Never "test": that is what the model is measured on.
        per_image: Cases that share an image.
        questions: Targets of an image that are asked about at most, drawn from all of which it is
            known where they are or that they are absent (`CaseSource.outlines`); 0 asks those of
            its cases alone.
        on_image: Called after each.

    Raises:
        PolicyError: Cases of the test split, neighbours that do not share an image, or `questions`
            for volumes.
        TrajectoryError: The file cannot be written.
    """
    if split == "test":
        raise PolicyError("first turns are for training; take the train or the val split")
    kind = kind_of(chat)
    source, view = kind.load(cases, split), kind.view(chat)
    of_images = source if isinstance(source, CaseSource) else None
    if questions and of_images is None:
        raise PolicyError(f"questions={questions} asks about targets of images; these are volumes")

    def rows() -> Iterator[dict[str, Any]]:
        for number in images:
            if questions and of_images is not None:
                together = _drawn(of_images, number * per_image, questions)
            else:
                together = [source[number * per_image + k] for k in range(per_image)]
            starts = [kind.begin(case, chat.max_steps) for case in together]
            yield _chat(starts, view)
            if on_image:
                on_image()

    write_chats(path, rows(), chat)


def _drawn(source: CaseSource, index: int, questions: int) -> list[Case]:
    """Cases of targets of the image of a case, in an order drawn for it.

    All that is known is asked about, absent targets too: they may be more than in what is played,
    but with fewer a model does not learn to look for them.
    """
    case, asked = source[index], source.outlines(index)
    order = np.random.default_rng(index).permutation(len(asked))[:questions]
    return [replace(case, target=asked[i][0], mask=asked[i][1]) for i in order]


def _chat(starts: Sequence[Any], view: ChatView) -> dict[str, Any]:
    cases = [start.case for start in starts]
    if len({case.content_hash for case in cases}) > 1:
        raise PolicyError(
            f"cases {cases[0].key!r} to {cases[-1].key!r} do not share an image; give per_image "
            "as the source has it"
        )
    messages = view.messages(starts[0])  # as the environment begins, image and all
    for start in starts:
        if start is not starts[0]:
            (question,) = view.observe([start])["text"]
            messages.append(text_message("user", question))
        messages.append(text_message("assistant", _answer(start.case, view.coordinates)))
    return {
        "messages": messages,
        "images": [{"bytes": png(image), "path": None} for image in view.images(starts[0])],
        "case": cases[0].key,
        "seed": 0,
        "rollout": 0,
        "dice": None,  # nothing was played
    }


def _answer(case: Case | VolumeCase, coordinates: Coordinates) -> str:
    if not isinstance(case, VolumeCase):
        return first_answer(case.mask, coordinates)
    key = int(case.mask.sum(axis=(1, 2)).argmax())
    box = tight_box(case.mask[key])
    prompt = SlicePrompt(key, widen(box, coordinates.bins)) if box else Stop()
    return encode_volume_call(prompt, coordinates)


def first_answer(mask: np.ndarray, coordinates: Coordinates = GRID) -> str:
    """The call with which a box expert begins: the tight box, or stop where there is no target.

    Args:
        mask: H x W bool.
        coordinates: How places are written.
    """
    box = tight_box(mask)
    prompt: AddBox | Stop = widen(box, coordinates.bins) if box else Stop()
    return encode_tool_call(prompt, coordinates)
