"""The command line."""

import pytest

from wrennd.envd import VERSION
from wrennd.envd.__main__ import Options, main


def test_options():
    options = Options(["--port", "0", "--address=::1"])
    assert (options.port, options.address, options.listen_fd) == (0, "::1", -1)
    assert Options([]).port == 49983


@pytest.mark.parametrize("argv", [["--port"], ["--port=x"], ["--port", "65536"], ["x=1"]])
def test_bad_options(argv):
    with pytest.raises(ValueError, match=r"."):
        Options(argv)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{VERSION}\n"
    assert main(["--help"]) == 0
    assert main(["--what"]) == 2
