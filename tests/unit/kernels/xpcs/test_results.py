"""From frames to results: what the kernels write, where viewers look for it, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import left_behind, run
from series import Measured
from test_ranks import mpirun

from kernels.cautions import Code
from kernels.errors import KernelError
from kernels.io.picture import check_picture
from kernels.xpcs.qmap import read_qmap

VIEWER = Path(sys.prefix, "viewer")

pytestmark = pytest.mark.timeout(300)  # the first run of these kernels compiles for half a minute


@pytest.fixture(scope="module")
def results(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A multi-tau and a two-time result, with pictures beside them. Not to be changed."""
    folder = tmp_path_factory.mktemp("results")
    for kind in ("multitau", "twotime"):
        output, picture = folder / f"{kind}_results.hdf", folder / f"{kind}.png"
        run(f"xpcs.{kind}", input=measured.frames, qmap=measured.qmap, output=output, picture=picture)
        check_picture(picture)
    return folder / "multitau_results.hdf", folder / "twotime_results.hdf"


def _counts(measured: Measured) -> np.ndarray[Any, np.dtype[np.float64]]:
    with h5py.File(measured.frames) as file:
        return np.asarray(file["entry/data/data"][()], float)


def test_a_result_is_the_metadata_and_what_came_out(measured: Measured, results: tuple[Path, Path]) -> None:
    counts, bins = _counts(measured), read_qmap(str(measured.qmap)).partition
    with h5py.File(results[0]) as file:
        assert file["entry/sample/name"][()] == b"silica"
        np.testing.assert_allclose(file["xpcs/temporal_mean/scattering_2d"][0], counts.mean(0), rtol=1e-6)
        number, intensity = file["xpcs/spatial_mean/intensity_vs_time"][()]
        assert number.tolist() == list(range(256))
        np.testing.assert_allclose(intensity, counts[:, bins.static > 0].mean(1), rtol=1e-6)
        assert file["xpcs/temporal_mean/scattering_1d_segments"].shape == (10, bins.static_bins)
        g2, delays = file["xpcs/multitau/normalized_g2"][()], file["xpcs/multitau/delay_list"][()]
        np.testing.assert_array_equal(file["xpcs/qmap/dynamic_roi_map"][()], bins.dynamic)
    of_static = []
    for static in np.flatnonzero(bins.owner == 2) + 1:
        mine = counts[:, bins.static == static]
        of_static.append((mine[:-3] * mine[3:]).mean() / (mine[:-3].mean() * mine[3:].mean()))
    assert delays[2] == 3
    assert g2[2, 1] == pytest.approx(np.mean(of_static), rel=1e-12)


def test_the_upper_triangle_of_two_times(measured: Measured, results: tuple[Path, Path]) -> None:
    counts, bins = _counts(measured), read_qmap(str(measured.qmap)).partition
    normal = np.zeros_like(counts)
    for static in np.flatnonzero(bins.owner == 3) + 1:
        mine = bins.static == static
        mean = counts[:, mine].mean(1)[:, None]
        normal[:, mine] = counts[:, mine] / np.where(mean > 0, mean, 1)
    mine = normal[:, bins.dynamic == 3]
    expected = mine @ mine.T * mine.shape[1] / np.outer(mine.sum(1), mine.sum(1))
    with h5py.File(results[1]) as file:
        group = file["xpcs/twotime"]
        assert list(group["correlation_map"]) == [f"c2_{n:05d}" for n in range(1, 5)]
        np.testing.assert_allclose(group["correlation_map/c2_00003"][()], np.triu(expected), atol=1e-5)
        for delay in (0, 1, 100):
            mean = np.diagonal(expected, delay).mean()
            assert group["normalized_g2"][delay, 2] == pytest.approx(mean, rel=1e-5)
        assert group["normalized_g2_segments"].shape == (51, 5, 4)
        first = np.diagonal(expected[:51, :51], 2).mean()
        assert group["normalized_g2_segments"][2, 0, 2] == pytest.approx(first, rel=1e-5)
        assert group["processed_bins"][()].tolist() == [1, 2, 3, 4]


