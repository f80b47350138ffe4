"""The routes `/api/volumes/...` of the page."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.play.games import clean_text
from medseg_gym.play.volumes.catalog import list_volumes, thumbnail_of
from medseg_gym.play.volumes.describe import describe_game
from medseg_gym.play.volumes.downloads import formats_of, mask_file
from medseg_gym.play.volumes.games import VolumeGame
from medseg_gym.play.volumes.own_scans import ScanOptions
from medseg_gym.play.volumes.planes import describe_planes
from medseg_gym.play.volumes.state import OWN_SCANS, VolumePage
from medseg_gym.play.volumes.uploads import DICOM, VOLUME_SUFFIXES
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes import Propagate, SlicePrompt, VolumePrompt
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.responses import in_thread, reply

Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=500)]
Index = Annotated[int, Field(ge=0)]

CHUNK = 4 << 20
"""Bytes of a file that the page sends in one request."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VolumeGameRequest(_Strict):
    """A volume, by number or key, and whether the game is an exam."""

    place: Text
    index: int | None = None
    key: Text | None = None
    exam: bool = False


class VolumeStepRequest(_Strict):
    """An action; coordinates are fractions of a slice's width and height."""

    tool: Literal["box", "positive_point", "negative_point", "propagate", "undo", "clear", "stop"]
    slice: Index | None = None
    at: Annotated[list[Fraction], Field(max_length=4)] = []
    expected: int

    def prompt(self) -> VolumePrompt:
        """Return the prompt of this action.

        Raises:
            ServiceError: Too few or too many coordinates, or no slice for them.
        """
        wanted = {"box": 4, "positive_point": 2, "negative_point": 2}.get(self.tool, 0)
        if len(self.at) != wanted or (wanted > 0) != (self.slice is not None):
            place = f"a slice and {wanted}" if wanted else "no slice and no"
            raise ServiceError(f"{self.tool} takes {place} coordinates")
        if self.slice is not None:
            if self.tool == "box":
                return SlicePrompt(self.slice, AddBox(*self.at))
            positive = self.tool == "positive_point"
            return SlicePrompt(self.slice, AddPoint(self.at[0], self.at[1], positive))
        bare: dict[str, VolumePrompt] = {
            "propagate": Propagate(),
            "undo": Undo(),
            "clear": Clear(),
            "stop": Stop(),
        }
        return bare[self.tool]


class LookRequest(_Strict):
    """The slice in view."""

    slice: Index


class ScanRequest(_Strict):
    """Settings of reading an uploaded scan."""

    target: Text
    modality: Text = ""
    window: Text = ""
    axis: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    series: Text = ""


