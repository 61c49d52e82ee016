"""Bad scans through every kernel that reads one: a sentence and an exit code with nothing left behind, or a product
that carries a warning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from kernels import contract
from kernels.errors import KernelError

ANGLES, ROWS, COLUMNS = 60, 6, 48
KERNELS = ("inspect", "axis", "correct", "preview", "reconstruct", "backproject")
OUTPUTS: dict[str, dict[str, Any]] = {
    "inspect": {},
    "axis": {"output": "axis.nxs"},
    "correct": {"output": "clean.h5"},
    "preview": {"picture": "look.png", "nexus": "look.nxs", "rotationAxis": 24.8},
    "reconstruct": {"output": "v.zarr", "picture": "a.png", "nexus": "a.nxs", "rotationAxis": 24.8},
    "backproject": {"output": "v.zarr", "picture": "a.png", "nexus": "a.nxs", "rotationAxis": 24.8},
}
Change = Callable[[h5py.Group], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan of float32 counts."""
    path = tmp_path_factory.mktemp("good") / "scan.h5"
    how = {"columns": COLUMNS, "rows": ROWS, "angles": ANGLES, "flats": 6, "deadPixels": 0, "noise": False}
    contract.run("tomography.simulate", {"output": path, "axisOffset": 1.3, **how}, say=None)
    with h5py.File(path, "r+") as file:
        for name in ("data", "data_white", "data_dark"):
            put(file["exchange"], name, file["exchange"][name][...].astype(np.float32))
    return path


def put(group: h5py.Group, name: str, values: Any, **how: Any) -> None:
    """Another data set in the place of one."""
    del group[name]
    group.create_dataset(name, data=values, **how)


def edit(name: str, which: Any, value: Any) -> Change:
    def change(group: h5py.Group) -> None:
        group[name][which] = value

    return change


def scaled(by: float) -> Change:
    return lambda group: group["theta"].write_direct(group["theta"][...] * by)


def cast(dtype: Any) -> Change:
    return lambda group: put(group, "data", group["data"][...].astype(dtype))


def swap_flats_and_darks(group: h5py.Group) -> None:
    group.move("data_white", "x")
    group.move("data_dark", "data_white")
    group.move("x", "data_dark")


def link_to_nowhere(group: h5py.Group) -> None:
    del group["data"]
    group["data"] = h5py.ExternalLink("gone.h5", "/x")


def swap_two_angles(group: h5py.Group) -> None:
    group["theta"].write_direct(group["theta"][...][[1, 0, *range(2, ANGLES)]])


def repeat_an_angle(group: h5py.Group) -> None:
    group["theta"][9] = group["theta"][8]


