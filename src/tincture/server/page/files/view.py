"""Files of adapters as HTML: the list, what a file is, what a conversion or a merge wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.run.past.origin import RunOrigin
from tincture.server.page.parts.markup import escape, facts, muted, plain, served_url, size, when
from tincture.server.page.parts.way_on import download, path_to_copy, way, ways

LONGEST = 300
"""Characters of one trait; a thumbnail within metadata may have megabytes."""
MOST_PREVIEWS = 4
PICTURES = (".png", ".webp")
_APART = ("notes", "lost", "provenance")


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


def card(found: Mapping[str, Any], origin: RunOrigin | None, served: Sequence[Path], *, again: str = "") -> str:
    """What a file is and how it came about, in a few lines, and what can be done with it.

    Args:
        found: what ``Service.inspect`` says of the file.
        origin: its run, where that is in the workspace.
        served: folders whose files the page may give out.
        again: what the button is called that leads on to a training; empty: there is none.
    """
    path, parts = Path(found["path"]), [str(found[key]) for key in ("kind", "format") if found.get(key)]
    url = served_url(path, served)
    kind = ", ".join([*parts, *([size(found["bytes"])] if "bytes" in found else [])])
    return "".join(
        (
            f'<section class="file-card"><h2>{escape(path.name)}</h2>{muted(kind)}',
            f'<img class="card" src="{escape(url)}" alt="{escape(path.name)}">' if url and _is_picture(path) else "",
            f'<div class="file-made">{facts(_provenance(found, origin))}{_previews(origin, served)}</div>',
            ways(
                way(again, "file", str(path), strong=True) if again else "",
                download(url, path.name, "Download") if url else "",
                path_to_copy(str(path)),
            ),
            "</section>",
        )
    )


def _provenance(found: Mapping[str, Any], origin: RunOrigin | None) -> Iterator[tuple[str, str]]:
    """Model, pictures, steps and so on; texts are empty where the file does not say it."""
    made = found.get("provenance")
    made = made if isinstance(made, Mapping) else {}
    settings = made.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    yield "Model", _short(found.get("model_name") or settings.get("model"))
    yield "Data", _short(settings.get("data"))
    yield "Steps", f"{found['step']:,}" if isinstance(found.get("step"), int) else ""
    yield "Rate", _short(settings.get("learning_rate"))
    yield "Batch", _batch(settings)
    if origin is not None and origin.loss is not None:
        yield "Loss", f"{origin.loss:.4f}, mean of its last {origin.loss_steps:,} steps"
    yield "Merged", _merged_of(made.get("merged"))
    yield "Best", _short(made.get("best"))
    yield "Date", _written(found, made)
    yield "Author", _short(made.get("author"))
    yield "Licence", _short(made.get("license"))


def _batch(settings: Mapping[str, Any]) -> str:
    size, parts = settings.get("batch_size"), settings.get("gradient_accumulation_steps")
    return f"{_short(size)} × {_short(parts)}" if size and parts not in (None, 1) else _short(size)


def _merged_of(merged: Any) -> str:
    if not isinstance(merged, Mapping) or not isinstance(sources := merged.get("sources"), list):
        return ""
    parts = [f"{each.get('name')} × {plain(each.get('weight'))}" for each in sources if isinstance(each, Mapping)]
    return f"{_short(merged.get('method'))}: {_short(' + '.join(parts))}"


def _written(found: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The day that the file states, or when it was written."""
    if isinstance(stated := made.get("date"), str):
        return _short(stated)
    try:
        return when(Path(found["path"]).stat().st_mtime)
    except OSError:
        return ""


def _previews(origin: RunOrigin | None, served: Sequence[Path]) -> str:
    if origin is None or not origin.previews:
        return ""
    title = f"Preview at step {origin.preview_step:,}"
    urls = [url for path in origin.previews[:MOST_PREVIEWS] if (url := served_url(path, served))]
    shown = "".join(f'<img src="{escape(url)}" alt="{title}" title="{title}" loading="lazy">' for url in urls)
    return f'<div class="file-previews">{shown}</div>' if shown else ""


def report(found: Mapping[str, Any]) -> str:
    """All that ``Service.inspect`` says of a file."""
    traits = facts((_label(key), _short(value)) for key, value in found.items() if key not in _APART)
    values = found.get("provenance") or {}
    provenance = facts((_label(key), _short(value)) for key, value in values.items() if not isinstance(value, Mapping))
    tables = {"Provenance": provenance, **{_label(key).capitalize(): _table(values[key]) for key in values}}
    shown = "".join(f"<h3>{escape(title)}</h3>{table}" for title, table in tables.items() if table)
    return f"{_sentences('notes', found)}{_sentences('lost', found)}{traits}{shown}"


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
