"""The server below a path of a reverse proxy that takes it off, and of one that leaves it in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from tests.reverse_proxy import below
from tests.served import quick_service, training
from tests.unit.server.live import live
from tincture.errors import UsageError
from tincture.server.app import build_app
from tincture.settings.server import ServerSettings

FORWARDED = "X-Forwarded-Prefix"


@pytest.fixture(params=["taken off", "left in", "forwarded"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server below /deep/er, without a slash at its end."""
    path = "/deep/er"
    forwarded = request.param == "forwarded"
    changes: dict[str, Any] = {"proxy": ("127.0.0.1",)} if forwarded else {"root_path": path}
    service = quick_service(tmp_path, **changes)
    headers = {FORWARDED: path, "X-Forwarded-For": "10.1.2.3"} if forwarded else {}
    with (
        live(build_app(service, page=False), service.settings) as port,
        below(path, port, strips=request.param != "left in", headers=headers) as proxy,
    ):
        yield f"http://127.0.0.1:{proxy}{path}"


def test_everything_stays_below_the_path(base: str) -> None:
    assert requests.get(f"{base}/health").json()["ready"] is True
    led = requests.get(f"{base}/", allow_redirects=False)
    assert urljoin(f"{base}/", led.headers["location"]) == f"{base}/docs"
    page = requests.get(f"{base}/docs").text
    named = [ref for ref in re.findall(r"""(?:src|href|url)(?:=|: ?)["']([^"'#]+)["']""", page) if ref[0] in "/."]
    assert len(named) >= 4
    assert all(requests.get(urljoin(f"{base}/docs", ref)).status_code == 200 for ref in named)
    described = requests.get(f"{base}/openapi.json").json()
    assert described["servers"][0]["url"] == "/deep/er"
    assert "/api/v1/jobs" in described["paths"]


def test_answers_lead_below_the_path(base: str) -> None:
    made = requests.post(f"{base}/api/v1/jobs", json=training(steps=3))
    assert made.status_code == 202
    job = urljoin(base, made.headers["location"])
    assert job.startswith(f"{base}/api/v1/jobs/") and requests.get(job).status_code == 200
    with requests.get(f"{job}/events", stream=True) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert any(b"ended" in line for line in stream.iter_lines())
    request = {"prompts": ["a"], "seeds": [1], "model": "picto"}
    drawn = requests.post(f"{base}/api/v1/pictures", json=request).json()["pictures"][0]
    picture = requests.get(urljoin(base, drawn["url"]))
    assert drawn["url"].startswith("/deep/er/api/") and picture.headers["content-type"] == "image/png"


def test_what_is_not_there_is_told_as_ever(base: str) -> None:
    for address, status in (("/api/v1/nothing", 404), ("/sdapi/v1/nothing", 404), ("/api/v1/jobs/x", 404)):
        answer = requests.get(base + address)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "detail", "errors"})
        assert "sandbox" in answer.headers["content-security-policy"]
    assert requests.delete(f"{base}/api/v1/settings/train").headers["allow"]
    assert 'route="/api/v1/jobs/{job_id}"' in requests.get(f"{base}/metrics").text


def test_a_path_without_its_last_slash_leads_to_the_page(tmp_path: Path) -> None:
    service = quick_service(tmp_path, root_path="/deep")
    with live(build_app(service, page=False), service.settings) as port:
        answer = requests.get(f"http://127.0.0.1:{port}/deep?x=1", allow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (308, "/deep/?x=1")
        assert requests.get(f"http://127.0.0.1:{port}/api/v1/jobs").status_code == 200  # straight to the server


@pytest.mark.parametrize(
    ("proxies", "prefix", "counts"),
    [
        (("127.0.0.1",), "/deep", True),
        (("127.0.0.0/8",), "/deep/", True),
        ((), "/deep", False),
        (("10.0.0.1",), "/deep", False),
        *(
            (("127.0.0.1",), bad, False)
            for bad in ("deep", "//evil.example", "/a/../b", '/"><script>', "/api", "/a,/b")
        ),
    ],
)
def test_only_a_trusted_proxy_may_say_where_it_is(
    tmp_path: Path, proxies: tuple[str, ...], prefix: str, counts: bool
) -> None:
    service = quick_service(tmp_path, proxy=proxies)
    headers = {FORWARDED: prefix, "X-Forwarded-For": "10.0.0.1"}
    with live(build_app(service, page=False), service.settings) as port:
        led = requests.get(f"http://127.0.0.1:{port}/", headers=headers, allow_redirects=False)
    assert led.headers["location"] == ("/deep/docs" if counts else "/docs")


def test_access_is_asked_for_below_the_path_too(tmp_path: Path) -> None:
    """Neither the path nor the header may lead past the gate."""
    service = quick_service(tmp_path, root_path="/deep", auth="ada:engine")
    with live(build_app(service, page=False), service.settings) as port:
        here = f"http://127.0.0.1:{port}"
        for address in ("/deep/api/v1/jobs", "/deep/deep/api/v1/jobs", "/deep/health/../api/v1/jobs", "/deep/metrics"):
            session = requests.Session()
            asked = session.prepare_request(requests.Request("GET", here + address))
            asked.url = here + address  # as it stands, dots too
            assert session.send(asked).status_code == 401, address
        assert requests.get(f"{here}/deep/health").json().keys() == requests.get(f"{here}/health").json().keys()
        assert requests.get(f"{here}/deep/api/v1/jobs", auth=("ada", "engine")).status_code == 200


@pytest.mark.parametrize("path", ["tincture", "/a//b", "/../x", "/a b", "/api", "/docs/x", "http://x/y", "/<x>"])
def test_a_root_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"root_path is .*, but must be a path such as /tincture"):
        ServerSettings(root_path=path)


def test_a_root_path_may_end_in_a_slash() -> None:
    assert json.loads(json.dumps(ServerSettings(root_path="/a/b-c.d/").to_dict()))["root_path"] == "/a/b-c.d/"


@pytest.mark.parametrize("given", ["/", " ", " / "])
def test_the_root_itself_is_no_path(given: str, tmp_path: Path) -> None:
    settings = ServerSettings.from_dict({"root_path": given})
    service = quick_service(tmp_path, root_path=settings.root_path)
    with live(build_app(service, page=False), service.settings) as port:
        assert requests.get(f"http://127.0.0.1:{port}/health").status_code == 200
        led = requests.get(f"http://127.0.0.1:{port}/api/v1/jobs/?limit=1")
        assert led.url.endswith("/api/v1/jobs?limit=1") and led.json()["jobs"] == []


def test_a_slash_behind_an_address_leads_to_it_below_the_path(base: str) -> None:
    led = requests.get(f"{base}/api/v1/jobs/?limit=1")
    assert (led.url, led.status_code) == (f"{base}/api/v1/jobs?limit=1", 200)
