"""What lies in deploy/ names only settings, flags, parts and files that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import typer

from tincture.cli.app import build_app
from tincture.cli.commands import load_command
from tincture.server.queue.supervisor import GRACE_S
from tincture.settings.server import ServerSettings

REPOSITORY = Path(__file__).parents[3]
DEPLOY = REPOSITORY / "deploy"
UNIT, CONTAINER, EXAMPLE = (DEPLOY / name for name in ("tincture.service", "Containerfile", "serve.toml"))


def served_flags() -> set[str]:
    """Flags of `tincture serve`, and those that may stand before it."""
    program = typer.main.get_command(build_app())
    return {name for command in (program, load_command("serve")) for option in command.params for name in option.opts}


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def instructions(name: str) -> list[str]:
    """What follows a word at the beginning of a line, with the lines that go on behind a backslash."""
    text = CONTAINER.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^\s*{name} (.*)$", text, re.MULTILINE)


def test_the_example_settings_are_settings_also_those_that_are_commented_out(tmp_path: Path) -> None:
    assert ServerSettings.from_toml(EXAMPLE) == ServerSettings()  # the keys that are on say the defaults
    whole = tmp_path / "serve.toml"
    text = EXAMPLE.read_text(encoding="utf-8")
    whole.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    settings = ServerSettings.from_toml(whole)
    assert len(settings.device) == 2 and settings.allow_host and settings.proxy and settings.allow_dir
    assert len(tomllib.loads(whole.read_text(encoding="utf-8"))) > len(tomllib.loads(text))


@pytest.mark.parametrize("path", [UNIT, CONTAINER], ids=lambda path: path.name)
def test_flags_are_those_of_serve(path: Path) -> None:
    if path is UNIT:
        (start,) = values(path.read_text(encoding="utf-8"), "ExecStart")
        words = start.split()
        assert words[1] == "serve"
    else:
        words = [word for name in ("ENTRYPOINT", "CMD") for line in instructions(name) for word in json.loads(line)]
        assert words[:2] == ["tincture", "serve"]
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert flags and flags <= served_flags()


def test_the_unit_gives_jobs_the_time_to_save_and_names_what_the_guide_installs() -> None:
    text = UNIT.read_text(encoding="utf-8")
    (stop,) = values(text, "TimeoutStopSec")
    assert int(stop) > GRACE_S
    guide = (REPOSITORY / "docs" / "serve.md").read_text(encoding="utf-8")
    for named in re.findall(r"/etc/tincture/[\w.]+", text):
        assert f" {named} " in f"{guide} ".replace("\n", " "), named
    for place in values(text, "Documentation"):
        assert not place.startswith("file:"), "nothing installs it"
    for source in re.findall(r"deploy/[\w.]+", guide):
        assert (REPOSITORY / source).is_file(), source


def test_the_container_copies_files_and_installs_parts_that_there_are() -> None:
    copied = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from")]
    assert copied
    for source in (source for sources in copied for source in sources):
        assert (REPOSITORY / source).exists(), source
    (parts,) = re.findall(r"'\.\[([\w,]+)\]'", CONTAINER.read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(parts.split(",")) <= set(project["optional-dependencies"])
    assert re.search(r"^torch==", (REPOSITORY / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
