"""Memory of the processes of a run, part by part.

Each part says how it was reckoned. What a layer costs is not a formula: one layer of the model is
computed on tensors without data (`shape.read_shape`), in the run's own precision and adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medseg_agents.grpo.plan.conversation import Conversation
from medseg_agents.grpo.plan.shape import ModelShape, Side
from medseg_agents.grpo.settings import ChatRun

FLOAT = 4
CONTEXT = 800e6
"""Bytes that CUDA and its libraries take in each process, about."""

COPIES = 3
"""Copies of keys and values at the most: kept between turns, joined into a batch, and what is kept
until the next turn."""


PLAYING, LOSS, TEXT, PROMPTS = "playing", "loss", "text", "prompts"
VISION, STEPPING = "vision", "optimiser"
PHASES = (PLAYING, LOSS, TEXT, PROMPTS, VISION, STEPPING)
"""Phases of a process, one after the other: it plays; of each micro-batch it computes the loss,
then gradients of the language model's layers, for rows and then for the prompts they share, and
those of the vision tower; AdamW steps."""

GRADIENTS_OF_WEIGHTS = "gradients"
GRADIENTS = (LOSS, TEXT, PROMPTS, VISION)


@dataclass(frozen=True)
class Part:
    """A part of a process's memory.

    Args:
        name: What it is.
        bytes: Its size.
        because: How it was reckoned.
        phases: Of `PHASES`, in which it exists; none for what is there all the time.
    """

    name: str
    bytes: float
    because: str
    phases: tuple[str, ...] = ()


def total(parts: Sequence[Part]) -> float:
    """Bytes of a process at its peak: what is always there, and the largest phase."""
    always = sum(part.bytes for part in parts if not part.phases)
    return always + max(
        sum(part.bytes for part in parts if phase in part.phases) for phase in PHASES
    )


def weight_parts(shape: ModelShape, run: ChatRun, learner: bool) -> list[Part]:
    """Weights and, of a learner, gradients and moments; a share of them where it is sharded."""
    shards = _shards(run) if learner else 1
    share = f" / {shards} learners" if shards > 1 else ""
    parts = list[Part]()
    if not learner and run.precision == "bfloat16":
        kept = shape.vocabulary * shape.text.width  # the input embeddings stay as they are
        size = kept * (shape.frozen_bytes if shape.frozen > shape.trained else FLOAT)
        return [
            Part(
                "weights",
                size + (shape.parameters - kept) * 2,
                f"{_millions(shape.parameters - kept)} x 2 bytes, bfloat16, and the embeddings",
            )
        ]
    if shape.frozen:
        parts.append(
            Part(
                "frozen weights",
                shape.frozen * shape.frozen_bytes / shards,
                f"{_millions(shape.frozen)} x {shape.frozen_bytes} bytes{share}",
            )
        )
    parts.append(
        Part(
            "trained weights",
            shape.trained * FLOAT / shards,
            f"{_millions(shape.trained)} x 4 bytes, float32{share}",
        )
    )
    if not learner:
        return parts
    parts += [
        Part(
            GRADIENTS_OF_WEIGHTS, shape.trained * FLOAT / shards, f"as the trained weights{share}"
        ),
        Part("Adam's moments", 2 * shape.trained * FLOAT / shards, f"twice as much{share}"),
    ]
    if run.beta and shape.frozen < shape.trained:
        parts.append(
            Part(
                "reference model",
                shape.parameters * FLOAT / shards,
                f"--beta {run.beta:g}: a copy of all weights{share}",
            )
        )
    return parts


def learner_parts(shape: ModelShape, run: ChatRun, talk: Conversation) -> list[Part]:
    """Memory of a learner's gradient step, besides weights, gradients and moments."""
    rows = run.micro_batch
    prompts = shared_prompts(run)
    parts = list[Part]()
    if prompts:
        copies = 3 if prompts * run.num_generations > rows else 2
        per_token = shape.text.layers * shape.key_value * shape.compute_bytes
        parts.append(
            Part(
                "shared prompts",
                copies * prompts * talk.prompt * per_token,
                f"{prompts} prompts x {talk.prompt} tokens x {shape.text.layers} layers x "
                f"{shape.key_value} numbers x {shape.compute_bytes} bytes, {copies} times with "
                "their gradients",
                GRADIENTS,
            )
        )
    # Shared prompts pass by themselves, before the rows of the last micro-batch.
    own = talk.tokens - talk.prompt if prompts else talk.tokens
    images = rows * (talk.turns - 1) + prompts if prompts else rows * talk.turns
    patches = images * talk.image * shape.merge**2
    kept, again = _activations(shape.text, "rows", rows * own, "tokens", run, shape)
    if micro_batches(run) == 1:
        parts.append(_growing(shape, run, kept.bytes))
    parts += [replace(kept, phases=(LOSS, TEXT)), replace(again, phases=(TEXT,))]
    if prompts:
        count = prompts * talk.prompt
        kept, again = _activations(shape.text, "prompts", count, "tokens", run, shape)
        parts.append(replace(kept, phases=(LOSS, TEXT, PROMPTS)))
        parts.append(replace(again, phases=(PROMPTS,)))
    if shape.vision.trained:
        kept, again = _activations(shape.vision, "vision tower", patches, "patches", run, shape)
        parts += [replace(kept, phases=GRADIENTS), replace(again, phases=(VISION,))]
    chunk = min(run.logit_chunk or 10**12, rows * talk.turns * talk.completion)
    parts.append(
        Part(
            "logits and their gradient",
            4 * chunk * shape.vocabulary * FLOAT,
            f"{chunk} tokens at once x {shape.vocabulary} x 4 float32 arrays",
            (LOSS,),
        )
    )
    if shape.head_trained and chunk < rows * talk.turns * talk.completion:
        parts.append(
            Part(
                "gradient of the output layer",
                shape.head * FLOAT,
                f"{_millions(shape.head)} x 4 bytes: a second one while chunks add to it",
                (LOSS,),
            )
        )
    if run.precision == "bfloat16" and not run.shard:
        parts.append(_cast(shape, GRADIENTS))
    if _shards(run) > 1:
        parts.append(_gathered(shape, run))
    parts.append(_adam(shape, run))
    return parts


