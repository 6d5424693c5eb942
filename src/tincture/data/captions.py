"""What a picture is called: caption files, file names, prompt templates, shuffled and dropped tags.

The rules are those of the webui's Train tab, so that its data folders and templates work unchanged.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import regex

from tincture.data.caption_files import find_caption_file
from tincture.errors import DataError, UsageError, shortened
from tincture.kinds.registry import PLACEHOLDER
from tincture.settings.expressions import fault_of_expression

if TYPE_CHECKING:
    import numpy as np

NAME = PLACEHOLDER
FILEWORDS = "[filewords]"
SHIPPED = Path(__file__).parent / "templates"
LARGEST_TEMPLATE = 2**20
LARGEST_CAPTION = 2**20
"""In bytes; no tokenizer comes to an end with much more."""
REGEX_WITHIN_S = 1.0
"""So long a regular expression may look at one name: some never end, such as (a+)+$ at a name of many a's."""


def caption_for(
    path: Path, word_regex: str = "", join_string: str = " ", *, encoding: str = "utf-8", otherwise: str | None = None
) -> str:
    """The caption of the picture at `path`.

    It is the text of its `find_caption_file`, the lines joined to one. Without such a file it is
    `otherwise`; if that is None too, it comes from the picture's own name: without the ending and a leading run of
    digits and hyphens ("0012-1-a fox.png" gives "a fox"), and reduced to the matches of `word_regex`, joined by
    `join_string`, where a regex is given. A regex with one group stands for what the group matched.

    Args:
        encoding: of the text file, unless it begins with a byte order mark.

    Raises:
        DataError: the text file cannot be read in this encoding.
        UsageError: `word_regex` is not a regular expression or takes too long, or there is no such encoding.
    """
    return caption_in(find_caption_file(path), path, word_regex, join_string, encoding=encoding, otherwise=otherwise)


def caption_in(
    text_file: Path | None,
    path: Path,
    word_regex: str = "",
    join_string: str = " ",
    *,
    encoding: str = "utf-8",
    otherwise: str | None = None,
) -> str:
    """The same for a picture whose caption file is known: None where it has none."""
    if text_file is not None:
        return read_caption(text_file, encoding)
    return caption_in_name(path, word_regex, join_string) if otherwise is None else otherwise


def caption_in_name(path: Path, word_regex: str = "", join_string: str = " ") -> str:
    """The same of the name alone."""
    # A name that is not valid in the file system's encoding holds surrogates, which no tokenizer takes.
    stem = os.fsencode(path.stem).decode("utf-8", "replace")
    words = re.sub(r"^[-\d]+\s*", "", stem)
    return join_string.join(_matches(word_regex, words)) if word_regex else words


def written_caption(path: Path, encoding: str = "utf-8") -> str | None:
    """The caption in the text file beside the picture at `path`, as `caption_for` has it; None without such a file.

    Raises:
        DataError: the text file cannot be read in this encoding.
        UsageError: there is no such encoding.
    """
    text_file = find_caption_file(path)
    return None if text_file is None else read_caption(text_file, encoding)


def read_caption(text_file: Path, encoding: str = "utf-8") -> str:
    """The text of a caption file, its lines joined to one; errors as of ``written_caption``."""
    return joined_lines(_read_text(text_file, encoding))


def encoded_caption(text: str, encoding: str = "utf-8") -> bytes:
    """The content of a caption file that is read as ``text`` in this encoding: UTF-8, marked as such where need be."""
    content = text.encode()
    try:
        return content if _decode(content, encoding) == text else codecs.BOM_UTF8 + content
    except ValueError:
        return codecs.BOM_UTF8 + content


