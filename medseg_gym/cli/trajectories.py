"""The command line: `medseg trajectories generate | summary | recover | replay | rescore | ...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from medseg_gym.display.terminal import Table, make_console

trajectories_app = typer.Typer(no_args_is_help=True, help="What is kept of episodes.")

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")]
CasesOption = Annotated[
    str | None, typer.Option(help="Case spec to look in instead of the recorded one.")
]


def _console() -> Console:
    return make_console()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


@trajectories_app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder of the store; goes on if it is there.")],
    cases: Annotated[str, typer.Option(help="Case spec.")] = "samples",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    annotator: Annotated[
        str, typer.Option(help="Policy, as hybrid or hybrid?tau=0.02.")
    ] = "hybrid",
    backbone: Annotated[str, typer.Option(help="Who segments.")] = "pocket",
    checkpoint: Annotated[str | None, typer.Option(help="Weight file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_envs: Annotated[int, typer.Option(help="Episodes at once in each worker.")] = 8,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first so many cases.")] = None,
    rollouts: Annotated[int, typer.Option(help="Episodes per case.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the policy; part of the episodes' keys.")] = 0,
    max_steps: Annotated[int, typer.Option(help="Actions per episode.")] = 5,
    reward: Annotated[str, typer.Option(help="Name of the reward.")] = "dice_gain",
) -> None:
    """Play cases with an annotator and keep every step; killed, the same command goes on."""
    from medseg_gym.trajectories.export.summary import summarise_store
    from medseg_gym.trajectories.recording.generate import GenerateOptions, generate_episodes

    options = GenerateOptions(
        cases=cases,
        split=split,
        annotator=annotator,
        backbone=backbone,
        checkpoint=checkpoint,
        device=device,
        num_envs=num_envs,
        workers=workers,
        limit=limit,
        rollouts=rollouts,
        seed=seed,
        max_steps=max_steps,
        reward=reward,
    )
    console = _console()
    with _progress(console) as progress:
        bar = progress.add_task(f"{annotator} on {backbone}", total=None)
        store = generate_episodes(
            out,
            options,
            lambda total, done: progress.update(bar, total=total, completed=done),
            lambda count: progress.advance(bar, count),
        )
    console.print(summarise_store(store).render(str(out)))


@trajectories_app.command()
def summary(
    store: StorePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count episodes, lengths and tools; mean Dice and IoU."""
    from medseg_gym.trajectories.export.summary import summarise_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened = TrajectoryStore(store)
    found = summarise_store(opened)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    console = _console()
    console.print(found.render(str(store)))
    if opened.damaged:
        names = ", ".join(path.name for path in opened.damaged)
        console.print(f"set aside because they were damaged: {names}", highlight=False)


@trajectories_app.command()
def recover(store: StorePath) -> None:
    """Make chunks of what killed writers left; damaged journals are set aside as .damaged."""
    from medseg_gym.trajectories.store import recovery
    from medseg_gym.trajectories.store.folder import open_folder

    open_folder(store)
    count = recovery.recover(store)
    _console().print(f"{count} journals of writers that are gone became chunks", highlight=False)


