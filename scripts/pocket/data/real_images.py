"""Gather the real images that `pocket` is trained on from data that Python packages carry.

    python -m pip install numpy pillow scipy pynrrd tifffile nibabel pydicom scikit-image
    python -m scripts.pocket.data.real_images [--cache DIR] [--output FILE]

Volumes of the train split alone, all their slices: the chest CT of slicerio in three windows, the
second brain MRI of pyradiomics, the average brain of nilearn in three planes; and single images:
stardist's nuclei and histology, scikit-image's fundus, histology and cell, pydicom's ultrasound and
abdominal MRI. Volumes of the val and test splits are never opened. The output holds, per image,
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

from scripts.samples.fetching import BuildError, fetch, read_files
from scripts.samples.lesions import LESIONS
from scripts.samples.origins import NILEARN, RADIOMICS, SLICERIO, STARDIST
from scripts.samples.volumes import read_volume
from scripts.samples.windows import CT_WINDOW, grey, percentiles

CT_WINDOWS = {"lung": CT_WINDOW, "soft": (-160.0, 240.0), "bone": (-250.0, 950.0)}
SAGITTAL_STEP = 7  # slices of the average brain
TISSUE_THRESHOLD = 127  # of the tissue maps' 0..255, as a label
Arrays = dict[str, np.ndarray]


def add_chest(arrays: Arrays, cache: Path) -> None:
    """Add every slice of the chest CT, in three windows."""
    contents = read_files(SLICERIO, cache)
    volume, _ = read_volume(contents["slicerio/data/CTChest4.nrrd"])
    labels, _ = read_volume(contents["slicerio/data/Segmentation.seg.nrrd"])
    for z in range(len(volume)):
        for name, window in CT_WINDOWS.items():
            arrays[f"image/chest-{z:03d}-{name}"] = grey(volume[z], window)
            arrays[f"labels/chest-{z:03d}-{name}"] = labels[z].astype(np.int16)


def add_lesion_volumes(arrays: Arrays, cache: Path) -> None:
    """Add every slice of the lesion volumes of the train split."""
    contents = read_files(RADIOMICS, cache)
    for lesion in LESIONS:
        if lesion.split != "train":
            continue
        volume, _ = read_volume(contents[f"data/{lesion.name}_image.nrrd"])
        labels, _ = read_volume(contents[f"data/{lesion.name}_label.nrrd"])
        window = lesion.window or percentiles(volume[volume > 0])
        for z in range(len(volume)):
            arrays[f"image/{lesion.name}-{z:03d}"] = grey(volume[z], window)
            arrays[f"labels/{lesion.name}-{z:03d}"] = labels[z].astype(np.int16)


def add_average_brain(arrays: Arrays, cache: Path) -> None:
    """Add slices of the MNI152 average brain; labels are its grey and white matter maps."""
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
        length: int = labels.shape[axis]
        for place in range(length // 8, length - length // 8, SAGITTAL_STEP):
            slices = [np.rot90(np.take(v, place, axis)) for v in (volumes["t1"], labels)]
            arrays[f"image/mni-{plane}-{place:03d}"] = grey(slices[0], window)
            arrays[f"labels/mni-{plane}-{place:03d}"] = np.ascontiguousarray(slices[1])


def _gunzip(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content)


def add_microscopy(arrays: Arrays, cache: Path) -> None:
    """Add the fluorescence image of stardist with its nuclei, and its histology without labels."""
    import tifffile
    from PIL import Image

    contents = read_files(STARDIST, cache)
    nuclei = tifffile.imread(io.BytesIO(contents["stardist/data/images/img2d.tif"]))
    masks = tifffile.imread(io.BytesIO(contents["stardist/data/images/mask2d.tif"]))
    arrays["image/nuclei"] = grey(nuclei, percentiles(nuclei))
    arrays["labels/nuclei"] = masks.astype(np.int16)
    with zipfile.ZipFile(fetch(STARDIST, cache)) as wheel:
        histology = wheel.read("stardist/data/images/histo.jpg")
    arrays["image/histology"] = np.array(Image.open(io.BytesIO(histology)).convert("RGB"))


def add_single_images(arrays: Arrays) -> None:
    """Add images that scikit-image and pydicom install; none of them is labelled."""
    import pydicom
    import skimage.data
    from pydicom.data import get_testdata_file

    for name in ("retina", "immunohistochemistry", "cell", "microaneurysms"):
        arrays[f"image/{name}"] = np.asarray(getattr(skimage.data, name)())
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
        all_frames = pixels if int(dataset.get("NumberOfFrames", 1)) > 1 else pixels[None]
        for i in range(frames):
            frame = all_frames[i * len(all_frames) // frames]
            if frame.ndim == 2:
                frame = grey(frame, percentiles(frame))
            arrays[f"image/{Path(file).stem}-{i}"] = frame


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--cache", type=Path, default=Path("~/.cache/medseg_gym/samples").expanduser()
    )
    parser.add_argument("--output", type=Path, default=Path("out/pocket/real_images.npz"))
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    arrays: Arrays = {}
    try:
        add_chest(arrays, options.cache)
        add_lesion_volumes(arrays, options.cache)
        add_average_brain(arrays, options.cache)
        add_microscopy(arrays, options.cache)
        add_single_images(arrays)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output, **arrays)  # type: ignore[arg-type]
    count = sum(name.startswith("image/") for name in arrays)
    print(f"{count} images, {len(arrays) - count} with labels: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
