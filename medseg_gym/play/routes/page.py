"""Routes of what is listed: cases, policies, recordings, the leader board, own images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from medseg_gym.play.catalog import list_cases, thumbnail
from medseg_gym.play.games import clean_text
from medseg_gym.play.own_images import ImageOptions, read_own
from medseg_gym.play.page import MINE, Page
from medseg_gym.play.places import OWN
from medseg_gym.play.routes.requests import WatchRequest
from medseg_gym.play.stores.archive import list_rows
from medseg_gym.play.volumes.uploads import CHUNK, VOLUME_SUFFIXES
from medseg_gym.serving.routes.responses import in_thread, reply

_MAX_LISTED = 300  # recordings on the page


def page_router(page: Page) -> APIRouter:
    """Return the routes of what a page lists."""
    router = APIRouter(prefix="/api", include_in_schema=False)
    facts = page.images.segmenter.facts

    @router.get("/setup")
    async def setup(request: Request) -> Response:
        """Return backbone, tools, cases, policies and limits."""
        owner = request.state.owner
        places = await in_thread(page.places.of, owner)
        limits = page.scans.limits

        def sort(volumes: bool) -> dict[str, Any]:
            book = page.book(volumes)
            mine = [place for place in places if place.volumes == volumes]
            return {
                "tools": book.tools,
                "max_steps": book.max_steps,
                "policies": list(page.watched_policies.policies[volumes]),
                "places": [{"name": p.name, "title": p.title, "own": p.own} for p in mine],
            }

        return reply(
            {
                "backbone": facts.name,
                "trained": sorted(facts.trained_kinds),
                "reward": page.options.reward,
                "images": sort(volumes=False),
                "volumes": sort(volumes=True),
                "scan": {
                    "bytes": limits.nbytes,
                    "files": limits.files,
                    "voxels": limits.voxels,
                    "suffixes": VOLUME_SUFFIXES,
                    "chunk": CHUNK,
                },
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
        where = await in_thread(page.places.get, request.state.owner, place)
        listed = await in_thread(list_cases, where, start, count, find[:200])
        for entry in listed["cases"]:
            if "error" in entry:
                entry["error"] = page.recordings.public_message(entry["error"])
        return reply(listed)

    @router.get("/thumbnail")
    async def small(request: Request, place: str, index: int) -> Response:
        """Return a thumbnail of a case."""
        where = await in_thread(page.places.get, request.state.owner, place)
        content = await in_thread(thumbnail, where, index)
        return Response(content, media_type="image/jpeg")

    @router.post("/images")
    async def own_image(
        request: Request,
        image: Annotated[UploadFile, File()],
        target: Annotated[str, Form()] = "",
        modality: Annotated[str, Form()] = "",
        window: Annotated[str, Form()] = "",
        slice: Annotated[str, Form()] = "",
    ) -> Response:
        """Accept an uploaded image or a slice of a scan, which has no ground truth."""
        owner = request.state.owner
        content = await image.read()
        options = ImageOptions(
            clean_text(target, 120, "target"),
            clean_text(modality, 40),
            window.strip()[:40],
            slice.strip()[:10],
        )
        case = await in_thread(
            read_own, content, request.state.pixels, options, page.options.scan_voxels
        )
        await page.recordings.keep_image(owner, case)
        place = page.places.get(owner, OWN)
        return reply({"place": OWN, "key": case.key, "index": place.index_of(case.key)})

    @router.post("/watch")
    async def watch(request: Request, asked: WatchRequest) -> Response:
        """Let a policy play a case."""
        owner = request.state.owner
        place, _, case = await in_thread(page.places.find, owner, asked.place, None, asked.key)
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
        return reply(await in_thread(page.show_recording, request.state.owner, store, id))

    @router.get("/board")
    async def leader_board(
        request: Request,
        player: str = "",
        exam: bool = False,
        place: str | None = None,
        volumes: bool = False,
    ) -> Response:
        """Compare people and policies on the same cases; without a place on all of a sort."""
        work = page.leader_board
        return reply(await in_thread(work, request.state.owner, player, exam, place, volumes))

    @router.get("/played")
    async def played(
        request: Request, place: str, player: str = "", exam: bool = False
    ) -> dict[str, Any]:
        """Return keys of the cases that a player has finished, for policies to play too."""
        return {"keys": await in_thread(page.cases_of, player, exam, place)}

    return router
