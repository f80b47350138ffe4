"""Play one episode by hand: a box, a click, stop; and write what it looked like.

python examples/first_episode.py
"""

import gymnasium as gym
from PIL import Image

import medseg_gym  # registers MedSeg-v0 and MedSegChat-v0

BOX, POSITIVE, NEGATIVE, UNDO, CLEAR, STOP = range(6)

# Offline, on a CPU, with no argument: real cases and a segmenter that come with the package.
env = gym.make("MedSeg-v0", render_mode="rgb_array")
print("medseg_gym", medseg_gym.__version__)
print("actions:", env.action_space)  # a tool and four coordinates on a grid of 1000 x 1000

observation, info = env.reset(seed=0)
for name, value in observation.items():
    print(f"observation[{name!r}]: {value.shape if hasattr(value, 'shape') else value}")
print("case", info["case"], "starts with Dice", info["dice"])

total = 0.0
for action in (
    [BOX, 130, 180, 480, 710],  # x1, y1, x2, y2: around the nucleus
    [POSITIVE, 300, 450, 0, 0],  # a click inside; the last two numbers are not used
    [UNDO, 0, 0, 0, 0],  # take it back
    [STOP, 0, 0, 0, 0],
):
    observation, reward, terminated, truncated, info = env.step(action)
    total += reward
    print(f"{info['tool']:15} Dice {info['dice']:.3f}  reward {reward:+.3f}")
    if terminated:
        break

# The return is the gain in Dice less 0.01 for every action but Stop.
print(f"return {total:.3f}")
Image.fromarray(env.render()).save("first_episode.png")
print("wrote first_episode.png")
env.close()
