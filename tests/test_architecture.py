"""The direction of imports that docs/architecture.md draws, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "src" / "tincture"

# A module may import from its own room and from rooms of the layers above its own; rooms of one layer know nothing of
# each other. The longest matching name counts.
LAYERS = (
    ("tincture.errors", "tincture.events"),
    ("tincture.randomness",),
    ("tincture.kinds",),
    ("tincture.workspace",),
    ("tincture.settings",),
    ("tincture.formats",),
    ("tincture.reports",),
    ("tincture.models",),
    ("tincture.processes",),
    ("tincture.data",),
    ("tincture.adapters",),
    ("tincture.drawing", "tincture.preprocessing", "tincture.training"),
    ("tincture.run",),
    ("tincture.recipe",),
    ("tincture.extensions",),
    ("tincture.sweeps",),
    ("tincture.webui",),
    ("tincture.server.errors", "tincture.server.child_environment"),
    ("tincture.server.requests",),
    ("tincture.server.library", "tincture.server.queue"),
    ("tincture.server.sweeps",),
    ("tincture.server.model_process",),
    ("tincture.server.service",),
    ("tincture.server.http",),
    ("tincture.server.security",),
    ("tincture.server.api_v1",),
    ("tincture.server.api_webui", "tincture.server.page"),
    ("tincture.server",),
    ("tincture.cli",),
    ("tincture.__main__",),
)
ROOT = "tincture"  # its names are imported lazily
SETTINGS = ("tincture.settings.train", "tincture.settings.preprocess")
# who may know of whole settings; below, flat parameters
EDGE = (
    "tincture.settings",
    "tincture.run",
    "tincture.recipe",
    "tincture.sweeps",
    "tincture.cli",
    "tincture.preprocessing.describing",
    "tincture.preprocessing.ledger",
    "tincture.preprocessing.rules",
    "tincture.preprocessing.pipeline",
    "tincture.webui",
    "tincture.server",
)
FORBIDDEN_TO_THE_TRAINER = (
    "tincture.run",
    "tincture.cli",
    "tincture.formats",
    "rich",
    "tqdm",
)
# above the models nobody asks what a model is made of: see models/diffusion_model.py for what may be asked
ABOVE_MODELS = tuple(
    f"tincture.{room}"
    for room in ("adapters", "cli", "data", "drawing", "extensions", "recipe", "run", "server", "training", "webui")
)
INSIDE_MODELS = tuple(
    f"tincture.models.{name}" for name in ("stable_diffusion", "clip_text", "text_encoder", "tokens", "float8")
)
ANATOMY = ("unet", "noise_scheduler", "num_train_timesteps", "text_encoders", "tokenizer", "tokenize", "input_ids")
# Where an import may stand inside a function: what starts fast loads torch or gradio only once it needs them.
LAZY = (
    "tincture.adapters.adapter",
    "tincture.cli",
    "tincture.models.loading.token_tables",
    "tincture.preprocessing.captioning",
    "tincture.preprocessing.tagging",
    "tincture.recipe",
    "tincture.run.create",
    "tincture.run.together",
    "tincture.server.app",
    "tincture.server.page",
    "tincture.server.queue.worker",
    "tincture.sweeps.trial",
    "tincture.webui",
)
# Modules of one name that their folders tell apart: a command and what it runs, a tab and its fellows, two APIs.
SAME_NAMES = frozenset(
    {"adapters", "app", "catalogue", "components", "conversion", "create", "datasets", "demo", "doctor", "drawing"}
    | {
        "embedding",
        "errors",
        "hypernetwork",
        "fields",
        "files",
        "folder",
        "inspection",
        "jobs",
        "loss",
        "pictures",
        "preprocess",
        "previews",
        "progress",
        "request",
        "schemas",
    }
    | {"session", "tab", "train", "trainer", "validation", "view"}
)
# Words that say nothing of what a value is; a few stand in what users read, and so must stay.
DIALECT = frozenset(
    {"told", "tell", "said", "kept", "look", "looked", "wish", "wishes", "quiet", "story", "news", "desk", "easel"}
)
WRITTEN_OUT = frozenset({"told_by", "kept_energy"})
# written in pieces, so that this file may be searched too
UNWANTED_TEXTS = ("/" + "work/", "/" + "tmp/", "/" + "root/", "/" + "home/")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, inside_functions: bool = True) -> Iterator[str]:
    """Names of modules that `path` imports when it runs, at any depth; what only type checkers see is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    late = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if id(node) in skipped or (id(node) in late and not inside_functions):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            base = node.module or ""
            yield from (_module_or_name(base, alias.name) for alias in node.names)


