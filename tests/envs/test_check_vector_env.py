"""check_vector_env passes what keeps the laws, and names the law that a mutant breaks."""

from __future__ import annotations

import copy
import random
import string
import time
from collections import Counter
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from gymnasium.wrappers.vector import ClipReward, DictInfoToList

from medseg_gym.envs.check_vector_env import CHECKS, VectorEnvError, check_vector_env

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
MODES = [NEXT, SAME, DISABLED]
LIMIT = 6
BY_MODE = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


# well-behaved environments ----------------------------------------------------------------------
class TinyEnv(gym.Env):
    """A drunkard's walk: ends beyond 1, or after LIMIT steps; draws a wind at every step."""

    observation_space = spaces.Dict(
        {
            "position": spaces.Box(-100, 100, (2,), np.float32),
            "picture": spaces.Box(0, 255, (2, 2, 1), np.uint8),
            "colour": spaces.Discrete(3),
            "pair": spaces.Tuple([spaces.MultiDiscrete([3, 4]), spaces.MultiBinary(2)]),
            "words": spaces.Text(8, charset=string.ascii_letters),
        }
    )
    action_space = spaces.Discrete(3)

    def _observe(self) -> dict[str, Any]:
        return {
            "position": self.position.astype(np.float32),
            "picture": self.picture.copy(),
            "colour": self.colour,
            "pair": (np.array([self.colour, 3]), np.array([0, self.steps % 2], np.int8)),
            "words": "abc"[self.colour] * min(8, self.steps + 1),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.5, 0.5, 2)
        self.picture = self.np_random.integers(0, 256, (2, 2, 1), dtype=np.uint8)
        self.colour = int(self.np_random.integers(3))
        self.steps = 0
        return self._observe(), {"colour": self.colour}

    def step(self, action):
        assert self.action_space.contains(action)
        wind = float(self.np_random.normal(scale=0.2))
        self.position = self.position + 0.2 * (action - 1) + wind
        self.steps += 1
        terminated = bool(self.position[0] > 1)
        info = {"wind": wind, "words": "w" * self.steps, "nested": {"steps": self.steps}}
        if terminated:
            info["fell"] = True
        truncated = self.steps == LIMIT
        return self._observe(), float(action) + 0.1, terminated, truncated, info


class TinyVectorEnv(VectorEnv):
    """TinyEnv in batches, all three modes, keeping every law; the mutants below break one each."""

    single_observation_space = TinyEnv.observation_space
    single_action_space = TinyEnv.action_space
    spec = EnvSpec("Tiny-v0", max_episode_steps=LIMIT)
    make_env: Any = TinyEnv

    def __init__(self, num_envs: int = 1, autoreset_mode: AutoresetMode = NEXT, **kwargs: Any):
        self.num_envs = num_envs
        self.mode = autoreset_mode
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.envs = [self.make_env() for _ in range(num_envs)]
        self.ended = np.zeros(num_envs, bool)
        self.last: list[Any] = [None] * num_envs

    def batch(self) -> Any:
        empty = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, self.last, empty)

    def mask(self, options: dict[str, Any] | None) -> np.ndarray:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if mask.shape != (self.num_envs,):
            raise ValueError("reset_mask")
        return mask

    def seeds(self, seed: Any) -> list[Any]:
        if isinstance(seed, list):
            if len(seed) != self.num_envs:
                raise ValueError("seed")
            return seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self, *, seed=None, options=None):
        mask, seeds = self.mask(options), self.seeds(seed)
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask):
            self.last[i], info = self.envs[i].reset(seed=seeds[i])
            infos = self._add_info(infos, info, i)
        self.ended = self.ended & ~mask
        return self.batch(), infos

    def step(self, actions):
        n = self.num_envs
        rewards, terminations, truncations = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
        infos: dict[str, Any] = {}
        for i, action in enumerate(iterate(self.action_space, actions)):
            if self.ended[i] and self.mode == NEXT:
                self.last[i], info = self.envs[i].reset()
            else:
                assert not self.ended[i], "reset it first"
                self.last[i], rewards[i], terminations[i], truncations[i], info = self.envs[i].step(
                    action
                )
                if self.mode == SAME and (terminations[i] or truncations[i]):
                    final = {"final_obs": self.last[i], "final_info": info}
                    infos = self._add_info(infos, final, i)
                    self.last[i], info = self.envs[i].reset()
            infos = self._add_info(infos, info, i)
        self.ended = (terminations | truncations) & (self.mode != SAME)
        return self.batch(), rewards, terminations, truncations, infos