def volume_router(page: VolumePage) -> APIRouter:
    """Return the routes of the page's volumes."""
    router = APIRouter(prefix="/api/volumes", include_in_schema=False)

    def game_of(request: Request, id: str) -> VolumeGame:
        return page.games.get(request.state.owner, id)

    def checked(game: VolumeGame, index: int) -> int:
        if not 0 <= index < game.case.depth:
            raise ServiceError(f"the volume has {game.case.depth} slices, no number {index}", 404)
        return index

    @router.get("/setup")
    async def setup(request: Request) -> Response:
        """Return tools, volumes and limits."""
        limits = page.scans.limits
        places = page.places(request.state.owner)
        return reply(
            {
                "tools": page.tools,
                "max_steps": page.games.max_steps,
                "places": [{"name": p.name, "title": p.title, "own": p.own} for p in places],
                "scan": {
                    "bytes": limits.nbytes,
                    "files": limits.files,
                    "voxels": limits.voxels,
                    "suffixes": VOLUME_SUFFIXES,
                    "chunk": CHUNK,
                },
            }
        )

    @router.get("/cases")
    async def cases(
        request: Request,
        place: str,
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=48)] = 8,
        find: str = "",
    ) -> Response:
        """List volumes to choose from."""
        where = page.place(request.state.owner, place)
        return reply(await in_thread(list_volumes, where, start, count, find[:200]))

    @router.get("/thumbnail")
    async def thumbnail(request: Request, place: str, index: int) -> Response:
        """Return a thumbnail of a volume that takes no time to read."""
        where = page.place(request.state.owner, place)
        if not where.light:
            raise ServiceError("this source shows no thumbnails", 404)
        content = await in_thread(lambda: thumbnail_of(where.case(index)))
        return Response(content, media_type="image/jpeg")

    # games ------------------------------------------------------------------------------------
    @router.post("/games")
    async def begin(request: Request, asked: VolumeGameRequest) -> Response:
        """Begin a game."""
        owner = request.state.owner
        place, index, case = await in_thread(page.find, owner, asked.place, asked.index, asked.key)
        game = page.games.begin(owner, place, index, case, asked.exam)
        return reply(await in_thread(describe_game, game))

    @router.get("/games/{id}")
    async def state(request: Request, id: str, since: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Return the state of a game."""
        return reply(await in_thread(describe_game, game_of(request, id), since))

    @router.delete("/games/{id}")
    async def leave(request: Request, id: str) -> Response:
        """Give a game up."""
        page.games.close(game_of(request, id))
        return reply({"game": id})

    @router.post("/games/{id}/steps")
    async def step(request: Request, id: str, asked: VolumeStepRequest) -> Response:
        """Take a step."""
        game = game_of(request, id)
        if asked.tool not in page.tools:
            raise ServiceError(f"{page.facts.name} takes no {asked.tool}")
        await page.games.step(game, asked.prompt(), asked.expected)
        return reply(await in_thread(describe_game, game, asked.expected))

    @router.post("/games/{id}/look")
    async def look(request: Request, id: str, asked: LookRequest) -> Response:
        """Encode the slice in view and then its neighbours; answer once the first is encoded."""
        game = game_of(request, id)
        wish = page.games.ahead.look(game.id, game.case, checked(game, asked.slice))
        return reply({"ready": await asyncio.wrap_future(wish)})

    # what is shown ----------------------------------------------------------------------------
    @router.get("/games/{id}/slices/{index}")
    async def image(request: Request, id: str, index: int) -> Response:
        """Return the image of a slice."""
        game = game_of(request, id)
        plane = game.case.image[checked(game, index)]
        return Response(await in_thread(png_bytes, plane), media_type="image/png")

    @router.get("/games/{id}/masks/{index}")
    async def mask(request: Request, id: str, index: int, mask: int) -> Response:
        """Return the mask of a slice by its number."""
        game = game_of(request, id)
        plane = await in_thread(game.mask_of, checked(game, index), mask)
        return Response(await in_thread(png_bytes, plane), media_type="image/png")

    @router.get("/games/{id}/truth/{index}")
    async def truth(request: Request, id: str, index: int) -> Response:
        """Return the truth of a slice, once the game is over."""
        game = game_of(request, id)
        if not (game.episode.done and game.case.truth_known):
            raise ServiceError("the truth is shown after the end, where it is known", 404)
        plane = game.case.mask[checked(game, index)]
        return Response(await in_thread(png_bytes, plane), media_type="image/png")

    @router.get("/games/{id}/planes")
    async def planes(
        request: Request,
        id: str,
        x: Annotated[float, Query(ge=0, le=1)] = 0.5,
        y: Annotated[float, Query(ge=0, le=1)] = 0.5,
    ) -> Response:
        """Return the planes across the slices at a place, with the mask."""
        game = game_of(request, id)
        case = game.case
        row, column = (
            min(int(y * case.height), case.height - 1),
            min(int(x * case.width), case.width - 1),
        )
        made = await in_thread(describe_planes, case, game.episode.state, row, column)
        return reply({"planes": made})

    @router.get("/games/{id}/mask")
    async def download(
        request: Request, id: str, kind: Literal["nifti", "seg"] = "nifti"
    ) -> Response:
        """Return the mask as a file on the scan's own grid."""
        game = game_of(request, id)
        if kind not in formats_of(game.case):
            raise ServiceError(
                "a DICOM SEG refers to a DICOM series, and this scan is none; take NIfTI"
            )
        whole: np.ndarray = await in_thread(game.episode.mask)
        file = await in_thread(mask_file, game.case, whole, kind)
        header = {"content-disposition": f'attachment; filename="{file.name}"'}
        return Response(file.content, media_type=file.media_type, headers=header)

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
        kind: Literal[".nii.gz", ".nii", ".nrrd", ".mha", ".dcm"] = DICOM,  # type: ignore[assignment]
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
