"""The conditions of `runIf` and `repeatUntil`: parsed first, bound to values afterwards, never evaluated as
Python.

    or-test     and-test ("or" and-test)*
    and-test    not-test ("and" not-test)*
    not-test    "not" not-test | comparison
    comparison  operand (operator operand)*, chained as in Python; operators: == != < <= > >= in, not in
    operand     'text' "text" 12 -0.5 True False None $name [..] (..)

How values compare. A variable in quotes is text. A bare `$name` is what its text says: a number, True, False,
None, or else text.
* Two texts are equal when they are the same text ("1" is not "1.0", as in DM).
* A number and a text that reads as a number compare as numbers: `"$count" == 3` holds for count 3 or 3.0. So
  do two bare variables. A number never equals other text.
* `<`, `<=`, `>`, `>=` compare as numbers when both sides read as numbers ("9" < "10"), by alphabet when they
  are two texts and neither does, and are false for anything else: "failed" is not more than "0.9".
* `in` looks for a text in a text, or for a value in a list.
* A variable that was never set does not raise. It stays as the text `$name`, as in commands, equals None and
  nothing else, is in nothing, is false by itself, and `<` and its kin are false.
  So `"$a" == "$b"` with both unset is false, and a repetition that waits for it goes on instead of ending.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from msgspec import Struct

from orchestrator.definition import variables
from orchestrator.errors import DefinitionError, printable

MAX_LENGTH = 20_000
MAX_DEPTH = 40

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<variable>\$(?:\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*))
    | (?P<operator>==|!=|<=|>=|<(?!>)|>|[()\[\],-])
    | (?P<word>[A-Za-z_]\w*)
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "\n": ""}
_INSTEAD = {
    "&&": "and",
    "||": "or",
    "!": "not",
    "=": "==",
    "<>": "!=",
    "is": "==",
    "AND": "and",
    "OR": "or",
    "NOT": "not",
    "true": "True",
    "false": "False",
    "null": "None",
}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in")


class Text(Struct, frozen=True):
    """A text constant, which may hold `$names`."""

    text: str


class Bare(Struct, frozen=True):
    """A variable outside quotes."""

    name: str


class Value(Struct, frozen=True):
    value: float | int | bool | None


class Items(Struct, frozen=True):
    items: tuple[Node, ...]


class Not(Struct, frozen=True):
    operand: Node


class Both(Struct, frozen=True):
    """`and` or `or` of two and more."""

    word: Literal["and", "or"]
    operands: tuple[Node, ...]


class Compare(Struct, frozen=True):
    first: Node
    rest: tuple[tuple[str, Node], ...]


Node = Text | Bare | Value | Items | Not | Both | Compare


class Expression(Struct, frozen=True):
    """A parsed condition. `names` are the variables it reads."""

    text: str
    root: Node
    names: tuple[str, ...]

    def evaluate(self, values: Mapping[str, str]) -> bool:
        """Whether the condition holds. Never raises, and never reads a value as anything but a value."""
        return _truth(_value(self.root, values))


def parse(text: str) -> Expression:
    """Raises DefinitionError, with the column, when `text` is not such a condition."""
    if len(text) > MAX_LENGTH:
        raise DefinitionError(f"The condition is longer than {MAX_LENGTH:,} characters.")
    parser = _Parser(text)
    root = parser.either(0)
    if parser.kind != "end":
        parser.fail(f"{printable(parser.token)!r} stands where the condition should end")
    return Expression(text, root, tuple(dict.fromkeys(_names(root))))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.kind = ""
        self.token = ""
        self.start = 0
        self.advance()

    def advance(self) -> None:
        m = _TOKEN.match(self.text, self.position)
        if m is None:
            self.start = len(self.text) - len(self.text[self.position :].lstrip())
            rest = self.text[self.start :]
            self.token = next((w for w in ("&&", "||", "<>") if rest.startswith(w)), rest[:1])
            if self.token in "'\"":
                self.fail("a quote is not closed")
            self.fail(f"{printable(self.token)!r} cannot stand in a condition")
        self.kind = str(m.lastgroup)
        self.token = m[self.kind]
        self.start = m.start(self.kind)
        self.position = m.end()

    def fail(self, what: str) -> NoReturn:
        instead = _INSTEAD.get(self.token, "")
        hint = f"Write {instead}." if instead else "Use quoted texts, numbers, $names, == != < > in, and, or, not."
        if self.kind == "word" and not instead and self.token not in ("and", "or", "not", "in"):
            hint = f'Write ${self.token} for a variable or "{self.token}" for a text.'
        raise DefinitionError(f"The condition cannot be read: {what} (column {self.start + 1}).", hint)

    def take(self, *tokens: str) -> str:
        if self.kind in ("operator", "word") and self.token in tokens:
            token = self.token
            self.advance()
            return token
        return ""

    def deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            self.fail(f"it is nested more than {MAX_DEPTH} levels deep")
        return depth + 1

    def either(self, depth: int) -> Node:
        return self.chain("or", depth)

    def chain(self, word: Literal["and", "or"], depth: int) -> Node:
        operands = [self.chain("and", depth) if word == "or" else self.negation(depth)]
        while self.take(word):
            operands.append(self.chain("and", depth) if word == "or" else self.negation(depth))
        return operands[0] if len(operands) == 1 else Both(word, tuple(operands))

    def negation(self, depth: int) -> Node:
        if self.take("not"):
            return Not(self.negation(self.deeper(depth)))
        return self.comparison(depth)

    def comparison(self, depth: int) -> Node:
        first = self.operand(depth)
        rest: list[tuple[str, Node]] = []
        while True:
            operator = self.take(*_OPERATORS)
            if not operator:
                if not self.take("not"):
                    break
                if not self.take("in"):
                    self.fail("'not' after a value must be followed by 'in'")
                operator = "not in"
            right = self.operand(depth)
            if operator.endswith("in") and isinstance(right, Value):
                self.fail(f"{operator!r} needs a text or a list on its right")
            rest.append((operator, right))
        return Compare(first, tuple(rest)) if rest else first

    def operand(self, depth: int) -> Node:
        kind, token = self.kind, self.token
        if kind == "text":
            self.advance()
            return Text(re.sub(r"\\(.)", _unescape, token[1:-1], flags=re.DOTALL))
        if kind == "number":
            self.advance()
            return Value(_number(token))
        if kind == "variable":
            self.advance()
            return Bare(token.strip("${}"))
        if kind == "word" and token in ("True", "False", "None"):
            self.advance()
            return Value({"True": True, "False": False, "None": None}[token])
        if self.take("-"):
            if self.kind != "number":
                self.fail("'-' must be followed by a number")
            number = _number(self.token)
            self.advance()
            return Value(-number)
        if self.take("("):
            return self.group(")", self.deeper(depth))
        if self.take("["):
            return self.group("]", self.deeper(depth))
        if kind == "end":
            self.fail("it ends where a value is expected")
        return self.fail(f"{printable(token)!r} stands where a value is expected")

    def group(self, close: str, depth: int) -> Node:
        items: list[Node] = []
        comma = close == "]"
        while not self.take(close):
            items.append(self.either(depth))
            if self.take(","):
                comma = True
            elif not (self.kind == "operator" and self.token == close):
                self.fail(f"{close!r} is missing")
        if not items and not comma:
            self.fail("the parentheses are empty")
        return Items(tuple(items)) if comma else items[0]


def _unescape(m: re.Match[str]) -> str:
    return _ESCAPES.get(m[1], m[0])


def _names(node: Node) -> list[str]:
    match node:
        case Text(text):
            return list(variables.names(text))
        case Bare(name):
            return [name]
        case Items(items) | Both(operands=items):
            return [name for item in items for name in _names(item)]
        case Not(operand):
            return _names(operand)
        case Compare(first, rest):
            return _names(first) + [name for _, item in rest for name in _names(item)]
        case _:
            return []


# -------------------------------------------------------------------------------------------------------
# values


class _Unset(str):
    """A variable that was never set, as the text it stands for."""


class _Said(str):
    """The text of a bare variable: what it says counts."""


def _value(node: Node, values: Mapping[str, str]) -> Any:
    match node:
        case Text(text):
            name = variables.only_name(text)
            return _Unset(text) if name and name not in values else variables.substitute(text, values)
        case Bare(name):
            return _Said(values[name]) if name in values else _Unset(f"${name}")
        case Value(value):
            return value
        case Items(items):
            return [_value(item, values) for item in items]
        case Not(operand):
            return not _truth(_value(operand, values))
        case Both(word, operands):
            results = (_truth(_value(item, values)) for item in operands)
            return all(results) if word == "and" else any(results)
        case Compare(first, rest):
            left = _value(first, values)
            for operator, item in rest:
                right = _value(item, values)
                if not _compare(left, operator, right):
                    return False
                left = right
            return True


def _truth(value: Any) -> bool:
    if isinstance(value, _Unset):
        return False
    if isinstance(value, _Said):
        number = _as_number(value)
        return bool(number) if number is not None else value.strip().lower() not in ("", "false", "none")
    return bool(value)


def _compare(left: Any, operator: str, right: Any) -> bool:
    match operator:
        case "==":
            return _equal(left, right)
        case "!=":
            return not _equal(left, right)
        case "in":
            return _within(left, right)
        case "not in":
            return not _within(left, right)
        case _:
            return _ordered(left, operator, right)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, list) or isinstance(right, list):
        same = isinstance(left, list) and isinstance(right, list) and len(left) == len(right)
        return same and all(_equal(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, _Unset) or isinstance(right, _Unset):
        return left is None or right is None
    if isinstance(left, str) and isinstance(right, str):
        if left == right or not (isinstance(left, _Said) and isinstance(right, _Said)):
            return bool(left == right)
    elif left is None or right is None:
        other = right if left is None else left
        return other is None or (isinstance(other, _Said) and other == "None")
    elif isinstance(left, bool) or isinstance(right, bool):
        flag, other = (left, right) if isinstance(left, bool) else (right, left)
        return other.strip().lower() == str(flag).lower() if isinstance(other, str) else bool(flag == other)
    a, b = _as_number(left), _as_number(right)
    return a is not None and b is not None and a == b


def _within(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(_equal(left, item) for item in right)
    if isinstance(left, _Unset | list) or isinstance(right, _Unset) or not isinstance(right, str):
        return False
    return (left if isinstance(left, str) else str(left)) in str(right)


def _ordered(left: Any, operator: str, right: Any) -> bool:
    if isinstance(left, _Unset) or isinstance(right, _Unset):
        return False
    a, b = _as_number(left), _as_number(right)
    if a is None or b is None:
        if not (isinstance(left, str) and isinstance(right, str)) or a is not b:
            return False
        a, b = str(left), str(right)  # type: ignore[assignment]
    match operator:
        case "<":
            return a < b  # type: ignore[operator]
        case "<=":
            return a <= b  # type: ignore[operator]
        case ">":
            return a > b  # type: ignore[operator]
        case _:
            return a >= b  # type: ignore[operator]


def _as_number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and len(value) < 400 and _NUMBER.fullmatch(value.strip()):
        number = _number(value.strip())
        return number if math.isfinite(number) else None
    return None


def _number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"[-+]?\d{1,300}", text, re.ASCII) else float(text)
