"""Segment a whole volume with a box on one slice, then clicks where the mask errs most.

python examples/volume.py
python examples/volume.py "volume:ct.nii.gz?truth=labels.nii.gz&modality=CT&target=liver" val

The volume is synthetic unless you name one of your own. An oracle plays: it is shown the truth.
"""

import sys

import gymnasium as gym
from PIL import Image

import medseg_gym  # registers MedSegVolume-v0
from medseg_gym import annotators
from medseg_gym.cases.volume_source import load_volumes

spec = sys.argv[1] if len(sys.argv) > 1 else "phantoms-volume"
volumes = load_volumes(spec, sys.argv[2] if len(sys.argv) > 2 else "test")
case = volumes[0]
kind = "synthetic" if case.synthetic else "real"
print(f"medseg_gym {medseg_gym.__version__}: {case.target}, {kind}, {case.depth} slices")

env = gym.make("MedSegVolume-v0", cases=volumes, max_steps=8, render_mode="rgb_array")
expert = annotators.make("oracle-key-slice-clicks", env.unwrapped.codec)
observation, info = env.reset(seed=0, options={"case": volumes.keys[0]})
ended, total = False, 0.0
while not ended:
    action = expert.act({}, env.unwrapped.episodes)[0]
    observation, reward, terminated, truncated, info = env.step(action)
    ended, total = terminated or truncated, total + reward
    print(f"{info['tool']:15} slice {info['slice']:3}  3D Dice {info['dice']:.3f}")

print(f"return {total:.3f}: the gain in 3D Dice less 0.01 for every action but Stop")
Image.fromarray(env.render()).save("volume.png")
print("wrote volume.png: the slice in view, its mask (green) and the truth's outline (yellow)")
env.close()
