"""The page's routes `/api/...`; programs use `/session/...` and `/v1/...` instead."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from medseg_gym.cases import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.unlabelled import make_unlabelled
from medseg_gym.play.catalog import list_cases, thumbnail
from medseg_gym.play.games import clean_text
from medseg_gym.play.page import MINE, OWN, Page
from medseg_gym.play.stores.archive import list_rows
from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt, Stop, Undo
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.routes.images import read_upload
from medseg_gym.serving.routes.responses import in_thread, reply

Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=500)]

_MAX_LISTED = 300  # recordings on the page


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GameRequest(_Strict):
    """A case, by number or key, and the player."""

    place: Text
    index: int | None = None
    key: Text | None = None
    player: Text = ""
    exam: bool = False


class PlayerRequest(_Strict):
    """The player of a game, and whether it is an exam."""

    player: Text = ""
    exam: bool = False


class StepRequest(_Strict):
    """An action; coordinates are fractions of width and height."""

    tool: Literal["box", "positive_point", "negative_point", "undo", "clear", "stop"]
    at: Annotated[list[Fraction], Field(max_length=4)] = []
    expected: int
    accepted: bool | None = None

    def prompt(self) -> Prompt:
        """Return the prompt of this action.

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
    """A policy and the case that it shall play."""

    policy: Text
    place: Text
    key: Text


def page_router(page: Page) -> APIRouter:
    """Return the routes of a page."""
    router = APIRouter(prefix="/api", include_in_schema=False)
    facts = page.games.book.segmenter.facts

    @router.get("/setup")
    async def setup(request: Request) -> Response:
        """Return backbone, tools, cases and policies."""
        owner = request.state.owner
        places = await in_thread(page.places, owner)
        policies = page.watched_policies.policies.items()
        return reply(
            {
                "backbone": facts.name,
                "tools": page.games.tools,
                "trained": sorted(facts.trained_kinds),
                "max_steps": page.games.max_steps,
                "reward": page.options.reward,
                "places": [{"name": p.name, "title": p.title, "own": p.own} for p in places],
                "policies": [{"id": i, "name": p.name} for i, p in policies],
                "record": str(page.options.record),
                "store": page.store(owner, MINE).path.name,
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
        """List cases to choose from."""
        where = await in_thread(page.place, request.state.owner, place)
        listed = await in_thread(list_cases, where, start, count, find[:200])
        for entry in listed["cases"]:
            if "error" in entry:
                entry["error"] = page.recordings.public_message(entry["error"])
        return reply(listed)

    @router.get("/thumbnail")
    async def small(request: Request, place: str, index: int) -> Response:
        """Return a thumbnail of a case."""
        owner = request.state.owner
        if place == OWN:  # another object every time: not for the cache of thumbnails
            content = await in_thread(lambda: thumbnail.__wrapped__(page.place(owner, OWN), index))
        else:
            content = await in_thread(thumbnail, page.place(owner, place), index)
        return Response(content, media_type="image/jpeg")

    @router.post("/games")
    async def begin(request: Request, asked: GameRequest) -> Response:
        """Begin a game."""
        owner = request.state.owner
        case = await in_thread(page.find_case, owner, asked.place, asked.index, asked.key)
        game = await page.games.begin(owner, *case, asked.player, asked.exam)
        return reply(await in_thread(game.describe))

    @router.get("/games/{id}")
    async def state(request: Request, id: str, since: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Return the state of a game."""
        game = page.games.get(request.state.owner, id)
        return reply(await in_thread(game.describe, since))

    @router.get("/games/{id}/image")
    async def image(request: Request, id: str) -> Response:
        """Return the image of a game."""
        case = page.games.get(request.state.owner, id).case
        return Response(await in_thread(png_bytes, case.image), media_type="image/png")

    @router.post("/games/{id}/steps")
    async def step(request: Request, id: str, asked: StepRequest) -> Response:
        """Take a step; it is on disk when the answer is sent."""
        game = page.games.get(request.state.owner, id)
        await page.games.step(game, asked.prompt(), asked.expected, asked.accepted)
        return reply(await in_thread(game.describe, asked.expected))

    @router.patch("/games/{id}")
    async def rename(request: Request, id: str, asked: PlayerRequest) -> Response:
        """Change the player or exam mode before the first step."""
        game = page.games.get(request.state.owner, id)
        await page.games.rename(game, asked.player, asked.exam)
        return reply(await in_thread(game.describe))

    @router.delete("/games/{id}")
    async def leave(request: Request, id: str) -> Response:
        """Give a game up; its steps stay recorded as unfinished."""
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
        """Accept an uploaded image, which has no ground truth."""
        owner = request.state.owner
        content = await image.read()
        name = clean_text(target, 120, "target")
        kind = clean_text(modality, 40)
        case = await in_thread(read_own, content, request.state.pixels, name, kind, window[:40])
        await page.recordings.keep_image(owner, case)
        place = page.place(owner, OWN)
        return reply({"place": OWN, "key": case.key, "index": place.index_of(case.key)})

    @router.post("/watch")
    async def watch(request: Request, asked: WatchRequest) -> Response:
        """Let a policy play a case."""
        owner = request.state.owner
        place, _, case = await in_thread(page.find_case, owner, asked.place, None, asked.key)
        return reply(page.watched_policies.start(owner, asked.policy, place, case).describe())

    @router.get("/watch/{id}")
    async def watching(
        request: Request,
        id: str,
        since: Annotated[int, Query(ge=0)] = 0,
        scored: bool = True,
    ) -> Response:
        """Return the steps that the policy has taken since."""
        watched = page.watched_policies.get(request.state.owner, id)
        return reply(await in_thread(watched.describe, since, scored))

    @router.get("/recordings")
    async def recordings(request: Request, find: str = "") -> Response:
        """List the recorded episodes that the owner may see."""
        recorded = await in_thread(page.recorded, request.state.owner, find[:200])
        return reply(
            {
                "total": len(recorded.rows),
                "rows": list_rows(recorded.rows, _MAX_LISTED),
                "damaged": [store.title for store in recorded.damaged],
            }
        )

    @router.get("/recording")
    async def recording(request: Request, store: str, id: str) -> Response:
        """Return one recorded episode."""
        ref = page.store(request.state.owner, store)
        return reply(await in_thread(page.archive.show, ref, id))

    @router.get("/board")
    async def leader_board(
        request: Request, player: str = "", exam: bool = False, place: str | None = None
    ) -> Response:
        """Compare people and policies on the same cases."""
        work = page.leader_board
        return reply(await in_thread(work, request.state.owner, player, exam, place))

    @router.get("/played")
    async def played(
        request: Request, place: str, player: str = "", exam: bool = False
    ) -> dict[str, Any]:
        """Return keys of the cases that a player has finished, for policies to play too."""
        return {"keys": await in_thread(page.cases_of, player, exam, place)}

    return router


def read_own(content: bytes, allowance: Allowance, target: str, modality: str, window: str) -> Case:
    """Make a case without a ground truth from an uploaded image.

    Args:
        content: Bytes of the file.
        allowance: Pixels that the request may hold.
        target: Name of the target.
        modality: CT, MRI, ... or "".
        window: Intensities shown black and white in files of more than 8 bits, as
            `medseg_gym.cases.volumes.parse_window` reads it; "" takes percentiles.

    Raises:
        ServiceError: The image is too large.
        CaseError: It is no image, cannot be decoded, or there is no such window.
    """
    pixels = read_upload(content, allowance, window=window or "percentiles", modality=modality)
    return make_unlabelled(pixels, target, modality)
