from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from orchestrator.agent import output
from orchestrator.model import Order, StageKind


def test_cut_keeps_both_ends_and_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"first" + b"x" * 10_000 + b"last")
    output.cut(str(path), 100)
    text = path.read_text()
    assert text.startswith("first")
    assert text.endswith("last")
    assert "9909 bytes left out" in text
    assert len(text) < 200


def test_the_name_of_an_output_is_not_interned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 would have it in memory for ever."""
    path = tmp_path / "0.1.out"
    path.write_bytes(b"text")
    interned: set[str] = set()
    monkeypatch.setattr(sys, "intern", lambda text: interned.add(text) or text)
    assert output.read(str(path)) == "text"
    assert "0.1.out" not in interned


def test_cut_of_a_file_that_is_being_appended_to_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, b"a" * 1000)
    output.cut(str(path), 100)
    os.write(handle, b"after")
    os.close(handle)
    assert path.read_bytes().endswith(b"after")
    assert b"\0" not in path.read_bytes()


def test_named_groups_of_the_first_match_are_captured() -> None:
    values, trouble = output.captured([r"axis (?P<axis>[\d.]+)", r"nothing (?P<x>.)"], "axis 12.5\naxis 13.5\n")
    assert (values, trouble) == ({"axis": "12.5"}, "")


def test_a_captured_name_that_is_not_utf8_survives() -> None:
    text = b"file ok\xff.h5\n".decode("utf-8", "surrogateescape")
    values, _ = output.captured([r"file (?P<f>\S+)"], text)
    assert os.fsencode(values["f"]) == b"ok\xff.h5"


def test_a_catastrophic_expression_is_given_up() -> None:
    values, trouble = output.captured([r"(?P<x>(a|aa)+)$"], "a" * 60 + "b")
    assert values == {}
    assert "took over" in trouble


def test_the_newest_progress_line_is_found_at_the_end_of_a_long_output(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("progress 0.10 read 1/10\n" + "noise\n" * 5000 + "progress 0.50 reconstruct 5/10\nmore\n")
    assert output.last_progress(str(path)) == (0.5, "reconstruct 5/10")
    path.write_text("no progress here\n")
    assert output.last_progress(str(path)) is None


def left(tmp_path: Path, *, well: bool, begun: bool, adopted: bool = False) -> set[str]:
    """What is left of the files of an attempt."""
    paths = output.Paths(Order("r.0.1", StageKind.KERNEL, "s", log_dir=str(tmp_path)))
    for path in (paths.stdout, paths.exit, paths.cancelled, paths.job, paths.script, paths.order):
        Path(path).touch()
    Path(paths.stderr).write_text("grumble")
    Path(f"{paths.job}.claim").mkdir()
    Path(f"{paths.job}.claim/job").touch()
    output.tidy(paths, well=well, begun=begun, adopted=adopted)
    return {p.name.removeprefix("0.1.") for p in tmp_path.iterdir()}


def test_an_attempt_that_went_well_leaves_what_it_wrote(tmp_path: Path) -> None:
    assert left(tmp_path, well=True, begun=True) == {"err"}


def test_an_adopted_attempt_leaves_the_claim_of_its_job(tmp_path: Path) -> None:
    assert left(tmp_path, well=True, begun=True, adopted=True) == {"err", "job.claim"}


def test_a_failed_attempt_leaves_what_was_tried_and_its_claim(tmp_path: Path) -> None:
    assert left(tmp_path, well=False, begun=True) == {"err", "job", "sh", "order", "job.claim"}


def test_an_attempt_that_nobody_saw_begin_keeps_its_mark(tmp_path: Path) -> None:
    assert "cancelled" in left(tmp_path, well=False, begun=False)
