"""The tables. SQL is portable: no type or function that SQLite or PostgreSQL alone has.

Times are milliseconds since 1970 (UTC). `migrations/` makes and changes these tables; a test holds
that both say the same.
"""

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
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts by itself in INTEGER primary keys only.
COUNTER = BigInteger().with_variant(Integer, "sqlite")

projects = Table(
    "projects",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("prefix", String(8), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

hosts = Table(
    "hosts",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("installation", String(6), nullable=False),
    Column("seen_ms", BigInteger),
    Column("facts", JSON, nullable=False),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("host", ForeignKey("hosts.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("host_revision", BigInteger, nullable=False),
    Column("template", String(63), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("mem_mib", Integer, nullable=False),
    Column("disk_mib", Integer, nullable=False),
    Column("expiry", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("versions", JSON, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("address", String(45), nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("cause", String(32), nullable=False),
    Column("is_kept", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("active_ms", BigInteger),
    Column("expires_ms", BigInteger),
    Index("ix_sandboxes_project_created_ms_id", "project", "created_ms", "id"),
    Index("ix_sandboxes_host_state", "host", "state"),
)

# Images belong to no project: theirs is "".
templates = Table(
    "templates",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("host", ForeignKey("hosts.id"), nullable=False),
    # Its name on the host: another project may have the same name already.
    Column("host_name", String(63), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("mem_mib", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("tier", String(16), nullable=False),
    Column("sandbox", String(20), nullable=False),
    Column("error", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", COUNTER, primary_key=True, autoincrement=True),
    Column("project", String(63), nullable=False),
    Column("sandbox", String(20), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_events_sandbox_id", "sandbox", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("result", String(63), nullable=False),
    Column("created_ms", BigInteger, nullable=False, index=True),
)

# What ran in each minute, for the older shape's statistics.
usage = Table(
    "usage",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("minute", BigInteger, primary_key=True),
    Column("running", Integer, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("mem_mib", Integer, nullable=False),
)
