"""What happens to scans: one function for each, which writes and notes down what is to become of what it wrote."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable

from tests.chaos.arrivals import scans
from tests.chaos.arrivals.shot import Shot
from tests.chaos.arrivals.truth import IGNORED, INCOMPLETE, Content, Item

HALF = ("projections for", "is empty", "no dataset", "not written to its end", "open for writing", "cannot be read as")

# -------------------------------------------------------------------------------------------------------- whole


def in_place(shot: Shot) -> None:
    shot.whole(*shot.scan())


def renamed_when_done(shot: Shot) -> None:
    name, data = shot.name("scans", ".h5"), shot.frames()
    folder, _, last = name.rpartition("/")
    temporary = f"{folder}/{shot.chance.choice(('.{}.tmp', '{}.tmp', '.{}')).format(last)}"
    shot.truth.passed(temporary)
    shot.slowly(temporary, data)
    content = shot.content(temporary, scans.proof(data))
    shot.move(temporary, name)
    shot.whole(name, content)


def nested(shot: Shot) -> None:
    """Several at once, in folders that were not there."""
    top = f"scans/deep-{shot.number}"
    for number in range(4):
        name = "/".join([top, *(f"l{level}" for level in range(shot.chance.randrange(1, 12))), f"s{number}.h5"])
        shot.path(name).parent.mkdir(parents=True, exist_ok=True)
        data = shot.frames()
        scans.dxchange(shot.path(name), data)
        shot.whole(name, shot.content(name, scans.proof(data)))


def with_sentinel(shot: Shot) -> None:
    name = shot.name("raw", ".raw")
    content = _raw(shot, name, shot.seed)
    shot.rest(0.0, 1.0)
    _note(shot, name.removesuffix(".raw") + ".done", b"done")
    shot.whole(name, content)


def with_end_marker(shot: Shot) -> None:
    name = shot.name("raw", ".txt")
    body = scans.raw(shot.seed)
    with shot.path(name).open("wb") as file:
        file.write(body)
        file.flush()
        shot.rest(0.0, 1.0)
        file.write(scans.END)
    shot.whole(name, shot.content(name, scans.proof_of_bytes(body + scans.END)))


def eiger(shot: Shot) -> None:
    _eiger(shot, shot.name("eiger", "_master.h5"))


def eiger_twins(shot: Shot) -> None:
    """Two scans whose masters are the same to the byte, as where each day's folder begins to count anew."""
    last = f"twin_{shot.number}_master.h5"
    for day in "ab":
        name = f"eiger/{day}-{shot.number}/{last}"
        shot.path(name).parent.mkdir(parents=True, exist_ok=True)
        _eiger(shot, name, parts=2)


# -------------------------------------------------------------------------------------------------------- twice


def copied(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content)
    shot.rest(0.0, 2.0)
    other = shot.name(name.partition("/")[0], ".h5")
    shutil.copyfile(shot.path(name), shot.path(other))
    shot.whole(other, content)


def copied_over_itself(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content)
    shot.rest(0.0, 2.0)
    beside = shot.beside / f"again-{shot.number}"
    shutil.copyfile(shot.path(name), beside)
    os.rename(beside, shot.path(name))


def touched(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content)
    shot.rest(0.0, 2.0)
    os.utime(shot.path(name))


def linked(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content)
    other = shot.name(name.partition("/")[0], ".h5")
    os.link(shot.path(name), shot.path(other))
    shot.whole(other, content)


# ----------------------------------------------------------------------------------------------------- changed


def replaced_while_it_waits(shot: Shot) -> None:
    name, content = shot.scan()
    shot.rest(0.0, 0.15)
    _replace(shot, name, content)


def replaced_later(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content)
    shot.rest(0.3, 4.0)
    _replace(shot, name, content)


def rewritten_in_place(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content)
    shot.rest(0.1, 3.0)
    shot.gone(name, content)
    data = shot.frames()
    shot.slowly(name, data)
    shot.whole(name, shot.content(name, scans.proof(data)))


def written_on(shot: Shot) -> None:
    name = shot.name("raw", ".txt")
    body = scans.raw(shot.seed) + scans.END
    shot.path(name).write_bytes(body)
    content = shot.content(name, scans.proof_of_bytes(body))
    shot.whole(name, content)
    shot.rest(0.1, 3.0)
    shot.gone(name, content)
    more = scans.raw(shot.seed) + scans.END
    with shot.path(name).open("ab") as file:
        file.write(more)
    shot.whole(name, shot.content(name, scans.proof_of_bytes(body + more)))


