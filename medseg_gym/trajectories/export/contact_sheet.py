"""Contact sheet of stored episodes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from medseg_gym.envs.contact_sheet import contact_sheet
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.replaying.rebuild import AnyCases, StoredCases
from medseg_gym.trajectories.replaying.volumes import rebuild_found
from medseg_gym.trajectories.store.reader import TrajectoryStore


def show_store(
    store: TrajectoryStore,
    path: str | Path,
    count: int = 8,
    cases: AnyCases = None,
) -> Path:
    """Draw episodes, a row each: image, truth, and the mask after every step.

    Of a volume, every step shows the slice in view; see `envs.contact_sheet.contact_sheet`.

    Args:
        store: To read.
        path: Of the PNG.
        count: How many, spread evenly over the store.
        cases: See `StoredCases`.

    Raises:
        TrajectoryError: The store has no finished episode, or cases are not at hand.
    """
    if not len(store):
        raise TrajectoryError(f"{store.path} has no finished episode to show")
    if count < 1:
        raise TrajectoryError(f"count must be at least 1, got {count}")
    keys = store.keys()
    where, rows = StoredCases(cases), []
    for key in islice(keys[:: max(1, len(keys) // count)], count):
        one = store.episode(key)
        verdict = {None: "", True: " accepted", False: " filtered"}[one.accepted]
        label = f"{one.facts.policy or 'unknown policy'}{verdict}"
        rows.append((label, rebuild_found(one, where)))
    path = Path(path)
    try:
        return contact_sheet(rows, path)
    except (OSError, ValueError) as error:
        raise TrajectoryError(f"{path} cannot be written: {error}") from None
