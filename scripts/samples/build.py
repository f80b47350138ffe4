"""Build the packaged sample cases from data that ordinary Python packages carry.

    python -m pip install numpy pillow scipy pynrrd tifffile
    python -m scripts.samples.build [--cache DIR] [--output DIR]

pip fetches three packages into the cache (about 40 MB, once): the sdist of pyradiomics, and the
wheels of slicerio and stardist. None of them is installed. The sdist's setup.py needs numpy,
setuptools, wheel and versioneer, so it is fetched by a throw-away virtual environment in the cache.
Every file that is read is checked against its sha256 in samples/origins.py. The output is the
same, byte for byte, when the script runs again with the same Pillow.

Display conventions: axial slices, rows run to the back and columns to the patient's left (the
radiological view), whatever the order of the axes in the file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg_gym.storage.atomic_write import atomic_folder
from scripts.samples.chest import add_chest
from scripts.samples.fetching import BuildError, read_files
from scripts.samples.index import write_index
from scripts.samples.lesions import add_lesions
from scripts.samples.nuclei import add_nuclei
from scripts.samples.origins import ORIGINS, RADIOMICS, SLICERIO, STARDIST
from scripts.samples.pack import Pack
from scripts.samples.readme import write_readme

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "medseg_gym" / "cases" / "samples" / "data"


def build(cache: Path, output: Path) -> None:
    """Fetch, check, cut and write; the old folder goes only when the new one is complete."""
    cache.mkdir(parents=True, exist_ok=True)
    if output.exists() and any(output.iterdir()) and not (output / "index.json").exists():
        raise BuildError(f"{output} is not empty and holds no index.json; name another --output")
    contents = {origin.name: read_files(origin, cache) for origin in ORIGINS}
    with atomic_folder(output, BuildError) as folder:
        pack = Pack(folder)
        add_lesions(pack, contents[RADIOMICS.name])
        add_chest(pack, contents[SLICERIO.name])
        add_nuclei(pack, contents[STARDIST.name])
        (pack.path / "licenses").mkdir()
        for origin in ORIGINS:
            text = contents[origin.name][origin.licence_file].replace(b"\r\n", b"\n")
            (pack.path / "licenses" / f"{origin.name}.txt").write_bytes(text)
        write_index(pack)
        write_readme(pack)
    size = sum(p.stat().st_size for p in output.rglob("*") if p.is_file())
    print(f"{len(pack.cases)} cases, {size / 1e6:.2f} MB in {output}")


def main() -> None:
    """Read the command line and build."""
    cache = Path.home() / ".cache" / "medseg_gym" / "samples"
    parser = argparse.ArgumentParser(description="Build the packaged sample cases.")
    parser.add_argument("--cache", type=Path, default=cache, help="keeps what pip downloads")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: inside the package")
    arguments = parser.parse_args()
    try:
        build(arguments.cache.resolve(), arguments.output.resolve())
    except BuildError as error:
        sys.exit(f"scripts.samples.build: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"scripts.samples.build: {error}; python -m pip install pynrrd tifffile")


if __name__ == "__main__":
    main()
