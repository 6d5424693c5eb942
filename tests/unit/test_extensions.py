from __future__ import annotations

import asyncio
import dataclasses
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runs import Bench, csv_text, equal, trained
from tincture.errors import UsageError
from tincture.events import CheckpointSaved, ModelLoaded, RunPrepared, RunStarted, StepEnd
from tincture.extensions import GROUP, Extensions, load_extensions
from tincture.models.stable_diffusion import StableDiffusion

LEFT_OUT = "ignore:The extension:UserWarning"
EVENTS = (
    ModelLoaded("a model", "the model"),
    RunPrepared(Path("run"), {"steps": 2}),
    RunStarted(0, 2, 5, 5),
    StepEnd(1, 2),
    CheckpointSaved(1, Path("a.pt")),
)


@dataclasses.dataclass
class Noted:
    """Registers at all points of a run, and notes what it is called with."""

    calls: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def register(self, extensions: Extensions) -> None:
        extensions.on_model_loaded(lambda model: self.calls.append(("model", model)))
        extensions.on_before_train(lambda settings, run_dir: self.calls.append(("before", dict(settings), run_dir)))
        extensions.on_step(lambda event: self.calls.append(("step", event.global_step)))
        extensions.on_saved(lambda event: self.calls.append(("saved", event.path)))


