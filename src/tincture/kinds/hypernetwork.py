"""What all parts know of hypernetworks without loading torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from tincture.kinds.layer_structure import (
    check_activation,
    check_dropout_structure,
    check_layer_structure,
    check_sizes,
    check_weight_init,
    layer_widths,
    numbers,
)
from tincture.kinds.registry import AdapterKind, FileFormat, Option
from tincture.randomness import LARGEST_REQUESTED_SEED, LARGEST_SEED

_WIDTHS = (320, 640, 1280, 2048)  # of SD's models, where no width is named


def _size(options: Mapping[str, Any]) -> tuple[int, str]:
    structure = options.get("layer_structure", (1, 2, 1))
    sizes = options.get("sizes") or _WIDTHS
    widths = [layer_widths(size, structure) for size in (_WIDTHS if isinstance(sizes, str) else sizes)]
    count = sum(2 * one * other for row in widths for one, other in itertools.pairwise(row))
    return count, "layer_structure"


def _check_options(options: Mapping[str, Any]) -> None:
    structure = numbers("layer structure", options.get("layer_structure", (1, 2, 1)))
    check_layer_structure(structure)
    if dropout := options.get("dropout_structure"):
        check_dropout_structure(numbers("dropout structure", dropout), structure)
    check_activation(options.get("activation_func"))
    check_weight_init(options.get("weight_init", "Normal"))
    if options.get("sizes") and not isinstance(options["sizes"], str):
        check_sizes(options["sizes"])


HYPERNETWORK = AdapterKind(
    name="hypernetwork",
    title="hypernetwork",
    plural="hypernetworks",
    folder="models/hypernetworks",
    implementation="tincture.adapters.hypernetwork:Hypernetwork",
    losses="hypernetwork_loss.csv",
    learning_rate="1e-5",
    template="hypernetwork",
    options=(
        Option(
            name="sizes",
            default=None,
            help="Context widths that get a pair of modules, like 768,320, or those of a family: sd1, sd2 or sdxl; no "
            "model is loaded then. Empty: all of the model.",
            described="Widths to have modules for, or a family: sd1, sd2, sdxl; not given: all of the model.",
            request_bounds={"ge": 1, "le": 8192},
            several=int,
            or_word=True,
            item="width",
        ),
        Option(
            name="layer_structure",
            default=(1, 2, 1),
            help="Widths of the layers as factors; first and last must be 1.",
            described="Widths of the layers, relative to the context's.",
            several=float,
            most=32,
        ),
        Option(
            name="activation_func",
            default="linear",
            help="Activation between layers: linear, relu, swish, mish, ...",
            described="Activation between the layers.",
            flags=("--activation",),
            request_bounds={"max_length": 200},
        ),
        Option(
            name="weight_init",
            default="Normal",
            help="Normal, XavierUniform, XavierNormal, KaimingUniform or KaimingNormal.",
            described="How weights begin.",
            request_bounds={"max_length": 200},
        ),
        Option(
            name="add_layer_norm",
            default=False,
            help="Add a layer norm behind each layer.",
            described=None,
            flags=("--layer-norm",),
        ),
        Option(
            name="activate_output",
            default=False,
            help="Put the activation behind the last layer too.",
            described=None,
        ),
        Option(
            name="dropout_structure",
            default=None,
            help="Dropout per entry of the structure, like 0,0.3,0; empty: none.",
            described="Drop-out behind each layer.",
            several=float,
            most=32,
        ),
        Option(
            name="seed",
            default=0,
            help="Seed of the first weights.",
            described=None,
            flag_bounds={"min": 0, "max": LARGEST_SEED},
            largest=LARGEST_REQUESTED_SEED,
            request_bounds={"ge": 0, "lt": 2**63},
        ),
    ),
    tag="hypernet",
    picture_key="Hypernet",
    has_biases=True,
    model_use="whose widths it gets",
    formats=(
        FileFormat("webui (.pt)", "pt", ".pt"),
        FileFormat("safetensors", "safetensors", ".safetensors"),
        FileFormat("LoRA (.safetensors)", "lora", ".safetensors"),
    ),
    preset={
        "learning_rate": "1e-3:150, 3e-4",
        "steps": 200,
        "batch_size": 8,
        # Guidance compares with an empty prompt, so the style must come there too.
        "caption_drop_out": 0.15,
        "latent_sampling_method": "deterministic",
    },
    preset_options={"layer_structure": (1, 2, 1), "activation_func": "relu"},
    presets={
        "quick": {"learning_rate": "5e-5"},
        "subject": {"learning_rate": "5e-5:200, 1e-5:1500, 5e-6"},
        # Guidance compares with an empty prompt, so the style must come there too.
        "style": {"learning_rate": "5e-5:200, 1e-5:2000, 5e-6", "caption_drop_out": 0.1},
        "careful": {"learning_rate": "1e-5:3000, 5e-6"},
    },
    small_presets={
        "style": {
            # Measured by bench/quality_styles.py, with weights that begin as XavierNormal: docs/quality.md.
            "learning_rate": "0 -> 8e-3:30, 8e-3 -> 1e-5 cosine",
            "steps": 1000,
            "batch_size": 12,
            "gradient_accumulation_steps": 2,
            "shuffle_tags": False,
            "optimizer": "SOAP",
            "timestep_weighting": "debiased",
            "weight_decay": 1.0,  # without it a dozen pictures are learned by heart
            "preview_guidance_scale": 1.5,
            "preview_every": 100,
            "save_every": 200,
        },
    },
    size=_size,
    check_options=_check_options,
)