def _module_or_name(base: str, name: str) -> str:
    """`from tincture.models import picto` imports a module, `from tincture.errors import UsageError` a name in one."""
    inner = PACKAGE.parent.joinpath(*base.split("."), name)
    return f"{base}.{name}" if inner.with_suffix(".py").is_file() or inner.is_dir() else base


def within(module: str, packages: tuple[str, ...] | str) -> bool:
    names = (packages,) if isinstance(packages, str) else packages
    return any(module == name or module.startswith(name + ".") for name in names)


def room(module: str) -> tuple[int, str]:
    """The layer and the name of the room that a module lies in."""
    found = [(len(name), index, name) for index, names in enumerate(LAYERS) for name in names if within(module, name)]
    assert found, f"{module} has no place in LAYERS: give it one, and one in docs/architecture.md"
    return max(found)[1:]


def layer(module: str) -> int:
    return room(module)[0]


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
LAYERED = [module for module in MODULES if module != ROOT]


@pytest.mark.parametrize("module", LAYERED)
def test_nothing_imports_upward(module: str) -> None:
    own = [name for name in imports(MODULES[module]) if within(name, ROOT) and name != ROOT]
    wrong = [name for name in own if room(name) != room(module) and layer(name) >= layer(module)]
    assert not wrong, f"{module} imports {wrong} from rooms that do not stand above its own in LAYERS"


def test_few_files_lie_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    assert len(list((PACKAGE / "server").glob("*.py"))) <= 6


def own_imports(module: str, *, inside_functions: bool) -> set[str]:
    found = set(imports(MODULES[module], inside_functions=inside_functions))
    return {name for name in found if within(name, ROOT) and name != ROOT and name in MODULES}


def late_imports(module: str) -> set[str]:
    return own_imports(module, inside_functions=True) - own_imports(module, inside_functions=False)


@pytest.mark.parametrize("module", [module for module in LAYERED if not within(module, LAZY)])
def test_imports_stand_at_the_top(module: str) -> None:
    assert not late_imports(module)


def test_no_import_inside_a_function_dodges_a_cycle() -> None:
    """What is imported late may not need, in any number of steps, the module that does so."""
    graph = {module: own_imports(module, inside_functions=True) for module in LAYERED}
    for module in LAYERED:
        for late in late_imports(module):
            reached, waiting = set(), [late]
            while waiting:
                name = waiting.pop()
                if name not in reached:
                    reached.add(name)
                    waiting += graph.get(name, ())
            assert module not in reached, f"{module} imports {late} late, which imports it"


def test_what_may_be_imported_late_is_still_needed() -> None:
    for name in LAZY:
        assert any(within(module, name) and late_imports(module) for module in LAYERED), name


def test_modules_of_one_name_are_told_apart_by_their_folders() -> None:
    stems = [module.rpartition(".")[2] for module in LAYERED if MODULES[module].stem not in ("__init__", "__main__")]
    assert {stem for stem in stems if stems.count(stem) > 1} <= SAME_NAMES


