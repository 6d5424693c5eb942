"""Serves the page on picto with everything ready to train: two data sets, an embedding and a hypernetwork.

python tools/demo_web.py [FOLDER] [--port PORT] [--no-browser]

FOLDER is the workspace, made when it is not there; what is in it already stays as it is. Ctrl-C ends the server; what
it was training goes on at the next start.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

EMBEDDING, HYPERNETWORK = "my-moon", "my-sunset"
SUBJECT, STYLE = "small cyan dotted moon", "sunset"


def prepare(root: Path) -> list[str]:
    """Makes in the workspace ``root`` what is not there yet, and says what."""
    from tincture import recipe
    from tincture.kinds import embedding as embedding_kind
    from tincture.kinds import hypernetwork as hypernetwork_kind
    from tincture.models.picto import world
    from tincture.run import demo
    from tincture.workspace import Workspace

    root.mkdir(parents=True, exist_ok=True)
    workspace, made = Workspace.open(root), []
    if not (moon := workspace.datasets / "moon").exists():
        scenes, _ = demo.subject_scenes(world.parse_subject(SUBJECT), 0)
        demo.write_pictures(moon, scenes, [", ".join(scene.tags()[1:]) for scene in scenes])
        made.append(f"{moon}: {len(scenes)} pictures of a {SUBJECT}, to teach an embedding")
    if not (sunset := workspace.datasets / "sunset").exists():
        scenes = demo.random_scenes(demo.STYLE_PICTURES, 0, "style", STYLE)
        demo.write_pictures(sunset, scenes, [scene.caption() for scene in scenes])
        made.append(f"{sunset}: {len(scenes)} pictures in the style {STYLE}, to teach a hypernetwork")
    if not (caption := workspace.templates / "caption.txt").exists():
        caption.parent.mkdir(parents=True, exist_ok=True)
        caption.write_text("[filewords]\n", encoding="utf-8")
        made.append(f"{caption}: a prompt template for the style, the caption and nothing else")
    if not workspace.adapter_path("embedding", EMBEDDING).exists():
        options = embedding_kind.EMBEDDING.preset_options
        made.append(str(recipe.create_embedding(EMBEDDING, workspace=workspace, **options)))
    if not workspace.adapter_path("hypernetwork", HYPERNETWORK).exists():
        options = hypernetwork_kind.HYPERNETWORK.preset_options
        made.append(str(recipe.create_hypernetwork(HYPERNETWORK, workspace=workspace, **options)))
    return made


def serve(root: Path, port: int, browse: bool) -> int:
    """Runs ``tincture serve`` until it ends, and returns its exit code; opens the page once it answers."""
    command = [sys.executable, "-m", "tincture", "serve", "--root", str(root), "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            told = ""
            for line in server.stdout or ():
                told += line
                if line.rstrip() == "}" and browse:  # said once, when it listens
                    open_browser(json.loads(told)["url"])
            return server.wait()
        except KeyboardInterrupt:  # the server got it too, and saves; a second one, and it leaves at once
            while True:
                with suppress(KeyboardInterrupt):
                    return server.wait()


def open_browser(url: str) -> bool:
    """Opens ``url`` where there is a browser with a window; never fails."""
    has_window = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not has_window:  # else a browser for terminals would take this one
        return False
    with suppress(OSError, webbrowser.Error):
        return webbrowser.open(url)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo-web"), metavar="FOLDER")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args(arguments)
    root = options.folder.resolve()
    # In a process of its own, so that torch does not stay in the memory.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        for line in processes.submit(prepare, root).result():
            print(line, file=sys.stderr)
    return serve(root, options.port, not options.no_browser)


if __name__ == "__main__":
    raise SystemExit(main())