def test_long_series_are_correlated_by_delay_and_time(
    measured: Measured, results: tuple[Path, Path], tmp_path: Path
) -> None:
    output, picture = tmp_path / "c_results.hdf", tmp_path / "c.png"
    given = {"input": measured.frames, "qmap": measured.qmap, "scheme": "multitau", "bins": "2,4"}
    run("xpcs.twotime", output=output, picture=picture, **given)
    check_picture(picture)
    with h5py.File(output) as file, h5py.File(results[1]) as full:
        group, every = file["xpcs/twotime"], full["xpcs/twotime/correlation_map/c2_00002"][()]
        assert group["delay_list"][2] == 3
        np.testing.assert_allclose(group["by_delay/d00003"][0], np.diagonal(every, 3), rtol=1e-5)
        assert group["normalized_g2"][2, 0] == pytest.approx(np.diagonal(every, 3).mean(), rel=1e-5)
    assert run("xpcs.fit", input=output, output=tmp_path / "fit.nxs", model="simple").metrics["fitted"] == 2


@pytest.mark.parametrize("which", [0, 1])
def test_fits_find_the_relaxation_that_was_simulated(
    measured: Measured, results: tuple[Path, Path], tmp_path: Path, which: int
) -> None:
    output, picture = tmp_path / "fit.nxs", tmp_path / "g2.png"
    found = run("xpcs.fit", input=results[which], output=output, picture=picture, model="simple").metrics
    check_picture(picture)
    with h5py.File(measured.truth) as file:
        true = file["truth/tau_s"][()]
    with h5py.File(output) as file:
        tau, err = file["entry/g2/tau"][()], file["entry/g2/tau_errors"][()]
        assert file["entry/g2/not_fitted_because"][()].tolist() == [b""] * 4
        q = file["entry/tau/q"][()]
    assert found["fitted"] == found["bins"] == 4
    assert (np.abs(tau - true) < 4 * err + 0.1 * true).all()
    np.testing.assert_allclose(true * q**2, true[0] * q[0] ** 2, rtol=1e-6)
    exponent = float(found["tau_exponent"])
    assert abs(exponent + 2) < 5 * float(found["tau_exponent_error"]) + 0.1


def test_a_bin_that_cannot_be_fitted_says_why(results: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "fit.nxs"
    found = run("xpcs.fit", input=results[0], output=output, firstDelay=1.0, picture=tmp_path / "g2.png").metrics
    assert (found["fitted"], found["tau_exponent"]) == (0, "none")
    with h5py.File(output) as file:
        assert all(len(why) > 20 for why in file["entry/g2/not_fitted_because"][()])
        assert b"two are the least" in file["entry/power_law/not_fitted_because"][0]
    with pytest.raises(KernelError, match="No delay lies between 50 and inf s; there are"):
        run("xpcs.fit", input=results[0], output=output, firstDelay=50)


def test_the_viewer_opens_the_results(results: tuple[Path, Path]) -> None:
    if not (VIEWER / "pyxpcsviewer").is_dir():
        pytest.skip(f"pyXPCSViewer is not in {VIEWER}; `make test` installs it where the registry can be reached")
    code = """if True:
        import json, sys
        import numpy as np
        from pyxpcsviewer.core.xpcs_file import XpcsFile
        one, two = (XpcsFile(path) for path in sys.argv[1:])
        q, t, g2, err, labels = one.get_g2_data(qrange=(0, 1))
        c2 = two.get_twotime_c2(selection=1)
        one.fit_g2(bounds=[[1e-6, 1e-4, 0.5, 0.9], [2, 10, 2, 1.2]], fit_flag=[True] * 4)
        said = dict(
            kinds=[one.atype, two.atype], t=[t[0], t[-1]], g2=g2.shape, finite=bool(np.isfinite(g2).all()),
            labels=labels, q=list(one.saxs_1d["q"]), iq=one.saxs_1d["Iq"].shape, stability=one.Iqp.shape,
            image=one.saxs_2d.shape, frames=one.Int_t.shape, bins=two.get_twotime_qbin_labels(),
            c2=c2["c2_mat"].shape, symmetric=bool((c2["c2_mat"] == c2["c2_mat"].T).all()),
            full=c2["g2_full"].shape, slices=c2["g2_partial"].shape, step=c2["acquire_period"],
            tau=list(one.fit_summary["fit_val"][:, 0, 1]), info=sorted(one.get_hdf_info()),
        )
        print(json.dumps(said, default=float))
    """
    path = os.pathsep.join([str(VIEWER), *(p for p in sys.path if p.endswith("site-packages"))])
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, results)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["kinds"] == [["Multitau"], ["Twotime"]]
    assert said["g2"][1] == 4
    assert said["finite"]
    assert said["t"][0] == pytest.approx(0.01)
    assert [label.startswith(f"qbin={n + 1}, q=") for n, label in enumerate(said["labels"])] == [True] * 4
    assert (said["iq"], said["stability"], said["image"], said["frames"]) == ([1, 12], [10, 12], [40, 64], [2, 256])
    assert len(said["bins"]) == 4
    assert (said["c2"], said["symmetric"], said["full"], said["slices"]) == ([256, 256], True, [256], [5, 51])
    assert said["step"] == pytest.approx(0.01)
    assert said["tau"][1] == pytest.approx(0.08, rel=0.5) or said["tau"][2] == pytest.approx(0.08, rel=0.5)
    assert "/entry/instrument" in said["info"]


