"""Watched directories, and what was seen in them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
RunId = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "watches",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("experiment", sa.Text, nullable=False),
        sa.Column("directory", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("baseline_at", sa.Float, nullable=False),
        sa.Column("stopped_at", sa.Float, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
    )
    op.create_table(
        "arrivals",
        sa.Column("id", Number, primary_key=True, autoincrement=True),
        sa.Column("watch", sa.String(128), nullable=False),
        sa.Column("place", sa.LargeBinary(16), nullable=False),
        sa.Column("experiment", sa.Text, nullable=False),
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.String(96), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("run_key", sa.String(64), nullable=True),
        sa.Column("content_key", sa.String(64), nullable=True),
        sa.Column("same_as", sa.String(64), nullable=True),
        sa.Column("run_id", RunId, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("decided_at", sa.Float, nullable=False),
        sa.Column("doc", sa.Text, nullable=False),
        sa.UniqueConstraint("watch", "place", name="uq_arrivals_watch_place"),
        sa.UniqueConstraint("run_key", name="uq_arrivals_run_key"),
        sa.UniqueConstraint("content_key", name="uq_arrivals_content_key"),
    )
    some = sa.text("same_as IS NOT NULL")
    op.create_index("ix_arrivals_same_as", "arrivals", ["same_as"], sqlite_where=some, postgresql_where=some)
    op.create_index("ix_arrivals_state_experiment_id", "arrivals", ["state", "experiment", "id"])


def downgrade() -> None:
    op.drop_table("arrivals")
    op.drop_table("watches")
