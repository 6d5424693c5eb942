"""What a run on the processor takes of memory besides tensors: the program itself, and files on their way.

Tensors are what ``estimate`` tells. The program is what this process takes already, so it is measured.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.sources import find_source
from tincture.models.loading.weight_files import weight_files
from tincture.run.memory.estimate import MemoryEstimate
from tincture.run.meter import memory_in_use
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

FILES_OF_A_STATE = 2
"""See ``formats.files.atomic_torch_save``."""
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def program_bytes(model: DiffusionModel) -> int | None:
    """Bytes that this process takes beside the weights of ``model``, which has just been loaded; None: nobody tells.

    With the code of torch's kernels, which is read when they first compute.
    """
    with torch.random.fork_rng(devices=[]):
        _compute()
    taken = memory_in_use(torch.device("cpu")).get("process")
    weights = [tensor for modules in model.placement.parts.values() for part in modules for tensor in part.parameters()]
    return None if taken is None else taken - sum(tensor.nbytes for tensor in weights if tensor.device.type == "cpu")


def process_bytes(program: int, estimate: MemoryEstimate, settings: TrainSettings, workspace: Workspace) -> int:
    """The most that the process of a run takes.

    While the model is loaded, its file lies in memory beside the weights. While a state is saved, its file does, and
    what torch wrote of it.

    Args:
        program: see ``program_bytes``.
        estimate: of the run's tensors.
    """
    source = find_source(settings.model, workspace)
    mapped = 0 if source.path is None else _mapped(source.path)
    weights = sum(estimate.weights.values())
    saving = weights + estimate.retained + estimate.data + (1 + FILES_OF_A_STATE) * estimate.trained
    return program + max(estimate.peak, weights + mapped, saving)


def _mapped(path: Path) -> int:
    """Bytes of a model's files that are mapped at a time: of a folder, those of one part."""
    if not path.is_dir():
        return path.stat().st_size
    parts = [path / part for part in _PARTS if (path / part).is_dir()]
    return max((sum(file.stat().st_size for file in weight_files(part)) for part in parts), default=0)


def _compute() -> None:
    """A small step of what models and training are made of, with channels one behind another and side by side."""
    generator = torch.Generator().manual_seed(0)
    for layout in (torch.contiguous_format, torch.channels_last):
        layers = [nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv2d(64, 64, 3, 2, 1)]
        block = nn.Sequential(*layers, nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 1), nn.Flatten(2))
        cells = torch.randn(2, 64, 8, 8, generator=generator).to(memory_format=layout).requires_grad_()
        states = nn.LayerNorm(64)(block.requires_grad_(False)(cells).transpose(1, 2))
        query, key, value = (nn.Linear(64, 64)(states).view(2, 64, 4, 16).transpose(1, 2) for _ in range(3))
        states = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        trained = nn.Linear(64, 128)
        states, gate = trained(states).chunk(2, dim=-1)
        torch.autograd.backward((states * nn.functional.gelu(gate)).square().mean())
        torch.optim.AdamW(trained.parameters(), fused=True).step()