def test_frames_may_be_chosen_and_what_is_left_out_is_said(measured: Measured, tmp_path: Path) -> None:
    output = tmp_path / "b_results.hdf"
    chosen = {"firstFrame": 10, "lastFrame": 203, "stride": 2, "average": 3, "lagsPerLevel": 3, "badPixels": True}
    found = run("xpcs.multitau", input=measured.frames, qmap=measured.qmap, output=output, **chosen).metrics
    assert found["frames"] == 32
    counts = _counts(measured)[10:202:2]
    with h5py.File(output) as file:
        config = file["xpcs/multitau/config"]
        assert (config["stride_frame"][()], config["avg_frame"][()]) == (2, 3)
        np.testing.assert_allclose(file["xpcs/temporal_mean/scattering_2d"][0], counts.mean(0), rtol=1e-6)
        assert file["xpcs/process/left_out"][()].tolist() == [b"frames at the end: 2"]
        assert file["xpcs/process/parameters/stride"][()] == 2


def test_bad_frames_are_told_in_the_result(measured: Measured, tmp_path: Path) -> None:
    shutil.copy(measured.metadata, tmp_path)
    shutil.copy(measured.frames, tmp_path)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["entry/data/data"][40:42] = 0
    output = tmp_path / "a_results.hdf"
    done = run("xpcs.multitau", input=tmp_path / "a.h5", qmap=measured.qmap, output=output)
    assert done.metrics["bad_frames"] == 2
    assert [caution.code for caution in done.warnings] == [Code.STRANGE_FRAMES]
    with h5py.File(output) as file:
        assert b"without any counts (lost, or the beam was off): 2 (40, 41)" in file["xpcs/process/warnings"][0]


def test_without_metadata_the_time_of_a_frame_is_enough(measured: Measured, tmp_path: Path) -> None:
    shutil.copy(measured.frames, tmp_path)
    given = {"input": tmp_path / "a.h5", "qmap": measured.qmap, "output": tmp_path / "a_results.hdf"}
    with pytest.raises(KernelError, match="Give metadata, or at least frameTime") as caught:
        run("xpcs.multitau", **given)
    assert caught.value.exit_code == 66
    done = run("xpcs.multitau", **given, frameTime=0.02)
    assert [caution.code for caution in done.warnings] == [Code.METADATA]
    with h5py.File(tmp_path / "a_results.hdf") as file:
        assert file["entry/instrument/detector_1/frame_time"][()] == 0.02
        assert file["entry/instrument/incident_beam/incident_energy"][()] == pytest.approx(10.9)
        assert b"no metadata" in file["xpcs/process/warnings"][0]
    found = run("xpcs.inspect", input=measured.frames, qmap=measured.qmap, frameTime=0.02).metrics
    assert found["frame_time"] == 0.02


