"""Files of adapters as HTML: the list, what a file is, what a conversion wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.server.page.parts.markup import escape, facts, muted, plain, size, when

LONGEST = 300
"""Characters of one trait; a thumbnail within metadata may have megabytes."""
PICTURES = (".png", ".webp")
_APART = ("path", "notes", "lost", "provenance")


def table(files: Sequence[Mapping[str, Any]], steps: Mapping[str, int | None], shown: str) -> str:
    """Files to choose from.

    Args:
        files: as ``Service.files`` lists them.
        steps: by path, as far as they are known.
        shown: the path of the one that is looked at.
    """
    if not files:
        return muted("No files yet: create an embedding or a hypernetwork in the tab Train, or add a file.")
    rows = "".join(_row(file, steps, str(file["path"]) == shown) for file in files)
    head = "<tr><th>Name</th><th>Kind</th><th>Size</th><th>Step</th><th>Changed</th></tr>"
    return f'<div class="files"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _row(file: Mapping[str, Any], steps: Mapping[str, int | None], shown: bool) -> str:
    step = steps.get(file["path"])
    cells = (file["kind"], size(file["size"]), "" if step is None else f"{step:,}", when(file["mtime"]))
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    pressed = "true" if shown else "false"
    path, name = escape(file["path"]), escape(file["name"])
    button = f'<button type="button" data-file="{path}" aria-pressed="{pressed}">{name}</button>'
    return f"<tr><td>{button}</td>{row}</tr>"


def report(found: Mapping[str, Any], url: str = "") -> str:
    """What ``Service.inspect`` says of a file.

    Args:
        url: where the file can be fetched; empty: nowhere.
    """
    path = Path(found["path"])
    traits = facts((_label(key), _short(value)) for key, value in found.items() if key not in _APART)
    values = found.get("provenance") or {}
    provenance = facts((_label(key), _short(value)) for key, value in values.items() if not isinstance(value, Mapping))
    tables = {"Provenance": provenance, **{_label(key).capitalize(): _table(values[key]) for key in values}}
    return "".join(
        (
            f"<h2>{escape(path.name)}</h2>",
            f'<p><a href="{escape(url)}" download="{escape(path.name)}">Download</a></p>' if url else "",
            f'<img class="card" src="{escape(url)}" alt="{escape(path.name)}">' if url and _is_picture(path) else "",
            _sentences("notes", found),
            _sentences("lost", found),
            traits,
            *(f"<h3>{escape(title)}</h3>{shown}" for title, shown in tables.items() if shown),
        )
    )


def converted(written: Mapping[str, Any], url: str) -> str:
    """What ``Service.convert`` answered."""
    path = Path(written["path"])
    rows = [("file", path.name), ("format", written["format"]), ("name", written["name"])]
    lora = written.get("lora") or {}
    rows += [(_label(key), _short(value)) for key, value in lora.items()]
    card = f'<img class="card" src="{escape(url)}" alt="{escape(path.name)}">' if _is_picture(path) else ""
    return (
        f'<p class="done" role="status">Written. <a href="{escape(url)}" download="{escape(path.name)}">Download '
        f"{escape(path.name)}</a></p>{card}{_sentences('lost', written)}{facts(rows)}"
    )


def merged(written: Mapping[str, Any], url: str) -> str:
    """What ``Service.merge`` answered."""
    path = Path(written["path"])
    rows = [("file", path.name), ("kind", written["kind"]), ("method", written["method"])]
    rows += [(source["name"], f"weight {source['weight']:g}, step {source['step']:,}") for source in written["sources"]]
    for width, off in (written.get("differences") or {}).items():
        rows.append((f"off at width {width}", f"{off:.1%}" if off >= 0.0005 else "nothing, up to rounding"))
    link = f' <a href="{escape(url)}" download="{escape(path.name)}">Download {escape(path.name)}</a>' if url else ""
    return f'<p class="done" role="status">Written.{link}</p>{_sentences("lost", written)}{facts(rows)}'


def _table(value: Any) -> str:
    """Of what has parts of its own, such as the settings of the run."""
    return facts((_label(str(key)), _short(part)) for key, part in value.items()) if isinstance(value, Mapping) else ""


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def _sentences(key: str, found: Mapping[str, Any]) -> str:
    title = {"notes": "Odd about it", "lost": "Not taken along"}[key]
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.get(key) or ())
    return f"<h3>{title}</h3><ul>{listed}</ul>" if listed else ""


def _label(key: str) -> str:
    return key.replace("_", " ")


def _short(value: Any) -> str:
    text = plain(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def matching(files: Sequence[Mapping[str, Any]], words: str) -> Iterator[Mapping[str, Any]]:
    """Those whose name or kind has all the words in it."""
    wanted = words.lower().split()
    return (file for file in files if all(word in f"{file['name']} {file['kind']}".lower() for word in wanted))
