"""The server as a process: its address, how it begins and how it ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from tincture.errors import TinctureError, UsageError
from tincture.extensions import load_extensions
from tincture.formats.file_systems import network_file_system
from tincture.models.threads import choose_threads
from tincture.server.app import build_app, has_page
from tincture.server.http.protocol import uvicorn_config
from tincture.server.queue.cluster.watched import require_cluster
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace

INTERRUPTED = 130
OPEN_FILES = 2**15
_HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # there is none on Windows

Report = Callable[[str], None]


def serve(
    workspace: Workspace,
    settings: ServerSettings,
    report: Report,
    listening: Callable[[Mapping[str, Any]], None] = lambda facts: None,
) -> int:
    """Serves until SIGINT, SIGTERM or SIGHUP; running jobs then finish their step, save, and go on at the next start.

    A SIGHUP that is ignored when this begins, as nohup has it, stays ignored.

    Args:
        workspace: where models and adapters lie.
        settings: of the server.
        report: called with remarks for people.
        listening: called with ``url``, ``root``, ``state_dir``, ``page`` and ``pid`` once requests are answered.

    Returns:
        The exit code: 130 after SIGINT, 0 after SIGTERM or SIGHUP.

    Raises:
        UsageError: the address is taken, or is none of this machine's; or the cluster cannot be connected with.
        StorageError: the queue cannot be opened.
    """
    if settings.ray:
        require_cluster(settings.ray)  # before anything is written
    _allow_open_files()
    choose_threads(settings.threads, shares=len(settings.device) + 1)  # a job on each device, and what draws
    with _listen(settings.host, settings.port) as listener:
        service = Service(workspace, settings, load_extensions(root=workspace.root))
        page = has_page()
        if not page:
            report("remark: the page is left out, since Gradio is not installed: pip install 'tincture[ui]'")
        if remark := _remark_on_queue(service.queue.store.path):
            report(remark)
        app = build_app(service, page=page)
        server = _Server(uvicorn_config(app, settings), report, service.stopping)
        url = _url(settings.host, listener.getsockname()[1])
        facts = {"url": url, "root": str(workspace.root), "state_dir": str(service.state_dir), "page": page}

        def ready() -> None:
            report(f"serving {workspace.root} at {url} (Ctrl-C ends it)")
            listening({**facts, "pid": os.getpid()})

        server.ready = ready
        with _only_faults_logged(), _hang_up_heard(server):
            try:
                _run(server, app, listener)
            finally:
                service.queue.store.close()  # so that the queue is one file again
    return INTERRUPTED if server.ended_by == signal.SIGINT else 0


class _Server(uvicorn.Server):
    """Calls ``ready`` when it listens; a signal asks for an orderly end, a second one ends the process at once."""

    def __init__(self, config: uvicorn.Config, report: Report, stopping: threading.Event) -> None:
        super().__init__(config)
        self.ready: Callable[[], None] = lambda: None
        self.ended_by: int | None = None
        self._report, self._stopping = report, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == _HANG_UP:
            return  # it may come twice for a terminal that is closed once
        if self.should_exit:
            # Jobs find that their server is gone, save by themselves, and go on at the next start.
            self._report("leaving at once; running jobs save by themselves")
            os._exit(128 + sig)
        self.ended_by, self.should_exit = sig, True
        self._stopping.set()
        self._report("stopping: running jobs finish their step and save; once more to leave at once")


@contextmanager
def _hang_up_heard(server: _Server) -> Iterator[None]:
    """A terminal that is closed asks for an orderly end too, which uvicorn by itself does not hear."""
    main = threading.current_thread() is threading.main_thread()
    if _HANG_UP is None or not main or signal.getsignal(_HANG_UP) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(_HANG_UP, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(_HANG_UP, before)


def _run(server: _Server, app: FastAPI, listener: socket.socket) -> None:
    """uvicorn writes a traceback and calls exit when the app does not start; here the error itself is raised."""
    try:
        server.run(sockets=[listener])
    except SystemExit:
        error = getattr(app.state, "start_error", None)
        raise error or TinctureError("The server did not start.") from None


def _allow_open_files() -> None:
    """As many as the system lets this user have: usual are 1024, and connections and uploads may need more."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # there is none on Windows

        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _remark_on_queue(path: Path) -> str:
    """What is odd about where the queue's file lies; empty where nothing is."""
    kind = network_file_system(path)
    return kind and (
        f"remark: the queue's file {path} lies on a folder of the network ({kind}), where SQLite may lose it; give "
        "--database with a file on a disk of this machine"
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; the address is looked up by the system."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except socket.gaierror as error:
        raise UsageError(
            f"The host {host!r} is not known ({error.strerror}); give an address of this machine."
        ) from None
    except OSError as error:
        raise UsageError(_why_not(error, host, port)) from None


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Another program listens on {host} port {port} already; end it, or give another --port (0: any free one)."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not listen on port {port}; give a --port above 1023."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"The host {host!r} is no address of this machine; give one that is, or 0.0.0.0 for all."
    return f"The server cannot listen on {host} port {port}: {error.strerror or error}."


def _url(host: str, port: int) -> str:
    """What to type on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


@contextmanager
def _only_faults_logged() -> Iterator[None]:
    """Of uvicorn's own log, only what goes wrong in a request: the rest is reported already."""
    log = logging.getLogger("uvicorn.error")
    before = log.level
    log.addFilter(_is_fault)
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.removeFilter(_is_fault)
        log.setLevel(before)


def _is_fault(record: logging.LogRecord) -> bool:
    """What was cut off since the server ends is none."""
    return record.exc_info is not None and not isinstance(record.exc_info[1], TinctureError | asyncio.CancelledError)
