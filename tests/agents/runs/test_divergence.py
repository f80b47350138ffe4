"""Array policies whose losses are not finite: a clear error, and no checkpoint of lost weights."""

import pytest
import torch
from medseg_agents.arrays.rllib.config import RLlibPPOConfig
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.runs.divergence import TrainingDiverged, check_gradients
from medseg_agents.runs.folder import RunFolder
from rich.console import Console

from ..rllib.conftest import ray_cluster  # noqa: F401  (a fixture)

QUIET = Console(quiet=True)


@pytest.mark.parametrize(
    "gradients, raises",
    [
        ([], False),
        ([[1.0, 2.0], [3e38, 3e38]], False),  # their squares overflow, they themselves do not
        ([[1.0], [float("nan"), 1.0]], True),
        ([[float("-inf")]], True),
        ([[], [1.0]], False),
    ],
)
def test_gradients_are_looked_at_before_the_optimiser_takes_them(gradients, raises):
    tensors = [torch.tensor(one) for one in gradients]
    if not raises:
        return check_gradients(tensors, "iteration 4", "lr")
    with pytest.raises(TrainingDiverged, match=r"iteration 4: a gradient is NaN.*Lower lr"):
        check_gradients(tensors, "iteration 4", "lr")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of numpy and Ray, about what is provoked here
@pytest.mark.parametrize("kind", ["sb3", "rllib"])
def test_training_that_diverges_ends_with_the_step_and_the_way_out(
    kind,
    small_run,
    tmp_path,
    ray_cluster,  # noqa: F811
):
    if kind == "sb3":
        from medseg_agents.arrays.sb3.train import train_sb3 as train
    else:
        from medseg_agents.arrays.rllib.train import train_rllib as train
    config = (SB3PPOConfig if kind == "sb3" else RLlibPPOConfig)(
        **{**small_run, "eval_every": 0, "learning_rate": 1e30}
    )
    with pytest.raises(TrainingDiverged, match=r"steps \d+ of 128.*Lower learning_rate"):
        train(config, tmp_path / kind, console=QUIET)
    assert not RunFolder(tmp_path / kind).checkpoints()
