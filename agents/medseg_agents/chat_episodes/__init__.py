"""Chat episodes by id, for the runners of other libraries: verl, OpenEnv, `verifiers`.

`EpisodeWorker` plays any number of episodes of a chat environment on one segmenter, in one thread
that steps together what waits; `worker_of` makes one in a process for each choice of options.
"""

from medseg_agents.chat_episodes.shared_worker import worker_of
from medseg_agents.chat_episodes.worker import EpisodeWorker, Turn

__all__ = ["EpisodeWorker", "Turn", "worker_of"]
