"""What the Runs tab shows, and what its buttons act on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served import quick_service, training
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.page.runs import tab as runs
from tincture.server.page.runs.answer import shown_job
from tincture.server.queue.jobs import JobState


def test_a_button_acts_on_the_job_that_is_shown_and_on_no_other(tmp_path: Path) -> None:
    service = quick_service(tmp_path)
    shown, behind = (service.queue.submit("train", {**training()["settings"], "steps": steps}) for steps in (5, 6))
    assert getattr(shown_job(service, ""), "id", "") == shown.id
    service.queue.cancel(shown.id)  # while the page still shows it as it was
    assert getattr(shown_job(service, ""), "id", "") == behind.id
    with pytest.raises(ConflictError):
        runs.act(service, "Cancel", shown.id)
    runs.act(service, "Delete", shown.id)
    with pytest.raises(NotFoundError):
        runs.act(service, "Delete", shown.id)
    assert [(job.id, job.state) for job in service.queue.jobs()] == [(behind.id, JobState.QUEUED)]
    service.queue.store.close()
