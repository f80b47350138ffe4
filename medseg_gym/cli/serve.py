"""`medseg serve`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.cli.monailabel import MonaiLabelSwitches, check_switches, make_extension
from medseg_gym.errors import MedSegError
from medseg_gym.option_groups import LoadOptions, SegmenterOptions
from medseg_gym.options import Options, describe_fields, repeated
from medseg_gym.serving.limits import Limits

if TYPE_CHECKING:
    from medseg_gym.serving.extensions import Extension

_KEPT_OUT = ("cache_bytes", "store")  # of this machine; they change no mask


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions(LoadOptions, SegmenterOptions):
    """The segmenter that is served."""

    cache_bytes: int | None = None
    """Budget of embeddings in memory."""

    store: str | None = None
    """Folder where embeddings are also kept on disk."""

    prompt_memory: str = "all"
    """all, or newest as MedSAM-Agent."""

    multimask: str = "auto"
    """auto, always or never."""

    def load_arguments(self) -> dict[str, Any]:
        """Return the arguments of `backbones.load` that were given."""
        values = {"cache_bytes": self.cache_bytes, "store": self.store}
        given = {name: value for name, value in values.items() if value is not None}
        return {**super().load_arguments(), **given}


@dataclass(frozen=True, kw_only=True)
class AddressOptions(Options):
    """Address, keys and bounds of the service."""

    topic: ClassVar[str] = "Service"

    host: str = "127.0.0.1"
    """Other than loopback needs keys."""

    port: int = 8265
    """0 takes a free one."""

    keys_file: str | None = None
    """Lines owner:key. Or MEDSEG_SERVICE_KEY for one owner."""

    allow_origin: tuple[str, ...] = repeated()
    """Web pages elsewhere that may use the service, repeatable: scheme, host and port, as
    https://viewer.example.org:3000. None may if left out.
    """

    max_batch: int | None = None
    """Rows in one decoder call; 64, but 16 on a CPU."""

    max_delay_ms: float = Limits.max_delay_ms
    """Longest wait for others."""

    limit: tuple[str, ...] = repeated()
    """A bound of the service as NAME=VALUE, repeatable, such as max_sessions=64; an unknown name is
    answered with all names, and `Limits` describes them.
    """

    log_level: str = "info"
    """debug, info, warning or error."""


@dataclass(frozen=True, kw_only=True)
class PageSwitches(Options):
    """The page for people."""

    topic: ClassVar[str] = "Page"

    page: bool = True
    """Serve the page too, not programs alone."""

    cases: tuple[str, ...] = repeated("samples", "phantoms")
    """On the page, repeatable: samples, phantoms, ..."""

    volumes: tuple[str, ...] = repeated()
    """On the page, specs of volumes, repeatable, such as volume:ct.nii.gz?truth=labels.nii.gz;
    synthetic ones where none are named here or among the cases.
    """

    record: Path = Path("out/play")
    """Folder where the page records."""

    archive: tuple[str, ...] = repeated()
    """More trajectory stores to browse, repeatable."""

    game_steps: int = 10
    """Actions in a game on an image on the page."""

    game_volume_steps: int = 20
    """Actions in a game on a volume on the page."""


@dataclass(frozen=True, kw_only=True)
class RayOptions(Options):
    """Ray Serve."""

    topic: ClassVar[str] = "Ray Serve"

    ray: bool = False
    """Stateless routes on Ray Serve."""

    ray_address: str | None = None
    """A running cluster."""

    replicas: int = 1
    """The number asked for, or at least the smallest allowed."""

    max_replicas: int | None = None
    """Scale up to so many."""

    gpus: float = 0
    """GPUs of one replica."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions(RayOptions, MonaiLabelSwitches, PageSwitches, AddressOptions, EmbeddingOptions):
    """Options of `medseg serve`."""

    def limits(self) -> Limits:
        """Return the bounds of the service."""
        max_batch = self.max_batch
        if max_batch is None:
            # On a CPU larger batches are no faster, but need more memory meanwhile.
            max_batch = 16 if _on_cpu(self.device, self.ray) else Limits.max_batch
        return read_limits(self.limit, max_batch=max_batch, max_delay_ms=self.max_delay_ms)


