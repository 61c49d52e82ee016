"""Which copies stay, and which may go when: rules, read strictly from `retention.toml` or an experiment's record.

    [place.tape]
    address = "gsiftp://tape.example.org:2811/archive"

    [[rule]]
    name = "raw at the beamline"
    kinds = "raw"
    places = "beamline"
    keep = "90 days"
    copies = 2
    elsewhere = ["tape", "alcf"]
    archive = "tape"
    grace = "7 days"

The first rule that fits a copy decides, those of its experiment before those of the home. A copy that no rule fits
stays for ever. Each mistake is one sentence: file, rule, key, what to do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from msgspec import Struct

from orchestrator.definition.units import duration_s
from orchestrator.errors import SettingsError, nearest
from orchestrator.store.catalog import CatalogFile, FileKind

FOR_EVER = "for ever"
FILE = "retention.toml"  # in the home
_KINDS: dict[str, type] = {
    "name": str,
    "experiments": tuple,
    "kinds": tuple,
    "places": tuple,
    "keep": str,
    "grace": str,
    "copies": int,
    "elsewhere": tuple,
    "each": tuple,
    "archive": str,
}
_WANT = {str: "a text", tuple: "a text or a list of texts", int: "a whole number"}


class Rule(Struct, frozen=True):
    name: str
    source: str  # where it is written
    keep_s: float | None = None  # from when the file came; None: for ever
    grace_s: float = 0.0  # after the end of the last run that used it
    copies: int = 1  # other places that must hold a verified copy
    elsewhere: tuple[str, ...] = ()  # they are among these; none: any
    each: tuple[str, ...] = ()  # and each of these holds one
    archive: str = ""  # place to copy to where copies are lacking
    experiments: tuple[str, ...] = ()  # patterns; none: all
    kinds: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    def fits(self, file: CatalogFile, place: str) -> bool:
        return (
            (not self.kinds or file.kind.value in self.kinds)
            and (not self.places or place in self.places)
            and (not self.experiments or any(fnmatchcase(file.experiment, p) for p in self.experiments))
        )

    @property
    def text(self) -> str:
        """In a line, for the log."""
        if self.keep_s is None:
            return f"{self.name} ({self.source}): keep for ever"
        among = f" of {', '.join(self.elsewhere)}" if self.elsewhere else ""
        each = f", one at each of {', '.join(self.each)}" if self.each else ""
        grace = f", {self.grace_s / 86400:g} days after the last run" if self.grace_s else ""
        copies = f"{self.copies} verified cop{'y' if self.copies == 1 else 'ies'} elsewhere{among}{each}"
        return f"{self.name} ({self.source}): keep {self.keep_s / 86400:g} days{grace}, then {copies}"


class Policy(Struct, frozen=True):
    rules: tuple[Rule, ...] = ()
    places: dict[str, str] = {}  # name -> folder of this host, or address, below which its copies lie

    def rule(self, file: CatalogFile, place: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.fits(file, place)), None)

    def before(self, rules: tuple[Rule, ...]) -> Policy:
        """This policy after the rules of an experiment."""
        return Policy((*rules, *self.rules), self.places)


def load(home: Path) -> Policy:
    """That of the home; without a file nothing is ever removed. Raises SettingsError."""
    path = home / FILE
    if not path.exists():
        return Policy()
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The policy {path} cannot be read: {error}.") from None


def parse(text: str, where: str) -> Policy:
    """Raises SettingsError with the first mistake."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where}: {error}.") from None
    _known(raw, ("rule", "place"), where)
    places = raw.get("place", {})
    if not isinstance(places, dict) or not all(isinstance(p, dict) for p in places.values()):
        raise SettingsError(f"{where}: places are written as [place.NAME].")
    found = {name: _address(table, f"{where}: place {name!r}") for name, table in places.items()}
    rules = rules_of(raw.get("rule", []), where)
    for rule in rules:
        if rule.archive and rule.archive not in found:
            raise SettingsError(
                f"{where}: rule {rule.name!r}, key 'archive': there is no place {rule.archive!r}."
                f"{nearest(rule.archive, found)}",
                f"Write [place.{rule.archive}] with its address.",
            )
    return Policy(rules, found)


