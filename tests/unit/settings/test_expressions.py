"""Regular expressions that people type have an end, in time and in memory, before they are compiled."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tincture.settings.expressions import LONGEST, MOST_PARTS, fault_of_expression

USABLE = (
    "[\\w']+",
    "(?i)[^\\d_]+",
    r"\d{4}-\d{2}-\d{2}",
    r"\w{20} \w{20} \w{20}",
    "(a|b){0,1000000000}",
    "(?=fox)f(o)\\1?x",
    "(?:[a-z]{2,40}){1,50}",
    "(?P<word>a)(?P=word)",
    "(?>a+)b*+",
    "(a+)+$",
    "(a)(?(1)b|c)",
)
VAST = (
    "(a|b){1000000000}",
    "((a|b){1000}){1000}",
    "(((a{100}){100}){100}){100}",
    "(?:(?:(?:a?){1000}){1000}){1000}",
    "(?:" * 13 + "a?" + "){2}" * 13 + "a{9}",
    "(a)\\1{1000000000}",
    "(?=(a{100000}))b",
    "(?<=a{1000000})b",
    "(?!(?:a{500}){500})b",
    "(x)?(?(1)(?:a{1000}){1000}|b)",
    "(a|(b|(c|(d){100000})))",
    "(?>(a{1000}){1000})",
    "[a-z]{1000000000}",
    "(|a){1000000000}",
    "(a{1000000})?",
    "(?i:(ab){1000000})",
    "(a{1000}){1000}?",
    "(a{1000}){1000}+",
)
BROKEN = ("(", "a{3,1}", "a{4294967295}", "*", "[", "(?P<a", "\\", "(" * 900 + ")" * 900, r"\p{L}", "a**")


@pytest.mark.parametrize("expression", USABLE)
def test_what_finds_words_is_taken(expression: str) -> None:
    assert fault_of_expression(expression) is None


@pytest.mark.parametrize("expression", VAST)
def test_what_would_be_written_out_without_end_is_refused(expression: str) -> None:
    assert "repeats less" in str(fault_of_expression(expression))


@pytest.mark.parametrize("expression", BROKEN)
def test_what_is_none_is_refused(expression: str) -> None:
    assert str(fault_of_expression(expression)).startswith("a regular expression (")


@pytest.mark.parametrize("expression", ["(?x)(a){ 1 000 000 }", "(?x:a b)", "(a(?i)b)(?x)", "((?x: a { 100000 }))"])
def test_verbose_mode_is_refused(expression: str) -> None:
    assert fault_of_expression(expression) is not None


def test_long_ones_are_not_even_parsed() -> None:
    assert fault_of_expression("a" * LONGEST) is None
    assert "at most 2,000 characters" in str(fault_of_expression("a" * (LONGEST + 1)))
    assert "at most 2,000 characters" in str(fault_of_expression("(" * 10**7))


def test_as_many_parts_are_taken_as_are_allowed() -> None:
    least = MOST_PARTS - 2  # the repetition itself, and once more than it must come
    assert fault_of_expression(f"a{{{least}}}") is None
    assert fault_of_expression(f"a{{{least + 1}}}") is not None


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


HUNT = """
import sys
from pathlib import Path
from tincture.data import captions
from tincture.errors import UsageError
captions.REGEX_WITHIN_S = 0.05
for expression in eval(sys.argv[1]):
    for name in ("ab" * 60, "a" * 120, "a fox, 1", "a" * 60 + "!"):
        try:
            captions.caption_for(Path(name + ".png"), expression)
        except UsageError as error:
            assert "regular expression" in str(error) or "has not come to an end" in str(error), error
print("done")
"""


def test_whatever_is_typed_comes_to_an_end_in_little_memory() -> None:
    largest = ("a?" * (LONGEST // 2), f"(?:a?){{{MOST_PARTS // 4}}}a{{99}}", "(?:" * 12 + "a?b?" + "){2}" * 12)
    hungry = ("((a|b)*)*$", "(a*)*b", "(?=(a+)+$)", "(a|a)+$", "(?:(a+)|b*)+$", "(a*)" * 100 + "$", "(?<=(a|ab)+)b$")
    expressions = [*USABLE, *VAST, *BROKEN, *largest, *hungry]
    done = subprocess.run(
        [sys.executable, "-c", HUNT, repr(expressions)], preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr[-2000:]
