"""An answer that ran into its limit, with the reason why it ends there.

The text alone would be an ordinary unreadable answer, and neither the model nor whoever looks at
`info` would learn that a larger limit is all that is missing.
"""

from __future__ import annotations

from typing import Any

from medseg_gym.envs.views.protocol import Reading
from medseg_gym.errors import PromptError


class CutAnswer(str):
    """An answer as any other, that knows that it is not whole.

    Args:
        text: The answer as far as it goes.
        why: What cut it off and the option that changes it, in words for model and user.
    """

    why: str

    def __new__(cls, text: str, why: str) -> CutAnswer:
        """Make the text; `why` lies beside it."""
        answer = super().__new__(cls, text)
        answer.why = why
        return answer

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep `why` on the way to another process."""
        return CutAnswer, (str(self), self.why)


def explain_cut(action: Any, reading: Reading) -> Reading:
    """Say of a cut answer without a readable call that it was cut; other readings stay.

    A call that was complete before the cut is carried out.
    """
    if isinstance(action, CutAnswer) and isinstance(reading.prompt, PromptError):
        return Reading(PromptError(action.why), reading.info)
    return reading
