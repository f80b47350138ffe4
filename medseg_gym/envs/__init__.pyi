from .chat import MedSegChatEnv as MedSegChatEnv
from .chat_options import ChatOptions as ChatOptions
from .chat_vector import MedSegChatVectorEnv as MedSegChatVectorEnv
from .medseg import MedSegEnv as MedSegEnv
from .medseg_vector import MedSegVectorEnv as MedSegVectorEnv
from .options import EnvOptions as EnvOptions
