"""`/datastore/` and `/activelearning/`: images and labels of a folder."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.image_files import media_type
from medseg_gym.serving.monailabel.studies import FINAL, StudyFolder
from medseg_gym.serving.routes.images import read_json_field
from medseg_gym.serving.routes.responses import REFUSALS, in_thread, reply

ImageId = Annotated[str, Query(description="Id of an image.")]
Tag = Annotated[str, Query(description="Such as final.")]


def datastore_router(studies: StudyFolder) -> APIRouter:
    """Return the routes; nothing is deleted through them.

    Args:
        studies: The folder.
    """
    router = APIRouter(responses=REFUSALS, tags=["MONAI Label"])

    @router.get("/datastore/")
    async def datastore(
        output: Annotated[str, Query(description="stats or all.")] = "stats",
    ) -> Response:
        """Count or list images and labels."""
        if output not in ("stats", "all"):
            raise ServiceError(f"output {output[:40]!r} is not made here; use stats or all")
        return reply(await in_thread(studies.describe if output == "all" else studies.status))

    @router.put("/datastore/", include_in_schema=False)
    @router.put("/datastore/image")
    async def add_image(
        file: Annotated[UploadFile, File(description="NIfTI, NRRD or MetaImage.")],
        image: Annotated[str, Query(description="Its id; by default the file's name.")] = "",
        params: Annotated[str, Form(description="Not kept.")] = "{}",
    ) -> Response:
        """Add an image; one that is there is not overwritten."""
        read_json_field(params or "{}", "params")
        content = await file.read()
        id = image or (file.filename or "").rpartition("/")[2]
        added = await in_thread(studies.add_image, id, file.filename, content)
        return reply({"image": added})

    @router.head("/datastore/image", include_in_schema=False)
    @router.get("/datastore/image")
    async def image_file(image: ImageId) -> Response:
        """Give an image."""
        path = await in_thread(studies.image, image)
        return FileResponse(path, media_type=media_type(path), filename=path.name)

    @router.get("/datastore/image/info")
    async def image_info(image: ImageId) -> Response:
        """Describe an image."""
        return reply(await in_thread(studies.image_info, image))

    @router.put("/datastore/label")
    async def save_label(
        image: ImageId,
        label: Annotated[UploadFile, File(description="On the grid of the image.")],
        tag: Tag = FINAL,
        params: Annotated[str, Form(description="JSON, kept beside it.")] = "{}",
    ) -> Response:
        """Save a label; an earlier one is kept, and named in the answer."""
        info = read_json_field(params or "{}", "params")
        if not isinstance(info, dict):
            raise ServiceError("params must be a JSON object")
        content = await label.read()
        name = label.filename
        earlier = await in_thread(studies.save_label, image, tag or FINAL, name, content, info)
        return reply({"image": image, "label": image, "earlier": earlier})

    @router.head("/datastore/label", include_in_schema=False)
    @router.get("/datastore/label")
    async def label_file(label: ImageId, tag: Tag = FINAL) -> Response:
        """Give a label."""
        path = await in_thread(studies.label, label, tag)
        return FileResponse(path, media_type=media_type(path), filename=path.name)

    @router.get("/datastore/label/info")
    async def label_info(label: ImageId, tag: Tag = FINAL) -> Response:
        """Give what was said about a label when it was saved."""
        return reply(await in_thread(studies.label_info, label, tag))

    @router.post("/activelearning/{strategy}")
    async def next_sample(request: Request, strategy: str) -> Response:
        """Choose the image to work on next."""
        await request.body()
        if strategy != "first":
            raise ServiceError(f"there is no strategy {strategy[:40]!r}; there is: first", 404)
        return reply(await in_thread(studies.next_image))

    return router
