"""The catalog: experiments, files and their metadata, copies, collections, provenance, and what retention decided."""

import json

import sqlalchemy as sa
from alembic import op

from orchestrator.store import texts

revision = "0013"
down_revision = "0012"

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
RunId = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
Plain = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
FILES: tuple[tuple[str, ...], ...] = (
    ("experiment", "kind", "added_at", "id"),
    ("path_key", "id"),
    ("checksum", "id"),
    ("maker",),
)


def upgrade() -> None:
    _say_who_sees_runs()
    op.create_index("ix_arrivals_watch_state_id", "arrivals", ["watch", "state", "id"])
    begun = sa.text("run_id <> ''")
    op.create_index("ix_arrivals_run_id", "arrivals", ["run_id"], sqlite_where=begun, postgresql_where=begun)
    op.create_table(
        "watch_reports",
        sa.Column("watch", sa.String(128), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
    )
    op.create_table(
        "arrival_parts",
        sa.Column("watch", sa.String(128), primary_key=True),
        sa.Column("place", sa.LargeBinary(16), primary_key=True),
        sa.Column("doc", sa.Text, nullable=False),
    )
    op.create_table(
        "experiments",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
    )
    op.create_table(
        "experiment_people",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_experiment_people_person", "experiment_people", ["person"])
    op.create_table(
        "catalog_files",
        sa.Column("id", Number, primary_key=True, autoincrement=True),
        sa.Column("experiment", sa.Text, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("name_key", sa.LargeBinary(16), nullable=False),
        sa.Column("path_key", sa.LargeBinary(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("checksum", sa.String(160), nullable=False),
        sa.Column("added_at", sa.Float, nullable=False),
        sa.Column("superseded_at", sa.Float, nullable=False),
        sa.Column("maker", RunId, nullable=False),
        sa.Column("part_of", Number, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
        sa.UniqueConstraint("name_key", name="uq_catalog_files_name_key"),
    )
    for columns in FILES:
        op.create_index("ix_catalog_files_" + "_".join(columns), "catalog_files", list(columns))
    only = sa.text("superseded_at > 0")  # what is stale is looked for from there
    name = "ix_catalog_files_superseded_at"
    op.create_index(name, "catalog_files", ["superseded_at"], sqlite_where=only, postgresql_where=only)
    part = sa.text("part_of > 0")
    op.create_index("ix_catalog_files_part_of", "catalog_files", ["part_of"], sqlite_where=part, postgresql_where=part)
    op.create_table(
        "catalog_words",
        sa.Column("file_id", Number, primary_key=True, autoincrement=False),
        sa.Column("word", sa.LargeBinary, primary_key=True),
        sa.Column("part", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_catalog_words_part_word_file_id", "catalog_words", ["part", "word", "file_id"])
    op.create_table(
        "catalog_values",
        sa.Column("file_id", Number, primary_key=True, autoincrement=False),
        sa.Column("key", Plain, primary_key=True),
        sa.Column("text", Plain, primary_key=True),
        sa.Column("number", sa.Float, nullable=True),
        sa.Column("part", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    for columns, which in (
        (("key", "part", "number", "file_id"), "number IS NOT NULL"),
        (("key", "text", "file_id", "number"), "number IS NULL"),
    ):
        op.create_index(
            "ix_catalog_values_" + "_".join(columns),
            "catalog_values",
            list(columns),
            sqlite_where=sa.text(which),
            postgresql_where=sa.text(which),
        )
    op.create_table(
        "replicas",
        sa.Column("file_id", Number, primary_key=True, autoincrement=False),
        sa.Column("place", sa.String(128), primary_key=True),
        sa.Column("address_key", sa.LargeBinary(16), primary_key=True),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("pinned", sa.Integer, nullable=False),
        sa.Column("verified_at", sa.Float, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_replicas_place_address_key", "replicas", ["place", "address_key"])
    op.create_index("ix_replicas_state_file_id_place", "replicas", ["state", "file_id", "place"])
    op.create_table(
        "collections",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
    )
    op.create_table(
        "collection_files",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("file_id", Number, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_collection_files_file_id", "collection_files", ["file_id"])
    op.create_table(
        "uses",
        sa.Column("run_id", RunId, primary_key=True),
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("file_id", Number, primary_key=True, autoincrement=False),
        sa.Column("doc", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_uses_file_id_role", "uses", ["file_id", "role"])
    op.create_table(
        "retention_log",
        sa.Column("id", Number, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("experiment", sa.Text, nullable=False),
        sa.Column("file_id", Number, nullable=False),
        sa.Column("place", sa.String(128), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
    )
    for columns in (("file_id", "id"), ("experiment", "id")):
        op.create_index("ix_retention_log_" + "_".join(columns), "retention_log", list(columns))
    op.create_table(
        "pins",
        sa.Column("what", sa.String(16), primary_key=True),
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "removals",
        sa.Column("file_id", Number, primary_key=True, autoincrement=False),
        sa.Column("place", sa.String(128), nullable=False),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_removals_holder", "removals", ["holder"])
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("seq", Number, nullable=False),
    )


def _say_who_sees_runs() -> None:
    """Of the runs that there are each is open: no experiment has had people yet."""
    op.add_column("runs", sa.Column("username", sa.Text, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("open", sa.Integer, nullable=False, server_default="1"))
    connection = op.get_bind()
    some = sa.text("SELECT id, request FROM runs WHERE id > :last ORDER BY id LIMIT 1000")
    put = sa.text("UPDATE runs SET username = :username WHERE id = :id")
    last = ""
    while found := connection.execute(some, {"last": last}).all():
        last = found[-1].id
        names = ((row.id, json.loads(row.request).get("username", "")) for row in found)
        connection.execute(put, [{"id": run_id, "username": texts.key(name)} for run_id, name in names])
    for columns in (["status"], ["workflow", "status"]):
        op.drop_index("_".join(["ix_runs", *columns, "created_at_id"]), "runs")
        columns = [*columns, "open", "created_at", "id"]
        op.create_index("_".join(["ix_runs", *columns]), "runs", columns)
    columns, closed = ["username", "status", "created_at", "id"], sa.text("open <> 1 AND username <> ''")
    name = "_".join(["ix_runs", *columns])
    op.create_index(name, "runs", columns, sqlite_where=closed, postgresql_where=closed)
