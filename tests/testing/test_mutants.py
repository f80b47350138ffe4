"""check_vector_env names the law that a mutant breaks."""

from __future__ import annotations

import pytest
from mutants import MUTANTS
from tiny_env import check

from medseg_gym.testing.check_vector_env import CHECKS, VectorEnvError


@pytest.mark.parametrize(("cls", "mode", "check_name", "message", "arguments"), MUTANTS)
def test_a_mutant_fails_the_check_that_its_defect_belongs_to(
    cls, mode, check_name, message, arguments
):
    with pytest.raises(VectorEnvError, match=message) as caught:
        check(cls, mode, **arguments)
    assert caught.value.check == check_name
    assert f"check '{check_name}' failed" in str(caught.value)


def test_every_check_has_a_mutant():
    assert {param.values[2] for param in MUTANTS} == set(CHECKS)
