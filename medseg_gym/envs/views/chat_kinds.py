"""Chat environments by id: what each plays, and how it shows it.

Exports, policies and trainers of language models look here, so that all of them take every chat
environment. How many images a turn has, and in which order, is said by the view (`image_keys`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from medseg_gym.cases import Case, load_cases
from medseg_gym.cases.source import Source
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.envs.chat import MedSegChatEnv
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.chat_texts import ChatTexts
from medseg_gym.envs.volumes.chat import MedSegVolumeChatEnv
from medseg_gym.envs.volumes.chat_options import VolumeChatOptions
from medseg_gym.envs.volumes.chat_view import VolumeChatView
from medseg_gym.episodes import Episode
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import MedSegError
from medseg_gym.option_groups import AUTO_TOOLS
from medseg_gym.prompts import TOOLS
from medseg_gym.prompts.volumes import VOLUME_TOOLS


@dataclass(frozen=True)
class ChatKind:
    """One chat environment.

    Args:
        env_id: For `gym.make`.
        noun: What an episode is played on: "image" or "volume".
        env: Class of the single environment.
        view: Shows its episodes; built from options.
        load: Opens its cases, `load(spec, split)`.
        begin: Makes the episode on a case before its first step, `begin(case, max_steps)`.
        tools: All tools that its agents may be given.
    """

    env_id: str
    noun: str
    env: type[MedSegChatEnv]
    view: type[ChatView]
    load: Callable[[Any, str], Source[Any]]
    begin: Callable[[Any, int], Any]
    tools: tuple[str, ...]

    @property
    def options(self) -> type[ChatOptions]:
        """Arguments of the environment."""
        options: Any = self.env.options_class
        return options  # type: ignore[no-any-return]

    @property
    def core(self) -> Callable[[Any, int], Any]:
        """Makes slots that play, `core(options, num_slots)`."""
        return self.env.core_class

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Entries of an observation that are the images of a turn, in the order they are shown."""
        return self.view.image_keys


def _begin_image(case: Case, max_steps: int) -> Episode:
    return Episode(case, torch.from_numpy(case.mask.copy()), max_steps)


IMAGE_CHAT = ChatKind(
    "MedSegChat-v0", "image", MedSegChatEnv, ChatView, load_cases, _begin_image, TOOLS
)
VOLUME_CHAT = ChatKind(
    "MedSegVolumeChat-v0",
    "volume",
    MedSegVolumeChatEnv,
    VolumeChatView,
    load_volumes,
    VolumeEpisode,
    VOLUME_TOOLS,
)
CHAT_KINDS = {kind.env_id: kind for kind in (IMAGE_CHAT, VOLUME_CHAT)}


def chat_kind(env_id: str) -> ChatKind:
    """Return the chat environment of an id.

    Raises:
        MedSegError: There is none.
    """
    if env_id not in CHAT_KINDS:
        raise MedSegError(
            f"{env_id!r} is no environment that chats; use one of {', '.join(CHAT_KINDS)}"
        )
    return CHAT_KINDS[env_id]


def kind_of(options: ChatOptions) -> ChatKind:
    """Return the chat environment that options are those of."""
    return VOLUME_CHAT if isinstance(options, VolumeChatOptions) else IMAGE_CHAT


def view_arguments(options: ChatOptions) -> dict[str, Any]:
    """Return the arguments of a chat environment that belong to the view alone; JSON."""
    values = {name: getattr(options, name) for name in options.of_view}
    texts = values["texts"]
    return {
        **values,
        "texts": asdict(texts) if isinstance(texts, ChatTexts) else texts,
        "tools": AUTO_TOOLS if values["tools"] == AUTO_TOOLS else list(values["tools"]),
    }
