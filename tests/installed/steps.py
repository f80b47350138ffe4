"""The steps of a user, in order; each is a function of the workplace that raises where it fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from workplace import HIDDEN, ROOT, Workplace, surroundings

MEGABYTE = 1_000_000
STEPS: list[tuple[str, Callable[[Workplace], None]]] = []
OWN = ("--cases", "./cases.py:Squares", "--reward", "./reward.py:final_iou")
POLICIES = "my_pkg.policies:Bright,./bright.py:Bright?threshold=150,oracle-click"
SMALL = ("--backbone", "ellipse")
TRAIN = (
    *("train", "sb3-ppo", *OWN, *SMALL, "--image-size", "32", "--num-envs", "2", "--pool", "4"),
    *("--rollout", "8", "--minibatch", "8", "--steps", "32", "--eval-every", "0"),
    *("--checkpoint-every", "16", "--test-cases", "2", "--out", "runs/ppo"),
)


def step(title: str) -> Callable[[Callable[[Workplace], None]], Callable[[Workplace], None]]:
    """Add a function to the steps."""

    def add(function: Callable[[Workplace], None]) -> Callable[[Workplace], None]:
        STEPS.append((title, function))
        return function

    return add


# the files -----------------------------------------------------------------------------------


@step("wheel and sdist: twine check, check-wheel-contents")
def check_files(place: Workplace) -> None:
    tool = (sys.executable, "-m")
    subprocess.run([*tool, "twine", "check", "--strict", place.sdist, place.wheel], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    subprocess.run([*tool, "check_wheel_contents", "--toplevel", "medseg_gym,medseg_agents",
                    place.wheel], check=True, stdout=subprocess.DEVNULL)  # fmt: skip


@step("wheel: two packages, all their data, pocket's weights of at most 9 MB")
def check_wheel(place: Workplace) -> None:
    with zipfile.ZipFile(place.wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    top = {name.partition("/")[0] for name in sizes}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == {"medseg_gym", "medseg_agents"}, packages
    for folder in (ROOT / "medseg_gym", ROOT / "agents" / "medseg_agents"):
        for file in folder.rglob("*"):
            name = file.relative_to(folder.parent).as_posix()
            if file.is_file() and "__pycache__" not in name:
                assert name in sizes, f"{name} is not in the wheel"
    weights = sum(size for name, size in sizes.items() if "families/pocket/weights" in name)
    assert 0 < weights <= 9 * MEGABYTE, weights


@step("sdist: what builds and tests need, nothing heavy")
def check_sdist(place: Workplace) -> None:
    with tarfile.open(place.sdist) as archive:
        sizes = {member.name.partition("/")[2]: member.size for member in archive.getmembers()}
    for folder in ("tests", "docs", "examples", "benchmarks", "scripts", "configs"):
        assert any(name.startswith(f"{folder}/") for name in sizes), f"{folder} is missing"
    for name in ("pyproject.toml", "CHANGELOG.md", "mkdocs.yml", "Makefile", ".ci/run"):
        assert name in sizes, f"{name} is missing"
    heavy = {name: size for name, size in sizes.items() if size > 9 * MEGABYTE}
    assert not heavy and place.sdist.stat().st_size < 25 * MEGABYTE, heavy


# what is installed ---------------------------------------------------------------------------


@step("both packages are imported from the new environment, beside another one called agents")
def check_imports(place: Workplace) -> None:
    code = (
        "import agents, medseg_agents, medseg_gym, importlib.metadata as m\n"
        "print(agents.OWNER, medseg_gym.__version__, m.version('medseg-gym'), sep='\\n')\n"
        "print(medseg_gym.__file__, medseg_agents.__file__, sep='\\n')"
    )
    owner, version, distribution, *files = place.python(code).splitlines()
    assert owner == "somebody else" and version == distribution
    for file in files:
        assert Path(file).is_relative_to(place.environment), file
        assert not Path(file).is_relative_to(ROOT), file
    assert place.medseg("--version").stdout == f"medseg-gym {version}\n"
    assert place.call("medseg-gym", "--version").stdout == f"medseg-gym {version}\n"
    assert "train" in place.medseg("--help").stdout, "the agents' commands"


@step("medseg doctor")
def check_doctor(place: Workplace) -> None:
    told = json.loads(place.medseg("doctor", "--json").stdout)
    assert told, told
    assert "pocket" in place.medseg("doctor").stdout


@step("medseg demo")
def check_demo(place: Workplace) -> None:
    place.medseg("demo", "--backbones", "ellipse", "--limit", 2, "--out", "out/demo")
    assert (place.folder / "out/demo/sheet.png").stat().st_size > 1000


@step("gymnasium: a time limit, the native batch, sync and async vectors")
def check_vectors(place: Workplace) -> None:
    assert len(place.call("python", "vectors.py").stdout.splitlines()) == 6


# own things ----------------------------------------------------------------------------------


def results(place: Workplace, out: str) -> dict:
    return json.loads((place.folder / out / "results.json").read_text(encoding="utf-8"))


@step("compare: own policies, cases and reward by name; table, CSV, JSON, PNG")
def check_compare(place: Workplace) -> None:
    told = place.medseg("compare", "--policies", POLICIES, *OWN, "--backbones", "ellipse",
                        "--out", "out/compare").stdout  # fmt: skip
    assert "synthetic" in told and "bright" in told.lower(), told
    for name in ("results.csv", "results.json", "dice_by_step.png", "overlays.png"):
        assert (place.folder / "out/compare" / name).stat().st_size > 100, name


@step("compare into a pipe that closes: no result is lost")
def check_pipe(place: Workplace) -> None:
    command = [place.program("medseg"), "compare", "--policies", POLICIES, *OWN, "--backbones",
               "ellipse", "--out", "out/piped"]  # fmt: skip
    with subprocess.Popen(command, cwd=place.folder, env=surroundings(place.folder), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as piped:  # fmt: skip
        piped.stdout.readline()
        piped.stdout.close()
        error = piped.stderr.read()
    assert "Traceback" not in error, error
    first, second = (
        (place.folder / out / "results.csv").read_text(encoding="utf-8").splitlines()
        for out in ("out/compare", "out/piped")
    )
    assert len(first) == len(second) > 3


@step("eval: an own policy on own cases with an own reward, in two processes")
def check_eval(place: Workplace) -> None:
    for workers in (1, 2):
        place.medseg("eval", "--policy", "my_pkg.policies:Bright", *OWN, *SMALL, "--workers",
                     workers, "--out", f"out/eval{workers}")  # fmt: skip
    place.medseg("eval", "--policy", "./bright.py:Bright?threshold=150", *OWN, *SMALL,
                 "--out", "out/eval150")  # fmt: skip


@step("compare --runs: two runs side by side")
def check_runs(place: Workplace) -> None:
    place.medseg("compare", "--runs", "out/eval1", "out/eval150", "--out", "out/both")
    for name in ("paired.json", "paired.csv", "cases.csv", "scatter.png"):
        assert (place.folder / "out/both" / name).is_file(), name


@step("run: an own policy on an image")
def check_run(place: Workplace) -> None:
    code = "from PIL import Image; from cases import Squares; Image.fromarray(Squares[0].image)"
    place.python(f"{code}.save('square.png'); Image.fromarray(Squares[0].mask).save('truth.png')")
    place.medseg("run", "square.png", "--target", "bright square", "--policy",
                 "./bright.py:Bright", *SMALL, "--out", "out/run")  # fmt: skip
    assert list((place.folder / "out/run").rglob("*.png"))


@step("trajectories generate: an own annotator; the same command goes on")
def check_trajectories(place: Workplace) -> None:
    words = ("trajectories", "generate", "--annotator", "./bright.py:Bright", *OWN, *SMALL,
             "--out", "out/store")  # fmt: skip
    place.medseg(*words)
    place.medseg(*words)
    assert "6" in place.medseg("trajectories", "summary", "out/store").stdout


@step("small data sets: a folder without splits, one image with its truth")
def check_small_data(place: Workplace) -> None:
    place.python(
        "from pathlib import Path; from PIL import Image; from cases import Squares\n"
        "for name in ('images', 'masks'): Path('data', name).mkdir(parents=True)\n"
        "for case in Squares:\n"
        "    Image.fromarray(case.image).save(f'data/images/{case.key}.png')\n"
        "    Image.fromarray(case.mask).save(f'data/masks/{case.key}.png')\n"
    )
    for number, cases in enumerate(
        ("folder:data?target=bright square", "image:square.png?truth=truth.png&target=square")
    ):
        place.medseg("eval", "--policy", "oracle-box", "--cases", cases, "--split", "all", *SMALL,
                     "--out", f"out/small{number}")  # fmt: skip


# training ------------------------------------------------------------------------------------


@step("train sb3-ppo on own cases and reward")
def check_train(place: Workplace) -> None:
    place.medseg(*TRAIN)
    config = json.loads((place.folder / "runs/ppo/config.json").read_text(encoding="utf-8"))
    assert "final_iou" in json.dumps(config)


@step("resume with nothing but --resume; more steps; what contradicts the run is named")
def check_resume(place: Workplace) -> None:
    resume = ("train", "sb3-ppo", "--out", "runs/ppo", "--resume")
    place.medseg(*resume)
    place.medseg(*resume, "--extend", 16)
    error = place.medseg(*resume, "--rollout", 4, code=2).stderr
    assert "rollout" in error and "8" in error and "4" in error, error


@step("eval of what was trained")
def check_trained(place: Workplace) -> None:
    place.medseg("eval", "--policy", "sb3:runs/ppo", "--cases", "./cases.py:Squares", *SMALL,
                 "--out", "out/trained")  # fmt: skip


# words ---------------------------------------------------------------------------------------


@step("wrong names are answered with the nearest one and what is there")
def check_wrong_names(place: Workplace) -> None:
    for words, answers in (
        (("--policy", "./bright.py:Brigth"), ("bright.py", "Bright")),
        (("--policy", "my_pkg.polices:Bright"), ("my_pkg.polices",)),
        (("--policy", "oracle-clik"), ("oracle-click",)),
        (("--policy", "stop", "--cases", "./cases.py:Square"), ("Squares",)),
        (("--policy", "stop", "--reward", "./reward.py:final_io"), ("final_iou",)),
    ):
        error = place.medseg("eval", *words, *SMALL, "--out", "out/wrong", code=2).stderr
        assert all(answer in error for answer in answers), error
    assert "--limit" in place.medseg("eval", "--limitt", 3, code=2).stderr


@step("--json prints one document, --quiet nothing")
def check_output(place: Workplace) -> None:
    words = ("eval", "--policy", "stop", *OWN, *SMALL)
    json.loads(place.medseg(*words, "--out", "out/json", "--json").stdout)
    done = place.medseg(*words, "--out", "out/quiet", "--quiet")
    assert not done.stdout and not done.stderr, (done.stdout, done.stderr)
    listed = json.loads(place.medseg("cases", "list", "samples", "--json").stdout)
    assert listed


@step("nothing of this came from the checkout")
def check_no_checkout(place: Workplace) -> None:
    assert not any(re.match(name, key) for name in HIDDEN for key in surroundings(place.folder))
    for name in ("results.json", "results.csv"):
        assert str(ROOT) not in (place.folder / "out/compare" / name).read_text(encoding="utf-8")
