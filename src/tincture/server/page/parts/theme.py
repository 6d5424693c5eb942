"""How the page looks: paper and ink with one green, in light and dark; fonts that the machine has."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils.colors import Color

from tincture.server.page.parts.components import script

# what all tabs have in common stands first; a tab may have a file of its own beside it
CSS_FILES = sorted(Path(__file__).parents[1].rglob("*.css"), key=lambda path: (path.name != "style.css", path.name))
# an icon without a file: a browser asks for one on its own
HEAD = (
    '<link rel="icon" href="data:image/svg+xml,'
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M8 1c3 4 5 6 5 9a5 5 0 0 1-10 0c0-3 2-5 5-9z' fill='%230b7a6f'/%3E%3C/svg%3E\">"
    # margins of a phone's width: Gradio changes what stands in a CSS file so that these would not count
    "<style>@media (max-width: 640px) { body .gradio-container { padding: 0 0 40px !important; }"
    " body .gradio-container > .main { padding: 4px 10px !important; } }</style>"
    f"<script>{script(__file__, 'theme.js')}</script>"
)

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
FIXED_WIDTH = ("ui-monospace", "SFMono-Regular", "Consolas", "DejaVu Sans Mono", "monospace")

GREEN = Color(
    name="green",
    c50="#eefaf7",
    c100="#d3f1ea",
    c200="#a8e2d6",
    c300="#72ccbc",
    c400="#43b0a0",
    c500="#199284",
    c600="#0b7a6f",
    c700="#0a625a",
    c800="#0c4f49",
    c900="#0d423d",
    c950="#052825",
)
PAPER = Color(
    name="paper",
    c50="#faf9f6",
    c100="#f3f1ec",
    c200="#e5e2da",
    c300="#cfcbc0",
    c400="#a09b8f",
    c500="#716d64",
    c600="#57544d",
    c700="#3d3c38",
    c800="#262725",
    c900="#1b1d1c",
    c950="#131514",
)


def calm_theme() -> gr.themes.Base:
    """The page's theme. Text has a contrast of at least 4.5 to 1 on all that it stands on."""
    base = gr.themes.Base(
        primary_hue=GREEN, secondary_hue=GREEN, neutral_hue=PAPER, font=FONTS, font_mono=FIXED_WIDTH, radius_size="md"
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="0px",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_900",
        block_title_text_color_dark="*neutral_100",
        block_title_text_weight="600",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
        checkbox_background_color="white",
        checkbox_background_color_dark="*neutral_800",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_500",
        checkbox_border_color_selected="*primary_600",
        checkbox_border_color_selected_dark="*primary_500",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_border_width="0px",
        checkbox_label_border_width_dark="0px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_dark="*neutral_700",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_hover_dark="*neutral_600",
        button_secondary_text_color="*neutral_900",
        button_secondary_text_color_dark="*neutral_100",
        button_cancel_background_fill="#a3312a",
        button_cancel_background_fill_dark="#a3312a",
        button_cancel_background_fill_hover="#8a2821",
        button_cancel_background_fill_hover_dark="#8a2821",
        button_cancel_text_color="white",
        button_cancel_text_color_dark="white",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_800",
        link_text_color_hover_dark="*primary_200",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        layout_gap="16px",
        form_gap_width="0px",
        shadow_drop="none",
        shadow_drop_lg="none",
        button_large_padding="10px 18px",
    )
