from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from tests.unit.server.gate import small_app
from tests.unit.server.live import answer, live, request, send
from tincture.server.http.errors import AnswerFaults
from tincture.server.http.protocol import PatientProtocol
from tincture.server.security.limits import DEEPEST, MOST_VALUES, CheckBody, CheckRate, check_json
from tincture.server.security.page_gate import UPLOADS_AT_ONCE, PageGate, is_upload, named_files

JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "[[[[" * 100,
        ["{" * 200, '"' * 99, "\\" * 99, "\\\\ud800"],
        "\U0001f3a8 and \ud83c\udfa8".encode("utf-16", "surrogatepass").decode("utf-16"),
        [[]] * 5000,
        {"a": {"b": [{"c": []}] * 30}},
    ],
)
def test_json_that_people_send_is_taken(value: Any) -> None:
    check_json(json.dumps(value).encode())
    check_json(json.dumps(value, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (2 * DEEPEST + 1) + b"]" * (2 * DEEPEST + 1),
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b'[{"a":' * 200 + b"1" + b"}]" * 200,
        b'["\\"]]]",' * 300 + b"0" + b"]" * 300,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud83c\\udfa8\\udfa8"',
        b'"\\\\\\ud800"',
        b"\xff\xfe[\x00]\x00",
        b'"\x00"',
        "[]".encode("utf-16-le"),
    ],
)
def test_json_that_only_an_attack_sends_is_refused(body: bytes) -> None:
    with pytest.raises(HTTPException) as caught:
        check_json(body)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 1_000_000, b'"' * 1_000_001, b'"\\' * 500_000, b"]" * 100_000, b"nonsense"]
)
def test_what_is_no_json_is_left_to_the_reader_and_takes_no_time(body: bytes) -> None:
    check_json(body)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"data": [{"path": "/a.png", "meta": {}}], "event_data": {"path": "b"}}, ["/a.png", "b"]),
        ({"data": [[{"path": {"path": ["x", {"path": "inner"}]}}]]}, ["inner"]),
        ({"path": None, "x": {"path": 3, "url": "http://x"}}, []),
        ([], []),
    ],
)
def test_files_that_a_request_of_the_page_names_are_found(value: Any, found: list[str]) -> None:
    assert named_files(json.dumps(value).encode()) == found
    assert named_files(b"[" * 100_000) == []


def test_only_uploads_are_files_of_a_request(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (tmp_path / "secret.png").touch()
    (uploads / "link.png").symlink_to(tmp_path / "secret.png")
    assert is_upload(str(uploads / "0a1b" / "x.png"), uploads)
    for path in ("", "x.png", "/etc/passwd", "https://evil.example/x.png", "file:///etc/passwd", "//evil/x", "a\0b"):
        assert not is_upload(path, uploads)
    for inner in ("", "..", "../secret.png", "../uploads-of-others/x.png", "link.png"):
        assert not is_upload(f"{uploads}/{inner}", uploads)


def _scope(address: str) -> dict[str, Any]:
    return {"type": "http", "client": (address, 1), "headers": [], "method": "GET", "path": "/"}


def test_requests_come_back_with_time_and_the_table_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tincture.server.security.limits.MOST_ADDRESSES", 10)
    now, passed = [0.0], []
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["client"][0])

    async def note(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def ask(address: str) -> None:
        await gate(_scope(address), None, note)  # type: ignore[arg-type]

    gate = CheckRate(app, per_minute=60, clock=lambda: now[0])
    for _ in range(61):
        asyncio.run(ask("192.0.2.1"))
    assert (len(passed), statuses) == (60, [429])
    now[0] += 2
    for _ in range(3):
        asyncio.run(ask("192.0.2.1"))
    assert (len(passed), statuses) == (62, [429, 429])
    now[0] += 3600  # an hour's worth is not saved up
    for _ in range(61):
        asyncio.run(ask("192.0.2.1"))
    assert (len(passed), statuses) == (122, [429, 429, 429])
    for number in range(50):
        asyncio.run(ask(f"198.51.100.{number}"))
    assert len(gate._left) == 10


def test_a_body_that_breaks_off_is_not_handed_on() -> None:
    """The half of a number is a number too."""
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(await receive())

    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"12", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"4")]
    scope = {**_scope("192.0.2.1"), "method": "POST", "path": "/api/v1/x", "headers": headers}
    asyncio.run(CheckBody(app, most=100, most_upload=100)(scope, receive, receive))  # type: ignore[arg-type]
    assert not reached


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        defaults = CheckBody.__init__.__kwdefaults__ or {}
        patch.setattr(CheckBody.__init__, "__kwdefaults__", {**defaults, "patience_s": 0.3})
        patch.setattr(PatientProtocol, "headers_within_s", 0.3)
        patch.setattr("tincture.server.http.protocol.IDLE_S", 1)
        with live(small_app(max_body_kb=64, max_upload_mb=1)) as port:
            yield port


def test_headers_that_never_end_are_not_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
        assert answer(connection)[0] == 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        assert answer(connection)[0] == 0  # not a byte was sent
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HT")  # nor the next one's
        assert answer(connection)[0] == 200


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_bodies_that_never_come_are_not_waited_for(port: int, kind: str) -> None:
    path = "/api/v1/things" if "json" in kind else "/api/v1/datasets/cats"
    status, _, body = send(port, request("POST", path, f"Content-Type: {kind}", "Content-Length: 100", body=b"--b"))
    assert status == 408 and b"No part of the body came" in body


