"""Gather the real pictures that `pocket` is trained on from data that Python packages carry.

    python -m pip install numpy pillow scipy pynrrd tifffile nibabel pydicom scikit-image
    python scripts/build_pocket_pictures.py [--cache DIR] [--output FILE]

Volumes of the train split alone, all their slices: the chest CT of slicerio in three windows, the
second brain MRI of pyradiomics, the average brain of nilearn in three planes; and single pictures:
stardist's nuclei and histology, scikit-image's fundus, histology and cell, pydicom's ultrasound and
abdominal MRI. Volumes of the val and test splits are never opened. The output holds, per picture,
`image/NAME` (H, W) or (H, W, 3) uint8 and, where the package has a segmentation, `labels/NAME`
(H, W) int16, 0 for none.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from samples.errors import BuildError
from samples.fetching import fetch, read_files
from samples.lesions import LESIONS
from samples.origins import NILEARN, RADIOMICS, SLICERIO, STARDIST
from samples.volumes import read_volume
from samples.windows import CT_WINDOW, grey, percentiles

CT_WINDOWS = {"lung": CT_WINDOW, "soft": (-160.0, 240.0), "bone": (-250.0, 950.0)}
SAGITTAL_STEP = 7  # slices of the average brain
TISSUE_THRESHOLD = 127  # of the tissue maps' 0..255, as a label
Pictures = dict[str, np.ndarray]


def add_chest(pictures: Pictures, cache: Path) -> None:
    """Every slice of the chest CT, in three windows."""
    contents = read_files(SLICERIO, cache)
    volume, _ = read_volume(contents["slicerio/data/CTChest4.nrrd"])
    labels, _ = read_volume(contents["slicerio/data/Segmentation.seg.nrrd"])
    for z in range(len(volume)):
        for name, window in CT_WINDOWS.items():
            pictures[f"image/chest-{z:03d}-{name}"] = grey(volume[z], window)
            pictures[f"labels/chest-{z:03d}-{name}"] = labels[z].astype(np.int16)


def add_lesion_volumes(pictures: Pictures, cache: Path) -> None:
    """Every slice of the lesion volumes of the train split."""
    contents = read_files(RADIOMICS, cache)
    for lesion in LESIONS:
        if lesion.split != "train":
            continue
        volume, _ = read_volume(contents[f"data/{lesion.name}_image.nrrd"])
        labels, _ = read_volume(contents[f"data/{lesion.name}_label.nrrd"])
        window = lesion.window or percentiles(volume[volume > 0])
        for z in range(len(volume)):
            pictures[f"image/{lesion.name}-{z:03d}"] = grey(volume[z], window)
            pictures[f"labels/{lesion.name}-{z:03d}"] = labels[z].astype(np.int16)


def add_average_brain(pictures: Pictures, cache: Path) -> None:
    """Slices of the MNI152 average brain; labels are its grey and white matter maps."""
    import nibabel

    contents = read_files(NILEARN, cache)
    volumes = {}
    for path, content in contents.items():
        if path.endswith(".nii.gz"):
            kind = path.split("icbm152_")[1].split("_")[0]
            image = nibabel.Nifti1Image.from_bytes(_gunzip(content))
            volumes[kind] = np.asarray(image.dataobj)
    labels = np.zeros(volumes["t1"].shape, np.int16)
    labels[volumes["gm"] > TISSUE_THRESHOLD] = 1
    labels[volumes["wm"] > TISSUE_THRESHOLD] = 2
    window = percentiles(volumes["t1"][volumes["t1"] > 0])
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        length = labels.shape[axis]
        for place in range(length // 8, length - length // 8, SAGITTAL_STEP):
            slices = [np.rot90(np.take(v, place, axis)) for v in (volumes["t1"], labels)]
            pictures[f"image/mni-{plane}-{place:03d}"] = grey(slices[0], window)
            pictures[f"labels/mni-{plane}-{place:03d}"] = np.ascontiguousarray(slices[1])


def _gunzip(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content)


def add_microscopy(pictures: Pictures, cache: Path) -> None:
    """The fluorescence picture of stardist with its nuclei, and its histology without labels."""
    import tifffile
    from PIL import Image

    contents = read_files(STARDIST, cache)
    nuclei = tifffile.imread(io.BytesIO(contents["stardist/data/images/img2d.tif"]))
    masks = tifffile.imread(io.BytesIO(contents["stardist/data/images/mask2d.tif"]))
    pictures["image/nuclei"] = grey(nuclei, percentiles(nuclei))
    pictures["labels/nuclei"] = masks.astype(np.int16)
    with zipfile.ZipFile(fetch(STARDIST, cache)) as wheel:
        histology = wheel.read("stardist/data/images/histo.jpg")
    pictures["image/histology"] = np.array(Image.open(io.BytesIO(histology)).convert("RGB"))


def add_single_pictures(pictures: Pictures) -> None:
    """What scikit-image and pydicom install; none of it is labelled."""
    import pydicom
    import skimage.data
    from pydicom.data import get_testdata_file

    for name in ("retina", "immunohistochemistry", "cell", "microaneurysms"):
        pictures[f"image/{name}"] = np.asarray(getattr(skimage.data, name)())
    for file, frames in (
        ("examples_rgb_color.dcm", 1),
        ("examples_ybr_color.dcm", 3),
        ("examples_overlay.dcm", 1),
    ):
        path = get_testdata_file(file, download=False)
        if path is None:
            raise BuildError(f"the installed pydicom has no test file {file}")
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array  # pydicom turns YBR into RGB
        many = pixels if int(dataset.get("NumberOfFrames", 1)) > 1 else pixels[None]
        for i in range(frames):
            frame = many[i * len(many) // frames]
            if frame.ndim == 2:
                frame = grey(frame, percentiles(frame))
            pictures[f"image/{Path(file).stem}-{i}"] = frame


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--cache", type=Path, default=Path("~/.cache/medseg_gym/samples").expanduser()
    )
    parser.add_argument("--output", type=Path, default=Path("out/pocket/pictures.npz"))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    pictures: Pictures = {}
    try:
        add_chest(pictures, options.cache)
        add_lesion_volumes(pictures, options.cache)
        add_average_brain(pictures, options.cache)
        add_microscopy(pictures, options.cache)
        add_single_pictures(pictures)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output, **pictures)
    images = [name for name in pictures if name.startswith("image/")]
    print(f"{len(images)} pictures, {len(pictures) - len(images)} with labels: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
