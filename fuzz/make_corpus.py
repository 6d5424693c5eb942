"""Writes ``fuzz/corpus/TARGET/NAME``, small inputs to start from: ``python fuzz/make_corpus.py``.

They are made from files of every format, unwrapped for the targets that wrap them.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from targets import TARGETS, kept_latents

from tincture.adapters.hypernetwork import Hypernetwork
from tincture.formats.checked_file import write_checked
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import EMBEDDING_WRITERS
from tincture.formats.embedding_optimizer import write_embedding_optimizer
from tincture.formats.hypernetwork_optimizer import write_hypernetwork_optimizer
from tincture.formats.picture_text import save_png

CORPUS = Path(__file__).parent / "corpus"
PARAMETERS = b'a moon, "red": 1\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, Lora hashes: "a: 1, b: 2", Seed: 1'


def main() -> None:
    shutil.rmtree(CORPUS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        files = {path.name: path.read_bytes() for path in _files(Path(folder))}
    files |= _foreign()
    for target in TARGETS:
        for name, content in _inputs(target, files):
            path = CORPUS / target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _files(folder: Path) -> Iterator[Path]:
    """Files of ours."""
    rows = torch.tensor([[0.5, -1.25], [3.0, 4e-3]])
    embedding = EmbeddingFile(
        {"clip_l": rows}, "cat", 7, "model", "0123456789", {"author": "A", "metadata": {"x": "y"}}
    )
    for kind, write in EMBEDDING_WRITERS.items():
        if kind in ("pt", "bin", "safetensors", "kohya"):
            write(folder / f"embedding.{kind}", embedding)
    write_embedding_optimizer(folder / "embedding.pt", rows, {"state": {0: {"step": torch.tensor(3.0)}}})
    network = Hypernetwork("ink", (2,), [1, 2, 1], "relu", "Normal", True, dropout_structure=[0, 0.3, 0])
    for name in ("hypernetwork.pt", "hypernetwork.safetensors"):
        network.save(folder / name)
    state = torch.optim.AdamW(network.parameters()).state_dict()
    write_hypernetwork_optimizer(folder / "hypernetwork.pt", "AdamW", state)
    latents, sample, _ = kept_latents(folder)
    moments = {"mean": torch.zeros(4, 1, 2), "std": torch.ones(4, 1, 2)}
    about = {"digest": sample.digest, "what": latents._what(sample), "size": "[16, 8]"}
    write_checked(folder / "latents", moments, about)
    save_png(torch.zeros(2, 2, 3).byte().numpy(), folder / "picture.png", PARAMETERS.decode())
    return folder.iterdir()


def _foreign() -> dict[str, bytes]:
    """Formats that are only read."""
    rows = torch.tensor([[0.5, -1.25]])
    old = {"string_to_param": torch.nn.ParameterDict({"*": rows}), "name": "cat", "step": 7}
    lora = {"lora_unet_a.lora_down.weight": rows, "lora_unet_a.lora_up.weight": rows.T, "lora_unet_a.alpha": rows[0, 0]}
    layers = {"linear1.weight": rows[0, 0].reshape(1, 1), "linear1.bias": rows[0, :1]}
    layers |= {"linear2.weight": rows[0, 0].reshape(1, 1), "linear2.bias": rows[0, :1]}
    network = {1: (layers, layers), "layer_structure": [1, 1, 1]}
    model = {name: torch.ones(size, dtype=torch.float16) for name, size in _model().items()}
    return {
        "model.ckpt": _saved({"state_dict": model, "epoch": 1}, zipped=True),
        "model.safetensors": save(model, {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}),
        "embedding-2022.pt": _saved(old, zipped=False),
        "hypernetwork-2022.pt": _saved(network, zipped=False),
        "hypernetwork-small.pt": _saved(network, zipped=True),
        "onetrainer.pt": _saved({"emp_params": rows.half(), "emp_params_out": rows.half()}, zipped=True),
        "lora.pt": _saved(lora, zipped=True),
        "lora.safetensors": save(
            {key: value.clone().contiguous() for key, value in lora.items()}, {"modelspec.title": "ink"}
        ),
    }


def _model() -> dict[str, tuple[int, ...]]:
    """Some weights of a checkpoint by its names, as small as they can be."""
    clip = "cond_stage_model.transformer.text_model."
    unet = "model.diffusion_model."
    vae = "first_stage_model."
    attention = f"{unet}input_blocks.1.1."
    return {
        f"{clip}embeddings.position_embedding.weight": (2, 1),
        f"{clip}embeddings.token_embedding.weight": (3, 1),
        f"{clip}encoder.layers.0.mlp.fc1.weight": (1, 1),
        f"{clip}encoder.layers.0.layer_norm1.weight": (1,),
        f"{clip}final_layer_norm.weight": (1,),
        f"{unet}input_blocks.0.0.weight": (1, 4, 1, 1),
        f"{unet}input_blocks.1.0.out_layers.3.weight": (1, 1, 1, 1),
        f"{attention}proj_in.weight": (1, 1, 1, 1),
        f"{attention}transformer_blocks.0.attn2.to_k.weight": (1, 1),
        f"{unet}out.2.weight": (4, 1, 1, 1),
        f"{vae}encoder.conv_in.weight": (1, 3, 1, 1),
        f"{vae}encoder.down.0.block.0.norm1.weight": (1,),
        f"{vae}encoder.down.0.block.0.conv1.weight": (1, 1, 1, 1),
        f"{vae}decoder.conv_in.weight": (1, 4, 1, 1),
        f"{vae}decoder.conv_out.weight": (3, 1, 1, 1),
    }


def _saved(value: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _inputs(target: str, files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    reader, _, wrapping = target.partition("-")
    if wrapping == "parameters":
        yield "parameters", PARAMETERS
    if wrapping == "json":
        content = {"string_to_param": {"*": {"TORCHTENSOR": [[0.5, -1.25]]}}, "name": "cat", "step": 7}
        yield "card.json", json.dumps({**content, "sd_checkpoint": None, "tincture": '{"author": "A"}'}).encode()
    for name, content in files.items():
        if not _is_for(reader, name):
            continue
        if name == "latents" and wrapping == "safetensors":
            content = content[32:]  # without the checksum
        if wrapping == "file":
            yield name, content
        elif wrapping == "pickle" and content.startswith(b"PK"):
            yield name, _pickle_in(content)
        elif wrapping == "safetensors" and name.endswith(("safetensors", "kohya", "latents")):
            start = 8 + int.from_bytes(content[:8], "little")
            yield name, content[8:start] + b"\n" + content[start:]


def _is_for(reader: str, name: str) -> bool:
    kinds = {
        "embedding": ("embedding", "onetrainer"),
        "hypernetwork": ("hypernetwork",),
        "latents": ("latents",),
        "model": ("model",),
    }
    return name.startswith(kinds.get(reader, ""))


def _pickle_in(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))


if __name__ == "__main__":
    main()
