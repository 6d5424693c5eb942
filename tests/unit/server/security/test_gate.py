from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.unit.server.gate import client, small_app
from tincture.server.http.asgi import address_of
from tincture.server.security.auth import FREE_TRIES, MOST_ADDRESSES, Credentials, Throttle
from tincture.server.security.hosts import Names
from tincture.settings.server import ServerSettings

TOKEN = "0123456789abcdef-secret"
PAIR: dict[str, Any] = {"auth": "ada:engine:1"}  # a password may hold a colon


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:7860", "[::1]", "[::1]:80", "localhost.", "127.8.8.8"]
)
def test_a_server_of_this_machine_goes_by_the_names_of_this_machine(host: str) -> None:
    assert host in Names("127.0.0.1")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:7860",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.5",
        "localhost@evil.example",
        "localhost/",
        "localhost:80:80",
        "[::1",
        "0.0.0.0",
        "2130706433",
        "local host",
        "localhost,evil.example",
        "\uff4cocalhost",
        "[::ffff:8.8.8.8]",
        "localhost:999999",
        "localhost:x",
        "\udcff",
    ],
)
def test_no_other_name_is_taken(host: str) -> None:
    assert host not in Names("127.0.0.1")


def test_names_that_were_allowed_are_taken_with_any_port() -> None:
    names = Names("127.0.0.1", ["Trainer.LAN", "box.local:8443"])
    assert all(name in names for name in ("trainer.lan", "trainer.lan:80", "box.local", "box.local:1"))
    assert "other.lan" not in names


def test_a_server_of_the_network_goes_by_addresses_in_numbers() -> None:
    """They cannot be rebound; names can."""
    names = Names("0.0.0.0")
    assert all(name in names for name in ("192.168.1.5:7860", "[fd00::5]:7860", "localhost"))
    assert "trainer.lan" not in names
    assert "trainer.lan:7860" in Names("trainer.lan")
    assert "[::1]:7860" in Names("::1")


