"""Pieces written past the page cache, or as usual where that cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.io import direct


@pytest.mark.parametrize("shape", [(16, 256, 256), (4, 16, 16), (3, 5, 7)])
def test_the_file_is_the_array(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = direct.room(shape)
    values[:] = np.random.default_rng(1).random(shape, np.float32)
    (tmp_path / "a").write_bytes(b"what was there before" * 1_000_000)
    direct.write(tmp_path / "a", values)
    assert (tmp_path / "a").read_bytes() == values.tobytes()


def test_large_pieces_go_past_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, how, *rest: (asked.append(how), real(path, how & ~os.O_DIRECT, *rest))[1]
    )
    direct.write(tmp_path / "large", direct.room((4, 32, 32)))
    direct.write(tmp_path / "small", direct.room((3, 5)))
    assert [bool(how & os.O_DIRECT) for how in asked] == [True, False]


@pytest.mark.parametrize("station", ["open", "write"])
def test_a_file_system_without_direct_writes_is_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, station: str
) -> None:
    direct_ones: set[int] = set()
    real_open, real_write = os.open, os.write

    def opened(path: Any, how: int, *rest: Any) -> int:
        if how & os.O_DIRECT and station == "open":
            raise OSError(errno.EINVAL, "no direct writes")
        number = real_open(path, how & ~os.O_DIRECT, *rest)
        (direct_ones.add if how & os.O_DIRECT else direct_ones.discard)(number)
        return number

    def written(number: int, piece: Any) -> int:
        if number in direct_ones:
            raise OSError(errno.EINVAL, "no direct writes")
        return real_write(number, piece[:1000])  # and never all at once

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", written)
    values = direct.room((4, 32, 32))
    values[:] = 2.5
    direct.write(tmp_path / "a", values)
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == values.tobytes()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int, piece: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        direct.write(tmp_path / "a", direct.room((4, 32, 32)))
