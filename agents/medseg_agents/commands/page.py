"""`medseg play`: the page of the service on this machine, with any policies beside people."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from medseg_gym.option_groups import SegmenterOptions
from medseg_gym.options import Options, repeated


@dataclass(frozen=True, kw_only=True)
class GameOptions(Options):
    """Games on the page."""

    topic: ClassVar[str] = "Games"

    cases: tuple[str, ...] = repeated("samples", "phantoms")
    """Case specs, repeatable: samples, phantoms, ..."""

    volumes: tuple[str, ...] = repeated()
    """Specs of volumes, repeatable, such as volume:ct.nii.gz?truth=labels.nii.gz; synthetic ones
    where none are named here or among the cases.
    """

    policy: tuple[str, ...] = repeated()
    """To watch beside you, repeatable: sb3:RUN, llm:PATH, openai:MODEL, ..."""

    steps: int = 10
    """Actions in a game on an image."""

    volume_steps: int = 20
    """Actions in a game on a volume."""

    reward: str = "dice_gain"
    """Name of the reward."""

    record: Path = Path("out/play")
    """Folder where games are recorded."""

    archive: tuple[str, ...] = repeated()
    """More trajectory stores to browse, repeatable."""

    port: int = 8265
    """On this machine; 0 takes a free one."""


@dataclass(frozen=True, kw_only=True)
class PlayPageOptions(SegmenterOptions, GameOptions):
    """Options of `medseg play`."""


def play(
    options: PlayPageOptions,
    *,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
) -> None:
    """Play in the browser what agents play. Not for clinical use."""
    from medseg_agents import policies
    from medseg_gym import backbones

    try:
        from medseg_gym.play import PageExtension, PageOptions
        from medseg_gym.play.options import default_policies
        from medseg_gym.serving import server
        from medseg_gym.serving.logs import log_json
    except ImportError as error:
        raise MedSegError(
            f'the page needs what is not installed ({error}): pip install "medseg-gym[serve]"'
        ) from error
    given = [policies.make(text) for text in options.policy]
    names = {(one.env_id, one.name) for one in given}
    usual = [one for one in default_policies() if (one.env_id, one.name) not in names]
    page = PageOptions(
        cases=options.cases,
        volumes=options.volumes or None,
        record=options.record,
        archives=[Path(folder) for folder in options.archive],
        policies=[*given, *usual],
        max_steps=options.steps,
        volume_steps=options.volume_steps,
        reward=options.reward,
        provenance={
            "backbone": options.backbone,
            "checkpoint": options.checkpoint and Path(options.checkpoint),
        },
    )
    log_json("warning")
    loaded = backbones.load(options.backbone, options.checkpoint, options.device)
    service = server.make_service(loaded, extensions=[PageExtension(page)])
    console = make_console()

    def announce(url: str) -> None:
        console.print(f"{url}  records under {options.record}; Ctrl+C ends it", highlight=False)
        if not no_browser:
            webbrowser.open(url)

    server.serve(service, port=options.port, on_start=announce)


play_command = with_options(PlayPageOptions, play, results=False)
