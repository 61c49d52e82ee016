"""Runs are found by experiment and file, and by the beginning of their id in the order of its bytes."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from orchestrator.store import files, texts

revision = "0004"
down_revision = "0003"

IDS = {"runs": "id", "stages": "run_id", "tasks": "run_id", "events": "run_id", "placements": "run_id"}


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    run_id = sa.String(64, collation="C") if postgresql else sa.String(64)
    if postgresql:
        for table, column in IDS.items():
            op.alter_column(table, column, type_=run_id)
        op.alter_column("events", "seq", type_=sa.BigInteger)
        op.execute("ALTER SEQUENCE events_seq_seq AS BIGINT")
    op.add_column("runs", sa.Column("experiment", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "run_files",
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("word", sa.LargeBinary, primary_key=True),
        sa.Column("created_at", sa.Float, primary_key=True),
        sa.Column("run_id", run_id, primary_key=True),
        sqlite_with_rowid=False,
    )
    _fill(op.get_bind())
    op.drop_index("ix_runs_created_at", "runs")
    op.drop_index("ix_runs_workflow_created_at", "runs")
    op.create_index("ix_runs_workflow_status_created_at", "runs", ["workflow", "status", "created_at"])
    some = sa.text("experiment <> ''")
    op.create_index(
        "ix_runs_experiment_status_created_at",
        "runs",
        ["experiment", "status", "created_at", "workflow"],
        sqlite_where=some,
        postgresql_where=some,
    )


def _fill(connection: sa.Connection) -> None:
    """What the new columns and rows say of the runs that there are."""
    some = sa.text("SELECT id, created_at, request FROM runs WHERE id > :last ORDER BY id LIMIT 1000")
    name = sa.text("UPDATE runs SET experiment = :experiment WHERE id = :id")
    put = sa.text("INSERT INTO run_files (part, word, created_at, run_id) VALUES (:part, :word, :created_at, :run_id)")
    last = ""
    while found := connection.execute(some, {"last": last}).all():
        last = found[-1].id
        names, words = [], []
        for row in found:
            asked = json.loads(row.request)
            experiment = asked["variables"].get("experimentName", "")
            names += [{"id": row.id, "experiment": texts.key(experiment)}] if experiment else []
            paths = files.paths(asked["files"], asked["variables"], asked["directory"])
            words += files.rows(row.id, row.created_at, paths)
        for statement, values in ((name, names), (put, words)):
            if values:
                connection.execute(statement, values)


def downgrade() -> None:
    op.drop_table("run_files")
    op.drop_index("ix_runs_experiment_status_created_at", "runs")
    op.drop_index("ix_runs_workflow_status_created_at", "runs")
    op.create_index("ix_runs_workflow_created_at", "runs", ["workflow", "created_at"])
    op.create_index("ix_runs_created_at", "runs", ["created_at"])
    op.drop_column("runs", "experiment")
