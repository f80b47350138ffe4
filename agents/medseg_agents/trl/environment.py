"""An environment for TRL's `environment_factory`: tool calls as methods, one episode a rollout."""

from __future__ import annotations

from typing import Any, ClassVar

from PIL import Image

from medseg_agents.trl.tools import TOOLS_OF, with_coordinates
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.errors import PolicyError

Content = list[dict[str, Any]]
"""Parts of a message: `{"type": "image", "image": PIL}` and `{"type": "text", "text": ...}`."""


class SegmentationEnvironment:
    """One conversation at a time, over a chat environment of its own.

    TRL makes one for every rollout of a batch and resets it again and again. Cases, backbone and
    embeddings are shared by all. Tools are methods of the class that `make_environment` makes; what
    they get, wrong arguments included, goes to `MedSegChatEnv.step` as a call in words, so that an
    unreadable one costs a step and is explained to the model.

    A public method would be a tool to TRL: everything else is a property or begins with "_".
    """

    _env_id: ClassVar[str] = IMAGE_CHAT.env_id
    _options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self._env = chat_kind(self._env_id).env(**self._options)
        self._failure: Exception | None = None
        self._begun = False

    def reset(self, case: str, **row: Any) -> Content:
        """Begin an episode.

        Args:
            case: Key.
            **row: Other columns of the dataset; not looked at.

        Returns:
            The first user turn, images and text, which TRL adds to the row's prompt.

        Raises:
            CaseError: There is no such case.
        """
        self._failure = None
        observation, _ = self._env.reset(options={"case": case})
        self._begun = True
        return self._content(observation)

    @property
    def outcome(self) -> EpisodeSummary:
        """Summary of the episode as it stands.

        Raises:
            PolicyError: A tool failed for a reason that is not the model's, such as a dead
                segmenter. TRL would have shown it to the model and gone on.
            AttributeError: There is no episode yet.
        """
        self._need_episode("outcome")
        if self._failure is not None:
            raise PolicyError(
                "a tool of the environment failed, so that this rollout has no reward: "
                f"{type(self._failure).__name__}: {self._failure}"
            ) from self._failure
        return EpisodeSummary.of(self._env.episode)

    @property
    def over(self) -> bool:
        """Return whether the episode is over.

        Raises:
            AttributeError: There is no episode yet.
        """
        self._need_episode("over")
        return self._env.episode.done

    def _need_episode(self, name: str) -> None:
        # Before 1.15 TRL reads every attribute of a new environment, and passes over this error.
        if not self._begun:
            raise AttributeError(f"{name} is that of an episode: reset the environment first")

    def _play(self, answer: str) -> str | Content:
        """Take one step; return what the model is shown next."""
        if self._failure is not None:
            raise self._failure
        if not self.over:
            try:
                observation, *_ = self._env.step(answer)
            except Exception as error:
                self._failure = error
                raise
            if not self.over:
                return self._content(observation)
        over: str = self._env.view.texts.over
        return over

    def _content(self, observation: Any) -> Content:
        images = [observation[key] for key in self._env.view.image_keys]
        shown = [{"type": "image", "image": Image.fromarray(image)} for image in images]
        return [*shown, {"type": "text", "text": observation["text"]}]


def make_environment(
    env_id: str = IMAGE_CHAT.env_id, **options: Any
) -> type[SegmentationEnvironment]:
    """Make an `environment_factory` for TRL's `GRPOTrainer`.

    Args:
        env_id: Of the chat environment.
        **options: Those of the environment, see `ChatOptions`; `tools` decides which methods there
            are.

    Returns:
        A class to be called without arguments. Give the trainer `episode_return` as reward
        function and `environment_rows` as dataset.

    Raises:
        MedSegError: An option, case source or backbone that cannot be used.
    """
    kind = chat_kind(env_id)
    chat = kind.options.from_arguments(options)
    view = kind.view(chat)
    shared = {**options, "cases": kind.load(chat.cases, chat.split)}
    tools = TOOLS_OF[kind.env_id]
    body: dict[str, Any] = {
        name: with_coordinates(getattr(tools, name), view.coordinates)
        for name in view.texts.names(view.tools)
    }
    body |= {"_env_id": kind.env_id, "_options": shared}
    return type(chat.noun, (SegmentationEnvironment,), body)
