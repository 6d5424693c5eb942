from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from tincture.errors import UsageError
from tincture.server import serving
from tincture.server.serving import _hang_up_heard, _Server
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace


@pytest.fixture(autouse=True)
def _from_a_terminal() -> Iterator[None]:
    """As when no nohup started the tests, which would have hang-ups ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def server(said: list[str]) -> _Server:
    return _Server(uvicorn.Config("none"), said.append, threading.Event())


def test_a_closed_terminal_asks_for_an_orderly_end_however_often(server: _Server, said: list[str]) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with _hang_up_heard(server):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    assert server.should_exit and server._stopping.is_set()
    assert len(said) == 1 and said[0].startswith("stopping: running jobs finish their step and save")
    assert signal.getsignal(signal.SIGHUP) == before


def test_nohup_is_respected(server: _Server) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _hang_up_heard(server):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not server.should_exit
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_queue_on_a_folder_of_the_network_is_remarked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serving, "network_file_system", lambda path: "")
    assert serving._remark_on_queue(tmp_path / "jobs.sqlite3") == ""
    monkeypatch.setattr(serving, "network_file_system", lambda path: "nfs4")
    remark = serving._remark_on_queue(tmp_path / "jobs.sqlite3")
    assert f"{tmp_path / 'jobs.sqlite3'} lies on a folder of the network (nfs4)" in remark
    assert "give --database" in remark


def test_a_cluster_that_cannot_be_reached_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'127\.0\.0\.1:1' cannot be reached"):
        serving.serve(Workspace(tmp_path), ServerSettings(ray="127.0.0.1:1", port=0), pytest.fail)
    assert list(tmp_path.iterdir()) == []
