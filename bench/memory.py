"""The memory that training takes: told for the published models on a GPU, and told against measured where it can run.

python bench/memory.py                    tells it for full-size models on a GPU; needs neither GPU nor weights
python bench/memory.py --check            runs picto on the CPU: told against what torch's profiler sees
python bench/memory.py --check --sd15     and one step of full-size SD 1.5 (2.1 GB of random weights, 12 GB of memory)
python bench/memory.py --process          runs picto in processes of their own: told against the most they took (RSS)
python bench/memory.py --process --sd15   and full-size SD 1.5 with random weights (10 GB of memory)
python bench/memory.py --cuda             runs full-size SD 1.5 and SDXL on the GPU: told against what torch counts
    python bench/memory.py --float8           what float8 saves, and how far it moves picto's predictions
python bench/memory.py --doc FILE...      puts results into docs/memory.md
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from bench import machine  # noqa: E402
from bench.material import NAME, create_adapter, make_workspace, write_random_sd15  # noqa: E402
from bench.memory_tables import tables, write_doc  # noqa: E402
from bench.whole_process import PICTO_CASES, SD15_CASES, compare_processes  # noqa: E402
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: E402
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: E402
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # noqa: E402
from tools.make_checkpoint import anatomy, write_checkpoint  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from transformers.models.clip.configuration_clip import CLIPTextConfig  # noqa: E402
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection  # noqa: E402

from tincture import recipe  # noqa: E402
from tincture.adapters.adapter import Adapter  # noqa: E402
from tincture.adapters.embedding import Embedding  # noqa: E402
from tincture.adapters.hypernetwork import create_hypernetwork  # noqa: E402
from tincture.errors import OutOfMemoryError  # noqa: E402
from tincture.models.families import FAMILIES  # noqa: E402
from tincture.models.float8 import store_in_float8  # noqa: E402
from tincture.models.loading.clip_tokenizer import clip_tokenizer  # noqa: E402
from tincture.models.loading.configs import SCHEDULER  # noqa: E402
from tincture.models.loading.load import load_model  # noqa: E402
from tincture.models.placement import DENOISER  # noqa: E402
from tincture.models.stable_diffusion import StableDiffusion  # noqa: E402
from tincture.models.text_encoder import TextEncoder  # noqa: E402
from tincture.run import components  # noqa: E402
from tincture.run.components import load_adapter  # noqa: E402
from tincture.run.data import load_data, load_template  # noqa: E402
from tincture.run.memory.estimate import MemoryEstimator  # noqa: E402
from tincture.run.memory.fit import available_memory, fit  # noqa: E402
from tincture.run.memory.rehearsal import Rehearsal  # noqa: E402
from tincture.settings.train import TrainSettings  # noqa: E402
from tincture.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "bench" / "results"
KINDS = ("embedding", "hypernetwork")
FULL_SIZE = (("sd1", 512), ("sd2-v", 768), ("sdxl", 1024))
MEASURES: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "bf16"},
    {"precision": "bf16", "offload": True, "slicing": True},
    {"precision": "bf16", "offload": True, "slicing": True, "gradient_checkpointing": True},
    {"precision": "bf16", "offload": True, "slicing": True, "gradient_checkpointing": True, "weight_storage": "float8"},
)
CARDS = (4, 6, 8, 12, 16, 24)
"""Gigabytes of cards that --vram is asked to choose for."""
PICTURES = 10


# --- told -------------------------------------------------------------------------------------------------------------


def without_weights(family: str, side: int, full: bool = True) -> StableDiffusion:
    """A model of a family, of the published size or shrunken, on torch's meta device."""
    made, known = anatomy(family, full), FAMILIES[family]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**made["unet"], sample_size=side // 8)
        vae = AutoencoderKL(**made["vae"], sample_size=side)
        modules = [
            (CLIPTextModelWithProjection if spec.projected else CLIPTextModel)(CLIPTextConfig(**config))
            for spec, config in zip(known.text_encoders, made["text"], strict=True)
        ]
    text = [
        TextEncoder(spec, clip_tokenizer(spec.pad_token, 77, open_clip=spec.open_clip), module)
        for spec, module in zip(known.text_encoders, modules, strict=True)
    ]
    scheduler = DDPMScheduler(**SCHEDULER)
    return StableDiffusion(family=known, text_encoders=text, vae=vae, unet=unet, noise_scheduler=scheduler, name=family)


def new_adapter(kind: str, model: StableDiffusion) -> Adapter:
    """4 vectors, or a pair (1, 2, 1) for every width."""
    if kind == "embedding":
        return Embedding(NAME, {name: torch.zeros(4, width) for name, width in model.text.widths.items()})
    return create_hypernetwork(NAME, model.context_widths(), (1, 2, 1), "relu")


