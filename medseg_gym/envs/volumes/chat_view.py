"""The chat view of volumes: a slice, an overview and a text; tool calls with `slice`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.chat_spaces import AnswerText
from medseg_gym.envs.views.chat_texts import ChatTexts, read_texts
from medseg_gym.envs.views.cut_answer import explain_cut
from medseg_gym.envs.views.protocol import Observations, Reading
from medseg_gym.envs.volumes.chat_options import VolumeChatOptions
from medseg_gym.envs.volumes.chat_texts import (
    VOLUME_PRESETS,
    VolumeChatTexts,
    volume_tool_schemas,
)
from medseg_gym.envs.volumes.view import VolumeView, sample, squash
from medseg_gym.episodes.volumes import VolumeEpisode, VolumeState
from medseg_gym.errors import PromptError
from medseg_gym.prompts import GRID, Coordinates
from medseg_gym.prompts.volumes import (
    VOLUME_TOOLS,
    VolumeCodec,
    encode_volume_call,
    read_volume_answer,
)

_SAMPLED_DEPTH = 24
_LINE = (255, 255, 0)


class VolumeAnswerText(AnswerText):
    """Every str; samples are tool calls in a volume of up to 24 slices, now and then words."""

    def __init__(
        self,
        tools: tuple[str, ...] = VOLUME_TOOLS,
        seed: Any = None,
        coordinates: Coordinates = GRID,
    ) -> None:
        super().__init__(seed=seed, coordinates=coordinates)
        self.tools = tools
        self._volumes = VolumeCodec(_SAMPLED_DEPTH, tools=tools)

    def _sample_call(self) -> str:
        row = self.np_random.integers(self._volumes.space.nvec)
        (prompt,) = self._volumes.decode(row[None], [_SAMPLED_DEPTH])
        return encode_volume_call(prompt, self.coordinates)


class VolumeChatView(ChatView):
    """Shows volume episodes as conversations; the truth is never in them.

    Args:
        options: Those of `VolumeChatOptions` that concern the view; the others are not looked at.

    Raises:
        MedSegError: An option out of range.
    """

    image_keys: ClassVar[tuple[str, ...]] = ("image", "overview")

    def __init__(self, options: VolumeChatOptions | None = None) -> None:
        options = options or VolumeChatOptions()
        super().__init__(options)
        self._arrays = VolumeView((), options)
        self.overview_side = self._arrays.overview_side

    @staticmethod
    def _read_texts(texts: Any) -> ChatTexts:
        return read_texts(texts, VOLUME_PRESETS, VolumeChatTexts)

    @staticmethod
    def _check_tools(tools: Sequence[str]) -> tuple[str, ...]:
        return VolumeCodec(tools=tools).tools

    # what there is ------------------------------------------------------------------------------
    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI's function schemas."""
        return volume_tool_schemas(self.tools, self.coordinates)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the view that decide the numbers of a run; JSON."""
        return {**super().settings, "view": "volume-chat", "overview_size": self.overview_side}

    @property
    def action_space(self) -> VolumeAnswerText:
        """Every str; samples are mostly tool calls."""
        return VolumeAnswerText(self.tools, coordinates=self.coordinates)

    @property
    def observation_space(self) -> spaces.Dict:
        """Newest user turn: `text`, `image` (P, P, 3) and `overview` (O, 3 O, 3) uint8."""
        side = self.overview_side
        overview = spaces.Box(0, 255, (side, 3 * side, 3), np.uint8)
        return spaces.Dict({**super().observation_space, "overview": overview})

    # what is shown ------------------------------------------------------------------------------
    def observe(self, episodes: Sequence[VolumeEpisode]) -> Observations:  # type: ignore[override]
        """Newest user turns: n texts, `image` (n, P, P, 3), `overview` (n, O, 3 O, 3) uint8."""
        return {
            "text": tuple(map(self._newest_text, episodes)),  # type: ignore[arg-type]
            "image": np.stack([self.slice_image(e.case, e.state, e.view) for e in episodes]),
            "overview": np.stack([self.overview(e.case, e.state, e.view) for e in episodes]),
        }

    def slice_image(self, case: VolumeCase, state: VolumeState, view: int) -> np.ndarray:
        """A slice under its mask, P x P x 3 uint8, fresh."""
        image = np.array(squash(case.rgb(view), self.side))
        one = state.slices.get(view)
        if one is not None and one.pixels and self.overlay != "none":
            self._paint(image, sample(one.mask(case.width), self.side))
        return image

    def overview(self, case: VolumeCase, state: VolumeState, view: int) -> np.ndarray:
        """Three maximum projections side by side under the mask's, O x 3 O x 3 uint8, fresh."""
        side = self.overview_side
        image = _beside(self._arrays.overview(case))[..., None].repeat(3, axis=2)
        if state.pixels and self.overlay != "none":
            self._paint(image, _beside(self._arrays.overview_mask(case, state)) > 0)
        image[int((view + 0.5) / case.depth * side), side:] = _LINE
        return image

    def images(self, episode: VolumeEpisode) -> list[np.ndarray]:  # type: ignore[override]
        """Return the images of `messages`, in order: of every turn the slice, then the overview."""
        shown = range(len(episode.steps) + (not episode.done))
        images = []
        for turn in shown:
            state, view = _at(episode, turn)
            images.append(self.slice_image(episode.case, state, view))
            images.append(self.overview(episode.case, state, view))
        return images

    def _fields(self, episode: Any, taken: int) -> dict[str, Any]:
        state, view = _at(episode, taken)
        return {
            **super()._fields(episode, taken),
            "slice": view,
            "last_slice": episode.case.depth - 1,
            "mask_slices": sum(one.pixels > 0 for one in state.slices.values()),
        }

    # what is said -------------------------------------------------------------------------------
    def write_call(self, prompt: Any) -> str:
        """Return the tool call that asks for a prompt."""
        return encode_volume_call(prompt, self.coordinates)

    def read(self, actions: Sequence[str], episodes: Sequence[VolumeEpisode] = ()) -> list[Reading]:
        """Read what answers ask for; no str makes it raise.

        Args:
            actions: Answers.
            episodes: Not looked at; views of arrays need their depth.
        """
        readings = []
        for action in actions:
            answer = read_volume_answer(action, self.tools, self.thinking, self.coordinates)
            prompt = PromptError(answer.error) if answer.prompt is None else answer.prompt
            reading = Reading(prompt, {"repairs": ", ".join(answer.repairs)})
            readings.append(explain_cut(action, reading))
        return readings


def _at(episode: VolumeEpisode, taken: int) -> tuple[VolumeState, int]:
    """State and slice in view after so many steps."""
    if taken == 0:
        return episode.start, episode.case.depth // 2
    step = episode.steps[taken - 1]
    return step.state, step.view


def _beside(channels: np.ndarray) -> np.ndarray:
    """O x O x 3 as three squares side by side, O x 3 O, fresh."""
    return np.concatenate([channels[..., i] for i in range(3)], axis=1)
