"""What a stage declared about its outputs, compared with what is on disk. Exit code 0 is not enough.

Each expectation gives findings in a fixed order: exists, size, newer, opens, dataset, shape, dtype, chunks,
finite, nonconstant. A check that could not be made because an earlier one failed is left out; the earlier
one stands for it. Nothing here raises on a bad file, follows a link out of a directory that is checked, or
waits on a pipe.

Rules worth knowing:

* *newer*: the modification time is not before `since`. File systems keep it coarsely: a time on a whole
  second is given 2 s (FAT keeps every other second, NFS and HFS+ may keep whole ones), any other one 0.05 s
  (a tick of the kernel). A file server with a clock of its own needs `since` taken from that clock.
* *chunks*: made when `finite` or `nonconstant` is asked. A chunk that was never written reads as the fill
  value, and a volume of zeros is finite. Writers that leave out empty chunks on purpose (Zarr's default)
  have to be told to write them.
* *finite*: integers and booleans are finite; an empty array is not.
* *nonconstant*: at least two different finite values.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from orchestrator.agent.formats import BLOCK_BYTES, Array, Unreadable, clause, count, open_as, sniff
from orchestrator.errors import printable
from orchestrator.model import Expectation, Finding, Product

COARSE_S = 2.0
FINE_S = 0.05


@dataclass(frozen=True)
class _Tree:
    """A file, or a directory with all below it."""

    bytes: int
    modified_ns: int
    files: int = 1
    directory: bool = False


def check(expectations: Sequence[Expectation], *, since: float, base: str) -> tuple[Finding, ...]:
    """Every finding, in order. `since`: epoch seconds; relative paths are below `base`."""
    trees: dict[str, _Tree | str] = {}
    findings: list[Finding] = []
    for expectation in expectations:
        findings += _check_one(expectation, since, base, trees)
    return tuple(findings)


def products(expectations: Sequence[Expectation], base: str) -> tuple[Product, ...]:
    """The declared outputs that are there, each path once and absolute. Call it once `verdict` is empty."""
    found: dict[str, Product] = {}
    for expectation in expectations:
        path = os.path.abspath(os.path.join(base, expectation.path))
        tree = _look(path)
        if isinstance(tree, _Tree) and path not in found:
            parts = [expectation.opens or ("directory" if tree.directory else "file"), expectation.dataset]
            found[path] = Product(path, tree.bytes, " ".join(p for p in parts if p))
    return tuple(found.values())


def verdict(findings: Sequence[Finding]) -> str:
    """Empty if all passed, else one sentence about the first that did not, and how many more there are."""
    failed = [f for f in findings if not f.passed]
    if not failed:
        return ""
    more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
    return printable(
        f"Output '{failed[0].path}' failed the check '{failed[0].check}': {failed[0].seen}{more}."
    )


def _check_one(
    want: Expectation, since: float, base: str, trees: dict[str, _Tree | str]
) -> Iterator[Finding]:
    def finding(check: str, passed: bool, seen: str) -> Finding:
        return Finding(want.path, check, passed, printable(seen))

    path = os.path.abspath(os.path.join(base, want.path))
    if path not in trees:
        trees[path] = _look(path) if want.path and "\0" not in want.path else "it is not a path"
    tree = trees[path]
    if isinstance(tree, str):
        unset = "; a variable in its name has no value" if "$" in want.path else ""
        yield finding("exists", False, tree + unset)
        return
    yield finding("exists", True, f"a directory of {tree.files} files" if tree.directory else "a file")
    if want.min_bytes > 0:
        passed = tree.bytes >= want.min_bytes
        seen = (
            count(tree.bytes) if passed else f"it holds {tree.bytes} bytes, wanted at least {want.min_bytes}"
        )
        yield finding("size", passed, seen)
        if not passed:
            return
    if want.newer:
        tolerance_s = FINE_S if tree.modified_ns % 1_000_000_000 else COARSE_S
        late_s = since - tree.modified_ns / 1e9
        passed = late_s <= tolerance_s
        seen = f"it was last changed {late_s:.3g} s before the stage started"
        yield finding("newer", passed, "changed since the stage started" if passed else seen)
        if not passed:
            return
    with ExitStack() as stack:
        try:
            yield from _check_content(want, path, base, stack, finding)
        except (OSError, MemoryError) as error:
            yield finding("opens", False, f"it cannot be read ({clause(error)})")


def _look(path: str) -> _Tree | str:
    """The file or tree at `path`, or a clause saying why it is not one."""
    try:
        if not os.path.lexists(path):
            return "it is not there"
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return f"it is a link to '{os.readlink(path)}', which is not there"
        if stat.S_ISREG(status.st_mode):
            return _Tree(status.st_size, status.st_mtime_ns)
        if not stat.S_ISDIR(status.st_mode):
            return "it is neither a file nor a directory"
        return _look_below(path)
    except (OSError, ValueError) as error:
        return f"it cannot be looked at ({clause(error)})"


def _look_below(root: str) -> _Tree | str:
    total = newest = files = 0
    real, waiting = os.path.realpath(root), [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if not os.path.exists(target):
                        return f"it holds the link '{entry.name}' to '{target}', which is not there"
                    if os.path.commonpath((real, target)) != real:
                        return f"it holds the link '{entry.name}' to '{target}', outside the directory"
                    if os.path.isdir(target):
                        continue  # counted where it stands; following it could go round in circles
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                status = entry.stat()
                if not stat.S_ISREG(status.st_mode):
                    return f"it holds '{entry.name}', which is neither a file nor a directory"
                total, newest, files = total + status.st_size, max(newest, status.st_mtime_ns), files + 1
    return _Tree(total, newest or os.stat(root).st_mtime_ns, files, directory=True)


def _check_content(
    want: Expectation, path: str, base: str, stack: ExitStack, finding: Callable[[str, bool, str], Finding]
) -> Iterator[Finding]:
    asked = (
        want.dataset or want.shape is not None or want.dtype or want.finite is not None or want.nonconstant
    )
    if not (want.opens or asked):
        return
    kind = want.opens or sniff(path)
    try:
        if not kind:
            raise Unreadable("its format is not known; `opens` says which it should be")
        find = open_as(kind, path, stack=stack, root=base)
    except Unreadable as error:
        yield finding("opens", False, str(error))
        return
    yield finding("opens", True, kind)
    if not asked:
        return
    try:
        if find is None:
            raise Unreadable(f"{kind} holds no arrays")
        array = find(want.dataset)
    except Unreadable as error:
        yield finding("dataset", False, str(error))
        return
    except Exception as error:  # noqa: BLE001  (a decoder raises anything on a bad file)
        yield finding("dataset", False, f"dataset '{want.dataset}' cannot be opened ({clause(error)})")
        return
    yield finding("dataset", True, f"{_times(array.shape)} {array.dtype}")
    what = f"dataset '{array.name}'" if array.name else "the array"
    if want.shape is not None:
        passed = len(want.shape) == len(array.shape) and all(
            w is None or w == s for w, s in zip(want.shape, array.shape, strict=True)
        )
        seen = f"{what} is {_times(array.shape)}, wanted {_times(want.shape)}"
        yield finding("shape", passed, _times(array.shape) if passed else seen)
    if want.dtype:
        yield finding("dtype", *_check_dtype(array, want.dtype, what))
    if want.finite is not None or want.nonconstant:
        yield from _check_values(want, array, what, finding)


def _times(shape: Sequence[int | None]) -> str:
    return " × ".join("any" if n is None else str(n) for n in shape) or "a single value"


def _check_dtype(array: Array, wanted: str, what: str) -> tuple[bool, str]:
    import numpy as np

    try:
        dtype = np.dtype(wanted)
    except TypeError:
        return False, f"wanted dtype '{wanted}', which is not one"
    exact = wanted[:1] in "<>"  # otherwise the byte order on disk is nobody's business
    same = array.dtype == dtype if exact else array.dtype.newbyteorder("=") == dtype.newbyteorder("=")
    return same, str(array.dtype) if same else f"{what} is {array.dtype}, wanted {wanted}"


def _check_values(
    want: Expectation, array: Array, what: str, finding: Callable[[str, bool, str], Finding]
) -> Iterator[Finding]:
    if array.size == 0:
        yield finding("finite" if want.finite is not None else "nonconstant", False, f"{what} is empty")
        return
    if array.dtype.kind not in "biufc":
        seen = f"{what} is {array.dtype}, which is not a number"
        yield finding("finite" if want.finite is not None else "nonconstant", False, seen)
        return
    if array.chunks:
        passed = array.stored >= array.chunks
        seen = f"{array.stored} of {array.chunks} {array.unit}"
        yield finding(
            "chunks", passed, seen if passed else f"only {seen} of {what} are there; the rest is fill value"
        )
        if not passed:
            return
    try:
        values = _scan(
            array, finite=want.finite is not None and array.dtype.kind in "fc", vary=want.nonconstant
        )
    except (Exception, MemoryError) as error:  # noqa: BLE001  (a decoder raises anything on a bad file)
        check = "finite" if want.finite is not None else "nonconstant"
        yield finding(check, False, f"{what} cannot be read ({clause(error)})")
        return
    if want.finite is not None:
        fraction = values.finite / array.size
        passed = values.finite >= want.finite * array.size
        bad = array.size - values.finite
        seen = f"{bad} of {array.size} values of {what} are not finite (wanted {want.finite:g} finite)"
        yield finding("finite", passed, f"{fraction:.9g}" if passed else seen)
    if want.nonconstant:
        seen = (
            f"all values of {what} are {values.first}"
            if values.first is not None
            else f"{what} holds no finite value"
        )
        yield finding("nonconstant", values.varies, "values differ" if values.varies else seen)


@dataclass
class _Values:
    finite: int = 0
    first: Any = None  # first finite value
    varies: bool = False


def _scan(array: Array, *, finite: bool, vary: bool) -> _Values:
    """One pass over the array in blocks; stops early once nothing more can be learnt."""
    import numpy as np

    seen = _Values(finite=0 if finite else array.size)
    if not finite and not vary:
        return seen
    for block in _blocks(array):
        values = array.read(block).reshape(-1)
        if array.dtype.kind in "fc":
            mask = np.isfinite(values)
            good = int(np.count_nonzero(mask))
            if finite:
                seen.finite += good
            if good < values.size:
                values = values[mask]
        if vary and not seen.varies and values.size:
            seen.first = values[0] if seen.first is None else seen.first
            seen.varies = bool(np.any(values != seen.first))
        if seen.varies and not finite:
            break
    return seen


def _blocks(array: Array) -> Iterator[tuple[slice, ...]]:
    """Slices that cover the array, each of whole grains and about `BLOCK_BYTES`."""
    shape = (array.size,) if array.flat else array.shape
    block = [1] if array.flat else list(array.grain)
    held = max(1, array.dtype.itemsize * math.prod(block))
    for axis in reversed(range(len(block))):
        grow = max(1, min(BLOCK_BYTES // held, -(-shape[axis] // block[axis])))
        block[axis] *= grow
        held *= grow
        if block[axis] < shape[axis]:
            break
    starts = (range(0, s, b) for s, b in zip(shape, block, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(c, min(c + b, s)) for c, b, s in zip(corner, block, shape, strict=True))
