"""Files of the catalog found by what they are, the newest first.

A search is a set of conditions, each of which an index answers for any part of the files: a value, a range of numbers,
the beginning of a word, a state of copies. It goes from the newest part back, through 1, 4, 16… parts at once as long
as it finds few, and through one when it finds many. In each it counts, no further than needed, how many files each
condition holds for, reads those of the rarest, and keeps of them what the others hold for as well: read from their own
indexes when they are few too, else looked up by file. So what is rare is found at once, whatever it is combined with,
and what is common fills a page in the newest part. What two common conditions hardly ever have in common is looked for
no longer than `LONGEST_S`; then the page ends, and its cursor goes on from there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    any_,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import NullType

from orchestrator.errors import ArgumentError
from orchestrator.store import catalog, catalog_values, schema
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.catalog_values import ADDED, EXPERIMENT, KIND, NAME, TEXT
from orchestrator.store.database import Database
from orchestrator.store.texts import key, storable

MANY = 8192  # files of a condition in some parts: more are not counted, and fewer parts are looked into
FEW = 256  # as long as one has fewer, the others are not counted further
PARTS_MOST = 1024  # at once
CHEAPER = 16  # so many files of another condition are read in the time that one is looked up; cold more
LONGEST_S = 0.05
ALGORITHMS = ("xxh3", "sha256", "md5")

_f, _v, _w, _r = schema.catalog_files.c, schema.catalog_values.c, schema.catalog_words.c, schema.replicas.c
_c = schema.collection_files.c


class Match(Struct, frozen=True):
    """A condition on a key of the metadata: `text` itself, or a number from `low` to `high`."""

    key: str
    text: str | None = None
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # `low` itself is not meant
    open_high: bool = False


class Wanted(Struct, frozen=True):
    """Which files; what is empty is left open. Times are epoch seconds: from `since` on, and before `until`."""

    experiments: tuple[str, ...] | None = None  # any of these; () is none at all
    kind: str = ""
    name: str = ""  # the beginning of a path, of a name, or of a word in a name
    texts: tuple[str, ...] = ()  # each the beginning of a word in a name or in the metadata
    matches: tuple[Match, ...] = ()
    checksum: str = ""  # with its algorithm or without
    copies: str = ""  # the state of one of its copies
    place: str = ""  # where that copy is; needs `copies`
    collection: str = ""  # of the one experiment
    since: float = 0.0
    until: float = 0.0
    superseded: bool = False  # also those that have another content now
    before: int = 0  # after this one in the list, which goes back


class Page(Struct, frozen=True):
    """`before`: of the next page; 0 when there is none. A page may end before it is full."""

    files: list[CatalogFile]
    before: int


def listing(database: Database, wanted: Wanted, *, limit: int = 50, longest_s: float = LONGEST_S) -> Page:
    """Raises ArgumentError for conditions that do not go together."""
    conditions = list(_conditions(wanted))
    with database.read() as connection:
        if database.postgresql:  # as each query is made for one index; and a plan made once can be a bad one for these
            unwanted = ("enable_seqscan", "enable_bitmapscan", "jit")
            connection.exec_driver_sql("".join(f"SET LOCAL {name} = off; " for name in unwanted) + _CUSTOM)
        found: list[CatalogFile] = []
        before = wanted.before or 1 + (connection.execute(select(func.max(_f.id))).scalar() or 0)
        over = time.monotonic() + longest_s
        for ids, low in _walk(connection, conditions, before, limit):
            found += _rows(connection, ids, wanted.superseded, limit - len(found))
            if len(found) >= limit:
                return Page(found, found[-1].id if found[-1].id > 1 else 0)
            before = low
            if time.monotonic() > over:
                break
    return Page(found, before if before > 1 else 0)


_CUSTOM = "SET LOCAL plan_cache_mode = force_custom_plan"


def _rows(connection: Connection, ids: Sequence[int], superseded: bool, limit: int) -> list[CatalogFile]:
    """The first of these that are wanted; the few that are superseded are met here."""
    found: list[CatalogFile] = []
    for start in range(0, len(ids), limit):
        for file in catalog.several(connection, ids[start : start + limit]):
            if superseded or not file.superseded_at:
                found.append(file)
        if len(found) >= limit:
            return found[:limit]
    return found


# -------------------------------------------------------------------------------------------------------- the walk


class Window(Struct, frozen=True):
    """The files from `low` on, and before `high`."""

    low: int
    high: int

    @property
    def parts(self) -> range:
        return range(catalog_values.part(self.low), catalog_values.part(self.high - 1) + 1)


def _walk(
    connection: Connection, conditions: Sequence[Condition], before: int, limit: int
) -> Iterator[tuple[list[int], int]]:
    """(the ids in a window, the newest first; where it begins), from the newest window back."""
    if not conditions:
        yield from _all(connection, before, limit)
        return
    at_once = 1
    while before > 1:
        first = max(0, catalog_values.part(before - 1) + 1 - at_once)
        window = Window(first * catalog_values.PART, before)
        sizes = _sizes(connection, conditions, window, FEW)
        if min(sizes) == FEW:
            sizes = _sizes(connection, conditions, window, MANY)
        fewest = min(sizes)
        if fewest >= MANY and at_once > 1:
            at_once //= 4
            continue
        ids = _in_window(connection, conditions, sizes, window) if fewest else set()
        yield sorted(ids, reverse=True), window.low
        before = window.low
        if fewest < MANY // 4:
            at_once = min(4 * at_once, PARTS_MOST)


def _all(connection: Connection, before: int, limit: int) -> Iterator[tuple[list[int], int]]:
    while before > 1:
        query = select(_f.id).where(_f.id < before).order_by(_f.id.desc()).limit(limit)
        ids = list(connection.execute(query).scalars())
        before = ids[-1] if len(ids) == limit else 0
        yield ids, before


def _sizes(connection: Connection, conditions: Sequence[Condition], window: Window, most: int) -> list[int]:
    """How many files (words, values) there are for each, counted up to `most`."""
    counts = (
        select(func.count()).select_from(c.within(window).limit(most).subquery()).scalar_subquery() for c in conditions
    )
    return list(connection.execute(select(*counts)).one())


def _in_window(
    connection: Connection, conditions: Sequence[Condition], sizes: Sequence[int], window: Window
) -> set[int]:
    """The files for which all of these hold."""
    ordered = sorted(zip(sizes, conditions, strict=True), key=lambda each: each[0])
    ids = _ids(connection, ordered[0][1].within(window))
    for size, condition in ordered[1:]:
        if not ids:
            break
        counted = size != FEW and (size < MANY or len(window.parts) == 1)  # one part has not many more
        few = counted and size < CHEAPER * len(ids)
        query = condition.within(window) if few else condition.among(connection, ids)
        ids &= _ids(connection, query)
    return ids


def _ids(connection: Connection, query: Any) -> set[int]:
    """As one value, which costs a tenth of as many rows."""
    gathered = func.array_agg if connection.dialect.name == "postgresql" else func.json_group_array
    found = connection.execute(select(gathered(query.subquery().c.id, type_=NullType()))).scalar()
    return set(json.loads(found) if isinstance(found, str) else found or ())


# ------------------------------------------------------------------------------------------------------ conditions


class Condition(Struct, frozen=True):
    """Rows of one table that each speak of one file, and what they are to be: any of some alternatives.

    `part`: its column, where the index has it in front of the values.
    """

    file_id: Any
    such: tuple[tuple[ColumnElement[bool], ...], ...]
    part: Any = None
    indexed: tuple[ColumnElement[bool], ...] = ()  # what the index of its values says of all that is in it

    def within(self, window: Window) -> Any:
        """Along the index of its values."""
        bounds = [self.file_id >= window.low, self.file_id < window.high]
        if self.part is not None:
            whole = window.high % catalog_values.PART == 0  # nothing else is in these parts
            bounds = [self.part.in_(list(window.parts)), *(() if whole else bounds)]
        return self._select(*self.indexed, *bounds)

    def among(self, connection: Connection, ids: Iterable[int]) -> Any:
        """By file."""
        given = list(ids)
        if connection.dialect.name == "postgresql":
            # It may go by the value where the files are, but not through all parts; told a list of parts it would.
            first, last = catalog_values.part(min(given)), catalog_values.part(max(given))
            parts = () if self.part is None else (self.part.between(first, last),)
            return self._select(self.file_id == any_(bindparam(None, given, ARRAY(BigInteger))), *parts)
        # One parameter however many; the database is kept from going by the value.
        listed = func.json_each(json.dumps(given)).table_valued("value")
        return self._select(self.file_id.in_(select(listed.c.value)))

    def _select(self, *more: ColumnElement[bool]) -> Any:
        every: list[Any] = [select(self.file_id.label("id")).where(*such, *more) for such in self.such]
        return union_all(*every) if len(every) > 1 else every[0]


def _conditions(wanted: Wanted) -> Iterator[Condition]:
    if wanted.experiments is not None:
        yield _text(EXPERIMENT, *wanted.experiments)
    if wanted.kind:
        yield _text(KIND, wanted.kind)
    if wanted.name:
        yield _words(wanted.name, NAME)
    for text in wanted.texts:
        yield _words(text, NAME, TEXT)
    for match in wanted.matches:
        yield _text(match.key, match.text) if match.text is not None else _range(match)
    if wanted.since or wanted.until:
        yield _range(Match(ADDED, None, wanted.since, wanted.until or math.inf, open_high=True))
    if wanted.checksum:
        digest = storable(wanted.checksum)
        said = [digest, *(f"{algorithm}:{digest}" for algorithm in ALGORITHMS)]
        yield Condition(_f.id, ((_f.checksum.in_(said),),))
    if wanted.copies:
        where = (_r.place == storable(wanted.place),) if wanted.place else ()
        yield Condition(_r.file_id, ((_r.state == wanted.copies, *where),))
    elif wanted.place:
        raise ArgumentError("A place needs the state of the copies there.", "Say --copies verified, for example.")
    if wanted.collection:
        if wanted.experiments is None or len(wanted.experiments) != 1:
            raise ArgumentError("A collection is one of an experiment.", "Name the experiment.")
        such = (_c.experiment == key(wanted.experiments[0]), _c.name == key(wanted.collection))
        yield Condition(_c.file_id, (such,))


def _text(name: str, *texts: str) -> Condition:
    such = _v.key == name, _v.text.in_([key(text) for text in texts])
    return Condition(_v.file_id, (such,), indexed=(_v.number.is_(literal_column("NULL")),))


def _range(match: Match) -> Condition:
    such = [_v.key == match.key, _v.number.is_not(literal_column("NULL"))]
    if match.low > -math.inf:
        such.append(_v.number > match.low if match.open_low else _v.number >= match.low)
    if match.high < math.inf:
        such.append(_v.number < match.high if match.open_high else _v.number <= match.high)
    return Condition(_v.file_id, (tuple(such),), _v.part)


def _words(text: str, *where: bytes) -> Condition:
    ranges = [catalog_values.beginning(each, text) for each in where]
    return Condition(_w.file_id, tuple((_w.word >= low, _w.word < high) for low, high in ranges), _w.part)
