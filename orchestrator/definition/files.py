"""DM's input specification made into a list of files: the only place of the language that looks at the file system."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Mapping

from orchestrator.definition import variables
from orchestrator.errors import InputError
from orchestrator.model import FileSpec


def resolve(spec: FileSpec, values: Mapping[str, str], data_dir: str) -> tuple[str, ...]:
    """The files of a specification, absolute, each once: those named, as named, then those of the pattern, sorted.

    Relative names are taken from `data_dir`; so no name begins with a dash. `/dev/null` stands for "no file needed".
    Raises InputError when a named file is missing or a device, when a pattern finds none, or for a catalog query.
    """
    if spec.query:
        raise InputError("fileQueryDict asks the catalog, which is not built yet.", "Use filePath or filePathPattern.")
    named = [spec.path] if spec.path else []
    found = [_existing(variables.substitute(name, values), data_dir) for name in (*named, *spec.paths)]
    if spec.pattern:
        pattern = os.path.join(data_dir, variables.substitute(spec.pattern, values))
        matching = sorted(os.path.normpath(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        if not matching:
            raise InputError(f"No file matches filePathPattern {pattern!r}.", "Is dataDir right?")
        found += matching
    return tuple(dict.fromkeys(found))


def _existing(name: str, data_dir: str) -> str:
    if "\0" in name:
        raise InputError(f"The file name {name!r} holds a NUL character.")
    path = os.path.normpath(os.path.join(data_dir, name))
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InputError(f"The input file {path} cannot be used: {error.strerror}.", "Is dataDir right?") from error
    if path != os.devnull and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"The input {path} is neither a file nor a directory.")
    return path


def split_paths(text: str) -> tuple[str, ...]:
    """`filePathList` as a person writes it in an argument: names separated by commas, or a JSON list for odd names."""
    import json

    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except ValueError:
            raise InputError(f"filePathList {text!r} begins like a JSON list, but is none.") from None
        if not all(isinstance(n, str) for n in names):
            raise InputError("filePathList must be a list of names.")
        return tuple(names)
    return tuple(name.strip() for name in text.split(",") if name.strip())
