"""The suite as tools for verl's agent loop, and a reward function for its rollouts.

`MedSegTool` is what `tool_config_path` names, once for each call; all of them share one worker that
steps whatever episodes wait together. `compute_score` is the `custom_reward_function`;
`write_rows` makes the parquet file. Importable without verl; how to use it:
`docs/how-to/trl_verl.md`.
"""

from medseg_agents.chat_episodes import EpisodeWorker, Turn
from medseg_agents.verl.reward import compute_score
from medseg_agents.verl.rows import write_rows
from medseg_agents.verl.tool import MedSegTool

__all__ = ["EpisodeWorker", "MedSegTool", "Turn", "compute_score", "write_rows"]
