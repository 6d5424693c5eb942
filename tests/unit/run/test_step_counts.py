"""What a step costs, in counts that no busy machine changes: kernels, encodings, decodings, waits for the device."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.runs import NAMES, make_bench
from tests.support import save_folder, tiny_model
from tincture.events import Event, StepEnd
from tincture.models.autoencoder import Autoencoder
from tincture.models.stable_diffusion import StableDiffusion

TABLE = Path(__file__).parent / "step_counts.json"
RENEW = "python -m tests.unit.run.test_step_counts"
LIBRARIES = ("torch", "diffusers", "transformers")
SLACK = 1.15
"""Other versions of the libraries may cut the same step into somewhat more kernels."""
WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero"}
GROUPS = {
    "convolutions": ("convolution",),
    "convolutions backward": ("convolution_backward",),
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attentions": ("_scaled_dot_product_flash_attention_for_cpu",),
    "attentions backward": ("_scaled_dot_product_flash_attention_for_cpu_backward",),
    "copies": ("clone", "copy_", "_to_copy"),
}
STEPS, FIRST = 5, 3
"""Those before the first that counts fill the caches."""


class Counts(TorchDispatchMode):
    """Counts the kernels that torch is asked for, and by step what came together since the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.steps: list[Counter[str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.now[f"aten.{name}"] += 1
        self.now["waits"] += name in WAITS
        return func(*args, **(kwargs or {}))

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepEnd):
            self.steps.append(self.now)
            self.now = Counter()


@contextmanager
def counted(counts: Counts) -> Iterator[None]:
    """Inside, texts and pictures that are encoded and decoded are counted too, and what reads whole tensors."""

    def noting(owner: type, method: str, what: str, many: Callable[..., int] = lambda _: 1) -> Any:
        original = getattr(owner, method)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            counts.now[what] += many(*args) if args else 1
            return original(self, *args, **kwargs)

        return patch.object(owner, method, call)

    def number(batch: Any, *_: Any) -> int:
        return len(batch)

    with ExitStack() as patches:
        patches.enter_context(noting(StableDiffusion, "encode_prompts", "texts encoded", number))
        patches.enter_context(noting(Autoencoder, "encode", "pictures encoded", number))
        patches.enter_context(noting(Autoencoder, "decode", "pictures decoded", number))
        patches.enter_context(noting(torch.Tensor, "tolist", "waits"))
        patches.enter_context(noting(torch.Tensor, "numpy", "waits"))
        patches.enter_context(counts)
        yield


def count_steps(root: Path, kind: str) -> list[dict[str, int]]:
    """Each of the last steps of a run, with all five pictures in every step."""
    model = tiny_model()
    bench = make_bench(root / "work", model, save_folder(model, root / "tiny"), dropout=0.0)
    bench.workspace.templates.mkdir(parents=True, exist_ok=True)
    (bench.workspace.templates / "counting.txt").write_text("[name] of [filewords]\n", encoding="utf-8")
    counts = Counts()
    with counted(counts):
        bench.train(kind, callbacks=[counts], steps=STEPS, batch_size=5, template="counting")
    return [_summed(step) for step in counts.steps[FIRST - 1 : STEPS - 1]]  # the last one reads all losses


def _summed(step: Counter[str]) -> dict[str, int]:
    kernels = sum(number for name, number in step.items() if name.startswith("aten."))
    groups = {group: sum(step[f"aten.{name}"] for name in names) for group, names in GROUPS.items()}
    rest = ("texts encoded", "pictures encoded", "pictures decoded", "waits")
    return {"kernels": kernels, **groups, **{name: step[name] for name in rest}}


def versions() -> dict[str, str]:
    """Major and minor of the libraries that cut a step into kernels."""
    return {name: ".".join(importlib.metadata.version(name).split(".")[:2]) for name in LIBRARIES}


@pytest.mark.parametrize("kind", NAMES)
def test_a_step_makes_what_the_table_says(kind: str, tmp_path: Path) -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    known, steps = table["steps"][kind], count_steps(tmp_path, kind)
    assert steps == [steps[0]] * len(steps), "steps differ from each other"
    hint = f"if that is meant, write the table anew: {RENEW}"
    if table["versions"] == versions():
        assert steps[0] == known, hint
    else:
        exceeded = {name: number for name, number in steps[0].items() if number > known[name] * SLACK}
        assert not exceeded, f"more than {known}; {hint}"


def test_the_table_forbids_what_no_step_may_do() -> None:
    steps = json.loads(TABLE.read_text(encoding="utf-8"))["steps"]
    assert steps.keys() == NAMES.keys()
    for step in steps.values():
        assert step["pictures encoded"] == step["pictures decoded"] == step["waits"] == 0
    # Five prompts that differ, each once; of a hypernetwork they are all known by then.
    assert (steps["embedding"]["texts encoded"], steps["hypernetwork"]["texts encoded"]) == (5, 0)
    assert steps["embedding"]["convolutions backward"] < steps["embedding"]["convolutions"]


def test_a_wait_or_an_encoding_more_is_noticed() -> None:
    model, counts = tiny_model(), Counts()
    with counted(counts):
        number = torch.ones(1)
        float(number)
        number.item()
        number.tolist()
        model.encode_prompts(["a", "b"])
        model.decode_latents(torch.zeros(1, 4, 8, 8))
        model.encode_pictures(torch.zeros(3, 3, 64, 64))
    found = _summed(counts.now)
    assert found["waits"] >= 3
    assert (found["texts encoded"], found["pictures decoded"], found["pictures encoded"]) == (2, 1, 3)


def renew() -> None:
    """Writes the table."""
    with tempfile.TemporaryDirectory() as root:
        steps = {kind: count_steps(Path(root) / kind, kind)[0] for kind in NAMES}
    text = json.dumps({"versions": versions(), "steps": steps}, indent=1)
    TABLE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    renew()