def settings_of(kind: str, workspace: Workspace, side: int, **changes: Any) -> TrainSettings:
    given = {
        "kind": kind,
        "name": NAME,
        "data": str(workspace.root / "data"),
        "width": side,
        "height": side,
        "template": f"{kind}-bench",
        **changes,
    }
    return TrainSettings.from_dict(given).resolved()


def tell(family: str, side: int, workspace: Workspace, full: bool = True) -> list[dict[str, Any]]:
    """What each set of measures takes on a GPU, and what --vram chooses for cards of some sizes; batch 1."""
    model, rows = without_weights(family.removesuffix("-v"), side, full), []
    for kind in KINDS:
        plain = settings_of(kind, workspace, side)
        lines = load_template(plain, workspace)
        estimator = MemoryEstimator(model, new_adapter(kind, model), load_data(plain, model), lines, "cuda")
        for measures in MEASURES:
            estimate = estimator.estimate(plain.replace(**measures))
            phases = {phase: mib(size) for phase, size in estimate.phases.items()}
            rows.append(
                described(family, side, kind, measures=measures, peak_mib=mib(estimate.peak), phases_mib=phases)
            )
            progress(rows[-1])
        for card in CARDS:
            rows.append(
                described(family, side, kind, card_gib=card, **chosen_for(card, kind, workspace, side, estimator))
            )
            progress(rows[-1])
    return rows


def chosen_for(card: int, kind: str, workspace: Workspace, side: int, estimator: MemoryEstimator) -> dict[str, Any]:
    """What --vram chooses for a card, None where nothing fits."""
    asked, device = settings_of(kind, workspace, side, vram=str(card)), torch.device("cuda")
    usual = asked.open_memory_settings()
    with patch("tincture.run.memory.fit.half_precision", lambda _: "bf16"):  # as on cards from 2020 on
        try:
            found, estimate = fit(asked, estimator, available_memory(asked, device), device)
        except OutOfMemoryError:
            return {"chosen": None, "peak_mib": None}
    changed = {name: getattr(found, name) for name, value in usual.items() if getattr(found, name) != value}
    return {"chosen": changed, "peak_mib": mib(estimate.peak)}


# --- told against measured --------------------------------------------------------------------------------------------


def check(model: str, title: str, sizes: list[tuple[int, int]], root: Path, **changes: Any) -> list[dict[str, Any]]:
    """Told and measured peaks of runs on the CPU of both kinds, at (side, batch) and with checkpointing off and on."""
    workspace, rows = make_workspace(root, PICTURES), []
    for kind in KINDS:
        for side, batch_size in sizes:
            for checkpointing in (False, True):
                given = {"batch_size": batch_size, "gradient_checkpointing": checkpointing, **changes}
                rows.append(
                    described(title, side, kind, **given, **compared(model, kind, workspace, side, watch_cpu, **given))
                )
                progress(rows[-1])
    return rows


def check_cuda(model: str, title: str, side: int, root: Path) -> list[dict[str, Any]]:
    """The same on the GPU, by sets of measures."""
    workspace, rows = make_workspace(root, PICTURES), []
    for kind in KINDS:
        for measures in MEASURES:
            given = {**measures, "device": "cuda", "preview_every": 3}
            found = compared(model, kind, workspace, side, watch_cuda, **given)
            rows.append(described(title, side, kind, measures=measures, **found))
            progress(rows[-1])
    return rows


def compared(
    model: str, kind: str, workspace: Workspace, side: int, watch: Callable[[], Any], **changes: Any
) -> dict[str, Any]:
    """MiB that were told for a run of three steps, and that it took from the loaded model on."""
    create_adapter(workspace, kind, model)
    few = {"steps": 3, "preview_every": 0, "preview_steps": 2, "save_every": 0}
    settings = settings_of(kind, workspace, side, model=model, **{**few, **changes})
    device = torch.device(settings.device if settings.device != "auto" else "cpu")
    loaded = components.load_base(settings, workspace)
    if device.type == "cpu":
        loaded.speed_up_convolutions()  # as the run would, before its memory is watched: what it lets go is not seen
    path = recipe.find_adapter(settings, workspace)
    adapter, lines = load_adapter(kind, path, NAME), load_template(settings, workspace)
    estimator = MemoryEstimator(loaded, adapter, load_data(settings, loaded), lines, device.type)
    started = datetime.datetime.now()
    told = estimator.estimate(settings).peak
    seconds = (datetime.datetime.now() - started).total_seconds()
    with patch.object(components, "load_base", lambda *_: loaded), watch() as taken:
        recipe.train(settings, workspace)
    weights = sum(size for size in estimator.estimate(settings).weights.values()) if device.type == "cpu" else 0
    measured = taken() + weights
    return {
        "told_mib": mib(told),
        "measured_mib": mib(measured),
        "ratio": round(told / measured, 3),
        "seconds": seconds,
    }


