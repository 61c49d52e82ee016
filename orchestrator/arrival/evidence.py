"""Looks at one file for the facts that its rule asks for. Everything is read through handles that no link can bend."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from typing import Any

import msgspec
import xxhash

from orchestrator.arrival import mounts, trigger
from orchestrator.arrival.contents import Question, Reader
from orchestrator.arrival.readiness import Ask, Facts, Need, Verdict, judge, number
from orchestrator.arrival.scan import Found, Root
from orchestrator.arrival.trigger import Claim, Parts
from orchestrator.arrival.writers import Writers
from orchestrator.errors import InputError
from orchestrator.store.scans import PartFile, unread

PIECE = 4 << 20
MANIFEST_MOST = 4 << 20
PARTS_MOST = 1_000_000
COARSE_NS, COARSE_S = 10**9, 2.0  # where times are whole seconds a file is to be still for longer than one
Ready = Callable[[Found], str]  # of a part: why it is not whole yet, empty when it is


class Evidence:
    """Of the files below one root."""

    def __init__(self, root: Root, reader: Reader) -> None:
        self.reader = reader
        self._writers = Writers()
        self.look_at(root)

    def look_at(self, root: Root) -> None:
        """From now on: what is mounted at the path may be another file system."""
        self.root = root
        self.network = mounts.is_network(mounts.kind(root.path))

    def judge(self, found: Found, claim: Claim, still_s: float, part_ready: Ready) -> Verdict:
        """Raises InputError when the file went away meanwhile."""
        need = claim.rule.need
        if found.mtime_ns % COARSE_NS == 0:  # what is written within the same second could not be seen later
            need = msgspec.structs.replace(need, settle_s=max(need.settle_s, COARSE_S))
        if claim.part:  # a part need not be whole as its scan has to be
            opens = claim.rule.parts is not None and bool(claim.rule.parts.links)
            need = msgspec.structs.replace(
                need, parts=False, sentinel="", frames="", expected=0, layout=need.layout.NONE, opens=opens
            )
        facts = Facts(found.size, still_s)
        verdict = judge(need, facts)
        while verdict.ask is not None:
            facts = msgspec.structs.replace(facts, **self._learn(verdict.ask, need, found, claim, part_ready))
            verdict = judge(need, facts)
        return verdict

    def _learn(self, ask: Ask, need: Need, found: Found, claim: Claim, part_ready: Ready) -> dict[str, Any]:
        if ask is Ask.SENTINEL:
            beside = posixpath.join(posixpath.dirname(found.name), trigger.filled(need.sentinel, claim.words))
            return {"sentinel": self.root.look(beside) is not None}
        if ask is Ask.PARTS:
            return {"lacking": self._lacking(found, claim, part_ready)}
        handle = self.root.open(found.name)
        try:
            if ask is Ask.WRITER:
                elsewhere = self.network or found.device != self.root.device  # what is mounted below may be remote
                return {"writer_asked": True, "writer": None if elsewhere else self._writers.of(handle)}
            if ask is Ask.TAIL:
                marker = need.end_marker.encode("utf-8", "surrogateescape")
                return {"tail": os.pread(handle, len(marker), max(0, found.size - len(marker))) == marker}
            assert need.question is not None
            return {"contents": self.reader.ask(handle, need.question)}
        finally:
            os.close(handle)

    def values(self, found: Found, paths: tuple[str, ...]) -> tuple[dict[str, Any], str]:
        """What is written in it at those paths, and why that cannot be read."""
        if not paths:
            return {}, ""
        handle = self.root.open(found.name)
        try:
            seen = self.reader.ask(handle, Question(paths))
        finally:
            os.close(handle)
        return seen.values, f"it cannot be read as HDF5: {seen.broken}" if seen.broken else ""

    def scan(self, found: Found, claim: Claim) -> tuple[str, tuple[PartFile, ...]]:
        """The checksum of the file, where its rule wants one, and the other files of its scan. Raises InputError."""
        summed = self.checksum if claim.rule.checksum else lambda _: ""
        if claim.rule.parts is None:
            return summed(found), ()
        parts = []
        for name in dict.fromkeys(self._part_names(claim.rule.parts, found, claim)[0]):
            part = self.root.look(name)
            if part is None:
                raise InputError(f"The file '{name}' is not there any more.")
            if name != found.name:
                parts.append(PartFile(name, part.size, summed(part) or unread(part.fingerprint)))
        return summed(found), tuple(parts)

    def checksum(self, found: Found) -> str:
        """XXH3 of its bytes. Raises InputError when it is not the file it was, before or after they were read."""
        handle = self.root.open(found.name)
        try:
            total, at = xxhash.xxh3_128(), 0
            self._same(found, handle)
            while piece := os.pread(handle, PIECE, at):
                total.update(piece)
                at += len(piece)
            self._same(found, handle)
            return f"xxh3:{total.hexdigest()}"
        except OSError as error:
            raise InputError(f"The file '{found.name}' cannot be read: {error.strerror}.") from None
        finally:
            os.close(handle)

    def _same(self, found: Found, handle: int) -> None:
        if self.root.of_handle(found.name, handle).fingerprint != found.fingerprint:
            raise InputError(f"The file '{found.name}' was changed while it was read.")

    # ---- parts

    def _lacking(self, found: Found, claim: Claim, part_ready: Ready) -> str:
        """What its scan lacks; of a thousand parts the first that is not there is enough."""
        parts = claim.rule.parts
        assert parts is not None
        names, lacking = self._part_names(parts, found, claim)
        for name in names:
            if name == found.name:
                continue
            part = self.root.look(name)
            if part is None:
                return f"its part {posixpath.basename(name)!r} is not there"
            if reason := part_ready(part):
                return f"its part {posixpath.basename(name)!r}: {reason}"
        return lacking

    def _part_names(self, parts: Parts, found: Found, claim: Claim) -> tuple[list[str], str]:
        folder = posixpath.dirname(found.name)
        if parts.count:
            return trigger.part_names(parts, claim, found.name, parts.count), ""
        if parts.manifest:
            listed = self._lines(posixpath.join(folder, trigger.filled(parts.manifest, claim.words)))
            if listed is None:
                return [], f"its manifest {parts.manifest!r} is not there"
            return self._inside(listed, folder)
        question = Question(values=(parts.count_from,) if parts.count_from else (), links=parts.links)
        handle = self.root.open(found.name)
        try:
            seen = self.reader.ask(handle, question)
        finally:
            os.close(handle)
        if seen.broken:
            return [], f"it cannot be read as HDF5: {seen.broken}"
        if parts.links:
            return self._inside(seen.links, folder) if seen.links else ([], f"it has no links in {parts.links!r}")
        count = number(seen.values.get(parts.count_from))
        if count is None or count > PARTS_MOST:
            return [], f"it does not say in {parts.count_from!r} how many parts there are"
        return trigger.part_names(parts, claim, found.name, count), ""

    @staticmethod
    def _inside(listed: list[str], folder: str) -> tuple[list[str], str]:
        """As names below the root; one that leads out of it is no part that could ever be there."""
        names = [posixpath.normpath(posixpath.join(folder, name)) for name in listed]
        outside = next((name for name in names if name.startswith(("/", "../")) or name == ".."), "")
        return ([], f"its part {outside!r} is outside of the watched directory") if outside else (names, "")

    def _lines(self, name: str) -> list[str] | None:
        try:
            handle = self.root.open(name)
        except InputError:
            return None
        with os.fdopen(handle, "rb") as file:
            text = os.fsdecode(file.read(MANIFEST_MOST))
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
