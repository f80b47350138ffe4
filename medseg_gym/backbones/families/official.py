"""The backbones that come with the package, their official weight files and pages."""

from __future__ import annotations

from medseg_gym.backbones.spec import BackboneSpec

_SAM_PAGE = "https://github.com/facebookresearch/segment-anything#model-checkpoints"
_SAM2_PAGE = "https://github.com/facebookresearch/sam2#download-checkpoints"


def _official_sam(size: str, file: str, parameters: float) -> BackboneSpec:
    name = f"sam_{size}"
    return BackboneSpec(
        "medseg_gym.backbones.families.sam.backbone:build",
        f"Segment Anything, {size.replace('_', '-').upper()}",
        checkpoint=file,
        page=_SAM_PAGE,
        options=(("size", size), ("name", name)),
        parameters=parameters,
        image_size=1024,
    )


def _official_sam2(version: str, size: str, file: str, parameters: float) -> BackboneSpec:
    name = f"sam{version}_{size}"
    return BackboneSpec(
        "medseg_gym.backbones.families.sam2.backbone:build",
        f"Segment Anything {version}, Hiera {size.upper()}",
        checkpoint=file,
        page=_SAM2_PAGE,
        options=(("config", f"sam{version}_hiera_{size}"), ("name", name)),
        parameters=parameters,
        image_size=1024,
        extra=("sam2", "sam2"),
    )


OFFICIAL: dict[str, BackboneSpec] = {
    "pocket": BackboneSpec(
        "medseg_gym.backbones.families.pocket:build",
        "small SAM of this project's own for boxes and clicks; weights come with the package",
        parameters=4.0,
        image_size=256,
    ),
    "lite_medsam": BackboneSpec(
        "medseg_gym.backbones.families.lite_medsam:build",
        "LiteMedSAM, trained for boxes; weights come with the installation",
        parameters=9.8,
        image_size=256,
    ),
    "ellipse": BackboneSpec(
        "medseg_gym.backbones.families.ellipse:build",
        "image-blind control: an ellipse in the box, a disc round each click",
        parameters=0,
        image_size=256,
    ),
    "sam_vit_b": _official_sam("vit_b", "sam_vit_b_01ec64.pth", 93.7),
    "sam_vit_l": _official_sam("vit_l", "sam_vit_l_0b3195.pth", 312.3),
    "sam_vit_h": _official_sam("vit_h", "sam_vit_h_4b8939.pth", 641.1),
    "sam2.1_t": _official_sam2("2.1", "t", "sam2.1_hiera_tiny.pt", 39.0),
    "sam2.1_s": _official_sam2("2.1", "s", "sam2.1_hiera_small.pt", 46.1),
    "sam2.1_b+": _official_sam2("2.1", "b+", "sam2.1_hiera_base_plus.pt", 80.9),
    "sam2.1_l": _official_sam2("2.1", "l", "sam2.1_hiera_large.pt", 224.4),
    "sam2_t": _official_sam2("2", "t", "sam2_hiera_tiny.pt", 39.0),
    "sam2_s": _official_sam2("2", "s", "sam2_hiera_small.pt", 46.0),
    "sam2_b+": _official_sam2("2", "b+", "sam2_hiera_base_plus.pt", 80.9),
    "sam2_l": _official_sam2("2", "l", "sam2_hiera_large.pt", 224.4),
    "medsam2": BackboneSpec(
        "medseg_gym.backbones.families.sam2.backbone:build_medsam2",
        "MedSAM2: SAM 2.1 tiny trained on medical images",
        checkpoint="MedSAM2_latest.pt",
        page="https://huggingface.co/wanglab/MedSAM2",
        parameters=39.0,
        image_size=512,
        extra=("sam2", "sam2"),
    ),
    "imisnet": BackboneSpec(
        "medseg_gym.backbones.families.imisnet.backbone:build",
        "IMISNet-B (IMed-361M)",
        checkpoint="IMISNet-B.pth",
        page="https://github.com/uni-medical/IMIS-Bench",
        parameters=182.5,
        image_size=1024,
        kinds=("box", "point", "text"),
        extra=("imisnet", "transformers"),
    ),
}
