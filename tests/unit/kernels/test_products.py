"""Products that have come to lie elsewhere, compared with what their makers wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from scans import run

from kernels import manifest
from kernels.errors import KernelError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A file and a tree with their manifests, made elsewhere."""
    there = tmp_path / "there"
    (there / "volume.zarr" / "0").mkdir(parents=True)
    (there / "volume.zarr" / "0" / "chunk").write_bytes(b"1234")
    (there / "slices.png").write_bytes(b"png")
    outputs = []
    for path in (there / "volume.zarr", there / "slices.png"):
        checksum, size = manifest.checksum(path)
        outputs.append({"path": str(path), "bytes": size, "checksum": checksum})
    (there / "volume.zarr.manifest.json").write_text(json.dumps({"outputs": outputs}))
    return there.rename(tmp_path / "home")


def refused(folder: Path) -> tuple[str, str]:
    with pytest.raises(KernelError) as error:
        run("products.verify", input=folder)
    return error.value.failure, str(error.value)


def test_a_copy_elsewhere_is_what_was_made(home: Path) -> None:
    assert run("products.verify", input=home).metrics == {"products": 2, "product_bytes": 7}


def test_a_byte_a_chunk_and_a_product_less_are_seen(home: Path) -> None:
    (home / "slices.png").write_bytes(b"pnG")
    assert refused(home)[0] == "bad output"
    (home / "slices.png").write_bytes(b"png")
    (home / "volume.zarr" / "0" / "more").touch()
    assert "volume.zarr' has 4 bytes and sha256-tree:" in refused(home)[1]
    shutil.rmtree(home / "volume.zarr")
    assert refused(home) == ("bad output", f"The product '{home / 'volume.zarr'}' is missing.")


def test_without_a_manifest_that_can_be_read_nothing_is_verified(home: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "none")[0] == "bad input"
    (home / "volume.zarr.manifest.json").write_text('{"outputs": [{"path": 3}]}')
    assert "is no manifest" in refused(home)[1]
