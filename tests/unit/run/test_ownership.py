"""An adapter is trained by one at a time, and what another one put into its file is never overwritten."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import RANDOM, Bench, OnStep, equal, trained
from tincture.errors import BusyError, FileFormatError, UsageError
from tincture.formats.file_lock import FileLock
from tincture.run.folder import read_record, write_record
from tincture.run.ownership import adapter_lock

KINDS = ("embedding", "hypernetwork")
RECORD = {
    "settings": {"steps": 4, "learning_rate": "1e-2", "author": "Ünal"},
    "root": "r",
    "adapter_path": "p",
    "model_hash": "0123456789",
    "data_hash": "d",
    "template_lines": ["a [name]"],
    "adapter_digests": ["0"],
}


# --- one at a time ---------------------------------------------------------------------------------------------------


def test_a_second_training_of_the_adapter_is_refused_while_the_first_lives(bench: Bench) -> None:
    refused: list[str] = []

    def train_too() -> None:
        with pytest.raises(BusyError) as refusal:
            bench.train("embedding")
        refused.append(str(refusal.value))
        with pytest.raises(BusyError) as refusal:
            (run_dir,) = bench.workspace.logs.glob("*/*")
            bench.resume(run_dir)
        refused.append(str(refusal.value))
        bench.train("hypernetwork", steps=1)  # another one may

    result = bench.train("embedding", callbacks=[OnStep(2, train_too)])
    assert result.global_step == 4
    training, going_on = refused
    assert training.startswith(f"{bench.path('embedding')} is being trained by process {os.getpid()} since 20")
    assert training.endswith(f"(run folder {result.run_dir}); wait until that has ended, or stop it.")
    assert going_on.startswith(f"The run in {result.run_dir} is going on already, by process {os.getpid()} since 20")
    assert not [*bench.path("embedding").parent.glob(".*"), *result.run_dir.glob(".*")]  # nothing is left behind


def test_a_run_is_resumed_once_at_a_time(bench: Bench) -> None:
    run_dir = bench.train("embedding", stop_after=1).run_dir
    refused = []

    def resume_too() -> None:
        with pytest.raises(BusyError, match="is going on already"):
            bench.resume(run_dir)
        with pytest.raises(BusyError, match=r"is being trained by process .* \(run folder"):
            bench.train("embedding", steps=9)
        refused.append(True)

    assert bench.resume(run_dir, callbacks=[OnStep(2, resume_too)]).global_step == 4
    assert refused


def test_a_training_that_failed_gives_the_adapter_back(bench: Bench) -> None:
    def fail() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        bench.train("embedding", callbacks=[OnStep(1, fail)])
    assert bench.train("embedding").global_step == 4


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "rex.pt"
    path.touch()
    link = tmp_path / "elsewhere" / "link.pt"
    link.parent.mkdir()
    link.symlink_to(path)
    code = (
        "import sys; from pathlib import Path; from tincture.formats.file_lock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); assert lock.take(); lock.name_holder(4711, since='noon')\n"
        "print('holds', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".rex.pt.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"holds\n"
        for name in (path, link):
            with pytest.raises(BusyError, match="is being trained by process 4711 since noon; wait until"):
                adapter_lock(name)
        holder.kill()
    adapter_lock(path).close()


def test_a_holder_on_another_machine_is_named_with_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / ".rex.pt.lock")
    assert lock.take()
    lock.name_holder(4711, host="mars 0123abcd")
    with pytest.raises(BusyError, match="is being trained by process 4711 on mars; wait until"):
        adapter_lock(tmp_path / "rex.pt")
    lock.free()


# --- what another one put there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_one_put_there_meanwhile_is_not_overwritten(new_bench: Callable[[str], Bench], kind: str) -> None:
    settings: dict[str, Any] = {**RANDOM, "save_optimizer_state": True}
    whole = new_bench("whole").train(kind, **settings)
    bench = new_bench("bench")
    path = bench.path(kind)
    foreign = new_bench("other").train(kind, steps=9).adapter_path.read_bytes()
    taken = path.with_name(f"{path.stem}-4.pt")
    taken.write_bytes(b"something else")
    with pytest.warns(UserWarning, match=r"is not what this run left there: .* saved as .*-4-2\.pt\."):
        result = bench.train(kind, callbacks=[OnStep(2, lambda: path.write_bytes(foreign))], **settings)
    assert path.read_bytes() == foreign
    assert taken.read_bytes() == b"something else"
    assert result.adapter_path == path.with_name(f"{path.stem}-4-2.pt")
    assert result.adapter_path.read_bytes() == whole.adapter_path.read_bytes()
    assert result.adapter_path.with_name(f"{result.adapter_path.name}.optim").is_file()
    with pytest.raises(UsageError, match="Move it away to resume all the same"):
        bench.resume(result.run_dir)


def test_what_cannot_be_read_is_not_overwritten_either(bench: Bench) -> None:
    path = bench.path("embedding")
    with pytest.warns(UserWarning, match="is not what this run left there"):
        result = bench.train("embedding", stop_after=2, callbacks=[OnStep(1, lambda: path.write_bytes(b"notes"))])
    assert path.read_bytes() == b"notes"
    assert result.adapter_path.name == "cat-2.pt"
    with pytest.raises(FileFormatError, match=r"cat\.pt .* Move it away to resume all the same"):
        bench.resume(result.run_dir)
    path.unlink()
    assert bench.resume(result.run_dir).adapter_path == path


def test_a_file_that_was_deleted_meanwhile_is_written(bench: Bench) -> None:
    result = bench.train("embedding", callbacks=[OnStep(2, bench.path("embedding").unlink)])
    assert result.adapter_path == bench.path("embedding")
    assert result.adapter_path.is_file()


# --- damaged beginnings ----------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "save_every"), [("hypernetwork", 2), ("embedding", 0)], ids=["a copy", "its file"])
def test_a_damaged_start_does_not_keep_a_run_from_going_on(
    new_bench: Callable[[str], Bench], kind: str, save_every: int
) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 4, "save_every": save_every}
    whole = new_bench("whole").train(kind, **settings)
    stopped = new_bench("stopped")
    result = stopped.train(kind, stop_after=3, **settings)
    damage(result.run_dir / "start.pt")
    source = "-2.pt" if save_every else f"{result.adapter_path.name}"
    with pytest.warns(UserWarning, match=rf"start\.pt is damaged.* goes on all the same: .*{source} says how"):
        again = stopped.resume(result.run_dir)
    assert equal(trained(again.adapter_path), trained(whole.adapter_path))
    assert again.adapter_path.read_bytes() == whole.adapter_path.read_bytes()


def test_a_damaged_start_without_any_other_file_is_refused(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=2)
    damage(result.run_dir / "start.pt")
    result.adapter_path.unlink()
    with pytest.raises(FileFormatError, match=r"start\.pt is damaged.*its states cannot be used without it"):
        bench.resume(result.run_dir)


# --- the record ------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_the_record_is_noticed_or_harmless(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    path, draw = tmp_path / "run.json", random.Random(12)
    content, whole = path.read_bytes(), read_record(tmp_path)
    assert whole == RECORD
    noticed = 0
    for bit in (draw.randrange(len(content) * 8) for _ in range(600)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = read_record(tmp_path)
        except FileFormatError:
            noticed += 1
            continue
        assert {key: value for key, value in found.items() if key in RECORD} == whole, bit
    assert noticed > 400


def test_a_record_that_a_program_changed_on_purpose_counts(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_hash": "ffffffffff"}))
    assert read_record(tmp_path)["model_hash"] == "ffffffffff"
    write_record(tmp_path, RECORD)
    path.write_text(path.read_text().replace('"1e-2"', '"1e-1"'))
    with pytest.raises(FileFormatError, match=r"run\.json is damaged: .* take out its line with 'checksum'"):
        read_record(tmp_path)
    lines = [line for line in path.read_text().splitlines() if "checksum" not in line]
    path.write_text("\n".join(lines).replace("],\n}", "]\n}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_record(tmp_path)["settings"]["learning_rate"] == "1e-1"
