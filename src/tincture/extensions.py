"""What others add to Tincture: functions called at five points, from Python, installed packages or the workspace.

From Python, make an ``Extensions`` and hand its callback to a run::

    extensions = Extensions()

    @extensions.on_step
    def tell(event):
        print(event.global_step)

    train(settings, workspace, callbacks=[extensions.callback()])

An installed package names a function ``register(extensions)`` as an entry point of the group ``tincture.extensions``;
a file in the workspace's folder ``extensions`` just has it. ``load_extensions`` calls them. What fails is reported, in
``faults`` and as a warning, and left out from then on with all that came from the same extension. A training goes on as
if it had never been there.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tincture.errors import UsageError, foreign
from tincture.events import Callback, CheckpointSaved, Event, ModelLoaded, RunPrepared, StepEnd

if TYPE_CHECKING:
    import gradio

GROUP = "tincture.extensions"
VARIABLE = "TINCTURE_EXTENSIONS"
"""``off``: none; ``installed``: none of the workspace; names separated by commas: only these; unset or empty: all."""
FOLDER = "extensions"
"""Of the workspace, with extensions that no package has."""

Hook = TypeVar("Hook", bound=Callable[..., object])


@dataclass(frozen=True)
class _Added:
    """One function, the point that it was added at, and the extension that it came from."""

    point: str
    function: Callable[..., object]
    origin: str


class Extensions:
    """Functions to be called at certain points, in the order in which they were added.

    Every method that adds one gives the function back, so that it works as a decorator too. A function added directly
    is an extension of its own; those that an installed package adds stand and fall together.

    Attributes:
        faults: sentences, one for each extension that was left out.
    """

    def __init__(self) -> None:
        self._origin = ""
        self._included: list[str] = []
        self._added: list[_Added] = []
        self._broken: set[str] = set()
        self._lock = threading.Lock()
        self.faults: list[str] = []

    def on_ui_train_tabs(self, function: Hook) -> Hook:
        """``function(service)`` makes further tabs beside those of training, each by ``with gradio.Tab(...):``.

        It is called once, when the server makes its page; ``service`` is the ``tincture.server.service.Service``.
        """
        return self._add("on_ui_train_tabs", function)

    def on_model_loaded(self, function: Hook) -> Hook:
        """``function(model)``, or ``function(model, embeddings)``, gets each frozen model that is loaded.

        A ``DiffusionModel``, before a run begins or goes on, and before pictures are drawn with it; ``embeddings`` is
        the workspace's ``EmbeddingDatabase``.
        """
        return self._add("on_model_loaded", function)

    def on_before_train(self, function: Hook) -> Hook:
        """``function(settings, run_dir)`` gets the run's settings, by name and not to be changed, and its folder."""
        return self._add("on_before_train", function)

    def on_step(self, function: Hook) -> Hook:
        """``function(event)`` gets a ``StepEnd`` after every optimizer step: ``global_step`` and ``steps``."""
        return self._add("on_step", function)

    def on_saved(self, function: Hook) -> Hook:
        """``function(event)`` gets a ``CheckpointSaved`` for each file of the adapter: ``global_step`` and ``path``."""
        return self._add("on_saved", function)

    def names(self) -> list[str]:
        """The extensions that are in use, in the order in which they came."""
        names = dict.fromkeys([*self._included, *(added.origin for added in self._added)])
        return [name for name in names if name not in self._broken]

    def callback(self) -> Callback:
        """A watcher to pass to ``train`` or ``resume``; what fails in it never reaches the run."""
        return _Watcher(self)

    def include(self, name: str, register: Callable[[Extensions], object]) -> None:
        """Calls ``register`` with an object like this one; what it adds belongs to the extension ``name``.

        When it fails, nothing of it is kept and ``faults`` has a sentence more.
        """
        if name in self._included:
            self._warn(f"A second extension {name!r} is left out: the first one keeps the name.")
            return
        self._included.append(name)
        self._try(name, register, self._view(name))

    def report(self, name: str, fault: str) -> None:
        """Leaves the extension ``name`` out from now on; ``fault`` says why."""
        with self._lock:
            if name in self._broken:
                return
            self._broken.add(name)
        self._warn(f"The extension {name!r} is left out: {fault}.")

    def build_train_tabs(self, service: Any) -> list[gradio.Blocks]:
        """What extensions add to the page: ``render()`` each within the ``gradio.Tabs`` where it shall stand.

        To be called before the page itself is begun: each part is made by itself, so that half of a broken one is
        nowhere.
        """
        import gradio

        parts: list[gradio.Blocks] = []
        for added in self._at("on_ui_train_tabs"):
            self._try(
                added.origin, lambda function: parts.append(_train_tabs(gradio, function, service)), added.function
            )
        return parts

    def call(self, point: str, *arguments: object) -> None:
        """Calls every function that was added at ``point``; those that fail are reported and left out."""
        for added in self._at(point):
            self._try(added.origin, added.function, *arguments)

    def listen_at(self, point: str) -> bool:
        """Whether anything that was added at ``point`` is in use."""
        return any(True for _ in self._at(point))

    def model_loaded(self, model: object, embeddings: Callable[[], object]) -> None:
        """Calls what was added by ``on_model_loaded``; ``embeddings`` is asked only for functions that take them."""
        for added in self._at("on_model_loaded"):
            self._try(added.origin, partial(_call_loaded, added.function, model, embeddings))

    def _at(self, point: str) -> Iterator[_Added]:
        for added in [*self._added]:
            if added.point == point and added.origin not in self._broken:
                yield added

    def _try(self, origin: str, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except KeyboardInterrupt:
            raise  # a person wants the program to end
        except BaseException as error:  # SystemExit too: an extension does not end a run
            self.report(origin, explained(error))

    def _warn(self, sentence: str) -> None:
        self.faults.append(sentence)
        with suppress(Warning):  # where warnings are errors: a run shall go on all the same
            warnings.warn(sentence, stacklevel=3)

    def _add(self, point: str, function: Hook) -> Hook:
        if not callable(function):
            raise UsageError(f"{point} was given {function!r}; give a function.")
        self._added.append(_Added(point, function, self._origin or self._own_name(function)))
        return function

    def _own_name(self, function: Callable[..., object]) -> str:
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
        taken = {added.origin for added in self._added}
        numbered = (f"{name} ({number})" for number in range(2, len(taken) + 3))
        return name if name not in taken else next(found for found in numbered if found not in taken)

    def _view(self, name: str) -> Extensions:
        """Shares everything with this object; what is added by it, at any time, belongs to ``name``."""
        view = Extensions()
        view.__dict__ = {**self.__dict__, "_origin": name}
        return view


class _Watcher:
    """From the events of a run to the functions that were added."""

    def __init__(self, extensions: Extensions) -> None:
        self._call, self._model_loaded = extensions.call, extensions.model_loaded

    def on_event(self, event: Event) -> None:
        match event:
            case StepEnd():
                self._call("on_step", event)
            case CheckpointSaved():
                self._call("on_saved", event)
            case RunPrepared():
                self._call("on_before_train", MappingProxyType(dict(event.settings)), Path(event.run_dir))
            case ModelLoaded():
                self._model_loaded(event.model, event.embeddings or (lambda: None))


def _call_loaded(function: Callable[..., object], model: object, embeddings: Callable[[], object]) -> None:
    try:
        inspect.signature(function).bind(model, None)
    except (TypeError, ValueError):  # it takes one argument, or says nothing of them
        function(model)
    else:
        function(model, embeddings())


def _train_tabs(gr: Any, function: Callable[..., object], service: Any) -> gradio.Blocks:
    """What ``function`` makes, as a page of its own whose children are tabs; UsageError for other things."""
    with gr.Blocks() as part:
        function(service)
    wrappers = [child for child in part.children if isinstance(child, gr.Tabs)]  # Gradio lays bare tabs into one
    tabs = [tab for wrapper in wrappers for tab in wrapper.children]
    if len(wrappers) < len(part.children) or not tabs:
        raise UsageError("on_ui_train_tabs makes tabs, and all else within them; begin by: with gradio.Tab(...)")
    for wrapper in wrappers:
        del part.blocks[wrapper._id]
    for tab in tabs:
        tab.parent = part
    part.children = tabs
    return cast("gradio.Blocks", part)


def explained(error: BaseException) -> str:
    """An error in one line, with its class."""
    return f"{type(error).__name__}: {foreign(error, 2000)}" if str(error).strip() else type(error).__name__


# --- installed packages ----------------------------------------------------------------------------------------------


def load_extensions(
    environ: Mapping[str, str] = os.environ,
    distributions: Iterable[metadata.Distribution] | None = None,
    *,
    root: Path | None = None,
) -> Extensions:
    """The extensions of all installed packages and of a workspace, each imported and registered.

    Broken ones are in ``faults``.

    Args:
        environ: where ``TINCTURE_EXTENSIONS`` is looked up: ``off``, ``installed``, or the names of those to load.
        distributions: the packages to look into; None takes those that can be imported.
        root: the workspace's folder, whose folder ``extensions`` counts too; None: installed ones only.
    """
    extensions = Extensions()
    wanted = {name.strip() for name in environ.get(VARIABLE, "").split(",") if name.strip()}
    if wanted == {"off"}:
        return extensions
    points = _entry_points(metadata.distributions() if distributions is None else distributions)
    if wanted == {"installed"}:
        wanted, root = set(), None
    found: list[tuple[str, Callable[[Extensions], object]]] = [
        (point.name, partial(_register, point)) for point in points
    ]
    found += [(path.stem, partial(_register_file, path)) for path in (_own_files(root) if root else ())]
    for name, register in found:
        if not wanted or name in wanted:
            extensions.include(name, register)
    for name in sorted(wanted - {name for name, _ in found}):
        extensions.report(name, f"{VARIABLE} names it, but it is not installed")
    return extensions


def _own_files(root: Path) -> list[Path]:
    """Files ``NAME.py`` and packages ``NAME/`` in the folder ``extensions``; a webui keeps other things there too."""
    places = sorted((root / FOLDER).glob("*"), key=lambda path: path.name)
    named = [path for path in places if path.stem.isidentifier() and not path.name.startswith("_")]
    return [path for path in named if _code_of(path).is_file() and _may_register(_code_of(path))]


def _code_of(place: Path) -> Path:
    return place / "__init__.py" if place.is_dir() else place if place.suffix == ".py" else place / "none"


def _may_register(code: Path) -> bool:
    """Whether a file has a ``register`` at its top, so that it is meant for us; one that cannot be read is named."""
    try:
        body = ast.parse(code.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True  # to be reported when it is imported
    named = (node for node in body if isinstance(node, ast.FunctionDef | ast.ImportFrom | ast.Assign))
    return any("register" in _names_of(node) for node in named)


def _names_of(node: ast.FunctionDef | ast.ImportFrom | ast.Assign) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def _register_file(place: Path, extensions: Extensions) -> None:
    code = _code_of(place)
    for path in (place.parent, place, code):
        if os.name == "posix" and path.stat().st_mode & stat.S_IWOTH:
            raise UsageError(f"{path} may be changed by every user of this machine; take that right away")
    name = f"tincture_extensions_{place.stem}"
    inner = [str(place)] if place.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, code, submodule_search_locations=inner)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its parts find each other
    spec.loader.exec_module(module)
    module.register(extensions)


def _register(point: metadata.EntryPoint, extensions: Extensions) -> None:
    point.load()(extensions)


def _entry_points(distributions: Iterable[metadata.Distribution]) -> list[metadata.EntryPoint]:
    """The entry points of our group, by name; a package that is found twice counts once, as for imports."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    for distribution in distributions:
        # Records of a package may be damaged, which need not have to do with us.
        with suppress(Exception):
            if points := [point for point in distribution.entry_points if point.group == GROUP]:
                found.setdefault(distribution.metadata["Name"], points)
    return sorted((point for points in found.values() for point in points), key=lambda point: point.name)
