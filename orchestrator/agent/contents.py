"""The content of what an attempt has read and made, told where the files lie, once the attempt has ended well.

A file that must have a certain content is always read: another one is bad input. All others are read for no longer than
the work itself has taken (or `LEAST_S`), right after it, when they are mostly still in memory; those that there is no
time for have no checksum. A worker remembers what it has read, so that the stages of a run do not read their common
input again and again.

`xxh3:DIGEST` is that of the bytes of a file (XXH3, 128 bits); that of a directory is over the names, sizes and
checksums of its files, as a transfer and a kernel tell it (`checksums.whole`).
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from functools import cache
from typing import Any

from msgspec.structs import replace

from orchestrator.errors import printable
from orchestrator.model import Content, FailureClass, Order, Outcome, Product, StageKind
from orchestrator.transfer import address, checksums

LEAST_S = 30.0
PIECE = 4 << 20
REMEMBERED = 10_000
READ_MOST = 10_000  # files of one attempt that are looked at

_remembered: OrderedDict[tuple[Any, ...], str] = OrderedDict()  # a cache of this process: what a file as it was held


class _NoTime(Exception):
    pass


def witnessed(order: Order, outcome: Outcome, *, since: float) -> Outcome:
    """The outcome of an attempt that ended well, with its inputs and the checksums of what it made.

    Of another content than it must have had: the outcome that says so.
    """
    deadline = time.monotonic() + max(LEAST_S, time.time() - since)
    made = {os.path.abspath(p.path) for p in outcome.products}
    inputs = []
    for path in _read_by(order, outcome)[:READ_MOST]:
        wanted = order.known.get(path, "")
        seen = _look(path, checksums.kind_of(wanted) or "xxh3", None if wanted else deadline)
        if wanted and (seen is None or seen.checksum != wanted):
            return replace(outcome, failure=FailureClass.BAD_INPUT, reason=_another(path, wanted, seen))
        if seen is not None and os.path.abspath(path) not in made:
            inputs.append(seen)
    if order.kind is StageKind.TRANSFER:
        inputs += _moved(order, outcome, {c.path for c in inputs})
    products = tuple(_made(p, deadline) for p in outcome.products)
    return replace(outcome, inputs=tuple(inputs), products=products)


@cache
def software() -> dict[str, str]:
    """What computes in this process, and its versions."""
    from kernels import manifest

    told = manifest.provenance()
    return {"python": told["python"], **told["libraries"]}


def _read_by(order: Order, outcome: Outcome) -> list[str]:
    """The files of this host that the attempt has read, absolute, each once: as declared, and as a kernel has said."""
    paths = [*order.inputs, *(content.path for content in outcome.inputs)]
    if order.kind is StageKind.TRANSFER:
        paths += [source for source in _sources(order) if source in order.known]  # of others the transfer tells it
    return list(dict.fromkeys(_absolute(order, path) for path in paths if not address.is_one(path)))


def _sources(order: Order) -> list[str]:
    given = order.arguments["from"]
    return [_absolute(order, source) for source in ([given] if isinstance(given, str) else given)]


def _absolute(order: Order, path: str) -> str:
    return path if address.is_one(path) else os.path.normpath(os.path.join(order.working_dir, path))


def _moved(order: Order, outcome: Outcome, told: set[str]) -> list[Content]:
    """The sources of a transfer: a copy that was verified has the content of its source."""
    given = _sources(order)
    if len(given) != len(outcome.products):
        return [Content(source) for source in given if source not in told]
    pairs = zip(given, outcome.products, strict=True)
    return [
        Content(source, product.bytes, order.known.get(source, "") or product.checksum)
        for source, product in pairs
        if source not in told
    ]


def _made(product: Product, deadline: float) -> Product:
    """With a checksum."""
    if address.is_one(product.path) or product.checksum:
        return product
    seen = _look(product.path, "xxh3", deadline)
    return product if seen is None or not seen.checksum else replace(product, checksum=seen.checksum)


def _another(path: str, wanted: str, seen: Content | None) -> str:
    found = f"it has {seen.checksum}" if seen is not None else "it is not there any more"
    return printable(f"The input '{path}' is not what arrived: {wanted} was expected, and {found}.")


# ---------------------------------------------------------------------------------------------------- one content


def _look(path: str, algorithm: str, deadline: float | None) -> Content | None:
    """None when there is no such file. Without a checksum when it changes meanwhile, or there is no time."""
    try:
        facts = os.stat(path)
        if stat.S_ISDIR(facts.st_mode):
            return _look_below(path, algorithm, deadline)
        if not stat.S_ISREG(facts.st_mode):
            return None
        try:
            checksum = _checksum(path, facts, algorithm, deadline)
        except _NoTime:
            checksum = ""
        return Content(path, facts.st_size, checksum, facts.st_mtime)
    except (OSError, ValueError):
        return None


def _look_below(root: str, algorithm: str, deadline: float | None) -> Content:
    total, newest = 0, os.stat(root).st_mtime
    digests: dict[str, str] | None = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            if not stat.S_ISREG(facts.st_mode):
                continue
            total, newest = total + facts.st_size, max(newest, facts.st_mtime)
            if digests is None:
                continue
            try:
                _, _, digest = _checksum(path, facts, algorithm, deadline).partition(":")
            except _NoTime:
                digest = ""
            if digest:
                digests[os.path.relpath(path, root)] = digest
            else:
                digests = None
    return Content(root, total, checksums.whole(algorithm, digests) if digests else "", newest)


def _checksum(path: str, facts: os.stat_result, algorithm: str, deadline: float | None) -> str:
    """Empty when the file changed while it was read."""
    as_it_is = (path, algorithm, *_identity(facts))
    if as_it_is in _remembered:
        _remembered.move_to_end(as_it_is)
        return _remembered[as_it_is]
    total = checksums.new(algorithm)
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            total.update(piece)
            if deadline is not None and time.monotonic() > deadline:
                raise _NoTime
        if _identity(os.fstat(file.fileno())) != _identity(facts):
            return ""
    checksum = f"{algorithm}:{total.hexdigest()}"
    _remembered[as_it_is] = checksum
    if len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    return checksum


def _identity(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
