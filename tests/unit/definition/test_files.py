from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.definition import files
from orchestrator.errors import InputError
from orchestrator.model import FileSpec


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("b.h5", "a.h5", "c.txt", "-rf.h5", "with space.h5", "[x].dat"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.h5").touch()
    return tmp_path


def resolve(data: Path, values: dict[str, str] | None = None, **spec: object) -> list[str]:
    found = files.resolve(FileSpec(**spec), values or {}, str(data))  # type: ignore[arg-type]
    assert all(path.startswith("/") for path in found)
    return [os.path.relpath(path, data) for path in found]


def test_paths_lists_and_patterns_add_up(data: Path) -> None:
    assert resolve(data, path="./b.h5") == ["b.h5"]
    assert resolve(data, path="b.h5", paths=("a.h5", "b.h5"), pattern="*.txt") == ["b.h5", "a.h5", "c.txt"]
    assert resolve(data, pattern="*.h5") == ["-rf.h5", "a.h5", "b.h5", "with space.h5"]
    assert resolve(data, pattern="**/d.*") == ["sub/d.h5"]
    assert resolve(data, path="sub") == ["sub"]
    assert files.resolve(FileSpec(path="/dev/null"), {}, "/") == ("/dev/null",)


def test_names_are_bound_and_lists_in_variables_split(data: Path) -> None:
    assert resolve(data, {"x": "a"}, path="$x.h5") == ["a.h5"]
    assert resolve(data, {"x": "a.h5 b.h5"}, paths=("$x",)) == ["a.h5", "b.h5"]
    assert resolve(data, {"x": "with space.h5"}, paths=("$x",)) == ["with space.h5"]
    with pytest.raises(InputError, match=r"needs \$x, which is not set"):
        resolve(data, path="$x")


def test_magic_in_the_folder_is_not_magic(tmp_path: Path) -> None:
    folder = tmp_path / "[a]*"
    folder.mkdir()
    (folder / "x.h5").touch()
    assert files.resolve(FileSpec(pattern="*.h5"), {}, str(folder)) == (str(folder / "x.h5"),)


@pytest.mark.parametrize("name", [b"a\xff.h5", b"a\nb.h5", b"$(x).h5", b"'\".h5", "é.h5".encode()])
def test_hostile_names_come_through_byte_for_byte(tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    (found,) = files.resolve(FileSpec(pattern="*.h5"), {}, str(tmp_path))
    assert os.fsencode(found) == os.fsencode(tmp_path) + b"/" + name
    assert files.resolve(FileSpec(path="$filePath"), {"filePath": found}, "/") == (found,)


def test_a_pattern_gives_regular_files_only(data: Path) -> None:
    os.mkfifo(data / "pipe.h5")
    (data / "dir.h5").mkdir()
    (data / "gone.h5").symlink_to("nowhere")
    (data / "link.h5").symlink_to("a.h5")
    assert resolve(data, pattern="[dglp]*.h5") == ["link.h5"]
    with pytest.raises(InputError, match="neither a file nor a folder"):
        resolve(data, path="pipe.h5")


@pytest.mark.parametrize("path", ["none.h5", "a\0b", "x" * 5000])
def test_a_missing_file_is_one_sentence(data: Path, path: str) -> None:
    with pytest.raises(InputError, match="There is no input file"):
        resolve(data, path=path)


def test_a_pattern_that_finds_nothing_is_no_success(data: Path) -> None:
    with pytest.raises(InputError, match="No file matches"):
        resolve(data, pattern="*.nxs")


def test_a_catalog_query_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="not built yet"):
        resolve(data, query={"run": 1})
