"""The Try it tab: draws pictures with what was trained, as strongly as one likes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from tincture.errors import TinctureError
from tincture.kinds.registry import PLACEHOLDER, find_kind, kind_names, word_of
from tincture.models.samplers import SAMPLERS
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import SEND_CLICKS, panel
from tincture.server.page.parts.fields import Form, labels_of, range_of
from tincture.server.page.parts.markup import escape, muted
from tincture.server.page.parts.messages import failed
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP, TYPED, hidden
from tincture.server.page.parts.way_on import Ways, carried
from tincture.server.page.try_it import prompt_edit, request, view
from tincture.server.page.try_it.prompt_edit import Named
from tincture.server.page.try_it.request import COMPARED, GRID, MODES, PICTURES, DrawingInputs
from tincture.server.requests.sizes import LONGEST_TEXT
from tincture.settings.companions import sound_companions
from tincture.settings.drawing import REQUEST_FIELDS
from tincture.settings.fixed_adapters import sound_fixed

if TYPE_CHECKING:
    from tincture.server.service import Service

MOST_SLIDERS = 6
"""Adapters of one prompt whose strength has a slider; more can be typed."""
NOTHING_YET = "Pictures are shown here, with the settings that are kept in their files."
MOST_AT_ONCE = 16
REACH_OF_STEPS = 150
"""The slider's; more would be hard to set."""
FURTHER = ("vae", "family", "prediction_type", "zero_terminal_snr", "clip_skip", "precision")
"""Fields of a drawing with inputs that are rarely needed."""
PROGRESS_EVERY_S = 0.3
# Which adapter a slider is for stands above it when it is moved; the prompt may name others when the request is sent.
# What is typed there may be beyond the slider's ends, or no number yet, which is for no adapter: Gradio refuses both.
LABEL_OF = """(label, strength, ...rest) => strength === null ? ["", 0, ...rest] : [
  document.querySelector("#SLIDER label").textContent.trim(),
  Math.min(MOST, Math.max(0, strength)),
  ...rest,
]"""
SHOW_ANSWER = """() => {
  if (window.innerWidth < 800) document.querySelector("#try-answer").scrollIntoView({ behavior: "smooth" });
}"""


def limits(name: str) -> dict[str, float]:
    """Of the input of a drawing's field."""
    return range_of(REQUEST_FIELDS[name])


def build(service: Service, ways: Ways) -> None:
    """Fills the Try it tab; ``ways``: what leads here from elsewhere."""
    tab = _Tab(service)
    _come_from_run(service, tab, ways)
    _follow_adapters(service, tab)
    _follow_strengths(tab)
    _follow_mode(service, tab)
    _draw(service, tab)


