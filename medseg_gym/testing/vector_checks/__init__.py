"""The laws of a vector environment, one small function each.

`interface`, `randomness`, `memory`, `autoreset`, `reset_mask`, `independence` and `refusals` hold
the laws; `subject` the environment under test and its partners, `rollout` what they did,
`comparison` how two results are told apart, `report` what is said about it. The way in is
`medseg_gym.check_vector_env`. Nothing here knows medical images.
"""

from medseg_gym.testing.vector_checks.report import CheckResult, VectorEnvError, VectorEnvReport

__all__ = ["CheckResult", "VectorEnvError", "VectorEnvReport"]
