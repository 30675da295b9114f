"""Makes the database and brings its tables to what this version needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from wrennd.control.store.engines import make_engine
from wrennd.core.errors import InvalidInput, Unavailable

SCRIPTS = Path(__file__).with_name("migrations")


def migrate(url: str, to: str = "head") -> None:
    """Create the database's file if it is SQLite and missing, and run what is not yet run.

    to: the revision, by default the newest.
    Errors: OSError for a file that can't be made; InvalidInput, also for a database of a newer
    version; Unavailable.
    """
    engine = make_engine(url, statement_s=0)  # large tables take their time
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        path = Path(parsed.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, to)
    except CommandError as error:
        raise InvalidInput(
            f"this database is not of this version: {error}",
            hint="it was made by a newer one; install that again",
        ) from error
    except SQLAlchemyError as error:
        reason = str(error).split("\n")[0]
        raise Unavailable(
            f"the database can't be used: {reason}", hint="is it there, and may we in?"
        ) from error
    finally:
        engine.dispose()
