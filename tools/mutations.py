"""The small changes of which each must be noticed by a test: they are made in the syntax tree of one file, one at a time."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import EnumType
from pathlib import Path

__all__ = ["Mutant", "mutants_of"]

COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
CONFUSED: Mapping[str, str] = {
    "max": "min",
    "min": "max",
    "any": "all",
    "all": "any",
    "ceil": "floor",
    "floor": "ceil",
    "latest": "at_depth",
    "at_depth": "finalized",
    "finalized": "latest",
    "now_s": "head_timestamp",
    "head_timestamp": "now_s",
    "finalized_timestamp": "head_timestamp",
}
"""Names that are easily taken for one another: three depths, three clocks, two ends of a comparison."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change in one file."""

    path: Path
    where: str
    """The function or class in which it is."""
    line: int
    change: str
    make: Callable[[], ast.Module]
    """Makes the changed tree. The tree it came from is changed with it, so it is called once, in a process of its own."""

    @property
    def name(self) -> tuple[str, str]:
        """What it is called in the list of explained mutants: no line numbers, so that it outlives other changes."""
        return f"{self.path.name}:{self.where}", self.change


def mutants_of(path: Path, names: Mapping[str, object], left_out: Sequence[str] = ()) -> list[Mutant]:
    """Every mutant of a file, in its order.

    Args:
        path: of the file.
        names: what the names in it stand for, to tell enumerations from other classes.
        left_out: top-level names that are not changed.
    """
    found = _Sites(path, ast.parse(path.read_text()), names, left_out).mutants
    seen: Counter[tuple[str, str]] = Counter()
    told_apart = []
    for mutant in found:
        seen[mutant.name] += 1
        again = seen[mutant.name]
        told_apart.append(
            mutant if again == 1 else Mutant(path, mutant.where, mutant.line, f"{mutant.change} ({again})", mutant.make)
        )
    return told_apart


class _Sites:
    """Walks a tree and notes what can be changed where."""

    def __init__(self, path: Path, tree: ast.Module, names: Mapping[str, object], left_out: Sequence[str]) -> None:
        self.mutants: list[Mutant] = []
        self._path = path
        self._tree = tree
        self._names = names
        self._where = "module"
        for statement in tree.body:
            if _is_changed(statement, left_out):
                self._walk(statement)

    def _walk(self, node: ast.AST) -> None:
        if _is_a_note(node) or (isinstance(node, ast.ClassDef) and isinstance(self._names.get(node.name), EnumType)):
            return
        outer = self._where
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self._where = node.name if outer == "module" else f"{outer}.{node.name}"
        for replace, child in _children(node):
            if isinstance(child, ast.AST) and not _is_unreachable(child):
                for new, change in self._changes(child):
                    self._note(child, replace, new, change)
                self._walk(child)
        for shorter, change in _without_parts(node):
            self._note(node, shorter, None, change)
        self._where = outer

    def _note(self, node: ast.AST, replace: Callable[[ast.AST | None], None], new: ast.AST | None, change: str) -> None:
        def make() -> ast.Module:
            replace(new)
            return ast.fix_missing_locations(self._tree)

        line = getattr(node, "lineno", None) or getattr(getattr(node, "pattern", node), "lineno", 0)
        self.mutants.append(Mutant(self._path, self._where, line, change, make))

    def _changes(self, node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        for new in (*_other_expressions(node), *_other_statements(node), *self._other_names(node)):
            yield new, f"{_text(node)} -> {_text(new)}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            # Each link of a chain stands for its right end, and the first for its left end too.
            if not isinstance(node.left, ast.BinOp):
                yield node.right, f"a union without {_text(node.left)}"
            yield node.left, f"a union without {_text(node.right)}"

    def _other_names(self, node: ast.AST) -> Iterator[ast.AST]:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=member) if isinstance(self._names.get(name), EnumType):
                members = list(self._names[name].__members__)  # type: ignore[attr-defined]
                changed = copy.deepcopy(node)
                changed.attr = members[(members.index(member) + 1) % len(members)]
                yield changed
            case ast.Attribute(attr=name) if name in CONFUSED:
                changed = copy.deepcopy(node)
                changed.attr = CONFUSED[name]
                yield changed
            case ast.Name(id=name) if name in CONFUSED:
                yield ast.Name(id=CONFUSED[name], ctx=ast.Load())
            case _:
                pass


def _other_expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=right):
            for other in COMPARISONS[type(operator)]:
                yield ast.Compare(left=left, ops=[other()], comparators=right)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            yield ast.BinOp(left=left, op=ARITHMETIC[type(operator)](), right=right)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(op=ast.Or() if isinstance(operator, ast.And) else ast.And(), values=values)
            yield from values
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield ast.Constant(value * 2 + 1)
        case ast.Constant(value=str() as value) if value.replace(".", "_").isidentifier():
            yield ast.Constant(f"not_{value}")
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.keyword(arg=name, value=value) if not isinstance(value, ast.Constant):
            yield ast.keyword(arg=name, value=ast.Constant(None))
        case _:
            pass


def _other_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(body=body, orelse=orelse):
            for forced in (True, False):
                yield ast.If(test=ast.Constant(forced), body=body, orelse=orelse)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(value=ast.Constant(None))
        case ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Break() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.match_case(pattern=pattern, guard=ast.expr(), body=body):
            yield ast.match_case(pattern=pattern, guard=None, body=body)
        case _:
            pass


def _without_parts(node: ast.AST) -> Iterator[tuple[Callable[[object], None], str]]:
    """The node with one element less: of a tuple, a pattern's alternatives, the keywords of a call, the cases of a match."""
    match node:
        case ast.Tuple(elts=parts) | ast.Set(elts=parts) | ast.MatchOr(patterns=parts) | ast.Call(keywords=parts):
            less = "without"
        case ast.Match(cases=parts):
            less = "without case"
        case _:
            return
    for part in parts:
        shown = part.pattern if isinstance(part, ast.match_case) else part
        if not _is_unreachable(part):
            yield lambda _, part=part: parts.remove(part), f"{_text(node)} {less} {_text(shown)}"


def _children(node: ast.AST) -> Iterator[tuple[Callable[[ast.AST | None], None], object]]:
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "bases", "type_params", "ctx"}:
            continue
        if isinstance(value, list):
            for index, child in enumerate(value):
                yield lambda new, value=value, index=index: value.__setitem__(index, new), child
        else:
            yield lambda new, field=field: setattr(node, field, new), value


def _is_changed(statement: ast.stmt, left_out: Sequence[str]) -> bool:
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name != "__all__" and name not in left_out
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return False
        case _:
            return True


def _is_a_note(node: ast.AST) -> bool:
    """A docstring, or an assertion, which the type checker needs and which never fails."""
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_unreachable(node: ast.AST) -> bool:
    """Whether the type checker proves that nothing gets there."""
    match node:
        case ast.match_case(pattern=ast.MatchAs(pattern=None), body=[ast.Expr(value=ast.Call(func=ast.Name(id=name)))]):
            return name == "assert_never"
        case _:
            return False


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _text(node: ast.AST) -> str:
    """A node in one line; of a statement with a body its head only."""
    match node:
        case ast.If(test=test):
            return f"if {ast.unparse(test)}"
        case ast.Match(subject=subject):
            return f"match {ast.unparse(subject)}"
        case ast.match_case(pattern=pattern, guard=guard):
            return f"case {ast.unparse(pattern)}" + (f" if {ast.unparse(guard)}" if guard else "")
        case _:
            return " ".join(ast.unparse(node).split())
