from .config import RLlibPPOConfig as RLlibPPOConfig
from .module import PromptModule as PromptModule
from .ppo import ppo_config as ppo_config
from .ppo import restore as restore
from .train import train_rllib as train_rllib
