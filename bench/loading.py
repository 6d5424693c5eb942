"""How long a model takes to load, and how much memory at most, beside what it is itself (Linux).

    python bench/loading.py FILE_OR_FOLDER --precision fp16

The first time counts the file's hash too, which is remembered. Memory is what the process has for itself; the mapped
file is cache, which the system takes back when it needs it.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from pathlib import Path

from tincture.models.devices import PRECISIONS
from tincture.models.loading.load import load_model

_STATUS = Path("/proc/self/status")
_PRIVATE = re.compile(r"RssAnon:\s+(\d+) kB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32")
    args = parser.parse_args()
    for _ in range(2):
        print(json.dumps(measure(args.model, args.precision)))
    return 0


def measure(model: str, precision: str) -> dict[str, float]:
    """Seconds by the clock and of the processor; MiB of the model's weights, and at most while it is loaded."""
    before = private_mib()
    with Watch() as watch:
        start, processor = time.perf_counter(), time.process_time()
        loaded = load_model(model, dtype=PRECISIONS[precision])
        seconds, used = time.perf_counter() - start, time.process_time() - processor
    parts = [loaded.unet, loaded.vae, *(encoder.module for encoder in loaded.text_encoders)]
    weights = sum(value.numel() * value.element_size() for part in parts for value in part.parameters())
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "weights_mib": round(weights / 2**20),
        "most_mib": round(watch.most - before),
    }


def private_mib() -> float:
    """Memory of this process alone."""
    found = _PRIVATE.search(_STATUS.read_text())
    return int(found[1]) / 1024 if found else 0.0


class Watch:
    """Looks every 10 ms how much memory is taken."""

    def __init__(self) -> None:
        self.most = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, private_mib())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
