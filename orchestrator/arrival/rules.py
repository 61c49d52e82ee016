"""Rule files: what is watched, and what becomes of each file. Read strictly; DM's DAQ option names are understood.

    directory = "/data/2bm"
    experiment = "2026-3-smith"

    [[rule]]
    name = "tomography"
    match = "scans/**/*.h5"
    workflow = "tomo"
    arguments = { sample = "{stem}" }
    ready = { layout = "dxchange" }

A file with one rule may have its keys at the top. Each mistake is one sentence: file, rule, key, what to do.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from orchestrator.arrival.readiness import Layout, Need
from orchestrator.arrival.trigger import Condition, Parts, Rule, glob, places
from orchestrator.errors import SettingsError, nearest

ALIASES = {  # DM's DAQ options; `!` turns a yes into a no
    "dataDirectory": "directory",
    "experimentName": "experiment",
    "processExistingFiles": "existing",
    "maxRunTimeInHours": "for_hours",
    "processHiddenFiles": "hidden",
    "processHidden": "hidden",
    "includeFileExtensions": "extensions",
    "excludeFileExtensions": "exclude_extensions",
    "filePathPattern": "match",
    "skipFilePathPattern": "skip",
    "workflowName": "workflow",
    "workflowOwner": "owner",
    "workflowArgs": "arguments",
    "skipChecksum": "!checksum",
}
DAQ = {  # of the transfer that a DAQ also is; who runs it and what is in the catalog is the same for all watches
    "destDirectory": str,
    "workflowJobOwner": str,
    "removeSourceFiles": bool,
    "skipTransfer": bool,
    "skipCatalog": bool,
    "uploadDataDirectoryOnExit": str,
}
WATCH = {"directory": str, "experiment": str, "existing": bool, "for_hours": float, "once": bool}
RULE: dict[str, Any] = {
    "name": str,
    "workflow": str,
    "owner": str,
    "detector": str,
    "kind": str,
    "match": tuple,
    "skip": tuple,
    "extensions": tuple,
    "exclude_extensions": tuple,
    "hidden": bool,
    "min_bytes": int,
    "max_bytes": int,
    "checksum": bool,
    "arguments": dict,
    "arguments_from": dict,
    "when": dict,
    "ready": dict,
    "parts": dict,
}
INGEST = "ingest"  # the standard workflow that copies a file
READY = {
    "settle_s": float,
    "patience_s": float,
    "closed": bool,
    "empty": bool,
    "flats": bool,
    "opens": bool,
    "sentinel": str,
    "end_marker": str,
    "frames": str,
    "expected": (int, str),
    "layout": str,
}
PARTS = {"pattern": str, "first": int, "count": int, "count_from": str, "links": str, "manifest": str}
KINDS = ("raw", "calibration", "other")  # of files, in the catalog
WORDS = {"folder", "name", "stem"}  # that every name has; others are those of `match`
NAME = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # of a watch
_HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_WANT: dict[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a text or a list of texts",
    dict: "a table",
    (int, str): "a number or a text",
}


class WatchFile(Struct, frozen=True):
    directory: str
    experiment: str
    rules: tuple[Rule, ...]
    existing: bool = True  # take up what is there already when the watch begins
    for_hours: float = 0.0  # 0: until it is stopped
    once: bool = False  # until all that is there is decided


def load(path: Path) -> WatchFile:
    """Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"The rule file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"The rule file {path} cannot be read: {error}.") from None
    return parse(text, str(path))


