from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.served import quick_service, training, until
from tests.unit.server.gate import URL
from tincture.cli.app import main
from tincture.cli.serve import server_settings
from tincture.errors import UsageError
from tincture.server import serving
from tincture.server.app import build_app
from tincture.server.child_environment import child_environment
from tincture.server.http.ending import EndWithServer
from tincture.server.security.auth import CHALLENGE
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build_app(quick_service(tmp_path), page=False), base_url=URL) as client:
        yield client


# --- the app ---------------------------------------------------------------------------------------------------------


def test_a_job_goes_through_the_whole_server(server: TestClient) -> None:
    answer = server.post("/api/v1/jobs", json=training())
    assert answer.status_code == 202
    address = "/api/v1/jobs/" + answer.json()["id"]
    until(lambda: bool(server.get(address).json()["state"] == "done"))
    assert server.get("/health").json()["ready"] is True
    assert 'tincture_jobs{state="done"} 1.0' in server.get("/metrics").text


def test_a_jobs_work_is_counted(server: TestClient) -> None:
    answer = server.post("/api/v1/jobs", json=training(steps=3))
    until(lambda: bool(server.get("/api/v1/jobs/" + answer.json()["id"]).json()["state"] == "done"))
    figures = server.get("/metrics").text
    assert "tincture_train_steps_total 3.0" in figures
    assert 'tincture_jobs_ended_total{kind="train",state="done"} 1.0' in figures
    assert 'tincture_http_requests_total{method="POST",route="/api/v1/jobs",status="202"} 1.0' in figures
    assert 'tincture_http_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="200"}' in figures


def test_what_the_api_does_not_know_is_told_as_such(server: TestClient) -> None:
    for path in ("/api/v1/nothing", "/sdapi/v1/nothing", "/api/", "/sdapi/v2/options"):
        assert server.get(path).status_code == 404
        assert "/docs" in server.get(path).json()["detail"]
    wrong = server.put("/api/v1/jobs", json={})
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "GET, POST"


def test_without_a_page_the_root_leads_to_the_description(server: TestClient) -> None:
    assert server.get("/", follow_redirects=False).headers["location"] == "/docs"
    assert server.get("/gradio_api/info").status_code == 404


def test_the_description_needs_no_other_machine(server: TestClient) -> None:
    page = server.get("/docs").text
    linked = re.findall(r"""(?:src|href|url)\s*[=:]\s*['"]([^'"]+)""", page)
    assert len(linked) >= 4
    for address in linked:
        assert address.startswith("/"), address
        assert server.get(address).status_code == 200, address
    assert "://" not in page.replace("http://www.w3.org", "")
    assert '"validatorUrl": null' in page


def test_the_description_tells_every_error_in_the_common_shape(server: TestClient) -> None:
    described = server.get("/openapi.json").json()
    assert "HTTPValidationError" not in described["components"]["schemas"]
    paths = {path: found for path, found in described["paths"].items() if path.startswith(("/api/", "/sdapi/"))}
    assert len(paths) > 20
    for path, methods in paths.items():
        for method, operation in methods.items():
            told = operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
            assert told.endswith("/ErrorAnswer"), (method, path)


def test_values_that_are_not_allowed_are_told_by_name(server: TestClient) -> None:
    answer = server.post("/api/v1/jobs", json={"kind": "nonsense", "settings": 7})
    told = answer.json()
    assert (answer.status_code, told["error"]) == (422, "UsageError")
    assert "kind" in told["detail"] and "settings" in told["detail"] and told["errors"] == told["detail"]


# --- the page's gate -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Path]]:
    pytest.importorskip("gradio")
    root = tmp_path_factory.mktemp("page")

    async def build() -> FastAPI:  # in a loop: else Gradio makes some of its own, and leaves them open
        return build_app(quick_service(root, auth="ada:engine"))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            patch.setenv(name, "")  # set by what is tested, and put back afterwards
        with TestClient(asyncio.run(build()), base_url=URL) as client:
            client.auth = ("ada", "engine")
            yield client, root


