"""PPO of RLlib on the native batch."""

import os
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from medseg_agents import policies
from medseg_agents.arrays.rllib import RLlibPPOConfig, ppo_config, restore, train_rllib
from medseg_agents.arrays.rllib.callbacks import check_autoreset
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.runs.log import read_progress
from rich.console import Console
from safetensors.torch import load_file

from medseg_gym.errors import MedSegError
from medseg_gym.policy import make_envs

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

MODULE = "default_policy"


@pytest.fixture
def config(small_run, ray_cluster):
    return RLlibPPOConfig(**small_run)


def weights_of(runner):
    state = runner.module.get_state()
    return {key: torch.as_tensor(value) for key, value in state.items()}


@pytest.mark.slow
def test_spaces_pass_rllibs_own_checks(config):
    algo = ppo_config(config).build_algo()
    try:
        runner = algo.env_runner
        seen, done = runner.env.single_observation_space, runner.env.single_action_space
        for episode in runner.sample(num_timesteps=16, random_actions=True):
            for number in range(len(episode)):
                assert seen.contains(episode.get_observations(number))
                assert done.contains(np.asarray(episode.get_actions(number)))
    finally:
        algo.stop()


def test_autoreset_modes_that_rllib_would_corrupt_are_refused(config, small_cases):
    with pytest.raises(MedSegError, match="next_step"):
        ppo_config(config, autoreset_mode="same_step")
    for mode in ("same_step", "disabled"):
        envs = gym.make_vec(
            "medseg_gym:MedSeg-v0", num_envs=2, autoreset_mode=mode, cases=small_cases,
            backbone="ellipse",
        )  # fmt: skip
        with pytest.raises(MedSegError, match="leave autoreset_mode out"):
            check_autoreset(envs.metadata["autoreset_mode"])
    # Also where somebody changed the configuration afterwards.
    changed = ppo_config(config)
    changed.env_config["autoreset_mode"] = "same_step"
    with pytest.raises(Exception, match="next_step"):
        changed.build_algo()


def test_episodes_hold_their_own_observations_and_dice(config):
    algo = ppo_config(config).build_algo()
    try:
        envs = make_envs(1, **{k: v for k, v in algo.config.env_config.items()})
        for episode in algo.env_runner.sample(num_episodes=4, random_actions=True):
            infos = [episode.get_infos(number) for number in range(len(episode) + 1)]
            keys = {info["case"] for info in infos}
            assert len(keys) == 1  # the last observation is of the same case as the first
            seen, _ = envs.reset(options={"case": keys.pop()})
            for number in range(len(episode)):
                action = episode.get_actions(number)
                seen, reward, *_ = envs.step(np.asarray(action)[None])
                for key, value in seen.items():
                    assert np.array_equal(episode.get_observations(number + 1)[key], value[0])
                assert episode.get_rewards(number) == pytest.approx(reward[0], abs=1e-6)
            assert infos[-1]["dice"] == pytest.approx(envs.engine.episode(0).dice)
    finally:
        algo.stop()


@pytest.mark.slow
def test_a_run_learns_logs_and_its_network_plays_as_rllib_does(config, tmp_path):
    train_rllib(config, tmp_path / "run", console=Console(quiet=True))
    rows = read_progress(tmp_path / "run")
    trained = [row for row in rows if "return" in row]
    assert {"dice", "turns", "train/entropy", "time/rollout", "time/update"} <= set(trained[-1])
    assert sum("val/dice" in row for row in rows) >= 2
    policy_spec = policies.make(f"rllib:{tmp_path / 'run'}")
    envs = make_envs(
        4,
        cases="phantoms:fundus",
        split="test",
        backbone="ellipse",
        max_steps=3,
        **policy_spec.view,
    )
    policy = policy_spec.build(envs)
    assert len(evaluate(envs, policy, list(envs.source.keys[:4]))) == 4
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    algo = restore(newest / "algorithm")
    try:
        observations, _ = envs.reset(seed=1)
        batch = {"obs": {k: torch.from_numpy(v) for k, v in observations.items()}}
        with torch.no_grad():
            inputs = algo.get_module().forward_inference(batch)["action_dist_inputs"]
        mode = algo.get_module().action_dist_cls.from_logits(inputs).to_deterministic().sample()
        assert np.array_equal(mode.numpy(), policy.act(observations))
    finally:
        algo.stop()