def test_requests_for_other_names_are_refused_with_a_sentence() -> None:
    answer = client().get("/", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert answer.json()["error"] == "ForbiddenHostError"
    assert "'evil.example'" in answer.json()["detail"] and "--allow-host" in answer.json()["detail"]
    assert client(allow_host=("evil.example",)).get("/", headers={"Host": "evil.example"}).status_code == 200


# --- other sites -----------------------------------------------------------------------------------------------------

OWN = {"Origin": "http://127.0.0.1:7860"}
OTHER = {"Origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        (OWN, 200),
        ({**OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        # behind a proxy the server does not know the name that the browser sees, but the browser does
        ({"Origin": "https://trainer.example", "Sec-Fetch-Site": "same-origin"}, 200),
        (OTHER, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://127.0.0.1:7860.evil.example"}, 403),
        ({"Origin": "http://[broken"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({**OWN, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Sec-Fetch-Site": "whatever"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_change_anything(headers: dict[str, str], status: int) -> None:
    assert client().post("/api/v1/things", json=1, headers=headers).status_code == status


def test_pages_of_other_sites_may_lead_here_but_not_look_in() -> None:
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client().get("/", headers=opened).status_code == 200
    assert client().get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client().get("/", headers=OTHER).status_code == 200  # without CORS headers it cannot be read


def test_no_answer_tells_other_sites_that_they_may_read_it() -> None:
    answer = client().get("/api/v1/cors", headers=OTHER)
    assert answer.text == "told"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = client().options("/api/v1/things", headers={**OTHER, "Access-Control-Request-Method": "POST"})
    assert not [name for name in preflight.headers if name.startswith("access-control")]


# --- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("ada:engine:1"), 200),
        (basic("ada:engine"), 401),
        (basic("ada:engine:12"), 401),
        (basic("Ada:engine:1"), 401),
        (basic(f"anyone:{TOKEN}"), 200),
        (basic(":"), 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer  {TOKEN}"}, 200),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": "Basic !!!"}, 401),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}, 401),
        ({"Authorization": "Digest x"}, 401),
        ({"X-API-Key": TOKEN}, 200),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "wrong"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/things", "/docs", "/openapi.json", "/nothing"])
def test_everything_asks_for_credentials(path: str, headers: dict[str, str], status: int) -> None:
    found = client(**PAIR, token=TOKEN).get(path, headers=headers)
    assert (404 if path == "/nothing" and status == 200 else status) == found.status_code
    assert ("www-authenticate" in found.headers) == (status == 401)


def test_with_a_pair_alone_no_token_counts_and_the_other_way_round() -> None:
    alone = client(**PAIR)
    assert alone.get("/", headers={"X-API-Key": ""}).status_code == 401
    assert alone.get("/", headers={"Authorization": "Bearer "}).status_code == 401
    assert alone.get("/", headers=basic("ada:")).status_code == 401
    token = client(token=TOKEN)
    assert token.get("/", headers=basic(":")).status_code == 401
    assert token.get("/", headers=basic(f":{TOKEN}")).status_code == 200


def test_health_is_open_and_knows_who_asks() -> None:
    server = client(**PAIR)
    assert server.get("/health").json() == {"allowed": False}
    assert server.get("/health", headers=basic("ada:engine:1")).json() == {"allowed": True}
    assert server.get("/health", headers=basic("ada:wrong")).json() == {"allowed": False}
    assert client().get("/health").json() == {"allowed": True}


def test_wrong_tries_are_slowed_down_for_their_address_only() -> None:
    app = small_app(**PAIR)
    attacker, user = client(app, "192.0.2.1"), client(app, "192.0.2.2")
    statuses = [attacker.get("/", headers=basic(f"ada:{number}")).status_code for number in range(FREE_TRIES + 1)]
    assert statuses == [401] * FREE_TRIES + [429]
    right = attacker.get("/", headers=basic("ada:engine:1"))
    assert right.status_code == 429 and int(right.headers["retry-after"]) >= 1  # else each guess would be answered
    assert attacker.get("/").status_code == 401  # to give none is no try
    assert user.get("/", headers=basic("ada:engine:1")).status_code == 200


def test_tries_without_credentials_count_for_nothing() -> None:
    server = client(**PAIR)
    assert {server.get("/").status_code for _ in range(FREE_TRIES * 4)} == {401}
    assert server.get("/", headers=basic("ada:engine:1")).status_code == 200


def test_the_wait_doubles_up_to_a_minute_and_is_forgotten() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    waits = []
    for _ in range(FREE_TRIES + 8):
        throttle.failed("a")
        waits.append(throttle.wait_s("a"))
    assert waits == [0] * (FREE_TRIES - 1) + [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now[0] += 30
    assert throttle.wait_s("a") == 30
    now[0] += 2000
    throttle.failed("a")
    assert throttle.wait_s("a") == 0
    throttle.failed("b")
    throttle.succeeded("b")
    assert len(throttle) == 1


def test_the_table_of_wrong_tries_does_not_grow_without_end() -> None:
    throttle = Throttle()
    for number in range(MOST_ADDRESSES + 100):
        throttle.failed(str(number))
    assert len(throttle) == MOST_ADDRESSES


def test_an_attacker_with_a_network_of_his_own_counts_as_one() -> None:
    def address(host: str) -> str:
        return address_of({"type": "http", "client": (host, 1)})

    assert address("2001:db8::1") == address("2001:db8::2:ffff") != address("2001:db8:0:1::1")
    assert address("::ffff:192.0.2.1") == address("192.0.2.1") != address("192.0.2.2")
    assert address_of({"type": "http", "client": None}) == ""


def test_credentials_are_not_shown() -> None:
    assert TOKEN not in repr(vars(Credentials("ada:engine:1", TOKEN))) + repr(Credentials("ada:engine:1", TOKEN))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "trainer.lan"])
def test_other_machines_get_in_with_credentials_only(host: str) -> None:
    with pytest.raises(ValueError, match="neither auth nor token"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token=TOKEN).host == host


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/v1/things", "/nothing", "/api/v1/fails/inside", "/docs"])
@pytest.mark.parametrize("headers", [{}, {"Host": "evil.example"}])
def test_every_answer_says_what_a_browser_may_do_with_it(path: str, headers: dict[str, str]) -> None:
    found = client().get(path, headers=headers).headers
    assert found["x-content-type-options"] == "nosniff"
    assert found["x-frame-options"] == "SAMEORIGIN"
    assert found["referrer-policy"] == "same-origin"
    policy = found["content-security-policy"]
    assert "frame-ancestors 'self'" in policy and "default-src" in policy and "http" not in policy
    assert ("sandbox" in policy) == path.startswith("/api/")


def test_no_answer_tells_what_serves_it() -> None:
    assert "server" not in client().get("/api/v1/cors").headers


def test_answers_of_the_api_are_not_kept_by_anybody() -> None:
    assert client().get("/api/v1/things").headers["cache-control"] == "no-store"


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_have_one_shape_and_unforeseen_ones_tell_nothing(caplog: pytest.LogCaptureFixture) -> None:
    foreseen = client().get("/api/v1/fails/data")
    assert foreseen.status_code == 422
    assert foreseen.json() == {"error": "DataError", "detail": "no picture", "errors": "no picture"}
    unforeseen = client().get("/api/v1/fails/inside")
    assert unforeseen.status_code == 500
    assert unforeseen.json()["error"] == "RuntimeError" and "secret" not in unforeseen.text
    assert "the secret inside" in caplog.text  # the log does
    assert client().get("/nothing").json()["error"] == "HTTPException"


# --- how much --------------------------------------------------------------------------------------------------------


def test_an_address_may_ask_so_often_a_minute() -> None:
    app = small_app(requests_per_minute=3)
    one, other = client(app, "192.0.2.1"), client(app, "192.0.2.2")
    assert [one.get("/").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert 1 <= int(one.get("/").headers["retry-after"]) <= 21
    assert other.get("/").status_code == 200


def form(*sizes: int) -> dict[str, Any]:
    return {"files": [("files", (f"{number}.png", b"x" * size)) for number, size in enumerate(sizes)]}


def test_a_body_may_have_so_much_and_an_upload_more() -> None:
    received: list[int] = []
    server = client(small_app(received, max_body_kb=2, max_upload_mb=1))
    assert server.post("/api/v1/things", json="x" * 1000).status_code == 200
    large = server.post("/api/v1/things", json="x" * 3000)
    assert large.status_code == 413 and "2 kB" in large.json()["detail"]
    assert received == []
    assert server.post("/api/v1/datasets/cats", **form(600_000, 100)).json() == {"0.png": 600_000, "1.png": 100}
    assert 600_100 < sum(received) < 602_000
    assert server.post("/api/v1/datasets/cats", **form(2_200_000)).status_code == 413
    assert server.post("/api/v1/things", **form(3000)).status_code == 413


@pytest.mark.parametrize("announced", [True, False])
def test_bodies_are_counted_as_they_come(announced: bool) -> None:
    server = client(small_app(max_body_kb=2, max_upload_mb=1))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    pieces = [b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n', *[b"x" * 100_000] * 40]
    content = b"".join(pieces) if announced else iter(pieces)
    answer = server.post("/api/v1/datasets/cats", content=content, headers=headers)
    assert answer.status_code == 413
    json = {"Content-Type": "application/json"}
    content = b'"' + b"x" * 5000 if announced else iter([b'"', b"x" * 5000])
    assert server.post("/api/v1/things", content=content, headers=json).status_code == 413


@pytest.mark.parametrize("given", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_the_api_takes_json_only(given: str | None) -> None:
    """The others are what a form of another site may send without being asked."""
    headers = {"Content-Type": given} if given else {}
    answer = client().post("/api/v1/things", content=b"{}", headers=headers)
    assert answer.status_code == 415 and "application/json" in answer.json()["detail"]


def test_events_stream_through_the_gate() -> None:
    with client(token=TOKEN).stream("GET", "/api/v1/stream", headers={"X-API-Key": TOKEN}) as answer:
        assert "".join(answer.iter_text()) == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