class _Tab:
    """The tab's components. Those with ids are read by the Train tab too."""

    def __init__(self, service: Service) -> None:
        self.adapters, self.label = gr.State([]), hidden()
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                self._prompts()
                self._buttons()
                self._drawing(service)
            with gr.Column(scale=5, min_width=320, elem_id="try-answer"):
                self._answer()

    def _prompts(self) -> None:
        self.prompt = gr.Textbox(label="Prompt", lines=3, elem_id="try-prompt", placeholder="a photo of …")
        self.chips = panel(script=SEND_CLICKS, elem_id="try-adapters")
        self.sliders = [
            gr.Slider(
                0,
                2,
                1,
                step=0.05,
                label="Strength",
                visible=False,
                elem_classes="strength",
                elem_id=f"strength-{place}",
            )
            for place in range(MOST_SLIDERS)
        ]
        self.negative_prompt = gr.Textbox(label="Negative prompt", lines=1, elem_id="try-negative-prompt")

    def _drawing(self, service: Service) -> None:
        self.mode = gr.Radio(
            list(MODES),
            value=PICTURES,
            label="Draw",
            elem_id="try-mode",
            info="Before and after draws each seed without the adapters and with them; a grid shows strengths, and "
            "copies that a training kept.",
        )
        self._compared_inputs()
        self._grid_inputs()
        with gr.Row():
            self.model = gr.Dropdown(
                choices.models(service),
                value=service.default_model(),
                label="Model",
                min_width=150,
                elem_id="try-base-model",
            )
            self.sampler = gr.Dropdown(
                list(SAMPLERS), value="Euler a", label="Sampling method", min_width=150, elem_id="try-sampler"
            )
        steps = {**limits("steps"), "maximum": REACH_OF_STEPS}
        self.steps = gr.Slider(value=20, step=1, label="Sampling steps", elem_id="try-steps", **steps)
        with gr.Row():
            self.guidance_scale = gr.Number(
                None,
                label="CFG Scale",
                info="Empty: the model's own.",
                min_width=110,
                elem_id="try-guidance-scale",
                **limits("guidance_scale"),
            )
            self.width, self.height = self._side("width"), self._side("height")
        with gr.Row():
            self.seed = gr.Number(
                -1, label="Seed", info="-1: another each time.", precision=0, min_width=110, elem_id="try-seed"
            )
            most = min(MOST_AT_ONCE, service.settings.max_pictures)
            self.count = gr.Slider(
                value=1,
                step=1,
                label="Pictures",
                info="Seeds count up.",
                min_width=150,
                elem_id="try-count",
                **{**limits("count"), "maximum": most},
            )
        with gr.Accordion("Model and precision", open=False, elem_id="try-model"):
            self.further = Form(REQUEST_FIELDS, "try")
            self.further.add_all(FURTHER)

    @staticmethod
    def _side(name: str) -> gr.Number:
        return gr.Number(
            0,
            label=name.capitalize(),
            info="0: the model's own.",
            precision=0,
            step=8,
            min_width=90,
            elem_id=f"try-{name}",
            **limits(name),
        )

    def _compared_inputs(self) -> None:
        self.instead = gr.Textbox(
            label="Instead of the embedding",
            info="What the prompt says in the pictures without it, such as moon; empty: nothing.",
            visible=False,
            elem_id="try-instead",
        )

    def _grid_inputs(self) -> None:
        with gr.Group(visible=False) as self.grid:
            self.strengths = gr.Textbox(
                "0, 0.25, 0.5, 0.75, 1",
                label="Strengths (columns)",
                info="Of the hypernetwork in the prompt; an embedding has a single column.",
                elem_id="try-strengths",
            )
            self.run = gr.Dropdown(
                [], value=None, label="Copies of the run", info="Empty: the adapter as it is now.", elem_id="try-run"
            )
            self.copies = gr.CheckboxGroup([], label="Copies (rows)", info="By their step.", elem_id="try-copies")

    def _buttons(self) -> None:
        with gr.Row():
            self.draw = gr.Button("Generate", variant="primary", scale=3, elem_id="try-draw")
            self.stop = gr.Button("Stop", scale=1, min_width=90, elem_id="try-stop")

    def _answer(self) -> None:
        self.progress = panel(elem_id="try-progress")
        self.answer = panel(muted(NOTHING_YET), script=SEND_CLICKS, elem_id="try-pictures")

    @property
    def labels(self) -> dict[str, str]:
        """By field of ``DrawingRequest``, what its input is called."""
        names = ("negative_prompt", "model", "sampler", "steps", "guidance_scale", "width", "height", "seed", "count")
        inputs = {name: getattr(self, name) for name in names}
        inputs |= {"prompts": self.prompt, "seeds": self.seed, "strengths": self.strengths, "checkpoints": self.copies}
        return {**self.further.labels, **labels_of(inputs)}

    @property
    def shown(self) -> list[Any]:
        """What shows the adapters that the prompt names: outputs of ``_shown``."""
        return [self.chips, *self.sliders]

    @property
    def request(self) -> list[Any]:
        """In the order of the fields of ``DrawingInputs``, but for ``named``, of whose ``further`` each has its own.

        Last come the adapters that there are.
        """
        prompts = [self.mode, self.prompt, self.negative_prompt, self.model, self.sampler, self.steps]
        sizes = [self.guidance_scale, self.width, self.height, self.seed, self.count]
        further = self.further.inputs.values()
        return [*prompts, *sizes, self.instead, self.strengths, self.copies, *further, self.adapters]


# --- from a run -------------------------------------------------------------------------------------------------------


