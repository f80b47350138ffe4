"""The house's rules: no import circle, no arrow upward, no crowded folder, plain words."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"medseg_gym": ROOT, "medseg_agents": ROOT / "agents", "benchmarks": ROOT}

ROOMS = [
    ["registration", "errors", "own_code", "object_paths", "specs", "option_values", "registry"],
    ["options", "option_groups"],
    ["storage", "display", "statistics", "thread_waiting", "parallel"],
    ["cases", "prompts"],
    ["backbones"],
    ["episodes"],
    ["envs"],
    ["policy", "policy_checks"],
    ["annotators"],
    ["trajectories"],
    ["testing"],
    ["serving"],
    ["play"],
    ["cli"],
]
"""Rooms of `medseg_gym`; each may import those of its own line and of the lines before it."""

CROWDED = 13
"""Files that a folder may hold, `__init__` not counted."""

RIDDLE = re.compile(
    r'^ *r?"""(?:What|Where|Who|Whose|How|Which|Why|When|Whether)\b.*', re.MULTILINE
)
"""First line of a docstring that is neither a sentence nor a noun phrase."""

VAGUE = re.compile(r"\b(?:found|said|more|most|figures)\b")
"""Names of variables that tell a reader nothing."""

ONE_SYSTEM = re.compile(
    r"\b(?:fcntl|os\.fork)\b|[\"']/tmp\b|get_context\((?!\"spawn\"\))|multiprocessing\.(?:Pool|Process)\("
)
"""Names that Windows or macOS lack, or take otherwise: locks, forks, folders of Linux."""

READ = ("medseg_gym", "agents", "benchmarks", "examples", "scripts", "tests")
"""Folders whose words are checked."""


def modules() -> dict[str, Path]:
    """Every module of the three packages by name."""
    result = {}
    for package, root in PACKAGES.items():
        for file in (root / package).rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            result[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return result


MODULES = modules()


def imports_of(name: str, with_types: bool = False) -> set[str]:
    """Modules of the project that a module imports, inside functions too.

    Args:
        name: Of the module.
        with_types: Whether imports for types alone count as well.
    """
    imported = set()
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not with_types:
            continue
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {inner for inner in names if inner in MODULES}
            if names - imported:
                imported.add(node.module)
    return {module for module in imported if module in MODULES and module != name}


GRAPH = {name: imports_of(name) for name in MODULES}


@pytest.mark.parametrize("with_types", [False, True])
def test_no_module_imports_itself_by_way_of_others(with_types):
    graph = {name: imports_of(name, with_types) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))


def test_rooms_import_only_rooms_below():
    level = {room: number for number, row in enumerate(ROOMS) for room in row}
    upward = []
    for name, imported in GRAPH.items():
        package, _, rest = name.partition(".")
        if package != "medseg_gym" or not rest:
            continue
        for other in imported:
            package, _, there = other.partition(".")
            if package != "medseg_gym":
                upward.append(f"{name} -> {other}")
            elif there and level[there.split(".")[0]] > level[rest.split(".")[0]]:
                upward.append(f"{name} -> {other}")
    assert not upward, upward


def test_agents_do_not_import_benchmarks():
    assert not [
        (name, other)
        for name, imported in GRAPH.items()
        for other in imported
        if name.startswith("medseg_agents") and other.startswith("benchmarks")
    ]


def test_no_folder_is_crowded():
    sizes = Counter(
        file.parent.relative_to(ROOT).as_posix()
        for file in MODULES.values()
        if file.name != "__init__.py"
    )
    assert not {folder: count for folder, count in sizes.items() if count > CROWDED}


def sources() -> Iterator[tuple[str, str]]:
    """Yield path and text of every Python file of the repository."""
    for folder in READ:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")


def variables(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of all that a file binds: variables, attributes, parameters."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def test_docstrings_begin_with_a_sentence_or_a_noun_phrase():
    riddles = [f"{file}: {match[0]}" for file, text in sources() for match in RIDDLE.finditer(text)]
    assert not riddles, "\n".join(riddles)


def test_variables_are_named_after_what_they_hold():
    vague = [
        f"{file}:{line}: {name}"
        for file, text in sources()
        if VAGUE.search(text)
        for line, name in variables(text)
        if VAGUE.fullmatch(name)
    ]
    assert not vague, "\n".join(vague)


def test_packages_use_nothing_that_one_system_alone_has():
    tied = [
        f"{name}: {match[0]}"
        for name, file in MODULES.items()
        if not name.startswith("benchmarks")
        for match in ONE_SYSTEM.finditer(file.read_text(encoding="utf-8"))
    ]
    assert not tied, tied


def writes_locale(call: ast.Call) -> bool:
    """Return whether a call opens text in the encoding of the machine, another on Windows."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if name in ("read_text", "write_text"):
        return isinstance(call.func, ast.Attribute)
    if name in ("run", "Popen", "check_output"):
        return "text" in keywords
    if name not in ("open", "fdopen"):
        return False
    at = 1 if isinstance(call.func, ast.Name) or name == "fdopen" else 0
    mode = keywords.get("mode", call.args[at] if len(call.args) > at else None)
    if mode is None:
        return isinstance(call.func, ast.Name)  # other things than files have an `open`
    return isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rwax+t")


def test_text_has_an_encoding() -> None:
    without = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for folder in ("medseg_gym", "agents", "benchmarks", "examples", "scripts")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and writes_locale(node)
        if "/proc/" not in ast.unparse(node)  # of Linux, in ASCII
    ]
    assert not without, without
