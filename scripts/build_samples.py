"""Build the packaged sample cases from data that ordinary Python packages carry.

    python -m pip install numpy pillow scipy pynrrd tifffile
    python scripts/build_samples.py [--cache DIR] [--output DIR]

pip fetches three packages into the cache (about 40 MB, once): the sdist of pyradiomics, and the
wheels of slicerio and stardist. None of them is installed. The sdist's setup.py needs numpy,
setuptools, wheel and versioneer, so it is fetched by a throw-away virtual environment in the cache.
Every file that is read is checked against the sha256 below. The output is the same, byte for
byte, when the script runs again with the same Pillow.

Display conventions: axial slices, rows run to the back and columns to the patient's left (the
radiological view), whatever the order of the axes in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "medseg_gym" / "cases" / "samples" / "data"
MIN_PIXELS = 20  # a labelled slice with fewer is dropped
MIN_LARGEST = 0.9  # share of the largest piece, for a chest CT target that one box describes
CROP, CROP_MARGIN = 64, 3  # pixels; windows around a nucleus that is alone in view
QUADRANT = 256  # pixels; windows for all nuclei

# ------------------------------------------------------------------------------------ packages


@dataclass(frozen=True)
class Origin:
    """A package to fetch, and the files to read from it.

    `archive_sha256` is None where the archive differs between Python versions.
    """

    name: str
    version: str
    archive: str
    licence: str
    masks: str
    licence_file: str
    archive_sha256: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """Paths inside the archive (of an sdist: inside its top folder) and their sha256."""
        top = "data/" if self.archive.endswith(".tar.gz") else f"{self.name}/"
        rows = (line.split() for line in FILES.split("\n") if line)
        return {path: digest for digest, path in rows if path.startswith(top)}

    @property
    def requirement(self) -> str:
        """The pinned requirement, for pip and for the index."""
        return f"{self.name}=={self.version}"


# sha256 of every file that is read, as `sha256sum` prints it
FILES = """
fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf data/brain1_image.nrrd
ae6d8e6b84f7e99d68c210ee2fa6aaaefa0b2df0a84f55efca4feebe2b216059 data/brain1_label.nrrd
d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e data/brain2_image.nrrd
15189c024936ecc337649b9a10c475117c7c40df0d53c22163f9a2023ed741a5 data/brain2_label.nrrd
0e8b668f3ce9b9aacff20dc3c216866f43069ff96b269fb45b76f5e205a431e2 data/breast1_image.nrrd
07085bb0e36a956de5bd1c1c1b5f8bdf2ce80952125b13cbd352412c108c8950 data/breast1_label.nrrd
379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed data/lung1_image.nrrd
e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a data/lung1_label.nrrd
aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651 data/lung2_image.nrrd
cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a data/lung2_label.nrrd
439ee098e50ee8e3254bd80ed8bcf7f8d006da4cab35be7a65b61ccb30dd6a3d slicerio/data/CTChest4.nrrd
1a35d7165f51521cf4c747d81278eb461e5f151b0ea43f1bfb38fba3453140cf slicerio/data/Segmentation.seg.nrrd
f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750 stardist/data/images/img2d.tif
59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f stardist/data/images/mask2d.tif
"""

RADIOMICS = Origin(
    name="pyradiomics",
    version="3.0.1",
    archive="pyradiomics-3.0.1.tar.gz",
    archive_sha256="47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    licence="BSD-3-Clause",
    masks=(
        "Masks look human-drawn or human-corrected; the package does not say by whom. It names "
        "neither diagnosis nor MRI sequence: the target texts are this project's reading of the "
        "pictures."
    ),
    licence_file="LICENSE.txt",
)
SLICERIO = Origin(
    name="slicerio",
    version="1.4.0",
    archive="slicerio-1.4.0-*.whl",
    archive_sha256="ae3432ee06386bfe3b2e8d2d07940411fcbaefab8ed89a3853ee9c5ac19e296b",
    licence="MIT",
    masks=(
        "Masks were made in 3D Slicer and look threshold- or region-based (vessels are holes in "
        "the lungs): semi-automatic, not independent expert truth; the package does not say by "
        "whom, and the file's own tags call them 'in progress'."
    ),
    licence_file="slicerio-1.4.0.dist-info/licenses/LICENSE",
)
STARDIST = Origin(
    name="stardist",
    version="0.9.2",
    archive="stardist-0.9.2-*.whl",
    licence="BSD-3-Clause",
    masks=(
        "The package says that image and mask come from the 2018 Data Science Bowl (Caicedo et "
        "al. 2019, Nature Methods 16, 1247), whose masks were annotated by hand; it does not say "
        "by whom this one was. To this project's knowledge that set (BBBC038) is CC0; the package "
        "repeats no licence for the picture alone."
    ),
    licence_file="stardist-0.9.2.dist-info/licenses/LICENSE.txt",
)
ORIGINS = (RADIOMICS, SLICERIO, STARDIST)

# ------------------------------------------------------------------------------------- targets

MASS, NODULE = "lung mass in chest CT", "lung nodule in chest CT"
TUMOUR, BREAST = "enhancing brain tumour in T1 MRI", "breast lesion in MRI"
RIGHT, LEFT, VERTEBRA = "right lung in chest CT", "left lung in chest CT", "vertebra in chest CT"
NUCLEUS = "cell nucleus in fluorescence microscopy"
RIBS, TISSUE = "ribs and sternum in chest CT", "soft tissue in chest CT"
NUCLEI = "all cell nuclei in fluorescence microscopy"
TARGETS = (MASS, NODULE, TUMOUR, BREAST, RIGHT, LEFT, VERTEBRA, NUCLEUS, RIBS, TISSUE, NUCLEI)
CT_WINDOW = (-1000.0, 400.0)  # Hounsfield units


@dataclass(frozen=True)
class Lesion:
    """A pyradiomics volume with one labelled lesion; a window of None means MRI percentiles."""

    name: str
    split: str
    modality: str
    target: str
    window: tuple[float, float] | None
    notes: tuple[str, ...] = ()


# fmt: off
LESIONS = (
    Lesion("lung2", "test", "CT", MASS, CT_WINDOW,
           ("On the lowest slices the mass touches tissue of the same grey.",)),
    Lesion("brain1", "test", "MRI", TUMOUR, None,
           ("On some slices the outline is looser than the bright rim.",)),
    Lesion("lung1", "val", "CT", NODULE, CT_WINDOW, ("Small: at most 0.13 % of the image.",)),
    Lesion("breast1", "val", "MRI", BREAST, None,
           ("A crop of 120 x 45 pixels as the package has it.",
            "On slice 8 the mask covers only the rim of the visible lesion.")),
    Lesion("brain2", "train", "MRI", TUMOUR, None,
           ("Faint and small: hard to see on slice 10.",)),
)
# fmt: on


@dataclass(frozen=True)
class Organ:
    """A class of the chest CT: which labels, which slices."""

    name: str
    target: str
    labels: tuple[int, ...]
    slices: range
    single_box: bool = True


CHEST = "CTChest4"
ORGANS = (
    Organ("right-lung", RIGHT, (5,), range(10, 30)),
    Organ("left-lung", LEFT, (6,), range(10, 30)),
    Organ("vertebra", VERTEBRA, (2, 3, 4), range(0, 34)),
    Organ("ribs", RIBS, (1,), range(10, 18), single_box=False),
    Organ("soft-tissue", TISSUE, (7,), range(10, 18), single_box=False),
)
CHEST_NOTES = (
    "vertebra joins the package's classes cervical (2), thoracic (3) and lumbar (4) vertebral "
    "column: their borders do not follow the anatomy (class 4 reaches up to the heart, class 2 "
    "down to the upper chest).",
    "The lungs are taken from slices 10 to 29: below, they are thin crescents; above, the trachea, "
    "which the package counts as right lung, is a good part of the mask, and on slice 33 both lung "
    "labels lie on bone. From slice 21 up, right-lung masks hold a piece of the airways (at most "
    "3 % of the mask).",
    f"A slice is dropped where the largest piece holds under {MIN_LARGEST:.0%} of the mask.",
    "ribs and sternum is the package's class ribs, from slices 10 to 17: above, it also takes in "
    "the shoulder blades and collar bones.",
    "soft tissue is the package's class tissue: all that is neither lung nor bone.",
)
NUCLEI_NAME = "img2d"
NUCLEI_NOTES = (
    f"Single nuclei: {CROP} x {CROP} crops in which exactly one labelled nucleus is visible, since "
    "a text cannot say which of many is meant; one crop a nucleus, at a place drawn by a seeded "
    "generator.",
    f"All nuclei: the four {QUADRANT} x {QUADRANT} quadrants.",
    "The pixel size is not given.",
)


class BuildError(RuntimeError):
    """Something the pack is made from is missing or not what it should be."""


# ---------------------------------------------------------------------------------- downloading


def run_pip(python: str, *arguments: str) -> None:
    """Run pip, quietly unless it fails."""
    done = subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(
            f"`pip {' '.join(arguments)}` failed:\n{done.stderr.strip()}\n"
            "Without a package registry, put the archives named in ORIGINS into the --cache folder"
        )


def fetch(origin: Origin, cache: Path) -> Path:
    """The package's archive in the cache, downloaded if it is not there."""
    if not list(cache.glob(origin.archive)):
        print(f"fetching {origin.requirement}")
        download = ("download", "--quiet", "--no-deps", "--dest", str(cache))
        if origin is RADIOMICS:  # sdist: pip runs its setup.py to learn its name
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                venv.create(scratch, with_pip=True)
                python = next(Path(scratch).glob("[bS]*/python*")).as_posix()
                needs = ["numpy", "setuptools", "wheel", "versioneer"]
                run_pip(python, "install", "--quiet", *needs)
                sdist = ("--no-build-isolation", "--no-binary", origin.name)
                run_pip(python, *download, *sdist, origin.requirement)
        else:
            run_pip(sys.executable, *download, "--only-binary", ":all:", origin.requirement)
    found = sorted(cache.glob(origin.archive))
    if not found:
        raise BuildError(f"pip downloaded {origin.requirement}, but {origin.archive} is not there")
    if origin.archive_sha256:
        check(found[0].name, found[0].read_bytes(), origin.archive_sha256)
    return found[0]


