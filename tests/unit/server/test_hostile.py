"""Requests that only an attacker or a broken program sends, to a real server: each is refused as it should be, and the
server answers afterwards."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.served import quick_service, training
from tests.unit.server.live import live, request, send
from tincture.server.app import build_app

JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"
UPLOAD = "/api/v1/datasets/new"
SECRET = b"the secret outside"


@dataclass(frozen=True)
class Case:
    """A request, and the statuses that are right for it."""

    name: str
    content: bytes
    allowed: tuple[int, ...]
    made: dict[str, Any] = field(default_factory=dict)


def post(path: str, value: Any) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return request("POST", path, JSON, body=body)


def job(**settings: Any) -> bytes:
    return post("/api/v1/jobs", training(**settings))


def upload(*files: tuple[str, bytes], path: str = UPLOAD) -> bytes:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode("utf-8", "surrogateescape")
        + b'"\r\n\r\n' + content + b"\r\n"
        for name, content in files
    ]  # fmt: skip
    return request("POST", path, FORM, body=b"".join(parts) + b"--b--\r\n")


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def picture_of(width: int, height: int) -> bytes:
    """The head of a PNG that says to be so large."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def picture_with_text(text: bytes) -> bytes:
    """A PNG of one pixel with settings that are none."""
    info = PngInfo()
    info.add_text("parameters", text.decode())
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


