"""The tables. SQL is portable: no type or function that SQLite or PostgreSQL alone has.

Text is `Words`: what hosts and guests say can always be written. Times are milliseconds since 1970
(UTC). `migrations/` makes and changes these tables; a test holds
that both say the same.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Words(TypeDecorator[str]):
    """Text without NUL, which PostgreSQL can't hold; U+FFFD stands for it."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        return value if value is None else value.replace("\0", "\ufffd")


class LongWords(Words):
    """As long as it likes."""

    impl = Text
    cache_ok = True


# SQLite counts by itself in INTEGER primary keys only.
COUNTER = BigInteger().with_variant(Integer, "sqlite")

projects = Table(
    "projects",
    metadata,
    Column("id", Words(63), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Words(20), primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False, index=True),
    Column("name", Words(64), nullable=False),
    Column("digest", Words(64), nullable=False, unique=True),
    Column("prefix", Words(8), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

hosts = Table(
    "hosts",
    metadata,
    Column("id", Words(63), primary_key=True),
    Column("status", Words(16), nullable=False),
    Column("reason", LongWords, nullable=False),
    Column("installation", Words(6), nullable=False),
    Column("seen_ms", BigInteger),
    Column("facts", JSON, nullable=False),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", Words(20), primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("host", ForeignKey("hosts.id"), nullable=False),
    Column("state", Words(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("host_revision", BigInteger, nullable=False),
    Column("template", Words(63), nullable=False),
    Column("tier", Words(16), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("mem_mib", Integer, nullable=False),
    Column("disk_mib", Integer, nullable=False),
    Column("expiry", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("versions", JSON, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("address", Words(45), nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("error", LongWords, nullable=False),
    Column("cause", Words(32), nullable=False),
    Column("is_kept", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("active_ms", BigInteger),
    Column("expires_ms", BigInteger),
    Column("source", String(20), nullable=False, server_default=""),
    Index("ix_sandboxes_project_created_ms_id", "project", "created_ms", "id"),
    Index("ix_sandboxes_host_state", "host", "state"),
)

# Images belong to no project: theirs is "".
templates = Table(
    "templates",
    metadata,
    Column("project", Words(63), primary_key=True),
    Column("name", Words(63), primary_key=True),
    Column("host", ForeignKey("hosts.id"), nullable=False),
    # Its name on the host: another project may have the same name already.
    Column("host_name", Words(63), nullable=False, unique=True),
    Column("kind", Words(16), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("mem_mib", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("tier", Words(16), nullable=False),
    Column("sandbox", Words(20), nullable=False),
    Column("error", LongWords, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", COUNTER, primary_key=True, autoincrement=True),
    Column("project", Words(63), nullable=False),
    Column("sandbox", Words(20), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", Words(32), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_events_sandbox_id", "sandbox", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("project", Words(63), primary_key=True),
    Column("key", Words(255), primary_key=True),
    Column("digest", Words(64), nullable=False),
    Column("result", Words(63), nullable=False),
    Column("created_ms", BigInteger, nullable=False, index=True),
)

# What ran in each minute, for the older shape's statistics.
usage = Table(
    "usage",
    metadata,
    Column("project", Words(63), primary_key=True),
    Column("minute", BigInteger, primary_key=True),
    Column("running", Integer, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("mem_mib", Integer, nullable=False),
)
