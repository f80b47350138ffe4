"""Name things in text: one grammar and one registry for cases, backbones, rewards and policies.

A spec is `KIND[:ARGUMENT][?key=value&key=value]`. A kind is registered here or by an installed
package (entry points); `package.module:Name` and `path/file.py:Name` stand for what a user wrote.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, quote

from medseg_gym.errors import MedSegError

T = TypeVar("T")

Factory = Callable[..., T]

_KEY = re.compile(r"[\w-]+=")


@dataclass(frozen=True)
class Spec:
    """A parsed spec.

    Args:
        text: As it was written.
        kind: Before the first colon or question mark; for a user's own object the part that names
            it, as "package.module:Name" or "path/file.py:Name".
        argument: Behind the kind's colon, "" where there is none; a path may hold question marks.
        options: Behind the question mark, values percent-decoded.
    """

    text: str
    kind: str
    argument: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """True if the spec names an object of a user's module or file."""
        return ":" in self.kind

    def __str__(self) -> str:
        return self.text


class Registry(Generic[T]):
    """Things of one sort by kind.

    Args:
        noun: What one of them is called in messages, as "reward".
        group: Entry-point group through which installed packages add kinds.
        signature: How a factory is called, in words for messages, as "factory(**options)".
        kinds: The package's own: a factory, or "module:name", imported when it is first needed.
        error: Raised about specs of this registry.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        signature: str,
        kinds: Mapping[str, str | Factory[T]] | None = None,
        error: type[MedSegError] = MedSegError,
    ) -> None:
        self.noun, self.group, self.signature, self.error = noun, group, signature, error
        self._kinds: dict[str, str | Factory[T]] = dict(kinds or {})

    def register(self, kind: str, factory: str | Factory[T]) -> None:
        """Add a kind.

        Args:
            kind: Without colons, question marks and commas.
            factory: Called as `signature` says; or "module:name", imported when first needed.

        Raises:
            MedSegError: The kind is taken or cannot be written in a spec.
        """
        if not kind or any(mark in kind for mark in ":?,&") or kind != kind.strip():
            raise self.error(f"{self.noun} kind {kind!r} must be a name without : ? , &")
        if kind in self._kinds:
            raise self.error(f"a {self.noun} named {kind!r} is registered already")
        self._kinds[kind] = factory

    def names(self) -> tuple[str, ...]:
        """All kinds, those of installed packages included, sorted."""
        return tuple(sorted({*self._kinds, *_entry_points(self.group)}))

    def parse(self, text: str) -> Spec:
        """Read a spec; whether the kind exists is not looked at, except to tell paths from kinds.

        Raises:
            MedSegError: It is empty, or options that cannot be read or are given twice.
        """
        if not text.strip():
            raise self.error(f"an empty {self.noun} spec; write KIND[:ARGUMENT][?key=value&...]")
        kind, colon, rest = text.partition(":")
        if "?" in kind:  # no argument; the colon stood in an option
            kind, _, query = text.partition("?")
            return Spec(text, kind, "", self._options(text, query))
        if colon and not self._knows(kind) and _names_module(kind):
            name, _, query = rest.partition("?")
            return Spec(text, f"{kind}:{name}", "", self._options(text, query))
        argument, query = divide_argument(rest)
        return Spec(text, kind, argument, self._options(text, query))

    def find(self, spec: str | Spec) -> Factory[T]:
        """Return the factory of a kind, or the object of a user that a spec names.

        Raises:
            MedSegError: Unknown kind (with the nearest known), or an import that fails.
        """
        spec = self.parse(spec) if isinstance(spec, str) else spec
        if spec.is_own:
            return load_object(spec.kind, self.noun, self.error)
        factory = self._kinds.get(spec.kind)
        if factory is None:
            factory = _entry_points(self.group).get(spec.kind)
        if factory is None:
            raise self.error(
                f"unknown {self.noun} {spec.kind!r}{nearest(spec.kind, self.names())}; known: "
                f"{', '.join(self.names())}. Your own: package.module:Name or path/file.py:Name, "
                f"or an entry point of the group {self.group!r}"
            )
        if isinstance(factory, str):
            factory = load_object(factory, self.noun, self.error)
            self._kinds.setdefault(spec.kind, factory)
        return factory

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """Forget what is registered within the block; for tests and examples."""
        kinds = dict(self._kinds)
        try:
            yield
        finally:
            self._kinds = kinds

    def call(self, spec: Spec, factory: Factory[T], *arguments: Any, **options: Any) -> T:
        """Call a factory and say what is wrong with its options or its signature.

        Args:
            spec: For messages.
            factory: From `find`.
            *arguments: As the registry's signature says.
            **options: Already converted.

        Raises:
            MedSegError: Arguments or options that the factory does not take.
        """
        try:
            signature = inspect.signature(factory)
        except (TypeError, ValueError):  # built in, without a signature
            return factory(*arguments, **options)
        try:
            signature.bind(*arguments)
        except TypeError as error:
            if not options:
                raise self.error(
                    f"{self.noun} {spec}: {_name(factory)}{signature} cannot be called as "
                    f"{self.signature}: {error}"
                ) from None
        try:
            signature.bind(*arguments, **options)
        except TypeError:
            known = _option_names(signature, len(arguments))
            unknown = [name for name in options if name not in known]
            raise self.error(
                f"{self.noun} {spec}: no option {unknown[0]!r}{nearest(unknown[0], known)}; "
                f"it takes: {', '.join(known) or 'none'}"
                if unknown
                else f"{self.noun} {spec}: {_name(factory)}{signature} cannot be called as "
                f"{self.signature}"
            ) from None
        return factory(*arguments, **options)

    def _knows(self, kind: str) -> bool:
        return kind in self._kinds or kind in _entry_points(self.group)

    def _options(self, text: str, query: str) -> dict[str, str]:
        return read_options(text, query, self.error)


def read_options(text: str, query: str, error: type[MedSegError] = MedSegError) -> dict[str, str]:
    """Read `key=value&key=value`; a plus stays a plus, `%26` is an ampersand.

    Raises:
        MedSegError: Not of that form, or a key that comes twice.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True)
    except ValueError as problem:
        raise error(
            f"{text}: cannot read the options behind the question mark ({problem}); "
            "write key=value with & between them"
        ) from problem
    options: dict[str, str] = {}
    for key, value in pairs:
        if key in options:
            raise error(f"{text}: repeated option {key!r}")
        options[key] = value
    return options


