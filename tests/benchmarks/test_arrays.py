"""The chain of imitation on arrays: every stage in little, once and no second time."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("stable_baselines3")

from benchmarks.learning.arrays.__main__ import is_done, run
from benchmarks.learning.arrays.sizes import TASKS, Sizes
from medseg_gym.errors import MedSegError


@pytest.mark.parametrize("task", TASKS)
def test_each_stage_goes_on_from_the_first(task, tmp_path):
    sizes = Sizes()
    first = sizes.dagger(task, 1)
    for later in (sizes.ppo(tmp_path, task, 1), sizes.repair(tmp_path, task, 1)):
        assert later.start == str(sizes.run(tmp_path, "dagger", task, 1)) and first.start is None
        alike = ("image_size", "bins", "patch", "levels", "width", "tools", "seed")
        assert all(getattr(later, name) == getattr(first, name) for name in alike)
    repair = sizes.repair(tmp_path, task, 1)
    assert repair.cases.startswith(TASKS[task]) and repair.cases.endswith("initial_mask=wrong")
    assert repair.cases.count("?") == 1


def test_unknown_tasks_are_refused(tmp_path):
    for wrong in ({"tasks": "brain"}, {"ppo": "brain"}, {"repair": "brain"}):
        with pytest.raises(MedSegError, match="unknown tasks"):
            run(out=tmp_path, **wrong)
    with pytest.raises(MedSegError, match="no setting 'step'"):
        run(out=tmp_path, settings="step=4")


@pytest.mark.slow
def test_the_whole_chain_runs_and_goes_on(tmp_path, capsys):
    small = (
        "steps=64,random_steps=64,ppo_steps=512,repair_steps=64,updates=1,random_updates=1,"
        "localizer=4,localizer_steps=2,localizer_images=8,random_localizer_steps=2,"
        "random_localizer_images=8,repair_updates=1,pool=8,repair_pool=8,image_size=32,width=8,"
        "backbone=ellipse,"
        "played=ellipse,precision=float32,test=8,repair_test=8"
    )
    arguments = {
        "out": tmp_path / "arrays",
        "seeds": "0",
        "tasks": "abdomen,random",
        "settings": small,
    }
    run(**arguments, repair="abdomen")
    shown = capsys.readouterr().out
    assert "imitation (DAgger)" in shown and "imitation going on with wrong masks" in shown
    repairs = json.loads((tmp_path / "arrays" / "repairing-abdomen.json").read_text())
    stop = repairs["rows"][0]
    assert stop["policy"] == "stop at once" and len(set(stop["dice"])) == 1
    assert set(repairs["less_imitation"]) == {"PPO from it", "imitation going on with wrong masks"}
    names = ("dagger-abdomen-0", "ppo-abdomen-0", "repair-abdomen-0", "dagger-random-0")
    folders = [tmp_path / "arrays" / name for name in names]
    assert all(is_done(folder, 64) for folder in folders)
    for drawn in ("curves-abdomen.png", "calls-abdomen.png", "table/abdomen/calls_used.png"):
        assert (tmp_path / "arrays" / drawn).stat().st_size > 5000
    assert len(list((tmp_path / "arrays" / "table" / "random" / "filmstrips").iterdir())) == 6
    config = [(folder / "config.json").stat().st_mtime_ns for folder in folders]
    run(**arguments, repair="abdomen", train_only=True)
    assert config == [(folder / "config.json").stat().st_mtime_ns for folder in folders]
    with pytest.raises(MedSegError, match="other settings"):
        run(out=tmp_path / "arrays")
