"""Kinds of checksum, made while the bytes pass.

XXH3 (128 bits) is the usual one: it keeps up with memory, and tells what chance does to bytes. SHA-256 and MD5 are for
those who compare with a figure that somebody else has; SHA-256 also tells what malice does. Adler-32 is the cheapest
that GridFTP servers know: one wrong byte it always tells, worse damage but for one case in four billion.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, Self

import xxhash
from isal import isal_zlib

from orchestrator.errors import nearest
from orchestrator.transfer.base import TransferRefused

USUAL = "xxh3"
CHOICE = (USUAL, "sha256", "md5")  # what an option may ask for


class Sum(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def copy(self) -> Self: ...

    def hexdigest(self) -> str: ...


class Adler32:
    def __init__(self, value: int = 1) -> None:
        self._value = value

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = isal_zlib.adler32(data, self._value)  # three times as fast as zlib's

    def copy(self) -> Adler32:
        return Adler32(self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def joined_adler32(parts: Iterable[tuple[str, int]]) -> str:
    """The Adler-32 of a whole, from those of its parts and their lengths: zlib's adler32_combine."""
    low, high = 1, 0
    for digest, length in parts:
        value = int(digest, 16)
        high = (high + (value >> 16) + length * (low - 1)) % _ADLER
        low = (low + (value & 0xFFFF) - 1) % _ADLER
    return f"{high << 16 | low:08x}"


_ADLER = 65521


_KINDS: Mapping[str, Callable[[], Sum]] = {
    "xxh3": xxhash.xxh3_128,
    "adler32": Adler32,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}


def new(kind: str) -> Sum:
    return _KINDS[kind]()


def whole(kind: str, digests: Mapping[str, str]) -> str:
    """`KIND:DIGEST` of a file, which has no name here; of a tree `KIND-tree:DIGEST`.

    That is over the lines `NAME NUL DIGEST LF` of its files, sorted as bytes: what kernels write in their manifests.
    """
    if "" in digests:
        return f"{kind}:{digests['']}"
    total = new(kind)
    for line in sorted(os.fsencode(name) + b"\0" + digest.encode() + b"\n" for name, digest in digests.items()):
        total.update(line)
    return f"{kind}-tree:{total.hexdigest()}"


def kind_of(checksum: str) -> str:
    """The kind that a checksum is of, as it is written; empty when nothing here can make such a one."""
    kind = checksum.partition(":")[0].removesuffix("-tree")
    return kind if kind in _KINDS else ""


def chosen(options: Mapping[str, Any]) -> str:
    """The kind that `options` ask for."""
    kind = options.get("checksum", USUAL)
    if kind not in CHOICE:
        raise TransferRefused(
            f"There is no checksum {kind!r} for a transfer.{nearest(str(kind), CHOICE)}", f"Known: {', '.join(CHOICE)}."
        )
    return str(kind)
