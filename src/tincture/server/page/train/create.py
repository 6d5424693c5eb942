"""Create embedding and Create hypernetwork, with the labels that webui users know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from tincture.errors import TinctureError, UsageError
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.hypernetwork import HYPERNETWORK
from tincture.kinds.layer_structure import ACTIVATIONS, WEIGHT_INITS
from tincture.kinds.registry import AdapterKind, Option
from tincture.server.page.parts.components import TypedSlider, panel
from tincture.server.page.parts.drafts import forget_when_done
from tincture.server.page.parts.messages import at_once, done, failed
from tincture.server.page.parts.requests import COMMAND
from tincture.server.page.parts.way_on import opening
from tincture.server.page.train.model_fit import offer_widths, require_fit, show_tokens
from tincture.settings.number_lists import number_list, typed_numbers

if TYPE_CHECKING:
    from gradio.events import Dependency

    from tincture.server.service import Service

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "init_text": "Initialization text",
        "num_vectors": "Number of vectors per token",
        "sizes": "Modules",
        "layer_structure": "Enter hypernetwork layer structure",
        "activation_func": "Select activation function of hypernetwork",
        "weight_init": "Select Layer weights initialization",
        "add_layer_norm": "Add layer normalization",
        "dropout_structure": "Enter hypernetwork Dropout structure",
    }
)
"""By option of an adapter, what the inputs of the webui's forms are called, as far as it fits into a sentence."""
Made = tuple[str, str]
"""A message, and the name of what was made; empty when nothing was."""


def form(service: Service, kind: AdapterKind, model: Component, made: gr.State) -> Dependency:
    """The form for a new adapter of a kind; its event puts the name of what was made into ``made``."""
    known = {EMBEDDING.name: embedding, HYPERNETWORK.name: hypernetwork}
    return known[kind.name](service, model, made) if kind.name in known else _plain(service, kind, model, made)


def _plain(service: Service, kind: AdapterKind, model: Component, made: gr.State) -> Dependency:
    """An input for each option, where the webui's users know no form."""
    with gr.Column(elem_classes="form-column"):
        name = gr.Textbox(label="Name", info="Names the file.", elem_id=f"c-{kind.name}-name")
        inputs = {option.name: _input(kind, option) for option in kind.options}
        overwrite = gr.Checkbox(label="Overwrite the old one", elem_id=f"c-{kind.name}-overwrite")
        button = gr.Button(f"Create {kind.name}", variant="primary", elem_id=f"c-{kind.name}-create")
        message = panel(elem_id=f"c-{kind.name}-message")

    def make(given: dict[Component, Any]) -> Made:
        def create() -> Path:
            options = {option.name: _typed(option, given[inputs[option.name]]) for option in kind.options}
            options["overwrite"] = bool(given[overwrite])
            return service.model_work.create_adapter(kind.name, given[name], model=given[model], **options)

        return _made(service, kind.name, create)

    event = gr.on(button.click, make, {name, overwrite, model, *inputs.values()}, [message, made], **COMMAND)
    forget_when_done(event, message, "c", "base")
    return event


def _input(kind: AdapterKind, option: Option) -> Component:
    options: dict[str, Any] = {
        "label": option.name.replace("_", " ").capitalize(),
        "info": option.help,
        "elem_id": f"c-{kind.name}-{option.name}",
    }
    if option.several:
        return gr.Textbox(", ".join(f"{number:g}" for number in option.default or ()), **options)
    if isinstance(option.default, bool):
        return gr.Checkbox(option.default, **options)
    if isinstance(option.default, str):
        return gr.Textbox(option.default, **options)
    return gr.Number(option.default, precision=0 if isinstance(option.default, int) else None, **options)


def _typed(option: Option, value: Any) -> Any:
    if option.several is None:
        return option.default if value is None else value
    if option.default is None and not value:
        return None
    label = option.name.replace("_", " ").capitalize()
    return typed_numbers(label, value or "", whole=option.several is int, or_word=option.or_word)


def embedding(service: Service, model: Component, made: gr.State) -> Dependency:
    """The form; its event puts the name of what was made into ``made``."""
    with gr.Column(elem_classes="form-column"):
        name = gr.Textbox(
            label="Name", info="Names the file, and is the word that calls the embedding in prompts.", elem_id="ce-name"
        )
        text = gr.Textbox(
            value=EMBEDDING.option("init_text").default,
            label="Initialization text",
            info="The vectors start from the tokens of this text; empty: from zeros.",
            elem_id="ce-text",
        )
        tokens = panel(elem_id="ce-tokens")
        vectors = TypedSlider(
            minimum=1,
            maximum=75,
            value=EMBEDDING.option("num_vectors").default,
            step=1,
            label="Number of vectors per token",
            info="More vectors learn more detail, and take up as many tokens of a prompt.",
            elem_id="ce-vectors",
        )
        overwrite = gr.Checkbox(
            label="Overwrite Old Embedding", info="Replace an embedding of the same name.", elem_id="ce-overwrite"
        )
        button = gr.Button("Create embedding", variant="primary", elem_id="ce-create")
        message = panel(elem_id="ce-message")
    at_once(button.click, message, "Creating …")

    def make(name: str, text: str, vectors: int, overwrite: bool, model: str) -> Made:
        options: dict[str, Any] = {"num_vectors": int(vectors), "init_text": text, "overwrite": overwrite}
        return _made(
            service,
            EMBEDDING.name,
            lambda: service.model_work.create_adapter(EMBEDDING.name, name, model=model, **options),
        )

    inputs = [name, text, vectors, overwrite, model]
    show_tokens(service, model, text, vectors, tokens)
    event = gr.on([button.click, name.submit, text.submit], make, inputs, [message, made], **COMMAND)
    forget_when_done(event, message, "ce", "base")
    return event


