from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tincture.cli.interrupt import stop_on_interrupt


@pytest.fixture(autouse=True)
def _from_a_terminal() -> Iterator[None]:
    """As when no nohup started the tests, which would have hang-ups ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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


@pytest.mark.parametrize("times", [1, 3])
def test_a_closed_terminal_asks_once_however_often_the_system_says_so(times: int) -> None:
    before = signal.getsignal(signal.SIGHUP)
    told: list[str] = []
    with stop_on_interrupt(told.append) as stop:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.is_set()
        assert told == ["the terminal was closed: stopping after this step and saving"]
        os.kill(os.getpid(), signal.SIGTERM)  # which is the first of its kind
        assert len(told) == 2
    assert signal.getsignal(signal.SIGHUP) == before


def test_a_hang_up_after_an_interrupt_does_not_end_the_program() -> None:
    """Systems that log a user out send both."""
    with stop_on_interrupt(lambda text: None) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.is_set()


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_interrupt(print) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_whose_terminal_is_closed_saves_without_it(tmp_path: Path) -> None:
    """All that is written to a closed terminal fails; what is saved then must be whole all the same."""
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from tincture.cli.interrupt import stop_on_interrupt; from tincture.cli.progress import progress\n"
        "from tincture.cli.session import Session; from tincture.events import RunStarted, StepEnd, CheckpointSaved\n"
        "path = Path(sys.argv[1])\n"
        "with progress(Console(file=sys.stderr, force_terminal=True)) as watcher:\n"
        "  with stop_on_interrupt(Session().say) as stop:\n"
        "    watcher.on_event(RunStarted(0, 9, 1, 1)); print('ready', flush=True); assert stop.wait(60)\n"
        "    watcher.on_event(StepEnd(1, 9)); watcher.on_event(CheckpointSaved(1, path))\n"
        "    print('more', flush=True); Session().say('stopped'); path.write_text('saved')\n"
    )
    own, its = pty.openpty()
    command = [sys.executable, "-c", code, str(tmp_path / "result")]

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, preexec_fn=take_terminal) as run:
        os.close(its)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(own, 4096)
        os.close(own)
        assert run.wait(60) == 0
    assert (tmp_path / "result").read_text() == "saved"
