"""What an attempt has read and made, by content."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import xxhash

from orchestrator.agent import contents
from orchestrator.model import Content, FailureClass, Order, Outcome, Product, StageKind


def xxh3(content: bytes) -> str:
    return f"xxh3:{xxhash.xxh3_128_hexdigest(content)}"


def order(place: Path, **more: object) -> Order:
    return Order("r.0.1", StageKind.COMMAND, "01", working_dir=str(place), **more)  # type: ignore[arg-type]


def witnessed(order: Order, *made: Path) -> Outcome:
    return contents.witnessed(order, Outcome(products=tuple(Product(str(p)) for p in made)), since=time.time())


def test_inputs_and_outputs_have_checksums(tmp_path: Path) -> None:
    raw, made = tmp_path / "sc\udcff\n.h5", tmp_path / "made"
    raw.write_bytes(b"raw")
    made.write_bytes(b"made")
    outcome = witnessed(order(tmp_path, inputs=(raw.name, "gone")), made)
    assert outcome.failure is None
    assert outcome.inputs == (Content(str(raw), 3, xxh3(b"raw"), raw.stat().st_mtime),)
    assert outcome.products[0].checksum == xxh3(b"made")


def test_a_file_that_is_changed_in_place_is_made_and_not_read(tmp_path: Path) -> None:
    made = tmp_path / "log"
    made.write_bytes(b"x")
    outcome = witnessed(order(tmp_path, inputs=(str(made),)), made)
    assert outcome.inputs == ()


def test_each_file_of_a_tree_counts(tmp_path: Path) -> None:
    tree = tmp_path / "a.zarr"
    (tree / "0").mkdir(parents=True)
    (tree / "0" / "0.0").write_bytes(b"chunk")
    (tree / "zarr.json").write_bytes(b"{}")
    first = witnessed(order(tmp_path), tree).products[0].checksum
    assert first.startswith("xxh3-tree:")
    assert witnessed(order(tmp_path), tree).products[0].checksum == first
    (tree / "0" / "0.0").rename(tree / "0" / "0.1")
    assert witnessed(order(tmp_path), tree).products[0].checksum != first


@pytest.mark.parametrize("algorithm", ["xxh3", "sha256", "md5"])
def test_another_content_than_arrived_is_bad_input(tmp_path: Path, algorithm: str) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"as it came")
    must = {str(raw): contents._checksum(str(raw), raw.stat(), algorithm, None)}
    asked = order(tmp_path, inputs=(str(raw),), known=must)
    assert witnessed(asked).failure is None
    raw.write_bytes(b"another one")
    outcome = witnessed(asked)
    assert outcome.failure is FailureClass.BAD_INPUT
    assert "is not what arrived" in outcome.reason
    raw.unlink()
    assert "not there any more" in witnessed(asked).reason


def test_a_content_in_another_algorithm_than_we_have_is_not_believed(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x")
    asked = order(tmp_path, inputs=(str(raw),), known={str(raw): "crc17:00"})
    assert witnessed(asked).failure is FailureClass.BAD_INPUT


def test_what_there_is_no_time_for_has_no_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x")
    monkeypatch.setattr(contents, "LEAST_S", -1.0)
    asked = order(tmp_path, inputs=(str(raw),))
    assert contents.witnessed(asked, Outcome(), since=time.time() + 60).inputs[0].checksum == ""
    known = order(tmp_path, inputs=(str(raw),), known={str(raw): xxh3(b"x")})
    assert contents.witnessed(known, Outcome(), since=time.time() + 60).inputs[0].checksum == xxh3(b"x")


def test_a_file_that_was_read_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"one")
    facts = raw.stat()
    first = contents._checksum(str(raw), facts, "xxh3", None)
    raw.write_bytes(b"two")
    assert contents._checksum(str(raw), facts, "xxh3", None) == first, "asked as it was then"
    os.utime(raw, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert contents._checksum(str(raw), raw.stat(), "xxh3", None) == xxh3(b"two")


def test_a_kernel_and_a_transfer_name_their_inputs_themselves(tmp_path: Path) -> None:
    raw, copy = tmp_path / "raw", tmp_path / "copy"
    for path in (raw, copy):
        path.write_bytes(b"x")
    call = Order("r.0.1", StageKind.KERNEL, "01", call="hedm.peaks", working_dir=str(tmp_path))
    said = Outcome(inputs=(Content("raw"), Content(str(copy)), Content(str(raw))))
    assert [(c.path, c.bytes) for c in contents.witnessed(call, said, since=time.time()).inputs] == [
        (str(raw), 1),
        (str(copy), 1),
    ]
    move = Order(
        "r.0.1", StageKind.TRANSFER, "01", arguments={"from": "raw", "to": str(copy)}, working_dir=str(tmp_path)
    )
    outcome = contents.witnessed(move, Outcome(products=(Product(str(copy), 1, "", "sha256:aa"),)), since=time.time())
    assert outcome.inputs == (Content(str(raw), 1, "sha256:aa"),)
