"""One stage dict, checked and normalised. The loader uses it to refuse, the compiler to plan: one meaning,
one place."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from orchestrator.definition import expressions, extensions, variables
from orchestrator.definition.extensions import Values
from orchestrator.definition.place import Place
from orchestrator.errors import DefinitionError, nearest
from orchestrator.model import FileSpec, Placing, Repeat, StageKind, StagePlan

REPEAT = ("repeatPeriod", "repeatUntil", "maxRepeats")
LEGACY = ("execOutFormat", "monitorCmd")
MODES = ("pilot", "batch")
WHERE = ("site", "queue", "account", "reservation", "mode")
FILES = ("filePath", "filePathList", "filePathPattern", "fileQueryDict")

_TEXT, _LIST, _DICT, _FLAG, _ANY = "text", "a list of texts", "a dict", "True or False", ""
KEYS = {
    **{kind.value: _DICT if kind is StageKind.TRANSFER else _TEXT for kind in StageKind},
    "arguments": _DICT,
    "workingDir": _TEXT,
    "dataDir": _TEXT,
    "outputVariableRegexList": _LIST,
    "parallelExec": _FLAG,
    "filePath": _TEXT,
    "filePathList": "text or a list of texts",
    "filePathPattern": _TEXT,
    "fileQueryDict": _DICT,
    "runIf": "text or True or False",
    "repeatPeriod": "a number",
    "repeatUntil": "text or True or False",
    "maxRepeats": "a number",
    "execOutFormat": _ANY,
    "monitorCmd": _ANY,
    "description": _TEXT,
    "userAccount": _TEXT,
    "site": _TEXT,
    "resources": _DICT,
    "retries": "a number or a dict",
    "reservation": _TEXT,
    "queue": _TEXT,
    "account": _TEXT,
    "mode": _TEXT,
    "after": "text or a list of texts",
    "inputs": "text or a list of texts",
    "outputs": "text or a list of texts",
    "expect": "a dict or a list",
    "timeout": "text or a number",
}
_TRANSFER = ("from", "to", "checks", "options")
_CHECKS = ("checksum", "size")


def _fits(value: Any, kind: str) -> bool:
    """Whether `value` is one of the kinds named in `kind`. A flag may be text or 0 and 1, as DM users write
    it."""
    if not kind:
        return True
    if kind == _FLAG:
        return str(value).lower() in ("true", "false", "0", "1") and not isinstance(value, float)
    if isinstance(value, list) and kind.endswith("or a list"):
        return True
    is_list = isinstance(value, list) and all(isinstance(x, str) for x in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        (isinstance(value, str) and (kind.startswith("text") or kind == "a number"))
        or (is_list and kind.endswith("a list of texts"))
        or (isinstance(value, dict) and "a dict" in kind)
        or (is_number and "a number" in kind)
        or (isinstance(value, bool) and "True or False" in kind)
    )


class Stage:
    """A stage dict with typed access. A known key whose value is None counts as absent, as APIs send it."""

    def __init__(self, name: str, raw: Mapping[str, Any], place: Place) -> None:
        self.place = place.at(stage=name)
        self.name = name
        self.values = {k: v for k, v in raw.items() if v is not None or k not in KEYS}
        for key, kind in KEYS.items():
            if key in self.values and not _fits(self.values[key], kind):
                raise self.at(key).error(f"The value must be {kind}, not {_article(self.values[key])}.")

    def at(self, key: str) -> Place:
        return self.place.at(key=str(key))

    def text(self, key: str, default: str = "") -> str:
        return str(self.values.get(key, default))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key, [])
        texts = (value,) if isinstance(value, str) else tuple(value)
        if any(not t.strip() for t in texts):
            raise self.at(key).error("An empty text stands in the list.")
        return texts

    def flag(self, key: str, default: bool) -> bool:
        return str(self.values.get(key, default)).lower() in ("true", "1")

    def condition(self, key: str) -> str:
        text = self.text(key)
        if key == "runIf" and not text.strip():
            return ""
        if key in self.values:
            try:
                expressions.parse(text)
            except DefinitionError as e:
                raise self.at(key).again(e) from None
        return text


def _article(value: Any) -> str:
    words = {
        str: "text",
        int: "a number",
        float: "a number",
        bool: str(value),
        dict: "a dict",
        list: "such a list",
    }
    return words.get(type(value), "this")


def read(name: str, raw: Mapping[str, Any], place: Place, values: Values = None) -> StagePlan:
    """The stage as the plan holds it, but for what it waits for. Raises DefinitionError at the first thing
    wrong."""
    stage = Stage(name, raw, place)
    kind = _kind(stage)
    call = "" if kind in (StageKind.COMMAND, StageKind.TRANSFER) else stage.text(kind)
    if kind is not StageKind.TRANSFER and not stage.text(kind).strip():
        raise stage.at(kind).error(f"The {kind} is empty.")
    if kind is StageKind.FUNCTION and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", call):
        raise stage.at("function").error(f"{call!r} names no function.", "Write 'package.module:name'.")
    arguments = _transfer(stage) if kind is StageKind.TRANSFER else {}
    if kind in (StageKind.KERNEL, StageKind.FUNCTION, StageKind.WORKFLOW):
        arguments = stage.values.get("arguments", {})
    command = stage.text("command")
    outputs = stage.texts("outputs")
    expect = extensions.read_expect(stage.values.get("expect"), outputs, values, stage.at("expect"))
    iterates = command if kind is StageKind.COMMAND else arguments
    timeout = stage.values.get("timeout")
    return StagePlan(
        name=name,
        kind=kind,
        command=command,
        call=call,
        arguments=arguments,
        working_dir=stage.text("workingDir", ".") or ".",
        data_dir=stage.text("dataDir", "$workingDir") or "$workingDir",
        files=read_files(stage.values, stage.place),
        captures=_captures(stage),
        run_if=stage.condition("runIf"),
        repeat=_repeat(stage),
        per_file="filePath" in variables.names_in(iterates),
        parallel=stage.flag("parallelExec", True),
        placing=_placing(stage, values),
        user_account=check_account(stage.text("userAccount"), stage.at("userAccount")),
        resources=extensions.read_resources(stage.values.get("resources", {}), values, stage.at("resources")),
        retries=extensions.read_retries(stage.values.get("retries"), kind, stage.at("retries")),
        timeout_s=0.0 if timeout is None else extensions.read_timeout(timeout, values, stage.at("timeout")),
        expect=expect,
        inputs=stage.texts("inputs"),
        outputs=tuple(dict.fromkeys((*outputs, *(e.path for e in expect)))),
    )


def _placing(stage: Stage, values: Values) -> Placing:
    """Where the stage wants to run. A `$name` of an argument that is empty leaves the field to the run."""
    asked = {key: variables.substitute(stage.text(key), values or {}).strip() for key in WHERE}
    if "site" in stage.values and not stage.text("site").strip():
        raise stage.at("site").error("The site is empty.", "Write a site's name, or 'auto'.")
    if asked["mode"] and not variables.names(asked["mode"]) and asked["mode"] not in MODES:
        raise stage.at("mode").error(
            f"{asked['mode']!r} is no way to run.{nearest(asked['mode'], MODES)}", "Write 'pilot' or 'batch'."
        )
    return Placing(**asked)


def _kind(stage: Stage) -> StageKind:
    kinds = [kind for kind in StageKind if kind.value in stage.values]
    if len(kinds) == 1:
        return kinds[0]
    known = ", ".join(StageKind)
    if kinds:
        both = " and ".join(repr(str(k)) for k in kinds)
        raise stage.at(kinds[1]).error(f"A stage is of one kind, and this one has {both}.", "Make two stages of it.")
    close = [n for key in stage.values if key not in KEYS and (n := nearest(key, [k.value for k in StageKind]))]
    raise stage.place.error(
        f"The stage does not say what to run.{close[0] if close else ''}", f"It needs one of: {known}."
    )


def _transfer(stage: Stage) -> dict[str, Any]:
    place = stage.at("transfer")
    transfer: dict[str, Any] = stage.values["transfer"]
    extensions.known_keys(transfer, _TRANSFER, place, "'transfer'")
    for key in ("from", "to"):
        value = transfer.get(key)
        texts = value if isinstance(value, list) and key == "from" else [value]
        if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            wanted = "a path or a list of paths" if key == "from" else "one path"
            raise place.error(f"'transfer' needs {key!r}: {wanted}.")
    check = transfer.get("checks", "checksum")
    if check not in _CHECKS:
        raise place.error(
            f"{check!r} is not a check of a transfer.{nearest(str(check), _CHECKS)}", "Known: checksum, size."
        )
    if not isinstance(transfer.get("options", {}), dict):
        raise place.error("'options' of a transfer is a dict.", "For example {'streams': 8}.")
    return transfer


def read_files(values: Mapping[str, Any], place: Place) -> FileSpec | None:
    """DM's input specification from the keys of a stage or the arguments of a run; None when there is
    none."""
    if not any(values.get(key) for key in FILES):
        return None
    listed = values.get("filePathList") or ()
    query = values.get("fileQueryDict") or {}
    if not isinstance(query, dict):
        raise place.at(key="fileQueryDict").error("The value must be a dict.")
    return FileSpec(
        path=str(values.get("filePath") or ""),
        paths=split_list(listed) if isinstance(listed, str) else tuple(listed),
        pattern=str(values.get("filePathPattern") or ""),
        query=query,
    )


def split_list(text: str) -> tuple[str, ...]:
    """A list of files written as one text: at commas if there is one, else at white space."""
    parts = text.split(",") if "," in text else text.split()
    return tuple(p.strip() for p in parts if p.strip())


def _captures(stage: Stage) -> tuple[str, ...]:
    patterns: list[str] = stage.values.get("outputVariableRegexList", [])
    for number, pattern in enumerate(patterns, 1):
        place = stage.at("outputVariableRegexList")
        if len(pattern) > 5_000:
            raise place.error(f"Regex {number} is longer than 5,000 characters.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # sets like [[a] only warn
                re.compile(pattern)
        except re.error as e:
            at = f" at position {e.pos}" if e.pos is not None else ""
            raise place.error(f"Regex {number} is wrong{at}: {e.msg}: {pattern}") from None
        except (RecursionError, OverflowError, MemoryError):
            raise place.error(f"Regex {number} is nested too deeply.") from None
    return tuple(patterns)


def _repeat(stage: Stage) -> Repeat | None:
    present = [key for key in REPEAT if key in stage.values]
    if not present:
        return None
    missing = [key for key in REPEAT if key not in stage.values]
    if missing:
        have = " and ".join(repr(k) for k in present)
        verb = "is" if len(present) == 1 else "are"
        lacks = " and ".join(repr(k) for k in missing)
        raise stage.at(present[0]).error(
            f"{have} {verb} there, but {lacks} {'is' if len(missing) == 1 else 'are'} missing.",
            "A repeated stage needs repeatPeriod, repeatUntil and maxRepeats.",
        )
    try:
        period = float(stage.values["repeatPeriod"])
        if not 0 <= period < 1e8:
            raise ValueError
    except (ValueError, OverflowError):
        raise stage.at("repeatPeriod").error("It must be a number of seconds, 0 or more.") from None
    try:
        most = float(stage.values["maxRepeats"])
        if not (1 <= most < 1e9 and most.is_integer()):
            raise ValueError
    except (ValueError, OverflowError):
        raise stage.at("maxRepeats").error("It must be a whole number, 1 or more.") from None
    return Repeat(period_s=period, until=stage.condition("repeatUntil"), most=int(most))


ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def check_account(account: str, place: Place) -> str:
    if account and not ACCOUNT.fullmatch(account):
        raise place.error(f"{account!r} cannot be the name of an OS account.")
    return account
