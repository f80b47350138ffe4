"""The command line: `medseg cases list | check | card | show | convert`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.markup import escape
from rich.progress import TaskID

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.output import print_result
from medseg_gym.display.progress import make_progress
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.errors import CaseError, MedSegError
from medseg_gym.options import Options, short

if TYPE_CHECKING:
    from medseg_gym.cases import Case, CaseSource

cases_app = typer.Typer(no_args_is_help=True, help="Cases that are segmented.")

Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="Case spec: samples, phantoms, or files as biomedparse:PATH, nifti:PATH, "
        "dicom:PATH, folder:PATH, coco:PATH and the like, with options as "
        "PATH?name=value&name=value.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ListOptions(Options):
    """Options of `medseg cases list`."""

    topic: ClassVar[str] = "Cases"

    limit: int = 200
    """Most cases counted per split."""

    def __post_init__(self) -> None:
        _at_least_one("limit", self.limit)


@dataclass(frozen=True, kw_only=True)
class CaseCheckOptions(Options):
    """Options of `medseg cases check`."""

    topic: ClassVar[str] = "Cases"

    limit: int | None = None
    """Most cases read of a split, where they are not files."""

    def __post_init__(self) -> None:
        _at_least_one("limit", self.limit)


@dataclass(frozen=True, kw_only=True)
class SkipOptions(Options):
    """Defective cases."""

    topic: ClassVar[str] = "Cases"

    skip_bad: bool = False
    """Leave defective cases out instead of refusing."""


@dataclass(frozen=True, kw_only=True)
class SheetOptions(SkipOptions):
    """Options of `medseg cases show`."""

    split: str = "train"
    """train, val, test, or all of them together."""

    count: int = short("-n", 16)
    """Cases."""

    def __post_init__(self) -> None:
        _at_least_one("count", self.count)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(SkipOptions):
    """Options of `medseg cases convert`."""

    to: str
    """biomedparse, parquet, coco, yolo, labelme, cvat or ome."""

    limit: int | None = None
    """Most cases of a split."""

    def __post_init__(self) -> None:
        _at_least_one("limit", self.limit)


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise MedSegError(f"{name} must be at least 1, got {value}")


def _skipping(spec: str, skip_bad: bool) -> str:
    from medseg_gym.cases.files.dataset_formats import read_file_spec

    if not skip_bad:
        return spec
    files = read_file_spec(spec)
    if files is None:
        raise CaseError(f"--skip-bad is for files on disk, not for {spec!r}")
    return files[1].adding(skip_bad="1")


def list_cases(
    options: ListOptions,
    spec: Annotated[str, typer.Argument(help="Case spec.")] = "samples",
) -> None:
    """Count the cases of a source by split, group and target."""
    from medseg_gym.cases import SPLITS, left_out_note, load_cases

    left_out: dict[str, int] = {}
    missing: dict[str, str] = {}
    sizes: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        try:
            source = load_cases(spec, split)
        except MedSegError as error:
            missing[split] = str(error)
            continue
        left_out.update(source.left_out)  # of all splits, so the same in each
        sizes[split] = len(source)
        rows += _count_targets(split, source, options.limit)
    if not sizes:
        raise CaseError("; ".join(dict.fromkeys(missing.values())))  # often one and the same
    result = {"spec": spec, "splits": sizes, "rows": rows, "missing": missing}
    print_result({**result, "counted_of_a_split": options.limit, "left_out": left_out})
    console = make_console()
    for split, reason in missing.items():
        console.print(f"{split}: {reason}", markup=False, soft_wrap=True)
    console.print(_table(spec, rows, sizes, options.limit))
    if left_out:
        console.print(left_out_note(left_out), markup=False, highlight=False, soft_wrap=True)


def _count_targets(split: str, source: CaseSource, limit: int) -> list[dict[str, Any]]:
    """Count the first cases of a split, a row for each modality and target."""
    of_targets: dict[tuple[str, str], list[Case]] = {}
    for index in range(min(limit, len(source))):
        case = source[index]
        modality = case.modality + (" (synthetic)" if case.synthetic else "")
        of_targets.setdefault((modality, case.target), []).append(case)
    rows = []
    for (modality, target), cases in of_targets.items():
        areas = [100 * case.area_fraction for case in cases]
        rows.append(
            {
                "split": split,
                "modality": modality,
                "target": target,
                "groups": len({case.group for case in cases}),
                "cases": len(cases),
                "area_percent": [min(areas), max(areas)],
            }
        )
    return rows


def _table(spec: str, rows: list[dict[str, Any]], sizes: dict[str, int], limit: int) -> Table:
    table = Table(keys=3, title=f"cases of {escape(spec)}")
    for header in ("split", "modality", "target", "groups", "cases", "area % (min-max)"):
        table.add_column(header)
    for split, size in sizes.items():
        for row in rows:
            if row["split"] == split:
                lowest, highest = row["area_percent"]
                words = (split, escape(row["modality"]), escape(row["target"]))
                counts = (str(row["groups"]), str(row["cases"]))
                table.add_row(*words, *counts, f"{lowest:.2f}-{highest:.2f}")
        if limit < size:
            table.add_row(split, "", f"... the first {limit} of {size} cases", "", "", "")
    return table


@contextmanager
def _reading() -> Iterator[Callable[[int, int], None]]:
    """Show a bar while cases are read; it is told (done, total)."""
    with make_progress() as progress:
        bar = progress.add_task("reading", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def check(options: CaseCheckOptions, spec: Spec) -> None:
    """Read every case once: counts, sizes, targets, areas, every defect; exit code 1 if any."""
    from medseg_gym.cases.check import check_cases
    from medseg_gym.cases.check_report import tables

    with _reading() as progress:
        report = check_cases(spec, options.limit, progress)
    print_result(report.as_dict())
    console = make_console()
    for block in tables(report):
        console.print(block, soft_wrap=not isinstance(block, Table))
    if report.bad:
        raise typer.Exit(1)


def card(
    options: CaseCheckOptions,
    spec: Spec,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write: card.md, card.json, pictures.")
    ] = None,
) -> None:
    """Print a card of the data: counts, targets, sizes, images that splits share, defects."""
    import json

    from medseg_gym.cases.card.contents import make_card
    from medseg_gym.cases.card.page import AREAS, as_markdown, plot_areas
    from medseg_gym.storage.atomic_write import atomic_write, named_failures

    with _reading() as progress:
        made = make_card(spec, options.limit, progress)
    print_result(made.as_dict())
    console = make_console()
    console.print(as_markdown(made), markup=False, highlight=False, soft_wrap=True, end="")
    if out is None:
        return
    pictures = [AREAS] if made.areas else []
    with named_failures(out, CaseError):
        out.mkdir(parents=True, exist_ok=True)
        if pictures:
            plot_areas(made.areas, out / AREAS)
    atomic_write(out / "card.md", as_markdown(made, pictures), CaseError)
    atomic_write(out / "card.json", json.dumps(made.as_dict(), indent=1), CaseError)
    console.print(f"wrote {', '.join(['card.md', 'card.json', *pictures])} under {out}")


def show(
    options: SheetOptions,
    spec: Spec,
    out: Annotated[Path, typer.Option(help="Image to write.")] = Path("out/cases.png"),
) -> None:
    """Draw cases with their truth on a contact sheet."""
    from medseg_gym.cases import load_cases
    from medseg_gym.cases.contact_sheet import draw_sheet

    source = load_cases(_skipping(spec, options.skip_bad), options.split)
    path, errors = draw_sheet(source, options.count, out)
    print_result({"file": path, "errors": list(map(str, errors))})
    console = make_console()
    console.print(f"wrote {path}", markup=False, soft_wrap=True)
    for error in errors:
        console.print(f"cannot be read: {error}", markup=False, soft_wrap=True)
    if errors:
        raise typer.Exit(1)


def convert(
    options: ConvertOptions,
    spec: Spec,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
) -> None:
    """Write all cases in another format; killed, the same command goes on."""
    from medseg_gym.cases import left_out_note
    from medseg_gym.cases.case_source import load_splits
    from medseg_gym.cases.writers import convert_cases

    spec = _skipping(spec, options.skip_bad)
    bars: dict[str, TaskID] = {}
    with make_progress() as progress:

        def update(split: str, done: int, total: int) -> None:
            if split not in bars:
                bars[split] = progress.add_task(split, total=total)
            progress.update(bars[split], completed=done)

        written = convert_cases(spec, options.to, out, options.limit, update)
    counts = ", ".join(f"{split} {count}" for split, count in written.items())
    left_out = next(iter(load_splits(spec).values())).left_out
    spec_of_it = f"{options.to}:{out}"
    print_result({"spec": spec_of_it, "cases": written, "left_out": left_out})
    console = make_console()
    console.print(f"wrote {counts} cases; read them as {spec_of_it}", markup=False, soft_wrap=True)
    if left_out:
        console.print(left_out_note(left_out), markup=False, highlight=False, soft_wrap=True)


cases_app.command("list")(with_options(ListOptions, list_cases))
cases_app.command("check")(with_options(CaseCheckOptions, check))
cases_app.command("card")(with_options(CaseCheckOptions, card))
cases_app.command("show")(with_options(SheetOptions, show))
cases_app.command("convert")(with_options(ConvertOptions, convert))
