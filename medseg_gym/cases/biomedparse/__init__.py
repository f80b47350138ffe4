"""The BiomedParse format, which UniBiomed and MedSAM-Agent share: PNGs beside a JSON of sentences.

`<data set>/{train,val,test}.json` lists annotations; images lie in `<data set>/<split>/`, masks in
`<data set>/<split>_mask/`. Data sets may be nested.
"""

from medseg_gym.cases.biomedparse.dataset_format import BiomedParseFormat
from medseg_gym.cases.files.dataset_formats import FormatLoader

__all__ = ["BiomedParseFormat", "load"]

load = FormatLoader(BiomedParseFormat)
