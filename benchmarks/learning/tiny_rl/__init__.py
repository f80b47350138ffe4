"""Reinforcement learning after the supervised start: GRPO, PPO and more of the same, on a CPU.

    python -m benchmarks.learning.tiny_chain --out runs/tiny
    python -m benchmarks.learning.tiny_rl --chain runs/tiny --out runs/tiny_rl

Needs no network and no files. From the chain's fine-tuned model, for each seed:

- **GRPO**: groups of episodes of one case, compared with each other (`medseg train grpo`).
- **PPO**: one episode a case, advantages of turns from a value head (`medseg train chat-ppo`).
- **SFT continued**: the chain's last stage goes on, for at least as much CPU time, with first turns
  that stage has not seen; its rate rises again to half of what it was and falls to its end.

Then a table over held-out cases, greedy and sampled, with baselines and oracles. The same command
goes on where it was; more `--seeds` add to what is there. All cases are synthetic: training takes
the train split, the curve's points the val split, the table the test split.
"""
