"""Read, work and write at the same time: the next part is read and the last one written while one is worked on.

One thread reads and one writes, so that what uses all cores (compiled code is not to be entered twice at once) stays in
the caller's own. At most two parts are held at each station, whatever the size of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Raw = TypeVar("Raw")
Result = TypeVar("Result")


def convey(
    parts: Iterable[Part],
    *,
    read: Callable[[Part], Raw],
    work: Callable[[Part, Raw], Result],
    write: Callable[[Part, Result], None],
) -> None:
    """For each part, in order, read it, work on it, write it.

    The first failure of any of the three is raised, when those that are under way have ended; nothing new is begun.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        coming: tuple[Part, Future[Raw]] | None = None
        going: Future[None] | None = None
        for part in (*parts, None):
            here, coming = coming, None if part is None else (part, reader.submit(read, part))
            if here is None:
                continue
            result = work(here[0], here[1].result())
            if going is not None:
                going.result()
            going = writer.submit(write, here[0], result)
        if going is not None:
            going.result()