@pytest.mark.slow
def test_a_run_may_start_from_a_clone(config, tmp_path):
    from medseg_gym.trajectories import GenerateOptions, generate_episodes

    options = GenerateOptions(
        cases="phantoms:fundus", split="train", annotator="sequential-click", backbone="ellipse",
        limit=12, max_steps=3,
    )  # fmt: skip
    generate_episodes(tmp_path / "expert", options)
    cloned = replace(config, clone=str(tmp_path / "expert"), clone_epochs=1, steps=64)
    run = train_rllib(cloned, tmp_path / "run", console=Console(quiet=True))
    rows = read_progress(tmp_path / "run")
    assert "clone/loss" in rows[0] and rows[-1]["step"] >= 64
    # The clone is the first checkpoint, and what the learner started from.
    first = run.checkpoints()[0]
    kept = load_file(first / "network.safetensors")
    algo = restore(first / "algorithm")
    try:
        for state in (algo.learner_group.get_weights()[MODULE], weights_of(algo.env_runner)):
            for key, value in kept.items():
                assert np.allclose(np.asarray(state[f"network.{key}"]), value.numpy()), key
    finally:
        algo.stop()


@pytest.mark.slow
def test_a_run_resumes_from_where_it_was(config, tmp_path):
    quiet = Console(quiet=True)
    train_rllib(replace(config, steps=64), tmp_path / "run", console=quiet)
    before = read_progress(tmp_path / "run")
    mark, algorithm = tmp_path / "mark", next((tmp_path / "run").glob("checkpoints/*64/algorithm"))
    assert not list(algorithm.rglob("*.pkl"))
    for name in ("algorithm_state.pkl", "class_and_ctor_args.pkl", "state.pkl"):
        (algorithm / name).write_bytes(pickle.dumps(Evil(mark)))  # in somebody else's folder, say
    longer = replace(config, steps=64, extend=64)
    train_rllib(longer, tmp_path / "run", resume=True, console=quiet)
    rows = read_progress(tmp_path / "run")
    assert rows[: len(before)] == before
    steps = [row["step"] for row in rows if "return" in row]
    assert steps == sorted(set(steps)) and steps[-1] >= 128
    assert not mark.exists()
    (algorithm / "state.json").unlink()
    with pytest.raises(MedSegError, match="pickles could run code"):
        restore(algorithm)
    assert not mark.exists()


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.slow
def test_remote_runners_and_learners_restore_with_their_own_weights(config, tmp_path):
    remote = replace(config, env_runners=2, learners=2, shared_backbone=False)
    algo = ppo_config(remote).build_algo()
    try:
        algo.train()
        algo.save_to_path(str(tmp_path / "algorithm"))
        learned = algo.learner_group.get_weights()[MODULE]
    finally:
        algo.stop()
    restored = restore(tmp_path / "algorithm")
    try:
        # Before any training: every runner has the learners' weights, not fresh ones.
        actual = restored.env_runner_group.foreach_env_runner(
            lambda runner: runner.module.get_state(), local_env_runner=False
        )
        assert len(actual) == 2
        for state in actual:
            for key, value in learned.items():
                assert np.allclose(np.asarray(state[key]), np.asarray(value)), key
        per_learner = restored.learner_group.foreach_learner(
            lambda learner: learner.module[MODULE].get_state()
        )
        first, second = (result.get() for result in per_learner)
        for key, value in first.items():
            assert np.allclose(np.asarray(value), np.asarray(second[key])), key
        result = restored.train()
        assert result["training_iteration"] == 2
    finally:
        restored.stop()


@pytest.mark.slow
def test_runners_may_share_one_backbone(config, tmp_path):
    shared = replace(config, env_runners=2, shared_backbone=True, eval_every=0, steps=64)
    train_rllib(shared, tmp_path / "run", console=Console(quiet=True))
    rows = read_progress(tmp_path / "run")
    assert rows and np.isfinite([row["dice"] for row in rows if "dice" in row]).all()


@pytest.mark.slow
def test_tune_runs_the_configuration(config, tmp_path):
    from ray import tune

    searched = ppo_config(config).training(lr=tune.grid_search([1e-3, 1e-4]))
    tuner = tune.Tuner(
        searched.algo_class,
        param_space=searched,
        run_config=tune.RunConfig(
            stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0
        ),
    )
    results = tuner.fit()
    assert len(results) == 2 and not results.errors
    assert all("dice" in result.metrics["env_runners"] for result in results)