def renamed_later(shot: Shot) -> None:
    name, content = shot.scan()
    content = content._replace(moved=True)
    shot.whole(name, content)
    shot.rest(0.0, 3.0)
    other = shot.name(name.partition("/")[0], ".h5")
    shot.move(name, other)
    shot.truth.passed(name)
    shot.whole(other, content)


def folder_renamed_later(shot: Shot) -> None:
    names = [f"scans/moving-{shot.number}/s{number}.h5" for number in range(3)]
    shot.path(names[0]).parent.mkdir(parents=True)
    contents: list[Content] = []
    for name in names:
        data = shot.frames()
        shot.slowly(name, data)
        contents.append(shot.content(name, scans.proof(data))._replace(moved=True))
        shot.whole(name, contents[-1])
    shot.rest(0.0, 3.0)
    shot.move(f"scans/moving-{shot.number}", f"scans/moved-{shot.number}")
    for name, content in zip(names, contents, strict=True):
        shot.truth.passed(name)
        shot.whole(name.replace("/moving-", "/moved-"), content)


def away_and_back(shot: Shot) -> None:
    name, content = shot.scan()
    shot.whole(name, content._replace(away=True))
    shot.rest(0.0, 2.0)
    away = shot.beside / f"away-{shot.number}"
    os.rename(shot.path(name), away)
    shot.rest(0.2, 2.0)
    os.rename(away, shot.path(name))


def removed(shot: Shot) -> None:
    name, content = shot.scan()
    shot.rest(0.0, 2.0)
    shot.gone(name, content)
    shot.path(name).unlink()


# ------------------------------------------------------------------------------------------------------ broken


def killed(shot: Shot) -> None:
    name, count = shot.name("scans", ".h5"), shot.chance.randrange(6, 20)
    words = [sys.executable, "-m", "tests.chaos.arrivals.scans", os.fspath(shot.path(name)), str(shot.seed), str(count)]
    last = shot.chance.randrange(count)
    shot.truth.passed(name)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        while writer.stdout.readline() not in (b"%d\n" % last, b""):
            pass
        writer.kill()
    if last == count - 1:  # with all its frames: whole, unless HDF5 marks it as open
        shot.truth.item(Item(name, shot.kind, INCOMPLETE | {"run"}, checksum=scans.checksum(shot.path(name))))
        data = scans.frames(int(words[-2]), count)
        shot.truth.content(shot.content(name, scans.proof(data))._replace(stays=False))
    else:
        shot.broken(name, *HALF)


def half_a_header(shot: Shot) -> None:
    _cut(shot, shot.chance.randrange(1, 96))


def cut_off(shot: Shot) -> None:
    _cut(shot, shot.chance.randrange(96, 2000))


def empty(shot: Shot) -> None:
    name = shot.name("scans", ".h5")
    shot.path(name).touch()
    shot.broken(name, "it is empty")


def not_a_scan(shot: Shot) -> None:
    name = shot.name("scans", ".h5")
    shot.path(name).write_bytes(scans.raw(shot.seed))
    shot.broken(name, "cannot be read as HDF5")


def without_sentinel(shot: Shot) -> None:
    name = shot.name("raw", ".raw")
    _raw(shot, name, shot.seed)
    shot.broken(name, "its sentinel file")


def without_end_marker(shot: Shot) -> None:
    name = shot.name("raw", ".txt")
    _raw(shot, name, shot.seed)
    shot.broken(name, "it does not end with")


def eiger_without_a_part(shot: Shot) -> None:
    name = shot.name("eiger", "_master.h5")
    _eiger(shot, name, lacking=True)
    shot.broken(name, "its part")


def eiger_with_a_broken_part(shot: Shot) -> None:
    name = shot.name("eiger", "_master.h5")
    _eiger(shot, name, breaking=True)
    shot.broken(name, "its part")


# ------------------------------------------------------------------------------------------- no scan at all


def link(shot: Shot) -> None:
    name, inside = shot.name("scans", ".h5"), shot.chance.random() < 0.5
    target = shot.beside / f"outside-{shot.number}.h5"
    if inside:
        target = shot.path(shot.name("scans", ".h5"))
    data = shot.frames()
    scans.dxchange(target, data)
    if inside:
        rel = os.path.relpath(target, shot.tree)
        shot.whole(rel, shot.content(rel, scans.proof(data)))
    shot.path(name).symlink_to(target)
    _odd(shot, name, "a symbolic link")


def link_to_a_folder(shot: Shot) -> None:
    name = shot.name("scans", "")
    shot.path(name).symlink_to(shot.chance.choice(("/", ".", "..", "nowhere")))
    _odd(shot, name, "a symbolic link")


def fifo(shot: Shot) -> None:
    name = shot.name("scans", ".h5")
    os.mkfifo(shot.path(name))
    _odd(shot, name, "a FIFO")


