"""A real scan through `beamway run tomography`: a verified volume, and a picture with a tooth in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from orchestrator.client import Client
from tests.e2e.test_bad_input import beamway


def test_the_tooth(shared_client: Client, data: Path, tmp_path: Path) -> None:
    scan = data / "tomography" / "tooth.h5"
    if not scan.exists():
        pytest.skip(f"{scan} is not there")
    out = tmp_path / "out"
    words = ["run", "tomography", f"filePath:{scan}", f"outputDir:{out}", "--wait", "--json"]
    result = beamway(shared_client.settings.home, *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["status"] == "done"
    assert str(out / "volume.zarr") in [o["path"] for o in answer["outputs"]]
    assert answer["variables"]["scanPath"] == str(scan)  # no correction was asked for
    assert not (out / "corrected.h5").exists()
    assert (out / "preview.png").stat().st_size > 1000
    assert 294.5 < float(answer["variables"]["rotationAxis"]) < 296.5
    volume = np.asarray(zarr.open_group(str(out / "volume.zarr"), mode="r")["0"])
    assert volume.shape == (2, 640, 640)
    assert np.isfinite(volume).all()
    tooth = volume[:, 240:400, 240:440]  # enamel and dentine: well above the air around
    air = volume[:, 250:390, 480:560]
    assert tooth.mean() > 10 * abs(air.mean()) + 3 * air.std()
    picture = np.asarray(Image.open(out / "slices.png").convert("L"), dtype=float)[:640, :640]
    assert picture[180:420, 230:440].mean() > 2 * picture[250:390, 480:560].mean()
