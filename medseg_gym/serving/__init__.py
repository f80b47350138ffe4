"""One batched segmenter as a service for many rollout workers and other programs.

`medseg serve` runs it. A `Service` puts a micro-batcher (`Segmenter`) and sessions, each an
`Episode` of the suite, behind HTTP: MedSAM-Agent's routes for existing clients, `/v1/...` for
`backbones.load("http:URL")`. Needs the extra `serve`; nothing else in the package imports it.
"""

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits

__all__ = ["Limits", "ServiceError"]
