"""The tables. Columns are what is searched, sorted or counted; the rest of a record is its JSON `doc`.

Texts in `doc` columns are ASCII-safe (`orchestrator.codec`), so that a file name in any encoding survives.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# Ordered by their bytes whatever the language of the server, so that the beginning of one is found by an index.
RunId = String(64).with_variant(String(64, collation="C"), "postgresql")
Plain = Text().with_variant(Text(collation="C"), "postgresql")  # ordered by its bytes, which costs a third
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows in an INTEGER only, which is as large

# Many runs share one plan: it is stored once, under the digest of its text.
plans = Table(
    "plans",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("doc", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", RunId, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("experiment", Text, nullable=False, server_default=""),  # empty: of none
    Column("owner", Text, nullable=False),
    Column("username", Text, nullable=False, server_default=""),  # who asked for it
    Column("open", Integer, nullable=False, server_default="1"),  # 0: its experiment had people already: see `sight`
    Column("status", String(16), nullable=False),
    Column("stage", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("parent", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("plan", String(64), nullable=False),
    Column("request", Text, nullable=False),  # what was asked: arguments, files, directory, user, host
    Column("doc", Text, nullable=False),  # what was learned: captured variables, resolved files, counters
    # All with the state in front of the time, and what a search asks for in each: `search` says why.
    Index("ix_runs_status_open_created_at_id", "status", "open", "created_at", "id"),
    Index("ix_runs_workflow_status_open_created_at_id", "workflow", "status", "open", "created_at", "id"),
    Index(
        "ix_runs_username_status_created_at_id",
        *("username", "status", "created_at", "id"),
        sqlite_where=text("open <> 1 AND username <> ''"),
        postgresql_where=text("open <> 1 AND username <> ''"),
    ),
    Index(
        "ix_runs_experiment_status_created_at_id",
        *("experiment", "status", "created_at", "id", "workflow"),
        sqlite_where=text("experiment <> ''"),
        postgresql_where=text("experiment <> ''"),
    ),
)

# By which words a run's files are found; `files` says how.
run_files = Table(
    "run_files",
    metadata,
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("word", LargeBinary, primary_key=True),
    Column("created_at", Float, primary_key=True),
    Column("run_id", RunId, primary_key=True),
    sqlite_with_rowid=False,
)

stages = Table(
    "stages",
    metadata,
    Column("run_id", RunId, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("doc", Text, nullable=False),
    sqlite_with_rowid=False,  # one tree instead of two: half the pages a commit writes
)

tasks = Table(
    "tasks",
    metadata,
    Column("run_id", RunId, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("doc", Text, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("seq", Number, primary_key=True, autoincrement=True),
    Column("run_id", RunId, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("stage", Text, nullable=False),
    Column("number", Integer, nullable=False),  # -1: not about one task
    Column("attempt", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Index("ix_events_run_id_seq", "run_id", "seq"),
)

# The three below are what predictions are made from; each is kept short by `history`, which drops the oldest per key.
timings = Table(
    "timings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("workflow", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("call", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("input_bytes", BigInteger, nullable=False),
    Column("nodes", Integer, nullable=False),
    Column("ranks", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("transfer_s", Float, nullable=False),
    Column("queue_s", Float, nullable=False),
    Column("compute_s", Float, nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_timings_workflow_stage_site_id", "workflow", "stage", "site", "id"),
)

rates = Table(
    "rates",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("from_site", Text, nullable=False),
    Column("to_site", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_rates_from_site_to_site_id", "from_site", "to_site", "id"),
)

placements = Table(
    "placements",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", RunId, nullable=False),
    Column("stage", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("chosen", Text, nullable=False),  # site; empty: none could take it
    Column("queue", Text, nullable=False),
    Column("reservation", Text, nullable=False),
    Column("predicted_transfer_s", Float, nullable=False),
    Column("predicted_queue_s", Float, nullable=False),
    Column("predicted_compute_s", Float, nullable=False),
    Column("raw_queue_s", Float, nullable=False),  # before its correction; below 0: nothing to learn from it
    Column("transfer_s", Float, nullable=True),  # what it took, null until it is known
    Column("queue_s", Float, nullable=True),
    Column("compute_s", Float, nullable=True),
    Column("doc", Text, nullable=False),
    UniqueConstraint("run_id", "stage", "attempt"),
    Index("ix_placements_chosen_id", "chosen", "id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),  # SHA-256 of its secret part
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("site", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),  # 0: never
    Column("revoked_at", Float, nullable=False),  # 0: it has not been
)

# Who may act, one row a role. The number in `fence` grows with each change of hands and never falls.
leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", Text, nullable=False),  # empty: given back
    Column("fence", BigInteger, nullable=False),
    Column("until", Float, nullable=False),  # by the database's clock
    Column("doc", Text, nullable=False),
)

# Runs that failed for good and that nobody has dealt with; `doc`: arguments that another one in its place is to have.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("experiment", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("failure", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("doc", Text, nullable=False),
    Index("ix_dead_letters_at", "at"),
)

# Directories that are watched. `directory`: its path in bytes; `doc`: its rules, and what the root was at first.
watches = Table(
    "watches",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("experiment", Text, nullable=False),
    Column("directory", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("baseline_at", Float, nullable=False),  # when its first whole scan was over; 0: not yet
    Column("stopped_at", Float, nullable=False),  # 0: it is watched
    Column("doc", Text, nullable=False),
)

# How each of them stands, as its watcher last said.
watch_reports = Table(
    "watch_reports",
    metadata,
    Column("watch", String(128), primary_key=True),
    Column("at", Float, nullable=False),
    Column("doc", Text, nullable=False),
)

# What was seen in them. A file that is changed or renamed is another row: `place` is a digest of name and fingerprint.
# The two keys make a second run impossible: of the same file (device, inode, size, mtime) or of the same content, with
# the same workflow version in the same experiment. They are null for whatever does not run.
arrivals = Table(
    "arrivals",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("watch", String(128), nullable=False),
    Column("place", LargeBinary(16), nullable=False),
    Column("experiment", Text, nullable=False),
    Column("name", LargeBinary, nullable=False),  # relative to the directory, in bytes
    Column("fingerprint", String(96), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("workflow", Text, nullable=False),  # with its version
    Column("run_key", String(64), nullable=True),
    Column("content_key", String(64), nullable=True),
    Column("same_as", String(64), nullable=True),  # of a duplicate: the key of the run that it needs none because of
    Column("run_id", RunId, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("decided_at", Float, nullable=False),
    Column("doc", Text, nullable=False),  # arguments and checksum
    UniqueConstraint("watch", "place"),
    UniqueConstraint("run_key"),
    UniqueConstraint("content_key"),
    Index(
        "ix_arrivals_same_as",
        "same_as",
        sqlite_where=text("same_as IS NOT NULL"),
        postgresql_where=text("same_as IS NOT NULL"),
    ),
    Index("ix_arrivals_state_experiment_id", "state", "experiment", "id"),
    Index("ix_arrivals_watch_state_id", "watch", "state", "id"),
    Index("ix_arrivals_run_id", "run_id", sqlite_where=text("run_id <> ''"), postgresql_where=text("run_id <> ''")),
)

# The parts of scans that have arrived, with what was seen of each, until they are in the catalog.
arrival_parts = Table(
    "arrival_parts",
    metadata,
    Column("watch", String(128), primary_key=True),
    Column("place", LargeBinary(16), primary_key=True),
    Column("doc", Text, nullable=False),
)

# ---------------------------------------------------------------------------------------------------- the catalog

# Whoever owns files, runs and people. `doc`: title, proposal, retention policy, metadata.
experiments = Table(
    "experiments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("doc", Text, nullable=False),
)

experiment_people = Table(
    "experiment_people",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    Column("role", String(16), nullable=False),
    Index("ix_experiment_people_person", "person"),
    sqlite_with_rowid=False,
)

# A file, or a tree of files, with one content. Other content under the same name is another row, and the one before
# it is superseded. `maker`: the run that made it; empty for what came from a detector or a person.
catalog_files = Table(
    "catalog_files",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("experiment", Text, nullable=False),
    Column("name", LargeBinary, nullable=False),  # its path where it was first seen, in bytes
    # Digests of experiment, name, and the site where its file is apart; the first of the checksum, too.
    Column("name_key", LargeBinary(16), nullable=False),
    Column("path_key", LargeBinary(16), nullable=False),
    Column("kind", String(16), nullable=False),  # raw, product, calibration, other
    Column("size", BigInteger, nullable=False),
    Column("checksum", String(160), nullable=False),  # `algorithm:digest`
    Column("added_at", Float, nullable=False),
    Column("superseded_at", Float, nullable=False),  # 0: it is the newest under its name
    Column("maker", RunId, nullable=False),
    Column("part_of", Number, nullable=False),
    Column("doc", Text, nullable=False),  # metadata
    UniqueConstraint("name_key"),
    Index("ix_catalog_files_experiment_kind_added_at_id", "experiment", "kind", "added_at", "id"),
    Index("ix_catalog_files_path_key_id", "path_key", "id"),
    Index("ix_catalog_files_checksum_id", "checksum", "id"),
    Index("ix_catalog_files_maker", "maker"),
    Index(
        "ix_catalog_files_part_of", "part_of", sqlite_where=text("part_of > 0"), postgresql_where=text("part_of > 0")
    ),
    Index(
        "ix_catalog_files_superseded_at",
        "superseded_at",
        sqlite_where=text("superseded_at > 0"),
        postgresql_where=text("superseded_at > 0"),
    ),
)

# By which words a file is found: those of its name, as in `run_files`, and those of its metadata. Here and below,
# `part` says which files lie together (`catalog_values.PART`): a search goes from the newest part back.
catalog_words = Table(
    "catalog_words",
    metadata,
    Column("file_id", Number, primary_key=True, autoincrement=False),
    Column("word", LargeBinary, primary_key=True),
    Column("part", Integer, nullable=False),
    Index("ix_catalog_words_part_word_file_id", "part", "word", "file_id"),
    sqlite_with_rowid=False,
)

# Its metadata, a row for each value that can be searched, and what else it is searched by: see `catalog_values`.
# `number` is null for what is not one.
catalog_values = Table(
    "catalog_values",
    metadata,
    Column("file_id", Number, primary_key=True, autoincrement=False),
    Column("key", Plain, primary_key=True),
    Column("text", Plain, primary_key=True),
    Column("number", Float, nullable=True),
    Column("part", Integer, nullable=False),
    Index(
        "ix_catalog_values_key_part_number_file_id",
        *("key", "part", "number", "file_id"),
        sqlite_where=text("number IS NOT NULL"),
        postgresql_where=text("number IS NOT NULL"),
    ),
    Index(
        "ix_catalog_values_key_text_file_id_number",  # the number so that SQLite reads nothing else
        *("key", "text", "file_id", "number"),
        sqlite_where=text("number IS NULL"),
        postgresql_where=text("number IS NULL"),
    ),
    sqlite_with_rowid=False,
)

# Which copies there are, where, and when each was last seen right. `place`: a site; `address`: a path there, or a URL.
replicas = Table(
    "replicas",
    metadata,
    Column("file_id", Number, primary_key=True, autoincrement=False),
    Column("place", String(128), primary_key=True),
    Column("address_key", LargeBinary(16), primary_key=True),  # digest of the address
    Column("address", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("pinned", Integer, nullable=False),  # 1: it is never pruned
    Column("verified_at", Float, nullable=False),  # 0: never
    Column("doc", Text, nullable=False),  # what was seen then
    Index("ix_replicas_place_address_key", "place", "address_key"),
    Index("ix_replicas_state_file_id_place", "state", "file_id", "place"),
    sqlite_with_rowid=False,
)

collections = Table(
    "collections",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("doc", Text, nullable=False),
)

collection_files = Table(
    "collection_files",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("file_id", Number, primary_key=True, autoincrement=False),
    Index("ix_collection_files_file_id", "file_id"),
    sqlite_with_rowid=False,
)

# Which files a run read and made. `role`: input, calibration, product. `doc`: stage, and what made it.
uses = Table(
    "uses",
    metadata,
    Column("run_id", RunId, primary_key=True),
    Column("role", String(16), primary_key=True),
    Column("file_id", Number, primary_key=True, autoincrement=False),
    Column("doc", Text, nullable=False),
    Index("ix_uses_file_id_role", "file_id", "role"),
    sqlite_with_rowid=False,
)

# Each decision about a copy, with its evidence; rows are only added.
retention_log = Table(
    "retention_log",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("experiment", Text, nullable=False),
    Column("file_id", Number, nullable=False),
    Column("place", String(128), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("doc", Text, nullable=False),
    Index("ix_retention_log_file_id_id", "file_id", "id"),
    Index("ix_retention_log_experiment_id", "experiment", "id"),
)

# What nobody's rule removes. `what`: file, collection, experiment; `target`: its number, its name, nothing.
pins = Table(
    "pins",
    metadata,
    Column("what", String(16), primary_key=True),
    Column("experiment", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("who", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)

# Copies that are being removed, one at a time for each file: noted before they are touched, gone when they are.
removals = Table(
    "removals",
    metadata,
    Column("file_id", Number, primary_key=True, autoincrement=False),
    Column("place", String(128), nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("holder", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_removals_holder", "holder"),
)

# How far somebody who follows what happens has come, written in the transaction of what was done about it.
cursors = Table(
    "cursors",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("seq", Number, nullable=False),
)