@contextmanager
def watch_cpu() -> Iterator[Callable[[], int]]:
    """The most bytes that torch allocates on the CPU, beside those it had."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield lambda: _peak(profiler)


def _peak(profiler: Any) -> int:
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@contextmanager
def watch_cuda() -> Iterator[Callable[[], int]]:
    """The most bytes that torch has allocated on the GPU."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield torch.cuda.max_memory_allocated


def check_processes(root: Path, side: int, sd15: bool) -> list[dict[str, Any]]:
    """The same of whole processes, on the CPU."""
    workspace, rows = make_workspace(root / "processes", PICTURES), []
    models = [("picto", "picto", 64, PICTO_CASES)]
    if sd15:
        models.append((str(write_random_sd15(root / "sd15.safetensors")), "sd1", side, SD15_CASES))
    for model, title, pixels, cases in models:
        for row in compare_processes(model, title, pixels, cases, workspace):
            rows.append(row)
            progress(row)
    return rows


# --- float8 -----------------------------------------------------------------------------------------------------------


def float8_effects() -> dict[str, Any]:
    """MiB of full-size U-Nets in bf16 and float8, and how far both move picto's predictions, relative."""
    sizes: dict[str, dict[str, float]] = {}
    for family, side in (("sd1", 512), ("sdxl", 1024)):
        model = without_weights(family, side)
        adapter = new_adapter("embedding", model)
        for name, float8 in (("bf16", False), ("float8", True)):
            weights = Rehearsal(model, adapter, dtype=torch.bfloat16, float8=float8).weights()
            sizes.setdefault(family, {})[name] = mib(weights[DENOISER])
    half, eighth = load_model(dtype=torch.bfloat16), load_model()
    store_in_float8(eighth.unet)
    exact = predictions(load_model())
    moved = {
        name: round(float((predictions(model) - exact).norm() / exact.norm()), 4)
        for name, model in (("bf16", half), ("float8", eighth))
    }
    return {"unet_mib": sizes, "relative_error_on_picto": moved}


@torch.no_grad()
def predictions(model: StableDiffusion) -> torch.Tensor:
    """Of picto, for eight latents at each of four timesteps."""
    generator, made = torch.Generator().manual_seed(0), []
    conditions = model.encode_prompts(["a small cyan dotted moon on a red background"]).expand(8)
    for timestep in (50, 300, 600, 900):
        noisy = torch.randn(8, 4, 8, 8, generator=generator)
        made.append(model.predict_noise(noisy, torch.full((8,), timestep), conditions).float())
    return torch.cat(made)


# --- results ----------------------------------------------------------------------------------------------------------


def described(model: str, side: int, kind: str, **found: Any) -> dict[str, Any]:
    return {"model": model, "side": side, "kind": kind, **found}


def mib(size: float) -> float:
    return round(size / 2**20, 1)


def progress(row: dict[str, Any]) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {json.dumps(row)}", file=sys.stderr, flush=True)


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """All that was asked for."""
    told: list[dict[str, Any]] = []
    checked: list[dict[str, Any]] = []
    head = {"date": datetime.date.today().isoformat(), **machine.commit(), "machine": machine.describe()}
    processes: list[dict[str, Any]] = []
    if args.process:
        processes += check_processes(root, args.side, args.sd15)
    elif args.check:
        checked += check("picto", "picto", [(64, 1), (64, 2)], root / "picto")
        if args.sd15:
            sd15 = str(write_random_sd15(root / "sd15"))
            checked += check(sd15, "sd1", [(args.side, 1)], root / "sd15-workspace")
    elif args.cuda:
        for kind, side in (("sd1", 512), ("sdxl", 1024)):
            path = root / f"{kind}.safetensors"
            write_checkpoint(kind, path, full=True)
            checked += check_cuda(str(path), kind, side, root / kind)
    else:
        workspace = make_workspace(root / "told", PICTURES)
        for family, side in FULL_SIZE:
            told += tell(family, side, workspace)
    return {**head, "told": told, "checked": checked, "processes": processes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="run picto on the CPU, and compare")
    parser.add_argument("--process", action="store_true", help="run picto in processes of their own, and compare")
    parser.add_argument("--sd15", action="store_true", help="with --check and --process: SD 1.5 too")
    parser.add_argument("--side", type=int, default=256, help="of SD 1.5's pictures")
    parser.add_argument("--cuda", action="store_true", help="run on the GPU, and compare")
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--doc", nargs="+", type=Path, metavar="FILE", help="write docs/memory.md from results")
    parser.add_argument("--float8", action="store_true", help="what float8 saves and costs")
    args = parser.parse_args()
    if args.float8:
        print(json.dumps(float8_effects(), indent=1))
        return
    if args.doc:
        write_doc(args.doc)
        return
    with tempfile.TemporaryDirectory() as root:
        results = measure(args, Path(root))
    part = next((part for part in ("process", "check", "cuda") if getattr(args, part)), "told")
    out = args.out or RESULTS / f"{results['date']}-memory-{part}.json"
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