def parse(text: str, where: str, *, directory: str = "", experiment: str = "", lines: bool = True) -> WatchFile:
    """`directory` and `experiment` where the text does not say them. Raises SettingsError with the first mistake, and
    with its line unless `lines` are of no use to the reader."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where}: {error}.") from None
    tables = raw.pop("rule", None)
    if tables is not None and (not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables)):
        raise SettingsError(f"{where}: rules are written as [[rule]].")
    begins = [1, *(n for n, line in enumerate(text.splitlines(), 1) if _HEADER.match(line))]
    at_the_top = dict(RULE) if tables is None else {}
    with _at_line(text, where, begins[:1] * lines):
        given = _read(raw, WATCH | DAQ | at_the_top, where)
    if tables is None:
        tables, begins = [{name: given.pop(name) for name in list(given) if name in RULE}], [1, 1]
    daq = {name: given[name] for name in DAQ if name in given}
    with _at_line(text, where, begins[:1] * lines):
        tables = [_moved(table, daq, where) for table in tables]
    rules = []
    for number, table in enumerate(tables, 1):
        with _at_line(text, where, begins[number : number + 1] * lines):
            rules.append(_rule(table, where, number))
    names = [rule.name for rule in rules]
    if twice := next((n for n in names if names.count(n) > 1), ""):
        raise SettingsError(f"{where}: two rules are called {twice!r}.", "Each needs a name of its own.")
    for needed, said in (("directory", directory), ("experiment", experiment)):
        if given.setdefault(needed, said) != said and said:
            raise SettingsError(f"{where}: {needed!r} is {given[needed]!r}, and not {said!r}.", "Say it once.")
        if not given.get(needed):
            raise SettingsError(f"{where}: {needed!r} is not said.", f'Write {needed} = "…" at the top.')
    if given.get("for_hours", 0.0) < 0:
        raise SettingsError(f"{where}: key 'for_hours' must not be below 0.")
    return WatchFile(**{n: given[n] for n in WATCH if n in given}, rules=tuple(rules))


@contextlib.contextmanager
def _at_line(text: str, where: str, begin: list[int]) -> Iterator[None]:
    """A mistake that is found within is said with its line: of its key, or of the `begin` of its rule."""
    try:
        yield
    except SettingsError as error:
        if not begin:
            raise
        key = re.search(r"key '(?:[^']*\.)?([^'.]+)'", error.sentence)
        wanted = re.compile(rf"(^|[\s{{,.\"']){re.escape(key[1])}[\"']?\s*=" if key else r"\S")
        lines = text.splitlines()[begin[0] - 1 :]
        line = begin[0] + next((n for n, found in enumerate(lines) if wanted.search(found)), 0)
        raise SettingsError(error.sentence.replace(where, f"{where}:{line}", 1), error.hint) from None


def checked_name(name: str) -> str:
    """Raises SettingsError."""
    if not NAME.fullmatch(name):
        raise SettingsError(f"A watch cannot be called {name!r}.", "Up to 128 letters, digits and any of . _ : -")
    return name


def _moved(table: Mapping[str, Any], daq: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The rule as the options of DM's DAQ about moving data make it: without a workflow of its own it copies."""
    if daq.get("removeSourceFiles"):
        raise SettingsError(
            f"{where}, key 'removeSourceFiles': a watch removes nothing.",
            "`beamway retention` does, once there are verified copies elsewhere: docs/retention.md.",
        )
    if daq.get("uploadDataDirectoryOnExit") and not daq.get("skipTransfer"):
        raise SettingsError(
            f"{where}, key 'uploadDataDirectoryOnExit': files are copied as they arrive, not at the end.",
            "Leave it out, and say destDirectory.",
        )
    to = "" if daq.get("skipTransfer") else daq.get("destDirectory", "")
    if not to:
        return table
    if "workflow" in table or "workflowName" in table:
        raise SettingsError(
            f"{where}: 'destDirectory' copies each file, and {table.get('workflow') or table.get('workflowName')!r} "
            "would run beside that.",
            "Leave one of them out, or use a workflow that copies first, as tomography_remote does.",
        )
    return {**table, "workflow": INGEST, "arguments": {"destination": f"{to.rstrip('/')}/{{folder}}"}}


def _rule(table: Mapping[str, Any], file: str, number: int) -> Rule:
    called = table.get("name", "")
    where = f"{file}: rule {called!r}" if called else f"{file}: rule {number}"
    given = _read(table, RULE, where)
    if not given.get("workflow"):
        raise SettingsError(f"{where}: 'workflow' is not said.", "Say what is to run.")
    if "owner" in given and "workflow" not in table and "workflowName" not in table:
        raise SettingsError(f"{where}: an owner without a workflow.", "Give both or neither.")
    if (kind := given.get("kind", KINDS[0])) not in KINDS:
        raise SettingsError(
            f"{where}, key 'kind': there is no kind {kind!r}.{nearest(kind, KINDS)}", f"Kinds: {', '.join(KINDS)}."
        )
    for key in ("extensions", "exclude_extensions"):
        texts = [e for text in given.get(key, ()) for e in re.split(r"[,\s]+", text) if e]
        given[key] = tuple(e.lstrip(".").lower() for e in texts)
    for key in ("match", "skip"):
        for pattern in given.get(key, ()):
            _check_pattern(pattern, f"{where}, key {key!r}")
    for key in ("arguments", "arguments_from"):
        if bad := next((n for n, v in given.get(key, {}).items() if not isinstance(v, str | int | float)), ""):
            raise SettingsError(f"{where}, key '{key}.{bad}': it must be a text or a number.")
        given[key] = {name: _text(value) for name, value in given.get(key, {}).items()}
    named = [places(pattern) for pattern in given.get("match", ())]
    words = WORDS | (set.intersection(*named) if named else set())
    for name, value in given["arguments"].items():
        _check_words(value, words | {"path", "checksum"}, f"{where}, key 'arguments.{name}'")
    when = tuple(_condition(path, wanted, where) for path, wanted in given.pop("when", {}).items())
    parts = _parts(given.pop("parts"), where, words) if "parts" in given else None
    if parts is not None and given["workflow"] == INGEST:
        raise SettingsError(
            f"{where}, key 'parts': a run of the workflow 'ingest' copies one file, and would leave the parts behind.",
            "Leave 'parts' out: then each file of the scan arrives, and is copied, by itself.",
        )
    need = _need(given.pop("ready", {}), where, parts is not None)
    _check_words(need.sentinel, words, f"{where}, key 'ready.sentinel'")
    return Rule(**({"name": f"rule-{number}"} | given), when=when, parts=parts, need=need)