def check(name: str, content: bytes, expected: str) -> bytes:
    """Return `content` if its sha256 is the expected one."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BuildError(f"{name}: sha256 is {found}, expected {expected}; delete it and try again")
    return content


def read_files(origin: Origin, cache: Path) -> dict[str, bytes]:
    """The contents of the origin's files and licence, by path, checked."""
    archive = fetch(origin, cache)
    contents = {}
    for name in (*origin.files, origin.licence_file):
        try:
            if archive.suffix == ".whl":
                with zipfile.ZipFile(archive) as wheel:
                    contents[name] = wheel.read(name)
            else:
                with tarfile.open(archive) as sdist:
                    member = sdist.extractfile(f"{origin.name}-{origin.version}/{name}")
                    assert member is not None
                    contents[name] = member.read()
        except KeyError:
            raise BuildError(f"{archive.name} has no file {name}") from None
        if name in origin.files:
            check(f"{archive.name}: {name}", contents[name], origin.files[name])
    return contents


# --------------------------------------------------------------------------------------- pixels


def read_volume(content: bytes) -> tuple[np.ndarray, tuple[float, float]]:
    """Volume (Z, H, W) in radiological axial view, and its (row, column) spacing in mm."""
    import nrrd

    with io.BytesIO(content) as file:
        header = nrrd.read_header(file)
        data = nrrd.read_data(header, file)
    directions = np.asarray(header["space directions"], dtype=float)
    if header["space"] != "left-posterior-superior" or np.any(
        directions != np.diag(np.diag(directions))
    ):
        raise BuildError(f"expected axial LPS axes, got {header['space']} {directions.tolist()}")
    column, row, up = np.diag(directions)  # the file's axes run along left, back, up
    volume = data[:: int(np.sign(column)), :: int(np.sign(row)), :: int(np.sign(up))]
    spacing = (round(abs(float(row)), 6), round(abs(float(column)), 6))
    return np.ascontiguousarray(volume.transpose(2, 1, 0)), spacing


