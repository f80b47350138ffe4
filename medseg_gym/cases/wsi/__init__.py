"""`wsi:PATH`: tiles of whole slides with annotations in GeoJSON, as QuPath exports them.

`slides` opens a slide by openslide or tiffslide, `geojson` reads what was drawn on it, `tiles`
counts what every tile shows.
"""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.wsi.dataset_format import WsiFormat

__all__ = ["WsiFormat", "load"]

load = FormatLoader(WsiFormat)
