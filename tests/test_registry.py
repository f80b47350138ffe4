"""One grammar for names in text, and one registry for everything that has one."""

import sys
from importlib.metadata import EntryPoint
from pathlib import PureWindowsPath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym import registry
from medseg_gym.errors import MedSegError
from medseg_gym.object_paths import absolute_files, load_object
from medseg_gym.registry import Registry, takes_spec
from medseg_gym.specs import read_options, split_specs, write_options


@pytest.fixture
def colours():
    return Registry("colour", "medseg_gym.colours", "factory(**options)", {"red": lambda: "red"})


@pytest.mark.parametrize(
    ("text", "kind", "argument", "options"),
    [
        ("red", "red", "", {}),
        ("red?depth=2", "red", "", {"depth": "2"}),
        ("red:dark", "red", "dark", {}),
        ("red:dark:er?a=1&b=x%26y", "red", "dark:er", {"a": "1", "b": "x&y"}),
        ("red?pattern=a+b", "red", "", {"pattern": "a+b"}),
        ("red?place=x:y", "red", "", {"place": "x:y"}),
        ("red:?a=", "red", "", {"a": ""}),
        ("my_pkg.colours:Blue?depth=1", "my_pkg.colours:Blue", "", {"depth": "1"}),
        ("./own/blue.py:Blue", "./own/blue.py:Blue", "", {}),
        ("http:http://127.0.0.1:1/v1?timeout=2", "http", "http://127.0.0.1:1/v1", {"timeout": "2"}),
    ],
)
def test_the_grammar(colours, text, kind, argument, options):
    spec = colours.parse(text)
    assert (spec.kind, spec.argument, spec.options) == (kind, argument, options)
    assert str(spec) == text


def test_paths_may_hold_question_marks(colours, tmp_path):
    folder = tmp_path / "is it?"
    folder.mkdir()
    spec = colours.parse(f"red:{folder}?depth=2")
    assert (spec.argument, spec.options) == (str(folder), {"depth": "2"})
    assert colours.parse(f"red:{folder}").argument == str(folder)
    assert colours.parse(f"red:{folder}/not there?depth=2?").options == {"depth": "2?"}


@given(
    st.dictionaries(
        st.text("abc_", min_size=1), st.text(st.characters(codec="utf-8"), max_size=20), max_size=4
    )
)
def test_options_read_back(options):
    assert read_options("red", write_options(options)) == options


@pytest.mark.parametrize("query", ["a", "a=1&b", "a=1&a=2"])
def test_unreadable_options_are_refused(colours, query):
    with pytest.raises(MedSegError, match="red"):
        _ = colours.parse(f"red?{query}").options


def test_unknown_kinds_are_answered_with_the_nearest(colours):
    colours.register("crimson", lambda: "crimson")
    with pytest.raises(MedSegError, match=r"'crimsn'.*did you mean 'crimson'.*crimson, red"):
        colours.find("crimsn")


@pytest.mark.parametrize("kind", ["red", "a:b", "a?b", "a,b", "", " a"])
def test_kinds_that_cannot_be_registered(colours, kind):
    with pytest.raises(MedSegError):
        colours.register(kind, lambda: "x")


def test_temporary_kinds_are_forgotten(colours):
    with colours.temporarily():
        colours.register("green", lambda: "green")
        assert colours.names() == ("green", "red")
    assert colours.names() == ("red",)


def test_installed_packages_add_kinds(colours, monkeypatch):
    point = EntryPoint("path", "os.path:join", "medseg_gym.colours")
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [point] if group == point.group else []
    )
    import os.path

    assert colours.find("path") is os.path.join
    assert colours.names() == ("path", "red")


def test_objects_of_files_and_modules(tmp_path, monkeypatch):
    file = tmp_path / "own.py"
    file.write_text("class Bright:\n    limit = 3\ndef other(): ...\n")
    assert load_object(f"{file}:Bright").limit == 3
    assert load_object(f"{file}:Bright") is load_object(f"{file}:Bright")
    monkeypatch.chdir(tmp_path)
    assert load_object("own.py:Bright.limit") == 3
    assert load_object("json:dumps")({}) == "{}"


def test_a_wrong_name_is_answered_with_what_is_there(tmp_path):
    file = tmp_path / "own.py"
    file.write_text("class Bright: ...\n")
    with pytest.raises(MedSegError, match=r"no 'Brigth' \(did you mean 'Bright'\?\).*Bright"):
        load_object(f"{file}:Brigth")
    with pytest.raises(MedSegError, match=r"did you mean 'own\.py'"):
        load_object(f"{tmp_path}/owm.py:Bright")
    with pytest.raises(MedSegError, match="there is no module 'no_such_package'"):
        load_object("no_such_package.things:Bright")


