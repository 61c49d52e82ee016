"""py-spec: one Python expression that is a value, read without running anything.

Allowed are the literals, `+` between strings, signs of numbers. `ast.literal_eval` lacks the `+` that real definitions
use; `eval` is out of the question.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

from orchestrator.errors import DefinitionError

MOST_BYTES, MOST_DEPTH = 5_000_000, 60

Lines = dict[int, dict[str, int]]  # id of a dict value -> line of each key


def read(text: str, source: str) -> tuple[Any, Lines]:
    """The value of a py-spec text, and on which line each key of each dict stands. Raises DefinitionError."""
    if len(text) > MOST_BYTES:
        raise DefinitionError(f"The definition has {len(text)} characters; {MOST_BYTES} are allowed.", file=source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # "\\d" in somebody's regex
            tree = ast.parse(text.strip("\ufeff \t\r\n\f"), source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 0
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply or holds a NUL"
        raise DefinitionError(
            f"This is not one Python expression: {reason}.",
            "A definition file holds one dict and comments, nothing else.",
            file=source,
            line=line + _skipped(text) if line else 0,
        ) from None
    reader = _Reader(source, _skipped(text))
    return reader.value(tree.body, 0), reader.lines


def _skipped(text: str) -> int:
    """Lines that `strip` took from the front."""
    return text[: len(text) - len(text.lstrip("\ufeff \t\r\n\f"))].count("\n")


class _Reader:
    def __init__(self, source: str, offset: int) -> None:
        self._source, self._offset = source, offset
        self.lines: Lines = {}

    def refuse(self, node: ast.AST, sentence: str) -> DefinitionError:
        return DefinitionError(sentence, file=self._source, line=getattr(node, "lineno", 0) + self._offset)

    def value(self, node: ast.expr, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise self.refuse(node, f"The definition is nested more than {MOST_DEPTH} deep.")
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None as constant):
                return constant
            case ast.BinOp(op=ast.Add()):
                return self._joined(node, depth)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as number)):
                return number
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                return [self.value(e, depth + 1) for e in elements]
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values, depth)
        raise self.refuse(node, f"{type(node).__name__} is not allowed in a definition: it must be plain data.")

    def _joined(self, node: ast.BinOp, depth: int) -> str:
        """A chain of `+`, walked without recursion because real files join dozens of lines."""
        parts: list[str] = []
        waiting: list[ast.expr] = [node]
        while waiting:
            part = waiting.pop()
            if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
                waiting += [part.left, part.right]
                continue
            value = self.value(part, depth + 1)
            if not isinstance(value, str):
                raise self.refuse(part, "Only strings may be joined with '+'.")
            parts.append(value)
        return "".join(reversed(parts))

    def _dict(self, keys: list[ast.expr | None], values: list[ast.expr], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in zip(keys, values, strict=True):
            if key_node is None:
                raise self.refuse(value_node, "'**' is not allowed in a definition: it must be plain data.")
            key = self.value(key_node, depth + 1)
            if not isinstance(key, str):
                raise self.refuse(key_node, f"The key {key!r} must be a string.")
            if key in made:
                raise self.refuse(key_node, f"The key {key!r} stands twice in one dict.")
            made[key] = self.value(value_node, depth + 1)
            lines[key] = key_node.lineno + self._offset
        self.lines[id(made)] = lines
        return made
