"""Misread reset masks."""

from __future__ import annotations

import numpy as np
from tiny_env import DISABLED, TinyVectorEnv

from mutants.registry import mutant


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
