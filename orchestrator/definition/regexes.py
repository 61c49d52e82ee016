"""Regexes that can take for ever: found by structure, confirmed by trying them on a text made to be slow.

The structures are a repeat inside a repeat, `(a+)+`, and overlapping alternatives inside a repeat,
`(a|ab?)*`. A suspect is reported only when a search among few characters really is slow; slowness of a
lower order, as of `.*.*x`, is not looked for.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

SLOW_S = 0.02  # of CPU time: about a million steps
LONGEST = 60  # characters; a search among so few that is slow is exponential
_REPEATS = tuple(
    getattr(codes, name) for name in ("MAX_REPEAT", "MIN_REPEAT") if hasattr(codes, name)
)  # a possessive repeat never goes back
_MANY = 10  # a repeat of at least this many counts as without end
_SAMPLES = {
    "CATEGORY_DIGIT": "0",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_SPACE": "a",
    "CATEGORY_WORD": "a",
    "CATEGORY_NOT_WORD": " ",
}


def attack(pattern: str) -> str:
    """A text on which a search for `pattern` takes exponential time, or an empty string.

    The text grows by one character at a time, so the search that proves it costs a few times `SLOW_S`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            search = re.compile(pattern).search
            suspects = list(dict.fromkeys(_suspects(_parser.parse(pattern), "")))
        except (re.error, RecursionError, OverflowError):
            return ""
    for before, unit in suspects[:8]:
        for end in ("\0", "!", "\n\n"):
            for length in range(4, LONGEST):
                text = before + (unit * LONGEST)[:length] + end
                start = time.thread_time()
                search(text)
                if time.thread_time() - start > SLOW_S:
                    return text
    return ""


def _suspects(tree: Any, before: str) -> Iterator[tuple[str, str]]:
    """(text that leads to the suspect, text that goes round once in it)."""
    for operator, value in tree:
        if operator in _REPEATS:
            _, most, body = value
            if most >= _MANY and (_has_repeat(body) or _overlaps(body)):
                yield from ((before, unit) for unit in _units(body) if unit)
            yield from _suspects(body, before)
        elif operator is codes.SUBPATTERN:
            yield from _suspects(value[-1], before)
        elif operator is codes.BRANCH:
            for branch in value[1]:
                yield from _suspects(branch, before)
        before += _sample([(operator, value)])


def _has_repeat(tree: Any) -> bool:
    for operator, value in tree:
        if operator in _REPEATS and (value[1] >= _MANY or value[0] != value[1] or _has_repeat(value[2])):
            return True
        if operator is codes.SUBPATTERN and _has_repeat(value[-1]):
            return True
        if operator is codes.BRANCH and any(_has_repeat(b) for b in value[1]):
            return True
    return False


def _overlaps(tree: Any) -> bool:
    """Whether there are alternatives: the trial decides whether they overlap."""
    return any(
        operator is codes.BRANCH or (operator is codes.SUBPATTERN and _overlaps(value[-1])) for operator, value in tree
    )


def _units(tree: Any) -> list[str]:
    """Texts that `tree` matches: with and without its optional parts, and with each of its alternatives."""
    found = [_sample(tree), _sample(tree, least=True)]
    items = list(tree)
    for position, (operator, value) in enumerate(items):
        before, after = (_sample(x, least=True) for x in (items[:position], items[position + 1 :]))
        if operator is codes.BRANCH:
            found += [before + _sample(b, least=True) + after for b in value[1]]
        elif operator is codes.SUBPATTERN:
            found += [before + unit + after for unit in _units(value[-1])]
    return list(dict.fromkeys(unit for unit in found if unit))[:8]


def _sample(tree: Any, *, least: bool = False) -> str:
    """A short text that `tree` matches, `least` without optional parts. Look-arounds count as empty."""
    parts = []
    for operator, value in tree:
        if operator is codes.LITERAL:
            parts.append(chr(value))
        elif operator is codes.NOT_LITERAL:
            parts.append("a" if value != ord("a") else "b")
        elif operator is codes.ANY:
            parts.append("a")
        elif operator is codes.IN:
            parts.append(_member(value))
        elif operator in _REPEATS:
            count = value[0] if least else max(1, value[0])
            parts.append(_sample(value[2], least=least)[:20] * min(count, 20))
        elif operator is codes.SUBPATTERN:
            parts.append(_sample(value[-1], least=least))
        elif operator is codes.BRANCH:
            parts.append(_sample(value[1][0], least=least))
    return "".join(parts)[:200]


def _member(items: Any) -> str:
    first, value = items[0]
    if first is codes.NEGATE:
        taken = {v for code, v in items[1:] if code is codes.LITERAL}
        return next((c for c in "a0 -_xyz" if ord(c) not in taken), "q")
    if first is codes.RANGE:
        return chr(value[0])
    return chr(value) if first is codes.LITERAL else _SAMPLES.get(str(value), "a")
