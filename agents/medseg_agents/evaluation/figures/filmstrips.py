"""Episodes step by step, chosen by a rule: evenly spread from the best final Dice to the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.evaluate import file_name
from medseg_agents.evaluation.options import CompareOptions, PlayingOptions
from medseg_gym import backbones
from medseg_gym.backbones import Backbone
from medseg_gym.cases import CaseSource
from medseg_gym.envs.contact_sheet import contact_sheet
from medseg_gym.episodes import DecodeOptions, Episode, EpisodeEngine
from medseg_gym.parallel.compute import choose_gpu
from medseg_gym.prompts import read_answer


def choose_episodes(records: Sequence[CaseRecord], count: int) -> list[tuple[int, CaseRecord]]:
    """Choose records evenly spread over their order by final Dice, the best and the worst included.

    Args:
        records: Of one policy.
        count: How many at most.

    Returns:
        (place from 1, record), the best first.
    """
    ordered = sorted(records, key=lambda record: (-record.dice[-1], record.case))
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered)))
    return [(int(place) + 1, ordered[int(place)]) for place in places.round()]


def draw_filmstrips(
    records: Sequence[CaseRecord],
    source: CaseSource,
    backbone: Backbone,
    options: PlayingOptions,
    path: Path,
) -> bool:
    """Play the calls of some episodes again and draw them, a row each.

    Places of the calls are those of the records, on a grid of 1000: a policy that points finer may
    have had a mask that differs by some pixels.

    Args:
        records: Of one policy on one backbone.
        source: That has the cases.
        backbone: That segments again.
        options: That the records were played with.
        path: Of the PNG.

    Returns:
        Whether there was anything to draw.
    """
    chosen = choose_episodes(records, options.filmstrips)
    if not chosen:
        return False
    cases = [source[source.index_of(record.case)] for _, record in chosen]
    words = DecodeOptions(text_prompt=options.text_prompt, text_start=options.text_start)
    engine = EpisodeEngine(backbone, len(chosen), max_steps=options.max_steps, options=words)
    episodes: list[Episode] = engine.reset(range(len(chosen)), cases)
    for number in range(max(len(record.calls) for _, record in chosen)):
        slots = [i for i, (_, record) in enumerate(chosen) if number < len(record.calls)]
        engine.step(slots, [read_answer(chosen[slot][1].calls[number]).prompt for slot in slots])
    labels = [f"{place} of {len(records)}" for place, _ in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(list(zip(labels, episodes, strict=True)), path)
    return True


def draw_filmstrips_of(
    records: Mapping[tuple[str, str], Sequence[CaseRecord]],
    source: CaseSource,
    options: CompareOptions,
    folder: Path,
) -> None:
    """Draw the episodes of a comparison, a file for every policy on every backbone.

    Args:
        records: By backbone and policy.
        source: That has the cases.
        options: Of the comparison.
        folder: Of the PNGs.
    """
    for name in options.backbones:
        device = choose_gpu(options.device, 0)
        backbone = backbones.load(name, options.checkpoints.get(name), device)
        for (played, policy), members in records.items():
            if played == name:
                path = folder / f"{file_name(f'{name}_{policy}')}.png"
                draw_filmstrips(members, source, backbone, options, path)
