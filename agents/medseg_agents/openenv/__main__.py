"""`python -m medseg_agents.openenv`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.cli.main import run
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT
from medseg_gym.option_groups import SegmenterOptions
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions(Options):
    """Episodes that are played."""

    topic: ClassVar[str] = "Episodes"

    env_id: str = IMAGE_CHAT.env_id
    """MedSegChat-v0, or MedSegVolumeChat-v0 for volumes."""

    cases: str = "samples"
    """Case spec."""

    split: str = "auto"
    """train, val, test or all; auto is test, or all where the data name no splits."""

    reward: str = "dice_gain"
    """Reward spec."""

    max_steps: int = 5
    """Most answers in an episode."""

    image_size: int = 512
    """Side of the images that the model is shown, in pixels."""

    texts: str = "full"
    """full, or terse for tiny models."""

    coordinates: str = "grid1000"
    """Notation of places: grid1000, fraction or pixel."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the environment."""
        names = ("env_id", "cases", "split", "reward", "max_steps", "image_size", "texts")
        return {name: getattr(self, name) for name in (*names, "coordinates")}


@dataclass(frozen=True, kw_only=True)
class ServerOptions(EpisodeOptions, SegmenterOptions):
    """Options of `python -m medseg_agents.openenv`."""

    host: str = "127.0.0.1"
    """OpenEnv knows no keys: leave it at loopback, or keep others out yourself."""

    port: int = 8000
    """0 takes a free one."""

    sessions: int = 64
    """Most sessions at a time."""

    max_batch: int = 64
    """Most episodes in one decoder call."""

    max_delay_ms: float = 5.0
    """Longest wait of an answer for others."""


def serve(options: ServerOptions) -> None:
    """Serve a chat environment to OpenEnv's clients. Not for clinical use."""
    import uvicorn

    from medseg_agents.openenv.server import make_app

    app = make_app(
        options.sessions,
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        device=options.device,
        max_batch=options.max_batch,
        max_delay_ms=options.max_delay_ms,
        **options.arguments(),
    )
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    run(with_options(ServerOptions, serve, results=False))
