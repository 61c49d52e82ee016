"""Kernels as programs: the same results, exit codes, sentences, and file names of every kind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scans import left_behind, run

from kernels import registry
from kernels.io.omezarr import open_level

ENDED = subprocess.CompletedProcess[bytes]


def program(*words: str | bytes | Path, cwd: Path | None = None) -> ENDED:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return subprocess.run([sys.executable, "-m", "kernels", *words], capture_output=True, cwd=cwd, env=environment)


def test_it_lists_and_explains_itself() -> None:
    listed = program("--help")
    assert listed.returncode == 0
    assert all(name.encode() in listed.stdout for name in registry.names())
    explained = program("tomography.reconstruct", "--help")
    assert explained.returncode == 0
    assert all(f"--{name}".encode() in explained.stdout for name in registry.get("tomography.reconstruct").arguments)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, b""),
        (["tomography.recon"], 2, b"error user error: There is no kernel 'tomography.recon'. Did you mean"),
        (["tomography.axis"], 2, b"error user error: tomography.axis: argument 'input' is missing"),
        (["tomography.axis", "--inptu", "x"], 2, b"Did you mean 'input'?"),
        (["tomography.axis", "--input", "/nowhere"], 66, b"error bad input: The input '/nowhere' cannot be read"),
    ],
)
def test_failures_are_one_line(words: list[str], code: int, sentence: bytes) -> None:
    ended = program(*words)
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) <= 1


def test_program_and_function_give_equal_results(scan: Path, tmp_path: Path) -> None:
    there, here = tmp_path / "there.zarr", tmp_path / "here.zarr"
    ended = program("tomography.reconstruct", "--input", scan, "--output", there, "--filter", "hann")
    assert ended.returncode == 0, ended.stderr
    result = run("tomography.reconstruct", input=scan, output=here, filter="hann")
    np.testing.assert_array_equal(open_level(str(there), "0")[...], open_level(str(here), "0")[...])
    lines = ended.stdout.decode().splitlines()
    for name, value in result.metrics.items():
        assert f"metric {name} {value:.7g}" in lines if isinstance(value, float) else f"metric {name} {value}" in lines
    assert f"product {there}" in lines
    progress = [float(line.split()[1]) for line in lines if line.startswith("progress ")]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


@pytest.mark.parametrize(
    "name",
    [
        b'it\'s "quoted".h5',
        b"new\nline.h5",
        b"$(touch pwned) `x` ; rm.h5",
        b"-leading.h5",
        b"--output.h5",
        b"\xff\xfe.h5",
        b"%s {0}.h5",
        "µ-Röhre.h5".encode(),
    ],
    ids=repr,
)
def test_hostile_names(scan: Path, tmp_path: Path, name: bytes) -> None:
    folder = os.fsencode(tmp_path) + b"/" + name.removesuffix(b".h5")
    os.mkdir(folder)
    shutil.copy(scan, folder + b"/" + name)
    outputs = [b"out-" + name + suffix for suffix in (b".zarr", b".png", b".nxs")]
    words = [b"--input", name]
    for flag, output in zip((b"--output", b"--picture", b"--nexus"), outputs, strict=True):
        words += [flag, output]
    ended = program("tomography.reconstruct", *words, "--rotationAxis", "50.8", cwd=Path(os.fsdecode(folder)))
    assert ended.returncode == 0, ended.stderr
    assert sorted(os.listdir(folder)) == sorted([name, *outputs, outputs[0] + b".manifest.json"])
    assert all(line.split(b" ")[0] in (b"progress", b"metric", b"product") for line in ended.stdout.splitlines())
    failed = program("tomography.axis", b"--input", b"missing-" + name, cwd=Path(os.fsdecode(folder)))
    assert failed.returncode == 66
    assert len(failed.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_ends_nothing(scan: Path, tmp_path: Path) -> None:
    words = f'"{sys.executable}" -m kernels tomography.reconstruct --input "{scan}" --output v.zarr | head -1'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    subprocess.run(["bash", "-c", words], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert left_behind(tmp_path) == ["v.zarr", "v.zarr.manifest.json"]


def test_a_missed_bar_is_a_bad_output(scan: Path, tmp_path: Path) -> None:
    run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr")
    truth = scan.with_name("scan_truth.h5")
    ended = program("tomography.compare", "--input", tmp_path / "v.zarr", "--truth", truth, "--maxError", "0.001")
    assert ended.returncode == 3
    assert b"error bad output: The relative RMSE is" in ended.stderr
    assert b"metric relative_rmse " in ended.stdout


@pytest.mark.parametrize("kernel", ["tomography.reconstruct", "tomography.simulate"])
def test_a_full_disk_is_transient_and_leaves_nothing(scan: Path, tmp_path: Path, kernel: str) -> None:
    """A limit of 40 kB for each file stands for the disk."""
    words = f"--input '{scan}' --rotationAxis 50" if kernel.endswith("reconstruct") else "--columns 96 --rows 8"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    command = f'ulimit -f 40; exec "{sys.executable}" -m kernels {kernel} {words} --output out'
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True)
    assert ended.returncode == 74, ended.stderr
    assert b"error transient: " in ended.stderr
    assert b"File too large" in ended.stderr
    assert left_behind(tmp_path) == []
