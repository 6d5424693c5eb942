"""A process that computes a run together with the one that started it: ``python -P -m tincture.cli.helper DEVICE``.

Which of the processes it is stands in its environment; what to do, the one that started it says when they have met. It
writes no files and says nothing: that one does. Of extensions it takes what they do to the model.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tincture.errors import TinctureError, UsageError
from tincture.extensions import load_extensions
from tincture.processes.launch import find_launch
from tincture.run.together import helping


def main(arguments: Sequence[str]) -> int:
    """The program."""
    # Ctrl-C is meant for the process that started this one, which then says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launch = find_launch()
    if launch is None:
        raise UsageError("A helper computes with the process that starts it: tincture train --processes.")
    try:
        with helping(launch, arguments[0]) as (order, processes):
            from tincture.run import train as training

            training.follow(order, processes, [load_extensions(root=Path(order.root)).callback()])
    except TinctureError:
        return 1  # the others have learned what it is
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