def test_bodies_that_drip_are_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tincture.server.security.limits.SLOWEST", 10**9)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request("POST", "/api/v1/things", JSON, "Content-Length: 1000"))
        connection.settimeout(0.05)
        for _ in range(500):
            try:
                connection.sendall(b" ")
                connection.recv(0)
                if told := connection.recv(100):
                    assert told.startswith(b"HTTP/1.1 408 ")
                    return
            except TimeoutError:
                continue
        raise AssertionError("the server waited")


def test_a_large_body_is_refused_before_it_is_sent(port: int) -> None:
    status, _, body = send(port, request("POST", "/api/v1/things", JSON, "Content-Length: 99999999999"))
    assert status == 413 and b"64 kB" in body


def test_a_picture_to_be_looked_into_may_be_larger(port: int) -> None:
    small, large = (f"Content-Length: {size}" for size in (20_000_000, 50_000_000))
    status, _, body = send(port, request("POST", "/sdapi/v1/png-info", JSON, large))
    assert status == 413 and b"32 MB" in body
    assert send(port, request("POST", "/sdapi/v1/png-info", JSON, small))[0] != 413


def test_headers_are_bounded(port: int) -> None:
    refused = (0, 400, 431)  # 0: it closed while they were being sent
    status, head, _ = send(port, request("GET", "/", "X-Large: " + "x" * 100_000))
    assert status in refused
    assert send(port, request("GET", "/" + "x" * 100_000))[0] in refused
    assert send(port, request("GET", "/", *["X-Many: 1"] * 200))[0] in refused
    assert "uvicorn" not in head.lower()
    assert send(port, request())[0] == 200


def test_nothing_tells_what_serves(port: int) -> None:
    assert "\r\nserver:" not in send(port, request())[1].lower()


def test_websockets_are_refused(port: int) -> None:
    headers = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="]
    raw = request("GET", "/api/v1/things", *headers).replace(b"Connection: close", b"Connection: Upgrade, close")
    assert send(port, raw)[0] in (200, 400, 403)  # as if it had asked for the page, or refused; never 101


def test_json_of_more_values_than_memory_should_hold_is_refused() -> None:
    check_json(b"[" + b"1," * (MOST_VALUES - 1) + b"1]")
    for body in (b"[" + b"1," * MOST_VALUES + b"1]", b"[" * MOST_VALUES + b'{"a":' * 9):
        with pytest.raises(HTTPException, match="more than 1,000,000 values"):
            check_json(body)


def test_only_so_many_uploads_to_the_page_come_at_a_time(tmp_path: Path) -> None:
    """Each may hold a thousand open files, which is all that many systems let a process have."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200})

    async def status(gate: PageGate) -> int:
        told: list[int] = []

        async def send(message: Any) -> None:
            told.append(message.get("status", 0))

        scope = {**_scope("127.0.0.1"), "method": "POST", "path": "/gradio_api/upload"}
        await gate(scope, _nothing, send)
        return told[0]

    async def flood() -> tuple[list[int], int]:
        gate = PageGate(slow, place=Path, uploads=tmp_path)
        told = await asyncio.gather(*[status(gate) for _ in range(UPLOADS_AT_ONCE + 3)])
        return list(told), await status(gate)

    told, afterwards = asyncio.run(flood())
    assert sorted(told) == [200] * UPLOADS_AT_ONCE + [429] * 3
    assert afterwards == 200


async def _nothing() -> Message:
    return {"type": "http.request"}


def body_through(patience_s: float, receive: Receive, app: Callable[[Receive], Any]) -> list[int]:
    """The statuses of what is sent when ``app`` reads a body through the gate."""
    told: list[int] = []

    async def send(message: Any) -> None:
        told.append(message.get("status", 0))

    async def reading(scope: Any, receive: Receive, send: Any) -> None:
        await app(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = CheckBody(AnswerFaults(reading), most=10**6, most_upload=10**6, patience_s=patience_s)
    scope = {**_scope("127.0.0.1"), "method": "POST", "path": "/api/v1/datasets/x"}
    scope["headers"] = [(b"content-type", b"multipart/form-data; boundary=b"), (b"transfer-encoding", b"chunked")]
    asyncio.run(gate(scope, receive, send))  # type: ignore[arg-type]
    return told


@pytest.mark.parametrize("busy", ["while it waits", "between two parts"])
def test_what_the_server_itself_is_late_by_is_not_the_clients(busy: str) -> None:
    """The process does something else for longer than its patience, and the body lies there meanwhile."""
    pieces = iter(range(3))

    async def receive() -> Message:
        loop = asyncio.get_running_loop()
        if busy == "while it waits":
            loop.call_soon(time.sleep, 0.35)
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": next(pieces) < 2}

    async def app(receive: Receive) -> None:
        while (await receive()).get("more_body"):
            if busy == "between two parts":
                time.sleep(0.35)

    assert body_through(0.3, receive, app)[0] == 200


def test_a_client_that_is_late_is_told_so_by_a_server_that_waits() -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def app(receive: Receive) -> None:
        await receive()

    assert body_through(0.05, receive, app)[0] == 408
