from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincture.errors import UsageError
from tincture.models.prompt import BREAK, Segment, parse_extra_networks, parse_weights, require_networks
from tincture.workspace import Workspace

# Worked out by hand from the webui's rules; weights are written as products, since rounding decides what is joined.
WEIGHTS: dict[str, list[tuple[str, float]]] = {
    "": [("", 1)],
    "a red moon, small": [("a red moon, small", 1)],
    "a (red) moon": [("a ", 1), ("red", 1.1), (" moon", 1)],
    "a ((red)) moon": [("a ", 1), ("red", 1.1 * 1.1), (" moon", 1)],
    "a [red] moon": [("a ", 1), ("red", 1 / 1.1), (" moon", 1)],
    "a (red:1.5) moon": [("a ", 1), ("red", 1.5), (" moon", 1)],
    "(red moon: 0.5 )": [("red moon", 0.5)],
    "(red:-2)": [("red", -2)],
    "(red:.5)(red:+2.)": [("red", 0.5), ("red", 2)],
    "(small (red:1.5) moon)": [("small ", 1.1), ("red", 1.5 * 1.1), (" moon", 1.1)],
    "([red])": [("red", 1 / 1.1 * 1.1)],
    "(red)(der)": [("redder", 1.1)],  # neighbours of one weight are one text
    "a()b": [("ab", 1)],
    "(red:1)der": [("redder", 1)],
    r"moon \(small\)": [("moon (small)", 1)],
    r"(moon \(small\):1.2)": [("moon (small)", 1.2)],
    r"\[red\] \\ \moon": [("[red] \\ moon", 1)],
    "moon)": [("moon)", 1)],
    "moon] :1.2)": [("moon] :1.2)", 1)],
    "(red moon": [("red moon", 1.1)],
    "a [[red": [("a ", 1), ("red", 1 / 1.1 * (1 / 1.1))],
    "(red [moon)]": [("red ", 1.1), ("moon", 1.1 * (1 / 1.1))],
    "[red:0.5]": [("red:0.5", 1 / 1.1)],
    "(time 12:30)": [("time 12", 30)],
    "(red:1.2.3)": [("red:1.2.3", 1.1)],  # the webui fails here
    "(red:)": [("red:", 1.1)],
    "red BREAK moon": [("red ", 1), BREAK, (" moon", 1)],
    "BREAK": [("", 1), BREAK, ("", 1)],
    "red,BREAK:moon": [("red,", 1), BREAK, (":moon", 1)],
    "BREAKER break": [("BREAKER break", 1)],
    "(red BREAK moon:2)": [("red ", 2), ("BREAK", -2), (" moon", 2)],
}


@pytest.mark.parametrize("text", WEIGHTS)
def test_weights(text: str) -> None:
    assert parse_weights(text) == WEIGHTS[text]


@given(st.text())
def test_every_text_has_weights_and_keeps_its_letters(text: str) -> None:
    segments = parse_weights(text)

    assert segments
    kept = "".join(segment.text for segment in segments if segment != BREAK)
    assert [letter for letter in kept if letter.isalpha()] == [
        letter for letter in text.replace("BREAK", "") if letter.isalpha()
    ]


@given(st.lists(st.sampled_from([*"()[]\\: ", ":1.5)", "BREAK", "moon", "1.2"])).map("".join))
def test_special_marks_in_any_order_are_parsed(text: str) -> None:
    assert all(isinstance(weight, float) for _, weight in parse_weights(text))


@given(st.text().filter(lambda text: not set(text) & set("()[]\\") and "BREAK" not in text))
def test_text_without_marks_is_one_segment_of_weight_one(text: str) -> None:
    assert parse_weights(text) == [Segment(text, 1.0)]


def test_extra_networks_are_taken_out() -> None:
    text, networks = parse_extra_networks("a moon <hypernet:out line:0.8>, blue<HYPERNET:b>")

    assert text == "a moon , blue"
    assert networks == [("hypernet", "out line", 0.8), ("hypernet", "b", 1.0)]


@pytest.mark.parametrize("text", ["a  moon ", "<moon>", "<: x>", "a < b > c", "<hypernet:>"])
def test_other_text_is_left_alone(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_extra_networks(text) == (text, [])


def test_tags_of_other_kinds_are_taken_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="<lora:ink:0.5:1> is left out: only <hypernet:NAME:MULTIPLIER>"):
        text, networks = parse_extra_networks("a moon <lora:ink:0.5:1> <hypernet:ink>")

    assert (text, networks) == ("a moon", [("hypernet", "ink", 1.0)])


@pytest.mark.parametrize("multiplier", ["strong", "1,5", "0.5:2", "nan", "inf"])
def test_a_multiplier_that_is_no_number_is_refused(multiplier: str) -> None:
    with pytest.raises(UsageError, match=r"multiplier .* of hypernetwork 'outline'.*<hypernet:outline:0.8>"):
        parse_extra_networks(f"a moon <hypernet:outline:{multiplier}>")


def test_adapters_that_prompts_name_must_be_there_unless_others_stand_in(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (place := workspace.adapter_path("hypernetwork", "ink")).parent.mkdir(parents=True)
    place.write_bytes(b"x")
    require_networks(["a <hypernet:ink:0.5> cat", "a <lora:any:1> dog"], workspace)
    with pytest.raises(UsageError, match=r"no hypernetwork 'oil'.*there are: ink"):
        require_networks(["a cat", "a <hypernet:oil:1> cat"], workspace)
    require_networks(["a <hypernet:oil:1> cat"], workspace, {"oil"})
    with pytest.raises(UsageError, match="multiplier 'x'"):
        require_networks(["<hypernet:ink:x>"], workspace)
