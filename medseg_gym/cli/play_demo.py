"""The demo: oracle, heuristic and random policies on the real test cases, a table and images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from medseg_gym import annotators
from medseg_gym.cli.demo_options import DemoOptions
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.envs.contact_sheet import contact_sheet, episode_gif
from medseg_gym.policy import Played, caveats, make_envs, play_cases

POLICIES = ("random", "stop", "centre-box", "oracle-box", "oracle-click")


def run_demo(
    out: Path,
    options: DemoOptions,
    policies: Sequence[str] = POLICIES,
    console: Console | None = None,
) -> list[Path]:
    """Play every case with every policy and backbone, print a table, write images.

    Args:
        out: Folder for `sheet.png` and `episode.gif`.
        options: Cases, backbones and slots.
        policies: Names for `make_policy`.
        console: Where to print.

    Returns:
        The files written.
    """
    console = console or make_console()
    cases, split, backbones = options.cases, options.split, options.backbones
    played: dict[tuple[str, str], list[Played]] = {}
    notes: dict[tuple[str, str], str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("loading", total=None)
        for backbone in backbones:
            envs = make_envs(options.num_envs, cases=cases, split=split, backbone=backbone)
            keys = list(envs.source.keys[: options.limit])
            progress.update(bar, total=len(keys) * len(policies) * len(backbones))
            for name in policies:
                progress.update(bar, description=f"{backbone}, {name}")
                policy = annotators.make(name, envs.codec)
                episodes = played[backbone, name] = []
                for batch in play_cases(envs, policy, keys):
                    episodes += batch
                    progress.advance(bar, len(batch))
                remarks = caveats(policy, envs.backbone, [p.episode for p in episodes])
                notes[backbone, name] = ", ".join(remarks)
            envs.close()
    console.print(_table(played, notes, f"{cases}, {split} split"))
    console.print(
        "Oracles are shown the truth; ellipse is a control that never looks at the image. "
        "Not for clinical use."
    )
    first = {name: played[backbones[0], name] for name in policies}
    best = "oracle-box" if "oracle-box" in first else policies[-1]
    order = sorted(range(len(first[best])), key=lambda i: first[best][i].episode.dice)
    # Every policy on the middling case; then the best and the worst, so that nothing is hidden.
    middle = order[len(order) // 2]
    rows = [(name, first[name][middle].episode) for name in policies if name != "stop"]
    for label, case in (("best", order[-1]), ("worst", order[0])):
        rows.append((f"{best}, its {label} case", first[best][case].episode))
    longest = max(policies, key=lambda name: len(first[name][middle].rewards))
    files = [
        contact_sheet(rows, out / "sheet.png"),
        episode_gif(first[longest][middle].episode, out / "episode.gif"),
    ]
    for file in files:
        console.print(f"wrote {file}")
    return files


def _table(
    played: dict[tuple[str, str], list[Played]], notes: dict[tuple[str, str], str], title: str
) -> Table:
    cases = len(next(iter(played.values())))
    table = Table(keys=2, title=f"MedSeg-v0 on {title}: means over {cases} cases")
    for header in ("backbone", "policy", "Dice", "steps", "return", "s/case", "note"):
        words = header in ("backbone", "policy", "note")
        table.add_column(header, justify="left" if words else "right", no_wrap=header != "note")
    for (backbone, name), episodes in played.items():
        count = len(episodes)

        def mean(values: list[float], count: int = count) -> float:
            return sum(values) / count

        table.add_row(
            backbone,
            name,
            f"{mean([p.episode.dice for p in episodes]):.3f}",
            f"{mean([float(len(p.rewards)) for p in episodes]):.1f}",
            f"{mean([sum(p.rewards) for p in episodes]):.3f}",
            f"{mean([p.seconds for p in episodes]):.2f}",
            notes[backbone, name],
        )
    return table
