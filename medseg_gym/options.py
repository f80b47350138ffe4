"""Options declared once: a dataclass with prose under each field.

The same declaration gives `--help`, the documentation, YAML files and the `config.json`
of a run:

    @dataclass(frozen=True, kw_only=True)
    class EvalOptions(Options):
        topic: ClassVar[str] = "Cases"

        split: str = "test"
        \"\"\"train, val or test.\"\"\"
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from medseg_gym.errors import MedSegError, nearest
from medseg_gym.option_values import convert

O = TypeVar("O", bound="Options")  # noqa: E741


_MOST = {"seed": 2**32 - 1, "seeds": 2**32 - 1, "port": 65535}
"""Largest value of fields that mean the same in every class; torch and NumPy take such seeds."""


@dataclass(frozen=True)
class FieldDescription:
    """Prose, type and default of a field.

    Args:
        text: The string under it, on one line; "" where there is none.
        topic: `topic` of the class that declares it.
        declared: Its type.
        default: Its default, or `dataclasses.MISSING`.
        repeated: A tuple whose texts may hold commas, so that a command takes its option again for
            each of them (see `repeated`).
        short: Short flag of its option, or "".
        splitter: "module:function" that divides the text of its option, or "" for commas (see
            `specs`).
    """

    text: str
    topic: str
    declared: Any
    default: Any
    repeated: bool = False
    short: str = ""
    splitter: str = ""


def short(flag: str, default: Any) -> Any:
    """Declare a field whose option has a short flag too.

    Args:
        flag: As "-n".
        default: Of the field.
    """
    return field(default=default, metadata={"short": flag})


def repeated(*default: str) -> Any:
    """Declare a field of texts that may hold commas: a command takes its option again for each.

    Args:
        *default: Its default.
    """
    return field(default=default, metadata={"repeated": True})


def specs(splitter: str, *default: str) -> Any:
    """Declare a field of specs, whose own options may hold commas.

    Args:
        splitter: `split` of the specs' registry as "module:function", imported when it is needed.
        *default: Its default.
    """
    return field(default=default, metadata={"splitter": splitter})


class Options:
    """Base of frozen dataclasses of texts, numbers, truth values and tuples of them.

    Attributes:
        topic: Heading in `--help` over the fields that a class itself declares.
    """

    def __post_init__(self) -> None:
        """Check values; classes that share fields with others call `super().__post_init__()`.

        Raises:
            MedSegError: A seed or a port that cannot be one.
        """
        for name, largest in _MOST.items():
            given = getattr(self, name, ())
            for value in given if isinstance(given, tuple) else (given,):
                if not 0 <= value <= largest:
                    raise MedSegError(f"{name} must be from 0 to {largest}, got {value}")

    topic: ClassVar[str] = "Options"

    @classmethod
    def from_mapping(cls: type[O], values: Mapping[str, Any], where: str = "") -> O:
        """Build from plain values, as a YAML or JSON file holds them.

        Args:
            values: Value by field; lists become tuples, and texts what a field is declared as.
                "algorithm", which `to_json` writes, must be the name of this class.
            where: File or section, for messages.

        Raises:
            MedSegError: A field that does not exist (with the nearest), one without a default that
                is missing, or a value of another type.
        """
        described = describe_fields(cls)
        place = f"{where}: " if where else ""
        given = cls.checked(values, where)
        lacking = [n for n, one in described.items() if one.default is MISSING and n not in given]
        if lacking:
            raise MedSegError(f"{place}{cls.__name__} needs {', '.join(lacking)}")
        return cls(**given)

    @classmethod
    def checked(cls, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Return plain values as their declared types; see `from_mapping`, but none may be missing.

        Args:
            values: Value by field.
            where: File or section, for messages.

        Raises:
            MedSegError: A field that does not exist, or a value of another type.
        """
        described = describe_fields(cls)
        place = f"{where}: " if where else ""
        given: dict[str, Any] = {}
        for name, value in values.items():
            if name == "algorithm" and name not in described:
                if value != cls.__name__:
                    raise MedSegError(f"{place}settings of {value}, not of {cls.__name__}")
                continue
            if name not in described:
                raise MedSegError(
                    f"{place}{cls.__name__} has no {name!r}{nearest(name, described)}; "
                    f"it has: {', '.join(described)}"
                )
            try:
                given[name] = _checked(value, described[name].declared)
            except ValueError as error:
                raise MedSegError(f"{place}{name} cannot be {value!r}: {error}") from None
        return given

    @classmethod
    def read(cls: type[O], path: str | Path) -> O:
        """Build from a YAML file (JSON is YAML).

        Raises:
            MedSegError: No such file, not YAML, or what `from_mapping` says.
        """
        return cls.from_mapping(read_mapping(path), str(path))

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields as plain values: tuples as lists, paths as texts."""
        given: Any = self
        return {name: _plain(value) for name, value in asdict(given).items()}

    def to_json(self) -> str:
        """Return the fields as JSON for a run's `config.json`, with the class as "algorithm"."""
        return json.dumps({"algorithm": type(self).__name__, **self.to_mapping()}, indent=1)

    def to_yaml(self) -> str:
        """Return the fields as YAML with their prose as comments."""
        return self.template(self.to_mapping())

    @classmethod
    def template(cls, values: Mapping[str, Any]) -> str:
        """Return YAML of all fields with their prose as comments, for `--print-config`.

        Args:
            values: Value by field, as `checked` returns it; others have their defaults. A field
                that has neither stands there as a comment, to be filled in.
        """
        import yaml

        lines: list[str] = []
        topic = None
        for name, one in describe_fields(cls).items():
            value = _plain(values.get(name, one.default))
            if one.topic != topic:
                topic = one.topic
                lines += [*([""] if lines else []), f"# --- {topic}"]
            lines += [f"# {line}" for line in textwrap.wrap(one.text, 96)]
            if value is MISSING:
                lines.append(f"# {name}:  (a value is needed)")
                continue
            lines.append(yaml.safe_dump({name: value}, default_flow_style=True, width=10**6)[1:-2])
        return "\n".join(lines) + "\n"


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one mapping.

    Raises:
        MedSegError: It cannot be read, or holds something else.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedSegError(f"cannot read the configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise MedSegError(f"{path}: a mapping of options to values is wanted, not {values!r:.60}")
    return values


@cache
def _descriptions(config: type) -> dict[str, FieldDescription]:
    texts: dict[str, tuple[str, str]] = {}
    for base in reversed(config.__mro__):
        topic: str = getattr(base, "topic", "Options")
        for name, text in _prose_in(base.__module__).get(base.__qualname__, {}).items():
            before = texts.get(name, ("", topic))  # another default alone leaves it as it was
            texts[name] = (text or before[0], before[1])
    hints = typing.get_type_hints(config)
    described = {}
    for one in fields(config):
        if not one.init:
            continue
        text, topic = texts.get(one.name, ("", getattr(config, "topic", "Options")))
        default = one.default if one.default_factory is MISSING else one.default_factory()
        described[one.name] = FieldDescription(
            text,
            topic,
            hints[one.name],
            default,
            bool(one.metadata.get("repeated")),
            one.metadata.get("short", ""),
            one.metadata.get("splitter", ""),
        )
    return described


def describe_fields(config: type) -> dict[str, FieldDescription]:
    """Return what a dataclass and its bases say of each field, in the order of its constructor.

    Args:
        config: A dataclass; a string that stands under a field is its prose.
    """
    return dict(_descriptions(config))


@cache
def _prose_in(module: str) -> dict[str, dict[str, str]]:
    """Return the strings under fields, by qualified name of the class; a file is read once."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):  # built in, or without its source
        return {}
    prose: dict[str, dict[str, str]] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                prose[prefix + child.name] = _prose_under(child.body)
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                visit(child, f"{prefix}{child.name}.<locals>.")

    visit(tree, "")
    return prose


def _prose_under(body: Sequence[ast.stmt]) -> dict[str, str]:
    """Return the strings under annotated names in the body of one class."""
    prose: dict[str, str] = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text: Any = after.value.value if is_text else ""  # type: ignore[union-attr]
            prose[node.target.id] = " ".join(text.split()) if isinstance(text, str) else ""
    return prose


def _checked(value: Any, declared: Any) -> Any:
    """A plain value of a file as its declared type."""
    choices = typing.get_args(declared) or (declared,)
    if isinstance(value, (list, tuple)):
        return tuple(_checked(one, kind) for one, kind in _elements(value, declared))
    if value is None:
        if type(None) in choices:
            return None
        raise ValueError("a value is wanted")
    if isinstance(value, bool) and bool not in choices:
        if typing.get_origin(declared) is typing.Literal and value in choices:
            return value
        raise ValueError(f"{declared} is wanted")
    if isinstance(value, int) and float in choices and int not in choices:
        return float(value)
    if isinstance(value, dict):
        return value
    return convert(value if isinstance(value, str) else str(value), declared)


def _elements(values: Sequence[Any], declared: Any) -> list[tuple[Any, Any]]:
    """Values of a tuple with the type that each is declared as."""
    for choice in (declared, *typing.get_args(declared)):
        if typing.get_origin(choice) is tuple:
            kinds = [kind for kind in typing.get_args(choice) if kind is not Ellipsis]
            if len(kinds) == len(typing.get_args(choice)) != len(values):
                raise ValueError(f"{len(kinds)} values are wanted")
            return list(zip(values, kinds * len(values), strict=False))
    raise ValueError(f"{declared} is wanted")


def _plain(value: Any) -> Any:
    """A value as JSON and YAML have it."""
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
