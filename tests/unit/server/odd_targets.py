"""Targets for tests of ``ModelProcess``: they need no torch, and do what libraries do at their worst."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tincture.errors import DivergedError
from tincture.server.errors import NotFoundError
from tincture.workspace import Workspace


class Desk:
    def __init__(self, workspace: Workspace, tell: Any) -> None:
        self.workspace, self.tell, self.calls = workspace, tell, 0


def open_desk(workspace: Workspace, tell: Any) -> Desk:
    return Desk(workspace, tell)


def count(desk: Desk, **given: Any) -> dict[str, Any]:
    desk.calls += 1
    return {"calls": desk.calls, "pid": os.getpid(), "root": desk.workspace.root, "cwd": os.getcwd(), **given}


def chatter(desk: Desk) -> str:
    print("to stdout")
    os.write(1, b"\x00\x00past python\xff")
    sys.stderr.write("to stderr")
    assert sys.stdin.read() == ""
    warnings.warn("one embedding is left out", stacklevel=1)
    warnings.warn("only for programmers", FutureWarning, stacklevel=1)
    warnings.warn("one embedding is left out", stacklevel=1)
    return "said"


def fail(desk: Desk, kind: str) -> None:
    raise {
        "ours": NotFoundError("There is no such thing."),
        "diverged": DivergedError("NaN."),
        "other": KeyError("inside"),
        "exit": SystemExit(3),
        "value": ValueError("wrong"),
    }[kind]


def die(desk: Desk, code: int) -> None:
    print("last words", file=sys.stderr, flush=True)
    os._exit(code)


def kill(desk: Desk) -> None:
    os.kill(os.getpid(), 9)


def unpicklable(desk: Desk) -> Any:
    return lambda: None


def work(desk: Desk, steps: int, seconds: float = 0.01) -> int:
    for step in range(steps):
        desk.tell(done=step, total=steps)
        time.sleep(seconds)
    return steps


def large(desk: Desk, content: bytes) -> bytes:
    return content[::-1]


def environment(desk: Desk) -> dict[str, str]:
    return dict(os.environ)


def modules(desk: Desk) -> list[str]:
    return sorted(sys.modules)


TARGETS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (count, chatter, fail, die, kill, unpicklable, work, large, modules, environment)
}