def hypernetwork(service: Service, model: Component, made: gr.State) -> Dependency:
    """The form; its event puts the name of what was made into ``made``."""
    with gr.Column(elem_classes="form-column"):
        inputs = _hypernetwork_inputs()
        fit = inputs.pop("fit")
        button = gr.Button("Create hypernetwork", variant="primary", elem_id="ch-create")
        message = panel(elem_id="ch-message")
    at_once(button.click, message, "Creating …")

    offer_widths(service, model, inputs["widths"], fit)

    def make(given: dict[Component, Any]) -> Made:
        values = {key: given[component] for key, component in inputs.items()}
        return _made(service, HYPERNETWORK.name, lambda: _make_hypernetwork(service, given[model], **values))

    event = gr.on([button.click, inputs["name"].submit], make, {*inputs.values(), model}, [message, made], **COMMAND)
    forget_when_done(event, message, "ch", "base")
    return event


def _hypernetwork_inputs() -> dict[str, Any]:
    """By what ``_make_hypernetwork`` calls them, and ``fit``, which says which widths can be ticked."""
    return {
        "name": gr.Textbox(
            label="Name", info="Names the file; prompts call it by <hypernet:NAME:1.0>.", elem_id="ch-name"
        ),
        "widths": gr.CheckboxGroup(
            choices=[],
            label="Modules",
            info="Widths of contexts that get a pair of modules. None ticked: all that the base model has.",
            elem_id="ch-modules",
        ),
        "fit": panel(elem_id="ch-fit"),
        "structure": gr.Textbox(
            value="1, 2, 1",
            label="Enter hypernetwork layer structure",
            info="Widths of the layers as factors of the context's; the first and the last are 1.",
            placeholder="1, 2, 1",
            elem_id="ch-structure",
        ),
        "activation_func": gr.Dropdown(
            choices=[name for name in ACTIVATIONS if name != "hardswish"],  # it is what swish stands for
            value="linear",
            label="Select activation function of hypernetwork. Recommended : Swish / Linear(none)",
            info="What stands between the layers; linear is nothing.",
            elem_id="ch-activation",
        ),
        "weight_init": gr.Dropdown(
            choices=list(WEIGHT_INITS),
            value="Normal",
            label="Select Layer weights initialization",
            info="Recommended: Kaiming for relu-like, Xavier for sigmoid-like, Normal otherwise.",
            elem_id="ch-init",
        ),
        "add_layer_norm": gr.Checkbox(
            label="Add layer normalization", info="A layer norm behind each layer.", elem_id="ch-norm"
        ),
        "use_dropout": gr.Checkbox(
            label="Use dropout", info="Leaves out values by chance while training.", elem_id="ch-dropout"
        ),
        "dropout": gr.Textbox(
            label="Enter hypernetwork Dropout structure (or empty)",
            info="One probability for each entry of the layer structure, such as 0, 0.3, 0. "
            "Empty: 0.3 behind the inner layers.",
            placeholder="0, 0.3, 0",
            elem_id="ch-dropout-structure",
        ),
        "overwrite": gr.Checkbox(
            label="Overwrite Old Hypernetwork", info="Replace a hypernetwork of the same name.", elem_id="ch-overwrite"
        ),
    }


def _make_hypernetwork(
    service: Service,
    model: str,
    *,
    name: str,
    widths: list[str],
    structure: str,
    use_dropout: bool,
    dropout: str,
    **options: Any,
) -> Path:
    layers = number_list("The layer structure", structure)
    return service.model_work.create_adapter(
        HYPERNETWORK.name,
        name,
        model=model,
        sizes=require_fit(service, model, widths),
        layer_structure=layers,
        dropout_structure=dropout_structure(use_dropout, dropout, len(layers)),
        **options,
    )


def dropout_structure(wanted: bool, text: str, layers: int) -> list[float] | None:
    """What the person typed; where nothing is typed, what the webui takes then.

    Raises:
        UsageError: something was typed, but dropout is off: one of both is a mistake.
    """
    if not wanted and text.strip():
        raise UsageError(
            f"The dropout structure is {text!r}, but “Use dropout” is off; tick it, or empty the structure."
        )
    if not wanted:
        return None
    if text.strip():
        return number_list("The dropout structure", text)
    return [0.0, *[0.3] * (layers - 2), 0.0]


def _made(service: Service, kind: str, make: Callable[[], Path]) -> Made:
    try:
        path = make()
    except TinctureError as error:
        return failed(error, LABELS), ""
    sentence = f"Made the {kind} {path.stem}, {service.places.shown(path)}. It is chosen in the Train tab."
    return done(sentence, opening("Train it", "train/train")), path.stem
