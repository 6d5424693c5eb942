"""What there is to choose from, and what this server is."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from tincture.models.samplers import SAMPLERS
from tincture.server.api_v1.schemas import About, BaseModelAnswer, BaseModels, Names, Settings
from tincture.server.service import Service
from tincture.settings.conversion import CONVERSION_FIELDS
from tincture.settings.drawing import REQUEST_FIELDS
from tincture.settings.fields import specs_of
from tincture.settings.merging import MERGE_FIELDS
from tincture.settings.preprocess import PREPROCESS_FIELDS
from tincture.settings.train import TrainSettings


class CatalogueEndpoints:
    """Models, samplers, templates, settings, and the server itself."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["what there is"])
        add = router.add_api_route
        add("/models", self.models, methods=["GET"], summary="List base models")
        add("/samplers", self.samplers, methods=["GET"], summary="List samplers")
        add("/templates", self.templates, methods=["GET"], summary="List prompt templates")
        add("/settings/train", self.train_settings, methods=["GET"], summary="List the settings of a training")
        add("/settings/preprocess", self.preprocess_settings, methods=["GET"], summary="List those of preprocessing")
        add("/settings/pictures", self.picture_settings, methods=["GET"], summary="List the fields of a drawing")
        add("/settings/convert", self.conversion_settings, methods=["GET"], summary="List the fields of a conversion")
        add("/settings/merge", self.merge_settings, methods=["GET"], summary="List the fields of a merge")
        add("/about", self.about, methods=["GET"], summary="Say what this server is")
        return router

    def models(self) -> BaseModels:
        """Base models that requests can name."""
        return BaseModels(models=[self._model(**model) for model in self._service.models()])

    def samplers(self) -> Names:
        """Samplers for previews and pictures, by the webui's names."""
        return Names(names=list(SAMPLERS))

    def templates(self) -> Names:
        """Prompt templates: the workspace's own, then those that come with Tincture."""
        return Names(names=self._service.templates())

    def train_settings(self) -> Settings:
        """Every setting of a training, so that a client can build its form."""
        return Settings.of(specs_of(TrainSettings))

    def preprocess_settings(self) -> Settings:
        """Every setting of preprocessing."""
        return Settings.of(PREPROCESS_FIELDS)

    def picture_settings(self) -> Settings:
        """Every field of a request for pictures."""
        return Settings.of(REQUEST_FIELDS)

    def conversion_settings(self) -> Settings:
        """Every field of a request to convert a file."""
        return Settings.of(CONVERSION_FIELDS)

    def merge_settings(self) -> Settings:
        """Every field of a request to merge files."""
        return Settings.of(MERGE_FIELDS)

    def about(self) -> About:
        """Version, workspace, devices, how many jobs are in each state."""
        return About(**self._service.about())

    def _model(self, name: str, title: str, path: str) -> BaseModelAnswer:
        shown = self._service.places.shown(Path(path)) if path else ""
        return BaseModelAnswer(name=name, title=title, path=shown)
