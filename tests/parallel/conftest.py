"""A local Ray cluster, and the crews."""

from __future__ import annotations

import logging

import pytest

from medseg_gym.parallel import WorkerOptions, make_crew


@pytest.fixture(scope="package")
def ray_cluster():
    """Three logical cores."""
    ray = pytest.importorskip("ray")
    ray.shutdown()  # of a test before, for one process may run several packages
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


@pytest.fixture(params=["processes", "ray"])
def crew(request, ray_cluster):
    """Makes a crew of two: processes, or actors."""
    options = WorkerOptions(workers=2, ray="local" if request.param == "ray" else None)

    def build(make, jobs=100):
        return make_crew(make, options, jobs)

    return build
