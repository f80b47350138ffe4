"""Names of label values that lie beside a label volume: a table of BIDS or a dataset.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gym.cases.files import Damaged
from medseg_gym.cases.nifti import bids
from medseg_gym.cases.nifti.dataset_json import Dataset
from medseg_gym.cases.nifti.labels import read_names
from medseg_gym.cases.nifti.pairing import Pair
from medseg_gym.errors import CaseError


@dataclass(frozen=True)
class Names:
    """Names of label values, and their origin.

    Args:
        labels: In a form that `read_names` takes.
        whose: The option or file that says so.
    """

    labels: Any
    whose: str


def names_beside(
    pair: Pair, dataset: Dataset | None, root: Path, sidecars: Sequence[str]
) -> Names | None:
    """Read the names of label values from the files beside or above the labels.

    Args:
        pair: An image and its labels.
        dataset: The dataset.json that they belong to, or None.
        root: Of the data.
        sidecars: The `.tsv` and `.json` files below it, relative to it.

    Returns:
        None where no file names them.

    Raises:
        CaseError: A file beside the labels cannot be used.
    """
    if own := bids.read_name(pair.label):
        if table := bids.names_of(own, root, sidecars):
            try:
                read_names(table[0])
            except CaseError as error:
                raise Damaged(table[1], str(error)) from error
            return Names(*table)
    if dataset is not None and dataset.names:
        return Names(dataset.labels, dataset.path)
    return None
