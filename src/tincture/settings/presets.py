"""Settings with which picto learns well within a minute: the demo measures them, and the page begins with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EMBEDDING_SETTINGS: Mapping[str, Any] = {
    "learning_rate": "0.005:200, 0.002",
    "steps": 300,
    "batch_size": 5,
    "gradient_accumulation_steps": 2,
    "template": "subject_filewords",
    "latent_sampling_method": "deterministic",
}
NUM_VECTORS = 6
HYPERNETWORK_SETTINGS: Mapping[str, Any] = {
    "learning_rate": "1e-3:150, 3e-4",
    "steps": 200,
    "batch_size": 8,
    # Guidance compares with an empty prompt, so the style must come there too.
    "caption_drop_out": 0.15,
    "latent_sampling_method": "deterministic",
}
HYPERNETWORK_SHAPE: Mapping[str, Any] = {"layer_structure": (1, 2, 1), "activation_func": "relu"}