def rules_of(tables: Any, where: str) -> tuple[Rule, ...]:
    """The rules of a file, or of an experiment's record. Raises SettingsError."""
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise SettingsError(f"{where}: rules are written as [[rule]].")
    rules = tuple(_rule(table, where, number) for number, table in enumerate(tables, 1))
    names = [rule.name for rule in rules]
    if twice := next((n for n in names if names.count(n) > 1), ""):
        raise SettingsError(f"{where}: two rules are called {twice!r}.", "Each needs a name of its own.")
    return rules


def of_experiment(name: str, record: Any) -> tuple[Rule, ...]:
    """The rules in an experiment's record: `{"rule": [...]}`, or nothing."""
    where = f"experiment {name!r}"
    if not record:
        return ()
    if not isinstance(record, dict):
        raise SettingsError(f"{where}: 'retention' is a table with rules.")
    _known(record, ("rule",), where)
    return rules_of(record.get("rule", []), where)


def _rule(table: Mapping[str, Any], file: str, number: int) -> Rule:
    where = f"{file}: rule {table.get('name') or number!r}"
    _known(table, _KINDS, where)
    given = {key: _typed(key, value, where) for key, value in table.items()}
    if "keep" not in given:
        raise SettingsError(f"{where}: 'keep' is not said.", f'Write keep = "90 days", or "{FOR_EVER}".')
    kinds = [kind.value for kind in FileKind]
    for kind in given.get("kinds", ()):
        if kind not in kinds:
            raise SettingsError(f"{where}, key 'kinds': there is no kind {kind!r}.{nearest(kind, kinds)}")
    copies = given.get("copies", 1)
    if copies < 1:
        raise SettingsError(f"{where}, key 'copies': at least 1: the last copy is never removed.")
    if (elsewhere := given.get("elsewhere", ())) and copies > len(set(elsewhere)):
        raise SettingsError(f"{where}: {copies} copies cannot be in {len(set(elsewhere))} places.")
    keep = given.pop("keep")
    return Rule(
        **({"name": f"rule {number}"} | {k: v for k, v in given.items() if k != "grace"}),
        source=Path(file).name if "/" in file else file,
        keep_s=None if keep == FOR_EVER else _duration(keep, f"{where}, key 'keep'"),
        grace_s=_duration(given.get("grace", "0"), f"{where}, key 'grace'"),
    )


def _known(table: Mapping[str, Any], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise SettingsError(f"{where}: there is no key {key!r}.{nearest(key, known)}")


def _typed(key: str, value: Any, where: str) -> Any:
    kind = _KINDS[key]
    if kind is tuple:
        value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        good = isinstance(value, tuple) and all(isinstance(text, str) and text for text in value)
    else:
        good = isinstance(value, kind) and not isinstance(value, bool) and value != ""
    if not good:
        raise SettingsError(f"{where}, key {key!r}: it must be {_WANT[kind]}, not {value!r}.")
    return value


def _duration(text: str, where: str) -> float:
    try:
        return duration_s(text)
    except ValueError:
        hint = f'Write "90 days", "12 h", or for \'keep\' "{FOR_EVER}".'
        raise SettingsError(f"{where}: {text!r} is no length of time.", hint) from None


def _address(table: Mapping[str, Any], where: str) -> str:
    _known(table, ("address",), where)
    address = table.get("address")
    if not isinstance(address, str) or not (address.startswith("/") or "://" in address):
        raise SettingsError(
            f"{where}, key 'address': it must be a folder of this host (/…) or an address (SCHEME://…)."
        )
    return address.rstrip("/") or "/"
