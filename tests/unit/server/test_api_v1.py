from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from tests.served import quick_service, started, training, until, write_pictures
from tincture.errors import DataError
from tincture.server import api_v1
from tincture.server.http import errors as http_errors
from tincture.server.queue.jobs import FINISHED
from tincture.server.service import Service
from tincture.settings.drawing import Drawing, DrawingRequest
from tincture.settings.model_overrides import ModelOverrides
from tincture.settings.preprocess import PREPROCESS_FIELDS
from tincture.settings.train import FIELDS

V1 = "/api/v1"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Not at work: what is submitted waits."""
    service = quick_service(tmp_path, max_upload_files=5)
    yield service
    service.close()


@pytest.fixture
def client(service: Service) -> TestClient:
    return TestClient(app_of(service))


def app_of(service: Service) -> FastAPI:
    app = FastAPI()
    http_errors.register(app)
    app.include_router(api_v1.router(service))
    return app


def submit(client: TestClient, **settings: Any) -> str:
    answer = client.post(f"{V1}/jobs", json=training(**settings))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(client: TestClient, job_id: str) -> dict[str, Any]:
    """The job once it has ended."""
    until(lambda: client.get(f"{V1}/jobs/{job_id}").json()["state"] in {str(state) for state in FINISHED})
    return dict(client.get(f"{V1}/jobs/{job_id}").json())


# --- the queue -------------------------------------------------------------------------------------------------------


def test_a_submitted_job_is_answered_at_once_with_all_its_settings(client: TestClient, tmp_path: Path) -> None:
    answer = client.post(f"{V1}/jobs", json={**training(), "priority": 7, "timeout_s": 60, "device": "cpu"})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{V1}/jobs/{job['id']}"
    assert client.get(answer.headers["location"]).json() == job
    assert (job["state"], job["priority"], job["timeout_s"], job["device"]) == ("queued", 7, 60, "cpu")
    assert job["settings"]["data"] == str(tmp_path / "pictures")
    assert set(job["settings"]) == set(FIELDS)


def test_preprocessing_is_submitted_the_same_way(client: TestClient) -> None:
    settings = {"source": "pictures", "destination": "crops", "width": 64, "height": 64}
    answer = client.post(f"{V1}/jobs", json={"kind": "preprocess", "settings": settings})
    assert answer.status_code == 202, answer.text
    assert answer.json()["name"] == "crops"
    assert set(answer.json()["settings"]) == set(PREPROCESS_FIELDS)


def test_every_wrong_setting_is_told_in_one_answer(client: TestClient) -> None:
    answer = client.post(f"{V1}/jobs", json=training(steps=0, seed=-1, stepz=3))
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "detail", "errors"}
    for word in ("steps is 0", "seed is -1", "'stepz'"):
        assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"kind": "dance", "settings": {}}, 422, "kind"),
        ({**training(), "colour": "red"}, 422, "colour"),
        ({**training(), "priority": 1001}, 422, "priority"),
        ({**training(), "priority": -1001}, 422, "priority"),
        ({**training(), "timeout_s": 0}, 422, "timeout_s"),
        ({**training(), "device": "cuda:7"}, 422, "no device"),
        (training(name="dog"), 422, "dog"),
        (training(data="../elsewhere"), 403, "leads out"),
        (training(data="/etc"), 403, "leads out"),
        (training(steps=10**12), 422, "steps"),
        (training(preview_prompts=[{}]), 422, "preview_prompts"),
    ],
)
def test_what_cannot_be_done_is_refused_and_not_queued(
    client: TestClient, body: dict[str, Any], status: int, told: str
) -> None:
    answer = client.post(f"{V1}/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["detail"]
    assert client.get(f"{V1}/jobs").json() == {"jobs": [], "total": 0}


def test_a_full_queue_takes_no_more(tmp_path: Path) -> None:
    service = quick_service(tmp_path, max_jobs=1)
    client = TestClient(app_of(service))
    submit(client)
    assert client.post(f"{V1}/jobs", json=training()).status_code == 429
    service.close()


def test_jobs_are_listed_by_state_and_page_by_page(client: TestClient) -> None:
    ids = [submit(client) for _ in range(3)]
    client.post(f"{V1}/jobs/{ids[1]}/pause")
    everything = client.get(f"{V1}/jobs").json()
    assert [job["id"] for job in everything["jobs"]] == ids and everything["total"] == 3
    paused = client.get(f"{V1}/jobs", params={"state": "paused"}).json()
    assert [job["id"] for job in paused["jobs"]] == [ids[1]] and paused["total"] == 1
    both = client.get(f"{V1}/jobs", params={"state": ["paused", "queued"], "limit": 1, "offset": 2}).json()
    assert [job["id"] for job in both["jobs"]] == [ids[2]] and both["total"] == 3
    assert client.get(f"{V1}/jobs", params={"limit": 0}).status_code == 422


def test_previews_can_be_asked_for_while_a_training_makes_steps(tmp_path: Path) -> None:
    service = quick_service(tmp_path, pace_s=0.02)
    client = TestClient(app_of(service))
    waiting = submit(client)
    refused = client.post(f"{V1}/jobs/{waiting}/preview")
    assert refused.status_code == 409 and "only a training that is running draws previews" in refused.json()["detail"]
    client.post(f"{V1}/jobs/{waiting}/cancel")
    with started(service):
        job = submit(client, steps=100_000)
        until(lambda: client.get(f"{V1}/jobs/{job}").json()["global_step"] > 1)
        assert client.post(f"{V1}/jobs/{job}/preview").json()["state"] == "running"
        until(lambda: len(client.get(f"{V1}/jobs/{job}/previews").json()["previews"]) == 2)
        prompts = [each["prompt"] for each in client.get(f"{V1}/jobs/{job}/previews").json()["previews"]]
        assert prompts == ["a photo of cat", "a picture of cat"]
        client.post(f"{V1}/jobs/{job}/cancel")
    assert client.post(f"{V1}/jobs/nobody/preview").status_code == 404


def test_a_waiting_job_gets_another_turn(client: TestClient) -> None:
    first, second, third = (submit(client) for _ in range(3))
    assert client.patch(f"{V1}/jobs/{third}", json={"before": second}).status_code == 200
    assert client.patch(f"{V1}/jobs/{second}", json={"priority": 5}).json()["priority"] == 5
    assert [job["id"] for job in client.get(f"{V1}/jobs").json()["jobs"]] == [second, first, third]
    for priority, status in ((1000, 200), (-1000, 200), (1001, 422), (-1001, 422)):
        assert client.patch(f"{V1}/jobs/{third}", json={"priority": priority}).status_code == status
    assert client.patch(f"{V1}/jobs/{second}", json={}).status_code == 422
    assert client.patch(f"{V1}/jobs/{second}", json={"before": "nobody"}).status_code == 404


def test_a_waiting_job_is_paused_resumed_cancelled_retried_and_forgotten(client: TestClient) -> None:
    job = submit(client)
    for verb, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        answer = client.post(f"{V1}/jobs/{job}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    refused = client.delete(f"{V1}/jobs/{job}")
    assert refused.status_code == 409 and "queued" in refused.json()["detail"]
    assert client.post(f"{V1}/jobs/{job}/resume").status_code == 409
    client.post(f"{V1}/jobs/{job}/cancel")
    gone = client.delete(f"{V1}/jobs/{job}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get(f"{V1}/jobs/{job}").status_code == 404


@pytest.mark.parametrize("name", ["nobody", "nobody%2f..", "x" * 300])
def test_a_job_that_is_not_there_is_not_found(client: TestClient, name: str) -> None:
    for inner in (
        "",
        "/log",
        "/metrics",
        "/validations",
        "/events",
        "/previews",
        "/previews/x.png",
        "/contact-sheet.png",
    ):
        assert client.get(f"{V1}/jobs/{name}{inner}").status_code == 404
    for verb in ("cancel", "pause", "resume", "retry"):
        assert client.post(f"{V1}/jobs/{name}/{verb}").status_code == 404


def test_what_was_measured_is_read_at_an_address_of_its_own(service: Service, client: TestClient) -> None:
    job = submit(client, steps=6)
    address = f"{V1}/jobs/{job}/validations"
    assert client.get(address).json() == {"validations": []}
    measured = {"global_step": 6, "loss": 0.5, "error": None, "training_loss": 0.25, "training_error": 0.0}
    found = {**measured, "best_step": 6, "best_loss": 0.5}
    path = service.queue.folder(job).event_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"n": 1, "type": "validated", "steps": 6, **found}) + "\n")
    assert client.get(address).json() == {"validations": [found]}


# --- watching --------------------------------------------------------------------------------------------------------


def test_a_job_is_watched_to_its_end_and_read_afterwards(service: Service, client: TestClient) -> None:
    with started(service):
        job = submit(client, steps=6, preview_every=3)
        with client.stream("GET", f"{V1}/jobs/{job}/events") as stream:
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            told = b"".join(stream.iter_bytes()).decode()
        done = ended(client, job)
    assert (done["state"], done["global_step"], done["progress"]) == ("done", 6, 1.0)
    kinds = [line.removeprefix("event: ") for line in told.splitlines() if line.startswith("event: ")]
    assert kinds[-1] == "state" and kinds.count("steps") == 6 and kinds.count("ended") == 1
    ids = [line.removeprefix("id: ") for line in told.splitlines() if line.startswith("id: ")]
    last = len(ids) - 1
    assert ids == [*(str(number) for number in range(1, last + 1)), f"{last}-end"]

    metrics = client.get(f"{V1}/jobs/{job}/metrics").json()["metrics"]
    assert [entry["global_step"] for entry in metrics] == [1, 2, 3, 4, 5, 6]
    step = {"global_step": 5, "epoch": 1, "epoch_step": 0, "loss": 0.2, "learning_rate": 0.005}
    assert metrics[4] == {**step, "effective_rate": None, "further": {}}
    some = client.get(f"{V1}/jobs/{job}/metrics", params={"since_step": 1, "every": 4}).json()["metrics"]
    assert [entry["global_step"] for entry in some] == [4, 6]
    parts: list[list[int]] = []
    since: int | None = 0
    while since is not None:
        part = client.get(f"{V1}/jobs/{job}/metrics", params={"since_step": since, "limit": 4}).json()
        parts.append([entry["global_step"] for entry in part["metrics"]])
        since = part["next"]
    assert parts == [[1, 2, 3, 4], [5, 6]]

    log = client.get(f"{V1}/jobs/{job}/log").json()
    assert "nothing is trained" in log["text"]
    assert client.get(f"{V1}/jobs/{job}/log", params={"since": log["next"]}).json() == {**log, "text": ""}

    again = client.get(f"{V1}/jobs/{job}/events", params={"since": last - 1})
    assert [line for line in again.text.splitlines() if line.startswith("id")] == [f"id: {last}", f"id: {last}-end"]
    by_header = client.get(f"{V1}/jobs/{job}/events?since=1", headers={"Last-Event-ID": str(last - 1)})
    assert by_header.text == again.text
    assert client.get(f"{V1}/jobs/{job}/events", headers={"Last-Event-ID": f"{last}-end"}).status_code == 204
    assert client.get(f"{V1}/jobs/{job}/events", headers={"Last-Event-ID": "junk"}).status_code == 422


def test_previews_are_listed_and_sent(service: Service, client: TestClient) -> None:
    with started(service):
        job = submit(client, steps=4, preview_every=2)
        ended(client, job)
    listed = client.get(f"{V1}/jobs/{job}/previews").json()
    assert [(each["name"], each["step"]) for each in listed["previews"]] == [
        (f"cat-{step}-{index}.png", step) for step in (2, 4) for index in (0, 1)
    ]
    latest = client.get(f"{V1}/jobs/{job}/previews", params={"latest": True}).json()["previews"]
    assert [each["step"] for each in latest] == [4, 4]
    addresses = [each["url"] for each in listed["previews"]] + [listed["contact_sheet"]]
    for address in [*addresses, f"{V1}/jobs/{job}/previews/latest"]:
        answer = client.get(address)
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.content)).format == "PNG"
        again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for wrong in ("cat-9-0.png", "..%2frun.json", "state.txt"):
        assert client.get(f"{V1}/jobs/{job}/previews/{wrong}").status_code == 404


def test_a_job_without_previews_says_so(client: TestClient) -> None:
    job = submit(client)
    assert client.get(f"{V1}/jobs/{job}/previews").json() == {"previews": [], "contact_sheet": None}
    assert client.get(f"{V1}/jobs/{job}/contact-sheet.png").status_code == 404
    assert client.get(f"{V1}/jobs/{job}/previews/latest").status_code == 404


def test_a_failed_job_tells_its_error(service: Service, client: TestClient) -> None:
    with started(service):
        failed = ended(client, submit(client, author="fails"))
        assert (failed["state"], failed["error"], failed["error_type"]) == ("failed", "The data is odd.", "DataError")


def test_interrupt_stops_what_runs_as_done(tmp_path: Path) -> None:
    with started(quick_service(tmp_path, pace_s=0.05)) as service:
        client = TestClient(app_of(service))
        job = submit(client, steps=10_000)
        until(lambda: client.get(f"{V1}/jobs/{job}").json()["global_step"] > 0)
        assert [each["id"] for each in client.post(f"{V1}/interrupt").json()["jobs"]] == [job]
        done = ended(client, job)
        assert done["state"] == "done" and done["result"]["interrupted"] and done["global_step"] < 10_000
        assert service.model_work.drawing_process.interrupted == 1  # type: ignore[attr-defined]


def test_a_plan_tells_what_a_training_would_do(service: Service, client: TestClient) -> None:
    plan = client.post(f"{V1}/plan", json={"settings": training(steps=8)["settings"]})
    assert plan.status_code == 200
    assert (plan.json()["steps"], plan.json()["epochs"], plan.json()["buckets"][0]["size"]) == (8, 2.0, "64x64")
    assert plan.json()["duration"]["description"] == "asked to measure"
    untimed = client.post(f"{V1}/plan", json={"settings": training(steps=8)["settings"], "timing": "none"})
    assert untimed.json()["duration"]["description"] == "asked to none"
    assert client.post(f"{V1}/plan", json={"settings": training()["settings"], "timing": "x"}).status_code == 422
    service.model_work.file_process.error = DataError("There are no pictures.")  # type: ignore[attr-defined]
    refused = client.post(f"{V1}/plan", json={"settings": training()["settings"]})
    assert (refused.status_code, refused.json()["error"]) == (422, "DataError")
    assert client.post(f"{V1}/plan", json={"kind": "preprocess", "settings": {}}).status_code == 422


# --- adapters --------------------------------------------------------------------------------------------------------


def test_adapters_are_made_listed_looked_into_and_downloaded(service: Service, client: TestClient) -> None:
    made = client.post(f"{V1}/adapters/hypernetwork", json={"name": "ink é", "layer_structure": [1, 4, 1]})
    assert made.status_code == 201, made.text
    assert made.json()["path"] == "models/hypernetworks/ink é.pt"
    assert service.model_work.file_process.asked[-1][1]["layer_structure"] == [1, 4, 1]  # type: ignore[attr-defined]
    listed = client.get(f"{V1}/adapters").json()["adapters"]
    assert [(each["kind"], each["name"]) for each in listed] == [("embedding", "cat"), ("hypernetwork", "ink é")]
    assert client.get(made.headers["location"]).json()["file"]["kind"] == "embedding"  # as the stand-in says
    sent = client.get(made.json()["url"] + "/download")
    assert sent.content == "adapter ink é".encode()
    assert sent.headers["content-disposition"] == "attachment; filename*=utf-8''ink%20%C3%A9.pt"
    assert client.get(f"{V1}/adapters/embedding/cat/download").headers["content-disposition"] == (
        'attachment; filename="cat.pt"'
    )
    tag = sent.headers["etag"]
    for given, status in ((tag, 304), (f'"x", W/{tag}', 304), ('"x"', 200)):
        again = client.get(made.json()["url"] + "/download", headers={"If-None-Match": given})
        assert again.status_code == status
    made_file = service.workspace.hypernetworks / "ink é.pt"
    before, content = made_file.stat(), made_file.read_bytes()
    made_file.write_bytes(content[::-1])
    os.utime(made_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = client.get(made.json()["url"] + "/download", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (200, content[::-1])
    part = client.get(f"{V1}/adapters/embedding/cat/download", headers={"Range": "bytes=0-6"})
    assert (part.status_code, part.content) == (206, b"adapter")


def test_an_adapter_is_not_replaced_unless_that_is_asked_for(client: TestClient) -> None:
    body = {"name": "cat", "num_vectors": 2}
    refused = client.post(f"{V1}/adapters/embedding", json=body)
    assert refused.status_code == 409 and "cat" in refused.json()["detail"]
    assert client.post(f"{V1}/adapters/embedding", json={**body, "overwrite": True}).status_code == 201
    assert client.post(f"{V1}/adapters/embedding", json={"name": "a/b"}).status_code == 422
    assert client.post(f"{V1}/adapters/embedding", json={"name": "x", "num_vectors": 76}).status_code == 422


def test_an_adapter_that_is_not_there_is_not_found(client: TestClient) -> None:
    for wrong in ("embedding/dog", "hypernetwork/cat", "embedding/..%2f..%2fetc%2fpasswd"):
        assert client.get(f"{V1}/adapters/{wrong}").status_code == 404
        assert client.get(f"{V1}/adapters/{wrong}/download").status_code == 404
    assert client.get(f"{V1}/adapters/lora/cat").status_code == 422


# --- data sets -------------------------------------------------------------------------------------------------------


def picture(side: int = 16) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side)).save(content, "PNG")
    return content.getvalue()


def upload(client: TestClient, name: str, files: dict[str, bytes], **params: Any) -> Any:
    listed = [("files", (file, content)) for file, content in files.items()]
    return client.post(f"{V1}/datasets/{name}", files=listed, params=params)


def test_pictures_are_uploaded_looked_through_captioned_and_deleted(service: Service, client: TestClient) -> None:
    made = upload(client, "rex", {"a.png": picture(20), "b.png": picture(), "a.txt": b"a dog"})
    assert made.status_code == 201, made.text
    assert (made.json()["path"], made.json()["pictures"], made.json()["captions"]) == ("datasets/rex", 2, 1)
    assert upload(client, "rex", {"c.png": picture()}).status_code == 409
    assert upload(client, "rex", {"c.png": picture()}, add=True).json()["pictures"] == 3
    assert client.put(f"{V1}/datasets/rex/captions/b.png", json={"text": "a cat"}).status_code == 204
    shown = client.get(made.headers["location"]).json()["pictures"]
    assert [(each["file"], each["caption"]) for each in shown][:2] == [("a.png", "a dog"), ("b.png", "a cat")]
    assert (shown[0]["width"], shown[0]["height"]) == (20, 20)
    small = client.get(shown[0]["url"], params={"side": 16})
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (16, 16)
    assert [each["name"] for each in client.get(f"{V1}/datasets").json()["datasets"]] == ["rex"]
    assert client.delete(f"{V1}/datasets/rex").status_code == 204
    assert client.get(f"{V1}/datasets/rex").status_code == 404
    assert list((service.state_dir / "uploads").iterdir()) == []


def test_a_zip_is_unpacked(client: TestClient) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("inner/a.png", picture())
        archive.writestr("b.png", picture())
    assert upload(client, "zipped", {"all.zip": content.getvalue()}).json()["pictures"] == 2
    inner = next(each for each in client.get(f"{V1}/datasets/zipped").json()["pictures"] if "inner" in each["file"])
    assert inner["url"].endswith("/pictures/inner/a.png")
    assert client.get(inner["url"]).status_code == 200
    assert client.put(f"{V1}/datasets/zipped/captions/inner/a.png", json={"text": "deep"}).status_code == 204


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"--x--\r\n", 422),  # no boundary
        ("multipart/form-data; boundary=x", b"", 422),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("multipart/form-data; boundary=x", b"rubbish", 422),
        ("multipart/form-data; boundary=" + "x" * 300, b"rubbish", 422),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nhello\r\n--x--\r\n", 422),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--x--\r\n',
            422,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf',
            422,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 20_000 + b": b\r\n\r\n\r\n--x--\r\n", 422),
        ("application/json", b"{}", 422),
    ],
)
def test_a_damaged_upload_is_refused_and_leaves_nothing(
    service: Service, client: TestClient, content_type: str, body: bytes, status: int
) -> None:
    answer = client.post(f"{V1}/datasets/rex", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "detail", "errors"}
    uploads = service.state_dir / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []
    assert client.get(f"{V1}/datasets").json() == {"datasets": []}


def test_an_upload_is_bounded_in_files_and_bytes(tmp_path: Path) -> None:
    service = quick_service(tmp_path, max_upload_files=5, max_upload_mb=1)
    client = TestClient(app_of(service))
    many = upload(client, "rex", {f"{index}.png": picture() for index in range(6)})
    assert many.status_code == 413 and "5 files" in many.json()["detail"]
    large = upload(client, "rex", {"a.png": picture() + bytes(2**20)})
    assert large.status_code == 413
    assert list((service.state_dir / "uploads").iterdir()) == []
    service.close()


def test_only_data_sets_are_deleted(service: Service, client: TestClient) -> None:
    write_pictures(service.workspace.root / "mine")
    for name in ("mine", "..", "%2e%2e%2fpictures", "."):
        assert client.delete(f"{V1}/datasets/{name}").status_code in (403, 404, 405, 422)
    assert (service.workspace.root / "mine" / "0.png").exists()
    assert (service.workspace.root / "pictures" / "0.png").exists()


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_drawn_and_sent(service: Service, client: TestClient) -> None:
    assert client.get(f"{V1}/pictures/progress").json() == {"done": 0, "total": 0}
    drawn = client.post(f"{V1}/pictures", json={"prompts": ["a cat"], "seeds": [4, 5], "steps": 3, "width": 64})
    assert drawn.status_code == 200, drawn.text
    assert [each["name"] for each in drawn.json()["pictures"]] == ["00001-4.png", "00002-5.png"]
    assert drawn.json()["remarks"] == ["It was done quickly."]
    request = service.model_work.drawing_process.asked[0][1]["request"]  # type: ignore[attr-defined]
    settings = DrawingRequest.from_dict(request)
    assert settings.drawing() == Drawing(steps=3, width=64)
    assert (settings.model, settings.seeds, settings.overrides()) == ("picto", (4, 5), ModelOverrides())
    for each in drawn.json()["pictures"]:
        answer = client.get(each["url"])
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.content)).size == (8, 8)
    assert client.get(f"{V1}/pictures/progress").json() == {"done": 3, "total": 20}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompts": []}, 422),
        ({"prompts": ["x"], "sampler": "Dance"}, 422),
        ({"prompts": ["x"], "width": 63}, 422),
        ({"prompts": ["x"], "width": 4096}, 413),
        ({"prompts": ["x"] * 65}, 413),
        ({"prompts": ["x"], "checkpoints": ["/etc/passwd"]}, 403),
        ({"prompts": ["x"], "model": "../../model"}, 403),
        ({"prompts": ["x"], "steps": 10**9}, 422),
    ],
)
def test_drawings_that_cannot_be_made_are_refused(
    service: Service, client: TestClient, body: dict[str, Any], status: int
) -> None:
    answer = client.post(f"{V1}/pictures", json=body)
    assert answer.status_code == status, answer.text
    assert not service.model_work.drawing_process.asked  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["2026-01-01/00001-1.png", "../jobs.sqlite3", "2026-01-01/..%2f..%2fjobs.sqlite3"])
def test_only_pictures_are_sent(client: TestClient, path: str) -> None:
    assert client.get(f"{V1}/pictures/{path}").status_code == 404


# --- what there is ---------------------------------------------------------------------------------------------------


def test_what_there_is_to_choose_from_is_listed(service: Service, client: TestClient) -> None:
    service.workspace.templates.mkdir()
    (service.workspace.templates / "mine.txt").write_text("a [name]")
    assert client.get(f"{V1}/models").json()["models"][-1] == {"name": "picto", "title": "picto", "path": ""}
    assert "Euler a" in client.get(f"{V1}/samplers").json()["names"]
    templates = client.get(f"{V1}/templates").json()["names"]
    assert templates[0] == "mine" and "subject_filewords" in templates
    about = client.get(f"{V1}/about").json()
    assert about["devices"] == ["cpu"] and about["root"] == str(service.workspace.root)


@pytest.mark.parametrize(("kind", "fields"), [("train", FIELDS), ("preprocess", PREPROCESS_FIELDS)])
def test_settings_tell_all_that_a_form_needs(client: TestClient, kind: str, fields: Any) -> None:
    told = {each["name"]: each for each in client.get(f"{V1}/settings/{kind}").json()["settings"]}
    assert list(told) == list(fields)
    for name, spec in fields.items():
        assert told[name]["help"] == spec.help and told[name]["type"] == spec.type.__name__
        assert told[name]["choices"] == list(spec.choices) and told[name]["required"] == spec.required
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        assert told[name]["default"] == default and type(told[name]["default"]) is type(default)


def test_the_description_is_complete(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    json.dumps(description)
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"] and operation["description"] and operation["tags"], (method, path)
            assert {"401", "403", "422"} <= set(operation["responses"]), (method, path)
            good = [code for code in operation["responses"] if code.startswith("2")]
            assert good and any(code == "204" or operation["responses"][code].get("content") for code in good)
