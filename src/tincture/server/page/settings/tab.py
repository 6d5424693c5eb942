"""The Settings tab: how the server was started, what it can do, what takes room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from tincture.errors import TinctureError
from tincture.run.duration import in_words
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.markup import escape, facts, fault, muted, plain, size
from tincture.server.page.parts.messages import done, failed
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP
from tincture.settings.server import SERVER_FIELDS

if TYPE_CHECKING:
    from tincture.server.service import Service

SECRET = ("auth", "token")


def build(service: Service) -> None:
    """Fills the Settings tab."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            about = panel(elem_id="settings-about")
            _model(service)
            _storage(service)
        with gr.Column(scale=1, min_width=320):
            _examination(service)
            panel(f"<h3>How the server was started</h3>{settings(service)}", elem_id="settings-server")
    _when_shown(lambda: about_server(service), about)


def _when_shown(read: Any, output: Any) -> None:
    inside, page = Context.block, Context.root_block
    while inside is not None and not isinstance(inside, gr.Tab):
        inside = inside.parent
    assert page is not None
    gr.on([inside.select if isinstance(inside, gr.Tab) else page.load], read, None, output, **STEP)


def _model(service: Service) -> None:
    model = gr.Dropdown(
        choices.models(service),
        value=service.default_model(),
        label="Default model",
        info="What counts where a request names none, and what the page begins with.",
        elem_id="settings-model",
    )
    message = panel(elem_id="settings-model-message")

    def choose(name: str) -> str:
        try:
            service.choose_model(name)
        except TinctureError as error:
            return failed(error)
        return done(f"{name} is the default model now; a page that is open shows that after it is loaded again.")

    model.input(choose, model, message, **SILENT, **COMMAND)
    _when_shown(lambda: gr.Dropdown(choices=choices.models(service), value=service.default_model()), model)


def _storage(service: Service) -> None:
    room = panel(elem_id="settings-storage")
    message = panel(elem_id="settings-storage-message")
    clear = gr.Button("Delete drawn pictures", size="sm", elem_id="settings-clear")
    with gr.Row(visible=False) as sure:
        really = gr.Button("Delete for good", variant="stop", size="sm", min_width=80, elem_id="settings-really")
        keep = gr.Button("Keep them", size="sm", min_width=80, elem_id="settings-keep")

    def delete() -> tuple[str, str]:
        try:
            count = service.clear_pictures()
        except TinctureError as error:
            return failed(error), storage(service)
        return done(f"{count} picture{'s' * (count != 1)} deleted."), storage(service)

    clear.click(lambda: gr.Row(visible=True), None, sure, **STEP)
    gr.on([really.click, keep.click], lambda: gr.Row(visible=False), None, sure, **STEP)
    really.click(delete, None, [message, room], **SILENT, **COMMAND)
    _when_shown(lambda: storage(service), room)


def _examination(service: Service) -> None:
    found = panel(f"<h3>This machine</h3>{muted('Examined when asked for: it takes some seconds.')}", elem_id="doctor")
    examine = gr.Button("Examine this machine", size="sm", elem_id="settings-examine")

    def read() -> Iterator[str]:
        yield f"<h3>This machine</h3>{muted('Examining …')}"
        try:
            yield f"<h3>This machine</h3>{examined(service.model_work.examine())}"
        except TinctureError as error:
            yield failed(error)

    examine.click(read, None, found, **SILENT, **COMMAND)


def about_server(service: Service) -> str:
    """Version, workspace, devices, queue, extensions."""
    about = service.about()
    faults = "".join(fault(sentence) for sentence in service.extensions.faults)
    rows = [
        ("Version", about["version"]),
        ("Workspace", about["root"]),
        ("Its own folder", str(service.state_dir)),
        ("Folders that requests may use", plain([str(folder) for folder in service.places.roots])),
        ("Devices", plain(about["devices"])),
        ("Running for", in_words(about["uptime_s"])),
        ("Jobs", ", ".join(f"{count} {state}" for state, count in about["jobs"].items() if count) or "none"),
        ("Extensions", plain(about["extensions"]) or "none"),
        ("HTTP API", f"{service.settings.root_path.rstrip('/')}/docs"),
    ]
    return f"<h3>This server</h3>{facts(rows)}{faults}"


def settings(service: Service) -> str:
    """Every setting of the server, secrets left out."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, spec in SERVER_FIELDS.items():
        value = getattr(service.settings, name)
        text = ("set" if value else "not set") if name in SECRET else plain(value) or "–"
        groups.setdefault(spec.group, []).append((name.replace("_", " "), text))
    return "".join(f"<h4>{escape(group)}</h4>{facts(rows)}" for group, rows in groups.items())


def storage(service: Service) -> str:
    """How much room what takes."""
    taken = service.usage()
    rows = [
        ("Drawn pictures", size(taken["pictures"])),
        ("Logs of jobs", size(taken["jobs"])),
        ("Other", size(taken["other"])),
        ("Free on the disk", size(taken["free"])),
    ]
    return f"<h3>Storage</h3>{facts(rows)}"


def examined(found: Mapping[str, Any]) -> str:
    """What ``Service.examine`` found, problems first."""
    problems = "".join(fault(sentence) for sentence in found["problems"]) or done("No problems found.")
    counts = found["workspace"]
    parts = {True: "installed", False: "not installed"}
    rows = [
        ("Python", f"{found['python']} on {found['system']}"),
        ("Libraries", ", ".join(f"{name} {version or 'missing'}" for name, version in found["libraries"].items())),
        *((f"Extra {name}", parts[bool(there)]) for name, there in found["optional_parts"].items()),
        *((f"Device {device['name']}", _device(device)) for device in found["devices"]),
        *((f"Model {name}", words) for name, words in found["models"].items()),
        ("Embeddings", str(counts["embeddings"])),
        ("Hypernetworks", str(counts["hypernetworks"])),
        ("Free", size(counts["free"])),
    ]
    return problems + facts(rows)


def _device(device: Mapping[str, Any]) -> str:
    memory = f"{device['model']}, {size(device['memory'])}, " if "memory" in device else ""
    return f"{memory}precisions: {', '.join(device['precisions']) or 'none'}"
