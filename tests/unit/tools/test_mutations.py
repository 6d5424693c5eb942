"""The faults that tools/mutations.py puts into code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tools.mutations import mutations

CODE = '''"""Text with 1 number."""
from __future__ import annotations

LIMIT = 3  # é counts as two bytes


def act(a: int = 1) -> int | None:
    """More text."""
    if a < LIMIT and not a:
        raise ValueError(f"{a + 1} is too small; 2 is allowed")
    a += 2
    print("a" + str(a))
    return a if act else -a


class Thing:
    def do(self) -> bool:
        return (True
                is False)
'''


def test_every_kind_of_fault_is_found_where_it_is() -> None:
    assert [(found.where, found.line, found.change) for found in mutations(CODE)] == [
        ("", 4, "3 -> 4"),
        ("act", 7, "1 -> 2"),
        ("act", 9, "a < LIMIT -> (a <= LIMIT)"),
        ("act", 9, "a < LIMIT and (not a) -> (a < LIMIT or not a)"),
        ("act", 9, "not a -> (a)"),
        ("act", 11, "a += 2 -> a -= 2"),
        ("act", 11, "2 -> 3"),
        ("act", 12, "print('a' + str(a)) -> pass"),
        ("act", 13, "return a if act else -a -> return None"),
        ("act", 13, "a if act else -a -> (a if not act else -a)"),
        ("act", 13, "-a -> (a)"),
        ("Thing.do", 18, "return True is False -> return None"),
        ("Thing.do", 18, "True -> False"),
        ("Thing.do", 18, "True is False -> (True is not False)"),
        ("Thing.do", 19, "False -> True"),
    ]


def test_the_rest_of_the_source_stays_byte_for_byte() -> None:
    (edge,) = [found for found in mutations(CODE) if found.change == "a < LIMIT -> (a <= LIMIT)"]
    assert edge.applied(CODE) == CODE.replace("a < LIMIT", "(a <= LIMIT)")


@pytest.mark.parametrize("name", ["training/trainer.py", "formats/files.py", "server/queue/store.py"])
def test_every_fault_in_our_own_code_is_other_code_that_python_reads(name: str) -> None:
    source = (Path(__file__).parents[3] / "src" / "tincture" / name).read_text(encoding="utf-8")
    before, found = ast.dump(ast.parse(source)), mutations(source)
    assert len(found) > 50
    assert all(ast.dump(ast.parse(mutation.applied(source))) != before for mutation in found)
