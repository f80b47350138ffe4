from .algorithm import ChatAlgorithm as ChatAlgorithm
from .algorithm import ChatPPOConfig as ChatPPOConfig
from .algorithm import GRPOConfig as GRPOConfig
from .module import HFChatModule as HFChatModule
from .rollout.runner import ChatEnvRunner as ChatEnvRunner
from .train import train_chat as train_chat
