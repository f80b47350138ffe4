"""Defects of volumes: NIfTI, NRRD and MetaImage."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from volume_writing import SPACING, lungs, piece, save, save_pair

from defect_corpus import Expected, defect

CASES = 8  # of one healthy pair: two targets on four slices
IMAGE, LABEL = "imagesTr/bad.nii.gz", "labelsTr/bad.nii.gz"


def small() -> tuple[np.ndarray, np.ndarray]:
    """CT and labels, (4, 32, 32)."""
    pixels, labels = piece(slice(14, 18), step=4)
    return pixels, lungs(labels)


def healthy(root: Path, suffix: str = ".nii.gz", names: tuple[str, ...] = ("good",)) -> None:
    pixels, labels = small()
    for name in names:
        save_pair(root, name, suffix, pixels, labels)


def spoiled(
    name: str,
    spoil: Callable[[Path], object],
    path: str,
    cause: str,
    healthy_cases: int = CASES,
    options: str = "",
    **flags: bool,
) -> None:
    """Register a defect of a data set of two pairs, `good` and `bad`, where `spoil` harms `bad`."""

    def make(root: Path) -> Expected:
        healthy(root, names=("good", "bad"))
        spoil(root)
        return Expected(path, cause, healthy_cases, options, **flags)

    defect("nifti", name)(make)


def change(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    """Replace a volume by what `edit` makes of its voxels, with the same affine."""

    def apply(root: Path) -> None:
        image = nibabel.load(root / name)
        voxels = edit(np.asarray(image.dataobj))
        (root / name).unlink()
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), root / name)

    return apply


def rewrite(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Replace the bytes of a file."""
    return lambda root: (root / name).write_bytes(edit((root / name).read_bytes()))


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def scratched(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - b for b in content[middle : middle + 64])
        + content[middle + 64 :]
    )


def header(name: str, **fields: object) -> Callable[[Path], object]:
    """Change fields of a NIfTI header and leave the rest of the file as it is."""

    def apply(root: Path) -> None:
        packed = name.endswith(".gz")
        content = bytearray((root / name).read_bytes())
        content = bytearray(gzip.decompress(content)) if packed else content
        header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
        for field, value in fields.items():
            header[field] = value
        content[:348] = header.binaryblock
        (root / name).write_bytes(gzip.compress(content) if packed else bytes(content))

    return apply