def test_the_page_is_served_and_asks_who_it_is(page: tuple[TestClient, Path]) -> None:
    server, _ = page
    assert "gradio" in server.get("/").text
    for path in ("/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/file=x", "/gradio_api/queue/join"):
        refused = server.get(path, auth=("ada", "wrong") if path == "/" else None, headers={"Authorization": ""})
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"] == CHALLENGE["WWW-Authenticate"]


def test_the_page_keeps_its_files_in_the_servers_folder_and_tells_nobody(page: tuple[TestClient, Path]) -> None:
    server, root = page
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    sent = server.post("/gradio_api/upload", files={"files": ("cat.png", b"x" * 100)})
    assert sent.status_code == 200
    path = Path(sent.json()[0])
    assert path.is_relative_to(root / "tincture-server" / "page-files") and path.stat().st_size == 100
    fetched = server.get(f"/gradio_api/file={path}")
    assert fetched.status_code == 200 and len(fetched.content) == 100
    assert "sandbox" in fetched.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/login",
        "/logout",
        "/monitoring",
        "/monitoring/summary",
        "/svelte/x",
        "/gradio_api/proxy=https://evil.example/x",
        "/gradio_api/runs",
        "/gradio_api/run-history/buckets",
        "/gradio_api/token",
        "/gradio_api/user",
        "/gradio_api/vibe-code",
        "/gradio_api/openapi.json",
        "/gradio_api/deep_link",
        "/gradio_api/custom_component/1/client/x/y",
        "/gradio_api/call/predict",
        "/gradio_api/api/predict",
        "/something/new",
    ],
)
def test_addresses_of_gradio_that_the_page_does_not_need_are_closed(path: str, page: tuple[TestClient, Path]) -> None:
    assert page[0].get(path).status_code == 404
    assert page[0].post(path, json={}).status_code == 404


def test_the_page_serves_no_file_from_elsewhere(page: tuple[TestClient, Path], tmp_path: Path) -> None:
    server, root = page
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"what nobody may see")
    (root / "embeddings" / "link.png").symlink_to(secret)
    (root / "textual_inversion").symlink_to(tmp_path)
    state = root / "tincture-server"
    named = [secret, root / "embeddings" / "link.png", root / "textual_inversion" / "secret.png"]
    named += [state / "jobs.sqlite3", root / "embeddings" / ".." / ".." / tmp_path.name / "secret.png"]
    for name in [*map(str, named), "/etc/passwd", "../../etc/passwd", "pyproject.toml", "file:///etc/passwd"]:
        for form in (name, name.replace("/", "%2F"), name.replace("/", "//")):
            found = server.get(f"/gradio_api/file={form}")
            assert found.status_code in (403, 404, 422), form
            assert b"what nobody may see" not in found.content
    assert server.get("/gradio_api/file=https://evil.example/x").status_code in (403, 404, 422)


ODD: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/gradio_api/file=nowhere.png", {}),
    ("GET", "/gradio_api/file=/proc/1/root/etc/passwd", {}),
    ("GET", "/gradio_api/file=/proc/self/cwd/x", {}),
    ("GET", "/gradio_api/file=", {}),
    ("POST", "/gradio_api/upload", {}),
    ("POST", "/gradio_api/upload", {"json": {}}),
    ("GET", "/gradio_api/upload_progress", {}),
    ("POST", "/gradio_api/queue/join", {"json": {}}),
    ("POST", "/gradio_api/queue/join", {"json": {"data": [], "fn_index": 10**6, "session_hash": "x"}}),
    ("POST", "/gradio_api/queue/join", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/gradio_api/queue/join", {"json": {"data": [{"path": "/proc/1/root", "meta": {}}], "fn_index": 0}}),
    ("POST", "/gradio_api/run/predict", {"json": {"data": "x", "fn_index": "y"}}),
    ("POST", "/gradio_api/run/nothing", {"json": {"data": []}}),
    ("GET", "/gradio_api/queue/data", {}),
    ("POST", "/gradio_api/cancel", {"json": {}}),
    ("POST", "/gradio_api/reset", {"json": []}),
    ("GET", "/gradio_api/call/predict", {}),
    ("POST", "/gradio_api/call/predict", {"json": {}}),
    ("DELETE", "/config", {}),
    ("GET", "/static/../../etc/passwd", {}),
    ("GET", "/assets/nothing.js", {}),
]


