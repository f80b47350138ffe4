"""The command line: `medseg trajectories generate | summary | recover | replay | rescore | ...`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.cli.output_options import with_output
from medseg_gym.display.output import print_result
from medseg_gym.display.progress import make_progress
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.trajectories.options import (
    ExportOptions,
    GenerateOptions,
    PairsOptions,
    ReplayOptions,
    RescoreOptions,
    ShowOptions,
)

trajectories_app = typer.Typer(no_args_is_help=True, help="Episodes kept on disk.")

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.")]


def generate(
    options: GenerateOptions,
    out: Annotated[Path, typer.Option(help="Folder of the store; goes on if it is there.")],
) -> None:
    """Play cases with an annotator and keep every step; killed, the same command goes on."""
    from medseg_gym.trajectories.export.summary import summarise_store
    from medseg_gym.trajectories.recording.generate import generate_episodes

    with make_progress() as progress:
        bar = progress.add_task(f"{options.annotator} on {options.backbone}", total=None)
        store = generate_episodes(
            out,
            options,
            lambda total, done: progress.update(bar, total=total, completed=done),
            lambda count: progress.advance(bar, count),
        )
    counts = summarise_store(store)
    print_result(counts.as_dict())
    make_console().print(counts.render(str(out)))


def summary(store: StorePath) -> None:
    """Count episodes, lengths and tools; mean Dice and IoU."""
    from medseg_gym.trajectories.export.summary import summarise_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened = TrajectoryStore(store)
    counts = summarise_store(opened)
    print_result({**counts.as_dict(), "damaged": opened.damaged})
    console = make_console()
    console.print(counts.render(str(store)))
    if opened.damaged:
        names = ", ".join(path.name for path in opened.damaged)
        console.print(f"set aside because they were damaged: {names}", highlight=False)


def recover(store: StorePath) -> None:
    """Make chunks of what killed writers left; damaged journals are set aside as .damaged."""
    from medseg_gym.trajectories.store import recovery
    from medseg_gym.trajectories.store.folder import open_folder

    open_folder(store)
    count = recovery.recover(store)
    print_result({"recovered": count})
    make_console().print(
        f"{count} journals of writers that are gone became chunks", highlight=False
    )


def replay(options: ReplayOptions, store: StorePath) -> None:
    """Play the stored prompts again, compare masks and rewards; exit code 1 if they differ."""
    from medseg_gym.trajectories.replaying.replay import (
        LOGIT_TOLERANCE,
        SCORE_TOLERANCE,
        replay_store,
    )
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened = TrajectoryStore(store)
    with make_progress() as progress:
        total = min(len(opened), options.limit or len(opened))
        bar = progress.add_task("replay", total=total)
        replayed = replay_store(
            opened,
            options.backbone,
            options.checkpoint,
            options.device,
            options.cases,
            options.num_envs,
            options.limit,
            lambda count: progress.advance(bar, count),
        )
    shown = [
        {**key._asdict(), "step": step, "what": what} for key, step, what in replayed.mismatches
    ]
    print_result({**asdict(replayed), "mismatches": shown})
    console = make_console()
    table = Table(title=f"replay of {store}")
    for header in ("", "measured", "allowed"):
        table.add_column(header, justify="left" if not header else "right")
    table.add_row("episodes", str(replayed.episodes), "")
    table.add_row("steps", str(replayed.steps), "")
    table.add_row("steps equal in every bit", str(replayed.exact), "")
    table.add_row(
        "mask pixels that differ", str(replayed.pixels), f"|logit| <= {LOGIT_TOLERANCE:g}"
    )
    table.add_row("largest Dice difference", f"{replayed.max_dice:.3g}", f"{SCORE_TOLERANCE:g}")
    table.add_row("largest reward difference", f"{replayed.max_reward:.3g}", f"{SCORE_TOLERANCE:g}")
    if replayed.rewards_skipped:
        table.add_row("episodes whose reward has no name", str(replayed.rewards_skipped), "")
    table.add_row("steps outside the tolerance", str(len(replayed.mismatches)), "0")
    console.print(table)
    for key, step, what in replayed.mismatches[:20]:
        console.print(f"{key.case} seed {key.seed} rollout {key.rollout} step {step}: {what}")
    if replayed.mismatches:
        raise typer.Exit(1)


def rescore(
    options: RescoreOptions,
    store: StorePath,
    out: Annotated[Path | None, typer.Option(help="Store for the episodes so valued.")] = None,
) -> None:
    """Value the episodes with another reward, from their masks alone."""
    from medseg_gym.trajectories.replaying.rescore import rescore_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened, console, reward = TrajectoryStore(store), make_console(), options.reward
    episodes: list[dict[str, Any]] = []
    returns: list[tuple[float, float]] = []
    equal = steps = same = 0
    for rescored in rescore_store(opened, reward, out):
        old, new = rescored.old.rewards, rescored.new.rewards
        returns.append((sum(old), sum(new)))
        if rescored.old.facts.options.get("reward") == reward:  # else nothing should be equal
            equal += sum(a == b for a, b in zip(old, new, strict=True))
            same += len(old)
        steps += len(old)
        terms = [dict(step.terms) for step in rescored.new.steps]
        episodes.append({**rescored.new.key._asdict(), "rewards": new, "terms": terms})
    print_result({"reward": reward, "steps": steps, "episodes": episodes})
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


def show(
    options: ShowOptions,
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="Image to write.")],
) -> None:
    """Draw a contact sheet with an episode a row."""
    from medseg_gym.trajectories.export.contact_sheet import show_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    sheet = show_store(TrajectoryStore(store), out, options.count, options.cases)
    print_result({"file": sheet})
    make_console().print(f"wrote {sheet}")


def export(
    options: ExportOptions,
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
) -> None:
    """Write the accepted episodes as a training set, as the chat environment would show them."""
    from medseg_gym.trajectories.export.export import export_store, store_kind
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened, console = TrajectoryStore(store), make_console()
    chat = store_kind(opened).options.from_arguments(options.chat())
    with make_progress() as progress:
        bar = progress.add_task(options.format, total=len(opened))
        exported = export_store(
            opened, out, options.format, chat, options.cases, lambda: progress.advance(bar)
        )
    print_result({"file": out, **asdict(exported)})
    console.print(
        f"wrote {exported.rows} rows to {out}; left out: {exported.filtered} not accepted, "
        f"{exported.unreadable} with unreadable actions, {exported.repeated} on a case already "
        f"there, {exported.truthless} without a known truth"
    )


def pairs(
    options: PairsOptions,
    store: StorePath,
    out: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="File to write.")],
) -> None:
    """Write pairs of calls made in the same state, for DPO: the one that led to more, and less."""
    from medseg_gym.trajectories.export.export import store_kind
    from medseg_gym.trajectories.export.pairs import export_pairs
    from medseg_gym.trajectories.store.reader import TrajectoryStore

    opened, console = TrajectoryStore(store), make_console()
    chat = store_kind(opened).options.from_arguments(options.chat())
    with make_progress() as progress:
        bar = progress.add_task("pairs", total=len(opened))
        counts = export_pairs(
            opened,
            out,
            options.margin,
            options.per_state,
            chat,
            options.cases,
            lambda: progress.advance(bar),
        )
    print_result({"file": out, **asdict(counts)})
    console.print(
        f"wrote {counts.pairs} pairs from {counts.states} states with different calls to {out}; "
        f"left out: {counts.close} states whose calls are worth the same within "
        f"{options.margin:g}, {counts.alone} episodes that share no such state, "
        f"{counts.truthless} without a known truth; {counts.unreadable} episodes were used up to "
        "an action that could not be read"
    )


trajectories_app.command("generate")(with_options(GenerateOptions, generate))
trajectories_app.command("summary")(with_output(summary))
trajectories_app.command("recover")(with_output(recover))
trajectories_app.command("replay")(with_options(ReplayOptions, replay))
trajectories_app.command("rescore")(with_options(RescoreOptions, rescore))
trajectories_app.command("show")(with_options(ShowOptions, show))
trajectories_app.command("export")(with_options(ExportOptions, export))
trajectories_app.command("pairs")(with_options(PairsOptions, pairs))
