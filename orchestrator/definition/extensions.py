"""Our stage keys beside DM's: `resources`, `retries`, `expect`, `timeout`. Unknown keys inside them are
refused.

A number may be a `$name` of an argument. While a definition is loaded the arguments are not known, so such a
value is checked when the plan is compiled.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from orchestrator.definition import variables
from orchestrator.definition.place import Place
from orchestrator.definition.units import duration_s, size_bytes
from orchestrator.errors import nearest
from orchestrator.model import HOLDING, Expectation, FailureClass, Resources, RetryRule, StageKind

T = TypeVar("T")
Values = Mapping[str, str] | None  # None: the arguments are not known yet

RESOURCES = ("nodes", "ranksPerNode", "gpusPerRank", "coresPerRank", "memory", "walltime")
RETRY = ("most", "delay", "factor", "longest", "exitCodes")
EXPECT = ("opens", "dataset", "shape", "dtype", "finite", "minSize", "newer", "nonconstant")
OPENS = ("hdf5", "zarr", "png", "npy", "json", "tiff")
NOT_CHOSEN = (FailureClass.CANCELLED, FailureClass.DOWN)
REPEATABLE = tuple(f for f in FailureClass if f not in NOT_CHOSEN)
CODED = (FailureClass.TRANSIENT, FailureClass.AUTHENTICATION)

# What batch jobs meet, with a budget each that a stage may change: none of it is the work's own fault.
OF_JOBS = {
    FailureClass.NODE: RetryRule(FailureClass.NODE, 3),
    FailureClass.PREEMPTED: RetryRule(FailureClass.PREEMPTED, 10, delay_s=5.0),
    FailureClass.WALLTIME: RetryRule(FailureClass.WALLTIME, 1),
    FailureClass.MEMORY: RetryRule(FailureClass.MEMORY, 1),
    FailureClass.RESERVATION: RetryRule(FailureClass.RESERVATION, 5),
    FailureClass.SITE: RetryRule(FailureClass.SITE, 2, delay_s=10.0),
}

_SUFFIXES = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".nxs": "hdf5",
    ".zarr": "zarr",
    ".png": "png",
    ".npy": "npy",
    ".json": "json",
    ".tif": "tiff",
    ".tiff": "tiff",
}


def known_keys(value: Mapping[str, Any], known: tuple[str, ...], place: Place, what: str) -> None:
    for key in value:
        if key not in known:
            raise place.error(f"{what} has no key {key!r}.{nearest(key, known)}", f"It takes: {', '.join(known)}.")


def _bound(value: Any, values: Values, place: Place, read: Callable[[Any], T], otherwise: T) -> T:
    """`read(value)` with `$names` replaced; `otherwise` while they are not known."""
    if isinstance(value, str) and variables.names(value):
        if values is None:
            return otherwise
        missing = [n for n in variables.names(value) if n not in values]
        if missing:
            raise place.error(f"{value!r} needs the argument {missing[0]!r}, which has no value.")
        value = variables.substitute(value, values)
    try:
        return read(value)
    except ValueError as e:
        raise place.error(f"{value!r} cannot be used here. {e}") from None


def _whole(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        text = value.strip() if isinstance(value, str) else value
        if isinstance(text, bool) or not isinstance(text, int | str) or (isinstance(text, str) and len(text) > 9):
            raise ValueError("Write a whole number.")
        try:
            number = int(text)
        except ValueError:
            raise ValueError("Write a whole number.") from None
        if not least <= number < 10**9:
            raise ValueError(f"It must be at least {least}.")
        return number

    return read


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError("Write a number that is not negative.")
    return float(value)


def read_timeout(value: Any, values: Values, place: Place) -> float:
    seconds = _bound(value, values, place, duration_s, 1.0)
    if seconds == 0:
        raise place.error("A timeout of 0 would end every task at once.", "Leave the key out for no timeout.")
    return seconds


def read_resources(value: Any, values: Values, place: Place) -> Resources:
    known_keys(value, RESOURCES, place, "'resources'")

    def whole(key: str, least: int, default: int) -> int:
        return _bound(value.get(key, default), values, place, _whole(least), default)

    return Resources(
        nodes=whole("nodes", 1, 1),
        ranks_per_node=whole("ranksPerNode", 1, 1),
        gpus_per_rank=whole("gpusPerRank", 0, 0),
        cores_per_rank=whole("coresPerRank", 1, 1),
        memory_bytes=_bound(value.get("memory", 0), values, place, size_bytes, 0),
        walltime_s=_bound(value.get("walltime", 0), values, place, duration_s, 0.0),
    )


def read_retries(value: Any, kind: StageKind, place: Place) -> tuple[RetryRule, ...]:
    """The retry rules of a stage: the defaults of its kind, changed by what the definition says per failure
    class."""
    rules = {FailureClass.LOST: RetryRule(FailureClass.LOST, 3), **OF_JOBS}
    if kind is StageKind.KERNEL:
        rules[FailureClass.TRANSIENT] = RetryRule(FailureClass.TRANSIENT, 2)
        rules[FailureClass.BAD_OUTPUT] = RetryRule(FailureClass.BAD_OUTPUT, 1)
    if isinstance(value, int):
        counted = (FailureClass.LOST, FailureClass.NODE, FailureClass.TRANSIENT, FailureClass.BAD_OUTPUT)
        most = _retry_count(value, place)
        rules = rules | {f: RetryRule(f, most) for f in counted} if most else {}
    elif value is not None:
        known = tuple(str(f) for f in REPEATABLE)
        known_keys(value, known, place, "'retries'")
        for name, rule in value.items():
            rules[FailureClass(name)] = _retry(FailureClass(name), rule, place)
    return tuple(rules[f] for f in FailureClass if f in rules and (rules[f].most or rules[f].exit_codes))


def _retry_count(value: Any, place: Place) -> int:
    count = _bound(value, {}, place, _whole(0), 0)
    if count > 100:
        raise place.error("More than 100 retries would hide that something is broken.")
    return count


def _retry(failure: FailureClass, value: Any, place: Place) -> RetryRule:
    if failure in HOLDING:
        if not isinstance(value, dict) or set(value) != {"exitCodes"}:
            raise place.error(
                f"{str(failure)!r} puts a task on hold and has no budget; it takes 'exitCodes' and nothing else."
            )
        return RetryRule(failure, 0, exit_codes=_codes(failure, value, place))
    if not isinstance(value, dict):
        return RetryRule(failure, _retry_count(value, place))
    known_keys(value, RETRY, place, f"'retries' of {str(failure)!r}")
    if "most" not in value:
        raise place.error(f"'retries' of {str(failure)!r} needs 'most', the number of retries.")
    factor = _bound(value.get("factor", 2.0), {}, place, _number, 2.0)
    if factor < 1:
        raise place.error("A factor below 1 would make each wait shorter than the one before.")
    return RetryRule(
        failure,
        _retry_count(value["most"], place),
        delay_s=_bound(value.get("delay", 1.0), {}, place, duration_s, 1.0),
        factor=factor,
        delay_max_s=_bound(value.get("longest", 300.0), {}, place, duration_s, 300.0),
        exit_codes=_codes(failure, value, place),
    )


def _codes(failure: FailureClass, value: dict[str, Any], place: Place) -> tuple[int, ...]:
    codes = value.get("exitCodes", [])
    if codes and failure not in CODED:
        raise place.error("'exitCodes' belongs to 'transient' (try again) and 'authentication' (sign in first).")
    if not isinstance(codes, list) or not all(type(c) is int and 1 <= c <= 255 for c in codes):
        raise place.error("'exitCodes' must be a list of whole numbers from 1 to 255.")
    return tuple(codes)


def read_expect(value: Any, outputs: tuple[str, ...], values: Values, place: Place) -> tuple[Expectation, ...]:
    """One expectation per path in `expect`, then one (there, not empty, new) per declared output that has
    none."""
    entries = _listed(value, place) if isinstance(value, list) else dict(value or {})
    found = {_same(path): _expectation(path, entry, values, place) for path, entry in entries.items()}
    for path in outputs:
        found.setdefault(_same(path), Expectation(path))
    return tuple(found.values())


def _listed(value: list[Any], place: Place) -> dict[str, Any]:
    """A list of paths, or of dicts that hold `path` beside the checks."""
    entries: dict[str, Any] = {}
    for entry in value:
        path = entry.get("path") if isinstance(entry, dict) else entry
        if not isinstance(path, str):
            raise place.error("An entry of 'expect' must be a path, or a dict with 'path'.")
        checks = {k: v for k, v in entry.items() if k != "path"} if isinstance(entry, dict) else {}
        if path in entries:
            raise place.error(f"'expect' names {path!r} twice.")
        entries[path] = checks
    return entries


def _same(path: str) -> str:
    return posixpath.normpath(path)


def _expectation(path: str, value: Any, values: Values, place: Place) -> Expectation:
    if not path.strip():
        raise place.error("'expect' names an empty path.")
    if not isinstance(value, dict | None):
        raise place.error(f"The checks of {path!r} must be a dict.", f"Its keys: {', '.join(EXPECT)}.")
    value = value or {}
    known_keys(value, EXPECT, place, f"'expect' of {path!r}")
    opens, dataset, dtype = (_text(value, key, path, place) for key in ("opens", "dataset", "dtype"))
    if opens and opens not in OPENS:
        raise place.error(
            f"{path!r} cannot be opened as {opens!r}.{nearest(opens, OPENS)}", f"Known: {', '.join(OPENS)}."
        )
    arrays = [key for key in ("dataset", "shape", "dtype", "finite", "nonconstant") if value.get(key)]
    if arrays and not opens:
        opens = _SUFFIXES.get(posixpath.splitext(path.rstrip("/"))[1].lower(), "")
        if not opens:
            raise place.error(f"To check {arrays[0]!r} of {path!r}, 'opens' must say what the file is.")
    if arrays and opens == "json":
        raise place.error(f"{arrays[0]!r} of {path!r} cannot be checked: JSON holds no array.")
    if dataset and opens not in ("hdf5", "zarr"):
        raise place.error(f"'dataset' of {path!r} is for hdf5 and zarr, not {opens}.")
    if arrays and opens == "hdf5" and not dataset:
        raise place.error(f"To check {arrays[0]!r} of {path!r}, 'dataset' must name one.")
    return Expectation(
        path,
        opens=opens,
        dataset=dataset,
        shape=_shape(value.get("shape"), path, place),
        dtype=dtype,
        finite=_finite(value.get("finite"), path, place),
        min_bytes=_bound(value.get("minSize", 1), values, place, size_bytes, 1),
        newer=_flag(value, "newer", True, path, place),
        nonconstant=_flag(value, "nonconstant", False, path, place),
    )


def _text(value: dict[str, Any], key: str, path: str, place: Place) -> str:
    text = value.get(key) or ""
    if not isinstance(text, str):
        raise place.error(f"{key!r} of {path!r} must be text.")
    return text


def _flag(value: dict[str, Any], key: str, default: bool, path: str, place: Place) -> bool:
    flag = value.get(key, default)
    if not isinstance(flag, bool):
        raise place.error(f"{key!r} of {path!r} must be True or False.")
    return flag


def _shape(value: Any, path: str, place: Place) -> tuple[int | None, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(n is None or (type(n) is int and n >= 0) for n in value):
        raise place.error(f"'shape' of {path!r} must be a list of lengths; None stands for any length.")
    return tuple(value)


def _finite(value: Any, path: str, place: Place) -> float | None:
    if value is None or value is False:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise place.error(f"'finite' of {path!r} must be the least fraction of finite values, from 0 to 1.")
    return float(value)
