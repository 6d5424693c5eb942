"""The Train tab: create, preprocess, look at a data set, train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from tincture.server.service import Service


def build(service: Service) -> None:
    """Fills the Train tab."""
    gr.Markdown(f"Base model: {service.default_model()}")
