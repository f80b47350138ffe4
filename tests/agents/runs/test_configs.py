"""Configurations for real use: they load, fit the machine that they name, and the tiny one runs."""

import ast
import operator
import re
from pathlib import Path

import pytest
from medseg_agents.grpo.settings import ChatPPORun, GRPORun
from medseg_agents.runs.log import read_progress
from medseg_agents.sft.config import SftConfig

from medseg_gym.options import read_mapping

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "configs"
FILES = sorted(FOLDER.rglob("*.yaml"))
KINDS = {"sft": SftConfig, "grpo": GRPORun, "chat_ppo": ChatPPORun}
OPERATORS = {ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Add: operator.add}


def value_of(node):
    """An expression of numbers, products, quotients and sums."""
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))
    assert isinstance(node, ast.Constant)
    return node.value


def read(file, **other):
    """Options of a file, with what the command line would add."""
    return KINDS[file.stem].from_mapping({**read_mapping(file), **other}, str(file))


def test_every_machine_has_its_files_and_the_page_names_them():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    folders = [path.name for path in sorted(FOLDER.iterdir()) if path.is_dir()]
    assert sorted(folders) == sorted(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_options_exist_and_the_memory_is_added_up_right(file):
    other = {"trajectories": ["x"]} if file.stem == "sft" else {}
    config = read(file, **other)
    text = file.read_text(encoding="utf-8")
    assert "# Run here: " in text and f"medseg train {file.stem}" in text
    sums = re.findall(r"^# memory: (.+?) = ([\d.]+) GB, ", text, re.MULTILINE)
    assert len(sums) == text.count("# memory:") and (sums or "# planned: " in text)
    amounts = []
    for formula, claimed in sums:
        amount = value_of(ast.parse(formula, mode="eval").body) / 1e9
        assert amount == pytest.approx(float(claimed), rel=0.01, abs=0.006), formula
        amounts.append(amount)
    if "total" in text:
        total, limit = map(
            float, re.search(r"^# total: ([\d.]+) GB of (\d+) GB$", text, re.M).groups()
        )
        assert sum(amounts) == pytest.approx(total, rel=0.01) and total < 0.9 * limit
        assert f"{limit:.0f}gb" in file.parent.name
    if file.stem == "grpo":
        slots = config.num_envs or config.episodes
        assert slots % config.num_generations == 0
        assert config.groups % (max(1, config.learners) * config.minibatches) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_the_tiny_configuration_runs(tmp_path):
    pytest.importorskip("trl")
    from medseg_agents.grpo.train import train_chat
    from medseg_agents.sft.train import train_sft
    from rich.console import Console

    from medseg_gym.envs.chat_options import ChatOptions
    from medseg_gym.trajectories import TrajectoryStore
    from medseg_gym.trajectories.export.export import export_store
    from medseg_gym.trajectories.recording.generate import GenerateOptions, generate_episodes

    generate_episodes(
        tmp_path / "experts",
        GenerateOptions(
            cases="phantoms:abdomen", split="train", annotator="hybrid", limit=4, num_envs=4
        ),
    )
    view = ChatOptions(image_size=96, texts="terse", max_steps=5)
    (tmp_path / "conversations").mkdir()
    export_store(
        TrajectoryStore(tmp_path / "experts"),
        tmp_path / "conversations" / "episodes.parquet",
        chat=view,
    )
    sft = read(
        FOLDER / "tiny_cpu" / "sft.yaml", trajectories=[str(tmp_path / "conversations")], steps=2
    )
    model = train_sft(sft, tmp_path / "sft", quiet=True)
    few = {"groups": 2, "num_generations": 2, "iterations": 2, "eval_cases": 2, "eval_every": 2}
    grpo = read(FOLDER / "tiny_cpu" / "grpo.yaml", model=str(model), **few, log_samples_every=1)
    run = train_chat(grpo, tmp_path / "grpo", console=Console(quiet=True))
    rows = [row for row in read_progress(run.path) if "return" in row]
    assert [row["step"] for row in rows] == [1, 2]
    assert (run.path / "model").is_dir()
