"""How fast the page is there, and how fast it answers: Chromium's own figures, before ``tincture serve``.

python bench/page_speed.py            into bench/results
python bench/page_speed.py --loads 2  to see that it works

Each load is a browser of its own, with nothing in its cache. Per load: the first paint with something in it (the
browser's ``first-contentful-paint``); when the first field of New run shows what is typed into it; and for every tab
the time from the press of its button to the end of the second frame after it, and for a button in each, from its press
to the frame in which it looks busy. Whatever else runs on the machine counts:
see ``load_before``.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import machine  # noqa: E402
from bench.material import make_workspace  # noqa: E402
from bench.measure import spread  # noqa: E402

RESULTS = ROOT / "bench" / "results"
PICTURES = 16
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# what Chromium would ask its makers in between counts as the page's time
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
PATIENCE_MS = 120_000
# the bounds that the page is held to, in milliseconds, on an idle machine with 2 cores
BOUNDS = {"first paint": 1500.0, "interactive": 3000.0, "tab": 100.0, "button": 100.0}

# In the page from its beginning: when a letter that is typed by the page itself into New run's steps stays there.
WATCH = """() => {
  window.interactive = new Promise((resolve) => {
    const look = () => {
      const field = document.querySelector("#tr-steps input");
      if (!field || !field.checkVisibility() || field.disabled) return requestAnimationFrame(look);
      field.focus();
      field.value = "123";
      field.dispatchEvent(new Event("input", { bubbles: true }));
      requestAnimationFrame(() => requestAnimationFrame(() => {
        if (field.isConnected && field.value === "123") resolve(performance.now());
        else look();
      }));
    };
    look();
  });
}"""
PAINTED = """() => new Promise((resolve) => new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint")[0];
  if (found) resolve(found.startTime);
}).observe({ type: "paint", buffered: true }))"""
SWITCH = """(tab) => new Promise((resolve) => {
  const began = performance.now();
  tab.click();
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - began)));
})"""
# places within the page and the button there whose request is refused or reads only: from its press to looking busy
PRESSED = {
    ("train", "create-embedding"): "ce-create",
    ("train", "train"): "tr-start-embedding",
    ("train", "preprocess"): "pp-start",
    ("try-it", ""): "try-draw",
    ("settings", ""): "settings-examine",
}
SHOWN = """(id) => {
  const button = document.getElementById(id);
  window.shown = new Promise((resolve) => {
    let began = null;
    button.addEventListener("pointerdown", () => { began = performance.now(); }, { capture: true, once: true });
    new MutationObserver((_, observer) => {
      observer.disconnect();
      requestAnimationFrame(() => resolve(performance.now() - began));
    }).observe(button, { attributes: true, attributeFilter: ["aria-busy"] });
  });
}"""
WEIGHT = """() => ({
  elements: document.querySelectorAll("*").length,
  components: window.gradio_config.components.length,
  config_bytes: JSON.stringify(window.gradio_config).length,
  requests: performance.getEntriesByType("resource").length,
  transferred_bytes: performance.getEntriesByType("resource").reduce((sum, one) => sum + one.transferSize, 0),
  largest: performance.getEntriesByType("resource").sort((a, b) => b.decodedBodySize - a.decodedBodySize).slice(0, 8)
    .map((one) => [new URL(one.name).pathname, one.decodedBodySize]),
})"""


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of ``tincture serve`` on a workspace with a few pictures."""
    workspace = make_workspace(root / "workspace", PICTURES)
    command = [sys.executable, "-m", "tincture", "--root", str(workspace.root), "--json", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        stated = "".join(iter(process.stdout.readline, "}\n")) + "}"  # an object over several lines
        try:
            yield str(json.loads(stated)["url"]).rstrip("/") + "/"
        finally:
            process.terminate()


def browse(url: str, loads: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What each load took, and how much the page weighs. A load before them, not counted, warms the server."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    with sync_playwright() as driver:
        rounds = []
        for _ in range(loads + 1):
            browser = driver.chromium.launch(executable_path=path, args=FLAGS)
            taken, weight = load(browser, url)
            rounds.append(taken)
            browser.close()
    return rounds[1:], weight


def load(browser: Browser, url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Milliseconds of one load, by name; and the page's weight."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(f"({WATCH})()")
    page.goto(url, wait_until="commit")
    page.locator("#train-tabs [role=tab][data-tab-id=train]").wait_for()
    if page.locator("#tr-steps input").count() == 0 or not page.locator("#tr-steps input").is_visible():
        page.locator("#train-tabs [role=tab][data-tab-id=train]").click()
    interactive = float(page.evaluate("window.interactive"))
    taken = {"first paint": float(page.evaluate(PAINTED)), "interactive": interactive, "tabs": switch_all(page)}
    taken["buttons"] = press_all(page)
    return taken, page.evaluate(WEIGHT)


def switch_all(page: Page) -> dict[str, list[float]]:
    """Milliseconds by tab: the first time it is opened, and the second."""
    page.wait_for_timeout(2000)  # until the lists are read, which every load asks for
    tabs = page.locator("#tabs [role=tab][data-tab-id]")
    found: dict[str, list[float]] = {}
    for _ in range(2):
        for tab in tabs.all():
            if not tab.is_visible():  # within a tab that is not open now
                continue
            name = str(tab.get_attribute("data-tab-id"))
            found.setdefault(name, []).append(float(tab.evaluate(SWITCH)))
            page.wait_for_timeout(1500)  # what it asks of the server is no part of the next one
    return found


def press_all(page: Page) -> dict[str, float]:
    """Milliseconds by button until it looks busy."""
    found = {}
    for (tab, inner), button in PRESSED.items():
        for within, name in (("tabs", tab), ("train-tabs", inner)):
            if name:
                page.locator(f"#{within} [role=tab][data-tab-id={name}]").first.click()
        page.wait_for_timeout(1000)
        page.locator(f"#{button}").scroll_into_view_if_needed()
        page.evaluate(SHOWN, button)
        page.locator(f"#{button}").click()
        found[button] = float(page.evaluate("window.shown"))
        page.wait_for_function("document.querySelectorAll('button[aria-busy=true]').length === 0")
    return found


def measure(root: Path, loads: int) -> dict[str, Any]:
    """Everything that a results file holds; times in milliseconds."""
    head = {"date": datetime.date.today().isoformat(), **machine.commit(), "machine": machine.describe()}
    with served(root) as url:
        rounds, weight = browse(url, loads)
    tabs = {
        f"{name}, {'again' if turn else 'first'}": spread([one["tabs"][name][turn] for one in rounds])
        for name in rounds[0]["tabs"]
        for turn in range(min(len(one["tabs"][name]) for one in rounds))
    }
    return {
        **head,
        "loads": loads,
        **{name: spread([one[name] for one in rounds]) for name in ("first paint", "interactive")},
        "tabs": tabs,
        "buttons": {name: spread([one["buttons"][name] for one in rounds]) for name in rounds[0]["buttons"]},
        "weight": weight,
        "all_rounds": rounds,
    }


def tables(results: dict[str, Any]) -> str:
    """As Markdown: median (least to greatest), and the bound that it is held to."""
    rows = {name: (results[name], BOUNDS[name]) for name in ("first paint", "interactive")}
    rows |= {f"tab {name}": (found, BOUNDS["tab"]) for name, found in results["tabs"].items()}
    rows |= {f"button {name}": (found, BOUNDS["button"]) for name, found in results["buttons"].items()}
    weight = results["weight"]
    lines = [
        f"{results['date']}, commit {str(results['commit'])[:10]}{' with changes' if results['changed'] else ''}, "
        f"{results['machine']['cpu']}, {results['machine']['cores']} cores, load before the start "
        f"{results['machine']['load_before']}; {results['loads']} loads.\n",
        "| What | median (least to greatest), ms | at most |\n| --- | --- | --- |",
        *(
            f"| {name} | {found['median']:.0f} ({found['min']:.0f} to {found['max']:.0f}) | {bound:.0f} |"
            for name, (found, bound) in rows.items()
        ),
        f"\n{weight['components']} components, {weight['elements']} elements, configuration of "
        f"{weight['config_bytes'] / 1000:.0f} kB, {weight['requests']} requests, "
        f"{weight['transferred_bytes'] / 1000:.0f} kB over the line.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", type=int, default=7, help="how often the page is opened (default 7)")
    parser.add_argument("--out", type=Path, help="the results file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tincture-bench-") as root:
        results = measure(Path(root), args.loads)
    path = args.out or RESULTS / f"{results['date']}-page.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