def _come_from_run(service: Service, tab: _Tab, ways: Ways) -> None:
    """A button of a run brings a prompt that names what it learned, and draws as its previews were drawn."""

    def fill(event: gr.EventData) -> dict[Any, Any]:
        try:
            job = service.queue.job(carried(event))
        except TinctureError as error:
            gr.Warning(escape(error))
            return {tab.prompt: gr.skip()}
        adapters, settings = service.adapters(), job.settings
        prompts = service.queue.folder(job.id).trace().prompts or settings.get("preview_prompts") or ("",)
        negative = _negative_prompt(settings, job.name)
        apart = {(adapter.kind, adapter.name) for adapter in _named(negative, adapters)}
        prompt = str(prompts[0])
        for kind, name, strength in _acting(settings, job.name):
            if (kind, name) not in apart:
                prompt = _naming(prompt, kind, name, adapters, strength)
        models = {name: model["name"] for model in service.models() for name in (model["path"], model["name"])}
        drawing: dict[Any, Any] = {
            component: settings.get(name, gr.skip())
            for name, component in {
                "preview_sampler": tab.sampler,
                "preview_steps": tab.steps,
                "preview_guidance_scale": tab.guidance_scale,
                "preview_width": tab.width,
                "preview_height": tab.height,
            }.items()
        }
        shown = dict(zip(tab.shown, _shown(prompt, adapters), strict=True))
        model = models.get(settings.get("model"), gr.skip())
        drawing[tab.negative_prompt] = negative
        return {tab.adapters: adapters, tab.prompt: prompt, tab.model: model, **drawing, **shown}

    drawn_by = [tab.negative_prompt, tab.sampler, tab.steps, tab.guidance_scale, tab.width, tab.height]
    ways["try"].click(fill, None, [tab.adapters, tab.prompt, tab.model, *drawn_by, *tab.shown], **SILENT, **COMMAND)


def _acting(settings: Mapping[str, Any], own: str) -> list[tuple[str, str, float | None]]:
    """Kind, name and strength of all that acts in a run: its own adapter, what is trained with it, what is fixed."""
    together = [(other.kind, other.name, None) for other in sound_companions(settings)]
    fixed = [(one.kind, one.name, one.multiplier) for one in sound_fixed(settings)]
    return [(str(settings.get("kind")), own, None), *together, *fixed]


def _negative_prompt(settings: Mapping[str, Any], own: str) -> str:
    """What the previews of a run are drawn against."""
    trained = [(str(settings.get("kind")), own), *((one.kind, one.name) for one in sound_companions(settings))]
    known = [(kind, name) for kind, name in trained if kind in kind_names()]
    apart = str(settings.get("negative_prompt") or "").replace(PLACEHOLDER, word_of(known) if known else own)
    return str(settings.get("preview_negative_prompt") or apart)


def _naming(
    prompt: str, kind: str, name: str, adapters: Sequence[dict[str, Any]], strength: float | None = None
) -> str:
    """The prompt with the adapter in it; one of a kind that no prompt names stays out."""
    named = [adapter.name for adapter in _named(prompt, adapters)]
    return prompt if name in named or kind not in kind_names() else prompt_edit.insert(prompt, kind, name, strength)


# --- adapters in the prompt -------------------------------------------------------------------------------------------


