"""The real program `tincture serve` on picto: used over HTTP, interrupted, killed, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runs import equal, write_pictures
from tincture.adapters.embedding import Embedding
from tincture.formats.file_lock import FileLock

pytestmark = pytest.mark.slow

PATIENCE_S = 400.0
TOKEN = "a-token-for-the-tests"
CAPTIONS = ("a small red moon", "a big blue star", "a green ring")
STEPS = 40  # of half a second each: a server that starts again must find the job under way
TRAINING = {
    "kind": "embedding",
    "name": "cat",
    "data": "pictures",
    "steps": STEPS,
    "save_every": 2,
    "gradient_accumulation_steps": 16,
    "preview_every": 0,
    "seed": 7,
}


@dataclass
class Server:
    """A running `tincture serve`."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    web: httpx.Client

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.web.get(f"/api/v1/jobs/{job_id}").raise_for_status().json())

    def wait_for(self, job_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(job := self.job(job_id)):
            assert job["state"] != "failed", job["error"]
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def end(self, number: int) -> tuple[int, str]:
        """Exit code and stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tincture", "serve", "--root", str(root), "--device", "cpu", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "TINCTURE_TOKEN": TOKEN}


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[Server]:
    process = subprocess.Popen(
        command(root, "--port", "0", "--json", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.rstrip() == "}":
                break
        assert lines, process.communicate()
        told = json.loads("".join(lines))
        with httpx.Client(base_url=told["url"], headers={"X-API-Key": TOKEN}, timeout=PATIENCE_S) as web:
            yield Server(process, told, web)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def make_embedding(server: Server) -> None:
    body = {"name": "cat", "num_vectors": 2, "init_text": "moon", "model": "picto"}
    server.web.post("/api/v1/adapters/embedding", json=body).raise_for_status()


def submit(server: Server, **settings: Any) -> str:
    body = {"kind": "train", "settings": {**TRAINING, **settings}}
    return str(server.web.post("/api/v1/jobs", json=body).raise_for_status().json()["id"])


def test_interrupted_and_killed_in_mid_training_a_server_goes_on_exactly(tmp_path: Path) -> None:
    roots = [tmp_path / "whole", tmp_path / "broken"]
    for root in roots:
        write_pictures(root / "pictures", CAPTIONS, side=64)
    whole, broken = roots
    with serving(whole) as server:
        make_embedding(server)
        done = server.wait_for(submit(server), lambda job: job["state"] == "done")
        assert done["global_step"] == STEPS
        code, said = server.end(signal.SIGTERM)
        assert code == 0 and "Traceback" not in said, said
    expected = Embedding.load(whole / "embeddings" / "cat.pt")

    (broken / "embeddings").mkdir()
    with serving(broken) as server:
        make_embedding(server)
        job_id = submit(server)
        server.wait_for(job_id, lambda job: job["global_step"] >= 3)
        code, said = server.end(signal.SIGINT)
        assert code == 130 and "once more to leave at once" in said and "Traceback" not in said, said
    with serving(broken) as server:
        reached = server.job(job_id)
        assert reached["state"] in ("queued", "running") and 3 <= reached["global_step"] < STEPS
        server.wait_for(job_id, lambda job: job["global_step"] >= reached["global_step"] + 3)
        worker = FileLock(Path(server.told["state_dir"]) / "jobs" / job_id / "lock").holder()
        assert worker
        server.process.kill()  # as in a power cut, both at once
        os.kill(worker, signal.SIGKILL)
        server.process.wait()
    with serving(broken) as server:
        assert server.web.get("/health").json()["ready"] is True
        done = server.wait_for(job_id, lambda job: job["state"] == "done")
        assert done["attempts"] == 3 and done["global_step"] == STEPS
        steps = [entry["global_step"] for entry in server.web.get(f"/api/v1/jobs/{job_id}/metrics").json()["metrics"]]
        assert steps == list(range(1, STEPS + 1))
    made = Embedding.load(broken / "embeddings" / "cat.pt")
    assert made.step == expected.step == STEPS
    assert equal(made.vectors, expected.vectors)


def test_a_server_says_where_it_is_and_lets_nobody_in_without_the_token(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.told["root"] == str(tmp_path) and server.told["pid"] == server.process.pid
        strangers = httpx.Client(base_url=server.told["url"])
        with strangers:
            assert strangers.get("/health").json() == {"status": "ok"}
            for path in ("/", "/docs", "/metrics", "/api/v1/jobs", "/sdapi/v1/progress", "/config", "/theme.css"):
                assert strangers.get(path).status_code == 401, path
        assert server.web.get("/").status_code == 200
        assert server.web.get("/api/v1/jobs").json()["jobs"] == []
        port = str(httpx.URL(server.told["url"]).port)
        second = subprocess.run(
            command(tmp_path / "..", "--port", port), capture_output=True, text=True, env=environment(), check=False
        )
        assert second.returncode == 2 and f"port {port} already" in second.stderr
        same = subprocess.run(
            command(tmp_path, "--port", "0"), capture_output=True, text=True, env=environment(), check=False
        )
        assert same.returncode == 2 and "Another server works on the queue" in same.stderr
        assert "Traceback" not in same.stderr + second.stderr
        code, said = server.end(signal.SIGINT)
        assert code == 130
        assert f"serving {tmp_path} at {server.told['url']}" in said and TOKEN not in said
