"""How long attempts and transfers took, and where stages were placed: what predictions are made from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "timings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("call", sa.Text, nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("input_bytes", sa.BigInteger, nullable=False),
        sa.Column("nodes", sa.Integer, nullable=False),
        sa.Column("ranks", sa.Integer, nullable=False),
        sa.Column("gpus", sa.Integer, nullable=False),
        sa.Column("transfer_s", sa.Float, nullable=False),
        sa.Column("queue_s", sa.Float, nullable=False),
        sa.Column("compute_s", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_timings_workflow_stage_site_id", "timings", ["workflow", "stage", "site", "id"])
    op.create_table(
        "rates",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("from_site", sa.Text, nullable=False),
        sa.Column("to_site", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_rates_from_site_to_site_id", "rates", ["from_site", "to_site", "id"])
    op.create_table(
        "placements",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("chosen", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("reservation", sa.Text, nullable=False),
        sa.Column("predicted_transfer_s", sa.Float, nullable=False),
        sa.Column("predicted_queue_s", sa.Float, nullable=False),
        sa.Column("predicted_compute_s", sa.Float, nullable=False),
        sa.Column("raw_queue_s", sa.Float, nullable=False),
        sa.Column("transfer_s", sa.Float, nullable=True),
        sa.Column("queue_s", sa.Float, nullable=True),
        sa.Column("compute_s", sa.Float, nullable=True),
        sa.Column("doc", sa.Text, nullable=False),
        sa.UniqueConstraint("run_id", "stage", "attempt", name="uq_placements_run_id_stage_attempt"),
    )
    op.create_index("ix_placements_chosen_id", "placements", ["chosen", "id"])


def downgrade() -> None:
    for table in ("placements", "rates", "timings"):
        op.drop_table(table)
