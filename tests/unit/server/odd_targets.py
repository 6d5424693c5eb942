"""Targets for tests of ``ModelProcess``: they need no torch, and do what libraries do at their worst."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from tincture.errors import DivergedError
from tincture.server.errors import NotFoundError
from tincture.server.model_process import channel
from tincture.workspace import Workspace


class Resources:
    def __init__(self, workspace: Workspace, report: Any) -> None:
        self.workspace, self.report, self.calls = workspace, report, 0


def open_resources(workspace: Workspace, report: Any) -> Resources:
    return Resources(workspace, report)


def count(resources: Resources, **given: Any) -> dict[str, Any]:
    resources.calls += 1
    return {"calls": resources.calls, "pid": os.getpid(), "root": resources.workspace.root, "cwd": os.getcwd(), **given}


def chatter(resources: Resources) -> str:
    print("to stdout")
    os.write(1, b"\x00\x00past python\xff")
    sys.stderr.write("to stderr")
    assert sys.stdin.read() == ""
    warnings.warn("one embedding is left out", stacklevel=1)
    warnings.warn("only for programmers", FutureWarning, stacklevel=1)
    warnings.warn("one embedding is left out", stacklevel=1)
    return "said"


def fail(resources: Resources, kind: str) -> None:
    raise {
        "ours": NotFoundError("There is no such thing."),
        "diverged": DivergedError("NaN."),
        "other": KeyError("inside"),
        "exit": SystemExit(3),
        "value": ValueError("wrong"),
    }[kind]


def die(resources: Resources, code: int) -> None:
    print("last words", file=sys.stderr, flush=True)
    os._exit(code)


def kill(resources: Resources) -> None:
    os.kill(os.getpid(), 9)


def unpicklable(resources: Resources) -> Any:
    return lambda: None


def work(resources: Resources, steps: int, seconds: float = 0.01) -> int:
    for step in range(steps):
        resources.report(done=step, total=steps)
        time.sleep(seconds)
    return steps


def large(resources: Resources, content: bytes) -> bytes:
    return content[::-1]


def too_large(resources: Resources) -> bytes:
    channel.MOST_BYTES = 1000
    return bytes(2000)


def crowd(resources: Resources) -> str:
    """Warns from several threads at once, as libraries may."""
    warned = [threading.Thread(target=warnings.warn, args=("w" * 100_000,)) for _ in range(8)]
    for thread in warned:
        thread.start()
    for thread in warned:
        thread.join()
    return "done"


def environment(resources: Resources) -> dict[str, str]:
    return dict(os.environ)


def modules(resources: Resources) -> list[str]:
    return sorted(sys.modules)


TARGETS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (count, chatter, fail, die, kill, unpicklable, work, large, too_large, crowd, modules, environment)
}
