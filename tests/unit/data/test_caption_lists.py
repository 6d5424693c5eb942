from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tincture.data.caption_lists import read_metadata


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ["a.png", "b.png", "in/c.png", "ä ö.png"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "outside.png").touch()
    return folder


def read(folder: Path, content: str | bytes, name: str = "metadata.jsonl") -> tuple[dict[str, str], str]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    captions, remarks = read_metadata(folder)
    assert len(remarks) <= 1
    return {path.relative_to(folder).as_posix(): text for path, text in captions.items()}, "".join(remarks)


def row(**values: object) -> str:
    return json.dumps(values) + "\n"


def test_captions_by_picture(folder: Path) -> None:
    lines = row(file_name="a.png", text="a fox", label=3) + "\n" + row(file_name="in/c.png", caption="a wolf\nat night")
    lines += row(file_name="./ä ö.png", text="", caption="not this one")
    assert read(folder, lines) == ({"a.png": "a fox", "in/c.png": "a wolf at night", "ä ö.png": ""}, "")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_as_editors_write_them(folder: Path, ending: str) -> None:
    lines = (
        "\ufeff" + row(file_name="a.png", text="café").replace("\n", ending) + row(file_name="b.png", text="b").strip()
    )
    assert read(folder, lines) == ({"a.png": "café", "b.png": "b"}, "")


def test_csv(folder: Path) -> None:
    content = '\ufefffile_name,text\na.png,"a fox, snow"\nb.png,"two\nlines"\nmissing.png,x\nin/c.png\n'
    captions, remark = read(folder, content, "metadata.csv")
    assert captions == {"a.png": "a fox, snow", "b.png": "two lines"}
    assert "line 5 names 'missing.png', which does not exist" in remark
    assert "line 6 has no text or caption for 'in/c.png'" in remark


def test_json_lines_go_before_csv(folder: Path) -> None:
    read(folder, "file_name,text\na.png,csv\n", "metadata.csv")
    assert read(folder, row(file_name="a.png", text="jsonl")) == ({"a.png": "jsonl"}, "")


def test_no_metadata(folder: Path) -> None:
    assert read_metadata(folder) == ({}, [])
    (folder / "metadata.jsonl").mkdir()
    assert read_metadata(folder) == ({}, [])


BAD = {
    "{": "is not JSON",
    "[" * 100_000: "is not JSON",
    '{"file_name": "b.png", "text": ' + "9" * 5000 + "}": "is not JSON",
    '"a.png"': "is not an object like",
    "[1]": "is not an object like",
    "null": "is not an object like",
    '{"text": "x"}': "has no file_name",
    '{"file_name": 3, "text": "x"}': "has no file_name",
    '{"file_name": " ", "text": "x"}': "has no file_name",
    '{"file_name": "b.png"}': "has no text or caption for 'b.png'",
    '{"file_name": "b.png", "text": null, "caption": ["x"]}': "has no text or caption for 'b.png'",
    '{"file_name": "gone.png", "text": "x"}': "names 'gone.png', which does not exist",
    '{"file_name": "in", "text": "x"}': "names 'in', which does not exist",
    '{"file_name": "a\\u0000.png", "text": "x"}': "which does not exist",
    '{"file_name": "\\ud800.png", "text": "x"}': "which does not exist",
    '{"file_name": "../outside.png", "text": "x"}': "names '../outside.png', which may lie outside the folder",
    '{"file_name": "in/../b.png", "text": "x"}': "which may lie outside the folder",
    '{"file_name": "a.png", "text": "x"}': "names 'a.png' again; the first counts",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:40])
def test_a_bad_line_is_told_and_passed_over(folder: Path, line: str) -> None:
    captions, remark = read(
        folder, row(file_name="a.png", text="a") + line + "\n" + row(file_name="in/c.png", text="c")
    )
    assert captions == {"a.png": "a", "in/c.png": "c"}
    assert remark.startswith(f"In {folder / 'metadata.jsonl'}, line 2 ")
    assert BAD[line] in remark


def test_absolute_paths_are_refused_even_into_the_folder(folder: Path) -> None:
    captions, remark = read(folder, row(file_name=str(folder / "a.png"), text="a"))
    assert captions == {}
    assert "may lie outside" in remark


def test_a_line_in_another_encoding_costs_only_itself(folder: Path) -> None:
    lines = row(file_name="a.png", text="a").encode() + '{"file_name": "b.png", "text": "café"}\n'.encode("latin-1")
    captions, remark = read(folder, lines + row(file_name="in/c.png", text="c").encode())
    assert captions == {"a.png": "a", "in/c.png": "c"}
    assert "line 2 is not UTF-8 text" in remark


def test_of_many_bad_lines_the_first_are_told(folder: Path) -> None:
    captions, remark = read(folder, "x\n" * 100)
    assert captions == {}
    assert remark.count("is not JSON") == 5
    assert "and 95 more faults; what is wrong is passed over." in remark


@pytest.mark.parametrize(
    "content", [b"file_name,text\na.png,a\nb.png,caf\xe9\n", b'file_name,text\na.png,a\nb.png,"' + b"x" * 200_000]
)
def test_csv_that_breaks_off_keeps_what_came_before(folder: Path, content: bytes) -> None:
    captions, remark = read(folder, content, "metadata.csv")
    assert captions in ({"a.png": "a"}, {})  # what is decoded ahead is lost with the bad bytes
    assert "the rest cannot be read" in remark


def test_a_file_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "metadata.jsonl").touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    captions, (remark,) = read_metadata(folder)
    assert captions == {}
    assert "Permission denied" in remark


def test_captions_can_always_be_encoded(folder: Path) -> None:
    captions, _ = read(folder, '{"file_name": "a.png", "text": "a \\ud800 b"}\n')
    assert captions["a.png"].encode() == b"a ? b"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode), name=st.sampled_from(["jsonl", "csv"]))
def test_no_content_does_more_than_remark(folder: Path, content: bytes, name: str) -> None:
    for other in folder.glob("metadata.*"):
        other.unlink()
    captions, _ = read(folder, content, f"metadata.{name}")
    assert captions == {}


def test_a_very_long_name_is_told_in_short(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "x" * 5000, "text": "a"}))
    captions, (told,) = read_metadata(tmp_path)
    assert not captions
    assert "'xxxx" in told and "does not exist" in told and len(told) < 300 + len(str(tmp_path))
