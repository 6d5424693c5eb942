"""The HTTP API of its own: what the service can do, below /api/v1. See docs/api.md."""

from __future__ import annotations

from fastapi import APIRouter

from tincture.server.api_v1.adapters import AdapterEndpoints
from tincture.server.api_v1.catalogue import CatalogueEndpoints
from tincture.server.api_v1.common import PREFIX
from tincture.server.api_v1.dataset_pictures import DatasetPictureEndpoints
from tincture.server.api_v1.datasets import DatasetEndpoints
from tincture.server.api_v1.files import FileEndpoints
from tincture.server.api_v1.jobs import JobEndpoints
from tincture.server.api_v1.past_runs import PastRunEndpoints
from tincture.server.api_v1.pictures import PictureEndpoints
from tincture.server.api_v1.sweeps import SweepEndpoints
from tincture.server.api_v1.training_presets import PresetEndpoints
from tincture.server.http.errors import COMMON, documented
from tincture.server.service import Service


def router(service: Service) -> APIRouter:
    """Every endpoint below /api/v1; errors are answered as ``http_errors`` says."""
    whole = APIRouter(prefix=PREFIX, responses=documented(*COMMON))
    for group in (
        JobEndpoints,
        AdapterEndpoints,
        DatasetEndpoints,
        DatasetPictureEndpoints,
        PictureEndpoints,
        FileEndpoints,
        CatalogueEndpoints,
        PresetEndpoints,
        SweepEndpoints,
        PastRunEndpoints,
    ):
        whole.include_router(group(service).router())
    return whole
