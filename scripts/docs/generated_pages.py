"""Hook of mkdocs that writes the reference pages: every command, and every public name.

A page keeps a marker where the generated text goes, so that it also exists where nobody runs
mkdocs.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = {"medseg_gym": ROOT / "medseg_gym", "medseg_agents": ROOT / "agents/medseg_agents"}
COMMANDS, ROOMS = "<!-- generated: commands -->", "<!-- generated: rooms -->"


def on_config(config: Any) -> Any:
    """Put a page for each room of the packages under "API"."""
    pages = [{room: f"reference/api/{room}.md"} for room in rooms()]
    for item in _section(config.nav, "Reference"):
        if "API" in item:
            item["API"] = ["reference/api.md", *pages]
    if (ROOT / "docs/reference/metrics.md").exists():
        _section(config.nav, "Reference").append({"Metrics": "reference/metrics.md"})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the rooms."""
    from mkdocs.structure.files import File

    for room, folder in rooms().items():
        page = f"reference/api/{room}.md"
        files.append(File.generated(config, page, content=room_page(room, folder)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the markers in."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, command_line())
    if ROOMS in markdown:
        markdown = markdown.replace(ROOMS, room_list())
    return markdown


def _section(nav: list[Any], name: str) -> list[Any]:
    return next(item[name] for item in nav if isinstance(item, dict) and name in item)


# --- API -----------------------------------------------------------------------------------------


def rooms() -> dict[str, Path]:
    """Rooms, each a folder or a file of a package, by dotted name."""
    result = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and (path / "__init__.py").exists():
                result[f"{package}.{path.name}"] = path
            elif path.suffix == ".py" and not path.name.startswith("_"):
                result[f"{package}.{path.stem}"] = path
    return result


def room_page(room: str, path: Path) -> str:
    """Headings and mkdocstrings' markers for a room and the rooms inside it."""
    if path.is_file():
        return f"# `{room}`\n\n{_collect(room, None)}"
    blocks = [f"# `{room}`\n"]
    for name, folder in _folders(room, path):
        names = exported(folder / "__init__.py")
        if names:
            blocks.append(_collect(name, names))
            continue
        blocks.append(f"## `{name}`\n\n{_first_paragraph(folder / '__init__.py')}\n")
        for file in sorted(folder.glob("*.py")):
            if not file.name.startswith("_") and public_names(file):
                blocks.append(_collect(f"{name}.{file.stem}", public_names(file)))
    return "\n".join(blocks)


def _folders(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    yield name, folder
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").exists():
            yield from _folders(f"{name}.{inner.name}", inner)


def _collect(name: str, members: list[str] | None) -> str:
    options = "show_submodules: false\n      heading_level: 2"
    if members:
        options += f"\n      members: [{', '.join(members)}]"
    return f"::: {name}\n    options:\n      {options}\n"


def exported(file: Path) -> list[str]:
    """Names in a module's `__all__`."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def public_names(file: Path) -> list[str]:
    """Classes and functions of a module that have no underscore."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return [n.name for n in body if isinstance(n, kinds) and not n.name.startswith("_")]


def _first_paragraph(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[
        0
    ]


def room_list() -> str:
    """A table of the rooms, each with the first line of its docstring."""
    rows = ["| room | |", "|---|---|"]
    for room, path in rooms().items():
        file = path if path.is_file() else path / "__init__.py"
        line = " ".join(_first_paragraph(file).split())
        rows.append(f"| [`{room}`](api/{room}.md) | {line} |")
    return "\n".join(rows)


# --- command line --------------------------------------------------------------------------------


def command_line() -> str:
    """A section for each command of `medseg`: what it does, arguments, options with defaults."""
    from medseg_gym.cli.lazy_commands import every_command
    from medseg_gym.cli.main import add_installed_commands, app

    add_installed_commands(app)
    commands = every_command(app)
    return "\n".join(line for name in sorted(commands) for line in _describe(name, commands[name]))


def _describe(name: str, command: Any) -> Iterator[str]:
    yield f"\n## `medseg {name}`\n\n{_escape(inspect.cleandoc(command.help or ''))}\n"
    yield "| option | default | |\n|---|---|---|"
    for option in command.params:
        if option.name != "help":
            yield _row(option)


def _row(option: Any) -> str:
    if option.param_type_name == "argument":
        name = option.name.upper()
    else:
        name = " / ".join([*option.opts[-1:], *option.secondary_opts])
    default = option.default() if callable(option.default) else option.default
    if option.required:
        shown = "required"
    else:
        shown = "" if default in (None, "", [], ()) else f"`{default}`"
    return f"| `{name}` | {shown} | {_escape(' '.join((option.help or '').split()))} |"


def _escape(text: str) -> str:
    text = re.sub(r"[\[\]<>*_]", lambda match: "\\" + match[0], text)
    return text.replace("|", "\\|")
