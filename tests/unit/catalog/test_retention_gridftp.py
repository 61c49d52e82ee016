"""Copies on a real GridFTP server: told by it or read over the wire, removed, archived to, restored from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.catalog import content
from orchestrator.catalog.book import Done
from orchestrator.store import schema
from orchestrator.store.catalog import CatalogFile
from tests.gridftp import Certificates, Gridftp, missing
from tests.unit.catalog.keep import DAY, NOW, Beamline, E, sum_of
from tests.unit.catalog.test_pruning import tree
from tests.unit.catalog.test_pruning_killed import killed, points

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def server() -> Iterator[Gridftp]:
    with Gridftp() as made:
        yield made


@pytest.fixture
def far(alone: Beamline, server: Gridftp) -> Beamline:
    """Its tape is the server."""
    alone.places = f'[place.tape]\naddress = "{server.url()}"\n'
    return alone


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read over the wire."""
    seen: list[str] = []
    fetch = content._fetched
    monkeypatch.setattr(content, "_fetched", lambda url: (seen.append(url), fetch(url))[1])
    return seen


def copied(far: Beamline, server: Gridftp, kind: str = "xxh3", name: str = "a.h5") -> CatalogFile:
    file = far.file(name, kind=kind)
    (server.root / name).write_bytes(b"frames")
    far.copy(file, "tape", server.url(name))
    return file


def archive(far: Beamline, *what: CatalogFile) -> list[Done]:
    return [done for file in what for done in far.keeping().archive(str(file.id), to="tape")]


@pytest.mark.parametrize("kind", ["md5", "sha256", "xxh3"])
def test_pruned_with_what_the_server_told(far: Beamline, server: Gridftp, fetched: list[str], kind: str) -> None:
    file = copied(far, server, kind)
    [done] = far.apply()
    assert done.verdict == "pruned", done
    assert far.raw() == []
    there = next(look for look in done.looks if look["place"] == "tape")
    assert there["how"] == "told by the server"
    assert there["checksum"].startswith("sha256:" if kind == "xxh3" else kind)  # the other kind, of the same bytes
    assert fetched == []
    assert far.states(file) == {"beamline": "pruned", "tape": "verified"}


@pytest.mark.parametrize("content", [b"fRames", b"frame"])
def test_a_corrupted_copy_on_the_server_is_seen(far: Beamline, server: Gridftp, content: bytes) -> None:
    file = copied(far, server)
    (server.root / "a.h5").write_bytes(content)
    [done] = far.apply()
    assert (done.verdict, done.trouble) == ("refused", "corrupted")
    assert far.states(file) == {"beamline": "verified", "tape": "corrupted"}
    assert far.raw() == ["a.h5"]


