"""GRPO on a vision-language model, two iterations on a CPU: the smallest thing that is complete.

    pip install "medseg-gym[rllib,llm]"
    python examples/grpo_tiny.py

The model is a Qwen3-VL with random weights, made in a second, so it makes no valid call and learns
nothing yet. Give `--model` a checkpoint that does (docs/how-to/chat_models.md) to see it learn.
`medseg train grpo` adds logs, checkpoints, validation and resuming.
"""

import argparse

import ray
from medseg_agents.grpo import GRPOConfig
from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

parser = argparse.ArgumentParser()
parser.add_argument("--model", help="folder of a checkpoint; left out makes a tiny random one")
parser.add_argument("--iterations", type=int, default=2)
args = parser.parse_args()

# A tokenizer is made from the words that the model will be shown.
model = args.model or build_tiny(
    "tiny", ["liver in abdomen CT, 5 calls."], TinyConfig(image_size=64)
)

config = (
    GRPOConfig()
    .environment(
        env_config={
            "cases": "phantoms:abdomen",  # synthetic CT
            "backbone": "ellipse",
            "reward": "dice_gain + 0.2 * format",
            "image_size": 64,
            "texts": "terse",
            "max_steps": 2,
        }
    )
    .training(lr=1e-4, num_epochs=1, grad_clip=0.3)
    # Two cases an iteration, each played four times: a return counts against its group's mean.
    .chat(model=str(model), groups=2, num_generations=4, max_completion_length=16)
)

algorithm = config.build_algo()  # an ordinary RLlib algorithm; Ray Tune takes the config too
for iteration in range(args.iterations):
    metrics = algorithm.train()["env_runners"]
    print(
        f"iteration {iteration + 1}: return {metrics['episode_return_mean']:.3f}, "
        f"valid calls {metrics['valid_rate']:.2f}"
    )
algorithm.stop()
ray.shutdown()