def joined_lines(text: str) -> str:
    """A text on one line, as captions are."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def load_template(path_or_name: str | Path, folder: Path | None = None) -> list[str]:
    """The lines of a prompt template, stripped, without empty ones.

    Args:
        path_or_name: A file; or the name, with or without .txt, of a template in `folder` or of a shipped one.
        folder: The workspace's templates. They go before shipped ones of the same name.

    Raises:
        UsageError: there is no such template, or no line in it.
    """
    name = f"{str(path_or_name).removesuffix('.txt')}.txt"
    candidates = [Path(path_or_name), *([folder / name] if folder else []), SHIPPED / name]
    # os.path.isfile, since Path.is_file raises for what is too long to be a path, such as a whole prompt.
    found = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
    if found is None:
        raise UsageError(
            f"There is no template {str(path_or_name)!r}. Give the path of a text file, or {_names(folder)}."
        )
    try:
        if found.stat().st_size > LARGEST_TEMPLATE:
            raise ValueError(f"it has more than {LARGEST_TEMPLATE:,} bytes, far more than prompts need")
        lines = [line.strip() for line in _decode(found.read_bytes()).splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(f"The template {found} cannot be read: {error}. Save it as UTF-8 text.") from error
    if not any(lines):
        raise UsageError(f"The template {found} is empty. Write one prompt per line into it, or give {_names(folder)}.")
    return [line for line in lines if line]


def template_names(folder: Path | None = None) -> list[str]:
    """What `load_template` takes for a name: the templates in `folder` first, then those that are shipped."""
    found = [path for place in (folder, SHIPPED) if place for path in sorted(place.glob("*.txt"))]
    return list(dict.fromkeys(path.stem for path in found))


def prompt_for(
    caption: str,
    template_lines: Sequence[str],
    name: str,
    rng: np.random.Generator,
    *,
    shuffle_tags: bool = False,
    keep_tags: int = 0,
    tag_drop_out: float = 0.0,
    caption_drop_out: float = 0.0,
) -> str:
    """One of the lines, drawn by `rng`, with `[filewords]` replaced by the caption and `[name]` by `name`.

    With `shuffle_tags` the caption's tags (its parts between commas) come in a drawn order; each is left out with the
    probability `tag_drop_out` (0..1), and the whole caption with `caption_drop_out`. The first `keep_tags` tags stay
    where they are and are never left out. A tag that holds `[name]` is never left out, nor is its caption. The line is
    drawn first, and drawn alike whatever happens to the tags.
    """
    line = template_lines[int(rng.integers(len(template_lines)))]
    if shuffle_tags or tag_drop_out > 0:
        tags = _tags(caption)
        first, tags = tags[:keep_tags], tags[keep_tags:]
        stays = rng.random(len(tags)) >= tag_drop_out
        order = rng.permutation(len(tags)) if shuffle_tags else range(len(tags))
        caption = ", ".join([*first, *(tags[i] for i in order if stays[i] or NAME in tags[i])])
    if caption_drop_out > 0 and rng.random() < caption_drop_out and NAME not in caption:
        caption = ", ".join(_tags(caption)[:keep_tags])
    return _fill(line, caption, name)


def possible_prompts(
    caption: str, template_lines: Sequence[str], name: str, *, keep_tags: int = 0, caption_drop_out: float = 0.0
) -> list[str]:
    """All that `prompt_for` may give where tags are neither shuffled nor left out one by one."""
    texts = [caption]
    if caption_drop_out > 0 and NAME not in caption:
        texts.append(", ".join(_tags(caption)[:keep_tags]))
    return [_fill(line, text, name) for line in template_lines for text in texts]


def _tags(caption: str) -> list[str]:
    return [tag.strip() for tag in caption.split(",") if tag.strip()]


def _fill(line: str, caption: str, name: str) -> str:
    return line.replace(FILEWORDS, caption).replace(NAME, name)


def _compiled(word_regex: str) -> regex.Pattern[str]:
    """Refuses, before it is compiled, what would take all memory then."""
    example = 'An example is "[\\w\']+".'
    if fault := fault_of_expression(word_regex):
        broken = fault.startswith("a regular expression (")
        words = f"is not {fault}" if broken else f"must be {fault}"
        raise UsageError(f"The word regex {shortened(word_regex)} {words}. {example}")
    try:
        return regex.compile(word_regex)
    except regex.error as error:
        raise UsageError(f"The word regex {word_regex!r} is not a regular expression: {error}. {example}") from error


def _matches(word_regex: str, text: str) -> list[str]:
    pattern = _compiled(word_regex)
    group = 1 if pattern.groups == 1 else 0
    try:
        return [match.group(group) or "" for match in pattern.finditer(text, timeout=REGEX_WITHIN_S)]
    except TimeoutError:
        raise UsageError(
            f"The word regex {word_regex!r} has not come to an end with {text!r} in {REGEX_WITHIN_S:g} s; write one "
            "without repetitions inside of repetitions."
        ) from None


def _read_text(path: Path, encoding: str) -> str:
    try:
        if path.stat().st_size > LARGEST_CAPTION:
            raise ValueError(f"it has more than {LARGEST_CAPTION:,} bytes, far more than a caption needs")
        return _decode(path.read_bytes(), encoding)
    except LookupError as error:
        raise UsageError(f"There is no encoding {encoding!r}. Give utf-8, latin-1, cp1252, shift_jis, ...") from error
    except (OSError, ValueError) as error:
        advice = "Save it as UTF-8 text, or give the encoding of all (--caption-encoding)"
        raise DataError(f"The caption file {path} cannot be read: {error}. {advice}.") from error


def _decode(data: bytes, encoding: str = "utf-8") -> str:
    """In `encoding`, or in that which a byte order mark at the beginning says (as Windows' editors write it)."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    text = data.decode(encoding)
    text.encode()  # refuses lone surrogates, which some encodings can spell and no tokenizer takes
    if "\0" in text:
        raise ValueError("it holds zero bytes, so it is no text or in another encoding")
    return text


def _names(folder: Path | None) -> str:
    return "one of " + ", ".join(sorted(template_names(folder)))
