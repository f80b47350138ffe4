"""`medseg serve`."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from medseg_gym.errors import MedSegError
from medseg_gym.serving.limits import Limits

_KEPT_OUT = ("cache_bytes", "store")  # of this machine; they change no mask
_LIMIT_NAMES = ", ".join(field.name for field in fields(Limits))


def serve(
    backbone: Annotated[str, typer.Option(help="As in `medseg backbones list`.")] = "pocket",
    checkpoint: Annotated[Path | None, typer.Option(help="Weight file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the encoder's input.")] = None,
    random_weights: Annotated[bool, typer.Option(help="For timing, without a file.")] = False,
    cache_bytes: Annotated[int | None, typer.Option(help="Budget of embeddings.")] = None,
    store: Annotated[Path | None, typer.Option(help="Keep embeddings on disk here.")] = None,
    host: Annotated[str, typer.Option(help="Other than loopback needs keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8265,
    keys_file: Annotated[
        Path | None, typer.Option(help="Lines owner:key. Or MEDSEG_SERVICE_KEY for one owner.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Rows in one decoder call; 64, but 16 on a CPU.")
    ] = None,
    max_delay_ms: Annotated[float, typer.Option(help="Longest wait for others.")] = 2.0,
    limit: Annotated[
        list[str] | None, typer.Option(help=f"NAME=VALUE, repeatable: {_LIMIT_NAMES}.")
    ] = None,
    prompt_memory: Annotated[str, typer.Option(help="all, or newest as MedSAM-Agent.")] = "all",
    multimask: Annotated[str, typer.Option(help="auto, always or never.")] = "auto",
    cases: Annotated[
        list[str] | None, typer.Option(help="On the page, repeatable: samples, phantoms, ...")
    ] = None,
    record: Annotated[Path, typer.Option(help="Where the page records.")] = Path("out/play"),
    archive: Annotated[
        list[Path] | None, typer.Option(help="More trajectory stores to browse, repeatable.")
    ] = None,
    game_steps: Annotated[int, typer.Option(help="Actions in a game on the page.")] = 10,
    no_page: Annotated[bool, typer.Option("--no-page", help="Serve programs alone.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    ray: Annotated[bool, typer.Option("--ray", help="Stateless routes on Ray Serve.")] = False,
    ray_address: Annotated[str | None, typer.Option(help="A running cluster.")] = None,
    replicas: Annotated[int, typer.Option(help="With --ray: how many, or at least.")] = 1,
    max_replicas: Annotated[int | None, typer.Option(help="With --ray: scale up to.")] = None,
    gpus: Annotated[float, typer.Option(help="With --ray: GPUs of one replica.")] = 0,
) -> None:
    """Serve one batched segmenter to many rollout workers and programs. Not for clinical use."""
    if max_batch is None:
        # On a CPU larger batches are no faster, but need more memory meanwhile.
        max_batch = 16 if _on_cpu(device, ray) else 64
    limits = read_limits(limit or [], max_batch=max_batch, max_delay_ms=max_delay_ms)
    keys = _find_keys(keys_file)
    given = {
        "dtype": dtype,
        "image_size": image_size,
        "random_weights": random_weights or None,
        "cache_bytes": cache_bytes,
        "store": store and str(store),
    }
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        if ray:
            import medseg_gym.serving.ray_serve.server as ray_server
            from medseg_gym.serving.ray_serve.app import RayArguments
        else:
            from medseg_gym.serving import server
            from medseg_gym.serving.logs import log_json
            from medseg_gym.serving.middleware.api_keys import ApiKeys
    except ImportError as error:
        extra = "serve-ray" if ray else "serve"
        raise MedSegError(
            f'the service needs what is not installed ({error}): pip install "medseg-gym[{extra}]"'
        ) from error
    if ray:
        arguments = RayArguments(
            backbone=backbone,
            checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
            device=device,
            backbone_options=options,
            keys_file=None,
            keys=keys,
            limits={f.name: getattr(limits, f.name) for f in fields(limits)},
            local_only=not keys,
        )
        running = ray_server.ray_service(
            arguments, host, port, ray_address, replicas, max_replicas, {"num_gpus": gpus}
        )
        with running as url:
            Console(stderr=True).print(f"listening on {url}", highlight=False)
            ray_server.wait_for_signal()
        return
    from medseg_gym import backbones
    from medseg_gym.episodes import DecodeOptions

    log_json(log_level)
    decoding = DecodeOptions(prompt_memory=prompt_memory, multimask=multimask)  # type: ignore[arg-type]
    extensions = []
    if not no_page:
        from medseg_gym.play import PageExtension, PageOptions

        page = PageOptions(
            cases=cases or PageOptions.cases,
            record=record,
            archives=archive or (),
            max_steps=game_steps,
            provenance={
                "backbone": backbone,
                "checkpoint": checkpoint,
                "backbone_options": {k: v for k, v in options.items() if k not in _KEPT_OUT},
            },
        )
        extensions.append(PageExtension(page))
    loaded = backbones.load(backbone, checkpoint, device, **options)
    service = server.make_service(loaded, host, limits, ApiKeys(keys), decoding, extensions)
    server.serve(service, host, port)


def read_limits(entries: list[str], **given: Any) -> Limits:
    """Limits from NAME=VALUE entries.

    Raises:
        MedSegError: An unknown name or a value that is no number.
    """
    known: dict[str, Any] = {field.name: type(field.default) for field in fields(Limits)}
    for entry in entries:
        name, _, value = entry.partition("=")
        try:
            given[name] = known[name](value)
        except (KeyError, ValueError):
            raise MedSegError(
                f"--limit {entry}: write NAME=NUMBER with one of {', '.join(known)}"
            ) from None
    return Limits(**given)


def _on_cpu(device: str, ray: bool) -> bool:
    if ray and device == "auto":  # the replicas' machines decide
        return False
    from medseg_gym.backbones import choose_device

    return choose_device(device).type == "cpu"


def _find_keys(path: Path | None) -> dict[str, str]:
    if path is not None:
        from medseg_gym.serving.middleware.api_keys import read_keys

        return read_keys(path)
    key = os.environ.get("MEDSEG_SERVICE_KEY")
    return {"team": key} if key else {}
