"""Bad Zarr, images, npy and JSON, and good ones beside them."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.unit.agent.checking import ask, failed, passes, values

# ------------------------------------------------------------------------------------------------------ Zarr


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("separator", ["/", "."])
def test_sparse_zarr_of_zeros(tmp_path: Path, zarr_format: int, separator: str) -> None:
    encoding = {"name": "v2" if zarr_format == 2 else "default", "separator": separator}
    array = zarr.create_array(
        str(tmp_path / "rec.zarr" / "0"), shape=(10, 7), chunks=(5, 5), dtype="f4", zarr_format=zarr_format,
        chunk_key_encoding=encoding, config={"write_empty_chunks": True},
    )  # fmt: skip
    zarr.create_group(str(tmp_path / "rec.zarr"), zarr_format=zarr_format, attributes={"axes": "zyx"})
    array[:5] = values(5, 7)
    assert passes(ask(tmp_path, "rec.zarr", opens="zarr", dataset="0", shape=(10, 7), dtype="float32"))
    for wanted in ({"finite": 1.0}, {"nonconstant": True}):
        check, seen = failed(ask(tmp_path, "rec.zarr", dataset="0", **wanted))
        assert (check, seen) == (
            "chunks",
            "only 2 of 4 chunks of dataset '0' are there; the rest is fill value",
        )
    array[5:] = 0  # written zeros are data
    assert passes(ask(tmp_path, "rec.zarr", dataset="0", finite=1.0, nonconstant=True))
    chunk = next(p for p in (tmp_path / "rec.zarr" / "0").rglob("*1*") if p.is_file())
    chunk.write_bytes(b"")
    assert "only 3 of 4" in failed(ask(tmp_path, "rec.zarr", dataset="0", finite=1.0))[1]
    chunk.write_bytes(b"\x01\x02\x03")
    check, seen = failed(ask(tmp_path, "rec.zarr", dataset="0", finite=1.0))
    assert (check, "cannot be read" in seen) == ("finite", True)


@pytest.mark.parametrize("index_location", ["end", "start"])
def test_chunks_missing_inside_a_shard(tmp_path: Path, index_location: str) -> None:
    array = zarr.create_array(
        str(tmp_path / "s.zarr"), shape=(20, 15), chunks=(5, 5), dtype="f4",
        shards={"shape": (10, 10), "index_location": index_location}, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:10] = 1
    assert "only 6 of 12 chunks" in failed(ask(tmp_path, "s.zarr", finite=1.0))[1]
    array[:] = values(20, 15)
    assert passes(ask(tmp_path, "s.zarr", finite=1.0, nonconstant=True))
    sparse = zarr.create_array(str(tmp_path / "t.zarr"), shape=(20, 20), chunks=(5, 5), shards=(20, 20), dtype="f4")
    sparse[:5, :5] = 1
    assert "only 1 of 16 chunks" in failed(ask(tmp_path, "t.zarr", finite=1.0))[1]


def test_chunks_of_a_shard_beyond_the_edge_do_not_stand_for_missing_ones(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "s.zarr"), shape=(20, 20), chunks=(5, 5), shards=(10, 10), dtype="f4")
    data = values(20, 20) + 1
    data[:5, :5] = 0  # left out
    array[:] = data
    metadata = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())
    metadata["shape"] = [20, 15]
    (tmp_path / "s.zarr" / "zarr.json").write_text(json.dumps(metadata))
    assert "only 11 of 12 chunks" in failed(ask(tmp_path, "s.zarr", finite=1.0))[1]


def test_a_zarr_that_claims_the_moon(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a"), shape=(10**7, 1000, 1000), chunks=(1, 10, 10), dtype="f8")
    zarr.create_array(str(tmp_path / "b"), shape=(10**7, 1000), chunks=(10**7, 1000), dtype="f8")
    begun = time.monotonic()
    assert "only 0 of 100000000000 chunks" in failed(ask(tmp_path, "a", finite=1.0))[1]
    assert "too large to decode" in failed(ask(tmp_path, "b", finite=1.0))[1]
    assert time.monotonic() - begun < 5


def test_directories_that_are_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x").write_text("x")
    assert "without Zarr metadata" in failed(ask(tmp_path, "plain", opens="zarr"))[1]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "arr')
    assert failed(ask(tmp_path, "broken", opens="zarr"))[0] == "opens"
    zarr.create_group(str(tmp_path / "empty"))
    assert "holds nothing" in failed(ask(tmp_path, "empty", opens="zarr"))[1]
    zarr.create_array(str(tmp_path / "empty" / "a"), data=values(3))
    assert passes(ask(tmp_path, "empty", finite=1.0))  # the only member is taken
    zarr.create_array(str(tmp_path / "empty" / "b"), data=values(3))
    assert "holds a, b" in failed(ask(tmp_path, "empty", finite=1.0))[1]
    for name in ("c", "../empty/a", "a/zarr.json"):
        assert "there is no dataset" in failed(ask(tmp_path, "empty", dataset=name))[1]
    assert "is a directory" in failed(ask(tmp_path, "empty", opens="hdf5"))[1]


# ------------------------------------------------------------------------------------- images, npy and JSON


def test_images(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (40, 30, 3), "u1")
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert passes(ask(tmp_path, "a.png", opens="png", shape=(40, 30, 3), dtype="uint8", nonconstant=True))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flip.png").write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    for name in ("cut.png", "flip.png"):
        assert failed(ask(tmp_path, name, opens="png"))[0] == "opens"
    Image.new("L", (9, 9), 3).save(tmp_path / "flat.png")
    assert failed(ask(tmp_path, "flat.png", nonconstant=True))[0] == "nonconstant"


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_stacks(tmp_path: Path, compression: str | None) -> None:
    pages = [Image.fromarray(values(20, 30) + i) for i in range(4)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:], compression=compression)
    found = ask(tmp_path, "s.tif", opens="tiff", shape=(4, 20, 30), dtype="float32", finite=1.0, nonconstant=True)
    assert passes(found)
    path = tmp_path / "s.tif"
    os.truncate(path, path.stat().st_size // 2)
    assert failed(ask(tmp_path, "s.tif", opens="tiff"))[0] == "opens"


def test_an_image_bomb(tmp_path: Path) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "x.tif")
    raw = bytearray((tmp_path / "x.tif").read_bytes())
    for tag in (256, 257):  # width and height
        at = raw.index(struct.pack("<HH", tag, 4))
        raw[at + 8 : at + 12] = struct.pack("<I", 1_000_000)
    (tmp_path / "x.tif").write_bytes(raw)
    assert "too large to decode" in failed(ask(tmp_path, "x.tif", opens="tiff"))[1]


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values(100, 100))
    assert passes(ask(tmp_path, "a.npy", opens="npy", shape=(100, 100), dtype="f4", finite=1.0, nonconstant=True))
    os.truncate(tmp_path / "a.npy", 20_000)
    assert "cut short (20 kB of 40.1 kB)" in failed(ask(tmp_path, "a.npy", opens="npy"))[1]
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    assert "pickled" in failed(ask(tmp_path, "o.npy", opens="npy"))[1]
    np.save(tmp_path / "b.npy", values(3))
    assert "no dataset 'x'" in failed(ask(tmp_path, "b.npy", dataset="x"))[1]


@pytest.mark.parametrize("text", ['{"a": 1', "", "NaN", '{"a": NaN}', "[" * 100_000])
def test_bad_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    assert failed(ask(tmp_path, "m.json", opens="json", min_bytes=0))[0] == "opens"
    (tmp_path / "m.json").write_text(json.dumps({"axis": 1024.5}))
    assert passes(ask(tmp_path, "m.json", opens="json"))
    assert failed(ask(tmp_path, "m.json", opens="json", finite=1.0))[1] == "json holds no arrays"
