"""GRPO whose gradients or logits are not finite ends with a clear error."""

import pytest
import torch
from medseg_agents.runs.divergence import TrainingDiverged

from .conftest import weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def test_gradients_that_are_not_finite_do_not_reach_the_weights(make):
    algo = make(minibatches=2, num_generations=2)
    learner = algo.learner_group._learner
    taken, real = [], learner.postprocess_gradients

    def spoil(loss):
        # Of the second step: the first has changed the weights by then.
        return loss * float("nan") if learner._steps_taken else loss

    real_loss = learner.compute_loss_for_module
    learner.compute_loss_for_module = lambda **given: spoil(real_loss(**given))
    learner.postprocess_gradients = lambda gradients: taken.append(1) or real(gradients)
    with pytest.raises(TrainingDiverged, match=r"iteration 0, gradient step 1.*Lower lr"):
        algo.train()
    assert taken == [1]
    assert all(torch.isfinite(value).all() for value in weights_of(algo).values())


def test_a_learning_rate_that_is_far_too_high_ends_the_run(make):
    algo = make(num_generations=2, lr=1e30)
    algo.train()
    with pytest.raises(TrainingDiverged, match=r"iteration 1, gradient step 0.*Lower lr"):
        algo.train()
