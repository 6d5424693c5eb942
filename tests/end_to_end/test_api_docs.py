"""docs/api.md: its program runs, and the addresses that it names are those that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.served import quick_service, started, write_pictures
from tests.unit.server.live import live
from tincture.server.app import build_app

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
TEXT = DOCS.read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:7860"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def told_in_tables() -> set[tuple[str, str]]:
    return {(method, path) for method, path in re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (/\S+)` \|", TEXT, re.M)}


def test_the_program_trains_and_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = blocks("python")
    assert ADDRESS in program
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos")
    (tmp_path / "workspace").mkdir()
    with live(build_app(quick_service(tmp_path / "workspace"), page=False)) as port:
        exec(compile(program.replace(ADDRESS, f"http://127.0.0.1:{port}"), "docs/api.md", "exec"), {})
    said = capsys.readouterr().out
    assert "step 500 of 500" in said and "done" in said
    assert (tmp_path / "rex.pt").read_bytes() == b"trained 500 steps"


def test_tables_and_examples_name_the_addresses_that_there_are(tmp_path: Path) -> None:
    app = build_app(quick_service(tmp_path), page=False)
    paths = {path: methods for path, methods in app.openapi()["paths"].items() if path.startswith("/api/v1")}
    there = {(method.upper(), path.removeprefix("/api/v1")) for path, methods in paths.items() for method in methods}
    assert told_in_tables() == there
    for command in re.split(r"^(?=curl )", "\n".join(blocks("bash")), flags=re.MULTILINE)[1:]:
        address = re.search(rf"{ADDRESS}/api/v1(/[^\s?\"']*)", command)
        assert address, command
        method = re.search(r"-X (\w+)", command)
        sends = " -d " in command or " -F " in command
        asked = (method[1] if method else "POST" if sends else "GET", address[1])
        assert any(asked[0] == known and re.fullmatch(_pattern(path), asked[1]) for known, path in there), command
        if body := re.search(r"-d '(.*?)'", command, re.DOTALL):
            assert json.loads(body[1])


def _pattern(path: str) -> str:
    return re.sub(r"\{\w+\}", "[^/]+", path.replace(".", r"\."))


def test_the_events_that_are_named_are_those_that_are_told(tmp_path: Path) -> None:
    with started(quick_service(tmp_path)) as service:
        job = service.queue.submit("train", {"kind": "embedding", "name": "cat", "data": "pictures", "steps": 2})
        service.queue.wait(job.id, 60)
        told = {event["type"] for event in service.queue.folder(job.id).events()}
    table = TEXT.partition("| Event | |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines() if row.count("|") > 2)))
    from tincture.run import event_records

    known = set(re.findall(r"^(\w+) {2,}\w", event_records.__doc__ or "", re.MULTILINE))
    assert told <= known
    assert named == known | {"state", "deleted"}
