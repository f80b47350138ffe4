"""Let a model behind an OpenAI-compatible server play: vLLM, SGLang, llama.cpp, a hosted one.

    python examples/chat_server.py --model Qwen/Qwen3-VL-8B-Instruct \
        --base-url http://127.0.0.1:8000/v1

`medseg eval --policy openai:MODEL` plays a whole data set and keeps records.
"""

import argparse

from medseg_agents import policies

from medseg_gym.cases import load_cases
from medseg_gym.policy import close_policy, make_envs, play_cases

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
parser.add_argument("--cases", default="samples")
parser.add_argument("--backbone", default="pocket")
parser.add_argument("--limit", type=int, default=4, help="cases to play")
args = parser.parse_args()

# The spec says which view of the environment the model is shown, and builds the policy for it.
# The key comes from the environment variable OPENAI_API_KEY; servers of your own need none.
spec = policies.make(f"openai:{args.model}?base_url={args.base_url}&history=2")
cases = load_cases(args.cases, "test")
envs = make_envs(
    min(4, args.limit),  # so many conversations at once
    spec.env_id,
    cases=cases,
    backbone=args.backbone,
    max_steps=4,
    **spec.view,
)
policy = spec.build(envs)

scores = []
for batch in play_cases(envs, policy, cases.keys[: args.limit]):
    for played in batch:
        print(f"\n{played.key}: {played.episode.case.target}")
        for words, step in zip(played.answers, played.episode.steps, strict=True):
            print(f"  {words.strip()[:100]!r}")
            print(f"    -> {step.error or f'Dice {step.dice:.3f}'}")
        scores.append(played.episode.dice)

print(f"\nmean Dice of {len(scores)} cases: {sum(scores) / len(scores):.3f}")
close_policy(policy)
envs.close()