def check(cls: Any, mode: AutoresetMode = NEXT, n: int = 3, **arguments: Any) -> Any:
    arguments.setdefault("make_vector", lambda num_envs: cls(num_envs, mode))
    arguments.setdefault("make_single", TinyEnv)
    return check_vector_env(cls(n, mode), **arguments)


@pytest.fixture
def tiny_id():
    """TinyEnv registered with and without a native vector environment: ids by kind."""
    gym.register("TinySync-v0", TinyEnv)
    gym.register("TinyNative-v0", TinyEnv, vector_entry_point=TinyVectorEnv)
    yield {"sync": "TinySync-v0", "native": "TinyNative-v0"}
    gym.registry.pop("TinySync-v0")
    gym.registry.pop("TinyNative-v0")


# what passes ------------------------------------------------------------------------------------
def skipped_by_mode(mode: AutoresetMode) -> set[str]:
    return set() if mode == DISABLED else {"reset mask", "reset options"}


@BY_MODE
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_lawful_native_environment_passes_every_check(mode, n):
    report = check(TinyVectorEnv, mode, n)
    assert [result.name for result in report.results] == list(CHECKS)
    alone = {"permutation", "neighbours"} | ({"reset options"} if mode == DISABLED else set())
    assert set(report.skipped) == skipped_by_mode(mode) | (alone if n == 1 else set())


@BY_MODE
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_partners_are_built_from_the_spec(mode, kind, tiny_id):
    kwargs = {"vector_kwargs": {"autoreset_mode": mode}} if kind == "sync" else {}
    if kind == "native":
        kwargs["autoreset_mode"] = mode
    envs = gym.make_vec(tiny_id[kind], num_envs=3, **kwargs)
    report = check_vector_env(envs)
    gymnasium_pops = {"reset options"} if kind == "sync" and mode == DISABLED else set()
    assert set(report.skipped) == skipped_by_mode(mode) | {"time limit"} | gymnasium_pops
    if gymnasium_pops:
        assert "pop reset_mask from the caller's dict" in report.skipped["reset options"]


@BY_MODE
def test_cartpole_passes_with_a_time_limit_taken_from_the_call(mode):
    envs = gym.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        max_episode_steps=10,
    )
    report = check_vector_env(envs)
    assert {"time limit", "num_envs", "single against vector"} <= set(report.passed)
    envs.close()


def test_without_a_spec_the_report_says_what_was_skipped_and_why():
    envs = SyncVectorEnv([TinyEnv] * 3)
    report = check_vector_env(envs)
    assert report.skipped["num_envs"] == "envs.spec is None; pass make_vector="
    assert report.skipped["single against vector"] == "envs.spec is None; pass make_single="
    assert "skipped  num_envs: envs.spec is None" in str(report)
    assert "passed   permutation" in str(report)


def test_a_wrapped_environment_is_not_compared_with_unwrapped_ones():
    def wrapped(n: int) -> VectorEnv:
        return ClipReward(SyncVectorEnv([TinyEnv] * n), 0, 0.5)

    assert "wrapper ClipReward" in check_vector_env(wrapped(2)).skipped["num_envs"]
    assert "num_envs" in check_vector_env(wrapped(2), make_vector=wrapped).passed


