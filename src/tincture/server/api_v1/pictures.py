"""Pictures: draw them, get them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tincture.server.api_v1.common import Patient, file_answers, send_file, url
from tincture.server.api_v1.schemas import DrawingProgress, DrawnPicture, DrawnPictures, PictureRequest
from tincture.server.errors import NotFoundError
from tincture.server.http.errors import documented
from tincture.server.service import Service


class PictureEndpoints:
    """Everything below /pictures."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._patient = Patient()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["pictures"])
        add = router.add_api_route
        add("/pictures", self.draw, methods=["POST"], responses=documented(404, 507), summary="Draw pictures")
        add("/pictures/progress", self.progress, methods=["GET"], summary="See how far a drawing is")
        add(
            "/pictures/{day}/{name}",
            self.picture,
            methods=["GET"],
            response_class=Response,
            responses=file_answers("image/png", 404),
            summary="Get a picture",
        )
        return router

    async def draw(self, request: PictureRequest) -> DrawnPictures:
        """Draws and answers when all are there. Embeddings act where a prompt has their name."""
        asked = request.model_dump(exclude_none=True)
        remarks: list[str] = []
        paths = await self._patient.call(lambda: self._service.model_work.draw(asked, remarks))
        listed = [DrawnPicture(name=path.name, url=url("pictures", path.parent.name, path.name)) for path in paths]
        return DrawnPictures(pictures=listed, remarks=remarks)

    def progress(self) -> DrawingProgress:
        """Sampling steps of the drawing at hand."""
        progress = self._service.model_work.drawing() or {"done": 0, "total": 0}
        return DrawingProgress(done=progress["done"], total=progress["total"])

    def picture(self, day: str, name: str, request: Request) -> Response:
        """A picture that was drawn, as PNG."""
        path = self._service.picture_file(day, name)
        try:
            return send_file(request, path, "image/png")
        except FileNotFoundError:
            raise NotFoundError(f"The picture {name!r} is no longer there.") from None
