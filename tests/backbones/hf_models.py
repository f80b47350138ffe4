"""Small random models of every family of transformers that `hf:` plays, with their processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def save_tiny(kind: str, folder: Path) -> Path:
    """Write a checkpoint as transformers saves one.

    Args:
        kind: A `model_type` of `FAMILIES`.
        folder: Where.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = _MAKE[kind](kind)
        with torch.no_grad():  # fresh weights are so small that no prompt would matter
            for name, parameter in model.named_parameters():
                if "vision" not in name and parameter.ndim > 1:
                    parameter *= 8
                elif parameter.ndim == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    if kind == "sam3_video":
        # As published: save_pretrained writes the tracker's names with their prefix twice.
        state = {name: value.clone() for name, value in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    processor.save_pretrained(folder)
    return folder


def _sam(kind: str) -> tuple[Any, Any]:
    import transformers as t

    name = "SamHQ" if kind == "sam_hq" else "Sam"
    vision = getattr(t, f"{name}VisionConfig")(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=128,
        output_channels=32,
        mlp_dim=64,
        window_size=4,
        global_attn_indexes=[1, 2],
        num_pos_feats=16,
    )
    prompts = getattr(t, f"{name}PromptEncoderConfig")(hidden_size=32, image_size=128)
    of_hq = {"vit_dim": 32} if kind == "sam_hq" else {}
    config = getattr(t, f"{name}Config")(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompts.to_dict(),
        mask_decoder_config=getattr(t, f"{name}MaskDecoderConfig")(**_DECODER, **of_hq).to_dict(),
    )
    images = t.SamImageProcessor(
        size={"longest_edge": 128},
        pad_size={"height": 128, "width": 128},
        mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    )
    return getattr(t, f"{name}Model")(config), getattr(t, f"{name}Processor")(images)


def _sam2(kind: str) -> tuple[Any, Any]:
    import transformers as t

    backbone = t.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[128, 128],
        blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 8, 4],
        global_attention_blocks=[4],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = t.Sam2VisionConfig(
        backbone_config=backbone.to_dict(),
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=_SIZES,
        fpn_hidden_size=32,
    )
    parts = {
        "vision_config": vision.to_dict(),
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 128},
        "mask_decoder_config": dict(_DECODER),
    }
    if kind == "sam2":
        return t.Sam2Model(t.Sam2Config(**parts)), _square(t, 128)
    memory = {
        "memory_attention_hidden_size": 32,
        "memory_attention_num_layers": 1,
        "memory_attention_num_attention_heads": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [8, 8],
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
        "image_size": 128,
    }
    return t.Sam2VideoModel(t.Sam2VideoConfig(**parts, **memory)), _square(t, 128)


def _edgetam(kind: str) -> tuple[Any, Any]:
    import transformers as t

    backbone = t.TimmWrapperConfig(
        architecture="repvit_m1",
        do_pooling=False,
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = t.EdgeTamVisionConfig(
        backbone_config=backbone.to_dict(),
        backbone_channel_list=[384, 192, 96, 48],
        backbone_feature_sizes=_SIZES,
        fpn_hidden_size=32,
    )
    config = t.EdgeTamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config=dict(_DECODER),
    )
    return t.EdgeTamModel(config), _square(t, 128)


def _words(t: Any) -> Any:
    """A tokenizer that knows single characters."""
    letters = [chr(code) for code in range(33, 127)]
    texts = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    return t.CLIPTokenizer(vocab={text: i for i, text in enumerate(texts)}, merges=[])


def _sam3_config(t: Any) -> Any:
    sizes = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**sizes, "intermediate_size": 64, "num_layers": 1}
    text = {
        **{"model_type": "clip_text_model", "vocab_size": 190, "intermediate_size": 64},
        **{"projection_dim": 32, "num_hidden_layers": 1, "max_position_embeddings": 32},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
    }
    return t.Sam3Config(
        vision_config=_sam3_vision(t).to_dict(),
        text_config={**text, **sizes},
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 12},
        mask_decoder_config=sizes,
    )


def _sam3(kind: str) -> tuple[Any, Any]:
    import transformers as t

    return t.Sam3Model(_sam3_config(t)), t.Sam3Processor(_sam3_images(t), _words(t))


def _sam3_video(kind: str) -> tuple[Any, Any]:
    import transformers as t

    memory = {
        "memory_attention_hidden_size": 32,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [8, 8],
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
        "image_size": 112,
    }
    tracker = t.Sam3TrackerVideoConfig(
        vision_config=_sam3_vision(t).to_dict(),
        prompt_encoder_config={"hidden_size": 32, "image_size": 112},
        mask_decoder_config=dict(_DECODER),
        **memory,
    )
    config = t.Sam3VideoConfig(
        detector_config=_sam3_config(t).to_dict(), tracker_config=tracker.to_dict()
    )
    size = {"height": 112, "width": 112}
    videos = t.Sam2VideoVideoProcessor(size=size)
    return t.Sam3VideoModel(config), t.Sam3VideoProcessor(_sam3_images(t), videos, _words(t))


def _sam3_vision(t: Any) -> Any:
    backbone = t.Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        window_size=4,
        global_attn_indexes=[1],
        pretrain_image_size=56,
    )
    return t.Sam3VisionConfig(
        backbone_config=backbone.to_dict(), fpn_hidden_size=32, backbone_feature_sizes=_SIZES
    )


def _sam3_images(t: Any) -> Any:
    size = {"height": 112, "width": 112}
    return t.Sam3ImageProcessor(size=size, mask_size={"height": 32, "width": 32})


def _sam3_tracker(kind: str) -> tuple[Any, Any]:
    import transformers as t

    config = t.Sam3TrackerConfig(
        vision_config=_sam3_vision(t).to_dict(),
        prompt_encoder_config={"hidden_size": 32, "image_size": 112},
        mask_decoder_config=dict(_DECODER),
    )
    return t.Sam3TrackerModel(config), t.Sam3TrackerProcessor(_sam3_images(t))


def _square(t: Any, side: int) -> Any:
    size, masks = {"height": side, "width": side}, {"height": side // 4, "width": side // 4}
    return t.Sam2Processor(t.Sam2ImageProcessor(size=size, mask_size=masks))


_SIZES = [[32, 32], [16, 16], [8, 8]]
_DECODER = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
_MAKE = {
    "sam": _sam,
    "sam_hq": _sam,
    "sam2": _sam2,
    "sam2_video": _sam2,
    "edgetam": _edgetam,
    "sam3_tracker": _sam3_tracker,
    "sam3": _sam3,
    "sam3_video": _sam3_video,
}
