from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection

import pytest

from tincture.server.model_process import channel
from tincture.server.model_process.channel import Channel

Ends = tuple[Connection, Connection]


@pytest.fixture
def ends() -> Ends:
    return multiprocessing.Pipe()


def test_messages_of_several_threads_come_whole(ends: Ends) -> None:
    near, far = map(Channel, ends)
    sent = [(number, bytes([number]) * 200_000) for number in range(8)]
    threads = [threading.Thread(target=lambda each=each: [near.send(*each) for _ in range(5)]) for each in sent]
    for thread in threads:
        thread.start()
    received = [far.receive() for _ in range(40)]
    for thread in threads:
        thread.join()
    assert sorted(received) == sorted(sent * 5)


def test_a_message_is_bounded_at_both_ends(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = map(Channel, ends)
    monkeypatch.setattr(channel, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="allowed are 100"):
        near.send("x" * 200)
    near.send("x" * 50)
    assert far.receive() == ("x" * 50,)
    ends[0].send_bytes(b"x" * 101)  # whatever wrote it
    with pytest.raises(OSError):
        far.receive()


def test_an_end_that_is_gone_is_noticed(ends: Ends) -> None:
    near, far = map(Channel, ends)
    near.close()
    with pytest.raises(EOFError):
        far.receive()
    with pytest.raises(OSError):
        far.send("anybody?")
    with pytest.raises(OSError):
        near.send("closed")
