"""A stand-in for midas-suite: programs of the same names that look closely at what they are given, and answer with the
grains that a test has put down."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_CHECKS = """
import sys
from pathlib import Path


def parameters():
    found = {}
    for line in Path("paramstest.txt").read_text().splitlines():
        name, *values = line.split()
        found.setdefault(name, []).append([float(v) if v.replace(".", "").replace("-", "").replace("e", "").isdigit()
                                           else v for v in values])
    return found


def table(name, columns):
    first, *lines = Path(name).read_text().splitlines()
    rows = [[float(value) for value in line.split()] for line in lines]
    assert len(first.split()) == columns and all(len(row) == columns for row in rows), name
    return rows


def checked():
    told = parameters()
    for name in ("LatticeConstant", "LatticeParameter"):
        assert len(told[name][0]) == 6
    here = Path.cwd()
    assert told["OutputFolder"] == [[str(here / "Output")]] and told["ResultFolder"] == [[str(here / "Results")]]
    assert (here / "Output").is_dir() and (here / "Results").is_dir()
    assert told["Lsd"] == told["Distance"] == told["LsdFit"]
    assert told["BC"][0] == [told["YBCFit"][0][0], told["ZBCFit"][0][0]]
    assert len(told["OmegaRange"]) == len(told["BoxSize"])
    assert all(-180 <= low < high <= 180 for low, high in told["OmegaRange"])
    radii = {int(ring): radius for (ring,), (radius,) in zip(told["RingNumbers"], told["RingRadii"], strict=True)}
    for row in table("hkls.csv", 11):
        g = sum(value**2 for value in row[5:8]) ** 0.5
        assert abs(g * row[3] - 1) < 1e-6 and abs(row[10] - radii[int(row[4])]) < 0.01
        assert abs(row[9] - 2 * row[8]) < 1e-6
    spots, every = table("InputAll.csv", 9), table("InputAllExtraInfoFittingAll.csv", 21)
    assert len(spots) == len(every)
    assert [row[4] for row in spots] == list(range(1, len(spots) + 1))
    assert spots == sorted(spots, key=lambda row: (row[5], row[2]))
    margin = told["MarginRadial"][0][0]
    for row, more in zip(spots, every, strict=True):
        assert row[:8] == more[:8] and row[:2] == more[9:11]
        assert abs((row[0] ** 2 + row[1] ** 2) ** 0.5 - radii[int(row[5])]) < margin + 1000
        assert told["MinEta"][0][0] < abs(row[6]) < 180 - told["MinEta"][0][0]
    for ring, first, beyond, spacing in (line.split() for line in Path("IDsHash.csv").read_text().splitlines()):
        mine = [row[4] for row in spots if row[5] == int(ring)]
        assert not mine or (int(first), int(beyond)) == (mine[0], mine[-1] + 1)
    seeds = [int(line) for line in Path("SpotsToIndex.csv").read_text().split()]
    assert all(spots[seed - 1][5] == told["RingToIndex"][0][0] for seed in seeds)
    return seeds


def checked_call(arguments):
    seeds = checked()
    assert arguments[:4] == ["paramstest.txt", "0", "1", str(len(seeds))] and int(arguments[4]) > 0, arguments
"""

_INDEXER = """
assert Path("nData.bin").exists()
checked_call(sys.argv[1:])
Path("Output/IndexBest_all.bin").write_bytes(b"1")
"""

_FIT = """
assert Path("Output/IndexBest_all.bin").exists()
checked_call(sys.argv[1:])
Path("Results/OrientPosFit.bin").write_bytes(bytes(7) + b"?")
"""

_BINS = """
def bin_data_main():
    assert sys.argv[1:] == ["--result-folder", "."]
    checked()
    Path("nData.bin").write_bytes(b"1")
    return 0
"""

_GRAINS = """
import os, shutil
assert sys.argv[1] == "paramstest.txt" and sys.argv[3:8] == [
    "--out-dir", ".", "--no-h5", "--no-diagnostics-h5", "--min-nr-spots"], sys.argv
shutil.copy(os.environ["STAND_IN_GRAINS"], "Grains.csv")
"""


def stand_in(folder: Path, grains: Path, monkeypatch: pytest.MonkeyPatch, *, indexer: str = _INDEXER) -> None:
    """Put the packages into `folder`, in front of all others, for this process and those that it starts."""
    for package in ("midas_pipeline", "midas_index", "midas_fit_grain", "midas_transforms", "midas_process_grains"):
        (folder / package / "bin").mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    (folder / "midas_checks.py").write_text(_CHECKS)
    begin = "import sys\nfrom pathlib import Path\nfrom midas_checks import checked, checked_call\n"
    _program(folder / "midas_index/bin/midas_indexer", begin + indexer)
    _program(folder / "midas_fit_grain/bin/midas_fitgrain", begin + _FIT)
    (folder / "midas_transforms/cli.py").write_text(begin + _BINS)
    (folder / "midas_process_grains/__main__.py").write_text(begin + _GRAINS)
    monkeypatch.setenv("STAND_IN_GRAINS", str(grains))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(folder)


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
