"""Imitation of an annotator on the states that the network itself comes into.

Dataset aggregation (DAgger, Ross, Gordon and Bagnell 2011, arXiv 1011.0686): the network plays, an
annotator that sees the truth says what it would do in every state that comes up, and the network is
fitted to all of that. A clone of stored trajectories knows only states that follow from an expert's
own steps; here the network also learns how to go on after its own mistakes. `train_dagger` is what
`medseg train dagger` runs.
"""

import lazy_loader

# Late, so that the command line starts without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