def _need(table: Mapping[str, Any], where: str, parts: bool) -> Need:
    given = _read(table, READY, f"{where}, 'ready'")
    if (layout := given.get("layout", "")) not in list(Layout):
        known = [str(known) for known in Layout if known]
        raise SettingsError(f"{where}, key 'ready.layout': there is no layout {layout!r}.{nearest(layout, known)}")
    if bool(given.get("frames")) != bool(given.get("expected")):
        raise SettingsError(
            f"{where}, 'ready': 'frames' and 'expected' go together.",
            "The path of the dataset, and how many frames it must have (a number, or the path that says so).",
        )
    for key in ("settle_s", "patience_s"):
        if given.get(key, 0.0) < 0:
            raise SettingsError(f"{where}, key 'ready.{key}': it must not be below 0.")
    return msgspec.convert(given | {"parts": parts}, Need)


def _parts(table: Mapping[str, Any], where: str, words: set[str]) -> Parts:
    given = _read(table, PARTS, f"{where}, 'parts'")
    if not given.get("pattern"):
        raise SettingsError(f"{where}, 'parts': 'pattern' is not said.", 'For example "{scan}_{index:05}.tif".')
    for key in ("pattern", "manifest"):
        _check_pattern(given.get(key, ""), f"{where}, key 'parts.{key}'")
        _check_words(given.get(key, ""), words | {"index"}, f"{where}, key 'parts.{key}'")
    said = [key for key in ("count", "count_from", "links", "manifest") if given.get(key)]
    if len(said) != 1:
        hint = "Say one of 'count', 'count_from', 'links' and 'manifest'."
        raise SettingsError(f"{where}, 'parts': how many there are is said {len(said)} times.", hint)
    if said[0] in ("count", "count_from") and "index" not in places(given["pattern"]):
        raise SettingsError(f"{where}, key 'parts.pattern': it has no {{index}}.")
    if given.get("count", 1) < 1 or given.get("first", 0) < 0:
        raise SettingsError(f"{where}, 'parts': 'count' must be above 0 and 'first' not below.")
    return Parts(**given)


def _condition(path: str, wanted: Any, where: str) -> Condition:
    if isinstance(wanted, dict):
        limits = _read(wanted, {"min": float, "max": float}, f"{where}, 'when.{path}'")
        return Condition(path, least=limits.get("min"), most=limits.get("max"))
    among = tuple(wanted) if isinstance(wanted, list) else (wanted,)
    if not among or not all(isinstance(value, str | int | float) for value in among):
        raise SettingsError(f"{where}, key 'when.{path}': it must be a value, a list of them, or {{ min, max }}.")
    return Condition(path, among)


def _read(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values under our names, each of its type."""
    given: dict[str, Any] = {}
    for written, value in table.items():
        name = ALIASES.get(written, written)
        opposite, name = name.startswith("!"), name.removeprefix("!")
        if name not in known:
            names = [*known, *(alias for alias, ours in ALIASES.items() if ours.lstrip("!") in known)]
            raise SettingsError(f"{where}: there is no key {written!r}.{nearest(written, names)}")
        if name in given:
            raise SettingsError(f"{where}: {written!r} and {name!r} are the same key.", "Leave one of them out.")
        value = _typed(known[name], value, f"{where}, key {written!r}", written)
        given[name] = not value if opposite else value
    return given


def _typed(kind: Any, value: Any, where: str, written: str) -> Any:
    if kind is dict and written == "workflowArgs" and isinstance(value, str):
        return _workflow_arguments(value, where)
    if kind is tuple:
        value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        good = isinstance(value, tuple) and all(isinstance(text, str) for text in value)
    elif kind is int and written.endswith("_bytes") and isinstance(value, str):
        found = re.fullmatch(r"(\d+)\s*([kmgt]?i?)b?", value.strip().lower())
        good = found is not None and found[2] in _UNITS
        value = int(found[1]) * _UNITS[found[2]] if found and good else value
    elif kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # not NaN
        value = float(value) if good else value
    else:
        good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not good:
        raise SettingsError(f"{where}: it must be {_WANT[kind]}, not {value!r}.")
    return value


def _workflow_arguments(text: str, where: str) -> dict[str, str]:
    """DM's `"k:v k:v"`."""
    pairs = [word.partition(":") for word in text.split()]
    if wrong := next((name for name, colon, _ in pairs if not colon or not name), None):
        raise SettingsError(f"{where}: {wrong!r} is not of the form name:value.")
    return {name: value for name, _, value in pairs}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_words(text: str, known: set[str], where: str) -> None:
    if unknown := places(text) - known:
        raise SettingsError(
            f"{where}: nobody knows {{{min(unknown)}}}.",
            f"Here are {', '.join(f'{{{word}}}' for word in sorted(known))}; others may be made in 'match'.",
        )


def _check_pattern(pattern: str, where: str) -> None:
    if pattern.startswith(("/", "../")) or "/../" in pattern:
        raise SettingsError(f"{where}: {pattern!r} must be relative to the directory, and stay below it.")
    try:
        glob(pattern)
    except re.error as error:
        raise SettingsError(f"{where}: {pattern!r} is no pattern: {error}.") from None