@pytest.mark.parametrize(("method", "address", "given"), ODD)
def test_gradios_errors_have_the_common_shape(
    method: str, address: str, given: dict[str, Any], page: tuple[TestClient, Path]
) -> None:
    answer = page[0].request(method, address, **given)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert told.keys() == {"error", "detail", "errors"}
    assert told["detail"] == told["errors"] and told["detail"][-1] in ".!?"
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("address", ["/gradio_api/queue/join", "/gradio_api/run/predict"])
def test_the_page_takes_no_file_but_uploads(address: str, page: tuple[TestClient, Path], tmp_path: Path) -> None:
    """Gradio's inputs for files would copy any file of this machine, or fetch one from another."""
    server, root = page
    (tmp_path / "secret.png").write_bytes(b"secret")
    named = [tmp_path / "secret.png", root / "pictures" / "0.png", root / "tincture-server" / "jobs.sqlite3"]
    for path in [*map(str, named), "https://evil.example/x.png", "file:///etc/passwd", "/etc/passwd", ""]:
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        answer = server.post(address, json={"data": [data], "fn_index": 0, "session_hash": "x"})
        assert answer.status_code == 403 and "upload the file itself" in answer.json()["detail"]


def test_nothing_of_the_page_goes_around_its_queue(page: tuple[TestClient, Path]) -> None:
    server, _ = page
    events = server.get("/config").json()["dependencies"]
    queued = next(event["id"] for event in events if event["queue"] and not event["inputs"])
    answer = server.post("/gradio_api/run/predict", json={"data": [], "fn_index": queued, "session_hash": "x"})
    assert answer.status_code >= 400 and "data" not in answer.json()


# --- the process -----------------------------------------------------------------------------------------------------


def settings(**changes: Any) -> ServerSettings:
    return ServerSettings(**{"port": 0, "device": ("cpu",), **changes})


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--root", str(tmp_path), "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert f"Another program listens on 127.0.0.1 port {port}" in told and "--port" in told
    assert not (tmp_path / "tincture-server").exists()


@pytest.mark.parametrize(
    ("host", "words"), [("nowhere.invalid", "not known"), ("192.0.2.1", "no address of this machine")]
)
def test_an_address_that_is_none_of_this_machines_is_told(tmp_path: Path, host: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        serving.serve(Workspace(tmp_path), settings(host=host, token="0123456789abcdef"), lambda text: None)


def test_a_second_server_on_the_same_queue_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "has_page", lambda: False)
    first = quick_service(tmp_path)
    first.start()
    try:
        with pytest.raises(UsageError, match="Another server works on the queue"):
            serving.serve(Workspace(tmp_path), settings(), lambda text: None)
    finally:
        first.close()
    assert "Traceback" not in caplog.text


def test_a_server_without_gradio_works_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "has_page", lambda: False)
    said: list[str] = []
    told: list[Mapping[str, Any]] = []

    def listening(what: Mapping[str, Any]) -> None:
        told.append(what)
        os.kill(os.getpid(), signal.SIGTERM)

    assert serving.serve(Workspace(tmp_path), settings(), said.append, listening) == 0
    assert "tincture[ui]" in said[0]
    assert told[0]["page"] is False and told[0]["url"].startswith("http://127.0.0.1:")
    assert str(tmp_path) in said[1] and told[0]["url"] in said[1]
    assert "once more to leave at once" in said[2]


