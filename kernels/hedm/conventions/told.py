"""What a file of parameters tells: the instrument, and what else it says. Reading says in words what is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernels.errors import Exit, KernelError
from kernels.hedm.geometry import Geometry


@dataclass(frozen=True)
class Told:
    """A geometry and the rest of the file it came from.

    Attributes
    ----------
    geometry : Geometry
    other : dict
        Parameters of the file that are no geometry, by their names there, as they stand.
    """

    geometry: Geometry
    other: dict[str, Any] = field(default_factory=dict)


def read_text(path: str | Path) -> str:
    """The text of the file at `path`; exit 66 when it cannot be read, 65 when it is no text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise KernelError(f"Cannot read {str(path)!r}: {error.strerror or error}.", Exit.NO_INPUT) from error
    except UnicodeDecodeError as error:
        raise KernelError(f"{str(path)!r} is no text.", Exit.BAD_INPUT) from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text`; exit 73 where that cannot be."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise KernelError(f"Cannot write {str(path)!r}: {error.strerror or error}.", Exit.CANNOT_CREATE) from error


def bad(path: str | Path, sentence: str) -> KernelError:
    """Exit 65: what is wrong in the file at `path`."""
    return KernelError(f"{str(path)!r}: {sentence}", Exit.BAD_INPUT)


@contextmanager
def of_file(path: str | Path) -> Iterator[None]:
    """Say of what is refused within that it stands in the file at `path`, exit 65."""
    try:
        yield
    except KernelError as error:
        if error.exit_code != Exit.USAGE:
            raise
        raise bad(path, error.sentence) from error


def read_lines(path: str | Path) -> dict[str, list[list[str]]]:
    """Lines `NAME VALUE …` by name, each as often as it stands; `#` begins a comment, `;` may end a line."""
    found: dict[str, list[list[str]]] = {}
    for line in read_text(path).splitlines():
        words = line.split("#", 1)[0].replace(";", " ").split()
        if words:
            found.setdefault(words[0], []).append(words[1:])
    if not found:
        raise bad(path, "there are no parameters in it.")
    return found


def check_names(path: str | Path, names: Collection[str], known: Collection[str], where: str = "") -> None:
    """Refuse a name that is not `known` and looks like one that is; others belong to someone else."""
    import difflib

    folded = {name.lower(): name for name in known}
    for name in names:
        if name in known:
            continue
        # A name that holds a known one whole is another; and short names as p0 and tx are all alike: there only letters
        # exchanged or of the wrong case are a slip.
        if any(one in name.lower() and one != name.lower() for one in folded):
            continue
        close = [one for one in folded if sorted(one) == sorted(name.lower())]
        close = close or (difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.75) if len(name) > 3 else [])
        if close:
            raise bad(path, f"unknown name {name!r}{where}. Did you mean {folded[close[0]]!r}?")


def number(path: str | Path, name: str, value: object) -> float:
    """`value` as a finite number."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise bad(path, f"{name} is {value!r} where a finite number is wanted.")
    return found


def whole(path: str | Path, name: str, value: object) -> int:
    """`value` as a whole number above zero."""
    found = number(path, name, value)
    if found != int(found) or found < 1:
        raise bad(path, f"{name} is {value!r} where a whole number above 0 is wanted.")
    return int(found)


def wanted(path: str | Path, found: Mapping[str, Any], name: str, where: str = "") -> Any:
    """`found[name]`, or a sentence that says what is missing."""
    if name not in found:
        raise bad(path, f"{name!r} is missing{where}.")
    return found[name]


def only_panel(geometry: Geometry, program: str) -> None:
    """Refuse what the files of `program` cannot say: several panels, and a beam that is not along x."""
    if len(geometry.panels) != 1:
        raise KernelError(
            f"A file of {program} describes one panel, and the instrument has {len(geometry.panels)}: "
            "write one file a panel."
        )
    if abs(geometry.beam[0] - 1.0) > 1e-12:
        raise KernelError(f"A file of {program} has its beam along x, and here it goes along {geometry.beam.tolist()}.")
