"""What can be chosen from, as it stands now: adapters, data sets, base models, prompt templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tincture.server.service import Service


def adapters(service: Service, kind: str) -> list[str]:
    """Names of the workspace's embeddings or hypernetworks."""
    return list(dict.fromkeys(adapter["name"] for adapter in service.adapters() if adapter["kind"] == kind))


def datasets(service: Service) -> list[tuple[str, str]]:
    """Data sets as label and path; the path is what settings take."""
    found = service.datasets.list()
    return [(f"{info.name} ({_pictures(info.pictures)})", service.places.shown(info.path)) for info in found]


def models(service: Service) -> list[tuple[str, str]]:
    """Base models as title and name."""
    return [(model["title"], model["name"]) for model in service.models()]


def templates(service: Service) -> list[str]:
    """Names of prompt templates."""
    return service.templates()


def _pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"
