"""g2 while frames are still read: each of it is that of the frames so far, to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scans import left_behind, run
from series import Measured
from test_ranks import mpirun

from kernels import outputs
from kernels.errors import KernelError
from kernels.xpcs import partial
from kernels.xpcs.jobs import multitau as job
from kernels.xpcs.multitau import MultiTau
from kernels.xpcs.readers import hdf5

pytestmark = pytest.mark.timeout(300)  # the first run of these kernels compiles for half a minute


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of all partial results, in the order in which they got their name; frames come in small blocks."""
    monkeypatch.setattr(hdf5, "BLOCK_EVENTS", 40 * 64 * 20)
    copies: list[Path] = []
    real = outputs.publish

    def publish(staged: outputs.Staged) -> None:
        real(staged)
        if staged.final.name.startswith("so_far"):
            copies.append(Path(shutil.copy(staged.final, staged.final.with_name(f"copy{len(copies)}.h5"))))

    monkeypatch.setattr(outputs, "publish", publish)
    return copies


def test_every_partial_result_is_that_of_the_frames_so_far(
    measured: Measured, tmp_path: Path, published: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "_SHARE", np.inf)
    given = {"input": measured.frames, "qmap": measured.qmap}
    done = run("xpcs.multitau", output=tmp_path / "a.hdf", preview=tmp_path / "so_far.h5", previewEvery=0, **given)
    assert [product.path for product in done.products] == [str(tmp_path / "a.hdf"), str(tmp_path / "so_far.h5")]
    assert len(published) > 3
    for n, path in enumerate(published):
        with h5py.File(path) as file:
            frames = int(file["entry/frames"][()])
            found = [file[f"xpcs/multitau/{name}"][()] for name in ("delay_list", "normalized_g2", "normalized_g2_err")]
            np.testing.assert_array_equal(file["entry/g2/g2"][()], found[1].T)
            np.testing.assert_allclose(file["entry/g2/delay"][()], 0.01 * found[0])
        last = n == len(published) - 1
        assert last == (frames == 256)
        if n in (0, 2) or last:
            alone = tmp_path / f"alone{n}.hdf"
            run("xpcs.multitau", output=alone, lastFrame=frames - 1, **given)
            with h5py.File(alone) as file:
                for name, values in zip(("delay_list", "normalized_g2", "normalized_g2_err"), found, strict=True):
                    np.testing.assert_array_equal(values, file[f"xpcs/multitau/{name}"][()])
    fitted = run("xpcs.fit", input=published[-2], output=tmp_path / "fit.nxs", model="simple").metrics
    assert fitted["fitted"] == 4
    assert fitted["tau_exponent"] != "none"


def test_partial_results_take_a_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [100.0]
    monkeypatch.setattr(partial.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(partial, "write_partial", lambda part, *_: part.write_text("g2"))
    watcher = partial.Partial(str(tmp_path / "so_far.h5"), 10, None)  # type: ignore[arg-type]
    assert not watcher.due()
    now[0] += 10
    assert watcher.due()
    now[0] += 3  # until it is worked out
    watcher.show(None)  # type: ignore[arg-type]
    now[0] += 26.9
    assert not watcher.due()
    now[0] += 0.2
    assert watcher.due()


def test_a_partial_result_that_cannot_be_written_ends_nothing(
    measured: Measured, tmp_path: Path, published: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(part: Path, so_far: MultiTau, about: partial.About) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(partial, "write_partial", full)
    given = {"input": measured.frames, "qmap": measured.qmap}
    done = run("xpcs.multitau", output=tmp_path / "a.hdf", preview=tmp_path / "so_far.h5", previewEvery=0, **given)
    assert [str(caution) for caution in done.warnings if caution.code == "preview"] == [
        "preview: g2 could not be shown before the end: [Errno 28] No space left on device"
    ]
    assert (tmp_path / "a.hdf").exists()


def test_a_run_that_fails_leaves_what_it_had_published(
    measured: Measured, tmp_path: Path, published: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(self: partial.Partial, so_far: MultiTau) -> None:
        if len(published) == 2:
            raise KernelError("The disk is gone.")
        real(self, so_far)

    real = partial.Partial.show
    monkeypatch.setattr(job.Partial, "show", show)
    monkeypatch.setattr(partial, "_SHARE", np.inf)
    given = {"input": measured.frames, "qmap": measured.qmap, "preview": tmp_path / "so_far.h5", "previewEvery": 0}
    with pytest.raises(KernelError, match="The disk is gone"):
        run("xpcs.multitau", output=tmp_path / "a.hdf", **given)
    assert left_behind(tmp_path, but=("copy0.h5", "copy1.h5")) == ["so_far.h5"]
    assert (tmp_path / "so_far.h5").read_bytes() == published[-1].read_bytes()


def test_ranks_publish_one_partial_result(measured: Measured, tmp_path: Path) -> None:
    words = ["--input", str(measured.frames), "--qmap", str(measured.qmap), "--output", str(tmp_path / "a.hdf")]
    said = mpirun(2, "xpcs.multitau", *words, "--preview", str(tmp_path / "so_far.h5"), "--previewEvery", "0")
    assert said.returncode == 0, said.stderr
    with h5py.File(tmp_path / "a.hdf") as file, h5py.File(tmp_path / "so_far.h5") as small:
        assert small["entry/frames"][()] == 256
        np.testing.assert_array_equal(file["xpcs/multitau/normalized_g2"], small["xpcs/multitau/normalized_g2"])
