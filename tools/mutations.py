"""Small faults that can be put into Python source, one at a time: what tools/mutate.py tries.

A comparison at its edge or turned round, other arithmetic, ``and`` for ``or``, a condition negated, a number one
larger, a switch the other way, ``return None``, a call left out. Texts, annotations and what only makes an error's
sentence stay as they are: no test has to hold each word.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        where: the function or class it is in, with dots; "" at the top of the module.
        line: of the source, from 1.
        before, after: the piece of code, and what stands for it; each on one line.
        start, end: of the piece in the source, as bytes of UTF-8.
    """

    where: str
    line: int
    before: str
    after: str
    start: int
    end: int

    @property
    def change(self) -> str:
        return f"{self.before} -> {self.after}"

    def applied(self, source: str) -> str:
        """The source with the fault in it."""
        content = source.encode()
        # a piece may stand where only brackets let it go over several lines, or bind it
        return (content[: self.start] + self.after.encode() + content[self.end :]).decode()


def mutations(source: str) -> list[Mutation]:
    """All faults that can be put into ``source``, in its order; each leaves it valid Python."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for where, node, changed in _places(ast.parse(source), ""):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        after = ast.unparse(ast.fix_missing_locations(changed))
        if isinstance(changed, ast.expr) and not isinstance(changed, ast.Constant):
            after = f"({after})"
        found.append(Mutation(where, node.lineno, ast.unparse(node), after, start, end))
    return sorted(found, key=lambda mutation: (mutation.start, mutation.end, mutation.after))


def _places(node: ast.AST, where: str) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.AST]]:
    """Where a fault can be put: the node, and what stands for it."""
    if isinstance(node, ast.expr | ast.stmt):
        for changed in _changes(node):
            yield where, node, changed
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}".lstrip(".")
    for child in _children(node):
        yield from _places(child, where)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is inside ``node``, without annotations, decorators, texts, and the making of errors."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    left_out = {"annotation", "returns", "decorator_list", "bases"}
    for name, value in ast.iter_fields(node):
        if name in left_out:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _changes(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            yield _with(node, ops=[_COMPARISONS[type(op)]()])
        case ast.BinOp(op=op) if type(op) in _OPERATORS and not _has_text(node):
            yield _with(node, op=_OPERATORS[type(op)]())
        case ast.AugAssign(op=op) if type(op) in _OPERATORS and not _has_text(node.value):
            yield _with(node, op=_OPERATORS[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield copy.deepcopy(operand)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(number) | float(number)):
            yield ast.Constant(number + 1)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield _with(node, test=ast.UnaryOp(ast.Not(), copy.deepcopy(test)))


def _with(node: ast.AST, **changes: object) -> ast.AST:
    changed = copy.deepcopy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _has_text(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in ast.walk(node)
    )
