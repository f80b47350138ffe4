"""One grammar for names in text, and one registry for everything that has one."""

import sys
from importlib.metadata import EntryPoint
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym import registry
from medseg_gym.errors import MedSegError
from medseg_gym.registry import Registry, load_object, read_options, write_options


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
        colours.parse(f"red?{query}")


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
