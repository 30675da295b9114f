"""What a sandbox was forked from.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("source", sa.String(length=20), nullable=False, server_default="")
    op.add_column("sandboxes", column)
