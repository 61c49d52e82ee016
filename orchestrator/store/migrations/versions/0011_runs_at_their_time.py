"""Each index on runs holds all that a search asks for, in the order of its answer."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

KEYS = {
    "status_created_at": ["status", "created_at"],
    "workflow_status_created_at": ["workflow", "status", "created_at"],
    "experiment_status_created_at": ["experiment", "status", "created_at"],
}


def upgrade() -> None:
    for name, columns in KEYS.items():
        _create(f"ix_runs_{name}_id", [*columns, "id"])
        op.drop_index(f"ix_runs_{name}", "runs")


def downgrade() -> None:
    for name, columns in KEYS.items():
        _create(f"ix_runs_{name}", columns)
        op.drop_index(f"ix_runs_{name}_id", "runs")


def _create(name: str, columns: list[str]) -> None:
    by_experiment = columns[0] == "experiment"
    some = sa.text("experiment <> ''") if by_experiment else None
    columns = [*columns, "workflow"] if by_experiment else columns
    op.create_index(name, "runs", columns, sqlite_where=some, postgresql_where=some)
