from __future__ import annotations

import pytest

from tincture.errors import UsageError
from tincture.models.prompt import parse_weights
from tincture.preprocessing.booru_labels import Label, TagStyle, is_emoticon

LABELS = [
    Label("explicit", "rating"),
    Label("long_hair"),
    Label("fox_(animal)"),
    Label("^_^"),
    Label("1girl"),
    Label("some_one_(series)", "character"),
]
PROBABILITIES = [0.99, 0.6, 0.35, 0.7, 0.34, 0.8]


def style(**changes: object) -> TagStyle:
    return TagStyle(**{"threshold": 0.35, "character_threshold": 0.8, **changes})  # type: ignore[arg-type]


def test_likely_tags_come_first_and_ratings_and_unlikely_ones_not_at_all() -> None:
    assert style().caption(LABELS, PROBABILITIES) == r"some one \(series\), ^_^, long hair, fox \(animal\)"


def test_characters_have_a_threshold_of_their_own() -> None:
    assert style(character_threshold=0.81).caption(LABELS, PROBABILITIES) == r"^_^, long hair, fox \(animal\)"
    assert style(threshold=1.0).caption(LABELS, PROBABILITIES) == r"some one \(series\)"


def test_tags_can_stay_as_the_site_writes_them() -> None:
    plain = style(replace_underscores=False, escape_brackets=False)
    assert plain.caption(LABELS, PROBABILITIES) == "some_one_(series), ^_^, long_hair, fox_(animal)"


def test_order_by_alphabet() -> None:
    text = style(order="alphabet", escape_brackets=False).caption(LABELS, PROBABILITIES)
    assert text == "^_^, fox (animal), long hair, some one (series)"


def test_equal_probabilities_keep_the_order_of_the_table() -> None:
    assert style().caption([Label("b"), Label("a")], [0.5, 0.5]) == "b, a"


@pytest.mark.parametrize("name", ["long_hair", "long hair", " Long Hair "])
def test_excluded_tags_may_be_written_either_way(name: str) -> None:
    text = style(exclude=frozenset({name, r"fox \(animal\)"})).caption(LABELS, PROBABILITIES)
    assert text == r"some one \(series\), ^_^"


def test_no_tag_is_likely() -> None:
    assert style(threshold=1.0, character_threshold=1.0).caption(LABELS, PROBABILITIES) == ""


@pytest.mark.parametrize(
    ("name", "written"), [(r"\m/", r"\\m/"), ("fox_(b)", r"fox \(b\)"), ("[_]", r"\[_\]"), ("<o>_<o>", "<o>_<o>")]
)
def test_a_prompt_reads_a_tag_as_it_is(name: str, written: str) -> None:
    text = style().caption([Label(name)], [1.0])
    assert text == written
    unescaped = style(escape_brackets=False).caption([Label(name)], [1.0])
    assert parse_weights(text) == [(unescaped, 1.0)]


@pytest.mark.parametrize("name", ["^_^", "o_o", ">_o", "0_0", "|_|", "(o)_(o)", "<|>_<|>", ";_;"])
def test_emoticons(name: str) -> None:
    assert is_emoticon(name)


@pytest.mark.parametrize("name", ["long_hair", "no_u", "x_dress", "a_b_c", "1girl", "t-shirt"])
def test_words_are_no_emoticons(name: str) -> None:
    assert not is_emoticon(name)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_thresholds_are_probabilities(value: float) -> None:
    with pytest.raises(UsageError, match=r"threshold of tags .* from 0 to 1"):
        style(threshold=value)
    with pytest.raises(UsageError, match=r"threshold of characters .* from 0 to 1"):
        style(character_threshold=value)


def test_unknown_order() -> None:
    with pytest.raises(UsageError, match="'random'; give one of score, alphabet"):
        style(order="random")
