"""Which rule a file belongs to, and what it is to run: by its name, its size and what is written in it.

The rules are asked in their order. By name alone most are out; the size and the contents count only once the file is
whole, because both change until then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

from orchestrator.arrival.readiness import Need

_PLACE = re.compile(r"\{([a-z]+)(?::(\d+))?\}")


class Condition(Struct, frozen=True):
    """About one value in an HDF5 file: one of `among`, or a number from `least` to `most`."""

    path: str  # of a dataset, or path@attribute
    among: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None

    def holds(self, value: Any) -> bool:
        if self.among:
            return value in self.among and not any(isinstance(v, bool) != isinstance(value, bool) for v in self.among)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.among:
            return f"{self.path} is {' or '.join(map(repr, self.among))}"
        return f"{self.path} from {self.least} to {self.most}"


class Parts(Struct, frozen=True):
    """The other files of a scan. The file that the rule matches stands for all of them."""

    pattern: str  # with {scan}, {stem} and {index}
    first: int = 0
    count: int = 0
    count_from: str = ""  # path in the file that the rule matches
    links: str = ""  # a group in it, whose links and virtual datasets name the parts, or one such dataset
    manifest: str = ""  # a file beside it with a name on each line


class Rule(Struct, frozen=True):
    name: str
    workflow: str
    owner: str = ""
    match: tuple[str, ...] = ()  # globs; empty: every name
    skip: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()  # without the dot, in lower case
    exclude_extensions: tuple[str, ...] = ()
    hidden: bool = False
    min_bytes: int = 0
    max_bytes: int | None = None
    when: tuple[Condition, ...] = ()
    arguments: dict[str, str] = {}  # with {path}, {checksum}, {folder}, {name}, {stem} and {scan}
    arguments_from: dict[str, str] = {}  # argument -> path in the file
    detector: str = ""
    kind: str = "raw"  # of the file, in the catalog
    checksum: bool = True
    need: Need = Need()
    parts: Parts | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """What is to be read from a whole file before it can run."""
        return tuple(dict.fromkeys([c.path for c in self.when] + list(self.arguments_from.values())))


class Claim(Struct, frozen=True):
    """A rule that a file may belong to by its name; `part`: it is a part of the scan of that name."""

    rule: Rule
    words: dict[str, str] = {}
    part: str = ""


def claims(rules: Sequence[Rule], name: str) -> tuple[list[Claim], str]:
    """The rules that want such a name, in their order, and why none does."""
    found: list[Claim] = []
    against: list[str] = []
    for rule in rules:
        reason, words = _by_name(rule, name)
        if not reason:
            found.append(Claim(rule, words))
        elif scan := _part_of(rule, name):
            found.append(Claim(rule, part=scan))
        else:
            against.append(reason if len(rules) == 1 else f"rule {rule.name!r}: {reason}")
    return found, "" if found else "; ".join(against) or "there are no rules"


def objection(rule: Rule, size: int, values: Mapping[str, Any]) -> str:
    """Why a whole file of that name is none of this rule's; empty when it is."""
    if size < rule.min_bytes:
        return f"it has {size} bytes, fewer than {rule.min_bytes}"
    if rule.max_bytes is not None and size > rule.max_bytes:
        return f"it has {size} bytes, more than {rule.max_bytes}"
    for condition in rule.when:
        value = values.get(condition.path)
        if not condition.holds(value):
            return f"not {condition}: it is {value!r}" if value is not None else f"it has no {condition.path}"
    return ""


def arguments(claim: Claim, path: str, values: Mapping[str, Any], checksum: str = "") -> tuple[dict[str, str], str]:
    """What its run is given, and what is lacking for that."""
    rule = claim.rule
    lacking = [where for where in rule.arguments_from.values() if values.get(where) is None]
    if lacking:
        return {}, f"it has no {lacking[0]}, which an argument is taken from"
    words = {**claim.words, "path": path, "checksum": checksum}
    given = {name: filled(text, words) for name, text in rule.arguments.items()}
    given |= {name: str(values[where]) for name, where in rule.arguments_from.items()}
    return {"filePath": path, **given}, ""