def grey(pixels: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Window intensities to 0..255 uint8."""
    scaled = np.clip((pixels.astype(np.float64) - window[0]) / (window[1] - window[0]), 0, 1)
    return np.round(scaled * 255).astype(np.uint8)


def percentiles(pixels: np.ndarray) -> tuple[float, float]:
    """The window from the 0.5th to the 99.5th percentile."""
    low, high = np.percentile(pixels, [0.5, 99.5])
    return float(low), float(high)


def largest_share(mask: np.ndarray) -> float:
    """Share of the mask's pixels that lie in its largest 8-connected piece."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return float(np.bincount(pieces[mask]).max() / mask.sum())


def lone_crop(labels: np.ndarray, nucleus: int, rng: np.random.Generator) -> tuple | None:
    """Top left corner of a crop with the whole nucleus and no pixel of another, or None."""
    rows, columns = np.nonzero(labels == nucleus)
    others = np.pad(((labels > 0) & (labels != nucleus)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    corners = [
        (y, x)
        for y in range(rows.max() + 1 + CROP_MARGIN - CROP, rows.min() - CROP_MARGIN + 1)
        for x in range(columns.max() + 1 + CROP_MARGIN - CROP, columns.min() - CROP_MARGIN + 1)
        if 0 <= y <= labels.shape[0] - CROP
        and 0 <= x <= labels.shape[1] - CROP
        and others[y + CROP, x + CROP] + others[y, x] == others[y, x + CROP] + others[y + CROP, x]
    ]
    return corners[rng.integers(len(corners))] if corners else None


# ---------------------------------------------------------------------------------------- pack


@dataclass
class Pack:
    """The folder being written."""

    path: Path
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def add_image(self, name: str, pixels: np.ndarray) -> str:
        """Write an 8-bit PNG; returns its path in the pack."""
        return self._write(f"images/{name}.png", Image.fromarray(pixels))

    def add_case(
        self, key: str, image: str, mask: np.ndarray, target: str, group: str, **more: Any
    ) -> None:
        """Write a mask and its line of the index."""
        bits = Image.fromarray(mask.astype(np.uint8) * 255).convert("1", dither=Image.Dither.NONE)
        entry: dict[str, Any] = {
            "key": key,
            "image": image,
            "mask": self._write(f"masks/{key}.png", bits),
        }
        entry |= {"target": target, "group": group, **more, "area": int(mask.sum())}
        self.cases.append(entry)

    def _write(self, name: str, picture: Image.Image) -> str:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.path / name, optimize=True)
        return name


def group_entry(
    split: str, modality: str, spacing: Any, origin: Origin, window: str, notes: tuple[str, ...]
) -> dict[str, Any]:
    """What the index says of one volume."""
    return {
        "split": split,
        "modality": modality,
        "spacing": spacing,
        "origin": origin.name,
        "window": window,
        "notes": list(notes),
    }


def add_lesions(pack: Pack, contents: dict[str, bytes]) -> None:
    """Every labelled slice of the pyradiomics volumes."""
    for lesion in LESIONS:
        volume, spacing = read_volume(contents[f"data/{lesion.name}_image.nrrd"])
        labels, _ = read_volume(contents[f"data/{lesion.name}_label.nrrd"])
        window = lesion.window or percentiles(volume[volume > 0])
        how = "HU" if lesion.window else "0.5th..99.5th percentile of the volume's voxels > 0"
        areas = labels.astype(bool).sum((1, 2))
        kept = np.flatnonzero(areas >= MIN_PIXELS)
        dropped = np.flatnonzero((areas > 0) & (areas < MIN_PIXELS)).tolist()
        notes = lesion.notes
        if dropped:
            notes += (f"Slices {dropped} are left out: under {MIN_PIXELS} labelled pixels.",)
        pieces = [int(z) for z in kept if largest_share(labels[z] > 0) < MIN_LARGEST]
        if pieces:
            notes += (f"The mask is in separate pieces on slices {pieces}.",)
        pack.groups[lesion.name] = group_entry(
            lesion.split,
            lesion.modality,
            spacing,
            RADIOMICS,
            f"{window[0]:g}..{window[1]:g} ({how})",
            notes,
        )
        for z in kept.tolist():
            key = f"{lesion.name}-z{z:03d}"
            image = pack.add_image(key, grey(volume[z], window))
            more = {"slice": z, "single_box": True}
            pack.add_case(key, image, labels[z] > 0, lesion.target, lesion.name, **more)


def add_chest(pack: Pack, contents: dict[str, bytes]) -> None:
    """Organs of the chest CT; all targets of a slice share its image."""
    volume, spacing = read_volume(contents["slicerio/data/CTChest4.nrrd"])
    labels, _ = read_volume(contents["slicerio/data/Segmentation.seg.nrrd"])
    window = f"{CT_WINDOW[0]:g}..{CT_WINDOW[1]:g} (HU)"
    pack.groups[CHEST] = group_entry("train", "CT", spacing, SLICERIO, window, CHEST_NOTES)
    for z in range(len(volume)):
        image = ""
        for organ in ORGANS:
            mask = np.isin(labels[z], organ.labels)
            if z not in organ.slices or mask.sum() < MIN_PIXELS:
                continue
            if organ.single_box and largest_share(mask) < MIN_LARGEST:
                continue
            image = image or pack.add_image(f"{CHEST}-z{z:03d}", grey(volume[z], CT_WINDOW))
            more = {"slice": z, "single_box": organ.single_box}
            pack.add_case(
                f"{CHEST}-z{z:03d}-{organ.name}", image, mask, organ.target, CHEST, **more
            )


def add_nuclei(pack: Pack, contents: dict[str, bytes]) -> None:
    """Crops of the fluorescence picture: nuclei alone in view, and quadrants with all."""
    import tifffile

    picture = tifffile.imread(io.BytesIO(contents["stardist/data/images/img2d.tif"]))
    labels = tifffile.imread(io.BytesIO(contents["stardist/data/images/mask2d.tif"]))
    window = percentiles(picture)
    pixels = grey(picture, window)
    how = f"{window[0]:g}..{window[1]:g} (0.5th..99.5th percentile of the picture)"
    pack.groups[NUCLEI_NAME] = group_entry("train", "microscopy", None, STARDIST, how, NUCLEI_NOTES)
    rng = np.random.default_rng(2018)
    for nucleus in np.unique(labels[labels > 0]).tolist():
        corner = lone_crop(labels, nucleus, rng)
        if corner is None:
            continue
        box = (slice(corner[0], corner[0] + CROP), slice(corner[1], corner[1] + CROP))
        key = f"{NUCLEI_NAME}-nucleus{nucleus:03d}"
        image = pack.add_image(key, pixels[box])
        more = {"slice": None, "crop": [*corner, CROP, CROP], "single_box": True}
        pack.add_case(key, image, labels[box] == nucleus, NUCLEUS, NUCLEI_NAME, **more)
    for y, x in np.ndindex(2, 2):
        corner = (y * QUADRANT, x * QUADRANT)
        box = (slice(corner[0], corner[0] + QUADRANT), slice(corner[1], corner[1] + QUADRANT))
        key = f"{NUCLEI_NAME}-quadrant{y}{x}"
        image = pack.add_image(key, pixels[box])
        more = {"slice": None, "crop": [*corner, QUADRANT, QUADRANT], "single_box": False}
        pack.add_case(key, image, labels[box] > 0, NUCLEI, NUCLEI_NAME, **more)


def write_index(pack: Pack) -> None:
    """Write index.json: one line a case, so that a change reads well in a diff."""
    origins = {
        o.name: {
            "package": o.requirement,
            "licence": o.licence,
            "licence_file": f"licenses/{o.name}.txt",
            "masks": o.masks,
            "sha256": o.files,
        }
        for o in ORIGINS
    }
    cases = ",\n".join("  " + json.dumps(case) for case in pack.cases)
    head = {
        "format": 1,
        "about": "Real images; see README.md beside this file. Made by scripts/build_samples.py.",
        "targets": list(TARGETS),
        "notes": [f"Slices with under {MIN_PIXELS} labelled pixels are left out."],
        "origins": origins,
        "groups": pack.groups,
    }
    text = json.dumps(head, indent=1)[:-2] + f',\n "cases": [\n{cases}\n ]\n}}\n'
    json.loads(text)
    (pack.path / "index.json").write_text(text, encoding="utf-8")


def write_readme(pack: Pack) -> None:
    """Write README.md from the same tables as the index."""
    lines = [
        "# Sample cases",
        "",
        "Real images, cut from data that Python packages carry; nothing is synthetic. Made by",
        "`python scripts/build_samples.py`; do not edit by hand. They show how things work: a few",
        "volumes, hence no ground for clinical or statistical claims.",
        "",
        "| split | group | target | cases | mask area, % of image | multi-part |",
        "|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, ...], list[float]] = {}
    for case in pack.cases:
        with Image.open(pack.path / case["image"]) as picture:
            share = 100 * case["area"] / (picture.width * picture.height)
        split = pack.groups[case["group"]]["split"]
        part = "" if case["single_box"] else "yes"
        rows.setdefault((split, case["group"], case["target"], part), []).append(share)
    for (split, group, target, part), shares in rows.items():
        area = f"{min(shares):.2f} to {max(shares):.2f}"
        lines.append(f"| {split} | {group} | {target} | {len(shares)} | {area} | {part} |")
    lines += [
        "",
        'Multi-part targets are apart: `load_cases("samples:multi-part", "train")`.',
        "",
        "## Volumes",
        "",
    ]
    for name, facts in pack.groups.items():
        size = "pixel size unknown"
        if facts["spacing"]:
            size = "{:g} x {:g} mm a pixel (row, column)".format(*facts["spacing"])
        lines.append(f"- **{name}** ({facts['modality']}, from {facts['origin']}): {size}; window")
        lines.append(f"  {facts['window']}.")
        lines += [f"  {note}" for note in facts["notes"]]
    lines += ["", "## Where they come from", ""]
    for o in ORIGINS:
        lines.append(f"- **{o.requirement}**, {o.licence} ([text](licenses/{o.name}.txt)).")
        lines.append(f"  {o.masks}")
    (pack.path / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def build(cache: Path, output: Path) -> None:
    """Fetch, check, cut and write; the old folder goes only when the new one is complete."""
    cache.mkdir(parents=True, exist_ok=True)
    if output.exists() and any(output.iterdir()) and not (output / "index.json").exists():
        raise BuildError(f"{output} is not empty and holds no index.json; name another --output")
    contents = {origin.name: read_files(origin, cache) for origin in ORIGINS}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".samples-") as scratch:
        pack = Pack(Path(scratch) / "data")
        add_lesions(pack, contents[RADIOMICS.name])
        add_chest(pack, contents[SLICERIO.name])
        add_nuclei(pack, contents[STARDIST.name])
        (pack.path / "licenses").mkdir()
        for origin in ORIGINS:
            text = contents[origin.name][origin.licence_file].replace(b"\r\n", b"\n")
            (pack.path / "licenses" / f"{origin.name}.txt").write_bytes(text)
        write_index(pack)
        write_readme(pack)
        if output.exists():
            shutil.rmtree(output)
        pack.path.rename(output)
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
        sys.exit(f"build_samples: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"build_samples: {error}; python -m pip install pynrrd tifffile")


if __name__ == "__main__":
    main()
