"""Measures what watchers cost a training: its speed without and with them in turn, and how soon they learn of a step.

python bench/watchers.py                      50 watchers, into bench/results
python bench/watchers.py --watchers 5 --windows 2 --seconds 5 --out watchers.json

One run on picto in a real server; its speed is measured in windows, by turns without and with watchers. They are on the
same machine, in one process of their own, and take what they are sent without looking at it, all but one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tincture.server.queue.folder import JobFolder

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SETTLE_S = 2.0
"""Seconds that a window waits after watchers came or went."""
SETTINGS = {"kind": "embedding", "name": "glimmer", "data": "data", "steps": 10**7, "template": "embedding-bench"}
RESULTS = ROOT / "bench" / "results"

Told = dict[str, Any]


@contextlib.contextmanager
def serving(root: Path, threads: int) -> Iterator[Told]:
    """A server on the workspace ``root``, as ``tincture serve --json`` tells it: ``url``, ``pid``, ``state_dir``."""
    program = [
        sys.executable,
        "-m",
        "tincture",
        "--json",
        "--root",
        str(root),
        "serve",
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout
        try:
            yield told_by(server.stdout)
        finally:
            server.terminate()


def told_by(output: Iterable[str]) -> Told:
    """The first object that a program writes, over several lines."""
    content = ""
    for line in output:
        content += line
        if line == "}\n":
            return dict(json.loads(content))
    raise SystemExit("The server did not start.")


def submit(url: str) -> str:
    """Puts the training into the queue; its id."""
    body = json.dumps({"kind": "train", "settings": SETTINGS}).encode()
    asked = urllib.request.Request(f"{url}api/v1/jobs", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return str(json.load(answer)["id"])


async def watch(url: str, job: str, since: int, delays: list[float] | None) -> None:
    """One watcher; of each event it notes in ``delays`` how many seconds after it happened it came."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        path = f"/api/v1/jobs/{job}/events?since={since}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        while content := await (reader.read(2**16) if delays is None else reader.readline()):
            if delays is not None and content.startswith(b'data: {"n":'):
                delays.append(time.time() - json.loads(content.removeprefix(b"data: "))["time"])
    finally:
        writer.close()


async def window(told: Told, job: str, watchers: int, seconds: float) -> Told:
    """The run's speed, and what the server computes, while so many watch."""
    folder = JobFolder(Path(told["state_dir"]) / "jobs" / job)
    since, delays = folder.last()[0], list[float]()
    tasks = [
        asyncio.create_task(watch(told["url"], job, since, delays if number == 0 else None))
        for number in range(watchers)
    ]
    await asyncio.sleep(SETTLE_S)
    delays.clear()
    begun, cpu = progress(folder), cpu_seconds(told["pid"])
    await asyncio.sleep(seconds)
    ended, cpu = progress(folder), cpu_seconds(told["pid"]) - cpu
    broken = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if broken or ended[1] <= begun[1]:
        raise SystemExit(f"{len(broken)} of {watchers} watchers lost their stream, or the run stands still.")
    speed = (ended[0] - begun[0]) / (ended[1] - begun[1])
    return {"watchers": watchers, "steps_per_s": speed, "server_cpu": cpu / seconds, "delays": delays}


def progress(folder: JobFolder) -> tuple[int, float]:
    """The last step that the run told, and when, by its own clock."""
    _, end = folder.last()
    events, _ = folder.read_from(max(0, end - 2**15))
    found = [event for event in events if event["type"] == "progress"]
    return (found[-1]["global_step"], found[-1]["time"]) if found else (0, 0.0)


def cpu_seconds(process: int) -> float:
    """What a process has computed so far; NaN where the system does not tell (it does on Linux)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(windows: Sequence[Told]) -> Told:
    """Medians over the windows; ``ratio`` is the speed with watchers by that without, of neighbours in time."""
    without = [each for each in windows if not each["watchers"]]
    watched = [each for each in windows if each["watchers"]]
    ratios = [one["steps_per_s"] / other["steps_per_s"] for other, one in zip(without, watched, strict=True)]
    delays = sorted(delay for each in watched for delay in each["delays"])
    return {
        "watchers": watched[0]["watchers"],
        "steps_per_s": [
            round(statistics.median(each["steps_per_s"] for each in group), 2) for group in (without, watched)
        ],
        "ratio": round(statistics.median(ratios), 4),
        "ratio_least_greatest": [round(min(ratios), 4), round(max(ratios), 4)],
        "server_cpu": [
            round(statistics.median(each["server_cpu"] for each in group), 4) for group in (without, watched)
        ],
        "events": len(delays),
        "delay_s_median_95_greatest": [
            round(delays[int(part * (len(delays) - 1))], 3) if delays else None for part in (0.5, 0.95, 1)
        ],
    }


async def measure(told: Told, watchers: int, windows: int, seconds: float) -> list[Told]:
    """Windows without and with watchers, by turns, of one run."""
    job = submit(told["url"])
    folder = JobFolder(Path(told["state_dir"]) / "jobs" / job)
    while progress(folder)[0] < 20:
        state = read(told["url"], job)
        if state["state"] not in ("queued", "running"):
            raise SystemExit(f"The job is {state['state']}: {state['error']}")
        await asyncio.sleep(0.5)
    measured = []
    for number in range(2 * windows):
        measured.append(await window(told, job, watchers if number % 2 else 0, seconds))
        print({**measured[-1], "delays": len(measured[-1]["delays"])}, file=sys.stderr, flush=True)
    return measured


def read(url: str, job: str) -> Told:
    """The job as it stands."""
    with urllib.request.urlopen(f"{url}api/v1/jobs/{job}") as answer:
        return dict(json.load(answer))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--windows", type=int, default=6, help="pairs of windows")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a window")
    parser.add_argument("--threads", type=int, default=1, help="that the training computes with")
    parser.add_argument("--out", type=Path, help="file for the results")
    chosen = parser.parse_args(arguments)
    from bench import machine
    from bench.material import create_adapter, make_workspace

    about = {"date": datetime.date.today().isoformat(), **machine.commit(), "machine": machine.describe()}
    with tempfile.TemporaryDirectory() as folder:
        create_adapter(make_workspace(Path(folder), 16), "embedding", "picto")
        with serving(Path(folder), chosen.threads) as told:
            windows = asyncio.run(measure(told, chosen.watchers, chosen.windows, chosen.seconds))
    found = summary(windows)
    print(json.dumps(found, indent=1))
    out = chosen.out or RESULTS / f"{about['date']}-watchers.json"
    slim = [{name: value for name, value in each.items() if name != "delays"} for each in windows]
    out.write_text(json.dumps({**about, **found, "windows": slim}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
