"""The input specification of a run or stage, resolved to files. This is the part that looks at the disk.

* `filePath` is one file, `filePathList` several, `filePathPattern` a glob; given together, they add up, each
  file once.
* A relative path or pattern is looked up from `dataDir`. All results are absolute, so no name starts with a
  dash.
* A pattern gives regular files only (a link to one counts), sorted; `**` goes into folders. A named path may
  also be a folder (a Zarr store is one) or `/dev/null`.
* An address or a place at a site is taken as it stands: whoever fetches it or works there looks for it.
* A name that is not UTF-8 comes as Python's surrogate escapes and goes back to the same bytes.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Mapping

from orchestrator.definition import variables
from orchestrator.definition.stages import split_list
from orchestrator.errors import InputError
from orchestrator.model import FileSpec

ELSEWHERE = re.compile(r"(?:site|globus|gsiftp|ftp|ssh)://[^/]+/")


def resolve(spec: FileSpec, values: Mapping[str, str], data_dir: str) -> tuple[str, ...]:
    """The files of `spec`. Raises InputError when one is missing or a pattern finds nothing."""
    if spec.query:
        raise InputError(
            "A fileQueryDict asks the metadata catalog, which is not built yet.",
            "Name the files with filePath, filePathList or filePathPattern.",
        )
    base = os.path.abspath(_bound(data_dir, values))
    found: list[str] = []
    if spec.path:
        found.append(_file(_bound(spec.path, values), base))
    for entry in spec.paths:
        found += [_file(path, base) for path in _split(entry, values, base)]
    if spec.pattern:
        found += _matches(_bound(spec.pattern, values), base)
    return tuple(dict.fromkeys(found))


def _bound(text: str, values: Mapping[str, str]) -> str:
    missing = [name for name in variables.names(text) if name not in values]
    if missing:
        raise InputError(f"The input {text!r} needs ${missing[0]}, which is not set.")
    return variables.substitute(text, values)


def _split(entry: str, values: Mapping[str, str], base: str) -> tuple[str, ...]:
    """An entry that is one `$name` may stand for a list, written as one text, unless a file has just that
    name."""
    text = _bound(entry, values)
    if not variables.only_name(entry) or _status(_absolute(text, base)):
        return (text,)
    return split_list(text)


def _absolute(path: str, base: str) -> str:
    return os.path.join(base, path.removeprefix("./"))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _file(path: str, base: str) -> str:
    if ELSEWHERE.match(path):
        return path
    full = _absolute(path, base)
    seen = _status(full)
    if seen is None:
        raise InputError(f"There is no input file {full}.", "Relative paths are looked up from dataDir.")
    if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode) or full == "/dev/null"):
        raise InputError(f"The input {full} is neither a file nor a folder.")
    return full


def _matches(pattern: str, base: str) -> list[str]:
    # glob's own join, so that magic characters in the base folder stand for themselves
    full = pattern if os.path.isabs(pattern) else os.path.join(glob.escape(base), pattern.removeprefix("./"))
    try:
        found = sorted(path for path in glob.iglob(full, recursive=True) if os.path.isfile(path))
    except (ValueError, re.error) as e:
        raise InputError(f"The pattern {pattern!r} cannot be used: {e}.") from None
    if not found:
        raise InputError(f"No file matches {pattern!r} in {base}.")
    return found