def play(extensions: Extensions) -> None:
    watcher = extensions.callback()
    for event in EVENTS:
        watcher.on_event(event)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[metadata.Distribution]]]:
    """Makes packages that can be imported, as pip would leave them: (name, source, entry points) → all so far."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def make(name: str, source: str, entry_points: str | None = None) -> list[metadata.Distribution]:
        records = site / f"{name}-1.0.dist-info"
        records.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (records / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (records / "entry_points.txt").write_text(entry_points or f"[{GROUP}]\n{name} = {name}:register\n")
        importlib.invalidate_caches()
        return list(metadata.distributions(path=[str(site)]))

    yield make
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(site)):
            del sys.modules[module]


def test_functions_are_called_in_the_order_in_which_they_came_and_are_given_back() -> None:
    extensions, calls = Extensions(), []

    @extensions.on_step
    def first(event: StepEnd) -> None:
        calls.append(("first", event.global_step))

    second = extensions.on_step(lambda event: calls.append(("second", event.steps)))
    noted = Noted()
    noted.register(extensions)
    play(extensions)

    assert calls == [("first", 1), ("second", 2)]
    assert noted.calls == [
        ("model", "the model"),
        ("before", {"steps": 2}, Path("run")),
        ("step", 1),
        ("saved", Path("a.pt")),
    ]
    assert first.__name__ == "first" and callable(second)
    assert extensions.faults == []


def test_settings_cannot_be_changed() -> None:
    extensions = Extensions()
    extensions.on_before_train(lambda settings, run_dir: settings.update(steps=9))
    with pytest.warns(UserWarning, match=r"left out: AttributeError: .*no attribute 'update'\.$"):
        play(extensions)


def test_what_fails_is_left_out_with_all_of_its_extension_and_nothing_else() -> None:
    extensions, good, other = Extensions(), Noted(), Noted()
    extensions.include("good", good.register)

    def register(part: Extensions) -> None:
        other.register(part)
        part.on_before_train(lambda settings, run_dir: {}["absent"])

    extensions.include("other", register)
    assert extensions.names() == ["good", "other"]
    with pytest.warns(UserWarning, match=r"^The extension 'other' is left out: KeyError: 'absent'\.$"):
        play(extensions)
    play(extensions)

    assert [call[0] for call in good.calls] == ["model", "before", "step", "saved"] * 2
    assert [call[0] for call in other.calls] == ["model", "before"]
    assert extensions.names() == ["good"]
    assert extensions.faults == ["The extension 'other' is left out: KeyError: 'absent'."]


def test_functions_from_python_fall_one_by_one() -> None:
    extensions, calls = Extensions(), []
    for number in range(3):
        extensions.on_step(lambda event, number=number: calls.append(1 // number))
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        play(extensions)
    assert calls == [1, 0]
    assert len(extensions.names()) == 2


def test_what_is_added_later_belongs_to_the_same_extension() -> None:
    extensions, calls = Extensions(), []

    def register(part: Extensions) -> None:
        part.on_model_loaded(lambda model: part.on_step(lambda event: calls.append(event)))
        part.on_before_train(lambda settings, run_dir: 1 / 0)

    extensions.include("late", register)
    with pytest.warns(UserWarning, match="'late' is left out: ZeroDivisionError"):
        play(extensions)
    assert calls == []


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), MemoryError(), RuntimeError("two\nlines.")])
def test_nothing_that_is_raised_ends_a_run_but_ctrl_c(error: BaseException) -> None:
    extensions = Extensions()

    def fails(event: StepEnd) -> None:
        raise error

    extensions.include("bad", lambda part: part.on_step(fails))
    play(extensions)
    (fault,) = extensions.faults
    assert fault.startswith(f"The extension 'bad' is left out: {type(error).__name__}") and "\n" not in fault
    extensions.on_step(lambda event: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        play(extensions)


@pytest.mark.filterwarnings("error")
def test_a_fault_is_no_error_where_warnings_are_errors() -> None:
    extensions = Extensions()
    extensions.on_step(lambda event: 1 / 0)
    play(extensions)
    assert len(extensions.faults) == 1


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(UsageError, match="on_step was given 5; give a function"):
        Extensions().on_step(5)  # type: ignore[type-var]


@pytest.mark.filterwarnings("ignore:A second extension:UserWarning")
def test_a_name_is_given_once_and_the_first_keeps_it() -> None:
    extensions, first, second = Extensions(), Noted(), Noted()
    extensions.include("twin", first.register)
    extensions.include("twin", second.register)
    play(extensions)
    assert (len(first.calls), second.calls, extensions.names()) == (4, [], ["twin"])
    assert extensions.faults == ["A second extension 'twin' is left out: the first one keeps the name."]


# --- installed packages ----------------------------------------------------------------------------------------------

GOOD = "calls = []\ndef register(extensions):\n    extensions.on_step(lambda event: calls.append(event.global_step))\n"


@pytest.mark.filterwarnings(LEFT_OUT)
def test_installed_packages_are_found_and_broken_ones_told(package: Callable[..., list[metadata.Distribution]]) -> None:
    package("ext_good", GOOD)
    package("ext_import", "import there_is_no_such_module\n")
    package("ext_exit", "raise SystemExit('bye')\n")
    package("ext_syntax", "def register(:\n")
    package("ext_empty", "")
    package("ext_damaged", GOOD, "not an entry point\n[[[")
    package("ext_other", GOOD, "[console_scripts]\nx = ext_other:register\n")
    found = package("ext_register", "def register(extensions):\n    extensions.on_stop(print)\n")

    extensions = load_extensions({}, [*found, *found])
    play(extensions)

    assert extensions.names() == ["ext_good"]
    assert importlib.import_module("ext_good").calls == [1]
    told = {fault.split("'")[1]: fault.partition("left out: ")[2].split(":")[0] for fault in extensions.faults}
    assert told == {
        "ext_import": "ModuleNotFoundError",
        "ext_exit": "SystemExit",
        "ext_syntax": "SyntaxError",
        "ext_empty": "AttributeError",
        "ext_register": "AttributeError",
    }


@pytest.mark.filterwarnings(LEFT_OUT)
def test_extensions_can_be_chosen_and_switched_off(package: Callable[..., list[metadata.Distribution]]) -> None:
    package("ext_one", GOOD)
    found = package("ext_two", GOOD)
    assert load_extensions({}, found).names() == ["ext_one", "ext_two"]
    assert load_extensions({"TINCTURE_EXTENSIONS": "off"}, found).names() == []
    chosen = load_extensions({"TINCTURE_EXTENSIONS": " ext_two, absent"}, found)
    assert chosen.names() == ["ext_two"]
    assert chosen.faults == [
        "The extension 'absent' is left out: TINCTURE_EXTENSIONS names it, but it is not installed."
    ]


# --- runs ------------------------------------------------------------------------------------------------------------


def spiteful(extensions: Extensions, fails_at: str) -> None:
    """Uses up random numbers, and fails at one of the points."""

    def draw(*arguments: object) -> None:
        torch.rand(7), random.random(), np.random.rand(3)

    def fail(*arguments: object) -> None:
        draw()
        with torch.no_grad():
            raise SystemExit(f"at {fails_at}")

    for point in ("on_model_loaded", "on_before_train", "on_step", "on_saved"):
        getattr(extensions, point)(fail if point == fails_at else draw)


@pytest.mark.filterwarnings(LEFT_OUT)
@pytest.mark.parametrize("fails_at", ["on_model_loaded", "on_before_train", "on_step", "on_saved"])
@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_broken_extension_leaves_training_as_it_is(
    kind: str, fails_at: str, new_bench: Callable[[str], Bench]
) -> None:
    plain, watched, noted = new_bench("plain"), new_bench("watched"), Noted()
    extensions = Extensions()
    extensions.include("bad", lambda part: spiteful(part, fails_at))
    extensions.include("good", noted.register)

    expected = plain.train(kind, save_every=2)
    result = watched.train(kind, save_every=2, callbacks=[extensions.callback()])

    assert equal(trained(result.adapter_path), trained(expected.adapter_path))
    assert csv_text(result.run_dir) == csv_text(expected.run_dir)
    assert extensions.faults == [f"The extension 'bad' is left out: SystemExit: at {fails_at}."]
    assert [call[1] for call in noted.calls if call[0] == "step"] == [1, 2, 3, 4]
    assert [call[1].name for call in noted.calls if call[0] == "saved"][-1] == result.adapter_path.name
    assert isinstance(noted.calls[0][1], StableDiffusion)
    assert noted.calls[1][0] == "before" and noted.calls[1][2] == result.run_dir
    assert noted.calls[1][1]["steps"] == 4


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(LEFT_OUT)
def test_a_broken_tab_leaves_nothing_of_itself_on_the_page() -> None:
    gradio = pytest.importorskip("gradio")
    extensions = Extensions()

    def good(service: object) -> None:
        with gradio.Tab("Good"):
            gradio.Button("press").click(lambda: str(service), outputs=gradio.Textbox(label="answer"))

    def bad(service: object) -> None:
        with gradio.Tab("Bad"):
            gradio.Markdown("half of it")
            raise ValueError("no more")

    def bare(service: object) -> None:
        gradio.Markdown("half of it")

    extensions.include("bad", lambda part: part.on_ui_train_tabs(bad))
    extensions.include("bare", lambda part: part.on_ui_train_tabs(bare))
    extensions.include("good", lambda part: part.on_ui_train_tabs(good))

    async def build() -> Any:  # Gradio takes the event loop that runs, else it leaves one behind that nobody closes
        parts = extensions.build_train_tabs("the service")
        with gradio.Blocks() as page, gradio.Tabs():
            with gradio.Tab("Own"):
                gradio.Markdown("own")
            for part in parts:
                part.render()
        return page

    page = asyncio.run(build())
    labels = [block.label for block in page.blocks.values() if isinstance(block, gradio.Tab)]
    assert labels == ["Own", "Good"]
    assert not any(getattr(block, "value", "") == "half of it" for block in page.blocks.values())
    (handler,) = page.fns.values()
    assert handler.fn() == "the service"
    layout = page.get_config_file()["layout"]["children"]
    assert [[child["id"] for child in tabs["children"]] for tabs in layout] == [
        [block._id for block in page.blocks.values() if isinstance(block, gradio.Tab)]
    ]
    assert extensions.faults[0] == "The extension 'bad' is left out: ValueError: no more."
    assert extensions.faults[1].startswith("The extension 'bare' is left out: UsageError: on_ui_train_tabs makes tabs")
