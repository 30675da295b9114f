"""What a command that needs no server must not pay for."""

import subprocess
import sys

SERVER_ONLY = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "httpx", "websockets", "pydantic")


def test_commands_are_put_together_without_what_the_server_stands_on():
    program = (
        "import sys; from wrennd.cli.commands import app_for; app_for(()); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert loaded.isdisjoint(SERVER_ONLY)


def test_one_command_is_read_without_the_others():
    program = "import sys; from wrennd.cli.commands import app_for; app_for(['run', '--', 'df']); "
    done = subprocess.run(
        [sys.executable, "-c", program + "print(*sys.modules)"], capture_output=True, check=True
    )
    loaded = {name for name in done.stdout.decode().split() if name.startswith("wrennd.cli.")}
    assert "wrennd.cli.run" in loaded
    assert loaded.isdisjoint({f"wrennd.cli.{name}" for name in ("df", "forward", "create", "up")})
