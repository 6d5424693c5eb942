from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tincture.data.caption_files import caption_files
from tincture.data.captions import caption_for, encoded_caption, load_template, possible_prompts, prompt_for
from tincture.errors import DataError, UsageError
from tincture.kinds.registry import find_kind

GOLDEN = Path(__file__).parents[2] / "golden" / "data"
FILEWORDS = json.loads((GOLDEN / "filewords.json").read_text(encoding="utf-8"))
SHIPPED = ["hypernetwork", "none", "style", "style_filewords", "subject", "subject_filewords"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("case", FILEWORDS, ids=lambda case: f"{case['file']} {case['word_regex']}")
def test_captions_from_file_names_are_the_webuis(case: dict[str, Any]) -> None:
    assert caption_for(Path("pictures") / case["file"], case["word_regex"], case["join"]) == case["text"]


def test_a_group_in_the_word_regex_stands_for_its_match() -> None:
    assert caption_for(Path("cat(1) dog(2).png"), r"([a-z]+)\(", "+") == "cat+dog"
    assert caption_for(Path("cat(1) dog(2).png"), r"([a-z]+)\((\d)\)", "+") == "cat(1)+dog(2)"


def test_a_caption_file_goes_before_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "1-fox.png.txt").write_text("not this one")
    (tmp_path / "1-fox.txt").write_text("a red fox, snow\n", encoding="utf-8")
    assert caption_for(tmp_path / "1-fox.png", r"\w", "-") == "a red fox, snow"
    assert caption_for(tmp_path / "2-fox.png") == "fox"


def test_where_a_caption_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "1-a fox.png"
    assert caption_for(path) == "a fox"
    assert caption_for(path, otherwise="from a list") == "from a list"
    assert caption_for(path, otherwise="") == ""
    path.with_suffix(".caption").write_text("caption")
    assert caption_for(path, otherwise="from a list") == "caption"
    path.with_suffix(".txt").write_text("txt")
    assert caption_for(path, otherwise="from a list") == "txt"


@pytest.mark.parametrize(
    "name", ["1.txt", "1.caption", "1.TXT", "1.CAPTION", "1.png.txt", "1.png.caption", "1.png.TXT", "1.png.CAPTION"]
)
def test_a_caption_file_may_be_called_in_many_ways(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a red square")
    assert caption_for(tmp_path / "1.png", otherwise="none") == "a red square"
    assert caption_for(tmp_path / "2.png", otherwise="none") == "none"
    (tmp_path / "1.txt").write_text("the usual one")
    assert caption_for(tmp_path / "1.png") == "the usual one"
    assert name in [path.name for path in caption_files(tmp_path / "1.png")]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("latin-1", "café".encode("latin-1")),
        ("utf-16-le", "café".encode("utf-16-le")),
        ("latin-1", b"\xef\xbb\xbf" + "café".encode()),
        ("latin-1", "café".encode("utf-16")),
        ("utf-8", "café".encode()),
    ],
)
def test_an_encoding_may_be_given_and_a_byte_order_mark_goes_before_it(
    tmp_path: Path, encoding: str, content: bytes
) -> None:
    (tmp_path / "fox.txt").write_bytes(content)
    assert caption_for(tmp_path / "fox.png", encoding=encoding) == "café"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "ascii", "utf-16", "utf-16-le", "shift_jis"])
@pytest.mark.parametrize("text", ["a red moon", "a café, \N{SNOWMAN}", ""])
def test_a_caption_is_written_so_that_it_is_read_as_it_was(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "fox.txt").write_bytes(encoded_caption(text, encoding))
    assert caption_for(tmp_path / "fox.png", encoding=encoding) == text
    if encoding == "utf-8" or (text.isascii() and not encoding.startswith("utf-16")):
        assert encoded_caption(text, encoding) == text.encode()  # a mark only where it is needed


def test_lone_surrogates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_bytes(b"a \\ud800 fox")
    with pytest.raises(DataError, match=r"fox\.txt cannot be read.*surrogates"):
        caption_for(tmp_path / "fox.png", encoding="unicode_escape")


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_bytes(b"a fox")
    with pytest.raises(UsageError, match="no encoding 'klingon'"):
        caption_for(tmp_path / "fox.png", encoding="klingon")


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"", ""),
        ("a café\r\n\r\n  at night \n".encode(), "a café at night"),
        (b"\xef\xbb\xbfa fox", "a fox"),
        ("a café".encode("utf-16"), "a café"),
        (b"\xfe\xff" + "a café".encode("utf-16-be"), "a café"),
        ("a café".encode("utf-32"), "a café"),
        (b"\0\0\xfe\xff" + "a café".encode("utf-32-be"), "a café"),
    ],
    ids=["empty", "lines", "utf-8 with mark", "utf-16", "utf-16 big endian", "utf-32", "utf-32 big endian"],
)
def test_caption_files_as_editors_write_them(tmp_path: Path, content: bytes, caption: str) -> None:
    (tmp_path / "fox.txt").write_bytes(content)
    assert caption_for(tmp_path / "fox.png") == caption