def serve(options: ServeOptions) -> None:
    """Serve one batched segmenter to many rollout workers and programs. Not for clinical use."""
    limits = options.limits()
    check_switches(options, options.ray)
    if options.ray and options.allow_origin:
        raise MedSegError("--allow-origin does not go with --ray, which serves programs alone")
    keys = _find_keys(options.keys_file)
    arguments = options.load_arguments()
    try:
        if options.ray:
            import medseg_gym.serving.ray_serve.server as ray_server
            from medseg_gym.serving.ray_serve.app import RayArguments
        else:
            from medseg_gym.serving import server
            from medseg_gym.serving.logs import log_json
            from medseg_gym.serving.middleware.api_keys import ApiKeys
    except ImportError as error:
        extra = "serve-ray" if options.ray else "serve"
        raise MedSegError(
            f'the service needs what is not installed ({error}): pip install "medseg-gym[{extra}]"'
        ) from error
    if options.ray:
        given = RayArguments(
            backbone=options.backbone,
            checkpoint=options.checkpoint and str(Path(options.checkpoint).resolve()),
            device=options.device,
            backbone_options=arguments,
            keys_file=None,
            keys=keys,
            limits=limits.to_mapping(),
            local_only=not keys,
        )
        running = ray_server.ray_service(
            given,
            options.host,
            options.port,
            options.ray_address,
            options.replicas,
            options.max_replicas,
            {"num_gpus": options.gpus},
        )
        with running as url:
            Console(stderr=True).print(f"listening on {url}", highlight=False)
            ray_server.wait_for_signal()
        return
    from medseg_gym import backbones
    from medseg_gym.episodes import DecodeOptions

    log_json(options.log_level)
    decoding = DecodeOptions(
        prompt_memory=options.prompt_memory,  # type: ignore[arg-type]
        multimask=options.multimask,  # type: ignore[arg-type]
    )
    extensions: list[Extension] = []
    if options.monailabel:
        extensions.append(make_extension(options))
    if options.page:
        from medseg_gym.play import PageExtension, PageOptions

        page = PageOptions(
            cases=options.cases,
            volumes=options.volumes or None,
            record=options.record,
            archives=[Path(folder) for folder in options.archive],
            max_steps=options.game_steps,
            volume_steps=options.game_volume_steps,
            provenance={
                "backbone": options.backbone,
                "checkpoint": options.checkpoint and Path(options.checkpoint),
                "backbone_options": {k: v for k, v in arguments.items() if k not in _KEPT_OUT},
            },
        )
        extensions.append(PageExtension(page))
    loaded = backbones.load(options.backbone, options.checkpoint, options.device, **arguments)
    service = server.make_service(
        loaded, options.host, limits, ApiKeys(keys), decoding, extensions, options.allow_origin
    )
    server.serve(service, options.host, options.port)


def read_limits(entries: Sequence[str], **given: Any) -> Limits:
    """Read limits from NAME=VALUE entries.

    Raises:
        MedSegError: An unknown name or a value that is no number.
    """
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            names = ", ".join(describe_fields(Limits))
            raise MedSegError(f"--limit {entry}: write NAME=NUMBER with one of {names}")
        given[name] = value
    return Limits.from_mapping(given, "--limit")


def _on_cpu(device: str, ray: bool) -> bool:
    if ray and device == "auto":  # the replicas' machines decide
        return False
    from medseg_gym.backbones import choose_device

    return choose_device(device).type == "cpu"


def _find_keys(path: str | None) -> dict[str, str]:
    if path is not None:
        from medseg_gym.serving.middleware.api_keys import read_keys

        return read_keys(Path(path))
    key = os.environ.get("MEDSEG_SERVICE_KEY")
    return {"team": key} if key else {}


serve_command = with_options(ServeOptions, serve, results=False)
