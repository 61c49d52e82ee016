"""The conditions of `runIf` and `repeatUntil`.

Python-like: strings, numbers, `$name`, `== != < <= > >= in`, `not in`, `and or not`, parentheses. The text is parsed
first; names are bound afterwards, inside string constants, so that no value can change what the condition means.
Nothing is ever evaluated as code.

Rules where DM says nothing: a name that was never set is the text `$name` itself inside a string, as in a command, and
false on its own. `==` and `!=` compare numbers when one side is a number and the other reads as one, else texts.
`< <= > >=` compare numbers when both sides read as numbers, else texts.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from orchestrator.definition import variables
from orchestrator.errors import DefinitionError

MOST_CHARACTERS, MOST_DEPTH = 10_000, 50
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\$(?P<braced>\{)?(?P<name>[A-Za-z_]\w*)(?(braced)\})""",
    re.DOTALL,
)
_BARE = "_bare_"  # what a `$name` outside quotes becomes while Python's parser looks at the text

Value: TypeAlias = str | float | bool | None
_Evaluate: TypeAlias = Callable[[Mapping[str, str]], Any]


@dataclass(frozen=True)
class Expression:
    """A parsed condition."""

    text: str
    names: tuple[str, ...]
    _evaluate: _Evaluate

    def evaluate(self, values: Mapping[str, str]) -> bool:
        """Is it true for these values? Any value of any name is only ever a text."""
        return _true(self._evaluate(values))


def parse(text: str) -> Expression:
    """Raises DefinitionError on anything that is not such a condition."""
    if len(text) > MOST_CHARACTERS:
        raise DefinitionError(f"A condition of {len(text)} characters is too long.")

    def hide(match: re.Match[str]) -> str:
        return match["string"] if match["string"] is not None else f"{_BARE}{match['name']}"

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # an odd escape in somebody's string
            tree = ast.parse(_TOKEN.sub(hide, text).strip(), mode="eval")
        evaluate = _compile(tree.body, text, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise DefinitionError(f"The condition {text!r} cannot be read: {reason}.", _HINT) from None
    return Expression(text, variables.names(text), evaluate)


_HINT = 'A condition reads like "$status" == "done" and not ".h5" in "$filePath".'


def _compile(node: ast.expr, text: str, depth: int) -> _Evaluate:
    if depth > MOST_DEPTH:
        raise ValueError("it is nested too deeply")
    match node:
        case ast.Constant(value=str() as value):
            return lambda values: variables.substitute(value, values)
        case ast.Constant(value=bool() | int() | float() | None as constant):
            return lambda values: constant
        case ast.Name(id=name) if name.startswith(_BARE):
            bare = name.removeprefix(_BARE)
            return lambda values: values.get(bare)
        case ast.Name(id="true" | "false" as word):
            return lambda values: word == "true"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _compile(operand, text, depth + 1)
            return lambda values: not _true(inner(values))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda values: -number
        case ast.BoolOp(op=operator, values=parts):
            compiled = [_compile(p, text, depth + 1) for p in parts]
            choose = all if isinstance(operator, ast.And) else any
            return lambda values: choose(_true(p(values)) for p in compiled)
        case ast.Compare(left=left, ops=operators, comparators=others):
            sides = [_compile(s, text, depth + 1) for s in (left, *others)]
            compare = [_operator(o) for o in operators]
            return lambda values: _chain([s(values) for s in sides], compare)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            compiled = [_compile(e, text, depth + 1) for e in elements]
            return lambda values: [e(values) for e in compiled]
    raise ValueError(f"{ast.unparse(node).replace(_BARE, '$')!r} is not allowed in a condition")


def _chain(sides: list[Any], operators: list[Callable[[Any, Any], bool]]) -> bool:
    return all(compare(a, b) for compare, a, b in zip(operators, sides, sides[1:], strict=False))


def _operator(node: ast.cmpop) -> Callable[[Any, Any], bool]:
    match node:
        case ast.Eq():
            return _equal
        case ast.NotEq():
            return lambda a, b: not _equal(a, b)
        case ast.In():
            return _within
        case ast.NotIn():
            return lambda a, b: not _within(a, b)
        case ast.Lt():
            return lambda a, b: _order(a, b) < 0
        case ast.LtE():
            return lambda a, b: _order(a, b) <= 0
        case ast.Gt():
            return lambda a, b: _order(a, b) > 0
        case ast.GtE():
            return lambda a, b: _order(a, b) >= 0
    raise ValueError(f"{type(node).__name__} is not a comparison that a condition may use")


def _true(value: Any) -> bool:
    """Like Python, but for the texts that people mean as false."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "false", "no", "none")
    return bool(value)


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, list):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) or isinstance(b, list):
        return bool(a == b)
    if not (isinstance(a, str) and isinstance(b, str)):
        x, y = _number(a), _number(b)
        if x is not None and y is not None:
            return x == y
    return _text(a) == _text(b)


def _within(a: Any, b: Any) -> bool:
    return any(_equal(a, e) for e in b) if isinstance(b, list) else _text(a) in _text(b)


def _order(a: Any, b: Any) -> int:
    x, y = _number(a), _number(b)
    if x is not None and y is not None:
        return (x > y) - (x < y)
    return (_text(a) > _text(b)) - (_text(a) < _text(b))
