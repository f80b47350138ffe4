"""Backbones by name: shared, registered by anybody, and clear about what is missing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from medseg_gym.backbones import (
    BackboneError,
    BackboneSpec,
    CheckpointError,
    EllipseBackbone,
    available,
    choose_device,
    load,
    register,
)

VIT_B = "sam_vit_b_01ec64.pth"


class Mine(EllipseBackbone):
    """A backbone of one's own, which remembers how it was built."""

    def __init__(self, checkpoint: Path | None, device, **options) -> None:
        super().__init__(device)
        self.name, self.checkpoint, self.options = "mine", checkpoint, options


def build_strictly(checkpoint, device, *, steps: int = 1) -> Mine:
    return Mine(checkpoint, device, steps=steps)


@pytest.fixture(autouse=True)
def _forget(fresh_registry, monkeypatch, tmp_path):
    """No test sees loaded backbones or this machine's weight files, and none leaves any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no cache"))


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "mine.pth"
    path.touch()
    return path


def test_the_same_arguments_give_the_same_instance():
    assert load("ellipse") is load("ellipse")
    assert load("ellipse", device="cpu", radius=0.1) is load("ellipse", radius=0.1, device="cpu")


def test_other_options_give_another_instance():
    made = [load("ellipse", device="cpu"), load("ellipse", device="cpu", radius=0.1)]
    made += [load("ellipse", device="cpu", radius=0.2)]
    assert len({id(backbone) for backbone in made}) == 3
    assert [backbone.radius for backbone in made] == [0.08, 0.1, 0.2]


def test_another_file_gives_another_instance_and_another_path_to_it_does_not(weights, monkeypatch):
    register("mine", BackboneSpec(Mine, "own"))
    other = weights.with_name("other.pth")
    other.touch()
    monkeypatch.chdir(weights.parent)
    assert load("mine", checkpoint=weights) is load("mine", checkpoint="mine.pth")
    assert load("mine", checkpoint=weights) is not load("mine", checkpoint=other)
    assert load("mine", checkpoint=weights).checkpoint == weights


def test_an_instance_is_given_back(tiny_backbone):
    assert load(tiny_backbone) is tiny_backbone
    assert load(tiny_backbone, device="cpu") is tiny_backbone


@pytest.mark.parametrize("extra", [{"checkpoint": "f.pth"}, {"decode_batch": 3}])
def test_a_checkpoint_or_options_beside_an_instance_are_refused(tiny_backbone, extra):
    with pytest.raises(BackboneError, match=r"go with a backbone's name; .*\(SamBackbone\)"):
        load(tiny_backbone, **extra)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(BackboneError) as caught:
        load("sam_vit_xl")
    assert all(name in str(caught.value) for name in available())
    assert "entry point" in str(caught.value)


@pytest.mark.parametrize("option", ["size", "name_of_nothing"])
def test_an_unknown_option_is_named(option):
    with pytest.raises(BackboneError, match=f"'ellipse': .*{option}"):
        load("ellipse", **{option: 3})


def test_an_option_that_the_name_has_settled_is_refused(weights):
    register("mine", BackboneSpec(build_strictly, "own", options=(("steps", 2),)))
    assert load("mine").options == {"steps": 2}
    with pytest.raises(BackboneError, match=r"'mine': .*steps"):
        load("mine", steps=3)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "", None, torch.device("cuda:99")])
def test_an_impossible_device_is_named_with_the_way_out(device):
    with pytest.raises(BackboneError, match=r'cannot be used: .*use device="cpu", or "auto"'):
        load("ellipse", device=device)


def test_auto_takes_a_gpu_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device().type == choose_device("auto").type == expected
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


# weight files -------------------------------------------------------------------------------------
def test_a_missing_checkpoint_names_file_page_and_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDSEG_CHECKPOINTS", raising=False)
    with pytest.raises(CheckpointError) as caught:
        load("sam_vit_b")
    page = available()["sam_vit_b"].page
    assert all(word in str(caught.value) for word in (VIT_B, page, "MEDSEG_CHECKPOINTS"))
    monkeypatch.setenv("MEDSEG_CHECKPOINTS", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"{VIT_B}.*{tmp_path}"):
        load("sam_vit_b")


@pytest.mark.parametrize("name", [n for n, spec in available().items() if spec.checkpoint])
def test_every_official_file_has_a_page(name):
    assert available()[name].page.startswith("https://")


def test_the_directory_of_the_variable_is_searched(monkeypatch, weights):
    monkeypatch.setenv("MEDSEG_CHECKPOINTS", str(weights.parent))
    register("mine", BackboneSpec(Mine, "own", checkpoint=weights.name, page="https://a.b"))
    assert load("mine").checkpoint == weights
    assert load("mine") is load("mine", checkpoint=weights)
    (weights.parent / VIT_B).write_text("no weights at all")
    with pytest.raises(CheckpointError, match=f"{VIT_B}: not a PyTorch checkpoint"):
        load("sam_vit_b")


def test_a_given_checkpoint_goes_before_the_variable(monkeypatch, weights, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / weights.name).touch()
    monkeypatch.setenv("MEDSEG_CHECKPOINTS", str(folder))
    register("mine", BackboneSpec(Mine, "own", checkpoint=weights.name, page="https://a.b"))
    assert load("mine", checkpoint=weights).checkpoint == weights


@pytest.mark.parametrize("place", ["none.pth", "."])
def test_a_checkpoint_that_is_no_file_is_named(tmp_path, place):
    with pytest.raises(CheckpointError, match=f"'sam_vit_b': checkpoint {tmp_path / place}"):
        load("sam_vit_b", checkpoint=tmp_path / place)


def test_a_failed_load_is_tried_again(monkeypatch, weights):
    register("mine", BackboneSpec(Mine, "own", checkpoint=weights.name, page="https://a.b"))
    monkeypatch.delenv("MEDSEG_CHECKPOINTS", raising=False)
    with pytest.raises(CheckpointError):
        load("mine")
    monkeypatch.setenv("MEDSEG_CHECKPOINTS", str(weights.parent))
    assert load("mine").name == "mine"


# somebody else's ----------------------------------------------------------------------------------
def test_a_registered_backbone_is_built_with_its_options(weights):
    register("mine", BackboneSpec(Mine, "own", options=(("size", "s"),)))
    made = load("mine", checkpoint=weights, device="cpu", steps=4)
    assert isinstance(made, Mine) and made.checkpoint == weights
    assert made.options == {"size": "s", "steps": 4} and made.device == torch.device("cpu")
    assert available()["mine"].summary == "own"


def test_a_name_is_registered_once():
    with pytest.raises(BackboneError, match="'ellipse' is registered already"):
        register("ellipse", BackboneSpec(Mine, "own"))


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """An installed distribution with a module and entry points, as pip would leave it."""
    site = tmp_path / "site"
    metadata = site / "other_package-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[medseg_gym.backbones]\n"
        "other = other_module:build\n"
        "other_spec = other_module:SPEC\n"
        "other_absent = other_module:nothing\n"
        "other_unbuilt = module_that_is_not_there:build\n"
        "ellipse = other_module:build\n"
    )
    (site / "other_module.py").write_text(
        "from medseg_gym.backbones import BackboneSpec, EllipseBackbone\n"
        "def build(checkpoint, device, radius=0.3):\n"
        "    made = EllipseBackbone(device, radius)\n"
        "    made.name, made.checkpoint = 'other', checkpoint\n"
        "    return made\n"
        "SPEC = BackboneSpec(build, 'theirs', 'other.pth', 'https://other.org',\n"
        "                    (('radius', 0.4),))\n"
    )
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return site


def test_an_installed_package_brings_a_builder(other_package):
    assert available()["other"].summary == "from package other-package"
    made = load("other", device="cpu")
    assert (made.name, made.radius) == ("other", 0.3)
    assert load("other", device="cpu") is made
    assert load("other", device="cpu", radius=0.1).radius == 0.1


def test_an_installed_package_brings_a_whole_spec(other_package, monkeypatch, tmp_path):
    monkeypatch.delenv("MEDSEG_CHECKPOINTS", raising=False)
    with pytest.raises(CheckpointError, match=r"'other_spec' needs .* other\.pth: .*other\.org"):
        load("other_spec")
    (tmp_path / "other.pth").touch()
    monkeypatch.setenv("MEDSEG_CHECKPOINTS", str(tmp_path))
    made = load("other_spec")
    assert (made.radius, made.checkpoint) == (0.4, tmp_path / "other.pth")


def test_an_installed_package_cannot_take_a_name_of_ours(other_package):
    assert load("ellipse").name == "ellipse"


@pytest.mark.parametrize("name", ["other_absent", "other_unbuilt"])
def test_an_entry_point_that_leads_nowhere_is_named(other_package, name):
    with pytest.raises(BackboneError, match=f"'{name}' cannot be imported: .*install what it"):
        load(name)


def test_a_remote_backbone_names_the_extra_that_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "medseg_gym.backbones.remote.http", raising=False)
    with pytest.raises(BackboneError, match=r"medseg-gym\[serve\]"):
        load("http:http://127.0.0.1:9")


# options in the text and backbones of a user's own ------------------------------------------------
def test_options_may_stand_in_the_text(weights):
    assert load("ellipse?radius=0.1", device="cpu") is load("ellipse", device="cpu", radius=0.1)
    register("mine", BackboneSpec(build_strictly, "own"))
    made = load(f"mine?steps=2&checkpoint={weights}&device=cpu")
    assert made.options == {"steps": 2} and made.checkpoint == weights
    for text, words in (
        ("mine?steps=x", "steps cannot be 'x': a whole number"),
        ("mine?step=2", r"no option 'step' \(did you mean 'steps'"),
        ("mine:steps=2", r"behind a question mark"),
        ("http:http://127.0.0.1:9?key=secret", "a key must not stand in a spec"),
        ("http", "no address; write http:ADDRESS"),
        ("elipse", r"unknown backbone 'elipse' \(did you mean 'ellipse'"),
    ):
        with pytest.raises(BackboneError, match=words):
            load(text)
    with pytest.raises(BackboneError, match="'steps' is given in the spec and beside it"):
        load("mine?steps=2", steps=3)


OWN = """
from medseg_gym.backbones import BackboneSpec, EllipseBackbone
def build(checkpoint, device, *, radius: float = 0.2):
    return EllipseBackbone(device, radius)
SPEC = BackboneSpec(build, "mine", options=(("radius", 0.3),))
MADE = EllipseBackbone("cpu", 0.4)
def strange():
    return MADE
limit = 3
"""


def test_backbones_of_a_file_by_their_path(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert load(f"{file}:build?radius=0.1").radius == 0.1
    assert load(f"{file}:SPEC").radius == 0.3
    assert load(f"{file}:MADE").radius == 0.4
    for name, words in (
        ("strange", r"strange\(\) cannot be called as builder\(checkpoint, device, \*\*options\)"),
        ("limit", r"of the type int; a builder\(checkpoint"),
        ("MADE?radius=1", "go with a backbone's name"),
        ("MADEE", "did you mean 'MADE'"),
    ):
        with pytest.raises(BackboneError, match=words):
            load(f"{file}:{name}")
