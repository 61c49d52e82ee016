"""Outputs appear whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scans import left_behind, run

from kernels import contract, manifest, outputs
from kernels.errors import KernelError

PROGRAM = [sys.executable, "-m", "kernels"]


def test_a_file_and_a_directory_replace_their_elders(tmp_path: Path) -> None:
    for directory in (False, True):
        final = tmp_path / f"out{directory}"
        for text in ("old", "new"):
            staged = outputs.claim(final, directory=directory)
            target = staged.part / "zarr.json" if directory else staged.part
            target.write_text(text)
            assert text != "old" or not final.exists()
            outputs.publish(staged)
            assert (final / "zarr.json" if directory else final).read_text() == text
    assert left_behind(tmp_path) == ["outFalse", "outTrue"]


def test_a_directory_is_replaced_without_exchange_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_RENAME_EXCHANGE", 1 << 30)  # a flag that no kernel knows
    test_a_file_and_a_directory_replace_their_elders(tmp_path)


def test_a_leftover_is_replaced_and_a_living_writer_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_text("leftover")
    (tmp_path / "b.part").mkdir()
    (tmp_path / "b.part" / "x").write_text("leftover")
    first = outputs.claim(tmp_path / "a")
    second = outputs.claim(tmp_path / "b", directory=True)
    assert first.part.read_text() == ""
    assert left_behind(second.part) == []
    with pytest.raises(KernelError, match="Another process is writing") as caught:
        outputs.claim(tmp_path / "a")
    assert caught.value.exit_code == 75
    assert caught.value.failure == "transient"
    outputs.discard(first)
    outputs.discard(second)
    assert left_behind(tmp_path) == []


def test_only_what_a_kernel_could_have_written_is_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    (tmp_path / "link").symlink_to(home / "thesis.tex")
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name, directory, what in (
        ("home", True, "a directory that is not a Zarr"),
        ("home", False, "a directory"),
        ("link", False, "a symbolic link"),
        ("file", True, "a file"),
        ("pipe", False, "a device, pipe or socket"),
    ):
        with pytest.raises(KernelError, match=what) as caught:
            outputs.claim(tmp_path / name, directory=directory)
        assert caught.value.exit_code == 73
    assert (home / "thesis.tex").read_text() == "precious"


def test_an_output_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "out", tmp_path / ("n" * 300), Path("/proc/nothing/out")):
        with pytest.raises(KernelError, match="Cannot create the output") as caught:
            outputs.claim(path)
        assert caught.value.exit_code == 73


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 74), (errno.ESTALE, 75), (errno.EPERM, 74)])
def test_what_the_system_says_becomes_a_class(number: int, code: int) -> None:
    error = outputs.io_error(OSError(number, "x"), "Cannot write")
    assert (error.exit_code, error.failure) == (code, "transient")
    hidden = outputs.io_error(OSError(f"file write failed: errno = {number}, error message"), "Cannot write")
    assert hidden.exit_code in (code, 74)


def test_an_output_that_has_no_room_is_not_begun(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(KernelError, match=r"out' needs .* GB, and .* are free there\. Free some space") as caught:
        outputs.claim(tmp_path / "out", needs=2 * free)
    assert caught.value.exit_code == 74
    assert left_behind(tmp_path) == []
    outputs.discard(outputs.claim(tmp_path / "out", needs=1))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_runs_full(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The sentence names the output and what it needs: 6 slices of 96 x 96 and their pyramid, 0.25 MB."""

    from kernels.io import direct

    def full(path: Path, chunk: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(direct, "write", full)
    out = tmp_path / "out"
    sentence = rf"the output '{out}/v.zarr', which needs 0\.25 MB: {os.strerror(number)}\. Free some space"
    with pytest.raises(KernelError, match=sentence) as caught:
        run("tomography.reconstruct", input=scan, output=out / "v.zarr", picture=out / "a.png", rotationAxis=50)
    assert caught.value.exit_code == 74
    assert left_behind(out) == []


def test_no_output_in_the_place_of_an_input_or_another(scan: Path, tmp_path: Path) -> None:
    before = scan.read_bytes()
    with pytest.raises(KernelError, match="are the same file"):
        run("tomography.axis", input=scan, output=scan)
    with pytest.raises(KernelError, match="are the same file"):
        run("tomography.reconstruct", input=scan, output=tmp_path / "a", picture=tmp_path / "a")
    assert scan.read_bytes() == before


def _started(scan: Path, output: Path) -> subprocess.Popen[str]:
    """A reconstruction that was seen to have begun to write."""
    words = ["--input", scan, "--output", output, "--rotationAxis", "50", "--memoryGB", "0.03"]
    process = subprocess.Popen([*PROGRAM, "tomography.reconstruct", *words], stdout=subprocess.PIPE, text=True)
    part = output.with_name(output.name + ".part")
    until = time.monotonic() + 60
    while not (part / "0" / "zarr.json").exists() and time.monotonic() < until:
        time.sleep(0.002)
    return process


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan whose reconstruction takes long enough to be interrupted."""
    path = tmp_path_factory.mktemp("larger") / "scan.h5"
    run("tomography.simulate", output=path, columns=256, rows=40, angles=360, noise=False)
    return path


def test_killed_while_writing(larger: Path, tmp_path: Path) -> None:
    output = tmp_path / "volume.zarr"
    process = _started(larger, output)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert left_behind(tmp_path) == ["volume.zarr.part"]
    run("tomography.reconstruct", input=larger, output=output, rotationAxis=50)
    assert left_behind(tmp_path) == ["volume.zarr", "volume.zarr.manifest.json"]


def test_sigterm_leaves_nothing(larger: Path, tmp_path: Path) -> None:
    output = tmp_path / "volume.zarr"
    process = _started(larger, output)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert left_behind(tmp_path) == []


def test_an_elder_survives_a_failure(larger: Path, scan: Path, tmp_path: Path) -> None:
    output = tmp_path / "volume.zarr"
    run("tomography.reconstruct", input=scan, output=output, rotationAxis=50)
    before = manifest.checksum(output)
    process = _started(larger, output)
    process.terminate()
    process.communicate(timeout=60)
    assert manifest.checksum(output) == before
    assert left_behind(tmp_path) == ["volume.zarr", "volume.zarr.manifest.json"]


def test_the_manifest_tells_the_truth(scan: Path, tmp_path: Path) -> None:
    output = tmp_path / "volume.zarr"
    result = run("tomography.reconstruct", input=scan, output=output, picture=tmp_path / "a.png")
    record = json.loads(Path(result.manifest).read_text())
    assert record["kernel"] == "tomography.reconstruct"
    assert record["arguments"]["filter"] == "ramp"
    volume, picture = record["outputs"]
    assert volume["shape"] == [6, 96, 96]
    assert volume["dtype"] == "float32"
    assert volume["finiteFraction"] == 1.0
    assert (volume["checksum"], volume["bytes"]) == manifest.checksum(output)
    assert picture["checksum"] == manifest.checksum(tmp_path / "a.png")[0]
    assert record["inputs"][0]["bytes"] == scan.stat().st_size
    assert record["metrics"] == result.metrics
    assert {"prepare", "reconstruct", "write", "pyramid", "check"} <= set(record["timings"])
    assert record["provenance"]["libraries"]["numba"]
    chunk = next(p for p in (output / "0").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert manifest.checksum(output)[0] != volume["checksum"]


def test_a_damaged_output_is_not_published(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is looked at again before it gets its name."""
    from kernels.io import omezarr

    finish = omezarr.VolumeWriter.finish

    def lose_a_chunk(writer: omezarr.VolumeWriter, *given: Any) -> None:
        finish(writer, *given)
        (tmp_path / "volume.zarr.part" / "0" / "c" / "0" / "0" / "0").unlink()

    monkeypatch.setattr(omezarr.VolumeWriter, "finish", lose_a_chunk)
    with pytest.raises(KernelError, match="lacks chunks of level 0") as caught:
        run("tomography.reconstruct", input=scan, output=tmp_path / "volume.zarr", rotationAxis=50)
    assert caught.value.exit_code == 3
    assert left_behind(tmp_path) == []


def test_values_that_are_not_finite_are_not_written(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels.tomography.direct.gridrec import Gridrec

    monkeypatch.setattr(Gridrec, "slices", lambda self, sinograms, out: out.fill(np.inf))
    with pytest.raises(KernelError, match="are not finite") as caught:
        run("tomography.reconstruct", input=scan, output=tmp_path / "volume.zarr", rotationAxis=50)
    assert caught.value.exit_code == 3
    assert caught.value.failure == "bad output"
    assert caught.value.metrics["rotation_axis"] == 50
    assert left_behind(tmp_path) == []


def test_zarr_group_is_whole(scan: Path, tmp_path: Path) -> None:
    run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", rotationAxis=50)
    group = zarr.open_group(tmp_path / "v.zarr", mode="r")
    assert [name for name, _ in sorted(group.arrays())] == ["0", "1"]


def test_lines(capsys: pytest.CaptureFixture[str], scan: Path) -> None:
    contract.run("tomography.inspect", {"input": scan})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("progress 0.10 inspect")
    assert "progress 1.00 done" in lines
    assert "metric columns 96" in lines
    assert contract.progress_line(0.5, "a", "b\nmetric x 1") == r"progress 0.50 a b\nmetric x 1"