def test_a_file_that_fails_is_read_again_once_mended(tmp_path):
    file = tmp_path / "own.py"
    file.write_text("raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        load_object(f"{file}:x")
    file.write_text("x = 'mended'  # longer, so that the cached bytecode is not its own\n")
    assert load_object(f"{file}:x") == "mended"


def test_wrong_options_and_signatures_are_explained(colours):
    def make(depth=1, *, gloss=0):
        return depth, gloss

    spec = colours.parse("red?glos=1")
    with pytest.raises(MedSegError, match=r"no option 'glos' \(did you mean 'gloss'\?\)"):
        colours.call(spec, make, glos=1)
    assert colours.call(spec, make, gloss=2) == (1, 2)

    def demanding(case, other):
        return case

    with pytest.raises(MedSegError, match=r"demanding\(case, other\).*factory\(\*\*options\)"):
        colours.call(colours.parse("red"), demanding)


def test_a_module_of_a_file_can_be_pickled(tmp_path):
    import pickle

    file = tmp_path / "own.py"
    file.write_text(f"# {quote(str(tmp_path))}\nclass Thing:\n    pass\n")
    thing = load_object(f"{file}:Thing")()
    assert type(pickle.loads(pickle.dumps(thing))) is type(thing)
    assert type(thing).__module__ in sys.modules


def test_what_a_spec_names_is_made_with_options_of_the_declared_types(colours):
    def paint(wall, *, depth: int = 1, names: tuple[str, ...] = ()):
        return wall, depth, names

    colours.register("paint", paint)
    assert colours.make("paint?depth=2&names=a+b", "wall") == ("wall", 2, ("a", "b"))
    assert colours.make("paint?depth=2", "wall", names="any") == ("wall", 2, "any")
    for text, words in (
        ("paint?depth=deep", "depth cannot be 'deep': a whole number"),
        ("paint?dept=1", r"no option 'dept' \(did you mean 'depth'\?\)"),
        ("paint:depth=2:names=a", r"behind a question mark: paint\?depth=2&names=a"),
        ("paint:dark", "no argument behind a colon"),
        ("red", r"cannot be called as factory\(\*\*options\)"),
    ):
        with pytest.raises(MedSegError, match=words):
            colours.make(text, "wall")
    with pytest.raises(MedSegError, match="'depth' is given in the spec and beside it"):
        colours.make("paint?depth=2", "wall", depth=3)


def test_a_factory_may_read_the_spec_itself(colours):
    @takes_spec
    def darker(spec):
        return f"darker {colours.make(spec.rest)}"

    colours.register("dark", darker)
    colours.register("deep", lambda depth=1: f"deep {depth}")
    assert colours.make("dark:dark:deep?depth=3") == "darker darker deep 3"


def test_factories_may_take_the_argument(tmp_path):
    places = Registry("place", "medseg_gym.places", "factory(argument)", has_argument=True)
    places.register("at", lambda argument, side="left": (argument, side))
    assert places.make(f"at:{tmp_path}?side=right") == (str(tmp_path), "right")
    assert places.make("at") == ("", "left")


def test_what_a_user_wrote_is_called_without_an_argument(colours, tmp_path):
    folder = tmp_path / "is it? a=b"
    folder.mkdir()
    (folder / "own.py").write_text("def make(depth=1):\n    return depth\nmade = 3\n")
    assert colours.make(f"{folder}/own.py:make?depth=4") == 4
    with pytest.raises(MedSegError, match=r"of the type int; factory\(\*\*options\) is wanted"):
        colours.make(f"{folder}/own.py:made")


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("red,blue", ["red", "blue"]),
        ("red, blu ,", ["red", "blu"]),
        ("red?window=0,1,blue", ["red?window=0,1", "blue"]),
        ("red:a,b,blue?x=1", ["red:a,b", "blue?x=1"]),
        ("red?a=1,my.things:Blue,own.py:Red?b=1,2", ["red?a=1", "my.things:Blue",
                                                     "own.py:Red?b=1,2"]),
        ("red?a=1%2Cblue", ["red?a=1%2Cblue"]),
        ("", []),
    ],
)  # fmt: skip
def test_lists_of_specs_are_split_where_a_spec_begins(colours, text, specs):
    colours.register("blue", lambda: "blue")
    assert colours.split(text) == specs
    assert split_specs("a?b=1,c", lambda piece: False) == ["a?b=1,c"]


def test_paths_of_files_are_made_absolute_wherever_they_stand(tmp_path, monkeypatch):
    folder = tmp_path / "my - own"
    folder.mkdir()
    (folder / "own.py").write_text("")
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "my - own" / "own.py"
    for text in (
        "{}:Squares?level=2",
        "pool:100:{}:Squares",
        "dice_gain + 0.5 * {}:final_iou",
        "2*{}:a - {}:b",
    ):
        assert absolute_files(text.replace("{}", "my - own/own.py")) == text.replace(
            "{}", str(place)
        )
    for text in ("samples", "nothing.py:X", "package.module:Name"):
        assert absolute_files(text) == text


def test_a_module_without_a_dot_is_known_by_being_there(colours, tmp_path, monkeypatch):
    (tmp_path / "shades.py").write_text("def dark():\n    return 'dark'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert colours.make("shades:dark") == "dark"
    assert colours.split("red?a=1,shades:dark") == ["red?a=1", "shades:dark"]
    with pytest.raises(MedSegError, match="unknown colour 'shadse'"):
        colours.make("shadse:dark")
    assert colours.parse(r"C:\own\blue.py:Blue?a=1").kind == r"C:\own\blue.py:Blue"


def test_a_drive_is_no_kind(colours):
    r"""On Windows a path begins with C:\ or C:/, alone, as an argument and in lists."""
    for drive in ("C:\\", "d:/"):
        file = drive + PureWindowsPath(r"my own\blue.py").as_posix().replace("/", drive[-1])
        spec = colours.parse(f"{file}:Blue?a=C:\\x")
        assert spec.kind == f"{file}:Blue" and spec.options == {"a": "C:\\x"} and spec.is_own
        assert colours.parse(f"red:{file}?a=1").argument == file
        assert colours.parse(f"red:{file}?a=1").options == {"a": "1"}
        assert colours.split(f"{file}:Blue,red,{file}:Green?a=1,2") == [
            f"{file}:Blue", "red", f"{file}:Green?a=1,2",
        ]  # fmt: skip
        with pytest.raises(MedSegError, match=r"there is no file .*blue\.py"):
            colours.make(f"{file}:Blue")
