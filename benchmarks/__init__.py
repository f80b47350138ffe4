"""Benchmarks of quality and speed: programs that print a table and write JSON, CSV and PNG."""

import importlib.util

if importlib.util.find_spec("agents") is None or not importlib.util.find_spec(
    "medseg_agents.evaluation.evaluate"
):
    _found = importlib.util.find_spec("agents")
    raise ImportError(
        "the benchmarks need medseg-gym's own package `agents`, but "
        + (
            f"another package of that name comes first: {_found.origin}"
            if _found
            else "none is found"
        )
        + ". Run from the repository root, or in an environment without the other package"
    )
