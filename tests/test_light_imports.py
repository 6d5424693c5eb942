"""What must start quickly, or live for weeks, loads nothing heavy.

One process takes all the steps, the lightest first, and notes after each what is there.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from tools.make_checkpoint import write_checkpoint

from tests.past_runs import past_run
from tests.unit.preprocessing.pictures import texture
from tincture import recipe
from tincture.models.loading.sources import PICTO
from tincture.workspace import Workspace

MODELS = {
    "torch",
    "torch._dynamo",
    "diffusers",
    "transformers",
    "onnxruntime",
    "gradio",
    "pytorch_optimizer",
    "ray",
    "ftfy",
}
LIBRARIES = {"diffusers", "transformers", "torch._dynamo", "pytorch_optimizer", "ftfy"}
PICTURES = MODELS | {"numpy", "PIL", "cv2", "rich", "tincture.preprocessing.pipeline"}

COMMANDS: tuple[list[str], ...] = (
    *([], ["demo"], ["create"], ["create", "embedding"], ["create", "hypernetwork"], ["train"], ["train", "embedding"]),
    *(["train", "hypernetwork"], ["resume"], ["generate"], ["inspect"], ["convert"], ["doctor"], ["preprocess"]),
    ["serve"],
    ["sweep"],
)
HELP = f"""
from tincture.cli import main
assert all(main([*words, '--help']) == 0 for words in {COMMANDS!r})
"""
THE_HELP = """
import json, sys
from tincture.cli import main
assert main(['--help']) == 0
print(json.dumps(sorted(sys.modules)))
"""
MOST_FOR_THE_HELP = 25
WEBUI = """
from tincture.webui import train_embedding
try:
    train_embedding('t', 'cat', 'fast', 1, 1, 'd')
except ValueError as error:
    assert 'learn_rate' in str(error)
"""
ADAMW = """
import torch
from tincture.training.optimizer import create_optimizer, optimizer_names
assert 'Prodigy' in optimizer_names()
create_optimizer('AdamW', [torch.nn.Parameter(torch.ones(2))], 0.1)
"""
CUTTING = """
import tincture
tincture.preprocess('in', 'out', width=32, height=32, focal_crop=True, validation_share=0.3, workers=1)
"""

SERVER = """
import tempfile
import tincture.server.serving, tincture.cli.serve
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace
for ray in ('', 'auto'):
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Workspace.open(folder), ServerSettings(ray=ray))
        if not ray:
            service.start()
            service.close()
        service.queue.store.close()
"""

NEW_EMBEDDINGS = """
from pathlib import Path
from tincture.cli import main
for model in ['picto', 'folder', *map(str, Path().glob('*.safetensors'))]:
    assert main(['create', 'embedding', 'cat', '--model', model, '--init-text', 'a small red moon', '--overwrite']) == 0
"""

NAMED = "no such thing"
TRAIN = ("train", "embedding", "known", "--model", "picto", "--data", "in")
RESUME = ("resume", "textual_inversion/2026-01-01/known")
UNKNOWN = (
    *(["create", "embedding", "a", "--vectors", "999"], ["create", "embedding", "a", "--model", NAMED]),
    *(["create", "hypernetwork", "a", flag, NAMED] for flag in ("--activation", "--weight-init", "--model")),
    *(["create", "hypernetwork", "a", "--layer-structure", "2"], ["create", "hypernetwork", "a", "--sizes", "7,7"]),
    *(["generate", prompt] for prompt in ("<hypernet:no such thing:1>", "<hypernet:known:much>")),
    ["generate", "a cat", "--out", "in/0.png"],
    *(["generate", "a cat", flag, NAMED] for flag in ("--sampler", "--model", "--vae")),
    *(["train", "embedding", "a", "--data", "in", flag, NAMED] for flag in ("--preview-sampler", "--model", "--data")),
    *(["train", "embedding", "a", "--data", "in", flag, NAMED] for flag in ("--template", "--vae", "--log-with")),
    *([command, NAMED] for command in ("inspect", "resume", "rerun")),
    *([*RESUME, "--log-with", NAMED], [*RESUME, "--log-with", "swanlab"], ["compare", RESUME[1], NAMED]),
    *(["convert", "known.pt", out] for out in ("a.nope", "nope", "known.pt")),
    *(["merge", "known", *others] for others in ([NAMED, "a.pt"], ["no.pt", "a.pt"], ["known", "known.pt"])),
    *(["sweep", "no.toml"], ["serve", "--allow-dir", NAMED]),
)
UNKNOWN_TO_TORCH = (
    *([*TRAIN, "--optimizer", NAMED], [*TRAIN, "--optimizer", "AdamW", "--optimizer-args", "nope=1"]),
    *([*TRAIN, "--device", "cuda:99"], ["generate", "a cat", "--device", "cuda:99"]),
    ["rerun", RESUME[1], "--optimizer", NAMED],
)
REFUSED, REFUSED_BY_TORCH = (
    f"""
