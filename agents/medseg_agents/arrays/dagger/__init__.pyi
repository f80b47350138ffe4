from .config import DaggerConfig as DaggerConfig
from .train import train_dagger as train_dagger
