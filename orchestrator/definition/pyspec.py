"""The text forms of a definition: a Python expression that is a dict (DM's py-spec), or JSON. Nothing is
evaluated.

A py-spec may hold comments, `+` between strings, backslash continuations and trailing commas. It is parsed to
a syntax tree, and only dicts, lists, tuples, strings, numbers, True, False, None, `+` on strings and a sign
before a number are read from it. Tuples become lists, so that a definition is the same after a round trip
through JSON.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

from orchestrator.definition.place import Place
from orchestrator.errors import DefinitionError, printable

MAX_BYTES = 2_000_000
MAX_DEPTH = 60
MAX_VALUES = 100_000
MAX_JOINS = 500  # strings joined by `+` in one value; the parser itself gives up near 1,000

Lines = dict[tuple[str, str], int]


def read(text: str, *, source: str) -> tuple[dict[str, Any], Lines]:
    """The dict in `text` and the line of each workflow key, stage and stage key.

    A source that ends in `.json` is JSON and one that ends in `.py` a py-spec. Anything else is tried as
    both.

    Raises DefinitionError, and nothing else, for any text.
    """
    size = len(text)
    if size > MAX_BYTES:
        raise DefinitionError(
            f"The text is {size / 1e6:.1f} MB long; a definition has at most {MAX_BYTES / 1e6:.0f} MB.",
            file=source,
        )
    place = Place(source)
    if source.endswith(".json"):
        return _read_json(text, place)
    if source.endswith(".py"):
        return _read_python(text, place)
    try:
        return _read_json(text, place)
    except DefinitionError:
        return _read_python(text, place)


def clean(value: Any, place: Place) -> Any:
    """A deep copy made of plain dicts, lists, strings and finite numbers, or DefinitionError."""
    return _Cleaner(place).clean(value, 0)


class _Cleaner:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.count = 0

    def clean(self, value: Any, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.place.error(f"The definition holds more than {MAX_VALUES:,} values.")
        if depth > MAX_DEPTH:
            raise self.place.error(_TOO_DEEP)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            if "\0" in value:
                raise self.place.error("A text holds a NUL character.", "Remove it.")
            if not _writable(value):
                raise self.place.error("A text holds half a character (a lone surrogate).", "Remove it.")
            return str(value)
        if isinstance(value, int):
            if abs(value) >= 2**63:
                raise self.place.error("A whole number does not fit in 64 bits.")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self.place.error("A number is not finite.")
            return float(value)
        if isinstance(value, Mapping):
            result: dict[str, Any] = {}
            for key, item in value.items():
                if not isinstance(key, str):
                    raise self.place.error(f"A key must be text, not {_shown(key)}.", "Put it in quotes.")
                result[self.clean(key, depth + 1)] = self.clean(item, depth + 1)
            return result
        if isinstance(value, list | tuple):
            return [self.clean(item, depth + 1) for item in value]
        raise self.place.error(
            f"A value of type {type(value).__name__} cannot stand in a definition.",
            "Use text, numbers, True, False, None, lists and dicts.",
        )


def _writable(text: str) -> bool:
    """Whether a program can be given `text`: the bytes of a file name that is not UTF-8 count, other halves do not."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


_TOO_DEEP = f"The definition is nested more than {MAX_DEPTH} levels deep."


def _shown(value: object) -> str:
    text = printable(repr(value)) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _read_python(text: str, place: Place) -> tuple[dict[str, Any], Lines]:
    tree = _parse(text, place)
    walk = _Walk(place, json_names=False)
    value = walk.value(tree, 0)
    return _whole(value, place), _lines(tree)


