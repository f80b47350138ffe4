"""Policies by their spec: trained networks, language models, baselines and controls.

`make("sb3:RUN?sampled=1")` gives a `PolicySpec`, `names()` the kinds, `register(kind, factory)`
adds one, and `split` divides a list of specs.
"""

from medseg_agents.policies.registry import make, names, register, split
from medseg_agents.policies.specs import PolicySpec

__all__ = ["PolicySpec", "make", "names", "register", "split"]
