"""HDF5 for the checks: links are followed one by one, so none leads out of the allowed place unseen."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from typing import Any

from orchestrator.agent.formats import Array, Finder, Unreadable, bounded, clause, count

LINK_DEPTH = 16
_BUILT_IN_FILTERS = 256  # numbers below are HDF5's own; hdf5plugin brings the rest


def open_hdf5(path: str, stack: ExitStack, root: str) -> Finder:
    file = _file(path, stack)
    names = list(file)
    if not names and not len(file.attrs):
        raise Unreadable("it is an HDF5 file that holds nothing")

    def find(name: str) -> Array:
        import h5py

        if not name:
            listed = [n for n in names if isinstance(_follow(file, n, stack, root, 0), h5py.Dataset)]
            if len(listed) != 1:
                raise Unreadable(
                    f"no dataset is named and the root holds {', '.join(names[:8]) or 'nothing'}"
                )
            name = listed[0]
        node = _follow(file, name, stack, root, 0)
        if not isinstance(node, h5py.Dataset):
            raise Unreadable(f"{name!r} is a group and not a dataset")
        return _array(node, name, root)

    return find


def _file(path: str, stack: ExitStack) -> Any:
    import h5py

    try:
        # Locked where the file system can, so that a writer that still has the file open is noticed.
        return stack.enter_context(h5py.File(os.fsencode(path), "r", locking="best-effort"))
    except OSError as error:
        text = clause(error)
        why = "it does not open as HDF5"
        if "truncated" in text:
            why = "it is cut short"
        elif "lock" in text:
            why = "another process still has it open for writing"
        raise Unreadable(f"{why} ({text})") from error


def _allowed(target: str, source: str, root: str) -> bool:
    target = os.path.realpath(target)
    places = (os.path.realpath(root), os.path.dirname(os.path.realpath(source)))
    return any(os.path.commonpath((target, place)) == place for place in places)


def _beside(name: str, source: str) -> str:
    return os.path.join(os.path.dirname(source), name)


def _check_file(target: str, source: str, root: str, what: str) -> None:
    if not _allowed(target, source, root):
        raise Unreadable(f"{what} leads to {target!r}, outside the output's directory")
    if not os.path.isfile(target):
        raise Unreadable(f"{what} leads to {target!r}, which is not there")


def _follow(node: Any, name: str, stack: ExitStack, root: str, depth: int) -> Any:
    """The object at `name` below `node`. Each soft or external link costs one of `LINK_DEPTH`."""
    import h5py

    if depth > LINK_DEPTH:
        raise Unreadable(f"{name!r} is a chain of more than {LINK_DEPTH} links")
    node = node.file["/"] if name.startswith("/") else node
    parts = [p for p in name.split("/") if p and p != "."]
    for position, part in enumerate(parts):
        if not isinstance(node, h5py.Group):
            raise Unreadable(f"there is no dataset {name!r}: {node.name!r} is not a group")
        link = node.get(part, getlink=True)
        if link is None:
            raise Unreadable(
                f"there is no dataset {name!r}; {node.name!r} holds {', '.join(list(node)[:8]) or 'nothing'}"
            )
        if isinstance(link, h5py.HardLink):
            node = node[part]
            continue
        rest = "/".join(parts[position + 1 :])
        if isinstance(link, h5py.ExternalLink):
            source = os.fsdecode(node.file.filename)
            target = _beside(os.fsdecode(link.filename), source)
            _check_file(target, source, root, f"the external link {part!r}")
            node = _file(target, stack)["/"]
        node = _follow(node, link.path, stack, root, depth + 1)
        return _follow(node, rest, stack, root, depth + 1) if rest else node
    return node


def _array(dataset: Any, name: str, root: str) -> Array:
    import numpy as np

    if dataset.shape is None:
        raise Unreadable(f"dataset {name!r} is empty (a null dataspace)")
    source = os.fsdecode(dataset.file.filename)
    shape, dtype = tuple(dataset.shape), dataset.dtype
    size, there = math.prod(shape) * dtype.itemsize, os.path.getsize(source)
    stored = chunks = 0
    grain = (1,) * len(shape)
    if dataset.is_virtual:
        stored, chunks = _virtual(dataset, source, root)
    elif dataset.external:
        for file_name, _offset, _size in dataset.external:
            _check_file(
                _beside(os.fsdecode(file_name), source), source, root, f"the storage of dataset {name!r}"
            )
    elif dataset.chunks:
        grain = tuple(min(c, s) for c, s in zip(dataset.chunks, shape, strict=True))
        bounded(dataset.chunks, dtype.itemsize, f"chunk of dataset {name!r}")
        chunks = math.prod(-(-s // c) for s, c in zip(shape, dataset.chunks, strict=True))
        stored = dataset.id.get_num_chunks() if size else 0
    elif size:
        held = dataset.id.get_storage_size()
        if held > there:
            raise Unreadable(f"dataset {name!r} claims {count(held)} and the file holds {count(there)}")
        stored, chunks = int(held > 0), 1
    if any(f[0] >= _BUILT_IN_FILTERS for f in _filters(dataset)):
        import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)
    unit = "sources" if dataset.is_virtual else "chunks"
    return Array(name, shape, dtype, grain, lambda block: np.asarray(dataset[block]), stored, chunks, unit)


def _filters(dataset: Any) -> list[tuple[Any, ...]]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i) for i in range(properties.get_nfilters())]


def _virtual(dataset: Any, source: str, root: str) -> tuple[int, int]:
    """How many of the sources of a virtual dataset are there. Missing ones read as the fill value."""
    import h5py

    sources = dataset.virtual_sources()
    there = 0
    for each in sources:
        if each.file_name == ".":
            there += each.dset_name in dataset.file
            continue
        # `%b` counts files up from 0; the first is looked at.
        target = _beside(each.file_name.replace("%b", "0"), source)
        if not _allowed(target, source, root):
            raise Unreadable(f"a virtual source leads to {target!r}, outside the output's directory")
        if os.path.isfile(target) and h5py.is_hdf5(os.fsencode(target)):
            with ExitStack() as stack:
                there += each.dset_name.replace("%b", "0") in _file(target, stack)
    return there, len(sources)