def part_names(parts: Parts, claim: Claim, name: str, count: int) -> list[str]:
    """The names of all parts, in the folder of the file `name`."""
    folder = name.rpartition("/")[0]
    indexes = range(parts.first, parts.first + count)
    return [os.path.join(folder, filled(parts.pattern, claim.words, index)) for index in indexes]


def filled(text: str, words: Mapping[str, str], index: int | None = None) -> str:
    """`text` with {words} put in, as they are; nothing in the values is looked at again."""

    def put(found: re.Match[str]) -> str:
        if found[1] == "index" and index is not None:
            return str(index).zfill(int(found[2] or 0))
        return words.get(found[1], found[0])

    return _PLACE.sub(put, text)


def places(text: str) -> set[str]:
    """The {words} of a text."""
    return {found[1] for found in _PLACE.finditer(text)}


def words_of(name: str) -> dict[str, str]:
    folder, _, last = name.rpartition("/")
    return {"folder": folder, "name": last, "stem": last[: last.rfind(".")] if "." in last[1:] else last}


# ------------------------------------------------------------------------------------------------------------ names


def _by_name(rule: Rule, name: str) -> tuple[str, dict[str, str]]:
    """Why not, and the words of the name."""
    words = words_of(name)
    if not rule.hidden and any(part.startswith(".") for part in name.split("/")):
        return "it is hidden", {}
    extension = words["name"].rpartition(".")[2].lower() if "." in words["name"][1:] else ""
    if rule.extensions and extension not in rule.extensions:
        return f"its name does not end with .{' or .'.join(rule.extensions)}", {}
    if extension in rule.exclude_extensions:
        return f"names with .{extension} are left out", {}
    if any(glob(pattern)(name) is not None for pattern in rule.skip):
        return "names like that are to be skipped", {}
    if not rule.match:
        return "", words
    for pattern in rule.match:
        if (found := glob(pattern)(name)) is not None:
            return "", words | found
    return f"its name is not like {' or '.join(map(repr, rule.match))}", {}


def _part_of(rule: Rule, name: str) -> str:
    if rule.parts is None:
        return ""
    patterns = [p for p in (rule.parts.pattern, rule.parts.manifest) if p]
    for pattern in patterns:
        found = glob(pattern)(name)
        if found is not None:
            return found.get("scan") or found.get("stem") or words_of(name)["stem"]
    return ""


@lru_cache(maxsize=1000)
def glob(pattern: str) -> Callable[[str], dict[str, str] | None]:
    """What matches names against a glob and gives its {words}. Without a `/` it is about the last part of a name.

    `*` and `?` stay within one folder, `**/` stands for any number of them, `[…]` for one character, `{index}` for a
    number.
    """
    text, seen = "", set[str]()
    for piece in re.finditer(r"\*\*/|\*+|\?|\[!?\]?[^\]]*\]|\{([a-z]+)(?::(\d+))?\}|.", pattern, re.DOTALL):
        word = piece[0]
        if word == "**/":
            text += "(?:.*/)?"
        elif word[0] == "*":
            text += ".*" if word == "**" and pattern.endswith("/**") else "[^/]*"
        elif word == "?":
            text += "[^/]"
        elif word[0] == "[" and len(word) > 2:
            inner = word[1:-1].replace("\\", "\\\\")
            text += "(?!/)[" + ("^" + inner[1:] if inner[0] == "!" else inner.replace("^", "\\^")) + "]"
        elif piece[1] and piece[1] in seen:
            text += f"(?P={piece[1]})"
        elif piece[1]:
            seen.add(piece[1])
            kind = rf"\d{{{piece[2] or 1},}}" if piece[1] == "index" else "[^/]+"
            text += f"(?P<{piece[1]}>{kind})"
        else:
            text += re.escape(word)
    expression = re.compile(text, re.DOTALL)
    whole_path = "/" in pattern

    def matches(name: str) -> dict[str, str] | None:
        found = expression.fullmatch(name if whole_path else name.rpartition("/")[2])
        return None if found is None else found.groupdict()

    return matches
