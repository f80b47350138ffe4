"""Bad input that is accepted, and a close that cannot be repeated."""

from __future__ import annotations

import numpy as np
from tiny_env import DISABLED, TinyVectorEnv

from mutants.registry import mutant


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
