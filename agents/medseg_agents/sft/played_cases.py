"""Validation cases that a model plays while it learns from rows: metrics and a contact sheet."""

from __future__ import annotations

import copy
from typing import Any

from medseg_agents.evaluation.validation import play_validation, validation_metrics
from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.checkpoint import SavedView
from medseg_agents.llm.engine_options import ModelOptions
from medseg_agents.llm.generation import TransformersEngine
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT
from medseg_gym.policy import make_envs


class PlayedCases:
    """Plays the first cases of a "val" split, always the same, with the likeliest tokens.

    Args:
        config: A run's settings, with `PlayOptions`.
        processor: Of the model; a copy of it is used.
        shown: The environment, how the model is shown it, and arguments of its policy, such as
            `history`.
    """

    def __init__(self, config: Any, processor: Any, shown: SavedView) -> None:
        self._envs: Any = make_envs(
            config.play_count,
            shown.env_id or IMAGE_CHAT.env_id,
            cases=config.play_cases,
            split="val",
            backbone=config.play_backbone,
            **shown.view,
        )
        self._keys = list(self._envs.source.keys[: config.play_count])
        self._processor = copy.deepcopy(processor)
        self._options = ModelOptions(**{**shown.policy, "temperature": 0.0})

    def __call__(self, model: Any) -> tuple[dict[str, float], bytes]:
        """Play them; returns `validation_metrics`, and a PNG of the episodes.

        Args:
            model: That is trained; it is left as it was.
        """
        training = model.training
        model.eval()
        system = self._envs.system_messages
        engine = TransformersEngine(model, self._processor, system, self._options)
        view = self._envs.view
        policy = ChatPolicy(engine, view.texts.over, image_keys=view.image_keys)
        summaries, sheet = play_validation(self._envs, policy, self._keys)
        model.train(training)
        return validation_metrics(summaries), sheet


def played_cases(config: Any, processor: Any, shown: SavedView) -> PlayedCases | None:
    """Make what plays the cases that a run's settings name; None where they name none.

    Args:
        config: See `PlayedCases`.
        processor: See `PlayedCases`.
        shown: See `PlayedCases`.
    """
    return PlayedCases(config, processor, shown) if config.play_cases else None
