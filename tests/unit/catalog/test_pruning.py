"""Copies removed only when others have just been read and found right, on both databases."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from orchestrator.catalog import policy
from orchestrator.catalog.book import Done
from orchestrator.catalog.copies import Copies
from orchestrator.catalog.keeping import Keeping
from orchestrator.errors import Conflict
from orchestrator.settings import Settings
from orchestrator.store import retention as store
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.transfer import checksums
from tests.unit.catalog.keep import DAY, NOW, Beamline, E, sum_of


def test_a_copy_goes_when_another_is_right(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    [done] = beamline.apply()
    assert (done.verdict, done.place, done.bytes) == ("pruned", "beamline", 6)
    assert beamline.raw() == []
    assert beamline.states(file) == {"beamline": "pruned", "tape": "verified"}
    assert beamline.apply() == []


def test_the_log_holds_the_evidence(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    beamline.apply()
    [row] = beamline.keeping().log(file=str(file.id))
    assert (row.verdict, row.place, row.at, row.evidence["who"]) == ("pruned", "beamline", NOW, "rita")
    seen = {look["place"]: look for look in row.evidence["looks"]}
    assert {look["checksum"] for look in seen.values()} == {file.checksum}
    assert (seen["tape"]["how"], seen["tape"]["size"]) == ("read here", 6)
    assert "90 days" in row.evidence["policy"]


def test_a_rehearsal_looks_and_removes_nothing(alone: Beamline) -> None:
    good, bad = alone.file("a.h5", "tape"), alone.file("b.h5", "tape")
    (alone.home / "tape" / "b.h5").write_bytes(b"fRames")
    first, second = list(alone.keeping().apply())
    assert (first.verdict, second.verdict) == ("would prune", "refused")
    assert alone.raw() == ["a.h5", "b.h5"]
    assert alone.states(good)["beamline"] == "verified"
    assert alone.states(bad)["tape"] == "corrupted"


def test_one_corrupted_copy_and_it_refuses(beamline: Beamline) -> None:
    bad, good = beamline.file("bad.h5", "tape"), beamline.file("good.h5", "tape")
    (beamline.home / "tape" / "bad.h5").write_bytes(b"framez")
    refused, pruned = beamline.apply()
    assert (refused.verdict, refused.trouble, refused.good) == ("refused", "corrupted", False)
    assert "the copy at 'tape'" in refused.reason
    assert bad.checksum in refused.reason
    assert pruned.file == good.id
    assert beamline.raw() == ["bad.h5"]
    assert beamline.states(bad) == {"beamline": "verified", "tape": "corrupted"}
    assert beamline.keeping().log(file=str(bad.id))[0].verdict == "refused"
    assert beamline.apply() == []  # it rests on nothing that is known to be corrupted
    assert "tape is corrupted" in next(d for d in beamline.keeping().plan() if d.file.id == bad.id).reason


def test_it_is_refused_where_the_other_is_missing(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    (alone.home / "tape" / "a.h5").unlink()
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "missing")
    assert alone.states(file) == {"beamline": "verified", "tape": "missing"}


def test_what_is_not_mounted_is_not_missing(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    os.rename(alone.home / "tape", alone.home / "away")
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "unreachable")
    assert alone.states(file)["tape"] == "verified"
    assert alone.raw() == ["a.h5"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_what_may_not_be_read_or_written_is_refused(alone: Beamline, tmp_path: Path) -> None:
    alone.file("a.h5", "tape")
    alone.file("b.h5", "disk")
    for folder in (tmp_path, *tmp_path.rglob("*")):
        os.chown(folder, 65534, 65534)
    os.chown(alone.home / "raw", 0, 0)  # may be read, not written
    os.chmod(alone.home / "tape" / "a.h5", 0)
    parents = [p for p in tmp_path.parents if str(p).startswith("/tmp/")]
    before = {p: p.stat().st_mode for p in parents}
    for folder in parents:
        folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        unreadable, read_only = alone.apply()
    finally:
        os.seteuid(0)
        for folder, mode in before.items():
            folder.chmod(mode)
    assert (unreadable.verdict, unreadable.trouble) == ("refused", "unreadable")
    assert read_only.verdict == "refused"
    assert "may not be written" in read_only.reason
    assert alone.raw() == ["a.h5", "b.h5"]
    assert store.removals(alone.database, alone.keeping()._book.holder) == []


def test_a_file_that_was_replaced_is_not_ours(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    (alone.home / "raw" / "a.h5").write_bytes(b"others")
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "corrupted")
    assert "the copy itself" in done.reason
    assert (alone.home / "raw" / "a.h5").read_bytes() == b"others"
    assert alone.states(file)["tape"] == "verified"


def test_an_older_content_of_the_name_is_missing_and_not_corrupted(alone: Beamline) -> None:
    old = alone.file("a.h5", "tape")
    new = alone.file("a.h5", content=b"newer")
    [done] = alone.apply()
    assert (done.file, done.verdict, done.trouble) == (old.id, "refused", "corrupted")
    assert alone.states(old) == {"beamline": "missing", "tape": "verified"}
    assert alone.states(new) == {"beamline": "verified"}
    assert (alone.home / "raw" / "a.h5").read_bytes() == b"newer"


def test_a_copy_that_two_experiments_count_on_goes_when_both_may_miss_it(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    other = alone.known(replace(file, id=0, experiment="other"))
    alone.copy(other, "beamline", file.name)
    kept, also = alone.apply(), alone.states(other)
    assert [(d.file, d.verdict) for d in kept] == [(file.id, "kept")]
    assert ("file 2 of 'other' has its copy there too" in kept[0].reason, also) == (True, {"beamline": "verified"})
    assert alone.raw() == ["a.h5"]
    (alone.home / "disk" / "a.h5").write_bytes(b"fRames")
    alone.copy(other, "disk", str(alone.home / "disk" / "a.h5"))
    assert {d.verdict for d in alone.apply()} == {"refused"}  # its other copy is looked at as well
    (alone.home / "disk" / "a.h5").write_bytes(b"frames")
    alone.copy(other, "disk", str(alone.home / "disk" / "a.h5"))
    assert [d.verdict for d in alone.apply()] == ["pruned", "kept"]
    assert (alone.raw(), alone.states(other)) == ([], {"beamline": "pruned", "disk": "verified"})
    assert [row.verdict for row in alone.keeping().log(file="2")][:2] == ["kept", "pruned"]


def test_two_that_rest_on_each_other_do_not_both_go(beamline: Beamline) -> None:
    beamline.rules = '[[rule]]\nkeep = "1 day"\n'
    file = beamline.file("a.h5", "tape")
    first, second = beamline.apply()
    assert (first.verdict, second.verdict) == ("pruned", "kept")
    assert sorted(beamline.states(file).values()) == ["pruned", "verified"]


def test_while_another_host_removes_a_copy_ours_stays(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    with beamline.database.write() as connection:
        assert store.begin_removal(connection, store.Removal(file.id, "tape", "/t", "other:/home", NOW)) is None
    [done] = beamline.apply()
    assert (done.verdict, "other:/home" in done.reason) == ("refused", True)
    assert beamline.raw() == ["a.h5"]


@pytest.mark.parametrize("how", ["hard link", "link", "link above"])
def test_the_same_file_by_another_way_is_no_other_copy(alone: Beamline, how: str) -> None:
    file = alone.file("a.h5")
    tape = alone.home / "tape" / "a.h5"
    if how == "link":
        tape.symlink_to(alone.home / "raw" / "a.h5")
    elif how == "link above":
        (alone.home / "tape" / "in").symlink_to(alone.home / "raw")
        tape = alone.home / "tape" / "in" / "a.h5"
    else:
        os.link(alone.home / "raw" / "a.h5", tape)
    alone.copy(file, "tape", str(tape))
    [done] = alone.apply()
    assert done.verdict == "refused", done
    assert alone.raw() == ["a.h5"]
    assert (alone.home / "raw" / "a.h5").read_bytes() == b"frames"


@pytest.mark.parametrize(
    "at", ["/x/../etc/passwd", "raw/a.h5", "/", "/nul\0", "ftp://h/../x", "globus://c/a", "s3://bucket/a", ""]
)
def test_an_address_that_leaves_its_folder_is_not_touched(alone: Beamline, at: str) -> None:
    file = alone.file("b.h5", "tape")
    alone.copy(file, "beamline", at)
    states = {d.replica.address: d for d in alone.keeping().plan() if d.replica.place == "beamline"}
    assert states[at].verdict == "keep"
    assert states[at].reason.split(":")[0] in ("refused", "unreachable")


def test_a_copy_outside_the_folder_of_its_place_is_not_rested_on(alone: Beamline) -> None:
    file = alone.file("a.h5")
    (alone.home / "disk" / "a.h5").write_bytes(b"frames")
    alone.copy(file, "tape", str(alone.home / "disk" / "a.h5"))
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "refused")


def test_a_tree_goes_whole(alone: Beamline) -> None:
    file = tree(alone)
    [done] = alone.apply()
    assert (done.verdict, done.bytes) == ("pruned", 5)
    assert alone.raw() == []
    assert alone.states(file) == {"beamline": "pruned", "tape": "verified"}


def test_a_tree_with_one_more_file_is_not_ours(alone: Beamline) -> None:
    tree(alone)
    (alone.home / "raw" / "t" / "notes").write_text("mine")
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "corrupted")
    assert (alone.home / "raw" / "t" / "notes").read_text() == "mine"


def tree(alone: Beamline) -> CatalogFile:
    files = {"x": b"abc", "in/y": b"de"}
    for place in ("raw", "tape"):
        for name, content in files.items():
            path = alone.home / place / "t" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    digest = checksums.whole("xxh3", {n: sum_of(c, "xxh3").partition(":")[2] for n, c in files.items()})
    made = CatalogFile(E, str(alone.home / "raw" / "t"), 5, digest, added_at=NOW - 100 * DAY)
    file = alone.known(made)
    alone.copy(file, "beamline", file.name)
    alone.copy(file, "tape", str(alone.home / "tape" / "t"))
    return file


def test_one_apply_at_a_time(alone: Beamline) -> None:
    alone.file("a.h5", "tape")
    first = alone.keeping().apply(rehearse=False)
    next(first)
    with pytest.raises(Conflict, match="at work"):
        alone.apply()
    first.close()
    assert alone.apply() == []


def test_a_run_that_begins_meanwhile_keeps_it(alone: Beamline, monkeypatch: pytest.MonkeyPatch) -> None:
    file = alone.file("a.h5", "tape")
    aside = Copies.set_aside

    def begun(self: Copies, place: str, at: str, number: int) -> None:
        aside(self, place, at, number)
        alone.run(file, "pending", told=False)

    monkeypatch.setattr(Copies, "set_aside", begun)
    [done] = alone.apply()
    assert (done.verdict, "run-1" in done.reason) == ("refused", True)
    assert alone.raw() == ["a.h5"]


def test_written_in_the_last_moment_it_gets_its_name_back(alone: Beamline, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.file("a.h5", "tape")
    aside = Copies.set_aside

    def replaced(self: Copies, place: str, at: str, number: int) -> None:
        new = Path(at + ".new")
        new.write_bytes(b"newest")
        os.rename(new, at)
        aside(self, place, at, number)

    monkeypatch.setattr(Copies, "set_aside", replaced)
    [done] = alone.apply()
    assert done.verdict == "refused"
    assert (alone.home / "raw" / "a.h5").read_bytes() == b"newest"
    assert alone.raw() == ["a.h5"]


def test_two_hosts_that_count_on_each_other_leave_a_copy_of_each_file(beamline: Beamline) -> None:
    """Each removes the copies of its place, at the same time, and would rest on those of the other."""
    beamline.rules = '[[rule]]\nkeep = "1 day"\n'
    files = [beamline.file(f"{number}.h5", "tape") for number in range(12)]
    chosen = policy.parse(beamline.places + beamline.rules, "retention.toml")
    begin = threading.Barrier(2)

    def apply(place: str) -> list[Done]:
        home = beamline.home / f"home-{place}"
        home.mkdir()
        settings = Settings(home=home, site="beamline")
        with Database(beamline.database.url) as database:
            keeping = Keeping(settings, database, who=place, policy=chosen, clock=lambda: NOW)
            begin.wait()
            return list(keeping.apply(site=place, rehearse=False))

    with ThreadPoolExecutor() as pool:
        done = [each for found in pool.map(apply, ("beamline", "tape")) for each in found]
    for file in files:
        left = [folder for folder in ("raw", "tape") if (beamline.home / folder / Path(file.name).name).exists()]
        assert len(left) == 1, (left, [d for d in done if d.file == file.id])
        assert sorted(beamline.states(file).values()) == ["pruned", "verified"]
    assert {d.verdict for d in done} <= {"pruned", "kept", "refused"}
    assert [d.verdict for d in done].count("pruned") == len(files)