def write_options(options: Mapping[str, str]) -> str:
    """Return options as the text that `read_options` reads."""
    return "&".join(f"{key}={quote(value, safe=',:/()*+.')}" for key, value in options.items())


def divide_argument(text: str) -> tuple[str, str]:
    """Part an argument from the options behind it.

    The argument ends at the first question mark before which an existing file or folder is named,
    else at the first one with `key=` behind it, so paths may hold question marks, and so may a
    value.

    Returns:
        Argument and query, without the question mark.
    """
    marks = [at for at, character in enumerate(text) if character == "?"]
    if not marks or _exists(text):
        return text, ""
    with_key = (at for at in marks if _KEY.match(text, at + 1))
    end = next((at for at in marks if _exists(text[:at])), next(with_key, marks[0]))
    return text[:end], text[end + 1 :]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" with the nearest known words, or "" where none is near."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def load_object(path: str, noun: str = "object", error: type[MedSegError] = MedSegError) -> Any:
    """Import `package.module:Name` or `path/file.py:Name`.

    Raises:
        MedSegError: No such module, file or name; the message says where was looked, what is there
            and which name is nearest.
    """
    place, _, name = path.rpartition(":")
    module = (
        _load_file(place, noun, error) if place.endswith(".py") else _import(place, noun, error)
    )
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            public = sorted(key for key in vars(value) if not key.startswith("_"))
            raise error(
                f"{noun} {path}: {getattr(module, '__file__', place)} has no {part!r}"
                f"{nearest(part, public)}; it holds: {', '.join(public) or 'nothing'}"
            )
        value = getattr(value, part)
    return value


def _import(name: str, noun: str, error: type[MedSegError]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        missing = problem.name or name
        if name == missing or name.startswith(missing + "."):
            where = ", ".join(entry or os.getcwd() for entry in sys.path[:4])
            raise error(
                f"{noun} {name}: there is no module {missing!r}; looked in {where}, ..."
            ) from problem
        raise


def _load_file(place: str, noun: str, error: type[MedSegError]) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        there = sorted(other.name for other in path.parent.glob("*.py"))
        raise error(
            f"{noun} {place}: there is no file {path}{nearest(path.name, there)}"
            + (f"; that folder holds: {', '.join(there[:12])}" if there else "")
        )
    # One module for each file, under a name that no other module has.
    name = f"medseg_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickles look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _entry_points(group: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


def _names_module(text: str) -> bool:
    return text.endswith(".py") or (
        "." in text and all(part.isidentifier() for part in text.split("."))
    )


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _name(factory: Any) -> str:
    return getattr(factory, "__qualname__", type(factory).__name__)


def _option_names(signature: inspect.Signature, positional: int) -> list[str]:
    parameters = list(signature.parameters.values())[positional:]
    keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in keyword]
