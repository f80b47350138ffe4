"""The demo: oracle, heuristic and random policies on the real test cases, a table and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg_gym import annotators
from medseg_gym.cases import load_cases, played_split
from medseg_gym.cli.demo_options import DemoOptions
from medseg_gym.display.output import print_result
from medseg_gym.display.progress import make_progress
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
    cases, backbones = options.cases, options.backbones
    split = played_split(load_cases(cases, options.split), options.split)
    played: dict[tuple[str, str], list[Played]] = {}
    notes: dict[tuple[str, str], str] = {}
    with make_progress() as progress:
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
    rows = summarise(played, notes)
    console.print(_table(rows, f"{cases}, {split} split"))
    console.print(
        "Oracles are shown the truth; ellipse is a control that never looks at the image. "
        "Not for clinical use."
    )
    first = {name: played[backbones[0], name] for name in policies}
    best = "oracle-box" if "oracle-box" in first else policies[-1]
    order = sorted(range(len(first[best])), key=lambda i: first[best][i].episode.dice)
    # Every policy on the middling case; then the best and the worst, so that nothing is hidden.
    middle = order[len(order) // 2]
    drawn = [(name, first[name][middle].episode) for name in policies if name != "stop"]
    for label, case in (("best", order[-1]), ("worst", order[0])):
        drawn.append((f"{best}, its {label} case", first[best][case].episode))
    longest = max(policies, key=lambda name: len(first[name][middle].rewards))
    files = [
        contact_sheet(drawn, out / "sheet.png"),
        episode_gif(first[longest][middle].episode, out / "episode.gif"),
    ]
    print_result({"cases": cases, "split": split, "rows": rows, "files": files})
    for file in files:
        console.print(f"wrote {file}")
    return files


def summarise(
    played: dict[tuple[str, str], list[Played]], notes: dict[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return means over the cases, a row for each backbone and policy.

    Args:
        played: Episodes by backbone and policy.
        notes: What a table must say beside them.
    """

    def mean(values: Iterable[float]) -> float:
        numbers = list(values)
        return sum(numbers) / len(numbers)

    return [
        {
            "backbone": backbone,
            "policy": name,
            "cases": len(episodes),
            "dice": mean(one.episode.dice for one in episodes),
            "steps": mean(len(one.rewards) for one in episodes),
            "return": mean(sum(one.rewards) for one in episodes),
            "seconds_per_case": mean(one.seconds for one in episodes),
            "note": notes[backbone, name],
        }
        for (backbone, name), episodes in played.items()
    ]


def _table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    cases = rows[0]["cases"]
    table = Table(keys=2, title=f"MedSeg-v0 on {title}: means over {cases} cases")
    for header in ("backbone", "policy", "Dice", "steps", "return", "s/case", "note"):
        words = header in ("backbone", "policy", "note")
        table.add_column(header, justify="left" if words else "right", no_wrap=header != "note")
    for row in rows:
        table.add_row(
            row["backbone"],
            row["policy"],
            f"{row['dice']:.3f}",
            f"{row['steps']:.1f}",
            f"{row['return']:.3f}",
            f"{row['seconds_per_case']:.2f}",
            row["note"],
        )
    return table
