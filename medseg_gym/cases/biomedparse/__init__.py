"""The BiomedParse format, which UniBiomed and MedSAM-Agent share: PNGs beside a JSON of sentences.

`<data set>/{train,val,test}.json` lists annotations; images lie in `<data set>/<split>/`, masks in
`<data set>/<split>_mask/`. Data sets may be nested.
"""

from medseg_gym.cases.biomedparse.dataset_format import BiomedParseFormat
from medseg_gym.cases.files import FileCaseSource, open_split

__all__ = ["BiomedParseFormat", "load"]


def load(argument: str, split: str) -> FileCaseSource:
    """Open a split for `load_cases("biomedparse:ARGUMENT", split)`.

    Args:
        argument: Path of a data set or of a folder of data sets, and options: see
            `BiomedParseFormat`.
        split: "train", "val" or "test".

    Raises:
        CaseError: The data cannot be used.
    """
    return open_split(BiomedParseFormat, argument, split)
