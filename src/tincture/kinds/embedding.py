"""What all parts know of embeddings without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, FileFormat, Option


def check_vectors(count: int, most: int = 75) -> None:
    """UsageError for a number of vectors that is not in 1..``most``."""
    if not 1 <= count <= most:
        raise UsageError(f"{count} vectors are not possible; num_vectors is 1 to {most}.")


def _check_options(options: Mapping[str, Any]) -> None:
    check_vectors(options.get("num_vectors", 1))


EMBEDDING = AdapterKind(
    name="embedding",
    title="textual-inversion embedding",
    plural="embeddings",
    folder="embeddings",
    implementation="tincture.adapters.embedding:Embedding",
    losses="textual_inversion_loss.csv",
    learning_rate="0.005",
    template="subject_filewords",
    weight_decay=0.0,
    options=(
        Option(
            name="num_vectors",
            default=4,
            help="Number of vectors: tokens it stands for.",
            described="How many vectors it has.",
            flags=("--vectors", "--num-vectors"),
            flag_bounds={"min": 1},
            request_bounds={"ge": 1, "le": 75},
        ),
        Option(
            name="init_text",
            default="a thing",
            help="Text whose tokens it starts from; empty: zeros.",
            described="Words whose vectors it begins with; empty: zeros.",
            request_bounds={"max_length": 10_000},
        ),
    ),
    strength="prompt weight",
    words_alone=True,
    has_word=True,
    has_card=True,
    formats=(
        FileFormat("webui (.pt)", "pt", ".pt"),
        FileFormat("safetensors", "safetensors", ".safetensors"),
        FileFormat("diffusers (.bin)", "bin", ".bin"),
        FileFormat("sd-scripts (.safetensors)", "kohya", ".safetensors"),
        FileFormat("SDXL (.safetensors)", "sdxl", ".safetensors"),
        FileFormat("OneTrainer (.safetensors)", "onetrainer", ".safetensors"),
        FileFormat("Picture card (.png)", "png", ".png"),
        FileFormat("Picture card (.webp)", "webp", ".webp"),
    ),
    preset={
        "learning_rate": "0.005:200, 0.002",
        "steps": 300,
        "batch_size": 5,
        "gradient_accumulation_steps": 2,
        "template": "subject_filewords",
        "latent_sampling_method": "deterministic",
    },
    preset_options={"num_vectors": 6},
    presets={
        "quick": {"learning_rate": "0.005", "template": "subject_filewords"},
        "subject": {"learning_rate": "0.005:500, 0.002:1500, 0.001", "template": "subject_filewords"},
        "style": {"learning_rate": "0.005:500, 0.002:2000, 0.001", "template": "style_filewords"},
        "careful": {"learning_rate": "0.002:3000, 0.001", "template": "subject_filewords"},
    },
    check_options=_check_options,
)
