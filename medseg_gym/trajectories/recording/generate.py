"""Fill a store with a policy's episodes: in parallel, resumable, the same however it is cut up.

Cases go in batches of `num_envs`, always the same ones together, and every episode's randomness
comes from (seed, case, rollout) alone. So an episode is the same whichever worker plays it and
however often the run was killed: a batch of which anything is missing is played again, and what the
store has of it already is not recorded twice. Workers send finished batches back, and only the
program that shares them out writes: they may be on hosts that do not see the store.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from medseg_gym.parallel import make_crew, share_out
from medseg_gym.trajectories.options import GenerateOptions
from medseg_gym.trajectories.recording.episode_player import EpisodePlayer
from medseg_gym.trajectories.recording.episode_work import EpisodeWork
from medseg_gym.trajectories.store.folder import make_folder
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.recovery import recover
from medseg_gym.trajectories.store.writer import TrajectoryWriter


def generate_episodes(
    path: str | Path,
    options: GenerateOptions,
    on_start: Callable[[int, int], None] | None = None,
    on_episodes: Callable[[int], None] | None = None,
) -> TrajectoryStore:
    """Play what is not in the store yet.

    Args:
        path: Folder of the store; made if it is not there.
        options: What is played.
        on_start: Called with the number of episodes wanted and that found in the store.
        on_episodes: Called with the number of new episodes, batch by batch.

    Returns:
        The store.

    Raises:
        TrajectoryError: The store holds these keys from a run with other settings; or cases killed
            every worker that played them: all others are in the store then.
        MedSegError: Cases, annotator or backbone cannot be used, or there is no such cluster.
    """
    path = Path(path)
    keys = options.keys()
    make_folder(path)
    recover(path)
    work = EpisodeWork(TrajectoryStore(path), options, keys, on_episodes or (lambda count: None))
    if on_start:
        on_start(len(keys) * options.rollouts, work.count_known)
    texts = [v for v in options.to_mapping().values() if isinstance(v, str)]
    make = partial(EpisodePlayer, options)
    with TrajectoryWriter(path) as work.writer:
        share_out(make_crew(make, options, work.count, options.device, texts), work)
    work.finish()
    return TrajectoryStore(path)
