"""The environment under test, its partners, and the rollout that others are compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, VectorWrapper

from medseg_gym.testing.vector_checks.report import CheckSkipped, PartnerError
from medseg_gym.testing.vector_checks.rollout import ActionStream, Rollout, play

MakeVector = Callable[[int], VectorEnv]
MakeSingle = Callable[[], gym.Env]

SEED = 123
MAX_STEPS = 200  # random actions that have ended no episode by then are not likely to
ENDS_PER_SLOT = 2  # an episode after the seeded one is where counters and generators go wrong


class Subject:
    """A vector environment under test, with everything the checks share.

    Attributes:
        envs: The vector environment.
        atol: Tolerance for floats across batch sizes and against the single environment.
        mode: Its autoreset mode, set by the `autoreset mode` check.
        reference: Its rollout from `reset(seed=SEED)`, set by the `reset and step` check and again
            by `repeat`, which vouches for it.
    """

    mode: AutoresetMode
    reference: Rollout

    def __init__(
        self,
        envs: VectorEnv,
        make_vector: MakeVector | None = None,
        make_single: MakeSingle | None = None,
        atol: float = 0.0,
    ) -> None:
        self.envs = envs
        self.atol = atol
        self._make_vector = make_vector
        self._make_single = make_single
        self._streams: dict[int, ActionStream] = {}

    @property
    def num_envs(self) -> int:
        """Number of slots."""
        return self.envs.num_envs

    @property
    def seeds(self) -> list[int]:
        """The seeds of the reference's slots."""
        return [SEED + i for i in range(self.num_envs)]

    @property
    def sample_slots(self) -> list[int]:
        """First, middle and last slot: enough to look at one by one."""
        return sorted({0, self.num_envs // 2, self.num_envs - 1})

    def stream(self, lane: int) -> ActionStream:
        """The action stream that belongs to seed `lane`, whichever slot plays it."""
        if lane not in self._streams:
            self._streams[lane] = ActionStream(self.envs.single_action_space, lane)
        return self._streams[lane]

    def play(
        self,
        seed: int | list[int] | None = SEED,
        *,
        envs: VectorEnv | None = None,
        lanes: Sequence[int] | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> Rollout:
        """Plays from `reset(seed=seed)`, by default as long as the reference.

        Each slot's actions belong to its lane: by default its own seed.
        """
        envs = self.envs if envs is None else envs
        if lanes is None:
            first = SEED if seed is None else seed
            lanes = first if isinstance(first, list) else [first + i for i in range(envs.num_envs)]
        streams = [self.stream(lane) for lane in lanes]
        steps = self.reference.steps if steps is None else steps
        return play(envs, self.mode, streams, steps, seed=seed, **options)

    def need_determinism(self) -> None:
        """Skips the check where the spec says that seeds do not fix what happens."""
        spec = self.envs.spec
        if spec is not None and spec.nondeterministic:
            raise CheckSkipped(f"{spec.id} is registered as nondeterministic")

    def need_ends(self) -> None:
        """Skips the check where the reference saw no episode end."""
        if not self.reference.ends.any():
            raise CheckSkipped(f"no episode ended in {self.reference.steps} random steps")

    def need_slots(self) -> None:
        """Skips the check where there is a single slot."""
        if self.num_envs < 2:
            raise CheckSkipped("it needs num_envs >= 2")

    @contextmanager
    def partner(self, num_envs: int) -> Iterator[VectorEnv]:
        """A second vector environment with `num_envs` slots, closed on the way out.

        Raises:
            CheckSkipped: None was given and `envs.spec` does not suffice to build one.
        """
        if self._make_vector is not None:
            envs = self._make_vector(num_envs)
            problem = self._partner_problem(envs, num_envs)
            if problem is not None:
                envs.close()
                raise PartnerError(f"make_vector({num_envs}) built an environment with {problem}")
        else:
            envs = self._vector_from_spec(num_envs)
        try:
            yield envs
        finally:
            if not envs.closed:
                envs.close()

    def _partner_problem(self, envs: VectorEnv, num_envs: int) -> str | None:
        mode = envs.metadata.get("autoreset_mode")
        if mode != self.mode:
            return f"autoreset mode {mode} instead of {self.mode}"
        if envs.num_envs != num_envs:
            return f"{envs.num_envs} slots instead of {num_envs}"
        for name in ("single_observation_space", "single_action_space"):
            if getattr(envs, name) != getattr(self.envs, name):
                return f"another {name}"
        return None

    def _vector_from_spec(self, num_envs: int) -> VectorEnv:
        spec, kwargs = self._spec_and_kwargs("make_vector")
        kind = kwargs.pop("vectorization_mode", None)
        vector_kwargs = dict(kwargs.pop("vector_kwargs", {}))
        if kind is None:
            kind = "vector_entry_point" if spec.vector_entry_point is not None else "sync"
        if kind == "vector_entry_point":
            # the class may name its option otherwise, or know one mode only: ask second
            attempts = [kwargs, {**kwargs, "autoreset_mode": self.mode}]
        else:
            kind, attempts = "sync", [kwargs]
            known = ("observation_mode", "copy")  # what both Async- and SyncVectorEnv take
            vector_kwargs = {k: v for k, v in vector_kwargs.items() if k in known}
            if isinstance(self.envs.unwrapped, AsyncVectorEnv):
                vector_kwargs.pop("copy", None)
            vector_kwargs["autoreset_mode"] = self.mode
        problem = ""
        for attempt in attempts:
            try:
                envs = gym.make_vec(
                    copy.deepcopy(spec),
                    num_envs=num_envs,
                    vectorization_mode=kind,
                    vector_kwargs=vector_kwargs,
                    **attempt,
                )
            except Exception as error:
                problem = problem or f"{type(error).__name__}: {error}"
                continue
            mismatch = self._partner_problem(envs, num_envs)
            if mismatch is None:
                return envs
            envs.close()
            problem = str(mismatch)
        raise CheckSkipped(f"gym.make_vec from envs.spec gave {problem}; pass make_vector=")

    @contextmanager
    def single(self) -> Iterator[gym.Env]:
        """The single environment, closed on the way out.

        Raises:
            CheckSkipped: None was given and `envs.spec` does not suffice to build one.
        """
        env = self._single_from_spec() if self._make_single is None else self._make_single()
        try:
            yield env
        finally:
            env.close()

    def _single_from_spec(self) -> gym.Env:
        spec, kwargs = self._spec_and_kwargs("make_single")
        for name in ("vectorization_mode", "vector_kwargs"):
            kwargs.pop(name, None)
        wrappers = kwargs.pop("wrappers", ())
        kwargs.setdefault("disable_env_checker", True)
        try:
            try:
                env = gym.make(copy.deepcopy(spec), **kwargs)
            except Exception:
                if "autoreset_mode" not in kwargs:
                    raise
                kwargs.pop("autoreset_mode")  # concerns only the vector class
                env = gym.make(copy.deepcopy(spec), **kwargs)
            for wrapper in wrappers:
                env = wrapper(env)
        except Exception as error:
            raise CheckSkipped(
                f"gym.make from envs.spec gave {type(error).__name__}: {error}; pass make_single="
            ) from error
        return env

    def _spec_and_kwargs(self, argument: str) -> tuple[Any, dict[str, Any]]:
        """The spec emptied of kwargs, and these, as `make` and `make_vec` take them."""
        if isinstance(self.envs, VectorWrapper):
            wrapper = type(self.envs).__name__
            raise CheckSkipped(
                f"envs.spec does not tell of the wrapper {wrapper}; pass {argument}="
            )
        if self.envs.spec is None:
            raise CheckSkipped(f"envs.spec is None; pass {argument}=")
        spec = copy.deepcopy(self.envs.spec)
        kwargs, spec.kwargs = dict(spec.kwargs), {}
        kwargs.pop("num_envs", None)
        return spec, kwargs
