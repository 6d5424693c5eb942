from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import until
from tincture.errors import UsageError
from tincture.server.queue.cluster import connection, keeper, watched
from tincture.server.queue.cluster.watched import WatchedCluster

NODES = '{"nodes": [{"name": "mars", "total": {"CPU": 4}, "free": {"CPU": 1}}]}'
TELLS = f"""
import os, sys, time
print("a library says something")
print('{{"address": "mars:6379", "auth_mode": "token"}}', flush=True)
print('{NODES}', flush=True)
"""
ABORTS = """
import os
os.write(2, b"[2026-11-30 13:01:55,179 C 7 7] raylet_ipc_client.cc:85: Failed to connect to socket at address:/raylet")
os.write(2, b" *** StackTrace Information ***")
os.abort()
"""
UNTIL_LEFT = "sys.stdin.read(); open(sys.argv[1], 'w')"
Watch = Callable[[str], WatchedCluster]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Makes a cluster that a program of some lines asks; its argument is the address."""
    made = []

    def make(program: str) -> WatchedCluster:
        made.append(WatchedCluster("auto", (sys.executable, "-I", "-S", "-c", program)))
        made[-1]._asked = str(tmp_path / "left")
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def no_answer_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "require_answer", lambda address: None)


def test_nodes_are_known_once_it_has_started(watch: Watch, no_answer_needed: None, tmp_path: Path) -> None:
    cluster = watch(TELLS + UNTIL_LEFT)
    assert (cluster.nodes, cluster.address, cluster.holds) == ((), "", ())
    cluster.start()
    assert (cluster.address, [node.name for node in cluster.nodes]) == ("mars:6379", ["mars"])
    assert cluster.nodes[0].free["CPU"] == 1
    assert cluster.environment["RAY_AUTH_MODE"] == "token"
    assert len(cluster.holds) == 1
    cluster.close()
    assert (tmp_path / "left").exists()  # it was let end by itself


def test_secrets_of_the_server_are_not_its_process_s_but_the_cluster_s_token_is(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINCTURE_TOKEN", "hush")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    environment = watch("").environment
    assert "TINCTURE_TOKEN" not in environment
    assert environment["RAY_AUTH_TOKEN"] == "0" * 64


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ('print(\'{"error": "The Ray cluster is on Mars."}\')', "The Ray cluster is on Mars."),
        ("raise SystemExit", "its process ended without a word"),
        (ABORTS, "does not have this machine among its nodes; run ray start with that address here, or give"),
        (
            "import sys, time; print('Unauthenticated: InvalidAuthToken', file=sys.stderr, flush=True); time.sleep(99)",
            "does not take this machine's token; put the cluster's own into ~/.ray/auth_token",
        ),
        ("import time; time.sleep(99)", "it was silent for 0.5 s"),
    ],
    ids=["error", "mute", "aborted", "token", "silent"],
)
def test_what_cannot_be_connected_with_is_refused_in_one_sentence(
    watch: Watch, no_answer_needed: None, monkeypatch: pytest.MonkeyPatch, program: str, expected: str
) -> None:
    monkeypatch.setattr(watched, "CONNECT_S", 0.5 if "silent" in expected else 60.0)
    monkeypatch.setattr(watched, "END_S", 0.1)
    cluster = watch(program)
    with pytest.raises(UsageError) as raised:
        cluster.start()
    assert expected in str(raised.value)
    assert cluster._process is not None
    assert cluster._process.poll() is not None  # nothing is left behind


def test_ray_that_is_not_installed_is_named(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tincture\[cluster\]'"):
        watch("").start()


def test_a_cluster_that_is_lost_is_connected_with_again(
    watch: Watch, no_answer_needed: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "AGAIN_S", 0.01)
    cluster = watch(TELLS + 'sys.stdin.readline(); print(\'{"error": "It is lost."}\')')
    cluster.start()
    first = cluster._process
    assert first
    assert first.stdin
    first.stdin.write(b"\n")
    first.stdin.flush()
    until(lambda: cluster._process is not first and bool(cluster.nodes))
    assert "It is lost." in caplog.text
    assert cluster.address == "mars:6379"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid:6379"])
def test_an_address_at_which_nothing_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        connection.require_answer(address)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n", "has another version of Ray or Python"),
        ("Authentication failed: token is missing", "does not take this machine's token"),
        ("No raylet found on this host", "does not have this machine among its nodes; run ray start with"),
        ("Failed to connect\nto it", "did not take the connection: Failed to connect to it."),
        ("", "it says nothing."),
        (
            "No start: Traceback (most recent call last):\n x\nRuntimeError: Starting it failed. See a log.",
            "connection: Starting it failed. See a log.",
        ),
    ],
)
def test_what_ray_says_becomes_a_sentence(reason: str, expected: str) -> None:
    sentence = connection.explained("head:6379", reason)
    assert sentence.startswith("The Ray cluster 'head:6379' ")
    assert expected in sentence
    assert "\n" not in sentence


def watched_for(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> tuple[list[dict[str, Any]], str]:
    """What is said of nodes, and the error that it ends with, if each question is answered by the next of these."""
    said: list[dict[str, Any]] = []
    left, ended = list(answers), threading.Event()

    def ask() -> list[dict[str, Any]]:
        if len(left) == 1:
            ended.set()
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [{"name": answer}] if answer else []

    monkeypatch.setattr(keeper, "say", said.append)
    monkeypatch.setattr(keeper, "EVERY_S", 0.0)
    monkeypatch.setattr(keeper, "FAILURES", 3)
    try:
        keeper.watch(ask, ended)
    except UsageError as error:
        return said, str(error)
    return said, ""


def test_changes_of_the_nodes_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said, error = watched_for(monkeypatch, "a", "a", RuntimeError(), "a", "", "b")
    assert said == [{"nodes": [{"name": "a"}]}, {"nodes": []}, {"nodes": [{"name": "b"}]}]
    assert error == ""


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("a", "", "", "", "a"), "The Ray cluster has no node any more."),
        (("a", *[RuntimeError()] * 3, "a"), "The Ray cluster does not answer any more (RuntimeError)."),
        ((*[RuntimeError()] * 3, "a"), "The Ray cluster does not answer any more (RuntimeError)."),
    ],
    ids=["no-nodes", "no-answer", "never-an-answer"],
)
def test_a_cluster_without_nodes_or_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[Any, ...], expected: str
) -> None:
    assert watched_for(monkeypatch, *answers)[1] == expected
