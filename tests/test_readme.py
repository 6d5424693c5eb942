"""What README and docs tell people to type exists, and what they link to is there."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from typer.exceptions import TyperException
from typer.main import get_command

from tincture.cli.app import build_app
from tincture.cli.session import Session

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "tincture" / "models" / "picto" / "weights"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def commands(page: Path, program: str) -> list[str]:
    """ModelProcess of a program in a page's code, in blocks and in lines of text, comments left out."""
    text = page.read_text(encoding="utf-8")
    in_blocks = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    in_lines = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    called = [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in [*in_blocks, *in_lines]]
    return [line for line in called if line.startswith(f"{program} ")]


TINCTURE = [(page, call) for page in PAGES for call in commands(page, "tincture")]
MAKE = [(page, call) for page in PAGES for call in commands(page, "make")]
TOOLS = [(page, call) for page in PAGES for call in commands(page, "python") if " tools/" in call]
# keys of the metadata in files, and what lies in deploy/
NO_MODULES = {f"tincture.{key}" for key in ("checksum", "embedding", "hypernetwork", "lora", "provenance", "service")}
NAMES = sorted(
    {
        (page, named)
        for page in PAGES
        if page.name != "CHANGELOG.md"  # which tells of what was, too
        for named in re.findall(r"\btincture(?:\.[A-Za-z_]\w*)+", page.read_text(encoding="utf-8"))
        if named not in NO_MODULES
    }
)
PLACE = re.compile(r"^(?:src|tests|docs|tools|bench|fuzz|examples|deploy|\.ci)/[\w./-]*$|^[\w/]+\.(?:py|md|toml|txt)$")
LINKS = [(page, link) for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]


def parse(command: Any, arguments: list[str], parent: Any = None) -> dict[str, Any]:
    """The values that a call gives to a command, without running it."""
    session = None if parent else Session()
    context = command.make_context(command.name, arguments, parent=parent, obj=session)
    rest = [*getattr(context, "_protected_args", []), *context.args]
    if hasattr(command, "resolve_command") and rest:
        _, inner, rest = command.resolve_command(context, rest)
        return parse(inner, rest, context)
    values: dict[str, Any] = context.params
    return values


@pytest.fixture(scope="module")
def program() -> Any:
    return get_command(build_app())


def test_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert re.findall(r"^make \w+", opening, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize(("page", "call"), MAKE, ids=name)
def test_make_targets_exist(page: Path, call: str) -> None:
    target = call.split()[1]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("page", "call"), TINCTURE, ids=name)
def test_calls_of_tincture_parse(page: Path, call: str, program: Any) -> None:
    arguments = shlex.split(call, comments=True)[1:]
    if "--help" in arguments:
        arguments.remove("--help")  # it would be shown at once
    values = parse(program, arguments)
    files = [values["config"]] if values.get("config") else []
    assert all((ROOT / path).is_file() for path in files if path.name != "RUN.toml")


def test_a_wrong_call_does_not_parse(program: Any) -> None:
    for call in ("train embedding rex --dat pictures", "create embeding rex", "create embedding rex --vectors many"):
        with pytest.raises(TyperException):
            parse(program, shlex.split(call))


@pytest.mark.parametrize("command", ["demo", "create", "train", "resume", "generate", "inspect", "convert", "doctor"])
def test_every_command_is_shown_somewhere(command: str) -> None:
    assert any(command in call.split() for _, call in TINCTURE)


@pytest.mark.parametrize(("page", "call"), TOOLS, ids=name)
def test_tools_exist_and_know_their_flags(page: Path, call: str) -> None:
    path, *flags = shlex.split(call, comments=True)[1:]
    source = (ROOT / path).read_text(encoding="utf-8")
    assert all(f'"{flag}"' in source for flag in flags if flag.startswith("--"))


@pytest.mark.parametrize(("page", "named"), NAMES, ids=name)
def test_names_of_the_library_can_be_imported(page: Path, named: str) -> None:
    assert resolved(named) is not None


def test_imports_in_blocks_of_code_work() -> None:
    lines = [
        line
        for page in PAGES
        for block in BLOCK.findall(page.read_text(encoding="utf-8"))
        for line in block.splitlines()
    ]
    imports = [line.strip() for line in lines if re.match(r"\s*(from tincture[\w.]* import |import tincture)", line)]
    assert len(imports) > 5
    for line in imports:
        exec(line, {})  # ours alone


def test_a_name_that_is_not_there_is_found_out() -> None:
    with pytest.raises(AttributeError):
        resolved("tincture.recipe.tarin")


def resolved(dotted: str) -> object:
    """What a dotted name stands for: a module, or something in one."""
    parts, found = dotted.split("."), importlib.import_module("tincture")
    for index, part in enumerate(parts[1:], start=2):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(".".join(parts[:index]))
        found = getattr(found, part)
    return found


def places(page: Path) -> list[str]:
    """Files and folders that a page names in code, without those with a made-up part in capitals."""
    in_lines = re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    return sorted({text for text in in_lines if PLACE.match(text) and not re.search(r"NEW|NAME", text)})


@pytest.mark.parametrize("named", places(ROOT / "CONTRIBUTING.md"))
def test_files_of_the_recipes_are_there(named: str) -> None:
    assert (ROOT / named).exists() or (ROOT / "src" / "tincture" / named).exists()


@pytest.mark.parametrize(("page", "link"), LINKS, ids=name)
def test_links_lead_somewhere(page: Path, link: str) -> None:
    target, _, anchor = link.partition("#")
    path = (page.parent / target).resolve() if target else page
    assert path.exists(), f"{name(page)} links to {target}"
    if anchor:
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("part", "row", "setting"),
    [
        ("text_encoder", "text encoder", "hidden_size"),
        ("vae", "VAE", "block_out_channels"),
        ("unet", "U-Net", "block_out_channels"),
    ],
)
def test_page_on_picto_tells_the_shipped_sizes(part: str, row: str, setting: str) -> None:
    line = re.search(rf"^\| {row} \|.*$", (ROOT / "docs" / "picto.md").read_text(encoding="utf-8"), re.MULTILINE)
    numbers = 0
    for path in (WEIGHTS / part).glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            numbers += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    width = json.loads((WEIGHTS / part / "config.json").read_text(encoding="utf-8"))[setting]
    assert line
    assert f"{numbers / 1e6:.2f} million" in line[0]
    assert ", ".join(map(str, width)) in line[0] if isinstance(width, list) else f"width {width}" in line[0]
