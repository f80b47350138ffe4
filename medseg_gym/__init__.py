"""Interactive medical image segmentation as gymnasium environments.

Importing registers the ids, and imports neither torch nor gymnasium. The public names `Case`,
`CaseSource`, `load_cases` and `check_vector_env` are imported when they are first used. Not for
clinical use.
"""

import lazy_loader as _lazy_loader

from medseg_gym.registration import register_ids as _register_ids

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

_register_ids()
