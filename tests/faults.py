"""Runs that are killed, or whose disk is full, at moments that are counted and not timed.

A moment is what stands between two things that outlive a process: a file of the workspace about to be opened for
writing, named, linked, removed or cut, a folder about to be made, and the end of a step. So a kill at the n-th moment
is the same kill each time, and all moments together are all there is to try. Children are forked from a process that
has loaded the libraries and computed nothing, so that each takes tenths of a second.

    python -m tests.faults --moments 500 --seed 1

tries more of them than the tests do, and prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tests.runs import RANDOM, Bench, csv_text, equal, last_state, make_bench, trained
from tincture import recipe
from tincture.errors import TinctureError
from tincture.events import Event, StepEnd

KINDS = ("embedding", "hypernetwork")
NAMES = {"embedding": "cat", "hypernetwork": "ink"}
SETTINGS: dict[str, Any] = {
    **RANDOM,
    "steps": 5,
    "save_every": 2,
    "ema": "0.8",
    "flip": True,
    "preview_every": 2,
    "preview_steps": 2,
    "preview_prompts": ["a cat"],
    "save_optimizer_state": True,
    "validation_share": 0.4,
    "validation_every": 2,
    "validation_bands": 2,
    "validation_pictures": 1,
}
_PRELOADED = ("tincture.recipe", "tincture.run.train", "diffusers", "transformers", "tests.runs")
_CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"})

Fault = Literal["none", "kill", "full"]


@dataclass(frozen=True)
class Moment:
    """What happens at the ``number``-th moment of a process, counted from 1; ``full`` lasts from there on."""

    fault: Fault = "none"
    number: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a child ended: ``done``, ``killed``, ``refused`` with a sentence, or ``crashed`` with another error."""

    state: str
    moments: int = 0
    text: str = ""


class _Moments:
    """Counts the moments of this process, and makes one of them a fault."""

    def __init__(self, root: Path, moment: Moment) -> None:
        self.root, self.moment, self.counted, self.done = str(root), moment, 0, False
        sys.addaudithook(self._audit)

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepEnd):
            self._pass()

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.done or not (name in _CHANGES or (name == "open" and self._writes(arguments[2]))):
            return
        if str(arguments[0]).startswith(self.root):
            self._pass()
            if self.moment.fault == "full" and self.counted >= self.moment.number and name != "os.remove":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @staticmethod
    def _writes(flags: Any) -> bool:
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))

    def _pass(self) -> None:
        self.counted += 1
        if self.moment.fault == "kill" and self.counted == self.moment.number:
            os.kill(os.getpid(), signal.SIGKILL)


def _child(bench: Bench, kind: str, changes: Mapping[str, Any], moment: Moment, answer: Any) -> None:
    """Begins the run, or goes on with it where there is one that can be."""
    import torch

    torch.set_num_threads(1)
    moments = _Moments(bench.workspace.root, moment)
    try:
        run_dir = newest_run(bench)
        if run_dir is None:
            bench.train(kind, callbacks=[moments], **{**SETTINGS, **changes})
        else:
            # in its own workspace: it may be a copy of the one in which the run began
            recipe.resume(run_dir, workspace=bench.workspace, callbacks=[moments])
        outcome = Outcome("done", moments.counted)
    except TinctureError as error:
        outcome = Outcome("refused", moments.counted, str(error))
    except BaseException as error:
        outcome = Outcome("crashed", moments.counted, f"{type(error).__name__}: {error}")
    moments.done = True
    answer.send(outcome)


