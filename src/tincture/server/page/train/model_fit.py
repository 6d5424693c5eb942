"""What fits the chosen base model, beside the inputs of a new adapter: context widths to tick, tokens of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from gradio.context import Context

from tincture.errors import TinctureError, UsageError
from tincture.server.page.parts.markup import escape, muted
from tincture.server.page.parts.messages import at_once, failed
from tincture.server.page.parts.requests import STEP, TYPED

if TYPE_CHECKING:
    from tincture.server.service import Service

MOST_SHOWN = 24
"""So many tokens or vectors are listed."""
LONGEST_TEXT = 2000


def offer_widths(service: Service, model: Component, widths: gr.CheckboxGroup, note: gr.HTML) -> None:
    """Only the widths of the model can be ticked: they are read when the tab is opened, and when the model changes."""

    def offered(chosen: str, ticked: Sequence[str] | None) -> tuple[Any, str]:
        try:
            fit = service.model_work.model_fit(chosen)
        except TinctureError as error:
            return gr.CheckboxGroup(choices=[], value=[]), failed(error)
        known = [(_called(width, fit["text_width"]), str(width)) for width in fit["context_widths"]]
        fitting = [each for each in ticked or () if each in dict(known).values()]
        return gr.CheckboxGroup(choices=known, value=fitting), _about(fit, list(ticked or ()), fitting)

    inside = Context.block
    events = [model.change, *([inside.select] if isinstance(inside, gr.Tab) else [])]
    for event in events:
        at_once(event, note, "Reading which widths the model has …")
    gr.on(events, offered, [model, widths], [widths, note], **STEP)


def _called(width: int, text_width: int) -> str:
    return f"{width} (text)" if width == text_width else str(width)


def _about(fit: dict[str, Any], ticked: Sequence[str], fitting: Sequence[str]) -> str:
    gone = [each for each in ticked if each not in fitting]
    lost = f" It has no attention of width {', '.join(gone)}, so that is not ticked any more." if gone else ""
    return muted(f"{fit['name']} is of {fit['family']}; these are the widths of its attentions.{lost}")


def require_fit(service: Service, model: str, widths: Sequence[str]) -> list[int] | None:
    """Context widths that were ticked, as numbers; None for none. UsageError for one that the model does not have."""
    if not widths:
        return None
    fit = service.model_work.model_fit(model)
    if wrong := [width for width in widths if int(width) not in fit["context_widths"]]:
        has = ", ".join(map(str, fit["context_widths"]))
        raise UsageError(f"`sizes` has {', '.join(wrong)}, but the attentions of {fit['name']} have {has}; tick those.")
    return [int(width) for width in widths]


def show_tokens(service: Service, model: Component, text: gr.Textbox, vectors: gr.Slider, note: gr.HTML) -> None:
    """Which tokens a text has, and which vector starts from which, as it is typed."""

    def fit_of(chosen: str, words: str | None, count: float) -> tuple[Any, str]:
        try:
            fit = service.model_work.model_fit(chosen, (words or "")[:LONGEST_TEXT])
        except TinctureError as error:
            return gr.skip(), failed(error)
        most = fit["most_vectors"]
        return gr.Slider(maximum=most), starts(fit["tokens"], min(max(int(count), 1), most))

    read: list[Component] = [model, text, vectors]
    gr.on([text.focus, model.change], fit_of, read, [vectors, note], **STEP)
    gr.on([text.change, vectors.change], lambda *given: fit_of(*given)[1], read, note, **TYPED)


def starts(tokens: Sequence[str], vectors: int) -> str:
    """From which token each vector starts, as ``create_embedding`` spreads them; those that none starts from."""
    if not tokens:
        return muted("No tokens: all vectors start from zeros.")
    places = [number * len(tokens) // vectors for number in range(vectors)]
    left = [token for place, token in enumerate(tokens) if place not in places]
    read = f"{len(tokens)} token{'s' * (len(tokens) != 1)}: {_listed(tokens)}."
    begin = "" if len(tokens) == 1 else f" The vectors start from {_listed([tokens[place] for place in places])}."
    unused = f" None starts from {_listed(left)}; take {len(tokens)} vectors for all." if left else ""
    return f'<p class="quiet" role="status">{read}{begin}{unused}</p>'


def _listed(tokens: Sequence[str]) -> str:
    shown = " ".join(f"<code>{escape(token)}</code>" for token in tokens[:MOST_SHOWN])
    return f"{shown} …" if len(tokens) > MOST_SHOWN else shown
