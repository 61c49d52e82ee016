"""The process that opens HDF5 files which may be half-written or hostile, so that the watcher need not.

It is handed open files over a socket and answers with what is in them. It follows no link to another file, reads only
small values, and never the data: a file of 1 kB can claim 80 TB.

    python -m orchestrator.arrival.hdf5_reader SOCKET
"""

from __future__ import annotations

import json
import math
import os
import resource
import socket
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

MEMORY = 4 << 30
SMALL = 4096  # bytes of a value
MOST_LINKS = 100_000
MOST_SOFT = 16
OBJECTS_MOST = 20_000  # that are looked at for metadata
ATTRIBUTES_MOST = 200  # of one of them
FEW = 16  # elements of a value that is metadata and not data
TEXT_MOST = 1000  # characters
METADATA_MOST = 100_000  # bytes as JSON
LENGTH_BYTES = 8  # before an answer


def look(path: str, ask: dict[str, Any]) -> dict[str, Any]:
    """Answer about a file: `values` and `shapes` by path, the outside `links` of a group, the NXentry groups."""
    import h5py

    said: dict[str, Any] = {"writing": False, "broken": ""}
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        try:  # marked as open for writing: its writer is at work, or it died
            file = h5py.File(path, "r", swmr=True, locking=False)
            said["writing"] = True
        except OSError:
            return said | {"broken": " ".join(str(error).split())[:300]}
    with file:
        said["values"] = {name: _value(file, name) for name in ask.get("values", ())}
        said["shapes"] = {name: _shape(file, name) for name in ask.get("shapes", ())}
        said["links"] = _links(file, ask["links"]) if ask.get("links") else None
        said["entries"] = _entries(file) if ask.get("entries") else None
        said["metadata"] = _metadata(file) if ask.get("metadata") else None
    return said


def _node(file: Any, path: str, soft: int = 0) -> Any:
    """What is at that path in this very file; None when there is nothing."""
    import h5py

    node = file
    parts = [p for p in path.split("/") if p]
    for at, part in enumerate(parts):
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.SoftLink):
            if soft >= MOST_SOFT:
                return None
            base = "" if link.path.startswith("/") else node.name
            return _node(file, "/".join([base, link.path, *parts[at + 1 :]]), soft + 1)
        if link is None or isinstance(link, h5py.ExternalLink):
            return None
        node = node.get(part)
    return node


def _value(file: Any, name: str) -> Any:
    path, _, attribute = name.partition("@")
    node = _node(file, path)
    if node is None:
        return None
    return _of_attribute(node, attribute) if attribute else _of_dataset(node)


def _of_attribute(node: Any, name: str) -> Any:
    if name not in node.attrs:
        return None
    space = node.attrs.get_id(name)
    return _plain(node.attrs[name]) if space.get_storage_size() <= SMALL else None


