"""The program behind `make demo-web`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tools import demo_web

from tincture.adapters.embedding import Embedding
from tincture.workspace import Workspace

PROGRAM = Path(__file__).parents[3] / "tools" / "demo_web.py"


def test_everything_is_there_to_train_and_made_once(tmp_path: Path) -> None:
    made = demo_web.prepare(tmp_path / "web")
    workspace = Workspace(tmp_path / "web")
    (workspace.datasets / "moon" / "01.txt").write_text("my own caption")

    assert len(made) == 5
    assert demo_web.prepare(tmp_path / "web") == []
    assert (workspace.datasets / "moon" / "01.txt").read_text() == "my own caption"
    for name, count in (("moon", 5), ("sunset", 12)):
        pictures = sorted((workspace.datasets / name).glob("*.png"))
        assert len(pictures) == count
        assert all(path.with_suffix(".txt").read_text().strip() for path in pictures)
    assert Embedding.load(workspace.find_adapter("embedding", "my-moon")).step == 0
    assert workspace.find_adapter("hypernetwork", "my-sunset").exists()


@pytest.mark.parametrize("variable", ["", "DISPLAY", "WAYLAND_DISPLAY"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_browser_is_opened_where_there_is_one(variable: str, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def browse(url: str) -> bool:
        opened.append(url)
        if fails:
            raise demo_web.webbrowser.Error("no browser")
        return True

    monkeypatch.setattr(demo_web.sys, "platform", "linux")
    monkeypatch.setattr(demo_web.webbrowser, "open", browse)
    monkeypatch.setattr(os, "environ", {variable: ":0"} if variable else {})
    assert demo_web.open_browser("http://localhost/") is (bool(variable) and not fails)
    assert opened == (["http://localhost/"] if variable else [])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="the server's extra is not installed")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent to a group of processes")
def test_the_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path / "web"), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
        assert program.stderr is not None
        said = []
        for line in program.stderr:
            said.append(line)
            if found := re.search(r"at (http://\S+)", line):
                break
        assert found, said
        with urllib.request.urlopen(found[1] + "api/v1/adapters") as answer:
            names = [adapter["name"] for adapter in json.load(answer)["adapters"]]
        os.killpg(program.pid, signal.SIGINT)
        program.stderr.read()
        assert program.wait() == 130
    assert names == ["my-moon", "my-sunset"]
