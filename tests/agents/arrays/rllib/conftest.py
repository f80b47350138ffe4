"""A local Ray of this process's own."""

from __future__ import annotations

import logging

import medseg_agents.arrays.rllib.ppo  # noqa: F401  (sets what Ray reads when it is imported)
import pytest


@pytest.fixture(scope="package")
def ray_cluster():
    """Four logical cores, so that remote runners start on any machine."""
    import ray

    ray.shutdown()  # of a test before, for one process may run several packages
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()