def test_a_server_that_does_not_answer_says_nothing_about_its_copies(far: Beamline, server: Gridftp) -> None:
    file = copied(far, server)
    server.kill()
    [done] = far.apply()
    assert (done.verdict, done.trouble) == ("refused", "unreachable")
    server.start()
    server.pause()
    [done] = far.apply(answer_s=1.0)
    assert (done.verdict, done.trouble) == ("refused", "unreachable")
    assert far.states(file)["tape"] == "verified"
    server.resume()
    assert [done.verdict for done in far.apply()] == ["pruned"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the server is somebody else only for root")
def test_what_the_server_may_not_read_is_unreadable(far: Beamline, server: Gridftp) -> None:
    copied(far, server)
    (server.root / "a.h5").chmod(0)
    [done] = far.apply()
    assert (done.verdict, done.trouble) == ("refused", "unreadable")


def test_the_server_on_our_own_disk_is_no_other_place(far: Beamline, server: Gridftp) -> None:
    """The same file, once by its path and once by the server's address: neither name tells, only that it goes."""
    path = server.root / "a.h5"
    path.write_bytes(b"frames")
    file = far.known(CatalogFile(E, str(path), 6, sum_of(b"frames", "xxh3"), added_at=NOW - 100 * DAY))
    far.copy(file, "beamline", str(path))
    far.copy(file, "tape", server.url("a.h5"))
    [done] = far.apply()
    assert (done.verdict, "may be the same file" in done.reason) == ("refused", True)
    assert os.listdir(server.root) == ["a.h5"]
    assert path.read_bytes() == b"frames"


def test_a_copy_on_the_server_is_removed(far: Beamline, server: Gridftp, fetched: list[str]) -> None:
    far.rules = '[[rule]]\nplaces = "tape"\nkeep = "90 days"\n'
    file = copied(far, server)
    [done] = far.apply()
    assert done.verdict == "pruned", done
    assert os.listdir(server.root) == []
    assert far.raw() == ["a.h5"]
    assert far.states(file) == {"beamline": "verified", "tape": "pruned"}
    assert fetched == [server.url("a.h5")]  # it has no xxh3 to tell


@pytest.mark.parametrize("point", points())
def test_killed_while_a_copy_on_the_server_goes(far: Beamline, server: Gridftp, point: str) -> None:
    far.rules = '[[rule]]\nplaces = "tape"\nkeep = "90 days"\n'
    file = copied(far, server, "sha256")
    killed(far, point)
    done = far.apply()
    assert all(each.good for each in done), done
    assert os.listdir(server.root) == []
    assert far.states(file) == {"beamline": "verified", "tape": "pruned"}


def test_a_tree_on_the_server(far: Beamline, server: Gridftp) -> None:
    file = tree(far)
    with far.database.write() as connection:
        connection.execute(schema.replicas.delete().where(schema.replicas.c.place == "tape"))
    assert [d.verdict for d in archive(far, file)] == ["archived"]
    assert [d.verdict for d in far.apply()] == ["pruned"]
    assert far.raw() == []
    [back] = far.keeping().restore(str(file.id))
    assert back.verdict == "restored", back
    assert (far.home / "raw" / "t" / "in" / "y").read_bytes() == b"de"
    far.rules = '[[rule]]\nplaces = "tape"\nkeep = "90 days"\n'
    assert [d.verdict for d in far.apply()] == ["pruned"]
    assert [p for p in server.root.rglob("*") if p.is_file()] == []


def test_archived_first_where_the_rule_says_so(far: Beamline, server: Gridftp) -> None:
    far.rules += 'archive = "tape"\n'
    file = far.file("scan 1%.h5")
    plan = far.plan()
    assert (plan["beamline"].verdict, "copied to 'tape' first" in plan["beamline"].reason) == ("archive", True)
    archived, pruned = far.apply()
    assert (archived.verdict, pruned.verdict) == ("archived", "pruned"), (archived, pruned)
    assert far.states(file) == {"beamline": "pruned", "tape": "verified"}
    assert far.raw() == []
    assert (server.root / E / file.name.lstrip("/")).read_bytes() == b"frames"


def test_restored_where_it_was(far: Beamline) -> None:
    file = far.file()
    assert [d.verdict for d in (*archive(far, file), *far.apply())] == ["archived", "pruned"]
    [done] = far.keeping().restore(file.name)
    assert (done.verdict, done.address, done.bytes) == ("restored", file.name, 6)
    assert Path(file.name).read_bytes() == b"frames"
    assert far.raw() == ["a.h5"]
    assert far.states(file) == {"beamline": "verified", "tape": "verified"}
    [again] = far.keeping().restore(file.name)
    assert (again.verdict, again.reason) == ("restored", "it is there already")


def test_two_contents_of_one_name_have_two_places_in_the_archive(far: Beamline, server: Gridftp) -> None:
    first = far.file()
    second = far.file(content=b"others")
    (done,) = archive(far, second)
    assert done.verdict == "archived"
    Path(first.name).write_bytes(b"frames")
    (done,) = archive(far, first)
    assert (done.verdict, done.address.endswith(f"a.h5~{first.id}")) == ("archived", True)
    contents = sorted(p.read_bytes() for p in server.root.rglob("a.h5*"))
    assert contents == [b"frames", b"others"]


def test_archived_twice_is_copied_once(far: Beamline) -> None:
    file = far.file()
    [first], [second] = archive(far, file), archive(far, file)
    assert (first.bytes, second.bytes) == (6, 0)
    assert first.address == second.address


def test_a_name_that_the_server_cannot_carry_is_refused(far: Beamline) -> None:
    file = far.file("a\n.h5")
    (done,) = archive(far, file)
    assert (done.verdict, done.good) == ("refused", False)
    assert "cannot be carried" in done.reason


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_by_certificate(alone: Beamline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: list[str]) -> None:
    certificates = Certificates(tmp_path / "certificates")
    with Gridftp(certificates=certificates) as server:
        for name, value in certificates.make("user").items():
            monkeypatch.setenv(name, value)
        alone.places = f'[place.tape]\naddress = "{server.url()}"\n'
        file = alone.file("scan ä\udcff.h5")  # a name that is not UTF-8
        assert [d.verdict for d in (*archive(alone, file), *alone.apply())] == ["archived", "pruned"]
        [done] = alone.keeping().restore(file.name)
        assert (done.verdict, Path(file.name).read_bytes()) == ("restored", b"frames")
        alone.rules = '[[rule]]\nplaces = "tape"\nkeep = "90 days"\n'
        assert [d.verdict for d in alone.apply()] == ["pruned"]
        assert len(fetched) == 1
        for name in certificates.make("stranger"):
            monkeypatch.setenv(name, "/nowhere")
        [done] = alone.keeping().archive(str(file.id), to="tape")
        assert (done.verdict, "trust" in done.reason) == ("refused", True), done
