"""Cases shared out to workers: this process, processes of this machine, or actors on a Ray cluster.

`share_out` is the one loop: it deals jobs (batches of cases) to idle workers, takes results one at
a time, and deals the job of a worker that died again. Crews differ only in how a worker is started
and spoken to: `Alone`, `Processes` and `RayActors`. Only the program that shares out writes files,
so that what a run leaves depends neither on the crew nor on where it was interrupted.
"""

from medseg_gym.parallel.crews import make_crew
from medseg_gym.parallel.options import WorkerOptions
from medseg_gym.parallel.sharing import Work, share_out
from medseg_gym.parallel.worker import Player

__all__ = ["Player", "Work", "WorkerOptions", "make_crew", "share_out"]
