"""Checksums of files and trees."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import xxhash

from kernels import manifest
from orchestrator.catalog.content import BLOCK_BYTES, Sum, checksum
from orchestrator.errors import ArgumentError, InputError
from orchestrator.transfer import checksums


def test_of_a_file_by_each_algorithm_with_progress(tmp_path: Path) -> None:
    text = os.urandom(BLOCK_BYTES + 5)
    (tmp_path / "a").write_bytes(text)
    seen: list[tuple[int, int]] = []
    found = checksum(str(tmp_path / "a"), progress=lambda done, of: seen.append((done, of)))
    assert found == Sum(f"xxh3:{xxhash.xxh3_128(text).hexdigest()}", len(text))
    assert seen == [(BLOCK_BYTES, len(text)), (len(text), len(text))]
    for name in ("sha256", "md5"):
        assert checksum(str(tmp_path / "a"), name).checksum == f"{name}:{hashlib.new(name, text).hexdigest()}"
    with pytest.raises(ArgumentError, match="Did you mean 'sha256'"):
        checksum(str(tmp_path / "a"), "sha265")


def test_of_a_tree_with_names_of_any_bytes(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\n")
    (tmp_path / "t" / "b").mkdir(parents=True)
    (tmp_path / "t" / "b" / odd).write_bytes(b"1")
    (tmp_path / "t" / "a").write_bytes(b"22")
    parts = {"a": hashlib.sha256(b"22").hexdigest(), f"b/{odd}": hashlib.sha256(b"1").hexdigest()}
    assert checksum(str(tmp_path / "t"), "sha256") == Sum(checksums.whole("sha256", parts), 3, 2)
    assert (
        checksum(str(tmp_path / "t"), "sha256").checksum == manifest.checksum(tmp_path / "t")[0]
    )  # as kernels tell it


def test_a_file_that_changes_or_goes_meanwhile_has_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(os.urandom(BLOCK_BYTES + 5))
    with pytest.raises(InputError, match="changed while"):
        checksum(str(tmp_path / "a"), progress=lambda *_: os.utime(tmp_path / "a", ns=(1, 1)))
    with pytest.raises(InputError, match="went away"):
        checksum(str(tmp_path), progress=lambda *_: (tmp_path / "b").unlink(missing_ok=True))
    with pytest.raises(InputError, match="not there"):
        checksum(str(tmp_path / "none"))


def test_a_link_stands_for_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"22")
    (tmp_path / "link").symlink_to("a")
    assert checksum(str(tmp_path / "link")) == checksum(str(tmp_path / "a"))
    (tmp_path / "a").unlink()
    with pytest.raises(InputError, match="not there"):
        checksum(str(tmp_path / "link"))
