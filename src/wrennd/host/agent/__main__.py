"""`python -m wrennd.host.agent`: reads what it is told, and serves."""

import faulthandler
import logging
import sys
from typing import NoReturn

from wrennd.core import log
from wrennd.core.config import Config
from wrennd.core.errors import Error
from wrennd.host.agent import options, server

FAILED = 1


def main() -> NoReturn:
    """Exits with 0 behind a signal, 1 with a sentence when it can't serve, 2 for wrong usage."""
    faulthandler.enable()  # a crash in a C part says where, on stderr
    try:
        told = options.parse(sys.argv[1:], Config.from_environ(log_level="info"))
        config = told.config
        log.configure(
            level=config.log_level, form="json" if config.log_form == "json" else "console"
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        server.run(told)
    except Error as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"wrenn host agent: {error}{hint}\n")
        sys.exit(FAILED)
    sys.exit(0)


if __name__ == "__main__":
    main()