def test_a_missing_library_is_told_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("tincture.server.") and "settings" not in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--root", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "uvicorn" in told and "tincture[server]" in told and "tincture[ui]" in told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "trainer.lan"])
def test_other_machines_are_not_let_in_without_credentials(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINCTURE_AUTH", raising=False)
    monkeypatch.delenv("TINCTURE_TOKEN", raising=False)
    assert main(["serve", "--root", str(tmp_path), "--host", host]) == 2
    assert "neither auth nor token is set" in capsys.readouterr().err


def test_flags_win_over_variables_and_these_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 7000\nauth = "file:file"\ntoken = "file-file-file-file"\nallow_host = ["a.lan"]\n')
    variables = {"TINCTURE_AUTH": "variable:variable", "TINCTURE_TOKEN": ""}
    made = server_settings(file, {"port": 7001, "host": None, "device": []}, variables)
    assert (made.port, made.auth, made.token) == (7001, "variable:variable", "file-file-file-file")
    assert (made.allow_host, made.device) == (("a.lan",), ("auto",))
    assert server_settings(file, {"auth": "flag:flag"}, variables).auth == "flag:flag"
    with pytest.raises(UsageError, match=r"serve\.toml.*'prot'"):
        file.write_text("prot = 1")
        server_settings(file, {}, {})


def test_secrets_are_told_nowhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--root", str(tmp_path), "--token", "short-secret"]) == 2
    assert "short-secret" not in capsys.readouterr().err
    assert main(["serve", "--root", str(tmp_path), "--auth", "secret-without-colon"]) == 2
    assert "secret-without-colon" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "given", "chosen"),
    [
        ({}, "", (2, "PASSIVE")),
        ({"device": ("cpu", "cuda:0", "cuda:1")}, "", (1, "PASSIVE")),
        ({"threads": 6}, "", (3, "PASSIVE")),
        ({"threads": 6}, "7", (3, "PASSIVE")),
        ({}, "7", (7, None)),
    ],
)
def test_jobs_and_drawings_share_the_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    given: str,
    chosen: tuple[int, str | None],
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TINCTURE_CHOSEN_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("tincture.models.threads.available_cores", lambda: 4)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="Another program listens"):
        port = taken.getsockname()[1]
        serving.serve(Workspace.open(tmp_path), ServerSettings(port=port, **settings), lambda text: None)
    environment = child_environment(allow_hub=False)
    assert (int(environment["OMP_NUM_THREADS"]), environment.get("OMP_WAIT_POLICY")) == chosen


@pytest.mark.skipif(os.name != "posix", reason="limits of a POSIX system")
def test_the_server_may_open_as_many_files_as_its_user() -> None:
    code = """
import resource
from tincture.server.serving import OPEN_FILES, _allow_open_files
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
_allow_open_files()
now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
print(most == hard and now == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


def test_a_second_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    said: list[str] = []
    stopping = threading.Event()
    monkeypatch.setattr("os._exit", codes.append)
    server = serving._Server(uvicorn.Config(FastAPI()), said.append, stopping)
    server.handle_exit(signal.SIGINT, None)
    assert stopping.is_set() and server.should_exit and not codes
    server.handle_exit(signal.SIGINT, None)
    assert codes == [130] and "at once" in said[1]


class OpenPage:
    """An app that keeps a stream open until its client leaves, as Gradio's pages do."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.received: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            self.received.append(message["type"])
        self.left.set()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_that_is_open_does_not_keep_the_server(method: str) -> None:
    app, stopping = OpenPage(), threading.Event()
    asked: list[str] = []

    async def receive() -> Any:
        asked.append("asked")
        if len(asked) == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        stopping.set()
        await asyncio.Event().wait()  # the client never leaves

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def serve() -> None:
        await asyncio.wait_for(EndWithServer(app, stopping)({"type": "http", "method": method}, receive, send), 60)

    asyncio.run(serve())
    assert app.left.is_set() and app.received == ["http.request"] and len(asked) == 2


def test_what_is_cut_off_at_the_end_is_no_fault() -> None:
    def record(error: BaseException) -> logging.LogRecord:
        return logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "", None, (type(error), error, None))

    assert not serving._is_fault(record(asyncio.CancelledError()))
    assert not serving._is_fault(record(UsageError("told already")))
    assert serving._is_fault(record(ValueError("unforeseen")))
