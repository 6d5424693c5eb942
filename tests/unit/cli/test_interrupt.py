from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tincture.cli.interrupt import stop_on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    told: list[str] = []
    with stop_on_interrupt(told.append) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        assert "stopping after this step" in told[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_second_signal_ends_the_program() -> None:
    code = (
        "import os, signal; from tincture.cli.interrupt import stop_on_interrupt\n"
        "with stop_on_interrupt(print) as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT); assert stop.is_set(); os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert "still here" not in done.stdout


def test_an_exception_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="x"), stop_on_interrupt(print):
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) == before
