"""The cluster as the server knows it: how to reach it, and which nodes it has now. A process of its own asks it."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from tincture.errors import TinctureError, UsageError
from tincture.server.child_environment import child_environment
from tincture.server.queue.cluster.connection import AUTH_MODE, INSTALL, explained, require_answer
from tincture.server.queue.cluster.needs import Node

COMMAND = (sys.executable, "-P", "-m", "tincture.server.queue.cluster.keeper")
CONNECT_S = 90.0
"""Seconds that a cluster has to be connected with, or to be begun."""
END_S = 30.0
"""Seconds that one which was begun has to end."""
AGAIN_S = 5.0
"""Seconds after which a cluster that was lost is connected with again."""
_REFUSED = "InvalidAuthToken"
_FATAL = re.compile(r"\[[^]]* [CEF] [^]]*\] (?:\S+\.cc:\d+: )?(.+)")

logger = logging.getLogger(__name__)


class WatchedCluster:
    """A Ray cluster, from ``start`` to ``close``; one that is lost is connected with again.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        command: the program that asks it, to which the address is added.
    """

    def __init__(self, address: str, command: Sequence[str] = COMMAND) -> None:
        self._asked, self._command = address, command
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._address = self._auth_mode = self._error = ""
        self._nodes: tuple[Node, ...] | None = None

    @property
    def address(self) -> str:
        """Where others connect to it; empty while it is lost."""
        return self._address

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of a process that connects to it."""
        mode = {AUTH_MODE: self._auth_mode} if self._auth_mode else {}
        return {**_environment(), **mode}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive; none while it is lost."""
        return self._nodes or ()

    @property
    def holds(self) -> tuple[int, ...]:
        """Open files: who has them open keeps a cluster that was begun for this server from ending."""
        process = self._process
        return (process.stdin.fileno(),) if process and process.stdin and not process.stdin.closed else ()

    def start(self) -> None:
        """Connects, and waits until the nodes are known.

        Raises:
            UsageError: ray is not installed, or the cluster cannot be connected with.
        """
        require_cluster(self._asked)
        self._begin()
        with self._changed:
            self._changed.wait_for(lambda: self._nodes is not None or self._error, CONNECT_S)
            error = self._error or ("" if self._nodes is not None else f"it was silent for {CONNECT_S:g} s")
        if error:
            self.close()
            raise UsageError(error if self._error else explained(self._asked, error))

    def close(self) -> None:
        """Leaves the cluster, and ends it if it was begun for this server; blocks until then."""
        self._closing.set()
        if process := self._process:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _begin(self) -> None:
        environment = _environment()
        own: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
        own |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            self._process = subprocess.Popen([*self._command, self._asked], env=environment, **own)
        except OSError as error:
            raise TinctureError(f"The process that asks the cluster could not be started ({error}).") from error
        threading.Thread(target=self._listen, args=[self._process], name="cluster", daemon=True).start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Takes over what the process tells; when it ends, and should not, another one is begun."""
        assert process.stdout and process.stderr
        faults: list[str] = []
        arguments = (process, process.stderr, faults)
        reading = threading.Thread(target=self._read_faults, args=arguments, name="faults of the cluster", daemon=True)
        reading.start()
        known = False
        with process.stdout:
            for line in process.stdout:
                known = self._take(line) or known
        process.wait()
        reading.join()
        assert process.stdin
        process.stdin.close()
        with self._changed:
            self._address, self._nodes = "", () if known else None
            self._error = self._error or explained(self._asked, (faults or ["its process ended without a word"])[-1])
            self._changed.notify_all()
        if known and not self._closing.is_set():
            logger.error("The Ray cluster is lost, and is connected with again: %s", self._error)
            self._again()

    def _again(self) -> None:
        while not self._closing.wait(AGAIN_S):
            self._error = ""
            self._begin()
            with self._changed:
                self._changed.wait_for(lambda: self._nodes or self._error, CONNECT_S)
            if self._nodes:
                return

    def _take(self, line: bytes) -> bool:
        """Whether the line said which nodes there are."""
        try:
            fact = json.loads(line)
        except ValueError:
            return False  # of a library
        with self._changed:
            self._address, self._error = fact.get("address", self._address), fact.get("error", self._error)
            self._auth_mode = fact.get("auth_mode", self._auth_mode)
            if "nodes" in fact:
                self._nodes = tuple(map(Node.from_dict, fact["nodes"]))
            self._changed.notify_all()
        return "nodes" in fact

    def _read_faults(self, process: subprocess.Popen[bytes], stream: IO[bytes], faults: list[str]) -> None:
        """Ray tells only here why it ends its process, and of a wrong token, which it tries again for a while."""
        with stream:
            for line in stream:
                if found := _FATAL.match(line.decode(errors="replace")):
                    faults.append(found[1])
                if _REFUSED.encode() in line and not self._address:
                    with self._changed:
                        self._error = self._error or explained(self._asked, _REFUSED)
                        self._changed.notify_all()
                    process.kill()


def require_cluster(address: str) -> None:
    """UsageError where ray is not installed or nothing listens at the address; takes a few seconds at most."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(INSTALL)
    require_answer(address)


def _environment() -> dict[str, str]:
    """The variables of processes that speak with the cluster: its token is among them if it was given that way."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    return {**child_environment(allow_hub=True), **({"RAY_AUTH_TOKEN": token} if token else {})}