def unknown_filter(group: h5py.Group) -> None:
    """Chunks that say they were packed by a filter that nobody has."""
    del group["data"]
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((1, ROWS, COLUMNS))
    how.set_filter(32700, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((ANGLES, ROWS, COLUMNS))
    made = h5py.h5d.create(group.id, b"data", h5py.h5t.IEEE_F32LE, space, how)
    for k in range(ANGLES):
        made.write_direct_chunk((k, 0, 0), bytes(4 * ROWS * COLUMNS))


def damaged_chunk(group: h5py.Group) -> None:
    put(group, "data", group["data"][...], chunks=(ANGLES, ROWS, COLUMNS), compression="gzip")
    place = group["data"].id.get_chunk_info(0)
    group.file.flush()
    with open(group.file.filename, "r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(b"\xa5" * 64)


REFUSED: dict[str, tuple[Change, str]] = {
    "no flats": (lambda g: g.pop("data_white"), "data_white is missing.*Measure them"),
    "flats of zero": (edit("data_white", ..., 0), "brighter than the dark fields in only .* shutter"),
    "dark above flat": (swap_flats_and_darks, "in only 0 %"),
    "flats of NaN": (edit("data_white", ..., np.nan), "in only 0 %"),
    "frames of NaN": (edit("data", ..., np.nan), "not finite"),
    "half of the frames NaN": (edit("data", np.s_[5 : ANGLES - 5], np.nan), "not finite"),
    "no theta": (lambda g: g.pop("theta"), "theta is missing.*give `angles`"),
    "radians": (scaled(np.pi / 180), "spans only 3.*as radians would.*give `angles`"),
    "thousandths": (scaled(1000), "as thousandths of a degree would.*give `angles`"),
    "one angle": (edit("theta", ..., 37.5), "is 37.5 for all 60 projections.*give `angles`"),
    "NaN in theta": (edit("theta", 3, np.nan), "1 angles that are not finite.*give `angles`"),
    "fewer angles": (lambda g: put(g, "theta", np.arange(50.0)), "50 angles for 60 projections.*give `angles`"),
    "more angles": (lambda g: put(g, "theta", np.arange(61.0)), "61 angles for 60 projections.*give `angles`"),
    "complex": (cast(np.complex64), "holds complex64, not numbers.*Convert"),
    "text": (lambda g: put(g, "data", np.full((ANGLES, ROWS, COLUMNS), b"a")), r"holds \|S1, not numbers"),
    "colours": (lambda g: put(g, "data", np.zeros((ANGLES, ROWS, COLUMNS, 3), "u1")), "4 dimensions.*grey value"),
    "one image": (lambda g: put(g, "data", np.zeros((ROWS, COLUMNS))), "2 dimensions.*not 3"),
    "no projections": (lambda g: put(g, "data", np.zeros((0, ROWS, COLUMNS))), "0 projections, at least 2"),
    "no columns": (lambda g: put(g, "data", np.zeros((ANGLES, ROWS, 0))), "is empty"),
    "no space": (lambda g: put(g, "data", h5py.Empty("f4")), "0 dimensions"),
    "three columns": (lambda g: put(g, "data", np.ones((ANGLES, ROWS, 3))), "3 columns wide, at least 8"),
    "a filter that nobody has": (unknown_filter, "compressed by filter 32700.*h5repack"),
    "a damaged chunk": (damaged_chunk, "data cannot be read.*copy it again"),
    "a link to nowhere": (link_to_nowhere, "link to another file.*Copy all"),
}
WARNED: dict[str, tuple[Change, str, str]] = {
    "few flats": (lambda g: put(g, "data_white", g["data_white"][:2]), "flats", "2 flat fields"),
    "some dark above flat": (edit("data_dark", np.s_[:, :, 7], 60000), "dark_above_flat", "brighter in the dark"),
    "many bad pixels": (edit("data_white", np.s_[:, :, 8:12], 0), "bad_pixels", "8.3 % of the pixels"),
    "NaN in a flat": (edit("data_white", 2, np.nan), "not_finite", "were mended"),
    "steps back": (swap_two_angles, "angles", "1 of 59 steps go back"),
    "repeated angles": (repeat_an_angle, "angles", "1 of 60 angles are that of the projection before"),
    "many turns": (scaled(7), "angles", "round 3.4 times"),
    "a wedge": (scaled(0.9), "angles", "none lies between 159.3 and 180"),
}


@pytest.fixture
def through(tmp_path: Path) -> Callable[..., contract.KernelResult]:
    """Run a kernel with all its outputs; after a failure, nothing of them may be there."""
    folder = tmp_path / "out"
    folder.mkdir()

    def call(kernel: str, scan: Path, **more: Any) -> contract.KernelResult:
        given = {name: folder / value if isinstance(value, str) else value for name, value in OUTPUTS[kernel].items()}
        try:
            return contract.run(f"tomography.{kernel}", {"input": scan, **given, **more}, say=None)
        except KernelError:
            assert list(folder.iterdir()) == []
            raise

    return call


def changed(good: Path, folder: Path, how: Change) -> Path:
    path = folder / "scan.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        how(file["exchange"])
    return path


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused(good: Path, tmp_path: Path, through: Any, kernel: str, fault: str) -> None:
    how, sentence = REFUSED[fault]
    scan = changed(good, tmp_path, how)
    with pytest.raises(KernelError, match=sentence) as caught:
        through(kernel, scan)
    assert (caught.value.exit_code, caught.value.failure) == (65, "bad input")
    assert str(scan) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("fault", WARNED)
def test_what_is_used_with_a_warning(good: Path, tmp_path: Path, through: Any, kernel: str, fault: str) -> None:
    how, code, sentence = WARNED[fault]
    made = through(kernel, changed(good, tmp_path, how))
    said = [caution.sentence for caution in made.warnings if caution.code == code]
    assert len(said) == 1
    assert sentence in said[0]
    if made.manifest:
        written = json.loads(Path(made.manifest).read_text())["warnings"]
        assert {"code": code, "sentence": said[0]} in written


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_good_scan_has_no_warning(good: Path, through: Any, kernel: str) -> None:
    assert through(kernel, good).warnings == ()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_lost_frame(good: Path, tmp_path: Path, through: Any, kernel: str) -> None:
    """It is left out, or what lies between its neighbours in angle is put there."""
    made = through(kernel, changed(good, tmp_path, edit("data", ANGLES // 2, np.nan)))
    assert made.warnings[0].code == ("frames" if kernel in ("correct", "preview") else "not_finite")


@pytest.mark.parametrize("kernel", KERNELS)
def test_single_counts_that_are_not_finite(good: Path, tmp_path: Path, through: Any, kernel: str) -> None:
    scan = changed(good, tmp_path, edit("data", np.s_[::15, 2:5, 20], np.inf))
    assert [caution.code for caution in through(kernel, scan).warnings] == ["not_finite"]


@pytest.mark.parametrize("how", [{"zingers": 8}, {"flatFields": "drifting"}, {"beam": "steps"}])
def test_corrections_do_without_counts_that_are_not_finite(
    good: Path, tmp_path: Path, through: Any, how: dict[str, Any]
) -> None:
    scan = changed(good, tmp_path, edit("data", np.s_[::15, 2:5, 20], np.nan))
    made = []
    for path in (good, scan):
        with h5py.File(through("correct", path, **how).products[0].path) as file:
            made.append(file["exchange/data"][...])
    struck = np.zeros(made[0].shape, bool)
    struck[::15, 2:5, 20] = True
    assert np.abs(made[1] - made[0])[~struck].max() < 0.01
    assert np.abs(made[1] - made[0])[struck].max() < 0.1


def test_a_lost_frame_is_not_seen_in_the_slices(good: Path, tmp_path: Path, through: Any) -> None:
    scan = changed(good, tmp_path, edit("data", 20, np.nan))
    errors = []
    for path, clean in ((good, False), (scan, False), (scan, True)):
        if clean:
            path = Path(through("correct", path).products[0].path)
        volume = through("reconstruct", path).products[0].path
        compared = contract.run(
            "tomography.compare", {"input": volume, "truth": good.with_name("scan_truth.h5")}, say=None
        )
        errors.append(compared.metrics["relative_rmse"])
    assert max(errors) < 1.03 * errors[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_single_row(good: Path, tmp_path: Path, through: Any, kernel: str) -> None:
    def cut(group: h5py.Group) -> None:
        for name in ("data", "data_white", "data_dark"):
            put(group, name, group[name][:, 2:3])

    made = through(kernel, changed(good, tmp_path, cut))
    assert made.warnings == ()
    if kernel == "reconstruct":
        assert made.metrics["slices"] == 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("how", ["whole", "chunks", "latest"])
@pytest.mark.parametrize("keep", [600, 0.3, 0.7, 0.99])
def test_a_truncated_file(good: Path, tmp_path: Path, through: Any, kernel: str, how: str, keep: float) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(good) as source, h5py.File(path, "w", libver="latest" if how == "latest" else None) as file:
        packed = {} if how == "whole" else {"chunks": (1, ROWS, COLUMNS), "compression": "gzip"}
        for name, values in source["exchange"].items():
            if values.ndim:
                file.create_dataset(f"exchange/{name}", data=values[...], **(packed if name == "data" else {}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    with pytest.raises(KernelError, match=r"is truncated.*copy it again") as caught:
        through(kernel, path)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_no_scan_file(tmp_path: Path, through: Any, kernel: str) -> None:
    (tmp_path / "text.h5").write_text("Filename,Size\n" * 99)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "link.h5").symlink_to(tmp_path / "gone.h5")
    for name, code, sentence in (
        ("text.h5", 65, "is not an HDF5 file. A scan is a DXchange file"),
        ("folder.h5", 66, "is a directory. Give the HDF5 file"),
        ("link.h5", 66, "No such file"),
        ("none.h5", 66, "No such file"),
    ):
        with pytest.raises(KernelError, match=sentence) as caught:
            through(kernel, tmp_path / name)
        assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("kernel", "wrong", "sentence"),
    [
        *((k, {"rotationAxis": axis}, "off the detector of 48") for k in KERNELS[3:] for axis in (-1, 48)),
        *((k, {"angles": "0:3.14"}, "as radians would.*give them in degrees") for k in KERNELS),
    ],
)
def test_wrong_requests(good: Path, through: Any, kernel: str, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        through(kernel, good, **wrong)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kernel", ["correct", "preview", "reconstruct"])
def test_memory_for_less_than_one_piece(tmp_path: Path, through: Any, kernel: str) -> None:
    """A frame, or a slice, of 700 x 700 needs more than 10 MB."""
    scan = tmp_path / "scan.h5"
    with h5py.File(scan, "w") as file:
        for name, frames, value in (("data", 4, 900), ("data_white", 4, 1000), ("data_dark", 1, 100)):
            file.create_dataset(f"exchange/{name}", data=np.full((frames, 700, 700), value, np.uint16))
        file["exchange/theta"] = np.arange(0.0, 180, 45)
    with pytest.raises(KernelError, match=r"needs? 0\.\d+ GB.*memoryGB is 0.01.*Raise memoryGB") as caught:
        through(kernel, scan, memoryGB=0.01)
    assert caught.value.exit_code == 2


def test_warnings_go_with_the_data(good: Path, tmp_path: Path, through: Any) -> None:
    """From the correction to the volume made of what it wrote, its NeXus file and its attributes."""
    scan = changed(good, tmp_path, edit("data", 20, np.nan))
    corrected = through("correct", scan)
    made = through("reconstruct", Path(corrected.products[0].path))
    (caution,) = corrected.warnings
    assert made.warnings == (caution,)
    assert zarr.open_group(made.products[0].path, mode="r").attrs["warnings"] == [caution._asdict()]
    with h5py.File(made.products[2].path) as file:
        assert list(file["entry/process/warnings"].asstr()) == [str(caution)]


def test_warnings_are_lines(good: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    scan = changed(good, tmp_path, WARNED["few flats"][0])
    (caution,) = contract.run("tomography.inspect", {"input": scan}, say=lines.append).warnings
    assert lines[-1] == f"warning flats {caution.sentence}"


def test_what_is_too_opaque(good: Path, through: Any) -> None:
    codes = [caution.code for caution in through("reconstruct", good, transmissionFloor=0.5).warnings]
    assert codes == ["floored"]


@pytest.mark.parametrize(("iterations", "codes"), [(2, ["iterations"]), (200, [])])
def test_iterations_that_do_not_settle(good: Path, through: Any, iterations: int, codes: list[str]) -> None:
    made = through("reconstruct", good, algorithm="cgls", iterations=iterations)
    assert [caution.code for caution in made.warnings] == codes
    if codes:
        assert f"{ROWS} of {ROWS} slices" in made.warnings[0].sentence
