"""Every address of the whole server, asked in many ways by those who have no credentials, or wrong ones."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from tests.served import quick_service
from tests.unit.server.live import PATIENCE_S, live
from tincture.server.app import build_app
from tincture.server.security import auth
from tincture.server.security.auth import OPEN_PATHS, Credentials

PAIR, TOKEN = "ada:engine", "a-token-that-nobody-guesses"
PREFIX = "/deep"
METHODS = ("HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
# how an address may be written so that a careless check takes it for another, or for an open one
WAYS = (
    *(
        "{}",
        PREFIX + "{}",
        "/{}",
        "{}/",
        "{}//",
        "/.{}",
        "/%2e{}",
        "/health/..{}",
        "/health/%2e%2e{}",
        "/health%2f..{}",
    ),
    *("{}?/health", "{}#/health", "{};/health", "{}%00", "{}%2f..%2fhealth", "http://127.0.0.1/health{}", "/health{}"),
    *("{}/../health/", "{}/%2e%2e/health", "/HEALTH", "/health/", "//health", "/health%00", "/health;x"),
)


@dataclass
class Guarded:
    """A whole server that asks for credentials."""

    app: FastAPI
    connection: HTTPConnection

    def ask(self, method: str, address: str, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer; the address is sent as it stands."""
        self.connection.putrequest(method, address, skip_accept_encoding=True)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.connection.putheader(name.replace("_", "-"), value)
        self.connection.endheaders()
        answer = self.connection.getresponse()
        assert answer.getheader("set-cookie") is None
        return answer.status, answer.read()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    pytest.importorskip("gradio")
    settings: dict[str, Any] = {"auth": PAIR, "token": TOKEN, "root_path": PREFIX, "proxy": ("127.0.0.1",)}
    service = quick_service(tmp_path_factory.mktemp("guarded"), requests_per_minute=10**6, **settings)

    async def build() -> FastAPI:  # in a loop: else Gradio makes some of its own, and leaves them open
        return build_app(service)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            patch.setenv(name, "")  # set by what is tested, and put back afterwards
        app = asyncio.run(build())
        with live(app, service.settings) as port:
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            yield Guarded(app, connection)
            connection.close()


def addresses(app: Any, prefix: str = "") -> Iterator[str]:
    """Every address that the app, and what is included and mounted in it, know; what they leave open is filled in."""
    while hasattr(app, "_app"):  # what stands before it
        app = app._app
    for route in getattr(app, "routes", ()):
        if hasattr(route, "original_router"):
            yield from addresses(route.original_router, prefix + route.include_context.prefix)
        elif isinstance(route, Mount):
            yield from addresses(route.app, prefix + route.path)
        else:
            yield prefix + re.sub(r"\{[^}]*\}", "embeddings", route.path)


def guarded_addresses(guarded: Guarded) -> list[str]:
    found = sorted({*addresses(guarded.app)} - OPEN_PATHS)
    named = {"/api/v1/jobs", "/sdapi/v1/options", "/docs", "/openapi.json", "/metrics", "/config", "/gradio_api/upload"}
    assert named <= {*found} and len(found) > 100  # else this looks at less than there is
    return [*found, "/", "/gradio_api/file=pictures/0.png", "/static/js/x.js", "/nothing"]


def assert_all_refused(asked: Iterable[tuple[str, str, dict[str, str]]], guarded: Guarded) -> None:
    """Each gets 401, and a sentence that says no more than that."""
    for method, address, headers in asked:
        status, body = guarded.ask(method, address, **headers)
        assert status == 401, (method, address, status)
        if method != "HEAD":
            assert json.loads(body)["error"] == "AccessError", (method, address)


def test_no_way_to_write_an_address_leads_past_the_gate(guarded: Guarded) -> None:
    paths = guarded_addresses(guarded)
    assert_all_refused((("GET", way.format(path), {}) for path in paths for way in WAYS), guarded)


def test_no_method_leads_past_the_gate(guarded: Guarded) -> None:
    paths = guarded_addresses(guarded)
    assert_all_refused(((method, path, {}) for path in paths for method in METHODS), guarded)
    socket = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Key": "eA==",
        "Sec_WebSocket_Version": "13",
    }
    assert_all_refused((("GET", path, socket) for path in paths), guarded)


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


def test_wrong_credentials_are_as_good_as_none_everywhere(guarded: Guarded) -> None:
    wrong = [{"Authorization": basic("ada:wrong")}, {"Authorization": basic("eve:engine")}, {"X_API_Key": "x" * 16}]
    wrong += [{"Authorization": f"Bearer {PAIR}"}, {"Cookie": f"token={TOKEN}; access-token={TOKEN}"}]
    asked = [(path, given) for path in guarded_addresses(guarded) for given in wrong]
    asked += [(f"{path}?token={TOKEN}&auth={PAIR}", {}) for path in guarded_addresses(guarded)]
    # each from another machine, by what the proxy says: one that guesses so often would wait
    machines = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(len(asked)))
    told = (
        ("GET", path, {**given, "X_Forwarded_For": machine})
        for (path, given), machine in zip(asked, machines, strict=True)
    )
    assert_all_refused(told, guarded)


def test_the_right_ones_lead_in_and_what_is_open_says_little(guarded: Guarded) -> None:
    for given in ({"Authorization": basic(PAIR)}, {"Authorization": f"Bearer {TOKEN}"}, {"X_API_Key": TOKEN}):
        for path in ("/", "/config", "/docs", "/openapi.json", "/metrics", "/api/v1/jobs", PREFIX + "/api/v1/jobs"):
            assert guarded.ask("GET", path, **given)[0] == 200, path
    for method in ("GET", *METHODS):
        status, body = guarded.ask(method, "/health")
        assert (status, body) == (200, b'{"status":"ok"}') if method == "GET" else status in (404, 405), method


@pytest.mark.parametrize("pair", [PAIR, "ada:wrong", "eve:engine", "eve:wrong", f"any:{TOKEN}", "a", "a" * 1000, ""])
def test_each_try_is_compared_in_the_same_steps(pair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared, and how much of it, must not tell whether the user, or a part of the password, is right."""
    compared: list[tuple[int, int]] = []

    def counted(given: bytes, right: bytes) -> bool:
        compared.append((len(given), len(right)))
        return hmac.compare_digest(given, right)

    fake = type("hmac", (), {"compare_digest": staticmethod(counted)})
    monkeypatch.setattr(auth, "hmac", fake)
    headers = [(b"authorization", basic(pair).encode())]
    right = Credentials(PAIR, TOKEN).judge({"type": "http", "headers": headers})
    assert right is (pair in (PAIR, f"any:{TOKEN}"))
    assert compared == [(32, 32), (32, 32)]
