"""The tables of the cache, and the steps that bring a database of an older summidx up to them.

The steps are a plain list, and no migration tool runs them: any process of any user opens the file, at any time and
several at once, and whoever comes first takes all steps in one transaction, under a lock, while the others wait.
A step that has been released is never edited: entries that were paid for lie in databases made by it.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from summidx.errors import CacheError

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE summidx_meta (name VARCHAR(64) NOT NULL PRIMARY KEY, value TEXT);
    CREATE TABLE summaries (
        key VARCHAR(64) NOT NULL PRIMARY KEY, content TEXT NOT NULL, digest VARCHAR(64) NOT NULL,
        status VARCHAR(16) NOT NULL, model TEXT NOT NULL, created_at VARCHAR(32) NOT NULL);
    CREATE TABLE vectors (
        key VARCHAR(64) NOT NULL PRIMARY KEY, content {bytes} NOT NULL, digest VARCHAR(64) NOT NULL,
        dim INTEGER NOT NULL, model TEXT NOT NULL, created_at VARCHAR(32) NOT NULL)
    """,
    """
    ALTER TABLE summaries ADD COLUMN used_on VARCHAR(10);
    ALTER TABLE vectors ADD COLUMN used_on VARCHAR(10);
    CREATE TABLE claims (key VARCHAR(64) NOT NULL PRIMARY KEY, owner VARCHAR(32) NOT NULL);
    CREATE TABLE claim_owners (owner VARCHAR(32) NOT NULL PRIMARY KEY, expires_at DOUBLE PRECISION NOT NULL);
    CREATE TABLE lookups (
        day VARCHAR(10) NOT NULL, kind VARCHAR(16) NOT NULL, lookups BIGINT NOT NULL, hits BIGINT NOT NULL,
        PRIMARY KEY (day, kind))
    """,
)
"""Step n (from 1) turns schema n - 1 into schema n; schema 0 is an empty database."""

SCHEMA_VERSION = len(STEPS)

_MIGRATION_LOCK = 7867311
"""Number of PostgreSQL's advisory lock around the steps; any constant would do, as long as it stays this one."""

_METADATA = sa.MetaData()
_META = sa.Table("summidx_meta", _METADATA, sa.Column("name", sa.String), sa.Column("value", sa.Text))
SUMMARIES = sa.Table(
    "summaries",
    _METADATA,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("content", sa.Text),
    sa.Column("digest", sa.String),
    sa.Column("status", sa.String),
    sa.Column("model", sa.Text),
    sa.Column("created_at", sa.String),
    sa.Column("used_on", sa.String),
)
VECTORS = sa.Table(
    "vectors",
    _METADATA,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("content", sa.LargeBinary),
    sa.Column("digest", sa.String),
    sa.Column("dim", sa.Integer),
    sa.Column("model", sa.Text),
    sa.Column("created_at", sa.String),
    sa.Column("used_on", sa.String),
)
CLAIMS = sa.Table("claims", _METADATA, sa.Column("key", sa.String, primary_key=True), sa.Column("owner", sa.String))
CLAIM_OWNERS = sa.Table(
    "claim_owners",
    _METADATA,
    sa.Column("owner", sa.String, primary_key=True),
    sa.Column("expires_at", sa.Double),
)
LOOKUPS = sa.Table(
    "lookups",
    _METADATA,
    sa.Column("day", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("lookups", sa.BigInteger),
    sa.Column("hits", sa.BigInteger),
)

TABLE_NAMES = tuple(_METADATA.tables)


def read_version(connection: sa.Connection) -> int:
    """The schema of the database; 0: it holds no cache yet.

    Raises:
        CacheError: it was made by a newer summidx.
    """
    if not sa.inspect(connection).has_table(_META.name):
        return 0
    found = connection.execute(sa.select(_META.c.value).where(_META.c.name == "schema")).scalar_one_or_none()
    version = int(found) if found and found.isdecimal() else 0
    if version > SCHEMA_VERSION:
        raise CacheError(
            f"the cache has schema {version}, and this summidx reads {SCHEMA_VERSION}: install a newer "
            "summidx, or set `cache.url` to another place"
        )
    return version


def migrate(connection: sa.Connection) -> None:
    """Bring the database up to `SCHEMA_VERSION`, keeping what is in it, in the transaction of `connection`.

    Raises:
        CacheError: it was made by a newer summidx.
    """
    is_postgresql = connection.dialect.name == "postgresql"
    if is_postgresql:  # SQLite's writers are one at a time anyway; this lock is let go at commit
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    version = read_version(connection)
    if version == SCHEMA_VERSION:
        return
    for step in STEPS[version:]:
        for statement in step.split(";"):
            connection.execute(sa.text(statement.format(bytes="BYTEA" if is_postgresql else "BLOB")))
    insert = postgresql.insert if is_postgresql else sqlite.insert
    new = {"value": str(SCHEMA_VERSION)}
    connection.execute(
        insert(_META).values(name="schema", **new).on_conflict_do_update(index_elements=["name"], set_=new)
    )