def _of_dataset(node: Any) -> Any:
    import h5py

    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external or node.shape is None:
        return None
    return _plain(node[()]) if math.prod(node.shape) * max(node.dtype.itemsize, 1) <= SMALL else None


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return _plain(value[0]) if len(value) == 1 else [_plain(v) for v in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return value[:SMALL] if isinstance(value, str) else value if isinstance(value, int | float | bool) else str(value)


def _shape(file: Any, name: str) -> dict[str, Any] | None:
    """Its shape, and whether every part of it was written."""
    import h5py

    node = _node(file, name)
    if not isinstance(node, h5py.Dataset) or node.shape is None:
        return None
    if node.is_virtual or node.external:
        written = True  # its data are elsewhere, where this file cannot say
    elif node.chunks:
        all_chunks = math.prod(-(-n // c) for n, c in zip(node.shape, node.chunks, strict=True))
        written = node.id.get_num_chunks() >= all_chunks
    else:
        written = not math.prod(node.shape) or node.id.get_storage_size() > 0
    return {"shape": list(node.shape), "written": bool(written)}


def _links(file: Any, path: str) -> list[str] | None:
    """The files that a group's links and virtual datasets lead to, or one such dataset, as a master names its parts."""
    import h5py

    node = _node(file, path)
    if isinstance(node, h5py.Dataset):
        return sorted(_sources(node))
    if not isinstance(node, h5py.Group):
        return None
    found: set[str] = set()
    for name in list(node)[:MOST_LINKS]:
        link = node.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            found.add(link.filename)
        elif isinstance(link, h5py.HardLink) and isinstance(below := node.get(name), h5py.Dataset):
            found |= _sources(below)
    return sorted(found)


def _sources(node: Any) -> set[str]:
    """The other files that a virtual dataset is made of."""
    return {each.file_name for each in node.virtual_sources()} - {"."} if node.is_virtual else set()


def _entries(file: Any) -> dict[str, str]:
    """The NXentry groups at the root with their `end_time`, empty when there is none."""
    import h5py

    found = {}
    for name in list(file)[:100]:
        node = _node(file, name)
        if isinstance(node, h5py.Group) and _value(file, f"{name}@NX_class") == "NXentry":
            found[name] = str(_value(file, f"{name}/end_time") or "")
    return found


def _metadata(file: Any) -> dict[str, Any]:
    """Attributes and datasets of few elements, by path and `path@attribute`, from the root down; `#shape`s of the rest.

    No more of them than one message holds.
    """
    import h5py

    found: dict[str, Any] = {}
    room = METADATA_MOST
    waiting, seen = deque([file]), {_address(file)}
    objects = 0
    while waiting and objects < OBJECTS_MOST:
        node = waiting.popleft()
        objects += 1
        for name, value in _said_by(node):
            room -= len(json.dumps([name, value])) + 4
            if room < 0:
                return found
            found[name] = value
        for name in islice(node, OBJECTS_MOST) if isinstance(node, h5py.Group) else ():
            if not isinstance(node.get(name, getlink=True), h5py.HardLink):
                continue  # it leads elsewhere, or to what is met under its own name
            below = node.get(name)
            if isinstance(below, h5py.Group | h5py.Dataset) and (at := _address(below)) not in seen:
                seen.add(at)
                waiting.append(below)
            if len(seen) >= OBJECTS_MOST:
                break
    return found


def _address(node: Any) -> tuple[int, int]:
    import h5py

    info = h5py.h5o.get_info(node.id)
    return info.fileno, info.addr


def _said_by(node: Any) -> Iterator[tuple[str, Any]]:
    import h5py

    for name in islice(node.attrs, ATTRIBUTES_MOST):
        space = node.attrs.get_id(name)
        if space.shape is not None and math.prod(space.shape) <= FEW and _is_simple(space.dtype):
            yield f"{node.name}@{name}", _short(_of_attribute(node, name))
    if isinstance(node, h5py.Dataset) and node.shape is not None:
        if math.prod(node.shape) > FEW:
            yield f"{node.name}#shape", list(node.shape)
        elif _is_simple(node.dtype):
            yield node.name, _short(_of_dataset(node))


def _is_simple(kind: Any) -> bool:
    import h5py

    return kind.kind in "iufbSU" or (kind.kind == "O" and h5py.check_string_dtype(kind) is not None)


def _short(value: Any) -> Any:
    return value[:TEXT_MOST] if isinstance(value, str) else value


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=int(sys.argv[1])) as link:
        while True:
            text, handles, _, _ = socket.recv_fds(link, 1 << 20, 1)
            if not text:
                return
            try:
                answer = look(f"/proc/self/fd/{handles[0]}", json.loads(text))
            except Exception as error:  # noqa: BLE001 - whatever a broken file does to the library
                answer = {"broken": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            for handle in handles:
                os.close(handle)
            said = json.dumps(answer).encode()
            link.sendall(len(said).to_bytes(LENGTH_BYTES) + said)


if __name__ == "__main__":
    main()
