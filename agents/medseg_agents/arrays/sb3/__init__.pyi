from .config import SB3PPOConfig as SB3PPOConfig
from .policy import PromptPolicy as PromptPolicy
from .saved_policy import save_policy as save_policy
from .train import make_model as make_model
from .train import make_vec_env as make_vec_env
from .train import train_sb3 as train_sb3
from .vec_env import MedSegVecEnv as MedSegVecEnv
