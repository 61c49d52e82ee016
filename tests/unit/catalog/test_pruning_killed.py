"""An apply that is killed at any point, and the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.catalog.copies import aside
from tests.unit.catalog.keep import Beamline
from tests.unit.catalog.test_pruning import tree

DO = """if True:
    import sys
    from pathlib import Path
    from orchestrator.settings import Settings
    from orchestrator.store.database import Database
    from tests.unit.catalog.keep import NOW, Beamline
    beamline = Beamline.__new__(Beamline)
    what, home, url, beamline.rules, beamline.places = sys.argv[1:]
    beamline.home, beamline.database, beamline.now = Path(home), Database(url), NOW
    beamline.settings = Settings(home=Path(home), site="beamline")
    keeping = beamline.keeping()
    if what == "apply":
        done = keeping.apply(rehearse=False)
    elif what == "archive":
        done = keeping.archive("1", to="tape")
    else:
        done = keeping.restore("1")
    list(done)
"""
POINTS = ["removal.note", "copy.aside", "removal.record", "copy.remove"]


def killed(beamline: Beamline, point: str, mark: str = "mark", *, what: str = "apply") -> None:
    url = beamline.database.url
    argv = [sys.executable, "-c", DO, what, str(beamline.home), url, beamline.rules, beamline.places]
    environment = {**os.environ, "BEAMWAY_CRASH": point, "BEAMWAY_CRASH_MARK": str(beamline.home / mark)}
    process = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def points() -> list[str]:
    return [f"{name}:{when}" for name in POINTS for when in ("before", "after")]


@pytest.mark.parametrize("what", ["file", "tree"])
@pytest.mark.parametrize("point", points())
def test_the_next_one_goes_on(alone: Beamline, point: str, what: str) -> None:
    file = alone.file("a.h5", "tape") if what == "file" else tree(alone)
    killed(alone, point)
    done = alone.apply()
    assert all(each.good for each in done), done
    assert alone.raw() == []
    assert alone.states(file) == {"beamline": "pruned", "tape": "verified"}
    assert [row.verdict for row in alone.keeping().log()].count("pruned") == 1
    assert alone.apply() == []


@pytest.mark.parametrize("again", ["copy.aside:before", "copy.aside:after"])
def test_killed_while_it_gives_the_name_back(alone: Beamline, again: str) -> None:
    alone.file("a.h5", "tape")
    killed(alone, "copy.aside:after")
    killed(alone, again, "again")
    assert all(each.good for each in alone.apply())
    assert alone.raw() == []


def test_the_next_one_goes_on_whatever_the_database(beamline: Beamline) -> None:
    file = beamline.file("a.h5", "tape")
    killed(beamline, "copy.aside:after")
    assert beamline.raw() == ["a.h5.1.pruned"]
    back, pruned = beamline.apply()
    assert (back.verdict, pruned.verdict) == ("put back", "pruned")
    assert beamline.raw() == []
    assert beamline.states(file) == {"beamline": "pruned", "tape": "verified"}


def test_what_was_set_aside_is_kept_when_the_others_are_gone(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    killed(alone, "copy.aside:after")
    (alone.home / "tape" / "a.h5").unlink()
    back, refused = alone.apply()
    assert (back.verdict, refused.verdict, refused.trouble) == ("put back", "refused", "missing")
    assert alone.raw() == ["a.h5"]
    assert alone.states(file)["beamline"] == "verified"


def test_a_new_file_under_its_name_is_left_alone(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    killed(alone, "copy.aside:after")
    new = Path(file.name)
    new.write_bytes(b"newest")
    [done] = alone.apply()
    assert (done.verdict, done.good) == ("unfinished", False)
    assert aside(file.name, file.id) in done.reason
    assert new.read_bytes() == b"newest"
    assert Path(aside(file.name, file.id)).read_bytes() == b"frames"
    new.unlink()  # somebody has taken it away
    assert [each.verdict for each in alone.apply()] == ["put back", "pruned"]


def test_a_tree_half_removed_is_removed(alone: Beamline) -> None:
    file = tree(alone)
    killed(alone, "copy.remove:before")
    left = Path(aside(file.name, file.id))
    (left / "x").unlink()
    [done] = alone.apply()
    assert done.verdict == "pruned"
    assert alone.raw() == []


@pytest.mark.parametrize("point", ["file.publish:before", "file.publish:after"])
def test_an_archive_that_was_killed_goes_on(alone: Beamline, point: str) -> None:
    file = alone.file("a.h5")
    killed(alone, point, what="archive")
    assert alone.states(file) == {"beamline": "verified"}
    [done] = alone.keeping().archive("1", to="tape")
    assert done.verdict == "archived"
    assert [p.read_bytes() for p in (alone.home / "tape").rglob("*") if p.is_file()] == [b"frames"]
    assert alone.states(file) == {"beamline": "verified", "tape": "verified"}


@pytest.mark.parametrize("point", ["file.publish:before", "file.publish:after"])
@pytest.mark.parametrize("nth", ["copied", "named"])
def test_a_restore_that_was_killed_goes_on(alone: Beamline, point: str, nth: str) -> None:
    file = alone.file("a.h5", "tape")
    alone.apply()
    killed(alone, point, what="restore")
    if nth == "named":  # the first rename was of the copy to its `.part`, the second gives the name
        killed(alone, point, "again", what="restore")
    assert Path(file.name).exists() == ((point, nth) == ("file.publish:after", "named"))
    [done] = alone.keeping().restore("1")
    assert done.verdict == "restored"
    assert alone.raw() == ["a.h5"]
    assert alone.states(file) == {"beamline": "verified", "tape": "verified"}