def device(shot: Shot) -> None:
    name = shot.name("scans", ".h5")
    try:
        os.mknod(shot.path(name), 0o20600, os.makedev(1, 5))
    except PermissionError:
        return
    _odd(shot, name, "a device")


def listening(shot: Shot) -> None:
    name = shot.name("scans", ".h5")
    with socket.socket(socket.AF_UNIX) as made:
        short = str(shot.beside / f"s{shot.number}")
        made.bind(short)
        os.rename(short, shot.path(name))
    _odd(shot, name, "a socket")


def beside_the_scans(shot: Shot) -> None:
    _note(shot, shot.name("scans", ".log"), scans.raw(shot.seed))
    _note(shot, shot.name("scans", ".h5.bak"), scans.raw(shot.seed))


# ------------------------------------------------------------------------------------------------------- parts


def _raw(shot: Shot, name: str, seed: int) -> Content:
    body = scans.raw(seed)
    with shot.path(name).open("wb") as file:
        file.write(body[:100])
        file.flush()
        shot.rest(0.0, 0.4)
        file.write(body[100:])
    return shot.content(name, scans.proof_of_bytes(body))


def _eiger(shot: Shot, name: str, *, parts: int = 0, lacking: bool = False, breaking: bool = False) -> None:
    """The master first, last, or in between."""
    folder, _, last = name.rpartition("/")
    names = [
        f"{last.removesuffix('_master.h5')}_data_{n:06}.h5"
        for n in range(1, 1 + (parts or shot.chance.randrange(1, 5)))
    ]
    data = [shot.frames() for _ in names]
    steps: list[Callable[[], None]] = []
    missing = shot.chance.randrange(len(names)) if lacking else -1

    def part(number: int) -> None:
        at = f"{folder}/{names[number]}"
        if breaking and number == 0:  # as where its copying is interrupted
            scans.eiger_part(shot.beside / names[number], data[number])
            content = (shot.beside / names[number]).read_bytes()
            shot.path(at).write_bytes(content[: shot.chance.randrange(1, len(content))])
            shot.broken(at, *HALF)
            return
        scans.eiger_part(shot.path(at), data[number])
        shot.truth.item(Item(at, shot.kind, IGNORED, ("part of the scan",)))

    steps += [lambda n=n: part(n) for n in range(len(names)) if n != missing]  # type: ignore[misc]
    steps.insert(shot.chance.randrange(len(steps) + 1), lambda: scans.eiger_master(shot.path(name), names))
    for step in steps:
        step()
        shot.rest(0.0, 0.4)
    if not lacking and not breaking:
        shot.whole(name, shot.content(name, scans.proof(*data)))


def _replace(shot: Shot, name: str, old: Content) -> None:
    """By a new file under its name."""
    data = shot.frames()
    beside = shot.beside / f"new-{shot.number}"
    scans.dxchange(beside, data)
    shot.gone(name, old)
    os.rename(beside, shot.path(name))
    shot.whole(name, shot.content(name, scans.proof(data)))


def _cut(shot: Shot, length: int) -> None:
    name, beside = shot.name("scans", ".h5"), shot.beside / f"whole-{shot.number}"
    scans.dxchange(beside, shot.frames())
    content = beside.read_bytes()
    shot.path(name).write_bytes(content[: min(length, len(content) - 1)])
    shot.broken(name, *HALF)


def _note(shot: Shot, name: str, content: bytes) -> None:
    shot.path(name).write_bytes(content)
    shot.truth.item(Item(name, shot.kind, IGNORED, ("its name",)))


def _odd(shot: Shot, name: str, word: str) -> None:
    shot.truth.item(Item(name, shot.kind, IGNORED, (word,)))


KINDS: dict[Callable[[Shot], None], int] = {
    in_place: 30,
    renamed_when_done: 12,
    nested: 4,
    with_sentinel: 6,
    with_end_marker: 6,
    eiger: 12,
    eiger_twins: 2,
    copied: 5,
    copied_over_itself: 4,
    touched: 4,
    linked: 3,
    replaced_while_it_waits: 6,
    replaced_later: 6,
    rewritten_in_place: 5,
    written_on: 3,
    renamed_later: 5,
    folder_renamed_later: 2,
    away_and_back: 4,
    removed: 3,
    killed: 8,
    half_a_header: 3,
    cut_off: 3,
    empty: 2,
    not_a_scan: 2,
    without_sentinel: 2,
    without_end_marker: 2,
    eiger_without_a_part: 3,
    eiger_with_a_broken_part: 3,
    link: 3,
    link_to_a_folder: 2,
    fifo: 2,
    device: 1,
    listening: 1,
    beside_the_scans: 2,
}