def _follow_adapters(service: Service, tab: _Tab) -> None:
    def read(prompt: str | None) -> tuple[Any, ...]:
        adapters = service.adapters()
        runs = gr.Dropdown(choices=_runs(service))
        models = gr.Dropdown(choices=choices.models(service))
        return adapters, models, runs, *_shown(prompt, adapters)

    def choose(event: gr.EventData, typed: str | None, adapters: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
        prompt, named = typed or "", _named(typed, adapters)
        kind, name = str(event._data["kind"]), str(event._data["name"])
        there = [adapter for adapter in named if (adapter.kind, adapter.name) == (kind, name)]
        text = prompt_edit.without(prompt, there, others=named) if there else prompt_edit.insert(prompt, kind, name)
        return text, *_shown(text, adapters)

    inside, page = Context.block, Context.root_block
    assert page is not None
    outputs = [tab.adapters, tab.model, tab.run, *tab.shown]
    opened = [page.load, *([inside.select] if isinstance(inside, gr.Tab) else [])]
    gr.on(opened, read, tab.prompt, outputs, **STEP)
    tab.chips.click(choose, [tab.prompt, tab.adapters], [tab.prompt, *tab.shown], **STEP)


def _follow_strengths(tab: _Tab) -> None:
    def write(place: int, label: str, strength: float, prompt: str, adapters: Sequence[dict[str, Any]]) -> list[Any]:
        named = _named(prompt, adapters)
        moved = next((adapter for adapter in named if _label(adapter) == label), None)
        if moved is None:  # a number that is being typed, or an adapter that is gone
            return [gr.skip(), *_shown(prompt, adapters)]
        text = prompt_edit.with_strength(prompt, moved, strength, named)
        shown = _shown(text, adapters)
        if named.index(moved) == place:
            shown[1 + place] = gr.skip()  # what is typed there stays as it is typed
        return [text, *shown]

    # Not input: Gradio does not take it for one when text is pasted.
    tab.prompt.change(_shown, [tab.prompt, tab.adapters], tab.shown, **TYPED)
    for place, slider in enumerate(tab.sliders):
        # Not release: keys move a slider too.
        slider.input(
            lambda *given, place=place: write(place, *given),
            [tab.label, slider, tab.prompt, tab.adapters],
            [tab.prompt, *tab.shown],
            js=LABEL_OF.replace("SLIDER", slider.elem_id).replace("MOST", str(slider.maximum)),
            **TYPED,
        )


def _shown(prompt: str | None, adapters: Sequence[dict[str, Any]]) -> list[Any]:
    """What a prompt names, as buttons and sliders show it: see ``_Tab.shown``."""
    named = _named(prompt, adapters)
    return [view.chips(adapters, [(adapter.kind, adapter.name) for adapter in named]), *_sliders(named)]


def _named(prompt: str | None, adapters: Sequence[dict[str, Any]]) -> list[Named]:
    names = {kind: [adapter["name"] for adapter in adapters if adapter["kind"] == kind] for kind in kind_names()}
    return prompt_edit.named_in((prompt or "")[:LONGEST_TEXT], names)


def _sliders(named: Sequence[Named]) -> Iterator[Any]:
    """A slider for each adapter, in the prompt's order; the others are not seen."""
    for place in range(MOST_SLIDERS):
        if place < len(named):
            yield gr.Slider(label=_label(named[place]), value=named[place].strength, visible=True)
        else:
            yield gr.Slider(visible=False)


def _label(adapter: Named) -> str:
    """What a slider is called; by it one knows which adapter a person moved."""
    return f"{adapter.name} ({find_kind(adapter.kind).strength})"


# --- modes ------------------------------------------------------------------------------------------------------------


def _follow_mode(service: Service, tab: _Tab) -> None:
    def show(mode: str) -> tuple[Any, ...]:
        single = mode == GRID
        return gr.update(visible=mode == COMPARED), gr.update(visible=single), gr.update(visible=not single)

    def choose(run: str | None, typed: str | None, adapters: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
        prompt = typed or ""
        copies = [copy for copy in service.copies() if copy["run"] == run]
        steps = [(f"{copy['step']:,}", copy["path"]) for copy in copies]
        if copies:
            kind, name = copies[0]["kind"], copies[0]["name"]
            if (kind, name) not in [(adapter.kind, adapter.name) for adapter in _named(prompt, adapters)]:
                prompt = prompt_edit.insert(prompt, kind, name)
        return (
            gr.CheckboxGroup(choices=steps, value=[path for _, path in steps[-4:]]),
            prompt,
            *_shown(prompt, adapters),
        )

    tab.mode.change(show, tab.mode, [tab.instead, tab.grid, tab.count], **STEP)
    tab.run.input(choose, [tab.run, tab.prompt, tab.adapters], [tab.copies, tab.prompt, *tab.shown], **STEP)


def _runs(service: Service) -> list[tuple[str, str]]:
    """Runs that kept copies, latest first, with how many."""
    counts: dict[str, int] = {}
    for copy in service.copies():
        counts[copy["run"]] = counts.get(copy["run"], 0) + 1
    return [(f"{run} ({count})", run) for run, count in sorted(counts.items(), reverse=True)]


# --- drawing ----------------------------------------------------------------------------------------------------------


def _draw(service: Service, tab: _Tab) -> None:
    def draw(*given: Any) -> Iterator[tuple[Any, Any]]:
        *values, adapters = given
        inputs = tab.further.inputs.values()
        own, further = values[: -len(inputs)], dict(zip(inputs, values[-len(inputs) :], strict=True))
        with ThreadPoolExecutor(1) as pool:
            try:
                asked = DrawingInputs(*[*own, tab.further.read(further)])
                asked = replace(asked, named=_named(asked.prompt, adapters))
                drawn = pool.submit(service.model_work.draw, request.request(asked))
                while not drawn.done():
                    yield view.progress(service.model_work.drawing()), gr.skip()
                    time.sleep(PROGRESS_EVERY_S)
                yield "", view.pictures(asked.mode, drawn.result())
            except TinctureError as error:
                yield failed(error, tab.labels), gr.skip()

    def take_seed(event: gr.EventData) -> Any:
        seed = event._data.get("seed")
        return int(seed) if seed is not None else gr.skip()

    answer = [tab.progress, tab.answer]
    drawn = gr.on(
        [tab.draw.click, tab.prompt.submit], draw, tab.request, answer, concurrency_limit=None, **SILENT, **COMMAND
    )
    tab.draw.click(None, js=SHOW_ANSWER)
    drawn.then(None, js=SHOW_ANSWER)  # there was no room to scroll before the pictures were there
    tab.stop.click(service.model_work.stop_drawing, None, None, **SILENT, **COMMAND)
    tab.answer.click(take_seed, None, tab.seed, **STEP)