def names_in(path: Path) -> Iterator[str]:
    """Every name in a module: of variables, parameters, attributes, keywords, functions and classes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for kind in ("id", "arg", "attr", "name"):
            if isinstance(name := getattr(node, kind, None), str):
                yield name


@pytest.mark.parametrize("module", LAYERED)
def test_names_say_what_a_value_is(module: str) -> None:
    found = {name for name in names_in(MODULES[module]) if DIALECT & set(name.strip("_").lower().split("_"))}
    assert found <= WRITTEN_OUT


@pytest.mark.parametrize("module", [module for module in LAYERED if not within(module, EDGE)])
def test_settings_stay_at_the_edge(module: str) -> None:
    assert not set(SETTINGS) & set(imports(MODULES[module]))


def test_the_trainer_knows_no_files_previews_or_screens() -> None:
    known = [name for name in imports(MODULES["tincture.training.trainer"]) if within(name, FORBIDDEN_TO_THE_TRAINER)]
    assert not known


@pytest.mark.parametrize("module", [name for name in LAYERED if within(name, ABOVE_MODELS)])
def test_what_a_model_is_made_of_is_its_own_business(module: str) -> None:
    assert not [name for name in imports(MODULES[module]) if within(name, INSIDE_MODELS)]
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & set(ANATOMY)


PICTURES_ARE_OPENED_IN = REPOSITORY / "src" / "tincture" / "formats" / "pictures.py"
PROGRAMS = sorted(
    path for room in ("src", "tools", "bench", "examples", "fuzz") for path in (REPOSITORY / room).rglob("*.py")
)


def opened_by_pillow(path: Path) -> Iterator[int]:
    """Lines in which Pillow, or another library, opens a picture of whatever format it finds."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {"Image", "ImageFile"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "PIL":
            modules |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
            yield from (node.lineno for alias in node.names if alias.name == "open")
        if isinstance(node, ast.Attribute) and node.attr in ("open", "Parser", "imread", "imdecode"):
            of = node.value
            name = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
            if name in modules or node.attr in ("imread", "imdecode"):
                yield node.lineno


def test_pictures_are_opened_in_one_place() -> None:
    """Which formats are read is decided there: some of Pillow's start another program."""
    assert list(opened_by_pillow(PICTURES_ARE_OPENED_IN))
    others = [path for path in PROGRAMS if path != PICTURES_ARE_OPENED_IN]
    assert len(others) > 300
    assert not [f"{path}:{line}" for path in others for line in opened_by_pillow(path)]


def test_no_file_mentions_a_path_of_one_machine() -> None:
    texts = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".txt", ".json", ".toml", ".md")]
    assert texts
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not [unwanted for unwanted in UNWANTED_TEXTS if unwanted in text], path


# where a kind of adapters is called by its name: its description, class and formats, and the webui's calls for each
NAMES_KINDS = ("tincture.kinds", "tincture.adapters", "tincture.formats", "tincture.webui", "tincture.server.api_webui")
KINDS = ("embedding", "hypernetwork")
ADAPTER_CLASSES = ("Adapter", "Embedding", "Hypernetwork")


def kinds_asked_for(path: Path) -> Iterator[str]:
    """Places where `path` names a kind of adapters by a text, or asks what class an adapter is of."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value in KINDS:
            yield f"{path.name}:{node.lineno} says {node.value!r}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "type"):
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            names |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            if names & set(ADAPTER_CLASSES):
                yield f"{path.name}:{node.lineno} asks for a class"


@pytest.mark.parametrize("module", [module for module in LAYERED if not within(module, NAMES_KINDS)])
def test_nobody_asks_of_which_kind_an_adapter_is(module: str) -> None:
    """What differs stands in the kind's description, see tincture.kinds.registry, or behind the protocol."""
    assert not list(kinds_asked_for(MODULES[module]))


def test_the_check_sees_who_asks_of_which_kind_an_adapter_is(tmp_path: Path) -> None:
    source = tmp_path / "asking.py"
    source.write_text('if kind == "embedding" or isinstance(adapter, embedding.Embedding):\n    say("an embedding")\n')
    assert {place.split(" ", 1)[1] for place in kinds_asked_for(source)} == {"says 'embedding'", "asks for a class"}


def test_the_check_itself_sees_an_upward_import(tmp_path: Path) -> None:
    source = tmp_path / "wrong.py"
    source.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tincture.run.demo\n"
        "def late():\n    from tincture import recipe\n    import tincture.cli.app\n"
    )
    assert set(imports(source)) == {"typing", "tincture.recipe", "tincture.cli.app"}
    assert set(imports(source, inside_functions=False)) == {"typing"}
    assert layer("tincture.cli.app") > layer("tincture.recipe") > layer("tincture.models.picto.world")