@pytest.mark.parametrize(
    "content", ["a café".encode("latin-1"), "a fox".encode("utf-16-le"), b"\xff\xfea", bytes(range(256)), b"a\0b"]
)
def test_a_caption_in_another_encoding_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fox.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"fox\.txt cannot be read.*UTF-8.*`caption_encoding`"):
        caption_for(tmp_path / "fox.png")


def test_a_file_that_is_far_too_large_for_a_caption_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "fox.txt").open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(DataError, match=r"fox\.txt cannot be read: it has more than 1,048,576 bytes"):
        caption_for(tmp_path / "fox.png")
    (tmp_path / "fox.txt").write_bytes(b"x" * 2**20)
    assert len(caption_for(tmp_path / "fox.png")) == 2**20


def test_a_file_name_in_another_encoding_gives_a_caption_that_can_be_encoded() -> None:
    assert caption_for(Path("caf\udce9.png")) == "caf\ufffd"


def test_a_broken_word_regex_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'\(a' is not a regular expression"):
        caption_for(Path("fox.png"), "(a")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_templates(name: str) -> None:
    lines = load_template(name)
    assert lines == load_template(f"{name}.txt")
    assert lines == [line.strip() for line in lines if line.strip()]
    assert all("[filewords]" in line for line in lines) == (name.endswith("filewords") or name == "hypernetwork")
    assert all("[name]" in line for line in lines) == (name not in ("hypernetwork", "none"))


def test_the_usual_template_of_an_embedding_says_nothing_but_its_name_and_the_caption() -> None:
    lines = load_template(find_kind("embedding").template)
    rests = {line.replace("[name]", "").replace("[filewords]", "").replace(",", "").strip() for line in lines}
    assert rests <= {"", "a"}  # no medium: a model that never saw a photo learns a subject more slowly from it


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeff  a [name]\r\n\r\n[filewords]\n\n".encode())
    assert load_template(path) == load_template(str(path)) == ["a [name]", "[filewords]"]


def test_the_workspaces_templates_go_before_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "style.txt").write_text("mine, [name]")
    (tmp_path / "other.txt").write_text("other, [name]")
    assert load_template("style", tmp_path) == load_template("style.txt", tmp_path) == ["mine, [name]"]
    assert load_template("other", tmp_path) == ["other, [name]"]
    assert load_template("subject", tmp_path) == load_template("subject")
    assert load_template("subject", tmp_path / "missing") == load_template("subject")


@pytest.mark.parametrize("name", ["sujbect", "", ".", "a photo of [name], " * 40, "a\0b"])
def test_a_missing_template_is_refused_with_the_names_there_are(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.txt").write_text("other, [name]")
    with pytest.raises(UsageError) as refused:
        load_template(name, tmp_path)
    assert all(known in str(refused.value) for known in [repr(name), "other", *SHIPPED])


@pytest.mark.parametrize("content", [b"", b"\n  \r\n"])
def test_an_empty_template_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.txt is empty.*subject_filewords"):
        load_template(tmp_path / "mine.txt")


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UsageError, match=r"mine\.txt cannot be read"):
        load_template(tmp_path / "mine.txt")


def test_placeholders_are_replaced_in_every_place() -> None:
    lines = ["[name]: [filewords] ([name], [filewords])"]
    assert prompt_for("a fox, snow", lines, "<x>", rng()) == "<x>: a fox, snow (<x>, a fox, snow)"


def test_a_file_that_is_far_too_large_for_a_template_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "vast.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match=r"vast\.txt cannot be read: it has more than 1,048,576 bytes"):
        load_template(tmp_path / "vast.txt")


def test_what_a_caption_holds_is_not_a_template() -> None:
    assert prompt_for("[filewords] sign", ["[filewords]"], "x", rng()) == "[filewords] sign"
    assert prompt_for(r"\1 a, {b} %s", ["[filewords]"], r"\g<0>", rng()) == r"\1 a, {b} %s"


