"""The waiting of OpenMP's threads, which decides what a busy neighbour costs.

Threads that have nothing to do spin by default, in wait of the next parallel loop. Where another
process wants the same cores they hold it up, and it them. Asleep at once they cost nobody anything,
but the next loop must wake them. In between they spin for some microseconds, then sleep.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

VARIABLE = "OMP_WAIT_POLICY"
SPINS = "GOMP_SPINCOUNT"  # of GNU's OpenMP, which torch's packages for Linux carry
WAITS = {
    "active": {VARIABLE: "ACTIVE"},
    "passive": {VARIABLE: "PASSIVE", SPINS: "0"},
    "brief": {VARIABLE: "PASSIVE", SPINS: "1000"},
}
"""Variables by how threads wait: spinning, asleep, or asleep after some 20 microseconds."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon while they wait, also in processes started from here.

    It must be called before torch is imported, which is when OpenMP reads it; the command line does
    so. Nothing changes where the user has set one of the variables.

    Args:
        environment: Of the process.
    """
    if not {VARIABLE, SPINS} & set(environment):
        environment.update(WAITS["brief"])


def environment_waiting(wait: str, of: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment in which threads wait in one way, whatever it said before.

    Args:
        wait: Of `WAITS`.
        of: The environment.
    """
    return {k: v for k, v in of.items() if k not in (VARIABLE, SPINS)} | WAITS[wait]
