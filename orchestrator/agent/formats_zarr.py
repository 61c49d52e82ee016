"""Zarr v2 and v3 for the checks: chunks are counted on disk, as a missing one reads as the fill value."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.agent.formats import Array, Finder, Unreadable, bounded

_METADATA = ("zarr.json", ".zarray", ".zgroup")
_KEY = re.compile(r"(?:c[/.])?(\d+(?:[/.]\d+)*)")
_ABSENT = 2**64 - 1  # offset and length of an inner chunk that a shard does not hold


def open_zarr(path: str) -> Finder:
    import zarr

    if not _is_node(path):
        raise Unreadable(f"it is a directory without Zarr metadata ({', '.join(_METADATA)})")
    node = _open(path)
    members = sorted(e.name for e in os.scandir(path) if e.is_dir() and _is_node(e.path))
    if isinstance(node, zarr.Group) and not members and not dict(node.attrs):
        raise Unreadable("it is a Zarr group that holds nothing")

    def find(name: str) -> Array:
        place = name.strip("/")
        if not place and not isinstance(node, zarr.Array):
            if len(members) != 1:
                raise Unreadable(
                    f"no dataset is named and the group holds {', '.join(members[:8]) or 'nothing'}"
                )
            place = members[0]
        if ".." in place.split("/") or not _is_node(os.path.join(path, place)):
            raise Unreadable(
                f"there is no dataset {name!r}; the group holds {', '.join(members[:8]) or 'nothing'}"
            )
        found = _open(os.path.join(path, place)) if place else node
        if not isinstance(found, zarr.Array):
            raise Unreadable(f"{name!r} is a group and not an array")
        return _array(found, os.path.join(path, place), name)

    return find


def _is_node(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in _METADATA)


def _open(path: str) -> Any:
    import zarr
    from zarr.storage import LocalStore

    return zarr.open(store=LocalStore(Path(path), read_only=True), mode="r")


def _array(array: Any, directory: str, name: str) -> Array:
    import numpy as np

    shape = tuple(array.shape)
    outer = tuple(array.shards or array.chunks)  # what one file holds
    bounded(array.chunks, array.dtype.itemsize, f"chunk of {name!r}")
    inner = _shard_index(array)
    if inner is None:
        chunks, stored = _grid(shape, outer), sum(1 for _ in _files(directory, _counts(shape, outer)))
    else:
        chunks, stored = _grid(shape, array.chunks), _inner_chunks(array, directory, outer, inner)
    grain = tuple(min(c, s) for c, s in zip(array.chunks, shape, strict=True))
    return Array(name, shape, array.dtype, grain, lambda block: np.asarray(array[block]), stored, chunks)


def _counts(shape: tuple[int, ...], chunk: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-s // c) for s, c in zip(shape, chunk, strict=True))


def _grid(shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    return math.prod(_counts(shape, chunk))


def _files(directory: str, grid: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The chunk files below `directory` that hold something and lie in the grid."""
    for place, _folders, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            key = os.path.relpath(path, directory)
            match = _KEY.fullmatch(key)
            index = tuple(int(i) for i in re.split("[/.]", match[1])) if match else ()
            if not grid and key in ("c", "0"):
                index = ()
            elif (
                len(index) != len(grid) or any(i >= n for i, n in zip(index, grid, strict=True)) or not index
            ):
                continue
            if os.path.getsize(path) > 0:
                yield path, index


def _shard_index(array: Any) -> bool | None:
    """Whether shards keep their index at the end; None without shards or with an unusual index."""
    if not array.shards:
        return None
    codec = array.metadata.codecs[0]
    plain = [type(c).__name__ for c in getattr(codec, "index_codecs", ())] == ["BytesCodec", "Crc32cCodec"]
    return str(getattr(codec.index_location, "value", codec.index_location)) == "end" if plain else None


def _inner_chunks(array: Any, directory: str, outer: tuple[int, ...], at_end: bool) -> int:
    import numpy as np

    grid = _counts(tuple(array.shape), tuple(array.chunks))
    per_shard = _counts(outer, tuple(array.chunks))
    length = 16 * math.prod(per_shard)
    stored = 0
    for path, index in _files(directory, _counts(tuple(array.shape), outer)):
        with open(path, "rb") as file:
            if os.path.getsize(path) < length + 4:
                continue
            file.seek(-(length + 4) if at_end else 0, os.SEEK_END if at_end else os.SEEK_SET)
            entries = np.frombuffer(file.read(length), "<u8").reshape(*per_shard, 2)
        # Inner chunks beyond the edge of the array belong to no value.
        inside = tuple(slice(0, max(0, g - i * p)) for g, i, p in zip(grid, index, per_shard, strict=True))
        stored += int(np.count_nonzero(entries[inside][..., 0] != _ABSENT))
    return stored