def newest_run(bench: Bench) -> Path | None:
    """The run that a user would go on with: the last that has a record."""
    found = sorted(bench.workspace.logs.glob("*/*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1].parent if found else None


class Laboratory:
    """Workspaces that begin alike, and children that run in them.

    Args:
        root: a folder for them.
        model: the tiny model's folder.
        template: a workspace that each begins as.
    """

    def __init__(self, root: Path, template: Bench) -> None:
        self.root, self.template, self._made = root, template, 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(_PRELOADED))

    def bench(self, like: Bench | None = None) -> Bench:
        """A new workspace, or one like another."""
        self._made += 1
        place = self.root / f"{self._made}" / "workspace"
        shutil.copytree((like or self.template).workspace.root, place)
        return replace(self.template, workspace=replace(self.template.workspace, root=place), data=place / "pictures")

    def run(self, bench: Bench, kind: str, moment: Moment = Moment(), **changes: Any) -> Outcome:
        """Begins or goes on with the run of a workspace, in a process of its own."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(bench, kind, changes, moment, sender))
        process.start()
        sender.close()
        with contextlib.closing(receiver):
            try:
                outcome = receiver.recv() if receiver.poll(300) else Outcome("crashed", text="it took over 300 s")
            except EOFError:
                outcome = Outcome("killed")
        process.kill() if outcome.state == "crashed" else None
        process.join()
        return outcome

    def discard(self, bench: Bench) -> None:
        """Removes a workspace."""
        shutil.rmtree(bench.workspace.root.parent)


@dataclass(frozen=True)
class Result:
    """All that must not depend on how often a run was disturbed."""

    files: Mapping[str, Any]
    state: Any
    log: str
    pictures: Mapping[str, bytes]

    @classmethod
    def of(cls, bench: Bench, kind: str, unreadable: str = "") -> Result:
        """``unreadable``: a file that is passed over."""
        run_dir = newest_run(bench)
        assert run_dir is not None
        folder, name = bench.path(kind).parent, NAMES[kind]
        paths = [*sorted(folder.glob(f"{name}*.pt")), *sorted(run_dir.glob(f"{folder.name}/*.pt"))]
        paths = [path for path in paths if path.name != unreadable]
        texts = [csv_text(run_dir), *(path.read_text() for path in sorted(run_dir.glob("validation*.csv")))]
        pictures = {}
        for path in sorted((run_dir / "images").glob("*.png")):
            if path.name == unreadable:
                continue
            with Image.open(path) as picture:
                pictures[path.name] = np.asarray(picture.convert("RGB")).tobytes()
        return cls({path.name: trained(path) for path in paths}, last_state(run_dir), "\n".join(texts), pictures)

    def differences(self, other: Result) -> list[str]:
        """What differs, by name."""
        found = [name for name in self.files.keys() | other.files.keys() if not _same(name, self.files, other.files)]
        found += [name for name in self.pictures.keys() | other.pictures.keys()
                  if self.pictures.get(name) != other.pictures.get(name)]  # fmt: skip
        found += [] if self.log == other.log else ["log"]
        return sorted(found) + ([] if equal(self.state, other.state) else ["state"])


def _same(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return name in one and name in other and equal(one[name], other[name])


def killed(laboratory: Laboratory, kind: str, moments: Sequence[int], expected: Result, **changes: Any) -> str:
    """A run killed at the first moment, its resume at the second, and so on; what is wrong in the end, or "".

    A moment beyond the end of a process is none: it ends then.
    """
    bench = laboratory.bench()
    for number in moments:
        outcome = laboratory.run(bench, kind, Moment("kill", number), **changes)
        if outcome.state == "done":
            break
        if outcome.state != "killed":
            return f"{outcome.state}: {outcome.text}"
    return _ended(laboratory, bench, kind, expected, **changes)


def _ended(laboratory: Laboratory, bench: Bench, kind: str, expected: Result, **changes: Any) -> str:
    """Lets a run come to its end, which does nothing where it is there; what is wrong then, or ""."""
    outcome = laboratory.run(bench, kind, **changes)
    if outcome.state != "done":
        return f"{outcome.state} in the end: {outcome.text}"
    wrong = Result.of(bench, kind).differences(expected)
    if not wrong:
        laboratory.discard(bench)
    return f"{bench.workspace.root}: other {', '.join(wrong)}" if wrong else ""


def filled(laboratory: Laboratory, kind: str, number: int, expected: Result, **changes: Any) -> str:
    """A run whose disk is full from a moment on, and goes on when there is room; what is wrong in the end, or ""."""
    bench = laboratory.bench()
    before = bench.path(kind).read_bytes()
    outcome = laboratory.run(bench, kind, Moment("full", number), **changes)
    if outcome.state not in ("refused", "done"):  # what comes last, such as times for later plans, may be done without
        return f"{outcome.state}: {outcome.text}"
    if outcome.state == "refused" and not any(words in outcome.text for words in ("disk is full", "No space")):
        return f"the reason is not said: {outcome.text}"
    if bench.path(kind).read_bytes() != before and not trained(bench.path(kind)):
        return "the adapter is damaged"
    return _ended(laboratory, bench, kind, expected, **changes)


DAMAGES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flipped": lambda content, draw: _flipped(content, draw.randrange(8 * len(content))),
    "block zeroed": lambda content, draw: _zeroed(content, draw.randrange(len(content))),
    "cut": lambda content, draw: content[: draw.randrange(len(content))],
}


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _zeroed(content: bytes, start: int) -> bytes:
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def files_of(bench: Bench) -> list[str]:
    """The files that a stopped run, its adapter included, consists of, from the workspace's root."""
    root = bench.workspace.root
    found = [path for path in root.rglob("*") if path.is_file() and "pictures" not in path.relative_to(root).parts]
    return sorted(str(path.relative_to(root)) for path in found)


def damaged(
    laboratory: Laboratory, kind: str, stopped: Bench, file: str, damage: str, draw: random.Random, expected: Result
) -> str:
    """A stopped run one of whose files was damaged goes on; what is wrong in the end, or "".

    It may end as it would have, but for that file itself if nothing depends on it, or be refused with a sentence that
    names the file. Other numbers would be wrong.
    """
    bench = laboratory.bench(stopped)
    path = bench.workspace.root / file
    path.write_bytes(DAMAGES[damage](path.read_bytes(), draw))
    outcome = laboratory.run(bench, kind)
    if outcome.state == "refused":
        return "" if path.name in outcome.text else f"the file is not named: {outcome.text}"
    if outcome.state != "done":
        return f"{outcome.state}: {outcome.text}"
    itself = {path.name, *{".png": ["contact-sheet.png"], ".csv": ["log"]}.get(path.suffix, [])}
    wrong = set(Result.of(bench, kind, unreadable=path.name).differences(expected)) - itself
    if not wrong:
        laboratory.discard(bench)
    return f"{bench.workspace.root}: other {', '.join(sorted(wrong))}" if wrong else ""


# --- more of them, by hand -------------------------------------------------------------------------------------------


def trials(draw: random.Random, total: int, count: int) -> Iterator[list[int]]:
    """Where to kill: one to three times each, every moment of a run as likely."""
    for _ in range(count):
        yield [draw.randint(1, total) for _ in range(draw.choice((1, 1, 1, 2, 3)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=50, help="kills for each kind of adapter")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()

    from tests.support import save_folder, tiny_model

    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = tiny_model()
        save_folder(model, folder / "model")
        laboratory = Laboratory(folder, make_bench(folder / "template", model, folder / "model"))
        table: Counter[tuple[str, str, bool]] = Counter()
        for kind in KINDS:
            bench = laboratory.bench()
            total = laboratory.run(bench, kind).moments
            expected = Result.of(bench, kind)
            draw = random.Random(f"{arguments.seed} {kind}")
            for moments in trials(draw, total, arguments.moments):
                wrong = killed(laboratory, kind, moments, expected)
                table[kind, "killed", not wrong] += 1
                print(json.dumps({"kind": kind, "killed at": moments, "of": total, "wrong": wrong}), flush=True)
            for number in range(1, total + 1):
                wrong = filled(laboratory, kind, number, expected)
                table[kind, "disk full", not wrong] += 1
                print(json.dumps({"kind": kind, "full from": number, "of": total, "wrong": wrong}), flush=True)
            stopped = laboratory.bench()
            laboratory.run(stopped, kind, Moment("kill", total * 3 // 4))
            for file, damage in itertools.product(files_of(stopped), DAMAGES):
                wrong = damaged(laboratory, kind, stopped, file, damage, draw, expected)
                table[kind, damage, not wrong] += 1
                print(json.dumps({"kind": kind, "file": file, "damage": damage, "wrong": wrong}), flush=True)
    for (kind, fault, survived), count in sorted(table.items()):
        print(f"{kind:14} {fault:10} {'survived' if survived else 'FAILED':9} {count}")


if __name__ == "__main__":
    main()
