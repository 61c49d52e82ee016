"""A bench (see the contract of schedulers) for a real scheduler, with faults that can be switched on."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.unit.schedulers.contract import Bench

LOSING = """#!/bin/bash
if rm "$(dirname "$0")/lose" 2>/dev/null; then
  {program} "$@" >/dev/null
  echo {words} >&2
  exit 1
fi
exec {program} "$@"
"""
ANSWER_S = 15.0


def bench(
    directory: Path,
    open_one: Callable[[str, float], Any],
    *,
    commands: Mapping[str, Path],
    submit: str,
    lost: str,
    pause: Callable[[], None],
    resume: Callable[[], None],
    silent_s: float,
    **more: Any,
) -> Bench:
    """`open_one(folder of commands, seconds for an answer)` makes an adapter; `submit` is the command whose answer can
    be lost, which then says `lost`; `silent_s` is how long a call waits for a scheduler that is paused."""
    work, folder = directory / "work", directory / "bin"
    work.mkdir(parents=True)
    folder.mkdir()
    for name, program in commands.items():
        if name == submit:
            (folder / name).write_text(LOSING.format(program=shlex.quote(str(program)), words=shlex.quote(lost)))
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(program)

    @contextlib.contextmanager
    def silent() -> Iterator[None]:
        calls = made.scheduler.calls  # type: ignore[attr-defined]
        calls.timeout_s = silent_s
        pause()
        try:
            yield
        finally:
            resume()
            calls.timeout_s = ANSWER_S

    @contextlib.contextmanager
    def lost_answer() -> Iterator[None]:
        (folder / "lose").touch()
        yield
        assert not (folder / "lose").exists()

    made = Bench(
        open=lambda: open_one(str(folder), ANSWER_S), directory=work, silent=silent, lost_answer=lost_answer, **more
    )
    return made
