"""Synthetic data sets of many small files, one per format, and the plain decoder of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg_gym.cases import load_cases

SPECS = {
    "biomedparse": "biomedparse:{root}",
    "folder": "folder:{root}?target=blob in CT",
    "parquet": "parquet:{root}",
    "nifti": "nifti:{root}",
    "dicom": "dicom:{root}",
}


def draw_images(count: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(side, side, 3) uint8 images that differ, and (side, side) uint8 masks of 0 and 255."""
    source = load_cases("phantoms", "train")
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    for number in range(min(count, 40)):
        case = source[number * 4]
        size = (side, side)
        scaled = Image.fromarray(case.image).resize(size, Image.Resampling.BILINEAR)
        truth = Image.fromarray(case.mask).convert("L").resize(size, Image.Resampling.NEAREST)
        drawn.append((np.asarray(scaled), np.asarray(truth)))
    for number in range(count):
        image, mask = drawn[number % len(drawn)]
        changed = image.copy()
        changed[0, :3, 0] = number % 251, number // 251 % 251, number // 63001
        yield changed, mask


def write_biomedparse(root: Path, count: int, side: int) -> int:
    """Write `count` files: half images, half masks."""
    annotations = []
    for folder in ("train", "train_mask"):
        (root / folder).mkdir(parents=True)
    for number, (image, mask) in enumerate(draw_images(count // 2, side)):
        name = f"{number:06d}_CT_abdomen.png"
        Image.fromarray(image).save(root / "train" / name, compress_level=1)
        Image.fromarray(mask).save(root / "train_mask" / name, compress_level=1)
        sentences = [{"sent": "blob in abdomen CT"}]
        annotations.append({"file_name": name, "mask_file": name, "sentences": sentences})
    (root / "train.json").write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    return 2 * len(annotations)


def write_folder(root: Path, count: int, side: int) -> int:
    """Write `count` files: half images, half masks."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, (image, mask) in enumerate(draw_images(count // 2, side)):
        Image.fromarray(image).save(root / "images" / f"{number:06d}.png", compress_level=1)
        Image.fromarray(mask).save(root / "masks" / f"{number:06d}.png", compress_level=1)
    return count // 2 * 2


def write_parquet(root: Path, count: int, side: int) -> int:
    """Write `count` rows, 128 a file, each with two images."""
    from medseg_gym.cases import Case
    from medseg_gym.cases.writers.parquet import ParquetWriter

    writer = ParquetWriter(root, "train", "benchmark", count)
    writer.resume()
    for number, (image, mask) in enumerate(draw_images(count, side)):
        writer.write(Case(f"{number}", image, mask > 0, "blob in CT", "CT"))
    writer.finish()
    return count


def write_nifti(root: Path, count: int, side: int) -> int:
    """Write `count` files: half image volumes of four slices, half label volumes."""
    import nibabel

    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    labels = {"background": 0, "blob": 1}
    described = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    for number, (image, mask) in enumerate(draw_images(count // 2, side)):
        volume = np.repeat(image[:, :, :1].astype(np.int16), 4, axis=2)
        label = np.repeat((mask > 0).astype(np.uint8)[:, :, None], 4, axis=2)
        name = f"case_{number:06d}"
        nibabel.save(nibabel.Nifti1Image(volume, affine), root / "imagesTr" / f"{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), root / "labelsTr" / f"{name}.nii.gz")
    return count // 2 * 2


def write_dicom(root: Path, count: int, side: int) -> int:
    """Write `count` files: series of 99 slices, each with one structure set."""
    from benchmarks.data.case_dicom import write_series

    stacks = draw_images(count, side)
    for series in range(count // 100):
        write_series(root / f"patient{series:03d}", series, [next(stacks) for _ in range(99)])
    return count // 100 * 100


WRITERS: dict[str, Callable[[Path, int, int], int]] = {
    "biomedparse": write_biomedparse,
    "folder": write_folder,
    "parquet": write_parquet,
    "nifti": write_nifti,
    "dicom": write_dicom,
}


def _decode_pairs(pairs: list[tuple[Path, Path]]) -> int:
    for image, mask in pairs:
        np.asarray(Image.open(image).convert("RGB"))
        np.asarray(Image.open(mask)) > 0  # noqa: B015
    return len(pairs)


def decode_biomedparse(root: Path) -> int:
    """Pillow on every image and mask; returns the number of cases."""
    folder = root / "train_mask"
    return _decode_pairs([(root / "train" / mask.name, mask) for mask in sorted(folder.iterdir())])


def decode_folder(root: Path) -> int:
    """Pillow on every image and mask; returns the number of cases."""
    folder = root / "masks"
    return _decode_pairs([(root / "images" / mask.name, mask) for mask in sorted(folder.iterdir())])


def decode_parquet(root: Path) -> int:
    """Pyarrow and Pillow on every row; returns the number of cases."""
    import io

    import pyarrow.parquet as pq

    count = 0
    for path in sorted(root.glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.metadata.num_row_groups):
            for row in file.read_row_group(group, ["images", "reward_model"]).to_pylist():
                np.asarray(Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB"))
                truth = row["reward_model"]["ground_truth"]["bytes"]
                np.asarray(Image.open(io.BytesIO(truth))) > 127  # noqa: B015
                count += 1
    return count


def decode_nifti(root: Path) -> int:
    """Nibabel on every volume, slices windowed; returns the number of slices with foreground."""
    import nibabel

    from medseg_gym.cases import window_to_rgb

    count = 0
    for path in sorted((root / "labelsTr").iterdir()):
        name = path.name.replace(".nii.gz", "_0000.nii.gz")
        volume: Any = nibabel.load(root / "imagesTr" / name)
        truth: Any = nibabel.load(path)
        image, label = volume.get_fdata(dtype=np.float32), np.asarray(truth.dataobj)
        for index in range(label.shape[2]):
            if (label[:, :, index] == 1).any():
                window_to_rgb(image[:, :, index], -160, 240)
                count += 1
    return count


def decode_dicom(root: Path) -> int:
    """Pydicom on every slice, rescaled and windowed; structure sets are left out."""
    import pydicom

    from medseg_gym.cases import window_to_rgb

    count = 0
    for path in sorted(root.glob("*/slice*.dcm")):
        data = pydicom.dcmread(path)
        pixels = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        window_to_rgb(pixels, -160, 240)
        count += 1
    return count


DECODERS: dict[str, Callable[[Path], int]] = {
    "biomedparse": decode_biomedparse,
    "folder": decode_folder,
    "parquet": decode_parquet,
    "nifti": decode_nifti,
    "dicom": decode_dicom,
}
