"""The same folders under other names: what an order says in the service's names, as its site names it, and back. Pure.

Mapped are the working directory and declared outputs that lie in such a folder, and in a command or an argument what
begins a path there. The longest name that fits counts. The attempt's own files (logs, records) are the agent's and
stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from orchestrator.model import Order, Outcome

Pairs = Sequence[tuple[str, str]]  # (from, to), absolute and without a final slash

_BEFORE = r"(?<![\w./~-])"  # a path begins here, and goes on neither before nor after
_AFTER = r"(?=[/\s'\";:,&|()<>]|$)"


def order(asked: Order, pairs: Pairs) -> Order:
    """The order as the site reads it."""
    if not pairs:
        return asked
    return replace(
        asked,
        command=text(asked.command, pairs),
        arguments={name: _deep(value, pairs) for name, value in asked.arguments.items()},
        working_dir=path(asked.working_dir, pairs),
        expect=tuple(replace(e, path=path(e.path, pairs)) for e in asked.expect),
        inputs=tuple(path(name, pairs) for name in asked.inputs),
        known={path(name, pairs): checksum for name, checksum in asked.known.items()},
    )


def outcome(found: Outcome, pairs: Pairs) -> Outcome:
    """What came of it, in the service's names."""
    if not pairs:
        return found
    back = [(there, here) for here, there in pairs]
    return replace(
        found,
        reason=text(found.reason, back),
        products=tuple(replace(p, path=path(p.path, back)) for p in found.products),
        inputs=tuple(replace(c, path=path(c.path, back)) for c in found.inputs),
        findings=tuple(replace(f, path=path(f.path, back)) for f in found.findings),
    )


def path(name: str, pairs: Pairs) -> str:
    for old, new in _longest_first(pairs):
        if name == old or name.startswith(f"{old}/"):
            return new + name[len(old) :]
    return name


def text(words: str, pairs: Pairs) -> str:
    """Words with paths among them, such as a command."""
    if not words or not pairs:
        return words
    names = "|".join(re.escape(old) for old, _ in _longest_first(pairs))
    known = dict(pairs)
    return re.sub(f"{_BEFORE}(?:{names}){_AFTER}", lambda found: known[found[0]], words)


def _deep(value: Any, pairs: Pairs) -> Any:
    if isinstance(value, str):
        return text(value, pairs)
    if isinstance(value, list):
        return [_deep(v, pairs) for v in value]
    if isinstance(value, dict):
        return {k: _deep(v, pairs) for k, v in value.items()}
    return value


def _longest_first(pairs: Pairs) -> list[tuple[str, str]]:
    return sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