def test_episodes_that_never_end_are_reported():
    class Endless(TinyEnv):
        def step(self, action):
            observation, reward, _, _, _ = super().step(action)
            self.steps = 0
            return {**observation, "position": np.zeros(2, np.float32)}, reward, False, False, {}

    report = check_vector_env(SyncVectorEnv([Endless] * 2), make_single=Endless)
    assert report.skipped["new episode"] == "no episode ended in 200 random steps"


def test_nondeterministic_environments_are_excused():
    class Loud(TinyVectorEnv):
        spec = EnvSpec("Loud-v0", nondeterministic=True)

        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            noise = np.random.default_rng().normal(size=self.num_envs)
            return observations, np.where(rewards == 0, 0, noise), *rest

    report = check(Loud)
    assert report.skipped["repeat"] == "Loud-v0 is registered as nondeterministic"


def test_atol_forgives_floats_across_batch_sizes_and_nothing_else():
    def nudged(by: float) -> type[TinyVectorEnv]:
        class Nudged(TinyVectorEnv):
            def step(self, actions):
                observations, rewards, *rest = super().step(actions)
                return observations, np.where(rewards == 0, 0, rewards + by * self.num_envs), *rest

        return Nudged

    check(nudged(1e-7), atol=1e-6)
    with pytest.raises(VectorEnvError, match="pass atol="):
        check(nudged(1e-7))
    with pytest.raises(VectorEnvError):
        check(nudged(1e-3), atol=1e-6)


def test_the_environment_and_the_global_generators_are_left_as_found():
    envs = TinyVectorEnv(2)
    envs.action_space.seed(5)
    expected = copy.deepcopy(envs.action_space).sample()
    np.random.seed(3)
    random.seed(3)
    states = np.random.get_state()[1].copy(), random.getstate()
    check_vector_env(envs, make_vector=TinyVectorEnv, make_single=TinyEnv)
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(envs.action_space.sample(), expected)
    assert not envs.closed
    envs.step(expected)  # freshly reset, so no slot has ended


def test_every_partner_is_closed_also_when_a_check_fails():
    opened: list[Any] = []

    class Counted(TinyVectorEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, rewards / self.num_envs, *rest

    def make_vector(n: int) -> VectorEnv:
        opened.append(Counted(n))
        return opened[-1]

    class Single(TinyEnv):
        def __init__(self):
            self.closed = False
            opened.append(self)

        def close(self):
            self.closed = True

    with pytest.raises(VectorEnvError):
        check_vector_env(Counted(3), make_vector=make_vector, make_single=Single)
    check_vector_env(TinyVectorEnv(2), make_single=Single)
    assert len(opened) > 3 and all(env.closed for env in opened)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (TinyEnv, TypeError, "use gymnasium.utils.env_checker.check_env"),
        (lambda: 3, TypeError, "wants a VectorEnv, not int"),
    ],
)
def test_something_else_than_a_vector_environment_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        check_vector_env(make())


def test_wrong_use_is_refused():
    closed = TinyVectorEnv(2)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        check_vector_env(closed)
    with pytest.raises(ValueError, match="atol must be >= 0"):
        check_vector_env(TinyVectorEnv(2), atol=-1)
    with pytest.raises(ValueError, match="2 slots instead of 3"):
        check_vector_env(TinyVectorEnv(3), make_vector=lambda n: TinyVectorEnv(2))
    with pytest.raises(ValueError, match="SAME_STEP"):
        check_vector_env(TinyVectorEnv(3), make_vector=lambda n: TinyVectorEnv(n, SAME))


# gymnasium's own environments that break a law --------------------------------------------------
def test_gymnasiums_native_cartpole_has_one_generator_for_all_slots():
    envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    with pytest.raises(VectorEnvError, match="slots share one generator") as caught:
        check_vector_env(envs)
    assert caught.value.check == "seed per slot"