import contextlib, io, re, sys
from tincture.cli import main
for words in {calls!r}:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(words) in (1, 2), words
    wrong = set(re.findall('[a-z0-9]+', ' '.join(words[-2:]))) - set(words[:1])
    assert wrong & set(re.findall('[a-z0-9]+', said.getvalue())), (words, said.getvalue())
    assert not {heavy!r} & set(sys.modules), words
"""
    for calls, heavy in ((UNKNOWN, MODELS | {"numpy", "PIL"}), (UNKNOWN_TO_TORCH, LIBRARIES))
)

STEPS: dict[str, tuple[str, set[str]]] = {
    "the package": ("import tincture; assert set(tincture.__all__) <= set(dir(tincture))", PICTURES | {"typer"}),
    "settings": ("from tincture.settings import PreprocessSettings, TrainSettings", PICTURES | {"typer"}),
    "the queue": ("import tincture.server.queue.supervisor", PICTURES | {"typer"}),
    "help of every command": (HELP, PICTURES),
    "names that are not known": (REFUSED, MODELS | {"numpy", "PIL"}),
    "schedules": ("import tincture.training.lr_schedule", MODELS),
    "the adapters' protocol": ("import tincture.adapters.adapter", MODELS),
    "checked arguments of the webui": (WEBUI, MODELS),
    "cutting": (CUTTING, MODELS),
    "models of the server": ("import tincture.server.model_process.client", MODELS),
    "requests": ("import tincture.server.requests.places, tincture.server.library.datasets", MODELS),
    "the server": (SERVER, MODELS),
    "names that torch knows": (REFUSED_BY_TORCH, LIBRARIES),
    "new embeddings": (NEW_EMBEDDINGS, LIBRARIES),
    "an optimizer of torch": (ADAMW, {"pytorch_optimizer"}),
}

PROGRAM = """
import contextlib, io, json, sys
loaded = {}
for name, (code, heavy) in json.load(sys.stdin).items():
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, {})
    loaded[name] = sorted(set(heavy) & set(sys.modules))
json.dump(loaded, sys.stdout)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What was there after each step that should not be."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "in").mkdir()
    for number in range(3):
        texture(60 + 10 * number, 40, seed=number).save(folder / "in" / f"{number}.png")
    shutil.copytree(PICTO, folder / "folder")
    made = recipe.create("embedding", "known", workspace=Workspace(folder), model="picto", num_vectors=1)
    shutil.copy(made, folder / "known.pt")
    settings: dict[str, Any] = {"kind": "embedding", "name": "known", "model": "picto", "data": "in", "steps": 10}
    rest = {"root": str(folder), "template_lines": ["[name]"], "adapter_path": str(made), "model_hash": "m1"}
    run = past_run(folder, "2026-01-01/known", **settings)
    shutil.copy(made, run / "start.pt")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **rest}))
    for kind in ("sd1", "sd2", "sdxl"):
        write_checkpoint(kind, folder / f"{kind}.safetensors")
    steps = json.dumps({name: (code, sorted(heavy)) for name, (code, heavy) in STEPS.items()})
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=steps, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((folder / "out").rglob("*.png"))
    found: Any = json.loads(done.stdout)
    return dict(found)


@pytest.mark.parametrize("step", STEPS)
def test_nothing_heavy_is_loaded(step: str, loaded: dict[str, list[str]]) -> None:
    assert loaded[step] == []


def test_no_step_forbids_what_one_before_it_may_load() -> None:
    heavy = [names for _, names in STEPS.values()]
    assert all(before >= after for before, after in itertools.pairwise(heavy))


def test_the_help_loads_a_handful_of_modules_and_no_settings() -> None:
    done = subprocess.run([sys.executable, "-c", THE_HELP], capture_output=True, text=True, check=True)
    there = set(json.loads(done.stdout.splitlines()[-1]))
    own = {name for name in there if name.partition(".")[0] == "tincture"}
    assert len(own) <= MOST_FOR_THE_HELP, sorted(own)
    assert not there & {*PICTURES, "tincture.settings.fields", "tincture.settings.train", "tincture.formats.files"}
