"""The wait policy of OpenMP's threads, which decides what a busy neighbour costs.

Threads that have nothing to do spin by default, in wait of the next parallel loop. Where another
process wants the same cores they hold it up, and it them. Asked to be passive they sleep instead.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLE = "OMP_WAIT_POLICY"


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait, in this process and in those that it starts.

    It must be called before torch is imported, which is when OpenMP reads it; the command line does
    so. What the user has set stays.

    Args:
        environment: Of the process.
    """
    environment.setdefault(VARIABLE, "PASSIVE")