def test_sync_vector_env_without_copies_reuses_its_buffer():
    with pytest.raises(VectorEnvError, match="copy=True") as caught:
        check_vector_env(SyncVectorEnv([TinyEnv] * 3, copy=False))
    assert caught.value.check == "returns stay"


def test_gymnasiums_batched_infos_cut_floats_where_the_first_slot_has_an_int():
    """FrozenLake's `prob` is the int 1 after a reset, so the others' 1/3 becomes 0."""
    envs = gym.make_vec("FrozenLake-v1", num_envs=3, vectorization_mode="sync")
    with pytest.raises(VectorEnvError, match=r"info\['prob'\] is 0, not 0.33") as caught:
        check_vector_env(envs)
    assert "VectorEnv._add_info" in caught.value.cause


def test_infos_as_a_list_are_refused():
    envs = DictInfoToList(SyncVectorEnv([TinyEnv] * 2))
    with pytest.raises(VectorEnvError, match=r"infos of reset\(\) to be a dict"):
        check_vector_env(envs)


# mutants ----------------------------------------------------------------------------------------
MUTANTS: list[Any] = []


def mutant(check_name: str, message: str, modes: Any = MODES, **arguments: Any) -> Any:
    """Registers a class that must fail `check_name` with `message` in each of `modes`."""

    def register(cls: type) -> type:
        for mode in modes:
            name = f"{check_name}-{cls.__name__}-{mode.name}"
            MUTANTS.append(pytest.param(cls, mode, check_name, message, arguments, id=name))
        return cls

    return register


def stepping(change: Any) -> Any:
    """A method `step` that passes the right results through `change(self, results, actions)`."""

    def step(self: Any, actions: Any) -> Any:
        observations, rewards, terminations, truncations, infos = TinyVectorEnv.step(self, actions)
        names = ("observations", "rewards", "terminations", "truncations", "infos")
        results = dict(
            zip(names, (observations, rewards, terminations, truncations, infos), strict=True)
        )
        change(self, results, actions)
        return tuple(results[name] for name in names)

    return step


def mutant_step(check_name: str, message: str, modes: Any = MODES, **arguments: Any) -> Any:
    """Registers the mutant whose steps go through the decorated function."""

    def register(change: Any) -> Any:
        cls = type(change.__name__, (TinyVectorEnv,), {"step": stepping(change)})
        mutant(check_name, message, modes, **arguments)(cls)
        return change

    return register


@mutant("spaces", r"observation_space == batch_space\(single_observation_space, 3\)")
class WrongBatchSpace(TinyVectorEnv):
    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.observation_space = batch_space(self.single_observation_space, num_envs + 1)


@mutant("spaces", "action_space to be a gymnasium Space", [NEXT])
class NoActionSpace(TinyVectorEnv):
    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.action_space = None


@mutant("autoreset mode", "AutoresetMode")
class ModeAsText(TinyVectorEnv):
    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.metadata = {"autoreset_mode": mode.value}


@mutant("reset and step", r"observations\['position'\] has shape \(3, 2\) and dtype float64")
class DoubleObservation(TinyVectorEnv):
    def batch(self):
        batch = super().batch()
        return {**batch, "position": batch["position"].astype(np.float64)}


@mutant_step("reset and step", "lies outside", [NEXT])
def observation_out_of_bounds(self, results, actions):
    results["observations"]["position"][1] = 101


@mutant_step("reset and step", r"observations has \[.*\], not a dict with the keys", [NEXT])
def observation_key_missing(self, results, actions):
    del results["observations"]["picture"]


@mutant_step("reset and step", "rewards to be a float array", [NEXT])
def integer_rewards(self, results, actions):
    results["rewards"] = results["rewards"].astype(int)


@mutant_step("reset and step", r"slot 2\).*\n.*finite", [NEXT])
def infinite_reward(self, results, actions):
    results["rewards"][2] = np.inf


@mutant_step("reset and step", r"truncations to be a bool array of shape \(3,\)")
def integer_flags(self, results, actions):
    results["truncations"] = results["truncations"].astype(np.int8)


