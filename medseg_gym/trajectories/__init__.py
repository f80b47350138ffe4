"""Trajectories: episodes recorded step by step, replayed, re-scored, shown and exported.

`Recorder` and `VectorRecorder` write every step of an environment into a store on disk,
`TrajectoryStore` reads it back, and `generate_episodes` fills one with a policy's episodes.
docs/how-to/trajectories.md describes the format. Needs the extra "trajectories" (pyarrow).
"""

import lazy_loader

# Reading a store needs no torch and the command line must start without pyarrow: import late.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
