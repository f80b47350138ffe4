"""What the page asks: `/api/...`; programs use `/session/...` and `/v1/...` instead."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from medseg_gym.cases import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.unlabelled import make_unlabelled
from medseg_gym.play.archive import list_rows
from medseg_gym.play.games import clean_text
from medseg_gym.play.page import MINE, OWN, Page
from medseg_gym.play.shelf import list_cases, thumbnail
from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt, Stop, Undo
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.routes.images import read_upload
from medseg_gym.serving.routes.responses import in_thread, reply

Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=500)]

_LISTED = 300  # recordings on the page


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GameRequest(_Strict):
    """Which case, by number or key, and by whom."""

    place: Text
    index: int | None = None
    key: Text | None = None
    player: Text = ""
    exam: bool = False


class WhoRequest(_Strict):
    """By whom a game is played, and how."""

    player: Text = ""
    exam: bool = False


class StepRequest(_Strict):
    """An action; coordinates are fractions of width and height."""

    tool: Literal["box", "positive_point", "negative_point", "undo", "clear", "stop"]
    at: Annotated[list[Fraction], Field(max_length=4)] = []
    expected: int
    accepted: bool | None = None

    def prompt(self) -> Prompt:
        """As the suite reads it.

        Raises:
            ServiceError: Too few or too many coordinates.
        """
        wanted = {"box": 4, "positive_point": 2, "negative_point": 2}.get(self.tool, 0)
        if len(self.at) != wanted:
            raise ServiceError(f"{self.tool} takes {wanted} coordinates, got {len(self.at)}")
        if self.tool == "box":
            return AddBox(*self.at)
        if wanted == 2:
            return AddPoint(self.at[0], self.at[1], self.tool == "positive_point")
        bare: dict[str, Prompt] = {"undo": Undo(), "clear": Clear(), "stop": Stop()}
        return bare[self.tool]


class WatchRequest(_Strict):
    """Which policy is to play which case."""

    policy: Text
    place: Text
    key: Text


def page_router(page: Page) -> APIRouter:
    """Routes over a page."""
    router = APIRouter(prefix="/api", include_in_schema=False)
    facts = page.games.book.segmenter.facts

    @router.get("/setup")
    async def setup(request: Request) -> Response:
        """What the page is about."""
        owner = request.state.owner
        places = await in_thread(page.places, owner)
        return reply(
            {
                "backbone": facts.name,
                "tools": page.games.tools,
                "trained": sorted(facts.trained_kinds),
                "max_steps": page.games.max_steps,
                "reward": page.options.reward,
                "places": [{"name": p.name, "title": p.title, "own": p.own} for p in places],
                "policies": [{"id": i, "name": p.name} for i, p in page.gallery.players.items()],
                "record": str(page.options.record),
                "store": page.mark(owner, MINE).path.name,
            }
        )

    @router.get("/cases")
    async def cases(
        request: Request,
        place: str,
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=48)] = 12,
        find: str = "",
    ) -> Response:
        """Cases to pick from."""
        where = await in_thread(page.place, request.state.owner, place)
        found = await in_thread(list_cases, where, start, count, find[:200])
        for entry in found["cases"]:
            if "error" in entry:
                entry["error"] = page.recordings.words(entry["error"])
        return reply(found)

    @router.get("/thumbnail")
    async def small(request: Request, place: str, index: int) -> Response:
        """A small picture of a case."""
        owner = request.state.owner
        if place == OWN:  # another object every time: not for the cache of small pictures
            content = await in_thread(lambda: thumbnail.__wrapped__(page.place(owner, OWN), index))
        else:
            content = await in_thread(thumbnail, page.place(owner, place), index)
        return Response(content, media_type="image/jpeg")

    @router.post("/games")
    async def begin(request: Request, asked: GameRequest) -> Response:
        """Begin a game."""
        owner = request.state.owner
        found = await in_thread(page.find_case, owner, asked.place, asked.index, asked.key)
        game = await page.games.begin(owner, *found, asked.player, asked.exam)
        return reply(await in_thread(game.describe))

    @router.get("/games/{id}")
    async def state(request: Request, id: str, since: Annotated[int, Query(ge=0)] = 0) -> Response:
        """How a game stands."""
        game = page.games.get(request.state.owner, id)
        return reply(await in_thread(game.describe, since))

    @router.get("/games/{id}/image")
    async def image(request: Request, id: str) -> Response:
        """The image of a game."""
        case = page.games.get(request.state.owner, id).case
        return Response(await in_thread(png_bytes, case.image), media_type="image/png")

    @router.post("/games/{id}/steps")
    async def step(request: Request, id: str, asked: StepRequest) -> Response:
        """Take a step; it is on disk when this answers."""
        game = page.games.get(request.state.owner, id)
        await page.games.step(game, asked.prompt(), asked.expected, asked.accepted)
        return reply(await in_thread(game.describe, asked.expected))

    @router.patch("/games/{id}")
    async def rename(request: Request, id: str, asked: WhoRequest) -> Response:
        """Another name or discipline, before the first step."""
        game = page.games.get(request.state.owner, id)
        await page.games.rename(game, asked.player, asked.exam)
        return reply(await in_thread(game.describe))

    @router.delete("/games/{id}")
    async def leave(request: Request, id: str) -> Response:
        """Give a game up; what it has stays as unfinished."""
        game = page.games.get(request.state.owner, id)
        page.games.book.close(game.session)
        return reply({"game": id})

    @router.post("/images")
    async def own_image(
        request: Request,
        image: Annotated[UploadFile, File()],
        target: Annotated[str, Form()] = "",
        modality: Annotated[str, Form()] = "",
        window: Annotated[str, Form()] = "",
    ) -> Response:
        """Take an own image; it has no truth."""
        owner = request.state.owner
        content = await image.read()
        words = clean_text(target, 120, "target")
        kind = clean_text(modality, 40)
        case = await in_thread(read_own, content, request.state.pixels, words, kind, window[:40])
        await page.recordings.keep_image(owner, case)
        place = page.place(owner, OWN)
        return reply({"place": OWN, "key": case.key, "index": place.index_of(case.key)})

    @router.post("/watch")
    async def watch(request: Request, asked: WatchRequest) -> Response:
        """Let a policy play a case."""
        owner = request.state.owner
        place, _, case = await in_thread(page.find_case, owner, asked.place, None, asked.key)
        return reply(page.gallery.start(owner, asked.policy, place, case).describe())

    @router.get("/watch/{id}")
    async def watching(
        request: Request,
        id: str,
        since: Annotated[int, Query(ge=0)] = 0,
        scored: bool = True,
    ) -> Response:
        """What the policy has done meanwhile."""
        showing = page.gallery.get(request.state.owner, id)
        return reply(await in_thread(showing.describe, since, scored))

    @router.get("/recordings")
    async def recordings(request: Request, find: str = "") -> Response:
        """Recorded episodes that may be looked at."""
        found = await in_thread(page.recorded, request.state.owner, find[:200])
        return reply(
            {
                "total": len(found.rows),
                "rows": list_rows(found.rows, _LISTED),
                "damaged": [mark.title for mark in found.damaged],
            }
        )

    @router.get("/recording")
    async def recording(request: Request, store: str, id: str) -> Response:
        """One of them."""
        mark = page.mark(request.state.owner, store)
        return reply(await in_thread(page.archive.show, mark, id))

    @router.get("/board")
    async def leader_board(
        request: Request, player: str = "", exam: bool = False, place: str | None = None
    ) -> Response:
        """People and policies on the same cases."""
        work = page.leader_board
        return reply(await in_thread(work, request.state.owner, player, exam, place))

    @router.get("/played")
    async def played(
        request: Request, place: str, player: str = "", exam: bool = False
    ) -> dict[str, Any]:
        """Keys of the cases that a player has finished, for policies to catch up on."""
        return {"keys": await in_thread(page.cases_of, player, exam, place)}

    return router


def read_own(content: bytes, allowance: Allowance, target: str, modality: str, window: str) -> Case:
    """An own image as a case without a truth.

    Args:
        content: Of the file.
        allowance: Of the request, see there.
        target: What to segment, in words.
        modality: CT, MRI, ... or "".
        window: Intensities shown black and white in files of more than 8 bits, as
            `medseg_gym.cases.volumes.parse_window` reads it; "" takes percentiles.

    Raises:
        ServiceError: It is no picture, or too large.
        CaseError: It cannot be decoded, or no such window.
    """
    pixels = read_upload(content, allowance, window=window or "percentiles", modality=modality)
    return make_unlabelled(pixels, target, modality)
