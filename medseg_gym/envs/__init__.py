"""Gymnasium environments: episodes of one engine, seen as arrays or as conversations.

`MedSegEnv` and `MedSegVectorEnv` show arrays, `MedSegChatEnv` and `MedSegChatVectorEnv` show
conversations; `EnvOptions` and `ChatOptions` are their arguments. All are made of an
`EnvCore` (core.py), seen through one of the views.
"""

import lazy_loader

# Late, because they import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
