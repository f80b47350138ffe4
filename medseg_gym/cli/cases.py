"""The command line: `medseg cases list | check | show | convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import CaseError, MedSegError

cases_app = typer.Typer(no_args_is_help=True, help="What is to be segmented.")

Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="Case spec: samples, phantoms, biomedparse:PATH, parquet:PATH, nifti:PATH, "
        "dicom:PATH or folder:PATH, with options as PATH?name=value&name=value.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave defective cases out instead of refusing.")
]


def _console() -> Console:
    return make_console()


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def _skipping(spec: str, skip_bad: bool) -> str:
    from medseg_gym.cases.files import FileSpec
    from medseg_gym.cases.files.dataset_formats import LAYOUTS, dataset_format_named

    name, _, argument = spec.partition(":")
    if not skip_bad:
        return spec
    if name not in LAYOUTS:
        raise CaseError(f"--skip-bad is for files on disk, not for {spec!r}")
    return FileSpec.parse(name, argument, dataset_format_named(name).options).adding(skip_bad="1")


@cases_app.command("list")
def list_cases(
    spec: Annotated[str, typer.Argument(help="Case spec.")] = "samples",
    limit: Annotated[int, typer.Option(help="Most cases counted per split.")] = 200,
) -> None:
    """Count the cases of a source by split, group and target."""
    from medseg_gym.cases import SPLITS, left_out_note, load_cases

    console = _console()
    left_out: dict[str, int] = {}
    table = Table(keys=3, title=f"cases of {escape(spec)}")
    for header in ("split", "modality", "target", "groups", "cases", "area % (min-max)"):
        table.add_column(header)
    for split in SPLITS:
        try:
            source = load_cases(spec, split)
        except MedSegError as error:
            console.print(f"{split}: {error}", markup=False)
            continue
        left_out.update(source.left_out)  # of all splits, so the same in each
        counted = min(limit, len(source))
        rows: dict[tuple[str, str], list] = {}
        for index in range(counted):
            case = source[index]
            modality = case.modality + (" (synthetic)" if case.synthetic else "")
            rows.setdefault((modality, case.target), []).append(case)
        for (modality, target), found in rows.items():
            areas = [100 * case.area_fraction for case in found]
            counts = (str(len({case.group for case in found})), str(len(found)))
            area = f"{min(areas):.2f}-{max(areas):.2f}"
            table.add_row(split, escape(modality), escape(target), *counts, area)
        if counted < len(source):
            table.add_row(split, "", f"... the first {counted} of {len(source)} cases", "", "", "")
    console.print(table)
    if left_out:
        console.print(left_out_note(left_out), markup=False, highlight=False, soft_wrap=True)


@cases_app.command()
def check(
    spec: Spec,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most cases read of a split, where they are not files."),
    ] = None,
) -> None:
    """Read every case once: counts, sizes, targets, areas, every defect; exit code 1 if any."""
    from medseg_gym.cases.check import check_cases
    from medseg_gym.cases.check_report import tables

    with _progress() as progress:
        bar = progress.add_task("reading", total=None)
        report = check_cases(
            spec, limit, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        console = _console()
        for part in tables(report):
            console.print(part, soft_wrap=not isinstance(part, Table))
    if report.bad:
        raise typer.Exit(1)


@cases_app.command()
def show(
    spec: Spec,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("out/cases.png"),
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Cases.")] = 16,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    skip_bad: SkipBad = False,
) -> None:
    """Draw cases with their truth on a contact sheet."""
    from medseg_gym.cases import load_cases
    from medseg_gym.cases.contact_sheet import draw_sheet

    path, errors = draw_sheet(load_cases(_skipping(spec, skip_bad), split), count, out)
    console = _console()
    console.print(f"wrote {path}", markup=False, soft_wrap=True)
    for error in errors:
        console.print(f"cannot be read: {error}", markup=False, soft_wrap=True)
    if errors:
        raise typer.Exit(1)


@cases_app.command()
def convert(
    spec: Spec,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    to: Annotated[str, typer.Option(help="biomedparse or parquet.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Most cases of a split.")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Write all cases in another layout; killed, the same command goes on."""
    from medseg_gym.cases import left_out_note
    from medseg_gym.cases.source import load_splits
    from medseg_gym.cases.writers import convert_cases

    spec = _skipping(spec, skip_bad)
    bars: dict[str, object] = {}
    with _progress() as progress:

        def update(split: str, done: int, total: int) -> None:
            if split not in bars:
                bars[split] = progress.add_task(split, total=total)
            progress.update(bars[split], completed=done)  # type: ignore[arg-type]

        written = convert_cases(spec, to, out, limit, update)
    counts = ", ".join(f"{split} {count}" for split, count in written.items())
    console = _console()
    console.print(f"wrote {counts} cases; read them as {to}:{out}", markup=False, soft_wrap=True)
    left_out = next(iter(load_splits(spec).values())).left_out
    if left_out:
        console.print(left_out_note(left_out), markup=False, highlight=False, soft_wrap=True)
