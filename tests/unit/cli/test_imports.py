"""What a command that needs no server must not pay for."""

import subprocess
import sys

SERVER_ONLY = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "httpx", "websockets", "pydantic")


def test_commands_are_put_together_without_what_the_server_stands_on():
    program = "import sys, wrennd.cli.commands; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert loaded.isdisjoint(SERVER_ONLY)
