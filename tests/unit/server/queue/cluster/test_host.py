from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.fake_worker import COMMAND
from tincture.formats.file_lock import FileLock, SharedLock
from tincture.server.queue.cluster import host as host_module
from tincture.server.queue.cluster import relay as relay_module
from tincture.server.queue.cluster.host import Host, Refusal
from tincture.server.queue.cluster.relay import Relay
from tincture.server.queue.folder import JobFolder


def task(tmp_path: Path, act: str) -> dict[str, Any]:
    node = {"cpus": 6, "gpus": 0, "threads": 3, "allow_hub": False, "shared": True, "command": list(COMMAND)}
    job = {"kind": "train", "settings": {"act": act}, "root": str(tmp_path), "run_dir": None, "attempt": 1}
    return {**job, "device": "auto", **node}


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """Of a job, as the server wrote it."""
    made = JobFolder(tmp_path / "jobs" / "one")
    made.path.mkdir(parents=True)
    made.task.write_text(json.dumps(task(tmp_path, "steps")))
    return made


def begin(host: Host, folder: JobFolder, **changes: Any) -> Refusal | None:
    what = {**json.loads(folder.task.read_text()), **changes}
    return host.begin(str(folder.path), what, str(folder.task))


def test_a_worker_is_begun_steered_and_waited_for(folder: JobFolder) -> None:
    host = Host()
    assert begin(host, folder) is None
    assert host.wait(0.01) is None
    assert not SharedLock(folder.node_lock_file).take()  # the worker holds it
    host.order("finish")
    while host.wait(10) is None:
        pass
    ended = folder.ended(1)
    assert ended
    assert ended["result"]["order"] == "finish"
    assert folder.node_lock_file.read_bytes() == b""  # nobody has to wait for signs of life
    assert SharedLock(folder.node_lock_file).take()


def test_a_worker_is_killed(folder: JobFolder) -> None:
    host = Host()
    begin(host, folder)
    host.kill()
    assert host.wait(30) == -signal.SIGKILL
    assert host.wait(0) == -signal.SIGKILL  # asked again after an answer that got lost


@pytest.mark.parametrize("case", ["no-folder", "another-folder", "no-workspace"])
def test_a_node_that_does_not_see_the_server_s_files_says_so(folder: JobFolder, case: str) -> None:
    """Also where it has a folder of that name, but one of its own."""
    expected = json.loads(folder.task.read_text())
    if case == "no-folder":
        folder.task.unlink()
    if case == "another-folder":
        folder.task.write_text(json.dumps({**expected, "attempt": 7}))
    witness = folder.path / "gone" if case == "no-workspace" else folder.path
    refusal = Host().begin(str(folder.path), expected, str(witness / "job.json"))
    assert refusal
    fault, again = refusal
    assert not again
    assert fault.startswith(f"The node {socket.gethostname()} does not see the server's files in {folder.path}")
    assert "at the same path on a folder that they share" in fault
    assert not folder.node_lock_file.exists()
    assert not folder.log_file.exists()


def test_two_workers_do_not_work_on_one_job(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LEAVE_S", 0.1)
    lock = SharedLock(folder.node_lock_file)
    assert lock.take()
    lock.name_holder(4711, host="mars 0123abcd")
    assert begin(Host(), folder) == ("The job's worker of before has not ended yet on its node, mars.", True)
    lock.wipe()
    lock.free()
    host = Host()
    assert begin(host, folder) is None
    host.kill()
    host.wait(30)


def test_a_worker_that_cannot_be_started_frees_the_job(folder: JobFolder) -> None:
    folder.task.write_text(json.dumps({**json.loads(folder.task.read_text()), "command": ["/nowhere"]}))
    refusal = begin(Host(), folder)
    assert refusal and "could not be started" in refusal.sentence
    assert FileLock(folder.node_lock_file).take()


def test_a_worker_computes_with_the_job_s_processors_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hush")
    monkeypatch.setenv("TINCTURE_CHOSEN_THREADS", "1")
    environment = host_module._environment(task(tmp_path, "done"))
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert not {"RAY_AUTH_TOKEN", "TINCTURE_CHOSEN_THREADS"} & environment.keys()


def test_a_cluster_that_is_gone_costs_the_job_nothing(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise relay_module.TinctureError("The Ray cluster is gone.")

    monkeypatch.setattr(relay_module, "connect", refuse)
    assert Relay(folder).run("mars:1") == relay_module.NOT_DONE
    assert json.loads(folder.relay_file.read_text()) == {"no_room": "The Ray cluster is gone."}
    assert folder.ended(1) is None


def test_a_relay_reports_a_failure_behind_what_the_worker_said(folder: JobFolder) -> None:
    folder.event_file.write_text('{"n": 1, "time": 0.0, "type": "remark", "text": "odd"}\n{"n": 2, "ti')
    relay = Relay(folder)
    assert relay._failed("No Tincture there.").status == 1
    assert json.loads(folder.relay_file.read_text()) == {"ended": True}
    assert [(event["n"], event["type"]) for event in folder.events()] == [(1, "remark"), (2, "ended")]
    ended = folder.ended(1)
    assert ended
    assert (ended["state"], ended["error"], ended["error_type"]) == ("failed", "No Tincture there.", "ClusterError")
    assert SharedLock(folder.node_lock_file).take()


def test_orders_wait_for_their_time(folder: JobFolder) -> None:
    relay = Relay(folder)
    for order in ("finish", "stop"):
        relay.orders.put(order)
    assert relay._new_orders(("stop",)) == ["stop"]
    assert relay._new_orders() == ["finish"]
    assert relay._new_orders() == []
