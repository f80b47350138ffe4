"""TRL's `GRPOTrainer` with the images of a rollout in its loss."""

from __future__ import annotations

from typing import Any

import trl

from medseg_gym.errors import PolicyError


class ChatGRPOTrainer(trl.GRPOTrainer):
    """`GRPOTrainer` for `ChatRollout`.

    TRL's trainer takes tokens and log-probabilities from a `rollout_func`, but no images: a
    rollout that shows the model new ones would be trained as if the model had seen none. Those that
    tools return do reach the loss. This class hands a rollout's images on as if tools had
    returned them; everything else is TRL's. It overrides one private method and refuses versions
    of TRL in which that method gives something else.

    Args:
        *args: As TRL's.
        **kwargs: As TRL's; `rollout_func` must be a `ChatRollout`, and there are no `tools` and no
            `environment_factory`.

    Raises:
        PolicyError: Tools, an environment, or no rollout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.rollout_func is None or self.tools or self.environment_factories:
            raise PolicyError(
                "ChatGRPOTrainer takes a rollout_func and neither tools nor an "
                "environment_factory; with those, use TRL's GRPOTrainer"
            )

    def _generate(self, prompts: list) -> tuple[Any, ...]:
        made = super()._generate(prompts)
        if len(made) != 8 or not isinstance(made[5], dict) or "images" not in made[5]:
            raise PolicyError(
                f"TRL {trl.__version__} does not hand on what a rollout gives as expected; "
                "ChatGRPOTrainer was written for TRL 1.16. Use make_environment with GRPOTrainer"
            )
        images = made[5].pop("images")
        self.tools = [_images]  # TRL looks for images in the answers of tools, where it has any
        return (*made[:6], images, images)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.tools = []


def _images() -> None:
    """Stands where TRL asks whether there are tools; never called."""
