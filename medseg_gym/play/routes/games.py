"""Routes of games: begin, step, leave, and the mask as a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.play.games import Game
from medseg_gym.play.image_games import ImageGame
from medseg_gym.play.page import Page
from medseg_gym.play.routes.requests import GameRequest, PlayerRequest, StepRequest
from medseg_gym.play.volumes.downloads import MaskFile, mask_file
from medseg_gym.play.volumes.games import VolumeGame
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.responses import in_thread, reply


def game_router(page: Page) -> APIRouter:
    """Return the routes of games, on images and volumes alike."""
    router = APIRouter(prefix="/api/games", include_in_schema=False)

    @router.post("")
    async def begin(request: Request, asked: GameRequest) -> Response:
        """Begin a game."""
        owner = request.state.owner
        place, index, case = await in_thread(
            page.places.find, owner, asked.place, asked.index, asked.key
        )
        book = page.book(place.volumes)
        game = await book.begin(owner, place, index, case, asked.player, asked.exam)
        return reply(await in_thread(game.describe))

    @router.get("/{id}")
    async def state(request: Request, id: str, since: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Return the state of a game."""
        game = page.game(request.state.owner, id)
        return reply(await in_thread(game.describe, since))

    @router.post("/{id}/steps")
    async def step(request: Request, id: str, asked: StepRequest) -> Response:
        """Take a step; where the game is recorded, it is on disk when the answer is sent."""
        game = page.game(request.state.owner, id)
        prompt = asked.prompt(isinstance(game, VolumeGame))
        await page.book_of(game).step(game, prompt, asked.expected, asked.verdict)
        return reply(await in_thread(game.describe, asked.expected))

    @router.patch("/{id}")
    async def rename(request: Request, id: str, asked: PlayerRequest) -> Response:
        """Change the player or exam mode before the first step."""
        game = page.game(request.state.owner, id)
        await page.book_of(game).rename(game, asked.player, asked.exam)
        return reply(await in_thread(game.describe))

    @router.delete("/{id}")
    async def leave(request: Request, id: str) -> Response:
        """Give a game up; its steps stay recorded as unfinished."""
        game = page.game(request.state.owner, id)
        page.book_of(game).close(game)
        return reply({"game": id})

    @router.get("/{id}/image")
    async def image(request: Request, id: str) -> Response:
        """Return the image of a game on an image."""
        game = page.game(request.state.owner, id)
        if not isinstance(game, ImageGame):
            raise ServiceError("this game is on a volume; its slices are images", 404)
        return Response(await in_thread(png_bytes, game.case.image), media_type="image/png")

    @router.get("/{id}/mask")
    async def download(request: Request, id: str, kind: str = "") -> Response:
        """Return the mask as a file: PNG of an image, else on the scan's own grid."""
        game = page.game(request.state.owner, id)
        kind = kind or game.formats[0]
        if kind not in game.formats:
            raise ServiceError(
                f"this mask comes as {' or '.join(game.formats)}, not as {kind[:20]!r}; a DICOM "
                "SEG refers to a DICOM series"
            )
        file = await in_thread(_mask_file, game, kind)
        header = {"content-disposition": f'attachment; filename="{file.name}"'}
        return Response(file.content, media_type=file.media_type, headers=header)

    return router


def _mask_file(game: Game, kind: str) -> MaskFile:
    if isinstance(game, VolumeGame):
        episode = game.episode
        return mask_file(episode.case, episode.mask(), kind)
    mask = game.episode.state.mask.cpu().numpy()
    return MaskFile(png_bytes(mask), "mask.png", "image/png")
