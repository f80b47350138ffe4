"""Name things in text: one grammar and one registry for cases, backbones, rewards and policies.

A spec is `KIND[:ARGUMENT][?key=value&key=value]`. A kind is registered here or by an installed
package (entry points); `package.module:Name` and `path/file.py:Name` stand for what a user wrote.
A list of specs has commas between them, and values may hold commas too: see `Registry.split`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from medseg_gym.errors import MedSegError, nearest
from medseg_gym.object_paths import (
    finds_module,
    load_object,
    load_own,
    missing_object,
    modules_here,
    names_module,
    no_module_here,
    where_it_failed,
)
from medseg_gym.option_values import convert_options, declared_options, takes_any_option
from medseg_gym.specs import Spec, names_file, split_specs

T = TypeVar("T")

Factory = Callable[..., T]

_TAKES_SPEC = "takes_spec"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_NAME = re.compile(r"[^\W\d][\w.]*(\?|$)")


class Registry(Generic[T]):
    """Things of one sort by kind.

    Args:
        noun: Singular, for messages, as "reward".
        group: Entry-point group through which installed packages add kinds.
        signature: Call of a factory, for messages, as "factory(**options)".
        kinds: The package's own: a factory, or "module:name", imported when it is first needed.
        error: Raised about specs of this registry.
        has_argument: Whether factories get the spec's argument as their first argument; else
            an argument is refused.
        own_signature: Call of what a user names by its path, where that differs.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        signature: str,
        kinds: Mapping[str, str | Factory[T]] | None = None,
        error: type[MedSegError] = MedSegError,
        has_argument: bool = False,
        own_signature: str = "",
    ) -> None:
        self.noun, self.group, self.signature, self.error = noun, group, signature, error
        self.has_argument, self.own_signature = has_argument, own_signature or signature
        self._kinds: dict[str, str | Factory[T]] = dict(kinds or {})

    def register(self, kind: str, factory: str | Factory[T]) -> None:
        """Add a kind.

        Args:
            kind: Without colons, question marks, commas and ampersands.
            factory: Called as `signature` says; or "module:name", imported when first needed. One
                that is marked with `takes_spec` gets the whole `Spec`.

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

    def make(self, text: str, *arguments: Any, **options: Any) -> T:
        """Make what a spec names.

        Args:
            text: The spec. Its options are converted to the types that the factory declares.
            *arguments: As the registry's signature says.
            **options: Further options, of any type.

        Raises:
            MedSegError: Unknown kind (with the nearest known), an import that fails, an option that
                does not exist, has no such value or is given twice, or a factory with another
                signature than the registry's.
        """
        spec = self.parse(text)
        return self.build(spec, self.find(spec), *arguments, **options)

    def build(self, spec: Spec, factory: Factory[T], *arguments: Any, **options: Any) -> T:
        """Call the factory that `find` gave for a spec; see `make`."""
        if takes_whole_spec(factory):
            return self.call(spec, factory, spec, *arguments, **options)
        if self.has_argument and not spec.is_own:
            arguments = (spec.argument, *arguments)
        given = self.options_of(spec, factory, len(arguments))
        twice = sorted(set(given) & set(options))
        if twice:
            raise self.error(f"{self.noun} {spec}: {twice[0]!r} is given in the spec and beside it")
        return self.call(spec, factory, *arguments, **given, **options)

    def options_of(self, spec: Spec, factory: Factory[T], positional: int = 0) -> dict[str, Any]:
        """Convert a spec's options to the types that a factory declares.

        Args:
            spec: The spec.
            factory: Its factory.
            positional: Leading parameters of the factory that are no options.

        Raises:
            MedSegError: An option that the factory does not have, or a value of another type.
        """
        if not self.has_argument and not spec.is_own and spec.argument:
            hint = ""
            if "=" in spec.argument:
                options = spec.argument.replace(":", "&")
                hint = f"; options stand behind a question mark: {spec.kind}?{options}"
            raise self.error(f"{self.noun} {spec.kind!r} has no argument behind a colon{hint}")
        if not spec.options:
            return {}
        return convert_options(
            f"{self.noun} {spec}",
            spec.options,
            declared_options(factory, positional),
            self.error,
            takes_any_option(factory),
        )

    def parse(self, text: str) -> Spec:
        """Divide a spec; the kind is looked up only to tell paths from kinds."""
        kind, _, rest = _at_colon(text)
        own = self._is_own(text)
        if "?" in kind and not (own and names_file(kind)):  # the colon stood in an option
            kind, _, query = text.partition("?")
            return Spec(text, kind, f"?{query}", self.error)
        if own:
            name, mark, query = rest.partition("?")
            return Spec(text, f"{kind}:{name}", mark + query, self.error)
        return Spec(text, kind, rest, self.error)

    def find(self, spec: str | Spec, others: Iterable[str] = ()) -> Factory[T]:
        """Return the factory of a kind, or the object of a user that a spec names.

        Args:
            spec: Text or parsed.
            others: Further kinds that could have been meant, for the message.

        Raises:
            MedSegError: Unknown kind (with the nearest known), or an import that fails.
        """
        spec = self.parse(spec) if isinstance(spec, str) else spec
        if spec.is_own:
            own: Factory[T] = load_own(spec.kind, self.noun, self.error)
            return own
        factory = self._kinds.get(spec.kind)
        if factory is None:
            factory = _entry_points(self.group).get(spec.kind)
        if factory is None:
            known = (*self.names(), *others)
            modules = modules_here() if spec.kind.isidentifier() and _NAME.match(spec.rest) else []
            near = nearest(spec.kind, (*known, *modules))
            if modules and not nearest(spec.kind, known):
                near += no_module_here(spec.kind, modules)
            raise self.error(
                f"unknown {self.noun} {spec.kind[:80]!r}{near}"
                f"{missing_object(spec.kind, self.noun)}; known: {', '.join(known)}. Your own: "
                f"package.module:Name or path/file.py:Name, or an entry point of the group "
                f"{self.group!r}"
            )
        if isinstance(factory, str):
            if spec.kind not in self._kinds:  # of an installed package
                return load_own(factory, self.noun, self.error)  # type: ignore[no-any-return]
            factory = self._kinds[spec.kind] = load_object(factory, self.noun, self.error)
        return factory

    def factories(self) -> dict[str, str | Factory[T]]:
        """Factory by kind, or its path "module:name" where it was not needed yet."""
        installed = _entry_points(self.group)
        return {**self._kinds, **{k: v for k, v in installed.items() if k not in self._kinds}}

    def knows(self, kind: str) -> bool:
        """Return whether a kind is registered, here or by an installed package."""
        return kind in self._kinds or kind in _entry_points(self.group)

    def begins_spec(self, text: str) -> bool:
        """Return whether a text begins with a known kind or the name of a user's own object."""
        text = text.strip()
        return self.knows(re.split("[:?]", text, maxsplit=1)[0]) or self._is_own(text)

    def _is_own(self, text: str) -> bool:
        """Return whether a text begins with the name of a user's own object."""
        kind, colon, rest = _at_colon(text)
        if not colon or self.knows(kind):
            return False
        # A module without a dot looks like a kind: it is one only where no such module is there.
        return names_module(kind) or bool(_NAME.match(rest) and finds_module(kind))

    def split(self, text: str) -> list[str]:
        """Split a list of specs with commas between them; see `split_specs`."""
        return split_specs(text, self.begins_spec)

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
            MedSegError: Arguments or options that the factory does not take; or a user's own
                failed, the message says in which line.
        """
        self.check_call(spec, factory, *arguments, **options)
        if not spec.is_own:
            return factory(*arguments, **options)
        try:
            return factory(*arguments, **options)
        except MedSegError:
            raise
        except Exception as problem:
            raise self.error(f"{self.noun} {spec}: {where_it_failed(problem)}") from problem

    def check_call(self, spec: Spec, factory: Factory[T], *arguments: Any, **options: Any) -> None:
        """Refuse what `call` would refuse, without calling the factory.

        Raises:
            MedSegError: See `call`.
        """
        wanted = self.own_signature if spec.is_own else self.signature
        if not callable(factory):
            raise self.error(
                f"{self.noun} {spec}: it is of the type {type(factory).__name__}; "
                f"{wanted} is wanted"
            )
        try:
            signature = inspect.signature(factory)
        except (TypeError, ValueError):  # built in, without a signature
            return
        known = _option_names(signature, len(arguments))
        unknown = [name for name in options if name not in known]
        if unknown and not takes_any_option(factory):
            raise self.error(
                f"{self.noun} {spec}: no option {unknown[0]!r}{nearest(unknown[0], known)}; "
                f"it takes: {', '.join(known) or 'none'}"
            )
        try:
            signature.bind(*arguments, **options)
        except TypeError as problem:
            raise self.error(
                f"{self.noun} {spec}: {_name(factory)}{signature} cannot be called as "
                f"{wanted}: {problem}"
            ) from None


def takes_spec(factory: Factory[T]) -> Factory[T]:
    """Mark a factory that reads a spec itself: it gets the `Spec` instead of argument and options.

    For kinds whose argument is a spec again, and for those whose options belong to several things.
    """
    setattr(factory, _TAKES_SPEC, True)
    return factory


def takes_whole_spec(factory: object) -> bool:
    """Return whether a factory is marked with `takes_spec`."""
    return bool(getattr(factory, _TAKES_SPEC, False))


def _at_colon(text: str) -> tuple[str, str, str]:
    r"""Divide a text at its first colon, the one of a drive ("C:\own.py:Name") left out."""
    drive = 2 if _DRIVE.match(text) else 0
    kind, colon, rest = text[drive:].partition(":")
    return text[:drive] + kind, colon, rest


def _entry_points(group: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


def _name(factory: Any) -> str:
    return getattr(factory, "__qualname__", type(factory).__name__)


def _option_names(signature: inspect.Signature, positional: int) -> list[str]:
    parameters = list(signature.parameters.values())[positional:]
    keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in keyword]