def shared_prompts(run: ChatRun) -> int:
    """Return the prompts that a learner holds at once, 0 where every row is computed whole."""
    if not run.share_prompts or run.num_generations < 2:
        return 0
    groups = max(1, run.groups // run.minibatches // max(1, run.learners))
    return min(run.micro_batch, groups)


def micro_batches(run: ChatRun) -> int:
    """Return the passes whose gradients are added up for a gradient step."""
    rows = run.episodes // run.minibatches // max(1, run.learners)
    return max(1, -(-rows // run.micro_batch))


def runner_parts(shape: ModelShape, run: ChatRun, talk: Conversation, slots: int) -> list[Part]:
    """Memory of playing, besides weights.

    Args:
        shape: Of the model.
        run: Its settings.
        talk: An episode.
        slots: Episodes that are generated as one batch.
    """
    per_token = shape.text.layers * shape.key_value * shape.compute_bytes
    longest = talk.tokens
    first = slots * talk.prompt
    parts = [
        Part(
            "keys and values",
            COPIES * slots * longest * per_token,
            f"{slots} slots x {longest} tokens x {shape.text.layers} layers x {shape.key_value} "
            f"numbers x {shape.compute_bytes} bytes, {COPIES} times between turns",
            (PLAYING,),
        ),
        Part(
            "reading the first prompts",
            first * shape.text.cost.inference,
            f"{first} tokens through one layer",
            (PLAYING,),
        ),
    ]
    if run.precision == "bfloat16" and not run.env_runners and not run.learners:
        parts.append(_cast(shape, (PLAYING,)))  # it plays with the learner's weights
    return parts


def vllm_parts(run: ChatRun, gpu: float) -> list[Part]:
    """Memory of vLLM's process: what it was told to take.

    Args:
        run: Its settings.
        gpu: Bytes of a GPU.
    """
    told = run.vllm_arguments().get("gpu_memory_utilization", 0.9)
    return [
        Part(
            "vLLM",
            float(told) * gpu,
            f"gpu_memory_utilization={told} of the GPU, whatever it needs"
            + (": given back while the learner learns (--vllm-sleep)" if run.vllm_sleep else ""),
            (PLAYING,) if run.vllm_sleep else (),
        )
    ]


def _activations(
    side: Side,
    name: str,
    count: int,
    unit: str,
    run: ChatRun,
    shape: ModelShape,
) -> tuple[Part, Part]:
    """Return the part that layers keep, and the one that exists while a layer is computed."""
    if run.gradient_checkpointing:
        return (
            Part(
                f"hidden states kept, {name}",
                count * (side.layers * side.width * shape.compute_bytes + side.besides),
                f"{count} {unit} x ({side.layers} layers x {side.width} x {shape.compute_bytes} "
                f"bytes + {side.besides / 1000:.1f} kB)",
            ),
            Part(
                f"the layer computed again, {name}",
                count * side.cost.step,
                f"{count} {unit} x {side.cost.step / 1000:.1f} kB",
            ),
        )
    gradients = max(0.0, side.cost.step - side.cost.kept)
    return (
        Part(
            f"activations, {name}",
            count * (side.layers * side.cost.kept + side.besides),
            f"{count} {unit} x ({side.layers} layers x {side.cost.kept / 1000:.1f} kB + "
            f"{side.besides / 1000:.1f} kB)",
        ),
        Part(
            f"gradients of one layer's activations, {name}",
            count * gradients,
            f"{count} {unit} x {gradients / 1000:.1f} kB",
        ),
    )


def _shards(run: ChatRun) -> int:
    """Return the learners that share weights, gradients and moments; 1 where each has all."""
    return max(1, run.learners) if run.shard else 1


def _growing(shape: ModelShape, run: ChatRun, activations: float) -> Part:
    """A single pass makes gradients while it lets go of activations; later ones find them made."""
    saved = min(activations, shape.trained * FLOAT / _shards(run))
    because = "one pass a step: they are made while activations go"
    return Part("gradients not made yet", -saved, because, (LOSS, TEXT))


def _adam(shape: ModelShape, run: ChatRun) -> Part:
    """On a GPU torch's AdamW computes all tensors at once, on a CPU one after the other."""
    if run.device == "cpu":
        size = 2 * shape.largest * FLOAT
        return Part("AdamW's arithmetic", size, "twice the largest trained tensor", (STEPPING,))
    held = shape.trained * FLOAT / _shards(run)
    return Part("AdamW's arithmetic", held, "as the trained weights, all at once", (STEPPING,))


def _cast(shape: ModelShape, phases: tuple[str, ...]) -> Part:
    """Autocast keeps the bfloat16 copies of trained weights until its context ends."""
    return Part(
        "bfloat16 copies of the trained weights",
        2 * shape.trained,
        f"{_millions(shape.trained)} x 2 bytes, while autocast computes",
        phases,
    )


def _gathered(shape: ModelShape, run: ChatRun) -> Part:
    layer = shape.text.parameters / shape.text.layers
    size = 2 if run.precision == "bfloat16" else FLOAT
    return Part(
        "gathered layers",
        (2 * layer + 2 * shape.head) * size + layer * FLOAT,
        f"two layers and the embeddings x {size} bytes, and a layer's gradient",
        GRADIENTS,
    )


def _millions(count: float) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
