"""Environments on volumes: slices in view, prompts on slices, propagation."""

import lazy_loader

# Late, because they import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
