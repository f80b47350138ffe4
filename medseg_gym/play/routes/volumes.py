"""Routes of volumes: what is shown of an episode on one, and people's own scans."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.play.games import clean_text
from medseg_gym.play.page import Page
from medseg_gym.play.places import OWN_SCANS
from medseg_gym.play.routes.requests import LookRequest, ScanRequest
from medseg_gym.play.volumes.masks import mask_after
from medseg_gym.play.volumes.own_scans import ScanOptions
from medseg_gym.play.volumes.planes import describe_planes
from medseg_gym.play.volumes.uploads import DICOM
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.responses import in_thread, reply


def volume_router(page: Page) -> APIRouter:
    """Return the routes of the page's volumes; an id is that of a game, a policy's or a recording.

    Games themselves begin and step as those on images do.
    """
    router = APIRouter(prefix="/api/volumes", include_in_schema=False)

    def shown(request: Request, id: str) -> VolumeEpisode:
        return page.shown_volume(request.state.owner, id).episode

    @router.post("/{id}/look")
    async def look(request: Request, id: str, asked: LookRequest) -> Response:
        """Encode the slice in view and then its neighbours; answer once the first is encoded."""
        game = page.volume_game(request.state.owner, id)
        case = game.episode.case
        wish = page.volumes.ahead.look(game.id, case, _checked(game.episode, asked.slice))
        return reply({"ready": await asyncio.wrap_future(wish)})

    @router.get("/{id}/slices/{index}")
    async def image(request: Request, id: str, index: int) -> Response:
        """Return the image of a slice."""
        episode = shown(request, id)
        plane = episode.case.image[_checked(episode, index)]
        return Response(await in_thread(png_bytes, plane), media_type="image/png")

    @router.get("/{id}/masks/{index}")
    async def mask(request: Request, id: str, index: int, mask: int) -> Response:
        """Return the mask of a slice by its number."""
        episode = shown(request, id)
        plane = await in_thread(mask_after, episode, _checked(episode, index), mask)
        if plane is None:
            raise ServiceError(f"slice {index} has no mask {mask}", 404)
        return Response(await in_thread(png_bytes, plane), media_type="image/png")

    @router.get("/{id}/truth/{index}")
    async def truth(request: Request, id: str, index: int) -> Response:
        """Return the truth of a slice, once it may be shown."""
        episode, shows_truth = page.shown_volume(request.state.owner, id)
        if not shows_truth:
            raise ServiceError("the truth is shown after the end, where it is known", 404)
        plane = episode.case.mask[_checked(episode, index)]
        return Response(await in_thread(png_bytes, plane), media_type="image/png")

    @router.get("/{id}/planes")
    async def planes(
        request: Request,
        id: str,
        x: Annotated[float, Query(ge=0, le=1)] = 0.5,
        y: Annotated[float, Query(ge=0, le=1)] = 0.5,
    ) -> Response:
        """Return the planes across the slices at a place, with the mask."""
        episode = shown(request, id)
        case = episode.case
        row, column = (
            min(int(y * case.height), case.height - 1),
            min(int(x * case.width), case.width - 1),
        )
        made = await in_thread(describe_planes, case, episode.state, row, column)
        return reply({"planes": made})

    # own scans --------------------------------------------------------------------------------
    @router.post("/scans")
    async def begin_upload(request: Request) -> Response:
        """Begin an upload."""
        return reply({"upload": await in_thread(page.scans.begin, request.state.owner)})

    @router.put("/upload")
    async def upload(
        request: Request,
        id: str,
        file: Annotated[int, Query(ge=0)],
        offset: Annotated[int, Query(ge=0)] = 0,
        kind: Literal[".nii.gz", ".nii", ".nrrd", ".mha", ".npz", ".dcm"] = DICOM,  # type: ignore[assignment]
    ) -> Response:
        """Append a part to a file of an upload."""
        content = await request.body()
        await in_thread(page.scans.add, request.state.owner, id, file, kind, offset, content)
        return reply({"received": offset + len(content)})

    @router.post("/scans/{id}")
    async def finish_upload(request: Request, id: str, asked: ScanRequest) -> Response:
        """Read an upload as a scan without a ground truth."""
        options = ScanOptions(
            clean_text(asked.target, 120, "target"),
            clean_text(asked.modality, 40),
            asked.window.strip()[:40],
            asked.axis,
            asked.series.strip()[:80],
            asked.label,
        )
        index, left_out = await in_thread(page.scans.finish, request.state.owner, id, options)
        answer: dict[str, Any] = {"place": OWN_SCANS, "key": f"scan-{id}", "index": index}
        return reply({**answer, "left_out": left_out})

    @router.delete("/scans/{key}")
    async def remove_scan(request: Request, key: str) -> Response:
        """Close an own scan and remove its files, or give an upload up."""
        owner = request.state.owner
        if key.startswith("scan-"):
            await in_thread(page.remove_scan, owner, key)
        else:
            await in_thread(page.scans.give_up, owner, key)
        return reply({"removed": key})

    return router


def _checked(episode: VolumeEpisode, index: int) -> int:
    depth = episode.case.depth
    if not 0 <= index < depth:
        raise ServiceError(f"the volume has {depth} slices, no number {index}", 404)
    return index
