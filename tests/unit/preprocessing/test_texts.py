from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import DataError
from tincture.preprocessing.texts import compose, existing_caption, needs_words


@pytest.mark.parametrize(
    ("action", "with_existing", "without"),
    [
        ("copy", "mine", "a fox, red, tail"),
        ("ignore", "a fox, red, tail", "a fox, red, tail"),
        ("prepend", "mine, a fox, red, tail", "a fox, red, tail"),
        ("append", "a fox, red, tail, mine", "a fox, red, tail"),
    ],
)
def test_what_becomes_of_existing_captions(action: str, with_existing: str, without: str) -> None:
    said = ["a fox ", "", "red, tail"]
    assert compose("mine", said, action) == with_existing  # type: ignore[arg-type]
    assert compose(None, said, action) == without  # type: ignore[arg-type]
    empty = "" if action == "copy" else "a fox, red, tail"
    assert compose("", said, action) == empty  # type: ignore[arg-type]


def test_without_models_existing_ones_are_all_there_is() -> None:
    assert [compose("mine", [], action) for action in ("copy", "prepend", "append", "ignore")] == ["mine"] * 3 + [None]
    assert [compose("", [" "], action) for action in ("copy", "prepend", "append", "ignore")] == [""] * 3 + [None]
    assert compose(None, [" "], "copy") is None


def test_only_copying_an_existing_one_needs_no_words() -> None:
    assert not needs_words("mine", "copy")
    assert not needs_words("", "copy")
    assert needs_words(None, "copy") and needs_words("mine", "prepend") and needs_words("mine", "ignore")


def test_captions_come_from_files_then_from_metadata_but_never_from_names(tmp_path: Path) -> None:
    picture = tmp_path / "a red fox.png"
    assert existing_caption(picture, None) is None
    assert existing_caption(picture, " ") == ""
    assert existing_caption(picture, " from metadata ") == "from metadata"
    (tmp_path / "a red fox.caption").write_text("two\nlines\n")
    assert existing_caption(picture, "from metadata") == "two lines"
    (tmp_path / "a red fox.caption").write_text("\n")
    assert existing_caption(picture, "from metadata") == ""
    (tmp_path / "a red fox.txt").write_bytes("Käse".encode("cp1252"))
    with pytest.raises(DataError, match=r"a red fox\.txt"):
        existing_caption(picture, None)
    assert existing_caption(picture, None, "cp1252") == "Käse"
