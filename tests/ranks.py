"""Several processes that compute together, as a launcher starts them, made by fork: they need not load torch anew."""

from __future__ import annotations

import os
import pickle
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tincture.errors import TinctureError

PATIENCE_S = 120
"""A guard against endlessness."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: what ``act`` gave, or the error that it raised; else its exit status as waitpid tells it."""

    value: Any = None
    error: str = ""
    kind: str = ""
    status: int = 0


def on_ranks(
    count: int, act: Callable[[int], Any], folder: Path, variables: Mapping[str, str] | None = None
) -> list[Ended]:
    """What ``act`` gives in each of so many processes of one launcher.

    Args:
        act: gets the rank.
        folder: for what they leave.
        variables: of the environment, instead of torchrun's; ``{rank}`` and ``{count}`` stand for the numbers.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    usual = {"RANK": "{rank}", "WORLD_SIZE": "{count}", "LOCAL_RANK": "{rank}", "LOCAL_WORLD_SIZE": "{count}"}
    named = {**(usual if variables is None else variables), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    folder.mkdir(parents=True, exist_ok=True)
    children = [_forked(rank, count, act, folder, named) for rank in range(count)]
    return [_ended(child, folder / f"rank-{rank}") for rank, child in enumerate(children)]


def _forked(rank: int, count: int, act: Callable[[int], Any], folder: Path, named: Mapping[str, str]) -> int:
    place = folder / f"rank-{rank}"
    place.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads, which do nothing here
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update({name: text.format(rank=rank, count=count) for name, text in named.items()})
        place.write_bytes(pickle.dumps(_acted(act, rank)))
        status = 0
    finally:
        os._exit(status)


def _acted(act: Callable[[int], Any], rank: int) -> Ended:
    try:
        return Ended(act(rank))
    except TinctureError as error:
        return Ended(None, error.sentence, type(error).__name__)
    except BaseException as error:
        return Ended(None, "".join(traceback.format_exception(error)), type(error).__name__)


def _ended(child: int, place: Path) -> Ended:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.01)
    ended: Ended = pickle.loads(place.read_bytes()) if place.exists() and not status else Ended(status=status)
    return ended