REFUSED = (400, 403, 404, 409, 413, 415, 422, 431)
WRONG_PATHS = [
    "../outside",
    "..",
    "/etc",
    "/",
    "/proc/self/environ",
    "~root",
    "~",
    "pictures/../../outside",
    "link",
    "link/secret.png",
    "\\\\evil.example\\share",
    "pic\0tures",
    "x" * 5000,
    "a/" * 3000,
    "",
    "../outside:3",
]
# They look worse than they are: as paths, they are names of folders in the workspace.
ODD_PATHS = ["file:///etc/passwd", "\u202epictures", "CON", "https://evil.example/x.zip", "; rm -rf $HOME", "%2e%2e/x"]
CASES = [
    # names of the server
    Case("other host", request("GET", "/api/v1/jobs", "Host: evil.example"), (403,)),
    Case("two hosts", request("GET", "/api/v1/jobs", "Host: 127.0.0.1", "Host: evil.example"), (400, 403)),
    Case("no host", b"GET /api/v1/jobs HTTP/1.0\r\n\r\n", (400, 403)),
    Case("host with user", request("GET", "/api/v1/jobs", "Host: 127.0.0.1@evil.example"), (403,)),
    Case("absolute target", request("GET", "http://evil.example/api/v1/jobs", "Host: evil.example"), (403,)),
    # other sites
    Case("form of another site", request("POST", "/api/v1/interrupt", "Origin: http://evil.example"), (403,)),
    Case(
        "fetch of another site", request("POST", "/api/v1/jobs", "Sec-Fetch-Site: cross-site", JSON, body=b"{}"), (403,)
    ),
    Case("origin null", request("POST", "/sdapi/v1/interrupt", "Origin: null"), (403,)),
    Case("delete from another site", request("DELETE", "/api/v1/datasets/x", "Origin: http://127.0.0.1:1"), (403,)),
    # paths in settings
    *[Case(f"data {path[:20]!r}", job(data=path), REFUSED) for path in WRONG_PATHS],
    *[Case(f"log_dir {path[:20]!r}", job(log_dir=path), REFUSED) for path in WRONG_PATHS[:12] if path],
    *[Case(f"model {path[:20]!r}", job(model=path), REFUSED) for path in WRONG_PATHS if path],
    Case("model on the hub", job(model="stabilityai/sdxl-turbo"), REFUSED),
    # names in addresses
    *[
        Case(f"job {name[:20]}", request("GET", f"/api/v1/jobs/{name}"), (400, 404, 422))
        for name in (
            "1'%20OR%20'1'='1",
            "1;DROP%20TABLE%20jobs",
            "..%2F..%2Fetc%2Fpasswd",
            "%00",
            "x" * 3000,
            "%ff%fe",
            "%E2%80%AE",
            "*",
            "%25",
            "-1",
        )
    ],
    *[
        Case(f"picture {name[:20]}", request("GET", f"/api/v1/datasets/pictures/pictures/{name}"), (400, 403, 404, 422))
        for name in (
            "..%2F..%2F..%2Fetc%2Fpasswd",
            "../../secret.png",
            "%2Fetc%2Fpasswd",
            "0.png%00.jpg",
            "..%5C..%5Cx",
        )
    ],
    *[
        Case(
            f"adapter {name[:20]}", request("GET", f"/api/v1/adapters/embedding/{name}/download"), (400, 403, 404, 422)
        )
        for name in ("..%2Fsecret", "cat%00", "%2Fetc%2Fpasswd", "a" * 3000)
    ],
    Case("preview outside", request("GET", "/api/v1/pictures/..%2F..%2F..%2Fetc/passwd"), (403, 404, 422)),
    *[
        Case(
            f"new data set {name}",
            upload(("a.png", b"x"), path=f"/api/v1/datasets/{name}"),
            (400, 403, 404, 405, 415, 422),
        )
        for name in ("..%2Fescape", "%2Fetc", "..", "a%00b", "a%0Ab", "%F0%9F%98%88%E2%80%AE", "a" * 300)
    ],
    # uploads
    *[
        Case(f"zip with {name[:20]}", upload(("x.zip", zipped((name, b"x"), ("ok.png", b"x")))), REFUSED)
        for name in ("../../escaped.png", "/escaped.png", "..\\escaped.png", "C:\\escaped.png", "a/../../escaped.png")
    ],
    Case("zip with a link", upload(("x.zip", zipped((link("l.png"), b"/etc/passwd")))), REFUSED),
    Case("zip bomb", upload(("x.zip", zipped(("big.png", b"\0" * 30_000_000)))), REFUSED),
    Case("zip of many", upload(("x.zip", zipped(*[(f"{n}.png", b"") for n in range(200)]))), REFUSED),
    Case("zip in a zip", upload(("x.zip", zipped(("y.zip", zipped(("z.png", b"x")))))), REFUSED),
    Case("broken zip", upload(("x.zip", b"PK\3\4" + b"\xff" * 100)), REFUSED),
    Case("name with a path", upload(("../../escaped.png", b"x")), REFUSED),
    Case("name with NUL", upload(("a\0.png", b"x")), REFUSED),
    Case("name with odd bytes", upload(("\udcff\udcfe.png", b"x")), REFUSED),
    Case("no picture", upload(("a.png", b"no picture")), REFUSED),
    Case("page as picture", upload(("a.html", b"<script>alert(1)</script>")), REFUSED),
    Case("pickle as picture", upload(("a.png", b"\x80\x04cos\nsystem\n.")), REFUSED),
    Case("huge picture", upload(("a.png", picture_of(200_000, 200_000))), REFUSED),
    Case("many files", upload(*[(f"{n}.txt", b"x") for n in range(100)]), (413,)),
    Case("too much", upload(("a.png", b"x" * 3_500_000)), (413,)),
    Case("no end", request("POST", UPLOAD, FORM, body=b'--b\r\nContent-Disposition: form-data; name="files"'), REFUSED),
    Case("no boundary", request("POST", UPLOAD, "Content-Type: multipart/form-data", body=b"--b--"), REFUSED),
    Case("endless header", request("POST", UPLOAD, FORM, body=b"--b\r\nX: " + b"x" * 100_000), REFUSED),
    # numbers
    *[
        Case(f"{name} {str(value)[:20]}", job(**{name: value}), REFUSED)
        for name, value in (
            ("steps", 10**30),
            ("steps", -1),
            ("batch_size", 10**9),
            ("width", 10**7),
            ("steps", 1e308),
            ("seed", "1" * 1000),
            ("steps", True),
            ("learning_rate", "1e999"),
            ("name", ["cat"]),
            ("preview_every", -5),
            ("height", 2**63),
            ("data", {"a": 1}),
            ("unknown", 1),
        )
    ],
    Case("NaN", post("/api/v1/jobs", b'{"kind":"train","settings":{"steps":NaN}}'), REFUSED),
    Case("a number of a million digits", post("/api/v1/jobs", b'{"a":' + b"1" * 60_000 + b"}"), REFUSED),
    Case("priority", post("/api/v1/jobs", {**training(), "priority": 10**12}), REFUSED),
    Case("pictures", post("/api/v1/pictures", {"prompts": ["x"] * 10**4}), REFUSED),
    Case("size of pictures", post("/api/v1/pictures", {"prompts": ["x"], "width": 10**6, "height": 10**6}), REFUSED),
    Case("limit", request("GET", "/api/v1/jobs?limit=99999999999999999999&offset=-1"), (422,)),
    Case("webui's size", post("/sdapi/v1/txt2img", {"prompt": "x", "width": 10**6, "batch_size": 10**6}), REFUSED),
    Case("webui's unknown", post("/sdapi/v1/train/embedding", {"embedding_name": "../x", "evil": 1}), REFUSED),
    # bodies
    Case("deep JSON", post("/api/v1/jobs", b"[" * 20_000 + b"]" * 20_000), (400,)),
    Case("deep JSON without end", post("/api/v1/jobs", b"[" * 60_000), (400, 422)),
    Case("deep objects", post("/api/v1/jobs", b'{"a":' * 9000 + b"1" + b"}" * 9000), (400,)),
    Case("large JSON", post("/api/v1/jobs", b'"' + b"x" * 200_000 + b'"'), (413,)),
    Case("large JSON announced", request("POST", "/api/v1/jobs", JSON, "Content-Length: 999999999999"), (413,)),
    Case("negative length", request("POST", "/api/v1/jobs", JSON, "Content-Length: -1"), (400,)),
    Case(
        "two lengths",
        request("POST", "/api/v1/jobs", JSON, "Content-Length: 1", "Content-Length: 2", body=b"1"),
        (400,),
    ),
    Case(
        "smuggled",
        request("POST", "/api/v1/jobs", JSON, "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        (400, 422),
    ),
    Case("bad chunk", request("POST", "/api/v1/jobs", JSON, "Transfer-Encoding: chunked", body=b"zz\r\n"), (400,)),
    Case(
        "huge chunk",
        request("POST", "/api/v1/jobs", JSON, "Transfer-Encoding: chunked", body=b"f" * 40 + b"\r\n"),
        (400, 0),
    ),
    Case("text as JSON", request("POST", "/api/v1/jobs", "Content-Type: text/plain", body=b"{}"), (415,)),
    Case(
        "form as JSON",
        request("POST", "/api/v1/jobs", "Content-Type: application/x-www-form-urlencoded", body=b"a"),
        (415,),
    ),
    Case("no type", request("POST", "/api/v1/jobs", body=b"{}"), (415,)),
    Case("UTF-16", post("/api/v1/jobs", '{"kind":"train"}'.encode("utf-16")), (400,)),
    Case("half a pair", post("/api/v1/jobs", b'{"kind":"train","settings":{"name":"\\ud800"}}'), (400,)),
    Case("no JSON", post("/api/v1/jobs", b"{'kind': 1}"), (400, 422)),
    Case("repeated keys", post("/api/v1/jobs", b'{"kind":"x","kind":"y"}'), (422,)),
    Case("list for object", post("/api/v1/jobs", []), (422,)),
    # texts that a careless pattern would read for hours
    *[
        Case(f"title of {mark!r}", post("/sdapi/v1/options", {"sd_model_checkpoint": "x" + mark * 100_000}), (422,))
        for mark in (" ", "[", "]")
    ],
    Case("schedule without end", job(learning_rate="0.1:1," * 15_000), (422,)),
    Case("classes in a regex", job(word_regex="(?i)" + "[\0-\U0010ffff]" * 1000), (422,)),
    Case("brackets", post("/api/v1/pictures", {"prompts": ["(" * 100_000]}), (422,)),
    Case("values without end", post("/sdapi/v1/png-info", b'{"image":[' + b"[]," * 1_000_000 + b"0]}"), (400,)),
    Case(
        "text of a picture",
        post("/sdapi/v1/png-info", {"image": base64.b64encode(picture_with_text(b" " * 900_000)).decode()}),
        (200,),
    ),
    # heads
    Case("large header", request("GET", "/", "X-Large: " + "x" * 60_000), (431, 400)),
    Case("many headers", request("GET", "/", *[f"X-{n}: 1" for n in range(500)]), (431, 400)),
    Case("large cookie", request("GET", "/", "Cookie: " + "a=b; " * 10_000), (431, 400)),
    Case("long address", request("GET", "/api/v1/" + "x" * 60_000), (431, 400, 414)),
    Case("header injected", request("GET", "/api/v1/pictures/2020-01-01/a%0D%0ASet-Cookie:%20x.png"), (403, 404, 422)),
    Case("header folded", request("GET", "/health", "X: a\r\n Host: evil.example"), (200, 400)),
    Case("method unknown", request("BREW", "/api/v1/jobs"), (404, 405)),
    Case("TRACE", request("TRACE", "/"), (404, 405)),
    Case("CONNECT", request("CONNECT", "evil.example:80"), (400, 404, 405)),
    Case("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50, (400, 0)),
    Case("HTTP 0.9", b"GET /\r\n\r\n", (400,)),
    Case("HTTP 9", b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", (307, 400, 505)),
    Case("spaces in the address", b"GET / x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", (400,)),
    Case("NUL in a header", request("GET", "/", "X: a\0b"), (400,)),
    Case(
        "Range of files", request("GET", "/api/v1/adapters/embedding/cat/download", "Range: bytes=9999999999-"), (416,)
    ),
    Case(
        "many ranges",
        request("GET", "/api/v1/adapters/embedding/cat/download", "Range: bytes=" + ",".join(["0-1"] * 2000)),
        (200, 206, 400, 416),
    ),
    Case("odd event id", request("GET", "/api/v1/jobs/x/events", "Last-Event-ID: 1e9\xff"), (400, 404, 422)),
    Case(
        "path outside to inspect", post("/sdapi/v1/png-info", {"image": "data:image/png;base64,AAAA"}), (*REFUSED, 200)
    ),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace beside what must not be reached, with links that lead there."""
    base = tmp_path_factory.mktemp("hostile")
    (base / "outside").mkdir()
    (base / "outside" / "secret.png").write_bytes(SECRET)
    root = base / "workspace"
    root.mkdir()
    (root / "link").symlink_to(base / "outside")
    return root


@pytest.fixture(scope="module")
def port(root: Path) -> Iterator[int]:
    limits = {"max_body_kb": 128, "max_upload_mb": 2, "max_upload_files": 50, "requests_per_minute": 10_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tincture.server.http.protocol.IDLE_S", 2)  # one of the cases waits for this
        with live(build_app(quick_service(root, **limits), page=False)) as port:
            yield port


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_is_refused_and_the_server_goes_on(case: Case, port: int, root: Path) -> None:
    outside = sorted(root.parent.iterdir()), sorted((root.parent / "outside").iterdir())
    status, head, body = send(port, case.content)
    assert status in case.allowed, body[:500]
    assert SECRET not in body and b"root:" not in body and b"Traceback" not in body
    assert "set-cookie" not in head.lower()
    if status >= 400 and status != 416 and head.lower().count("application/json"):
        assert json.loads(body)["detail"]
    assert (sorted(root.parent.iterdir()), sorted((root.parent / "outside").iterdir())) == outside
    assert send(port, request("GET", "/health"))[0] == 200


def test_nothing_was_queued_and_no_data_set_was_made(port: int, root: Path) -> None:
    """After all of the above."""
    assert json.loads(send(port, request("GET", "/api/v1/jobs"))[2]) == {"jobs": [], "total": 0}
    datasets = root / "datasets"
    assert (
        not datasets.exists()
        or [path.name for path in datasets.iterdir() if path.is_dir() and path.name != "new"] == []
    )
    assert not [path for path in root.rglob("*escaped*")]
    uploads = root / "tincture-server" / "uploads"
    assert not uploads.exists() or not any(uploads.iterdir())


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_lie_in_the_workspace(path: str, port: int, root: Path) -> None:
    (root / path).mkdir(parents=True, exist_ok=True)
    status, _, body = send(port, job(data=path, log_dir=path))
    assert status == 202, body
    for name in ("data", "log_dir"):
        found = json.loads(body)["settings"][name]
        assert Path(*found if isinstance(found, list) else [found]).is_relative_to(root.resolve()), found


@pytest.mark.parametrize("name", ["cat", 'c"at; filename="x', "ca\u202et", "катя", "c at'"])
def test_names_of_downloads_stay_in_their_header(name: str, port: int, root: Path) -> None:
    (root / "embeddings" / f"{name}.pt").write_bytes(b"adapter")
    from urllib.parse import quote

    status, head, _ = send(port, request("GET", f"/api/v1/adapters/embedding/{quote(name, safe='')}/download"))
    lines = [line for line in head.split("\r\n") if line.lower().startswith("content-disposition")]
    assert status in (200, 404, 422)
    assert len(lines) == (1 if status == 200 else 0)
    if lines:
        assert lines[0].lower().startswith("content-disposition: attachment;")
        assert lines[0].count('"') in (0, 2) and '; filename="x' not in lines[0]
