"""What the inputs of a training are called and take, where the settings do not say it: the webui's labels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tincture.models.samplers import SAMPLERS
from tincture.server.page.parts.fields import label_of
from tincture.settings.train import FIELDS

CLIPPING = (("disabled", "none"), ("value", "value"), ("norm", "norm"))
OPTIMIZERS = (
    ("That of the adapter's file, or AdamW", ""),
    *((name, name) for name in ("AdamW", "Adam", "Adamax", "NAdam", "RAdam", "Adafactor", "RMSprop", "SGD", "Adagrad")),
    *(
        (name, name)
        for name in ("Prodigy", "ScheduleFreeAdamW", "Lion", "CAME", "DAdaptAdam", "AdEMAMix", "StableAdamW")
    ),
)
# what the webui calls them, and what their inputs take; all else comes from the settings
OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "data": {
            "label": "Dataset directory",
            "info": "A data set, or a folder's path; FOLDER:3 takes each picture 3 times an epoch.",
            "allow_custom_value": True,
            "value": None,
        },
        "template": {"label": "Prompt template", "allow_custom_value": True},
        "steps": {"label": "Max steps", "step": 1, "min_width": 120},
        "batch_size": {"label": "Batch size", "step": 1, "min_width": 120},
        "gradient_accumulation_steps": {"label": "Gradient accumulation steps", "step": 1, "min_width": 120},
        "clip_grad_mode": {"label": "Gradient Clipping", "choices": CLIPPING},
        "clip_grad_value": {"label": "Gradient Clipping value"},
        "width": {"step": 8},
        "height": {"step": 8},
        "log_dir": {"label": "Log directory", "value": "textual_inversion"},
        "preview_every": {
            "label": "Save an image to log directory every N steps, 0 to disable",
            "step": 1,
            "min_width": 240,
        },
        "save_every": {
            "label": "Save a copy of embedding to log directory every N steps, 0 to disable",
            "step": 1,
            "min_width": 240,
        },
        "preview_prompts": {"label": "Prompts of the previews"},
        "preview_with_embedding": {"label": "Save images with embedding in PNG chunks", "value": True},
        "use_weight": {"label": "Use PNG alpha channel as loss weight"},
        "shuffle_tags": {"label": "Shuffle tags by ',' when creating prompts."},
        "tag_drop_out": {
            "label": "Drop out tags when creating prompts.",
            "minimum": 0,
            "maximum": 0.99,
            "step": 0.01,
        },
        "latent_sampling_method": {"label": "Choose latent sampling method"},
        "optimizer": {"choices": OPTIMIZERS, "allow_custom_value": True},
        "preview_sampler": {"choices": list(SAMPLERS)},
        "prior_sampler": {"choices": list(SAMPLERS)},
    }
)

# What a training's settings are called wherever there is no form.
TRAIN_LABELS: Mapping[str, str] = MappingProxyType(
    {name: OPTIONS.get(name, {}).get("label") or label_of(name) for name in FIELDS}
)
