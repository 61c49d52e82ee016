"""Where in a definition something stands, so that every complaint names file, line, stage and key."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from orchestrator.errors import DefinitionError


class Place(Struct, frozen=True):
    """A spot in a definition. `lines` maps (stage or "", key or "") to the line it was written on."""

    file: str = ""
    lines: Mapping[tuple[str, str], int] = {}
    stage: str = ""
    key: str = ""

    @property
    def line(self) -> int:
        for spot in ((self.stage, self.key), (self.stage, ""), ("", self.key), ("", "")):
            if spot in self.lines:
                return self.lines[spot]
        return 0

    def at(self, *, stage: str | None = None, key: str | None = None) -> Place:
        return Place(self.file, self.lines, self.stage if stage is None else stage, key or "")

    def error(self, sentence: str, hint: str = "") -> DefinitionError:
        return DefinitionError(sentence, hint, file=self.file, line=self.line, stage=self.stage, key=self.key)

    def again(self, error: DefinitionError) -> DefinitionError:
        """`error`, raised by something that did not know the place, with the place."""
        return self.error(error.sentence, error.hint)