def test_every_line_is_drawn_about_as_often_and_only_by_the_given_generator() -> None:
    lines = [f"{i} [name]" for i in range(4)]
    drawn = [prompt_for("", lines, "x", rng(seed)) for seed in range(400)]
    assert all(60 < drawn.count(f"{i} x") < 140 for i in range(4))
    assert drawn == [prompt_for("", lines, "x", rng(seed)) for seed in range(400)]


def test_the_line_does_not_depend_on_what_happens_to_the_tags() -> None:
    lines = [f"{i}:[filewords]" for i in range(9)]
    for seed in range(50):
        plain = prompt_for("a,b,c", lines, "x", rng(seed))
        changed = prompt_for("a,b,c", lines, "x", rng(seed), shuffle_tags=True, tag_drop_out=0.5)
        assert plain.split(":")[0] == changed.split(":")[0]


def test_shuffled_tags_are_the_same_tags_in_every_order() -> None:
    prompts = {prompt_for("a, b ,c", ["[filewords]"], "x", rng(seed), shuffle_tags=True) for seed in range(100)}
    assert prompts == {"a, b, c", "a, c, b", "b, a, c", "b, c, a", "c, a, b", "c, b, a"}


def test_each_tag_is_dropped_with_the_given_probability_and_the_others_keep_their_order() -> None:
    caption = ", ".join(f"tag{i:02}" for i in range(50))
    prompts = [prompt_for(caption, ["[filewords]"], "x", rng(seed), tag_drop_out=0.3) for seed in range(100)]
    kept = [prompt.split(", ") for prompt in prompts]
    assert all(tags == sorted(tags) for tags in kept)
    assert 0.67 < sum(map(len, kept)) / 5000 < 0.73


def test_the_first_tags_keep_their_place_and_are_never_dropped() -> None:
    def prompts(keep_tags: int, **chances: float) -> set[str]:
        options = {"shuffle_tags": True, "keep_tags": keep_tags, **chances}
        return {prompt_for("rex, b, c", ["[filewords]"], "x", rng(seed), **options) for seed in range(100)}  # type: ignore[arg-type]

    assert prompts(1) == {"rex, b, c", "rex, c, b"}
    assert prompts(2) == prompts(3) == prompts(9) == {"rex, b, c"}
    assert prompts(1, tag_drop_out=0.5) == {"rex, b, c", "rex, c, b", "rex, b", "rex, c", "rex"}
    assert prompts(2, caption_drop_out=1.0) == {"rex, b"}
    assert len(prompts(0)) == 6


def test_keeping_no_tags_draws_as_ever() -> None:
    drawn = [
        prompt_for("a, b, c, d", ["[filewords]"], "x", rng(seed), shuffle_tags=True, tag_drop_out=0.3)
        for seed in range(5)
    ]
    assert drawn == ["a", "d, a, b", "c", "d, c", "a, b, c"]


def test_the_placeholder_is_never_dropped() -> None:
    lines = ["[name], [filewords]"]
    assert prompt_for("a, b", lines, "x", rng(), tag_drop_out=1.0) == "x, "
    assert prompt_for("a, the [name] here, b", ["[filewords]"], "x", rng(), tag_drop_out=1.0) == "the x here"


def test_without_shuffle_and_drop_out_the_caption_stays_as_it_is() -> None:
    assert prompt_for(" a ,b,, c", ["[filewords]"], "x", rng(), shuffle_tags=False, tag_drop_out=0.0) == " a ,b,, c"


def test_whole_captions_are_dropped_with_the_given_probability_but_not_the_placeholder() -> None:
    prompts = [prompt_for("a, b", ["x: [filewords]"], "x", rng(seed), caption_drop_out=0.3) for seed in range(1000)]
    assert set(prompts) == {"x: a, b", "x: "}
    assert 240 < prompts.count("x: ") < 360
    assert prompt_for("a [name]", ["[filewords]"], "x", rng(), caption_drop_out=1.0) == "a x"


@pytest.mark.parametrize("drop_out", [0.0, 0.5])
@pytest.mark.parametrize("keep_tags", [0, 1])
@pytest.mark.parametrize("caption", ["red, blue, moon", "[name], red"])
def test_possible_prompts_are_those_that_are_drawn(caption: str, keep_tags: int, drop_out: float) -> None:
    lines = ["a [filewords] of [name]", "[name]", "[filewords]"]
    drawn = {
        prompt_for(caption, lines, "cat", rng(seed), keep_tags=keep_tags, caption_drop_out=drop_out)
        for seed in range(100)
    }
    assert drawn == set(possible_prompts(caption, lines, "cat", keep_tags=keep_tags, caption_drop_out=drop_out))
