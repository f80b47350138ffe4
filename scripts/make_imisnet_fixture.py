"""Make `tests/backbones/fixtures/imisnet_mini.npz`: IMISNet computed the slow way, row by row.

Nothing of `medseg_gym` is imported. The image encoder is segment_anything's own ViT (with timm's
parameter names translated), the prompt encoder and the two-way transformer are its stock modules
and the text encoder is transformers' CLIPTextModel; weights are random and seeded. The file holds
`config` and `rows` (JSON bytes), `w.*` (state dict in the official layout), `in.image`,
`in.tokens.<name>` (token ids of each text) and `out.<row>.logits` / `out.<row>.iou`.

    python scripts/make_imisnet_fixture.py [FILE]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything.modeling import ImageEncoderViT, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

FILE = Path(__file__).parents[1] / "tests/backbones/fixtures/imisnet_mini.npz"
CONFIG: dict[str, Any] = {
    "image_size": 128,
    "encoder_embed_dim": 24,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [1],
    "timm_neck_chans": 4,
    "prompt_embed_dim": 32,
    "decoder_mlp_dim": 24,
    "iou_head_hidden_dim": 8,
    "text_config": {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "pad_token_id": 1,
    },
}
# Points (x, y, label) and boxes (x1, y1, x2, y2) in pixels of the image, the half not yet added.
ROWS: dict[str, dict[str, Any]] = {
    "click": {"points": [[40.0, 33.0, 1]]},
    "clicks": {"points": [[40.0, 33.0, 1], [11.5, 70.0, 0], [55.0, 48.25, 1]]},
    "box": {"box": [9.0, 14.0, 61.0, 80.5]},
    "box_clicks": {"box": [9.0, 14.0, 61.0, 80.5], "points": [[40.0, 33.0, 1], [3.0, 5.0, 0]]},
    "text": {"text": "liver"},
    "text_click": {"text": "left kidney", "points": [[40.0, 33.0, 1]]},
    "mask_click": {"mask": "click", "points": [[40.0, 33.0, 1], [20.0, 60.0, 0]]},
    "all": {
        "mask": "box",
        "box": [9.0, 14.0, 61.0, 80.5],
        "points": [[20.0, 60.0, 0]],
        "text": "liver",
    },
}
TOKENS = {"liver": [0, 5, 17, 9, 38, 3], "left kidney": [0, 5, 17, 9, 21, 30, 38, 3]}


class Reference(nn.Module):
    """The parts of IMISNet from stock modules, named as in the official file where possible."""

    def __init__(self) -> None:
        super().__init__()
        c, width, grid = CONFIG, CONFIG["prompt_embed_dim"], CONFIG["image_size"] // 16
        self.image_encoder = ImageEncoderViT(
            img_size=c["image_size"],
            embed_dim=c["encoder_embed_dim"],
            depth=c["encoder_depth"],
            num_heads=c["encoder_num_heads"],
            out_chans=width,
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=tuple(c["encoder_global_attn_indexes"]),
        )
        self.prompt_encoder = PromptEncoder(width, (grid, grid), (c["image_size"],) * 2, 16)
        self.mask_decoder = nn.Module()
        self.mask_decoder.transformer = TwoWayTransformer(2, width, 8, c["decoder_mlp_dim"])
        self.mask_decoder.iou_token = nn.Embedding(1, width)
        self.mask_decoder.mask_tokens = nn.Embedding(4, width)
        self.mask_decoder.semantic_tokens = nn.Embedding(4, width)
        self.mask_decoder.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.mask_decoder.output_hypernetworks_mlps = nn.ModuleList(
            MLP(width, width, width // 8, 3) for _ in range(4)
        )
        self.mask_decoder.text_output = nn.Linear(width, width // 8)
        hidden = c["iou_head_hidden_dim"]
        self.mask_decoder.iou_prediction_head = MLP(width, hidden, 4, 3)
        self.mask_decoder.semantic_prediction_head = MLP(width, hidden, 512, 3)
        text = CLIPTextModel(CLIPTextConfig(**c["text_config"]))
        self.text_model = getattr(text, "text_model", text)
        self.text_out_dim = nn.Linear(c["text_config"]["hidden_size"], width)

    def official_state(self) -> dict[str, torch.Tensor]:
        """Weights under the official file's names, with a neck of timm's that nothing uses."""
        state = {}
        for key, value in self.state_dict().items():
            if key.startswith("image_encoder.") and not key.startswith("image_encoder.neck."):
                key = key.replace("image_encoder.", "image_encoder.sam_encoder.", 1)
                key = key.replace(".mlp.lin", ".mlp.fc")
            state[key] = value
        neck, inside = CONFIG["timm_neck_chans"], "image_encoder.sam_encoder.neck"
        state[f"{inside}.0.weight"] = torch.randn(neck, CONFIG["encoder_embed_dim"], 1, 1)
        state[f"{inside}.2.weight"] = torch.randn(neck, neck, 3, 3)
        for layer in (1, 3):
            state[f"{inside}.{layer}.weight"] = torch.ones(neck)
            state[f"{inside}.{layer}.bias"] = torch.zeros(neck)
        return state

    def encode(self, image: np.ndarray) -> torch.Tensor:
        """1 x C x h x w embedding; Pillow's NEAREST has half-pixel centres, as IMISNet's."""
        side = CONFIG["image_size"]
        squashed = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
        mean = 255 * torch.tensor([0.485, 0.456, 0.406])
        std = 255 * torch.tensor([0.229, 0.224, 0.225])
        return self.image_encoder(((torch.tensor(squashed) - mean) / std).permute(2, 0, 1)[None])

    def decode(
        self, embedding: torch.Tensor, size: tuple[int, int], row: dict[str, Any], mask: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """4h x 4w logits of the best of masks 1 to 3 and its predicted IoU, for one row."""
        height, width = size
        scale = torch.tensor([CONFIG["image_size"] / width, CONFIG["image_size"] / height])
        points = box = text = None
        if "points" in row:
            table = torch.tensor(row["points"])
            points = ((table[:, :2] * scale)[None], table[None, :, 2])
        if "box" in row:
            box = (torch.tensor(row["box"]).view(2, 2) * scale).view(1, 4)
        sparse, dense = self.prompt_encoder(points, box, mask)
        if "text" in row:
            pooled = self.text_model(torch.tensor([TOKENS[row["text"]]])).pooler_output
            text = self.text_out_dim(pooled)
            sparse = torch.cat([sparse, text[:, None]], dim=1)
        d = self.mask_decoder
        outputs = [d.iou_token.weight, d.mask_tokens.weight, d.semantic_tokens.weight]
        tokens = torch.cat([torch.cat(outputs)[None], sparse], dim=1)
        source = embedding + dense
        hidden, image = d.transformer(source, self.prompt_encoder.get_dense_pe(), tokens)
        upscaled = d.output_upscaling(image.transpose(1, 2).reshape(source.shape))
        flat = upscaled.flatten(2)
        kernels = [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(d.output_hypernetworks_mlps)]
        masks = torch.stack(kernels, dim=1) @ flat
        if text is not None:
            masks = masks + d.text_output(text)[:, None] @ flat
        iou = d.iou_prediction_head(hidden[:, 0])
        best = int(iou[0, 1:].argmax()) + 1
        return masks[0, best].reshape(upscaled.shape[2:]), iou[0, best]


def make() -> dict[str, np.ndarray]:
    """Compute everything that the file holds."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(361)
        reference = Reference().eval()
        for name, parameter in reference.named_parameters():
            # Position tables start as zeros: draw them too, so that they matter.
            if "pos" in name:
                parameter.normal_(0, 0.3)
        state = reference.official_state()
        image = np.random.default_rng(361).integers(0, 256, (96, 75, 3), dtype=np.uint8)
        arrays = {
            "config": np.frombuffer(json.dumps(CONFIG).encode(), np.uint8),
            "rows": np.frombuffer(json.dumps(ROWS).encode(), np.uint8),
            "in.image": image,
        }
        arrays |= {f"in.tokens.{name}": np.array(ids) for name, ids in TOKENS.items()}
        arrays |= {f"w.{key}": value.numpy() for key, value in state.items()}
        embedding = reference.encode(image)
        for name, row in ROWS.items():
            mask = None
            if "mask" in row:
                mask = torch.from_numpy(arrays[f"out.{row['mask']}.logits"])[None, None]
            logits, iou = reference.decode(embedding, image.shape[:2], row, mask)
            arrays[f"out.{name}.logits"] = logits.numpy()
            arrays[f"out.{name}.iou"] = iou.numpy()
    return arrays


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **make())
    print(f"{file}: {file.stat().st_size} bytes")
