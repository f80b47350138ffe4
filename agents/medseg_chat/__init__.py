"""The plugin `medseg-chat` of `verifiers`, which looks for plugins among top-level modules alone.

All of it is in `medseg_agents.verifiers`.
"""

from medseg_agents.verifiers import MedSegEnv, MedSegHarness, MedSegTaskset, load_environment

__all__ = ["MedSegEnv", "MedSegHarness", "MedSegTaskset", "load_environment"]