def uncompressed(name: str, spoil: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make `bad` an uncompressed pair first."""

    def apply(root: Path) -> None:
        for folder in ("imagesTr", "labelsTr"):
            packed = root / folder / "bad.nii.gz"
            (root / folder / "bad.nii").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
        spoil(root)

    return apply


def slice_of(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Put a value into one voxel of slice 1."""

    def edit(voxels: np.ndarray) -> np.ndarray:
        voxels = voxels.astype(np.float32)
        voxels[3, 3, 1] = value
        return voxels

    return edit


def flat_slice(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.copy()
    voxels[:, :, 2] = -1000
    return voxels


def move(root: Path, shift: float = 10.0, scale: float = 1.0) -> None:
    image = nibabel.load(root / LABEL)
    voxels, affine = np.asarray(image.dataobj), image.affine.copy()
    affine[:3, 3] += shift
    affine[:3, :3] *= scale
    (root / LABEL).unlink()
    nibabel.save(nibabel.Nifti1Image(voxels, affine), root / LABEL)


def mirror(root: Path) -> None:
    image = nibabel.load(root / LABEL)
    voxels, affine = np.asarray(image.dataobj), image.affine.copy()
    affine[0] *= -1
    (root / LABEL).unlink()
    nibabel.save(nibabel.Nifti1Image(voxels, affine), root / LABEL)


def bomb(root: Path) -> None:
    """A NIfTI-2 header that promises 100 000 voxels along every axis."""
    image = nibabel.Nifti2Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    header = image.header.copy()
    content = bytearray(header.binaryblock + bytes(4 + 16))
    header["dim"] = [3, 100_000, 100_000, 100_000, 1, 1, 1, 1]
    header["magic"] = b"n+2"
    header["vox_offset"] = 544
    content[:540] = header.binaryblock
    (root / IMAGE).write_bytes(gzip.compress(bytes(content)))


def rgb(voxels: np.ndarray) -> np.ndarray:
    colours = np.zeros(voxels.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    colours["R"] = 9
    return colours


# --- damaged files -------------------------------------------------------------------
spoiled("truncated-gzip-image", rewrite(IMAGE, cut), IMAGE, "too early|damaged")
spoiled("truncated-gzip-label", rewrite(LABEL, cut), LABEL, "too early|damaged")
spoiled("truncated-gzip-header", rewrite(LABEL, lambda c: c[:40]), LABEL, "early|damaged|[Nn]ot")
spoiled("scratched-gzip-label", rewrite(LABEL, scratched), LABEL, "damaged|CRC|early")
spoiled(
    "truncated-plain-image",
    uncompressed(IMAGE, rewrite("imagesTr/bad.nii", cut)),
    "imagesTr/bad.nii",
    "promises 32 x 32 x 4 voxels.*truncated",
)
spoiled("zero-bytes-image", put(IMAGE, b""), IMAGE, r"empty \(0 bytes\)")
spoiled("zero-bytes-label", put(LABEL, b""), LABEL, r"empty \(0 bytes\)")
spoiled("text-as-volume", put(IMAGE, gzip.compress(b"hello " * 99)), IMAGE, "not a readable NIfTI")
spoiled(
    "plain-named-gz",
    rewrite(IMAGE, gzip.decompress),
    IMAGE,
    "[Nn]ot a gzipped file|not a readable",
)
spoiled("random-bytes", put(LABEL, bytes(range(256)) * 9), LABEL, "[Nn]ot a gzipped|not a readable")
spoiled("header-bomb", bomb, IMAGE, "promises 100000 x 100000 x 100000 voxels.*more than the")
spoiled(
    "header-bomb-plain",
    uncompressed(IMAGE, header("imagesTr/bad.nii", dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])),
    "imagesTr/bad.nii",
    "promises 32000 x 32000 x 32000 voxels.*truncated",
)
spoiled("empty-axis", header(LABEL, dim=[3, 32, 0, 4, 1, 1, 1, 1]), LABEL, "empty|0|[Zz]ero")
spoiled("negative-axis", header(LABEL, dim=[3, -5, 32, 4, 1, 1, 1, 1]), LABEL, ".")
spoiled("unknown-datatype", header(IMAGE, datatype=9999), IMAGE, "9999")

# --- geometry ------------------------------------------------------------------------
spoiled(
    "label-of-another-shape",
    change(LABEL, lambda v: v[:, :30]),
    LABEL,
    r"another grid than its image 'imagesTr/bad.nii.gz': the labels are 30 x 32 at .*; the image "
    r"is 32 x 32 at .* mm, 4 slices .*; resample=nearest",
)
spoiled("label-of-another-place", move, LABEL, "lies up to 17.3 mm away from its image")
spoiled("label-of-another-spacing", lambda r: move(r, 0.0, 1.2), LABEL, "copy its affine")
spoiled("label-mirrored", mirror, LABEL, "copy its affine")
spoiled(
    "affine-of-zeros",
    header(IMAGE, srow_x=0, srow_y=0, srow_z=0),
    IMAGE,
    "no three independent directions",
)
spoiled("affine-nan", header(IMAGE, srow_x=np.nan), IMAGE, "not a finite 4 x 4")
spoiled(
    "four-axes",
    change(IMAGE, lambda v: np.stack([v, v, v], 3)),
    IMAGE,
    "3 volumes along a fourth axis; choose one with channel=0",
)
spoiled(
    "no-such-channel",
    change(IMAGE, lambda v: np.stack([v, v, v], 3)),
    IMAGE,
    "no channel 5, only 3",
    options="?channel=5",
)
spoiled(
    "five-axes",
    change(IMAGE, lambda v: np.stack([np.stack([v] * 2, -1)] * 2, -1)),
    IMAGE,
    r"5 axes \(32, 32, 4, 2, 2\)",
)
spoiled(
    "a-vector-a-voxel",
    change(IMAGE, lambda v: np.stack([v] * 2, -1)[..., None, :]),
    IMAGE,
    "has 2 volumes.*choose one with channel=0",
)
spoiled(
    "label-of-four-axes",
    change(LABEL, lambda v: np.stack([v] * 2, 3)),
    LABEL,
    "2 values per voxel, and channel 0 holds the labels 1, 2.*a file each",
)

# --- values --------------------------------------------------------------------------
spoiled("colours", change(IMAGE, rgb), IMAGE, "voxels are colours")
spoiled("complex", change(IMAGE, lambda v: v.astype(np.complex64)), IMAGE, "complex64 are not")
spoiled("label-fractions", change(LABEL, lambda v: v * np.float32(0.4)), LABEL, "whole numbers")
spoiled("label-nan", change(LABEL, slice_of(np.nan)), LABEL, "slice 1: 1 labels are NaN")
spoiled("label-negative", change(LABEL, slice_of(-1)), LABEL, "label -1 is outside of 0")
spoiled("label-huge", change(LABEL, slice_of(70_000)), LABEL, "label 70000 is outside")
spoiled(
    "image-instead-of-labels",
    change(LABEL, lambda v: np.arange(v.size, dtype=np.uint16).reshape(v.shape)),
    LABEL,
    "over 1000 distinct values: an image",
)
spoiled("image-nan", change(IMAGE, slice_of(np.nan)), IMAGE, "slice 1: 1 of 1024 pixels", 14)
spoiled("image-inf", change(IMAGE, slice_of(np.inf)), IMAGE, "slice 1: .*infinite", 14)
spoiled("constant-slice", change(IMAGE, flat_slice), IMAGE, "slice 2: all pixels are -1000", 14)
spoiled("no-label-at-all", change(LABEL, np.zeros_like), LABEL, "no label above 0", note=True)

# --- what belongs together -----------------------------------------------------------
spoiled("missing-image", lambda r: (r / IMAGE).unlink(), LABEL, "no image belongs")
spoiled("missing-label", lambda r: (r / LABEL).unlink(), IMAGE, "no labels belong", note=True)


@defect("nifti", "two-images-for-one-label")
def _(root: Path) -> Expected:
    healthy(root)
    pixels, labels = small()
    for name, volume in (("t1", pixels), ("flair", pixels), ("seg", labels)):
        save(root / f"B1/B1_{name}.nii.gz", volume)
    return Expected("B1/B1_seg.nii.gz", "2 images could belong.*image=WORD", CASES)


def dataset(
    name: str, content: object, cause: str, healthy_cases: int = 2 * CASES, path: str = ""
) -> None:
    """Register a defect of dataset.json beside two healthy pairs."""

    def spoil(root: Path) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (root / "dataset.json").write_text(text)

    spoiled(name, spoil, path or "dataset.json", cause, healthy_cases)


def listed(*entries: object) -> dict[str, object]:
    return {"labels": {"R": 1, "L": 2}, "training": list(entries)}


PAIRS = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("good",)]

dataset("dataset-broken-json", '{"labels": {"0": ', "broken JSON")
dataset("dataset-not-an-object", [1, 2], "must hold an object, got list")
dataset("labels-wrong-type", {"labels": "liver"}, "labels must map")
dataset("labels-wrong-value", {"labels": {"liver": {"a": 1}}}, "must be a name or whole numbers")
dataset("labels-same-name", {"labels": {"1": "L", "2": "L"}}, "'L' appears twice")
dataset("labels-only-background", {"labels": {"background": 0}}, "nothing but background")
dataset("labels-negative", {"labels": {"liver": -1}}, "above 0|whole numbers")
dataset(
    "label-without-a-name", {"labels": {"1": "R"}}, "label 2 occurs, but dataset.json", 8, LABEL
)
dataset("training-not-a-list", {**listed(), "training": "all"}, "training must be a list", 16)
dataset("training-wrong-entry", listed(*PAIRS, 7), r"training\[1\]: image must be a path", 8)
dataset(
    "training-missing-file",
    listed(*PAIRS, {"image": "./imagesTr/gone.nii.gz", "label": "./labelsTr/bad.nii.gz"}),
    r"training\[1\]: image './imagesTr/gone.nii.gz' is missing",
    8,
)
dataset("training-twice", listed(*PAIRS, *PAIRS), r"training\[1\]: label .* is listed twice", 8)

# --- the file system -----------------------------------------------------------------
spoiled("unreadable", lambda r: (r / IMAGE).chmod(0), IMAGE, "permission denied", unprivileged=True)
spoiled("unreadable-label", lambda r: (r / LABEL).chmod(0), LABEL, "denied", unprivileged=True)


def as_fifo(root: Path) -> None:
    (root / LABEL).unlink()
    os.mkfifo(root / LABEL)


def as_broken_link(root: Path) -> None:
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to("nowhere.nii.gz")


spoiled("fifo", as_fifo, LABEL, "is a FIFO")
spoiled("broken-link", as_broken_link, IMAGE, "link cannot be followed")
spoiled("link-loop", lambda r: (r / "again").symlink_to(r), "again", "symbolic link loop", 16)


@defect("nifti", "non-ascii-and-spaces")
def _(root: Path) -> Expected:
    folder = root / "Studie Müller 研究"
    healthy(folder, names=("gut 1", "schlecht ö"))
    path = folder / "labelsTr/schlecht ö.nii.gz"
    path.write_bytes(cut(path.read_bytes()))
    return Expected("Studie Müller 研究/labelsTr/schlecht ö.nii.gz", "too early|damaged", CASES)


@defect("nifti", "a-single-file")
def _(root: Path) -> Expected:
    healthy(root)
    save(root / "alone/lonely_seg.nii", small()[1])
    return Expected("alone/lonely_seg.nii", "no image belongs", CASES)


# --- NRRD and MetaImage --------------------------------------------------------------
def itk(name: str, suffix: str, packed: bool, spoil: Callable[[Path], object], cause: str) -> None:
    """Register a defect of `bad_label` beside a healthy NIfTI pair."""

    def make(root: Path) -> Expected:
        import SimpleITK

        healthy(root)
        pixels, labels = small()
        for role, volume in (("image", pixels), ("label", labels)):
            image = SimpleITK.GetImageFromArray(volume)
            image.SetSpacing(SPACING)
            SimpleITK.WriteImage(image, str(root / f"bad_{role}{suffix}"), packed)
        spoil(root / f"bad_label{suffix}")
        return Expected(f"bad_label{suffix}", cause, CASES)

    defect("nifti", name)(make)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def replaced(old: bytes, new: bytes) -> Callable[[Path], object]:
    def apply(path: Path) -> None:
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))

    return apply


itk("nrrd-truncated-gzip", ".nrrd", True, shortened, "expected 4096 bytes|cannot read|trouble")
itk("nrrd-truncated-plain", ".nrrd", False, shortened, "promises 32 x 32 x 4 voxels")
itk("nrrd-bomb", ".nrrd", True, replaced(b"sizes: 32 32 4", b"sizes: 99999 99999 99999"), "promis")
itk("nrrd-garbage", ".nrrd", False, lambda p: p.write_bytes(b"NRRD0004\nnonsense\n\n"), "cannot")
itk("mha-truncated", ".mha", False, shortened, "promises 32 x 32 x 4 voxels")
itk("mha-bomb", ".mha", False, replaced(b"DimSize = 32 32 4", b"DimSize = 9999 9999 9999"), "prom")
itk("mhd-without-its-raw", ".mhd", False, lambda p: p.with_suffix(".raw").unlink(), "promises|read")