def _read_json(text: str, place: Place) -> tuple[dict[str, Any], Lines]:
    try:
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as e:
        raise DefinitionError(
            f"This is not JSON: {e.msg} (column {e.colno}).",
            "A definition written as a Python expression belongs in a .py file.",
            file=place.file,
            line=e.lineno,
        ) from None
    except RecursionError:
        raise place.error(_TOO_DEEP) from None
    except ValueError as e:  # a whole number with thousands of digits
        raise place.error(f"This is not JSON that can be read: {e}.") from None
    lines: Lines = {}
    try:  # JSON is nearly a Python expression: its syntax tree tells the lines
        tree = _parse(text, place)
        lines = _lines(tree)
        _Walk(place, json_names=True).value(tree, 0)
    except DefinitionError as e:
        if "more than once" in e.sentence:
            raise
    return _whole(_unpair(value, place, 0), place), lines


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before its keys were checked."""


def _unpair(value: Any, place: Place, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise place.error(_TOO_DEEP)
    if isinstance(value, _Pairs):
        result: dict[str, Any] = {}
        for key, item in value:
            if key in result:
                raise place.error(f"The key {key!r} stands more than once in the same dict.")
            result[key] = _unpair(item, place, depth + 1)
        return result
    if isinstance(value, list):
        return [_unpair(item, place, depth + 1) for item in value]
    return value


def _whole(value: Any, place: Place) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.error(
            f"A definition is one dict, and this is {_KINDS.get(type(value), type(value).__name__)}.",
            "Write {'name': ..., 'owner': ..., 'stages': {...}}.",
        )
    result: dict[str, Any] = clean(value, place)
    return result


_KINDS: dict[type, str] = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "True or False",
    type(None): "nothing",
}


def _parse(text: str, place: Place) -> ast.expr:
    """The syntax tree of one expression. Brackets around it make indentation and line ends free, as DM's
    files need."""
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise place.error("The definition is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # '\d' in a regex: an unknown escape stays as it is
            return ast.parse(f"({text}\n)", mode="eval").body
    except SyntaxError as e:
        line = min(e.lineno or 0, text.count("\n") + 1)
        raise DefinitionError(
            f"This is not a Python expression: {e.msg}.", _syntax_hint(text), file=place.file, line=line
        ) from None
    except (RecursionError, MemoryError):  # the parser's two ways to say that its stack is full
        raise place.error(_TOO_DEEP) from None
    except ValueError as e:
        raise place.error(f"This is not a Python expression: {e}.") from None


def _syntax_hint(text: str) -> str:
    lines = [x for x in text.splitlines() if x.strip() and not x.lstrip().startswith("#")]
    first = lines[0].strip() if lines else ""
    if first.startswith(("import ", "from ", "def ", "class ")):
        return "A definition is one dict, not a program."
    if "=" in first.split("{")[0]:
        return "A definition is the dict alone: leave out the assignment before it."
    return "Look for a missing comma, quote or bracket on this line or the one before."


class _Walk:
    """Reads values from a syntax tree, by a list of what is allowed."""

    def __init__(self, place: Place, *, json_names: bool) -> None:
        self.place = place
        self.json_names = json_names
        self.count = 0

    def value(self, node: ast.expr, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            self.fail(node, f"The definition holds more than {MAX_VALUES:,} values.")
        if depth > MAX_DEPTH:
            self.fail(node, _TOO_DEEP)
        match node:
            case ast.Constant(value=str() | int() | float() | None):
                return node.value
            case ast.Dict():
                return self.dict(node, depth)
            case ast.List() | ast.Tuple():
                return [self.value(item, depth + 1) for item in node.elts]
            case ast.BinOp(op=ast.Add()):
                return self.join(node, depth)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float())):
                number = node.operand.value  # type: ignore[attr-defined]
                if not isinstance(number, bool):
                    return -number if isinstance(node.op, ast.USub) else number
            case ast.Name(id="true" | "false" | "null") if self.json_names:
                return {"true": True, "false": False, "null": None}[node.id]
            case ast.Name(id=name):
                better = {"true": "True", "false": "False", "null": "None", "none": "None"}.get(name.lower())
                hint = f"Write {better}." if better else "Is a quote missing around it?"
                self.fail(node, f"The name {name!r} stands where a value belongs.", hint)
        return self.fail(
            node,
            f"{_WHAT.get(type(node), 'This kind of expression')} cannot stand in a definition.",
            "Use dicts, lists, texts, numbers, True, False, None, and + between texts.",
        )

    def dict(self, node: ast.Dict, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            if key_node is None:
                self.fail(value_node, "** cannot stand in a definition.")
            key = self.value(key_node, depth + 1)
            if not isinstance(key, str):
                self.fail(key_node, f"A key must be text, not {_shown(key)}.", "Put it in quotes.")
            if key in result:
                self.fail(key_node, f"The key {key!r} stands more than once in the same dict.")
            result[key] = self.value(value_node, depth + 1)
        return result

    def join(self, node: ast.BinOp, depth: int) -> str:
        parts: list[str] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, ast.Add):
            parts.append(self.text(left.right, depth))
            left = left.left
            if len(parts) > MAX_JOINS:
                self.fail(node, f"More than {MAX_JOINS} texts are joined by + in one value.")
        parts.append(self.text(left, depth))
        return "".join(reversed(parts))

    def text(self, node: ast.expr, depth: int) -> str:
        value = self.value(node, depth + 1)
        if not isinstance(value, str):
            self.fail(node, f"+ joins texts only, and {_shown(value)} is none.", "Put it in quotes.")
        return value

    def fail(self, node: ast.expr, sentence: str, hint: str = "") -> NoReturn:
        raise DefinitionError(sentence, hint, file=self.place.file, line=node.lineno)


_WHAT: dict[type[ast.expr], str] = {
    ast.Call: "A function call",
    ast.JoinedStr: "An f-string",
    ast.ListComp: "A comprehension",
    ast.DictComp: "A comprehension",
    ast.GeneratorExp: "A comprehension",
    ast.Lambda: "A lambda",
    ast.Attribute: "An attribute",
    ast.Subscript: "An index",
    ast.Set: "A set",
    ast.BinOp: "Arithmetic",
    ast.IfExp: "A condition",
    ast.Constant: "Bytes, ... or a complex number",
}


def _lines(tree: ast.expr) -> Lines:
    """Line of the dict, of each workflow key, of each stage and of each stage key."""
    lines: Lines = {("", ""): tree.lineno}
    for key, node, value in _entries(tree):
        lines["", key] = node.lineno
        if key == "stages":
            for stage, stage_node, body in _entries(value):
                lines[stage, ""] = stage_node.lineno
                for name, name_node, _ in _entries(body):
                    lines[stage, name] = name_node.lineno
    return lines


def _entries(node: ast.expr) -> list[tuple[str, ast.expr, ast.expr]]:
    if not isinstance(node, ast.Dict):
        return []
    return [
        (k.value, k, v)
        for k, v in zip(node.keys, node.values, strict=True)
        if isinstance(k, ast.Constant) and isinstance(k.value, str)
    ]
