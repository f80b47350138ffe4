"""ImisNetBackbone: IMISNet (IMed-361M), prompted by boxes, clicks and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.collate import INERT, NOT_A_POINT, collate
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.backbones.families.imisnet.model import ImisNet, ImisNetConfig, adapt_state
from medseg_gym.backbones.families.sam.backbone import SamBackbone
from medseg_gym.backbones.protocol import Prediction, PromptRow
from medseg_gym.errors import BackboneError, CheckpointError

Tokenizer = Callable[[list[str]], Mapping[str, Any]]  # sentences -> {"input_ids": [[...], ...]}

TEXT_TEMPLATE = "A segmentation area of a {name}."
TOKENIZER_FOLDER = "clip-vit-base-patch32"  # looked for beside the weight file
_TOKENIZER_PAGE = "https://huggingface.co/openai/clip-vit-base-patch32/tree/main"
_TEXTS_KEPT = 4096


def phrase(name: str) -> str:
    """Put a target's name into the sentence that IMISNet was trained with.

    >>> phrase("Left_Kidney")
    'A segmentation area of a left kidney.'
    """
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return TEXT_TEMPLATE.format(name=plain)


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """Read CLIP's tokenizer from a folder with `vocab.json` and `merges.txt`.

    Raises:
        BackboneError: transformers is missing, or the folder holds no such files.
    """
    folder = Path(folder).expanduser()
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise BackboneError(
            f"{folder}: {' and '.join(missing)} of CLIP's tokenizer not found; "
            f"get vocab.json and merges.txt from {_TOKENIZER_PAGE}"
        )
    try:
        from transformers import CLIPTokenizer
    except ImportError as error:
        raise BackboneError(
            f"CLIP's tokenizer needs the package transformers ({error}): "
            'pip install "medseg-gym[imisnet]"'
        ) from None
    tokenizer: Callable[[list[str]], Mapping[str, Any]] = CLIPTokenizer.from_pretrained(
        str(folder), local_files_only=True
    )
    return tokenizer


class ImisNetBackbone(SamBackbone):
    """IMISNet over many images at once; box, clicks, text and mask prompts mix freely in a row.

    Every row gets the mask of the best predicted IoU out of masks 1 to 3, whatever
    `PromptRow.multimask` says: the family's own predictor drops mask 0 for every kind of prompt.

    Images are squashed to a square by nearest neighbour with half-pixel centres: pixel i of S comes
    from pixel floor((i + 0.5) · W / S) of W, as Pillow's NEAREST and torch's "nearest-exact" do
    (OpenCV's INTER_NEAREST leaves the half out).

    Text is `PromptRow.text`, the target's name, put into `TEXT_TEMPLATE`; embeddings are kept by
    sentence. A model without a text encoder (`text_config=None`) lacks the prompt kind "text".

    Args:
        model: A built `ImisNet`, in evaluation mode from here on.
        name: Shown in tables.
        device: Where the model goes.
        tokenizer: Called with a list of sentences, returns a mapping whose "input_ids" holds one
            list of token ids per sentence, ended by the model's end token. A transformers
            tokenizer will do. Without one, text prompts raise.
        **options: See `BatchedBackbone`.
    """

    trained_kinds = frozenset({"box", "point", "text"})

    def __init__(
        self,
        model: ImisNet,
        name: str = "imisnet",
        device: torch.device | str = "cpu",
        tokenizer: Tokenizer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, name, device, **options)
        kinds = {"box", "point"} if model.text_model is None else {"box", "point", "text"}
        self.prompt_kinds = frozenset(kinds)
        self.tokenizer = tokenizer
        self._texts: dict[str, torch.Tensor] = {}
        with torch.inference_mode():
            self._output_tokens = model.mask_decoder.output_tokens()

    # encode -----------------------------------------------------------------------------------
    def _input(self, image: np.ndarray) -> torch.Tensor:
        side = self.image_side
        ys, xs = ((2 * np.arange(side) + 1) * length // (2 * side) for length in image.shape[:2])
        pixels = to_device(image[ys[:, None], xs], self.device).permute(2, 0, 1).float()
        normalised: torch.Tensor = (pixels - self.model.pixel_mean) / self.model.pixel_std
        return normalised

    # decode -----------------------------------------------------------------------------------
    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Decode rows in passes of at most `decode_batch`; short rows are padded inertly.

        Raises:
            BackboneError: A row without box, click and text; text that cannot be embedded.
        """
        for i, row in enumerate(rows):
            if row.box is None and not row.points and row.text is None:
                raise BackboneError(f"{self.name}: row {i} has no box, no click and no text")
        return super().decode(rows)

    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        batch = collate(rows, self.device)
        # Only clicks get SAM's padding point: a row of text alone has no such token.
        wordy = [row.text is not None and row.box is None and not row.points for row in rows]
        labels = batch.labels
        if any(wordy):
            alone = to_device(wordy, self.device)[:, None]
            labels = labels.masked_fill(alone & (labels == NOT_A_POINT), INERT)
            batch = batch._replace(labels=labels, padded=True)
        outputs = self._output_tokens.expand(len(rows), -1, -1)
        tokens = [outputs, self._prompts.tokens(batch)]
        attended = labels != INERT
        text = has_text = None
        if any(row.text is not None for row in rows):
            blank = torch.zeros(outputs.shape[2], device=self.device)
            text = torch.stack(
                [blank if row.text is None else self._embed_text(row.text) for row in rows]
            )
            has_text = to_device([row.text is not None for row in rows], self.device)
            tokens.append(text[:, None])
            attended = torch.cat([attended, has_text[:, None]], dim=1)
        token_mask = None
        if batch.padded or text is not None:
            token_mask = F.pad(attended, (outputs.shape[1], 0), value=True)
        image = torch.stack([row.embedding.features[0] for row in rows])
        image = image + self._prompts.dense(rows)
        decoded = self.model.mask_decoder(
            image, self._image_pe, torch.cat(tokens, dim=1), token_mask, text, has_text
        )
        best = decoded.iou[:, 1:].argmax(dim=1) + 1
        every_row = torch.arange(len(rows), device=self.device)
        logits = torch.einsum("bc,bchw->bhw", decoded.kernels[every_row, best], decoded.upscaled)
        return Prediction(logits.float(), decoded.iou[every_row, best].float())

    # text -------------------------------------------------------------------------------------
    @torch.inference_mode()
    def embed_texts(self, names: Sequence[str]) -> torch.Tensor:
        """Embed target names to B x C; later decodes with the same names find them ready.

        Raises:
            BackboneError: The model has no text encoder, there is no tokenizer, or a text is too
                long or not understood by the tokenizer.
        """
        return torch.stack([self._embed_text(name) for name in names])

    def _embed_text(self, name: str) -> torch.Tensor:
        sentence = phrase(name)
        if sentence not in self._texts:
            # One sentence at a time: no padding, so a text never depends on its batch mates.
            ids = to_device([self._token_ids(sentence)], self.device)
            if len(self._texts) >= _TEXTS_KEPT:
                del self._texts[next(iter(self._texts))]
            self._texts[sentence] = self.model.embed_text(ids)
        return self._texts[sentence]

    def _token_ids(self, sentence: str) -> list[int]:
        if self.model.text_model is None:
            raise BackboneError(
                f"{self.name}: this model was loaded without its text encoder and takes no text "
                "prompts; load it with text=True"
            )
        if self.tokenizer is None:
            raise BackboneError(
                f"{self.name}: text prompts need CLIP's tokenizer, which is not part of the "
                f"weights: get vocab.json and merges.txt from {_TOKENIZER_PAGE}, put them into a "
                f"folder {TOKENIZER_FOLDER!r} beside the weight file or pass tokenizer_path=FOLDER"
            )
        ids = [int(token) for token in self.tokenizer([sentence])["input_ids"][0]]
        config = self.model.text_model.config
        longest, words, end = config.max_position_embeddings, config.vocab_size, config.eos_token_id
        if not 0 < len(ids) <= longest:
            raise BackboneError(
                f"{self.name}: {sentence!r} makes {len(ids)} tokens, the text encoder takes 1 to "
                f"{longest}; use a shorter name"
            )
        if min(ids) < 0 or max(ids) >= words or end not in ids:
            raise BackboneError(
                f"{self.name}: the tokenizer does not fit the text encoder: {sentence!r} became "
                f"{ids}, expected ids below {words} and the end token {end}"
            )
        return ids


def build(
    checkpoint: Path | None,
    device: torch.device,
    *,
    random_weights: bool = False,
    config: ImisNetConfig | None = None,
    image_size: int | None = None,
    text: bool | None = None,
    tokenizer: Tokenizer | None = None,
    tokenizer_path: str | Path | None = None,
    **options: Any,
) -> ImisNetBackbone:
    """Build IMISNet, by default IMISNet-B.

    Args:
        checkpoint: The official `IMISNet-B.pth`; must fit key by key.
        device: Where the model goes.
        random_weights: Keep fresh weights instead of a file's: the same work, for timing. The
            registry's `load` seeds them.
        config: Sizes of the model in the file; None means IMISNet-B.
        image_size: Side of the input square, by default the configuration's own (1024); for any
            other the file's position tables are resampled.
        text: Load the text encoder (needs transformers). False drops its weights from the file.
            None means True, but False with random weights.
        tokenizer: See `ImisNetBackbone`.
        tokenizer_path: Folder of CLIP's `vocab.json` and `merges.txt`; by default the folder
            "clip-vit-base-patch32" beside the weight file, if there.
        **options: Passed to `ImisNetBackbone`.

    Raises:
        BackboneError: transformers or the tokenizer's files are missing, or the size is impossible.
        CheckpointError: The file cannot be used, or none was given.
    """
    with_text = not random_weights if text is None else text
    config = config or ImisNetConfig()
    if image_size is not None:
        trained = config.encoder_image_size or config.image_size
        config = replace(config, image_size=image_size, encoder_image_size=trained)
    if not with_text:
        config = replace(config, text_config=None)
    if random_weights:
        model = ImisNet(config)
    else:
        if checkpoint is None:
            raise CheckpointError(
                "imisnet needs the weight file IMISNet-B.pth, or random_weights=True"
            )
        state = adapt_state(read_state_dict(checkpoint), with_text)
        model = ImisNet(config)
        load_weights(model, state, checkpoint)
    if tokenizer is None and with_text:
        if tokenizer_path is not None:
            tokenizer = read_tokenizer(tokenizer_path)
        elif checkpoint is not None and (checkpoint.parent / TOKENIZER_FOLDER).is_dir():
            tokenizer = read_tokenizer(checkpoint.parent / TOKENIZER_FOLDER)
    return ImisNetBackbone(model, device=device, tokenizer=tokenizer, **options)
