"""Train an array policy with Stable-Baselines3 on the native batch.

    pip install "medseg-gym[sb3]"
    python examples/train_with_sb3.py --steps 20000

`medseg train sb3-ppo` does the same with logs, checkpoints, resuming and a final comparison.
"""

import argparse

import gymnasium as gym
from medseg_agents.arrays.networks import NetworkConfig
from medseg_agents.arrays.sb3 import MedSegVecEnv, PromptPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import medseg_gym  # noqa: F401  (registers the ids)

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=20_000, help="environment steps in all slots")
parser.add_argument("--cases", default="phantoms:fundus", help="synthetic, drawn on demand")
parser.add_argument("--pool", type=int, default=64, help="training cases kept in memory")
parser.add_argument("--backbone", default="pocket")
parser.add_argument("--num-envs", type=int, default=16)
args = parser.parse_args()

TOOLS = ("positive_point", "negative_point", "stop")  # clicks alone are easier to explore
VIEW = {"image_size": 64, "bins": 32, "tools": TOOLS, "backbone": args.backbone}


def make(cases: str, split: str) -> MedSegVecEnv:
    """SB3's view of the native batch: one decoder call a step for all slots."""
    options = {"cases": cases, "split": split, **VIEW}
    # SB3 expects the first observation of the next episode at once.
    return MedSegVecEnv(
        gym.make_vec("MedSeg-v0", args.num_envs, autoreset_mode="same_step", **options)
    )


train = make(f"pool:{args.pool}:{args.cases}", "train")
held_out = make(f"pool:{args.pool}:{args.cases}", "val")
model = PPO(
    PromptPolicy,
    train,
    n_steps=32,
    batch_size=256,
    n_epochs=3,
    learning_rate=1e-3,
    gamma=1.0,  # the return is Dice at the end less the cost
    ent_coef=0.01,
    policy_kwargs={"network": NetworkConfig(tools=TOOLS)},
    seed=0,
)

before, _ = evaluate_policy(model, held_out, args.pool, deterministic=False, warn=False)
model.learn(args.steps)
after, _ = evaluate_policy(model, held_out, args.pool, deterministic=False, warn=False)
print(f"mean return on {args.pool} held-out cases: {before:.3f} before, {after:.3f} after")
model.save("sb3_ppo")
print("wrote sb3_ppo.zip")