@trajectories_app.command()
def replay(
    store: StorePath,
    backbone: Annotated[str | None, typer.Option(help="None loads the recorded one.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Weight file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    cases: CasesOption = None,
    num_envs: Annotated[int, typer.Option(help="Episodes at once.")] = 8,
    limit: Annotated[int | None, typer.Option(help="Only the first so many episodes.")] = None,
) -> None:
    """Play the stored prompts again, compare masks and rewards; exit code 1 if they differ."""
    from medseg_gym.trajectories.replaying.replay import (
        LOGIT_TOLERANCE,
        SCORE_TOLERANCE,
        replay_store,
    )
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened, console = TrajectoryStore(store), _console()
    with _progress(console) as progress:
        bar = progress.add_task("replay", total=min(len(opened), limit or len(opened)))
        found = replay_store(
            opened,
            backbone,
            checkpoint,
            device,
            cases,
            num_envs,
            limit,
            lambda count: progress.advance(bar, count),
        )
    table = Table(title=f"replay of {store}")
    for header in ("", "found", "allowed"):
        table.add_column(header, justify="left" if not header else "right")
    table.add_row("episodes", str(found.episodes), "")
    table.add_row("steps", str(found.steps), "")
    table.add_row("steps equal in every bit", str(found.exact), "")
    table.add_row("mask pixels that differ", str(found.pixels), f"|logit| <= {LOGIT_TOLERANCE:g}")
    table.add_row("largest Dice difference", f"{found.max_dice:.3g}", f"{SCORE_TOLERANCE:g}")
    table.add_row("largest reward difference", f"{found.max_reward:.3g}", f"{SCORE_TOLERANCE:g}")
    if found.rewards_skipped:
        table.add_row("episodes whose reward has no name", str(found.rewards_skipped), "")
    table.add_row("steps outside the tolerance", str(len(found.mismatches)), "0")
    console.print(table)
    for key, step, what in found.mismatches[:20]:
        console.print(f"{key.case} seed {key.seed} rollout {key.rollout} step {step}: {what}")
    if found.mismatches:
        raise typer.Exit(1)


@trajectories_app.command()
def rescore(
    store: StorePath,
    reward: Annotated[str, typer.Option(help="Name of the reward.")],
    out: Annotated[Path | None, typer.Option(help="Store for the episodes so valued.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line per episode.")] = False,
) -> None:
    """Value the episodes with another reward, from their masks alone."""
    from medseg_gym.trajectories.replaying.rescore import rescore_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened, console = TrajectoryStore(store), _console()
    returns: list[tuple[float, float]] = []
    equal = steps = same = 0
    for found in rescore_store(opened, reward, out):
        old, new = found.old.rewards, found.new.rewards
        returns.append((sum(old), sum(new)))
        if found.old.facts.options.get("reward") == reward:  # else nothing should be equal
            equal += sum(a == b for a, b in zip(old, new, strict=True))
            same += len(old)
        steps += len(old)
        if as_json:
            terms = [dict(step.terms) for step in found.new.steps]
            line = {**found.new.key._asdict(), "reward": reward, "rewards": new, "terms": terms}
            typer.echo(json.dumps(line))
    if as_json:
        return
    table = Table(title=f"{store} valued with {reward}")
    for header in ("", "recorded", reward):
        table.add_column(header, justify="left" if not header else "right")
    if returns:
        for name, pick in (
            ("mean return", lambda v: sum(v) / len(v)),
            ("lowest", min),
            ("highest", max),
        ):
            columns = [pick([pair[side] for pair in returns]) for side in (0, 1)]
            table.add_row(name, *(f"{value:.4f}" for value in columns))
    console.print(table)
    words = f"{len(returns)} episodes, {steps} steps"
    if same:
        words += f"; {equal} of {same} step rewards equal in every bit what {reward} gave then"
    console.print(words)


@trajectories_app.command()
def show(
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="Picture to write.")],
    count: Annotated[int, typer.Option("-n", "--count", help="Episodes.")] = 8,
    cases: CasesOption = None,
) -> None:
    """Draw a sheet with an episode a row."""
    from medseg_gym.trajectories.export.contact_sheet import show_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    _console().print(f"wrote {show_store(TrajectoryStore(store), out, count, cases)}")


@trajectories_app.command()
def export(
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    format: Annotated[
        str, typer.Option(help="chat-parquet, jsonl or verl-parquet.")
    ] = "chat-parquet",
    image_size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 512,
    texts: Annotated[str, typer.Option(help="full, or terse for tiny models.")] = "full",
    overlay: Annotated[str, typer.Option(help="The mask: fill, outline or none.")] = "fill",
    overlay_strength: Annotated[float, typer.Option(help="1 paints opaque.")] = 0.5,
    coordinates: Annotated[
        str, typer.Option(help="How calls write places: grid1000, fraction or pixel.")
    ] = "grid1000",
    cases: CasesOption = None,
) -> None:
    """Write the accepted episodes as a training set, as MedSegChat-v0 would show them."""
    from medseg_gym.envs.chat_options import ChatOptions
    from medseg_gym.trajectories.export.export import export_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    chat = ChatOptions.read(
        {
            "image_size": image_size,
            "texts": texts,
            "overlay": overlay,
            "overlay_strength": overlay_strength,
            "coordinates": coordinates,
        }
    )
    opened, console = TrajectoryStore(store), _console()
    with _progress(console) as progress:
        bar = progress.add_task(format, total=len(opened))
        found = export_store(opened, out, format, chat, cases, lambda: progress.advance(bar))
    console.print(
        f"wrote {found.rows} rows to {out}; left out: {found.filtered} not accepted, "
        f"{found.unreadable} with unreadable actions, {found.repeated} on a case already there, "
        f"{found.truthless} without a known truth"
    )
