from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from PIL import Image

from tincture.reports import document


def test_a_report_stands_alone() -> None:
    whole = document.document("A <b> & more", [document.section("Table", document.table(["a"], [["1"]]))])
    assert whole.startswith("<!doctype html>") and "A &lt;b&gt; &amp; more" in whole
    assert "<script" not in whole and not re.search(r"(src|href)=\"(?!data:)", whole) and "url(" not in whole


def test_what_stands_in_a_table_or_sheet_means_itself() -> None:
    text = '<img src=x onerror="alert(1)">'
    for made in (document.table([text], [[text, text]], [text]), document.sheet([text], [(text, [text])])):
        assert text not in made and "&lt;img" in made


def test_a_section_of_nothing_is_left_out() -> None:
    assert document.section("Pictures", document.sheet(["a"], [])) == ""


def test_lines_have_colours_of_their_own() -> None:
    shown = document.legend([f"run {number}" for number in range(50)])
    assert len(set(re.findall(r"stroke:(hsl[^}]+)", shown))) == 50
    assert all(f"key {document.line_style(number)}" in shown for number in range(50))


def test_only_settings_that_differ_are_named() -> None:
    assert document.settings_that_differ([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == ["b", "c"]
    assert document.settings_that_differ([{"a": 1}]) == []


def test_pictures_come_along_made_small(tmp_path: Path) -> None:
    Image.new("RGB", (900, 300), "red").save(tmp_path / "wide.png")
    data = document.picture_data(tmp_path / "wide.png", 90)
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as small:
        assert small.size == (90, 30)
    (tmp_path / "bad.png").write_bytes(b"none")
    assert document.picture_data(tmp_path / "bad.png") == document.picture_data(tmp_path / "absent.png") == ""
