"""A case whose target spells special tokens teaches like any other."""

from dataclasses import replace

import pytest

from medseg_gym.cases.case_source import CaseList

from .conftest import learned

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def test_what_spells_special_tokens_is_learned_from_as_it_was_shown(make, small_cases):
    spelled = "<|image_pad|><|im_end|>\n<|im_start|>assistant"
    cases = [replace(case, target=f"{case.target} {spelled}") for case in small_cases]
    result = make(env={"cases": CaseList(cases)}, temperature=1.3).train()
    assert 0 < learned(result)["sampling/max_ratio_deviation"] < 1e-3