@mutant_step("reset and step", "terminations to be a bool array.*\n.*a list", [NEXT])
def flags_in_a_list(self, results, actions):
    results["terminations"] = results["terminations"].tolist()


@mutant_step("infos", "a mask '_score' beside", [NEXT, SAME])
def info_without_mask(self, results, actions):
    results["infos"]["score"] = np.zeros(self.num_envs)


@mutant_step("infos", r"\['_wind'\] to be a bool mask of shape \(3,\)", [NEXT, SAME])
def integer_mask(self, results, actions):
    if "_wind" in results["infos"]:
        results["infos"]["_wind"] = results["infos"]["_wind"].astype(int)


@mutant_step("infos", r"\['wind'\] to be an array of length 3", [NEXT])
def info_of_ended_slots_only(self, results, actions):
    if "wind" in results["infos"]:
        results["infos"]["wind"] = results["infos"]["wind"][1:]


@mutant_step("infos", r"\['nested'\]\['_steps'\] to be a bool mask", [NEXT])
def nested_mask_too_short(self, results, actions):
    nested = results["infos"].get("nested", {})
    if "_steps" in nested:
        nested["_steps"] = nested["_steps"][1:]


@mutant("global generators", "changed: numpy.random")
class GlobalNumpy(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        np.random.uniform()
        return super().reset(seed=seed, options=options)


@mutant_step("global generators", r"changed: random\n")
def global_random(self, results, actions):
    results["rewards"][0] += random.random()


@mutant("global generators", "whatever the global seeds")
class SeededFromGlobalState(TinyVectorEnv):
    def seeds(self, seed):
        offset = int(np.random.get_state()[1][0])
        return [s if s is None else s + offset for s in super().seeds(seed)]


@mutant("actions stay", "actions is 0, not|actions.*is 0, not", [NEXT, SAME])
class ClipsActions(TinyVectorEnv):
    def step(self, actions):
        actions[0] = 0
        return super().step(actions)


@mutant("returns stay", "a buffer is reused")
class OneBuffer(TinyVectorEnv):
    def batch(self):
        if not hasattr(self, "buffer"):
            self.buffer = super().batch()["position"]
        batch = super().batch()
        self.buffer[:] = batch["position"]
        return {**batch, "position": self.buffer}


@mutant_step("returns stay", r"'infos'\]")
def one_dict_of_infos(self, results, actions):
    self.infos = getattr(self, "infos", {})
    self.infos.clear()
    self.infos.update(results["infos"])
    results["infos"] = self.infos


@mutant_step("returns stay", r"'rewards'\]")
def one_array_of_rewards(self, results, actions):
    self.rewards = getattr(self, "rewards", np.zeros(self.num_envs))
    self.rewards[:] = results["rewards"]
    results["rewards"] = self.rewards


@mutant_step("repeat", "identical")
def unseeded_noise(self, results, actions):
    noise = np.random.default_rng().normal(size=self.num_envs)
    results["rewards"] = np.where(results["rewards"] == 0, 0, noise)


@mutant_step("repeat", "a clock in infos", [NEXT])
def clock_in_infos(self, results, actions):
    results["infos"]["time"] = np.full(self.num_envs, time.perf_counter_ns())
    results["infos"]["_time"] = np.ones(self.num_envs, bool)


@mutant("reset forgets", "in the middle of other episodes")
class CountsWithinEpisode(TinyVectorEnv):
    """Reports the number of steps since the last reset of all slots in the one after it."""

    def reset(self, *, seed=None, options=None):
        whole = not options
        observations, infos = super().reset(seed=seed, options=options)
        if whole:
            infos["before"] = np.full(self.num_envs, min(3, getattr(self, "taken", 3)))
            infos["_before"] = np.ones(self.num_envs, bool)
            self.taken = 0
        return observations, infos

    def step(self, actions):
        self.taken += 1
        return super().step(actions)


@mutant("reset forgets", "leaves a step counter, a done flag", [NEXT])
class StaleDoneFlags(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        ended = self.ended
        observations, infos = super().reset(seed=seed, options=options)
        self.ended = ended
        return observations, infos


class _CountingOnEnv(TinyEnv):
    def reset(self, *, seed=None, options=None):
        steps = getattr(self, "steps", 0)
        results = super().reset(seed=seed, options=options)
        self.steps = steps % LIMIT
        return results


@mutant("reset forgets", "leaves a step counter")
class CountsOn(TinyVectorEnv):
    make_env = _CountingOnEnv


@mutant("repeat", "or reset.. leaves a step counter", [NEXT], make_vector=None)
class CountsOnAlone(TinyVectorEnv):
    make_env = _CountingOnEnv
    spec = None


@mutant("fresh partner", "newly built environment")
class CountsInstances(TinyVectorEnv):
    made: ClassVar[Counter[str]] = Counter()

    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.made["all"] += 1
        self.number = self.made["all"]

    def seeds(self, seed):
        return [s if s is None else s + 10000 * self.number for s in super().seeds(seed)]


@mutant("seed per slot", r"reset\(seed=123\) to equal reset\(seed=\[123, 124, 125\]\)")
class SameSeedInEverySlot(TinyVectorEnv):
    def seeds(self, seed):
        return [seed] * self.num_envs if isinstance(seed, int) else super().seeds(seed)


@mutant("seed per slot", r"reset\(seed=\[123, 124, 125\]\) to be accepted")
class NoSeedLists(TinyVectorEnv):
    def seeds(self, seed):
        if isinstance(seed, list):
            raise TypeError("seed must be an int")
        return super().seeds(seed)


@mutant("generator goes on", "makes a new generator", [NEXT, SAME])
class NewGeneratorAtReset(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        if seed is None:
            seed = int(np.random.default_rng().integers(1 << 30))
        return super().reset(seed=seed, options=options)


@mutant("generator goes on", "the seed is kept")
class AppliesSeedAgain(TinyVectorEnv):
    kept = 0

    def reset(self, *, seed=None, options=None):
        if seed is None and not options:
            seed = self.kept
        elif isinstance(seed, int):
            self.kept = seed
        return super().reset(seed=seed, options=options)


class _ForgetfulEnv(TinyEnv):
    first: int | None = None
    manual = False

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.first = seed
        again = seed is None and self.first is not None and not self.manual
        return super().reset(seed=self.first if again else seed)


@mutant("generator goes on", "episodes after the first ones", [NEXT, SAME])
class AutoresetReplaysFirstEpisode(TinyVectorEnv):
    make_env = _ForgetfulEnv

    def reset(self, *, seed=None, options=None):
        for env in self.envs:
            env.manual = True
        results = super().reset(seed=seed, options=options)
        for env in self.envs:
            env.manual = False
        return results


@mutant("returns are the caller's", "hand out copies")
class ReturnsItsState(TinyVectorEnv):
    def batch(self):
        batch = super().batch()
        self.state = batch["position"], batch["position"].copy()
        return batch

    def step(self, actions):
        if not np.array_equal(*self.state):
            for env in self.envs:
                env.position = env.position + 0.1
        return super().step(actions)


@mutant("returns are the caller's", "or the action array", [NEXT])
class KeepsActions(TinyVectorEnv):
    actions: Any = None

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        if self.actions is not None and (self.actions < 0).any():
            rewards = rewards * 2
        self.actions = actions
        return observations, rewards, *rest


@mutant("reset mask", "reset_mask is ignored", [DISABLED])
class MaskResetsEverything(TinyVectorEnv):
    def mask(self, options):
        return np.ones_like(super().mask(options))


@mutant("reset mask", "read the wrong way round", [DISABLED])
class MaskUpsideDown(TinyVectorEnv):
    def mask(self, options):
        mask = super().mask(options)
        return ~mask if options else mask


@mutant("reset mask", "or the slot was not reset at all", [DISABLED])
class MaskResetsNothing(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        if options:
            for i in np.flatnonzero(self.mask(options)):
                self.envs[i].steps = 0  # but stays where it is
            self.ended[:] = False
            return self.batch(), {}
        return super().reset(seed=seed, options=options)


@mutant("reset mask", "touches the state or the generator of other slots", [DISABLED])
class MaskDisturbsOthers(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        for i in np.flatnonzero(~self.mask(options)):
            self.envs[i].np_random.normal()
        return super().reset(seed=seed, options=options)


@mutant("reset mask", "drops the seed", [DISABLED])
class MaskDropsSeed(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None if options else seed, options=options)


@mutant("reset options", "pops reset_mask from the caller's dict", [DISABLED])
class PopsMask(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        results = super().reset(seed=seed, options=options)
        if options:
            options.pop("reset_mask", None)
        return results


class _Declares(TinyVectorEnv):
    """Behaves as one mode and declares another."""

    behaves = SAME

    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.mode = self.behaves


@mutant("autoreset step", "declare SAME_STEP", [NEXT])
class SameStepDeclaredAsNextStep(_Declares):
    pass


@mutant("autoreset step", "action in the step after an episode's end to be ignored", [NEXT])
class SameStepDeclaredAsNextStepWithoutRewards(_Declares):
    step = stepping(lambda self, results, actions: results["rewards"].fill(0))


@mutant("autoreset step", "no final_obs under AutoresetMode.DISABLED", [DISABLED])
class SameStepDeclaredAsDisabled(_Declares):
    pass


@mutant("autoreset step", "declare NEXT_STEP", [SAME])
class NextStepDeclaredAsSameStep(_Declares):
    behaves = NEXT


@mutant_step("autoreset step", r"infos\['final_info'\] for exactly the slots that ended", [SAME])
def no_final_info(self, results, actions):
    results["infos"].pop("final_info", None)
    results["infos"].pop("_final_info", None)


@mutant_step("autoreset step", r"infos\['final_obs'\] for exactly.*\n.*mask \[ True", [SAME])
def final_mask_everywhere(self, results, actions):
    if "_final_obs" in results["infos"]:
        results["infos"]["_final_obs"][:] = True


@mutant_step("autoreset step", r"final_obs\[\d\] in single_observation_space", [SAME])
def final_obs_of_another_dtype(self, results, actions):
    for final in results["infos"].get("final_obs", []):
        if final is not None:
            final["position"] = final["position"].astype(np.float64)


@mutant_step("permutation", "reverse the results")
def reward_by_slot_number(self, results, actions):
    factors = 1 + np.arange(self.num_envs) / 10
    results["rewards"] = results["rewards"] * factors


@mutant_step("permutation", "another slot's state", [NEXT])
def neighbours_picture(self, results, actions):
    rolled = np.roll(results["observations"]["picture"], 1, axis=0)
    results["observations"]["picture"] = rolled


@mutant_step("reset mask", "or a slot reads another's state", [DISABLED])
@mutant_step("neighbours", r"slot 0 to play the same when .* all others change", [NEXT, SAME])
def reward_relative_to_best(self, results, actions):
    best = results["observations"]["position"].max()
    results["rewards"] = np.where(results["rewards"] == 0, 0, results["rewards"] - best)


@mutant_step("num_envs", "the same episodes with num_envs=1 as with num_envs=3")
def reward_divided_by_batch(self, results, actions):
    results["rewards"] = results["rewards"] / self.num_envs


class _LateEnv(TinyEnv):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.steps == LIMIT + 2, info


@mutant("time limit", f"truncation at step {LIMIT}")
class LimitIgnored(TinyVectorEnv):
    make_env = _LateEnv


class _HastyEnv(TinyEnv):
    """Counts the reset of every episode but the first as a step."""

    later = False

    def reset(self, *, seed=None, options=None):
        self.later = seed is None
        return super().reset(seed=seed, options=options)

    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.steps + self.later == LIMIT, info


@mutant("time limit", "step counter is not cleared by the automatic reset")
class LaterEpisodesAreShort(TinyVectorEnv):
    make_env = _HastyEnv


def final_obs_after_reset(self, results, actions):
    for i in np.flatnonzero(results["infos"].get("_final_obs", False)):
        results["infos"]["final_obs"][i] = copy.deepcopy(self.last[i])


FinalIsNext = type("FinalIsNext", (TinyVectorEnv,), {"step": stepping(final_obs_after_reset)})
mutant("new episode", "in all .* ends it equals the new episode's first", [SAME])(FinalIsNext)
mutant("new episode", "taken after the reset", [SAME], make_single=None)(FinalIsNext)


@mutant_step("new episode", "last observation of the ended episode", [SAME])
def final_picture_of_next_episode(self, results, actions):
    for i in np.flatnonzero(results["infos"].get("_final_obs", False)):
        results["infos"]["final_obs"][i]["picture"] = self.last[i]["picture"].copy()


class _LastPictureEnv(TinyEnv):
    """Draws the first observation of a later episode before the picture is replaced."""

    picture = np.zeros((2, 2, 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        old = self.picture
        observation, info = super().reset(seed=seed, options=options)
        stale = seed is None and self.steps_before > 1
        return ({**observation, "picture": old.copy()} if stale else observation), info

    steps_before = 0

    def step(self, action):
        results = super().step(action)
        self.steps_before = self.steps
        return results


@mutant("new episode", "first one around an episode's end", MODES)
class StaleFirstPicture(TinyVectorEnv):
    make_env = _LastPictureEnv


@mutant("new episode", "to start as reset", [NEXT], make_single=None)
class AutoresetDrawsFromElsewhere(TinyVectorEnv):
    def step(self, actions):
        for i in np.flatnonzero(self.ended):
            self.envs[i].np_random.normal()
        return super().step(actions)


@mutant_step("single against vector", "reward is 0.2, not 0.1|reward is [24].2, not [12].1")
def doubled_reward(self, results, actions):
    results["rewards"] *= 2


@mutant_step("single against vector", "info has keys", [NEXT, SAME])
def mask_that_hides_a_slot(self, results, actions):
    if "_wind" in results["infos"]:
        results["infos"]["_wind"][:] = False


@mutant("single against vector", "single_action_space equal to", [NEXT])
class OtherActions(TinyVectorEnv):
    single_action_space = spaces.Discrete(2)


@mutant("bad input", r"reset\(seed=\[123, 124, 125, 126\]\) to raise with num_envs=3")
class AnySeeds(TinyVectorEnv):
    def seeds(self, seed):
        return super().seeds([*seed, *seed][: self.num_envs] if isinstance(seed, list) else seed)


@mutant("bad input", "reset_mask", [DISABLED])
class AnyMask(TinyVectorEnv):
    def mask(self, options):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        return np.resize(mask, self.num_envs)


@mutant("close twice", "a second close.. to be harmless")
class ClosesOnce(TinyVectorEnv):
    def close(self, **kwargs):
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


@mutant_step("reset and step", "KeyError: 'nothing'", [NEXT])
def step_raises(self, results, actions):
    results["nothing"]


@pytest.mark.parametrize(("cls", "mode", "check_name", "message", "arguments"), MUTANTS)
def test_a_mutant_fails_the_check_that_its_defect_belongs_to(
    cls, mode, check_name, message, arguments
):
    with pytest.raises(VectorEnvError, match=message) as caught:
        check(cls, mode, **arguments)
    assert caught.value.check == check_name
    assert f"check '{check_name}' failed" in str(caught.value)


def test_every_check_has_a_mutant():
    assert {param.values[2] for param in MUTANTS} == set(CHECKS)
