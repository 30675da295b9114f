"""Makes the database and brings its tables to what this version needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import make_url

from wrennd.control.store.database import make_engine

SCRIPTS = Path(__file__).with_name("migrations")


def migrate(url: str) -> None:
    """Create the database's file if it is SQLite and missing, and run what is not yet run.

    Errors: OSError for a file that can't be made; InvalidInput; SQLAlchemyError.
    """
    engine = make_engine(url)
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
            command.upgrade(config, "head")
    finally:
        engine.dispose()