def test_results_that_the_metadata_hold_or_link_to_are_replaced(measured: Measured, tmp_path: Path) -> None:
    metadata, other = tmp_path / "m_metadata.hdf", tmp_path / "other.h5"
    shutil.copy(measured.metadata, metadata)
    with h5py.File(metadata, "r+") as file:
        file["xpcs"] = h5py.ExternalLink("other.h5", "/")
        file["entry/loop"] = h5py.SoftLink("/entry")
    given = {"input": measured.frames, "qmap": measured.qmap, "metadata": metadata}
    for there in (False, True):  # what the link leads to
        if there:
            h5py.File(other, "w").close()
        run("xpcs.multitau", output=tmp_path / "a_results.hdf", **given)
        with h5py.File(tmp_path / "a_results.hdf") as file:
            assert isinstance(file.get("xpcs", getlink=True), h5py.HardLink)
            assert "multitau" in file["xpcs"]
    with h5py.File(other) as file:
        assert list(file) == []


@pytest.mark.parametrize(
    ("kernel", "wrong", "sentence", "code"),
    [
        ("multitau", {"lastFrame": 2}, "3 frames are too few for 4 delays a level", 2),
        ("inspect", {"lastFrame": 3}, "4 frames are too few", 2),
        ("twotime", {"lastFrame": 8}, "9 frames are too few for 5 slices", 2),
        ("twotime", {"bins": "1,x"}, "bins is '1,x'; say numbers", 2),
        ("twotime", {"bins": "9"}, "9", 2),
        ("multitau", {"firstFrame": 400}, "256 frames", 2),
        ("multitau", {"qmap": "metadata"}, "is not usable", 65),
        ("multitau", {"metadata": "qmap"}, "schema_version is missing", 65),
        ("fit", {"input": "qmap"}, "holds no g2", 65),
        ("fit", {"input": "nothing"}, "cannot be read", 66),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    measured: Measured, tmp_path: Path, kernel: str, wrong: dict[str, Any], sentence: str, code: int
) -> None:
    files = {**measured._asdict(), "nothing": tmp_path / "nothing.h5"}
    wrong = {name: files.get(str(value), value) for name, value in wrong.items()}
    given = {} if kernel == "fit" else {"input": measured.frames, "qmap": measured.qmap}
    if kernel != "inspect":
        given["output"] = tmp_path / "out.hdf"
    with pytest.raises(KernelError) as caught:
        run(f"xpcs.{kernel}", **given | wrong)
    assert sentence in str(caught.value)
    assert caught.value.exit_code == code
    assert left_behind(tmp_path) == []


def test_boost_corr_finds_the_same(measured: Measured, results: tuple[Path, Path], tmp_path: Path) -> None:
    given = {"input": measured.frames, "qmap": measured.qmap, "output": tmp_path / "a_results.hdf"}
    if importlib.util.find_spec("boost_corr") is None:
        with pytest.raises(KernelError, match="boost-corr is not installed here"):
            run("xpcs.multitau", backend="boost-corr", **given)
        pytest.skip("boost-corr is not installed")
    run("xpcs.multitau", backend="boost-corr", **given)
    with h5py.File(tmp_path / "a_results.hdf") as file, h5py.File(results[0]) as ours:
        for name, near in (
            ("delay_list", 0),
            ("normalized_g2", 1e-5),
            ("normalized_g2_err", 1e-6),
            ("static_g2", 1e-5),
        ):
            there, here = (each[f"xpcs/multitau/{name}"][()] for each in (file, ours))
            np.testing.assert_allclose(there, here, atol=near)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_change_no_bit_of_g2(measured: Measured, results: tuple[Path, Path], tmp_path: Path, size: int) -> None:
    output = tmp_path / "a_results.hdf"
    words = ["--input", str(measured.frames), "--qmap", str(measured.qmap), "--output", str(output)]
    said = mpirun(size, "xpcs.multitau", *words)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("product ") == 1  # one speaks for all
    same(output, results[0])


@pytest.mark.parametrize("size", [2, 4, 7])
def test_ranks_change_no_bit_of_two_times(
    measured: Measured, results: tuple[Path, Path], tmp_path: Path, size: int
) -> None:
    output, picture = tmp_path / "b_results.hdf", tmp_path / "b.png"
    words = ["--input", str(measured.frames), "--qmap", str(measured.qmap), "--output", str(output)]
    said = mpirun(size, "xpcs.twotime", *words, "--picture", str(picture))
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("product ") == 2
    same(output, results[1])
    assert picture.read_bytes() == results[1].with_name("twotime.png").read_bytes()


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_change_no_bit_of_two_times_by_delay(measured: Measured, tmp_path: Path, size: int) -> None:
    given = {"input": measured.frames, "qmap": measured.qmap, "scheme": "multitau", "bins": "1,3-4", "badPixels": True}
    run("xpcs.twotime", output=tmp_path / "alone_results.hdf", **given)
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    said = mpirun(size, "xpcs.twotime", *words, "--output", str(tmp_path / "a_results.hdf"))
    assert said.returncode == 0, said.stderr
    same(tmp_path / "a_results.hdf", tmp_path / "alone_results.hdf")


def same(one: Path, other: Path) -> None:
    """Both results hold the same to the last bit, besides how they came about."""
    with h5py.File(one) as file, h5py.File(other) as expected:
        names: list[str] = []
        expected.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        assert len(names) > 20
        for name in names:
            if not name.startswith("xpcs/process/") or name.endswith("left_out"):
                np.testing.assert_array_equal(file[name][()], expected[name][()], err_msg=name)


def test_when_a_rank_cannot_read_its_frames_one_says_so(measured: Measured, tmp_path: Path) -> None:
    shutil.copy(measured.metadata, tmp_path)
    shutil.copy(measured.frames, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        where = file["entry/data/data"].id.get_chunk_info(200).byte_offset
    with open(tmp_path / "a.h5", "r+b") as raw:
        raw.seek(where)
        raw.write(bytes([255] * 40))
    for kernel in ("multitau", "twotime"):
        words = ["--input", str(tmp_path / "a.h5"), "--qmap", str(measured.qmap), "--output", str(tmp_path / "r.hdf")]
        said = mpirun(2, f"xpcs.{kernel}", *words)
        assert said.returncode == 65
        assert said.stderr.count("error bad input: ") == 1
        assert "frame 200 of /entry/data/data is damaged" in said.stderr
        assert left_behind(tmp_path, but=("a.h5", measured.metadata.name)) == []


def test_a_qmap_of_another_detector_is_refused(measured: Measured, tmp_path: Path) -> None:
    run("xpcs.qmap", output=tmp_path / "q.h5", rows=64, columns=40, metadata=measured.metadata, staticQ=4, dynamicQ=2)
    with pytest.raises(KernelError, match="turned by 90 degrees") as caught:
        run("xpcs.inspect", input=measured.frames, qmap=tmp_path / "q.h5")
    assert caught.value.exit_code == 65


def test_a_result_of_another_program_is_fitted_too(results: tuple[Path, Path], tmp_path: Path) -> None:
    """boost-corr writes lists as rows of a matrix, and no names of axes where the qmap has none."""
    path = tmp_path / "b_results.hdf"
    shutil.copy(results[0], path)
    with h5py.File(path, "r+") as file:
        delays = file["xpcs/multitau/delay_list"][()]
        del file["xpcs/multitau/delay_list"], file["xpcs/qmap/map_names"]
        file["xpcs/multitau/delay_list"] = delays[None]
    found = run("xpcs.fit", input=path, output=tmp_path / "fit.nxs").metrics
    assert found["fitted"] == 4
    assert found["tau_exponent"] == "none"
    with h5py.File(tmp_path / "fit.nxs") as file:
        assert file["entry/tau/bin"][()].tolist() == [1, 2, 3, 4]
