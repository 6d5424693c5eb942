"""The whole HTTP API against its own description: what schemathesis makes up is answered as /openapi.json says.

Jobs, adapters and pictures are made by stand-ins; the gate, the queue and all that checks requests are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.served import quick_service, training
from tests.unit.server.live import live
from tincture.server.app import build_app
from tincture.server.service import Service

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = {GenerationMode.POSITIVE: 8, GenerationMode.NEGATIVE: 6}
"""Requests for each operation: such as the description allows, and such as it does not."""
ENDLESS = r"/events$"
"""Streams end with their job; test_watchers tries them."""
MOST_TOLD = 3000
QUIET = list(HealthCheck)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return quick_service(tmp_path, requests_per_minute=10**6)


@pytest.fixture
def api(service: Service) -> Iterator[Any]:
    with live(build_app(service, page=False)) as port:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json").exclude(path_regex=ENDLESS)


def test_every_answer_is_as_described(api: Any, service: Service) -> None:
    faults: list[str] = []
    statuses: set[int] = set()
    tried = 0
    with requests.Session() as session:
        for found in api.get_all_operations():
            operation = found.ok()
            tried += 1
            for mode, count in EXAMPLES.items():
                told = _faults(operation, mode, count, service, session, statuses)
                faults += [f"{operation.label} ({mode.value}): {told[:MOST_TOLD]}"] if told else []
    assert not faults, "\n\n".join(faults)
    assert tried > 40
    assert {200, 201, 202, 204, 404, 422} <= statuses  # requests came through to what answers them


def _make_sense(case: Any, service: Service) -> None:
    """Lets half of the requests mean a job that is there, or ask for one that can be done."""
    name = case.path_parameters.get("job_id") if isinstance(case.path_parameters, dict) else None
    if isinstance(name, str) and len(name) % 2:
        jobs = service.queue.jobs(limit=1) or [service.queue.submit("train", training()["settings"])]
        case.path_parameters["job_id"] = jobs[0].id
    chosen = case.body.get("settings") if isinstance(case.body, dict) else None
    if isinstance(chosen, dict) and len(chosen) % 2 == 0:
        case.body |= {"kind": "train", "settings": training()["settings"]}
        case.body.pop("device", None)


def _faults(
    operation: Any, mode: GenerationMode, count: int, service: Service, session: requests.Session, statuses: set[int]
) -> str:
    """What was wrong with the answers to ``count`` requests."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(settings(max_examples=count, derandomize=True, database=None), deadline=None, suppress_health_check=QUIET)
    def ask(case: Any) -> None:
        _make_sense(case, service)
        statuses.add(case.call_and_validate(checks=CHECKS, session=session).status_code)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # an address without parameters cannot be asked wrongly
    except FailureGroup as failure:
        return "\n".join(str(each) for each in failure.exceptions)
    return ""
