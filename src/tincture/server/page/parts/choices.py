"""What can be chosen from, as it stands now: adapters, data sets, base models, prompt templates, presets, runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tincture.settings.presets import PRESETS

if TYPE_CHECKING:
    from tincture.server.service import Service

MOST_RUNS = 100


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


def presets(service: Service) -> list[tuple[str, str]]:
    """Presets of a training as what people see of them and name: those that are built in, then the workspace's own."""
    built_in = [(f"{preset.title}: {preset.help}", preset.name) for preset in PRESETS]
    return [*built_in, *((name, name) for name in service.presets.own())]


def trainings(service: Service, chosen: str = "") -> list[tuple[str, str]]:
    """Latest trainings, those that run first, and the ``chosen`` one, as what people see of them and the job's id."""
    jobs = [job for job in service.queue.jobs(limit=MOST_RUNS) if job.kind == "train"]
    if chosen and all(job.id != chosen for job in jobs):
        jobs.append(service.queue.job(chosen))
    return [(f"{job.name}, {job.state}, job {job.id}", job.id) for job in jobs]


def _pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"
