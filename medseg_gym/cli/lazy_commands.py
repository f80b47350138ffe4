"""Commands that are imported when they are used: `medseg --help` reads none of them."""

from __future__ import annotations

import os
from functools import cached_property
from itertools import zip_longest
from typing import Any

import typer
from typer.core import TyperCommand

from medseg_gym.object_paths import load_object


def with_ray_address(words: list[str]) -> list[str]:
    """Give `--ray` its default where no address follows it; options of typer must have a value.

    Args:
        words: Of the command line.
    """
    filled = []
    for word, after in zip_longest(words, words[1:], fillvalue="-"):
        filled.append(word)
        if word == "--ray" and after.startswith("-"):
            filled.append(os.environ.get("RAY_ADDRESS") or "local")
    return filled


class LazyCommand(TyperCommand):
    """Stands for a command or a group that is imported when it is called.

    Attributes:
        path: `package.module:name` of a typer group, or of a function as `Typer.command` takes it.
    """

    path: str

    @cached_property
    def loaded(self) -> Any:
        """Return the command or group itself, of click."""
        target = load_object(self.path)
        if isinstance(target, typer.Typer):
            command: Any = typer.main.get_group(target)
        else:
            alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
            alone.command(self.name)(target)
            command = typer.main.get_command(alone)
        command.name = self.name
        return command

    def make_context(
        self, info_name: str | None, args: list[str], *others: Any, **options: Any
    ) -> Any:
        """As the command's own, so that click goes on with the command."""
        return self.loaded.make_context(info_name, with_ray_address(args), *others, **options)

    def shell_complete(self, *args: Any) -> Any:
        """As the command's own."""
        return self.loaded.shell_complete(*args)


def add_lazily(app: typer.Typer, name: str, path: str, text: str) -> None:
    """Add a command that is imported when it is called.

    Args:
        app: To add it to.
        name: What users type.
        path: `package.module:name` of a typer group, or of a function as `Typer.command` takes it.
        text: First line of its help, for the list of commands.
    """
    kind = type("LazyCommand", (LazyCommand,), {"path": path})
    app.command(name, cls=kind, help=text)(lambda: None)


def every_command(app: typer.Typer) -> dict[str, Any]:
    """Return all commands of click by their words, such as "train grpo"; this imports them."""
    return _below(typer.main.get_command(app), ())


def _below(command: Any, words: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(command, LazyCommand):
        command = command.loaded
    if not hasattr(command, "commands"):
        return {" ".join(words): command}
    inner: dict[str, Any] = {}
    for name, one in command.commands.items():
        inner |= _below(one, (*words, name))
    return inner
