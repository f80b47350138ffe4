"""`medseg play`: the page of the service on this machine, with any policies beside people."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError


def play(
    policy: Annotated[
        list[str] | None,
        typer.Option(help="To watch beside you, repeatable: sb3:RUN, llm:PATH, openai:MODEL, ..."),
    ] = None,
    cases: Annotated[
        list[str] | None, typer.Option(help="Case specs, repeatable: samples, phantoms, ...")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Who segments.")] = "pocket",
    checkpoint: Annotated[Path | None, typer.Option(help="Weight file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    record: Annotated[Path, typer.Option(help="Where games are recorded.")] = Path("out/play"),
    archive: Annotated[
        list[Path] | None, typer.Option(help="More trajectory stores to browse, repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Actions in a game.")] = 10,
    reward: Annotated[str, typer.Option(help="Name of the reward.")] = "dice_gain",
    port: Annotated[int, typer.Option(help="On this machine; 0 takes a free one.")] = 8265,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where it is.")] = False,
) -> None:
    """Play in the browser what agents play. Not for clinical use."""
    from medseg_agents import policies
    from medseg_gym import backbones

    try:
        from medseg_gym.play import BuiltIn, PageExtension, PageOptions
        from medseg_gym.play.options import DEFAULT_POLICIES
        from medseg_gym.serving import server
        from medseg_gym.serving.logs import log_json
    except ImportError as error:
        raise MedSegError(
            f'the page needs what is not installed ({error}): pip install "medseg-gym[serve]"'
        ) from error
    given = [policies.make(text) for text in policy or []]
    names = {one.name for one in given}
    page = PageOptions(
        cases=cases or PageOptions.cases,
        record=record,
        archives=archive or (),
        policies=[*given, *(BuiltIn(name) for name in DEFAULT_POLICIES if name not in names)],
        max_steps=steps,
        reward=reward,
        provenance={"backbone": backbone, "checkpoint": checkpoint},
    )
    log_json("warning")
    loaded = backbones.load(backbone, checkpoint, device)
    service = server.make_service(loaded, extensions=[PageExtension(page)])
    console = make_console()

    def tell(url: str) -> None:
        console.print(f"{url}  records under {record}; Ctrl+C ends it", highlight=False)
        if not no_browser:
            webbrowser.open(url)

    server.serve(service, port=port, on_start=tell)
